import { Alert, Badge, Text } from "@mantine/core";
import type { Connection, FeedState } from "./feed.js";

const words: Record<Connection, { readonly color: string; readonly label: string }> = {
  connecting: { color: "gray", label: "Connecting" },
  connected: { color: "bamboo.4", label: "Live" },
  lost: { color: "orange", label: "Reconnecting …" },
  closed: { color: "gray", label: "Not connected" },
};

/** Whether what is on the page is what happens now. */
export function ConnectionBadge({ of }: { of: FeedState }) {
  const { color, label } = words[of.connection];
  return (
    <Badge variant="dot" color={color} tt="none" size="lg" role="status" miw="max-content">
      {label}
    </Badge>
  );
}

/** Shown only while the connection is lost. */
export function ConnectionLost({ of, note }: { of: FeedState; note: string }) {
  if (of.connection !== "lost") return null;
  return (
    <Alert color="yellow" variant="outline" title="The connection is lost" mb="lg" role="alert">
      <Text size="sm">
        Reconnecting … {note} {of.problem !== undefined && `(${of.problem})`}
      </Text>
    </Alert>
  );
}
