import { Alert, Button, Group, Modal, Stack, Text } from "@mantine/core";
import type { ReactNode } from "react";
import { Snippet } from "./copy.js";

/** A key's secret, for the only time: the server never shows it again. */
export function Secret({
  keyId,
  secret,
  note,
  onClose,
}: {
  keyId: string;
  secret: string;
  note?: ReactNode;
  onClose: () => void;
}) {
  return (
    <Modal
      opened
      onClose={onClose}
      title="The key’s secret"
      size="lg"
      centered
      closeOnClickOutside={false}
      closeButtonProps={{ "aria-label": "Close" }}
    >
      <Stack>
        <Alert color="yellow" variant="outline" title="It is shown only now">
          <Text size="sm">
            Copy it to where your server keeps its secrets. Whoever lost it makes a new one with
            “rotate”. {note}
          </Text>
        </Alert>
        <Snippet title="Key id" code={keyId} />
        <div className="wrapped">
          <Snippet title="Secret" code={secret} />
        </div>
        <Group justify="flex-end">
          <Button onClick={onClose} data-autofocus>
            I have kept it
          </Button>
        </Group>
      </Stack>
    </Modal>
  );
}
