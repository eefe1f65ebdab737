import { Anchor, Button, Grid, Group, Paper, Stack, Text, Title } from "@mantine/core";
import { useState } from "react";
import { Link } from "react-router";
import type { ApplicationDetail, CreatedKey } from "../api.js";
import { useCreateKey } from "../queries.js";
import { Snippet } from "../ui/copy.js";
import { Problem } from "../ui/problem.js";
import { curl, page } from "./snippets.js";

/** The shortest way from nothing to a message that arrives, for this very application. */
export function FirstSteps({ app }: { app: ApplicationDetail }) {
  const create = useCreateKey(app.id);
  const [key, setKey] = useState<CreatedKey>();
  const { origin } = window.location;
  const channel = `/${app.id}/public/hello`;
  const live = `/apps/${app.id}/live?${new URLSearchParams({ listen: channel, channel })}`;

  return (
    <Paper withBorder p="lg" component="section" mt="xs">
      <Title order={2} size="h4">
        Send a first message
      </Title>
      <Text c="dimmed" size="sm" mb="md">
        One page listens, one command publishes. Both are written for this application.
      </Text>
      <Grid gap="lg">
        <Grid.Col span={{ base: 12, lg: 6 }}>
          <Stack gap="sm">
            <Text fw={600}>1. Listen in a page</Text>
            <Snippet title="HTML" code={page({ origin, channel })} />
            <Text size="sm">
              Or{" "}
              <Anchor component={Link} to={live} target="_blank">
                listen in the live console, in another tab
              </Anchor>
              .
            </Text>
          </Stack>
        </Grid.Col>
        <Grid.Col span={{ base: 12, lg: 6 }}>
          <Stack gap="sm">
            <Text fw={600}>2. Publish from anywhere</Text>
            <Snippet
              title="Terminal"
              code={curl({ origin, channel, data: '{"text": "hello"}', key })}
            />
            {key === undefined ? (
              <Group gap="sm">
                <Button
                  size="xs"
                  variant="default"
                  loading={create.isPending}
                  onClick={() =>
                    create.mutate(
                      { purpose: "first steps", expires: inDays(30) },
                      { onSuccess: setKey },
                    )
                  }
                >
                  Make a key for this command
                </Button>
                <Text size="xs" c="dimmed">
                  valid for 30 days, revocable under Keys
                </Text>
              </Group>
            ) : (
              <Text size="sm" role="status">
                The command now holds the new key’s secret, which is not shown again: copy it before
                you leave this page.
              </Text>
            )}
            {create.error !== null && <Problem error={create.error} />}
          </Stack>
        </Grid.Col>
      </Grid>
    </Paper>
  );
}

function inDays(days: number): string {
  return new Date(Date.now() + days * 86_400_000).toISOString();
}
