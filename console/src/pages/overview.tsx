import { AreaChart } from "@mantine/charts";
import {
  Alert,
  Anchor,
  Badge,
  Grid,
  Group,
  Paper,
  SimpleGrid,
  Skeleton,
  Stack,
  Table,
  Text,
  Title,
} from "@mantine/core";
import { type ReactNode, useState } from "react";
import { Link } from "react-router";
import { consolePurpose, type LiveChannel, type LiveRefusal } from "../api.js";
import type { Sample } from "../live/feed.js";
import { FirstSteps } from "../live/first-steps.js";
import { useLive } from "../queries.js";
import { Copy } from "../ui/copy.js";
import { Heading } from "../ui/heading.js";
import { Problem } from "../ui/problem.js";
import { When } from "../ui/time.js";
import { Wide } from "../ui/wide.js";
import { useFeed, useThisApplication } from "./application.js";

/** `/admin/apps/:id`: what happens in the application now. */
export function Overview() {
  const { app, feed } = useThisApplication();
  const { samples, isConnected, error } = useFeed(feed);
  const last = samples.at(-1);
  // Not taken away while somebody is at it.
  const [isNew] = useState(() =>
    app.keys.every(({ use_count, purpose }) => use_count === 0 || purpose === consolePurpose),
  );

  return (
    <>
      <Heading
        title={app.name ?? app.id}
        about={
          <Group gap={4}>
            <span className="code">{app.id}</span>
            <Copy text={app.id} what="the application’s id" />
          </Group>
        }
      >
        <Badge variant="dot" color={isConnected ? "bamboo" : "gray"} tt="none" size="lg">
          {isConnected ? "Live" : "Connecting"}
        </Badge>
      </Heading>
      <Stack gap="lg">
        {error !== undefined && (
          <Alert color="yellow" variant="outline" title="No live numbers">
            <Text size="sm">{error.message}</Text>
          </Alert>
        )}
        {isNew && <FirstSteps app={app} />}
        <SimpleGrid cols={{ base: 1, xs: 2, lg: 4 }}>
          <Figure name="Connections" value={last?.connections} samples={samples} of="connections" />
          <Figure
            name="Subscriptions"
            value={last?.subscriptions}
            samples={samples}
            of="subscriptions"
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

const clock = new Intl.DateTimeFormat("en", { timeStyle: "medium" });

function Figure({
  name,
  value,
  samples,
  of,
}: {
  name: string;
  value: number | undefined;
  samples: readonly Sample[];
  of: keyof Sample;
}) {
  return (
    <Paper withBorder p="md" component="section" aria-label={name}>
      <Text size="sm" c="dimmed">
        {name}
      </Text>
      {value === undefined ? (
        <Skeleton height={34} width={90} my={4} />
      ) : (
        <Text fz={28} fw={650} lh={1.3}>
          {value.toLocaleString("en", { maximumFractionDigits: 1 })}
        </Text>
      )}
      {/* The figure above says it in words. */}
      <div aria-hidden="true">
        <AreaChart
          h={90}
          data={samples.map((sample) => ({ at: clock.format(sample.at), [name]: sample[of] }))}
          dataKey="at"
          series={[{ name, color: "bamboo.6" }]}
          curveType="linear"
          withXAxis={false}
          withYAxis={false}
          withDots={samples.length < 2}
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
  const { data, error, refetch } = useLive<LiveChannel>(app.id, "channels", { limit: 6 });
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
      {data === undefined && error === null && <Skeleton height={80} />}
      {data?.total === 0 && <Text c="dimmed">Nobody listens to a channel now.</Text>}
      {data !== undefined && data.total > 0 && (
        <Table>
          <Table.Thead>
            <Table.Tr>
              <Table.Th>Channel</Table.Th>
              <Table.Th ta="right">Subscribers</Table.Th>
            </Table.Tr>
          </Table.Thead>
          <Table.Tbody>
            {data.items.map(({ channel, subscribers }) => (
              <Table.Tr key={channel}>
                <Table.Td className="code">{channel.slice(app.id.length + 1)}</Table.Td>
                <Table.Td ta="right">{subscribers}</Table.Td>
              </Table.Tr>
            ))}
          </Table.Tbody>
        </Table>
      )}
    </Card>
  );
}

function Refusals() {
  const { app } = useThisApplication();
  const { data, error, refetch } = useLive<LiveRefusal>(app.id, "refusals", { limit: 8 });
  return (
    <Card title="Recent refusals">
      {error !== null && <Problem error={error} onRetry={() => refetch()} />}
      {data === undefined && error === null && <Skeleton height={80} />}
      {data?.items.length === 0 && (
        <Text c="dimmed">
          Nothing has been refused lately. What is appears here, with its reason.
        </Text>
      )}
      {data !== undefined && data.items.length > 0 && (
        <Wide label="Recent refusals" minWidth={480}>
          <Table>
            <Table.Thead>
              <Table.Tr>
                <Table.Th>When</Table.Th>
                <Table.Th>What</Table.Th>
                <Table.Th>Reason</Table.Th>
                <Table.Th ta="right">Times</Table.Th>
              </Table.Tr>
            </Table.Thead>
            <Table.Tbody>
              {data.items.map((refusal) => (
                <Table.Tr
                  key={`${refusal.action} ${refusal.channel} ${refusal.message} ${refusal.key_id}`}
                >
                  <Table.Td>
                    <When at={refusal.last_at} />
                  </Table.Td>
                  <Table.Td>
                    <Text size="sm">{refusal.action}</Text>
                    <span className="code">{refusal.channel ?? ""}</span>
                  </Table.Td>
                  <Table.Td>
                    <Text size="sm" fw={600}>
                      {refusal.message}
                    </Text>
                    {refusal.details !== null && (
                      <Text size="xs" c="dimmed">
                        {refusal.details}
                      </Text>
                    )}
                    {refusal.key_id !== null && (
                      <Text size="xs" c="dimmed">
                        key <span className="code">{refusal.key_id}</span>
                      </Text>
                    )}
                  </Table.Td>
                  <Table.Td ta="right">{refusal.count}</Table.Td>
                </Table.Tr>
              ))}
            </Table.Tbody>
          </Table>
        </Wide>
      )}
    </Card>
  );
}
