import { Alert, Button, Text } from "@mantine/core";
import { IconAlertTriangle } from "@tabler/icons-react";

/** What went wrong, and what to do about it. */
export function Problem({ error, onRetry }: { error: Error; onRetry?: () => void }) {
  return (
    <Alert
      color="alarm"
      variant="outline"
      icon={<IconAlertTriangle aria-hidden />}
      title="That did not work"
      role="alert"
    >
      <Text size="sm">{error.message}</Text>
      {onRetry !== undefined && (
        <Button mt="sm" size="xs" variant="default" onClick={onRetry}>
          Try again
        </Button>
      )}
    </Alert>
  );
}
