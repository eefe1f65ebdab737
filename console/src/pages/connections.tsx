import { Badge, Button, Group, Skeleton, Table, Text, Tooltip } from "@mantine/core";
import { notifications } from "@mantine/notifications";
import { useState } from "react";
import type { LiveConnection } from "../api.js";
import { useDisconnect, useLive } from "../queries.js";
import { Confirm } from "../ui/confirm.js";
import { Empty } from "../ui/empty.js";
import { Heading } from "../ui/heading.js";
import { Pages, useListPlace } from "../ui/paging.js";
import { Problem } from "../ui/problem.js";
import { Search } from "../ui/search.js";
import { When } from "../ui/time.js";
import { Wide } from "../ui/wide.js";
import { useThisApplication } from "./application.js";

/** How many subscriptions of a connection are shown by name. */
const maxNames = 3;

export function Connections() {
  const { app } = useThisApplication();
  const { search, page, window, set } = useListPlace();
  const { limit, offset } = window;
  const { data, error, refetch } = useLive<LiveConnection>(app.id, "connections", {
    search,
    limit,
    offset,
  });
  const [chosen, setChosen] = useState<LiveConnection>();
  const disconnect = useDisconnect(app.id);

  return (
    <>
      <Heading title="Connections" about="Clients with a subscription in this application." />
      <Search
        label="Search connections"
        placeholder="Search by channel, presence id, address or browser"
        value={search}
        onChange={(next) => set({ search: next, page: "" })}
      />
      {error !== null && <Problem error={error} onRetry={() => refetch()} />}
      {data === undefined && error === null && <Skeleton height={180} />}
      {data?.total === 0 && (
        <Empty title={search === "" ? "Nobody is connected now" : "No connection matches"}>
          A connection appears here with its first subscription in this application, and leaves when
          its client disconnects or has been silent for too long.
        </Empty>
      )}
      {data !== undefined && data.total > 0 && (
        <>
          <Wide label="Connections" minWidth={760}>
            <Table verticalSpacing="xs" highlightOnHover>
              <Table.Thead>
                <Table.Tr>
                  <Table.Th>Transport</Table.Th>
                  <Table.Th>Since</Table.Th>
                  <Table.Th>Client</Table.Th>
                  <Table.Th>Present as</Table.Th>
                  <Table.Th>Subscriptions</Table.Th>
                  <Table.Th>
                    <span className="hidden">Actions</span>
                  </Table.Th>
                </Table.Tr>
              </Table.Thead>
              <Table.Tbody>
                {data.items.map((connection) => (
                  <Row
                    key={connection.id}
                    {...connection}
                    onDisconnect={() => setChosen(connection)}
                  />
                ))}
              </Table.Tbody>
            </Table>
          </Wide>
          <Pages total={data.total} page={page} onChange={(next) => set({ page: String(next) })}>
            {data.total === 1 ? "1 connection" : `${data.total} connections`}
          </Pages>
        </>
      )}
      {chosen !== undefined && (
        <Confirm
          title="Disconnect this client?"
          action="Disconnect"
          onClose={() => setChosen(undefined)}
          onConfirm={async () => {
            await disconnect.mutateAsync(chosen.id);
            setChosen(undefined);
            notifications.show({ message: "The client is disconnected from this application." });
          }}
        >
          <Text size="sm">
            Its {chosen.subscriptions.length === 1 ? "subscription ends" : "subscriptions end"} in
            this application, and it is told so. It may subscribe again as long as it has a token
            that permits it: to keep somebody out, stop giving tokens or revoke the key.
          </Text>
        </Confirm>
      )}
    </>
  );
}

function Row({
  id,
  transport,
  since,
  user_agent,
  address,
  subscriptions,
  presence,
  onDisconnect,
}: LiveConnection & { onDisconnect: () => void }) {
  const rest = subscriptions.length - maxNames;
  return (
    <Table.Tr>
      <Table.Td>
        <Badge variant="default" tt="none">
          {transport}
        </Badge>
      </Table.Td>
      <Table.Td>
        <When at={since} />
      </Table.Td>
      <Table.Td maw={220}>
        <Tooltip label={user_agent ?? "It does not say what it is"} multiline maw={420}>
          <Text size="sm" truncate="end">
            {shortAgent(user_agent)}
          </Text>
        </Tooltip>
        <Text size="xs" c="dimmed" className="code">
          {address ?? "this machine"} · {id}
        </Text>
      </Table.Td>
      <Table.Td className="code">{presence.length === 0 ? "–" : presence.join(", ")}</Table.Td>
      <Table.Td>
        <Tooltip
          label={subscriptions.join("\n")}
          multiline
          maw={480}
          disabled={rest <= 0}
          style={{ whiteSpace: "pre-line" }}
        >
          <Group gap={4}>
            {subscriptions.slice(0, maxNames).map((name) => (
              <span key={name} className="code">
                {name.slice(name.indexOf("/", 1))}
              </span>
            ))}
            {rest > 0 && (
              <Text span size="xs" c="dimmed">
                and {rest} more
              </Text>
            )}
          </Group>
        </Tooltip>
      </Table.Td>
      <Table.Td ta="right">
        <Button
          size="compact-sm"
          variant="default"
          onClick={onDisconnect}
          aria-label={`Disconnect ${id}`}
        >
          Disconnect
        </Button>
      </Table.Td>
    </Table.Tr>
  );
}

/** Such as `Chrome 143 on Linux`; what is no browser is shown as it is. */
export function shortAgent(agent: string | null): string {
  if (agent === null || agent === "") return "unknown";
  const browser = /(Edg|OPR|Firefox|Chrome|Version)\/(\d+)/.exec(
    // Edge and Opera call themselves Chrome, too, and say who they are behind it.
    agent.replace(/Chrome\/\S+(?=.*\b(?:Edg|OPR)\/)/, ""),
  );
  if (browser === null || !agent.startsWith("Mozilla/")) return agent;
  const names: Record<string, string> = { Edg: "Edge", OPR: "Opera", Version: "Safari" };
  const [, name = "", version = ""] = browser;
  const system = /(Android|iPhone|iPad|Windows|Mac OS X|CrOS|Linux)/.exec(agent)?.[1];
  const place = system === undefined ? "" : ` on ${system === "Mac OS X" ? "macOS" : system}`;
  return `${names[name] ?? name} ${version}${place}`;
}
