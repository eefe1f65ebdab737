import { ActionIcon, Button, CopyButton, Group, Paper, Text, Tooltip } from "@mantine/core";
import { IconCheck, IconCopy } from "@tabler/icons-react";

/** @param what names what is copied, for the tooltip and screen readers */
export function Copy({ text, what }: { text: string; what: string }) {
  return (
    <CopyButton value={text} timeout={2000}>
      {({ copied, copy }) => (
        <Tooltip label={copied ? "Copied" : `Copy ${what}`}>
          <ActionIcon
            variant="subtle"
            color="gray"
            size="sm"
            aria-label={copied ? `Copied ${what}` : `Copy ${what}`}
            onClick={copy}
          >
            {copied ? <IconCheck size={14} aria-hidden /> : <IconCopy size={14} aria-hidden />}
          </ActionIcon>
        </Tooltip>
      )}
    </CopyButton>
  );
}

/** Code to paste somewhere else. */
export function Snippet({ code, title }: { code: string; title: string }) {
  return (
    <Paper withBorder p={0} radius="md" style={{ overflow: "hidden" }}>
      <Group justify="space-between" px="sm" py={6} wrap="nowrap">
        <Text size="sm" fw={600}>
          {title}
        </Text>
        <CopyButton value={code} timeout={2000}>
          {({ copied, copy }) => (
            <Button
              size="compact-xs"
              variant="default"
              onClick={copy}
              aria-label={copied ? `Copied ${title}` : `Copy ${title}`}
            >
              {copied ? "Copied" : "Copy"}
            </Button>
          )}
        </CopyButton>
      </Group>
      {/* Scrolls sideways, so it must be in reach of the keyboard. */}
      <section className="snippet" tabIndex={0} aria-label={title}>
        <pre className="code">{code}</pre>
      </section>
    </Paper>
  );
}
