import { AreaChart } from "@mantine/charts";
import {
  Alert,
  Anchor,
  Grid,
  Group,
  Paper,
  SimpleGrid,
  Skeleton,
  Stack,
  Text,
  Title,
} from "@mantine/core";
import { type ReactNode, useState } from "react";
import { Link } from "react-router";
import { consolePurpose, type LiveChannel, type LiveRefusal } from "../api.js";
import { ConnectionBadge, ConnectionLost } from "../live/connection.js";
import type { Sample } from "../live/feed.js";
import { FirstSteps } from "../live/first-steps.js";
import { useLive } from "../queries.js";
import { Copy } from "../ui/copy.js";
import { DataTable } from "../ui/data-table.js";
import { Heading } from "../ui/heading.js";
import { Incomplete } from "../ui/incomplete.js";
import { Problem } from "../ui/problem.js";
import { nameOr } from "../ui/text.js";
import { timeOfDay, When } from "../ui/time.js";
import { useFeed, useThisApplication } from "./application.js";

/** `/admin/apps/:id`: what happens in the application now. */
export function Overview() {
  const { app, feed } = useThisApplication();
  const now = useFeed(feed);
  const { samples, error } = now;
  const last = samples.at(-1);
  // Not taken away while somebody is at it.
  const [isNew] = useState(() =>
    app.keys.every(({ use_count, purpose }) => use_count === 0 || purpose === consolePurpose),
  );

  return (
    <>
      <Heading
        title={nameOr(app.name, app.id)}
        about={
          <Group gap={4}>
            <span className="code">{app.id}</span>
            <Copy text={app.id} what="the application’s id" />
          </Group>
        }
      >
        <ConnectionBadge of={now} />
      </Heading>
      <ConnectionLost of={now} note="The numbers are those from before." />
      <Stack gap="lg">
        {error !== undefined && (
          <Alert color="yellow" variant="outline" title="No live numbers">
            <Text size="sm">{error.message}</Text>
          </Alert>
        )}
        {isNew && <FirstSteps app={app} />}
        <SimpleGrid cols={{ base: 1, xs: 2, lg: 4 }}>
          <Figure
            name="Connections"
            value={last?.connections}
            samples={samples}
            of="connections"
            note="this page included"
          />
          <Figure
            name="Subscriptions"
            value={last?.subscriptions}
            samples={samples}
            of="subscriptions"
            note="this page included"
          />
          <Figure
            name="Published per second"
            value={last?.publishedPerSecond}
            samples={samples}
            of="publishedPerSecond"
          />
          <Figure
            name="Delivered per second"
            value={last?.deliveredPerSecond}
            samples={samples}
            of="deliveredPerSecond"
          />
        </SimpleGrid>
        <Grid gap="lg">
          <Grid.Col span={{ base: 12, lg: 5 }}>
            <Busiest />
          </Grid.Col>
          <Grid.Col span={{ base: 12, lg: 7 }}>
            <Refusals />
          </Grid.Col>
        </Grid>
        {!isNew && (
          <details>
            <summary>How to publish and listen, as code</summary>
            <FirstSteps app={app} />
          </details>
        )}
      </Stack>
    </>
  );
}

function Figure({
  name,
  value,
  samples,
  of,
  note,
}: {
  name: string;
  value: number | undefined;
  samples: readonly Sample[];
  of: keyof Sample;
  note?: string;
}) {
  // One value is a line, too.
  const line = samples.length === 1 ? [...samples, ...samples] : samples;
  return (
    <Paper withBorder p="md" component="section" aria-label={name}>
      <Text size="sm" c="dimmed">
        {name}
      </Text>
      {value === undefined ? (
        <Skeleton height={34} width={90} my={4} />
      ) : (
        <Group gap={6} align="baseline">
          <Text fz={28} fw={650} lh={1.3}>
            {value.toLocaleString("en", { maximumFractionDigits: 1 })}
          </Text>
          {note !== undefined && (
            <Text span size="xs" c="dimmed">
              {note}
            </Text>
          )}
        </Group>
      )}
      {/* The figure above says it in words. */}
      <div aria-hidden="true">
        <AreaChart
          h={90}
          data={line.map((sample) => ({ at: timeOfDay(sample.at), [name]: sample[of] }))}
          dataKey="at"
          series={[{ name, color: "bamboo.5" }]}
          curveType="linear"
          withXAxis={false}
          withYAxis={false}
          withDots={false}
          gridAxis="none"
          strokeWidth={2}
          yAxisProps={{ domain: [0, "auto"] }}
          areaChartProps={{ accessibilityLayer: false }}
        />
      </div>
    </Paper>
  );
}

