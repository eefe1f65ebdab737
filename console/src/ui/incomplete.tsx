import { Alert, Text } from "@mantine/core";
import { IconAlertTriangle } from "@tabler/icons-react";

/** Says what is missing in a list, if anything is. */
export function Incomplete({
  of,
}: {
  of: { readonly incomplete: string | undefined } | undefined;
}) {
  if (of?.incomplete === undefined) return null;
  return (
    <Alert
      color="yellow"
      variant="outline"
      icon={<IconAlertTriangle aria-hidden />}
      title="This may not be all"
      role="status"
      mb="sm"
    >
      <Text size="sm">{of.incomplete}.</Text>
    </Alert>
  );
}
