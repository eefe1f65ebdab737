import { Paper, Stack, Text, Title } from "@mantine/core";
import type { ReactNode } from "react";

/** In place of a list that has nothing: says what would be in it, and how it gets there. */
export function Empty({ title, children }: { title: string; children?: ReactNode }) {
  return (
    <Paper withBorder p="xl" radius="md">
      <Stack gap="xs" align="flex-start" maw={620}>
        <Title order={2} size="h4">
          {title}
        </Title>
        {typeof children === "string" ? <Text c="dimmed">{children}</Text> : children}
      </Stack>
    </Paper>
  );
}