function Card({ title, more, children }: { title: string; more?: ReactNode; children: ReactNode }) {
  return (
    <Paper withBorder p="md" component="section" h="100%">
      <Group justify="space-between" mb="xs">
        <Title order={2} size="h4">
          {title}
        </Title>
        {more}
      </Group>
      {children}
    </Paper>
  );
}

function Busiest() {
  const { app } = useThisApplication();
  // Only consoles hear that.
  const statistics = `/${app.id}/meta/statistics`;
  const { data, error, refetch } = useLive<LiveChannel>(app.id, "channels", { limit: 7 });
  const isQuiet = data?.items.every(({ channel }) => channel === statistics) === true;
  return (
    <Card
      title="Busiest channels"
      more={
        <Anchor component={Link} to="channels" size="sm">
          All channels
        </Anchor>
      }
    >
      {error !== null && <Problem error={error} onRetry={() => refetch()} />}
      <Incomplete of={data} />
      {data === undefined && error === null && <Skeleton height={80} />}
      {isQuiet && <Text c="dimmed">Nobody listens to a channel now.</Text>}
      {data !== undefined && !isQuiet && (
        <DataTable
          label="Busiest channels"
          rows={data.items.filter(({ channel }) => channel !== statistics)}
          keyOf={({ channel }) => channel}
          columns={[
            {
              name: "Channel",
              cell: ({ channel }) => <span className="code">{shorten(channel, app.id)}</span>,
            },
            { name: "Subscribers", isNumber: true, cell: ({ subscribers }) => subscribers },
          ]}
        />
      )}
    </Card>
  );
}

const actions: Readonly<Record<LiveRefusal["action"], string>> = {
  subscribe: "Subscribe",
  publish: "Publish",
  rest_publish: "Publish by REST",
  rest: "REST for back ends",
};

/** A channel without its application's id. */
function shorten(channel: string | null, appId: string): string {
  return channel?.startsWith(`/${appId}/`) === true
    ? channel.slice(appId.length + 1)
    : (channel ?? "");
}

function Refusals() {
  const { app } = useThisApplication();
  const { data, error, refetch } = useLive<LiveRefusal>(app.id, "refusals", { limit: 8 });
  return (
    <Card title="Recent refusals">
      {error !== null && <Problem error={error} onRetry={() => refetch()} />}
      <Incomplete of={data} />
      {data === undefined && error === null && <Skeleton height={80} />}
      {data?.items.length === 0 && (
        <Text c="dimmed">
          Nothing has been refused lately. Refused requests appear here, with the reason.
        </Text>
      )}
      {data !== undefined && data.items.length > 0 && (
        <DataTable
          label="Recent refusals"
          rows={data.items}
          keyOf={({ action, channel, message, key_id }) =>
            `${action} ${channel} ${message} ${key_id}`
          }
          columns={[
            { name: "When", cell: ({ last_at }) => <When at={last_at} /> },
            {
              name: "What",
              cell: ({ action, channel, key_id }) => (
                <>
                  <Text size="sm">{actions[action]}</Text>
                  <span className="code">{shorten(channel, app.id)}</span>
                  {key_id !== null && (
                    <Text size="xs" c="dimmed">
                      key <span className="code id">{key_id}</span>
                    </Text>
                  )}
                </>
              ),
            },
            {
              name: "Reason",
              cell: ({ message, details }) => (
                <>
                  <Text size="sm" fw={600}>
                    {message}
                  </Text>
                  <Text size="xs" c="dimmed">
                    {details}
                  </Text>
                </>
              ),
            },
            { name: "Times", isNumber: true, cell: ({ count }) => count },
          ]}
        />
      )}
    </Card>
  );
}
