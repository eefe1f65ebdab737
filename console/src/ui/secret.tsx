import { Alert, Button, Group, Stack, Text } from "@mantine/core";
import type { ReactNode } from "react";
import { Snippet } from "./copy.js";
import { Dialog } from "./dialog.js";

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
    <Dialog title="The key’s secret" size="lg">
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
        <div className="wrapped">
          <Snippet title="Both, as curl -u wants them" code={`${keyId}:${secret}`} />
        </div>
        <Group justify="flex-end">
          <Button onClick={onClose} data-autofocus>
            I have kept it
          </Button>
        </Group>
      </Stack>
    </Dialog>
  );
}
