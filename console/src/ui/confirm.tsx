import { Button, Group, Stack, TextInput } from "@mantine/core";
import { type FormEvent, type ReactNode, useState } from "react";
import { Dialog } from "./dialog.js";
import { Problem } from "./problem.js";
import { Submit } from "./submit.js";
import { readable } from "./text.js";

interface Props {
  readonly title: ReactNode;
  readonly children: ReactNode;
  /** What the button says. */
  readonly action: string;
  /** What has to be typed first, but for what cannot be seen. */
  readonly word?: string | undefined;
  readonly onClose: () => void;
  readonly onConfirm: () => Promise<unknown>;
}

/** Asks before something that cannot be taken back. Mounted: open. */
export function Confirm({ title, children, action, word, onClose, onConfirm }: Props) {
  const [typed, setTyped] = useState("");
  const [isBusy, setBusy] = useState(false);
  const [error, setError] = useState<Error>();
  const isReady = word === undefined || readable(typed) === readable(word);

  const submit = (event: FormEvent): void => {
    event.preventDefault();
    if (!isReady || isBusy) return;
    setBusy(true);
    setError(undefined);
    onConfirm().catch((failure: Error) => {
      setError(failure);
      setBusy(false);
    });
  };

  return (
    <Dialog title={title} onClose={onClose}>
      <form onSubmit={submit}>
        <Stack>
          {children}
          {word !== undefined && (
            <TextInput
              label={
                <>
                  Type <bdi className="code broken">{readable(word)}</bdi> to confirm
                </>
              }
              value={typed}
              onChange={(event) => setTyped(event.currentTarget.value)}
              autoComplete="off"
              data-autofocus
            />
          )}
          {error !== undefined && <Problem error={error} />}
          <Group justify="flex-end">
            <Button variant="default" onClick={onClose}>
              Cancel
            </Button>
            <Submit color="alarm" isReady={isReady} isBusy={isBusy}>
              {action}
            </Submit>
          </Group>
        </Stack>
      </form>
    </Dialog>
  );
}
