import { Anchor, Stack, Text, Title } from "@mantine/core";
import { Link, useRouteError } from "react-router";
import { Panda } from "./panda.js";

/** An address that leads nowhere, or a page that failed. */
export function Lost({
  title = "There is nothing here",
  message = "The address leads nowhere.",
}: {
  title?: string;
  message?: string;
}) {
  const error = useRouteError();
  if (error instanceof Error) console.error(error);
  return (
    <Stack align="flex-start" p="md" maw={560}>
      <Panda size={56} />
      <Title order={1} size="h2">
        {error instanceof Error ? "This page broke" : title}
      </Title>
      <Text>
        {error instanceof Error ? `${error.message}. Loading it again may help.` : message}
      </Text>
      <Anchor component={Link} to="/">
        To the applications
      </Anchor>
    </Stack>
  );
}
