import { Badge, Button, Group, Skeleton, Text, Tooltip } from "@mantine/core";
import { notifications } from "@mantine/notifications";
import { useState } from "react";
import type { LiveConnection } from "../api.js";
import { useDisconnect, useLive } from "../queries.js";
import { Confirm } from "../ui/confirm.js";
import { type Column, DataTable } from "../ui/data-table.js";
import { Empty } from "../ui/empty.js";
import { Heading } from "../ui/heading.js";
import { Incomplete } from "../ui/incomplete.js";
import { Name } from "../ui/name.js";
import { maxLiveOffset, Pages, useListPlace } from "../ui/paging.js";
import { Problem } from "../ui/problem.js";
import { Search } from "../ui/search.js";
import { isolate, shorten } from "../ui/text.js";
import { When } from "../ui/time.js";
import { useThisApplication } from "./application.js";

/** How many subscriptions of a connection are shown by name. */
const maxNames = 3;

export function Connections() {
  const { app } = useThisApplication();
  const place = useListPlace(maxLiveOffset);
  const { search, window, set } = place;
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
        placeholder="Channel, presence id, address, browser"
        value={search}
        onChange={(next) => set({ search: next, page: "" })}
      />
      {error !== null && <Problem error={error} onRetry={() => refetch()} />}
      <Incomplete of={data} />
      {data === undefined && error === null && <Skeleton height={180} />}
      {data?.total === 0 && (
        <Empty title={search === "" ? "Nobody is connected now" : "No connection matches"}>
          A connection appears here with its first subscription in this application, and leaves when
          its client disconnects or has been silent for too long.
        </Empty>
      )}
      {data !== undefined && data.total > 0 && (
        <>
          <DataTable
            label="Connections"
            rows={data.items}
            keyOf={({ id }) => id}
            columns={[
              ...columns,
              {
                name: "",
                cell: (connection) => (
                  <Button
                    size="compact-sm"
                    variant="default"
                    onClick={() => setChosen(connection)}
                    aria-label={`Disconnect ${connection.id}`}
                  >
                    Disconnect
                  </Button>
                ),
              },
            ]}
          />
          <Pages total={data.total} place={place}>
            {data.total === 1 ? "1 connection" : `${data.total} connections`}
          </Pages>
        </>
      )}
      {chosen !== undefined && (
        <Confirm
          title={
            <>
              Disconnect <bdi>{shorten(chosen.presence[0] ?? shortAgent(chosen.user_agent))}</bdi>,{" "}
              {chosen.id}?
            </>
          }
          action="Disconnect"
          onClose={() => setChosen(undefined)}
          onConfirm={async () => {
            await disconnect.mutateAsync(chosen.id);
            setChosen(undefined);
            notifications.show({ message: "The client is disconnected from this application." });
          }}
        >
          <Text size="sm">
            Its {chosen.subscription_count === 1 ? "subscription ends" : "subscriptions end"} in
            this application, and it is told so. It may subscribe again as long as it has a token
            that permits it: to keep somebody out, stop giving tokens or revoke the key.
          </Text>
        </Confirm>
      )}
    </>
  );
}

const columns: readonly Column<LiveConnection>[] = [
  {
    name: "Transport",
    cell: ({ transport }) => (
      <Badge variant="default" tt="none" miw="max-content">
        {transport === "none" ? "lost for now" : transport}
      </Badge>
    ),
  },
  { name: "Since", cell: ({ since }) => <When at={since} /> },
  {
    name: "Client",
    cell: ({ id, user_agent, address, subscriptions }) => (
      <>
        {subscriptions.some((name) => name.endsWith("/meta/statistics")) && (
          <Badge variant="default" tt="none" miw="max-content">
            a console
          </Badge>
        )}
        <Tooltip label={user_agent ?? "It does not say what it is"} multiline maw={420}>
          <Text size="sm" truncate="end" maw={240}>
            {shortAgent(user_agent)}
          </Text>
        </Tooltip>
        <Text size="xs" c="dimmed" className="code">
          {address ?? "no address"} · <span className="id">{id}</span>
        </Text>
      </>
    ),
  },
  {
    name: "Present as",
    cell: ({ presence }) => (
      <div className="code">
        <Name width={12}>{presence.length === 0 ? "–" : presence.map(isolate).join(", ")}</Name>
      </div>
    ),
  },
  { name: "Subscriptions", cell: (connection) => <Subscriptions {...connection} /> },
];

function Subscriptions({ subscriptions, subscription_count }: LiveConnection) {
  const rest = subscription_count - maxNames;
  return (
    <Tooltip
      label={subscriptions.join("\n")}
      multiline
      maw={480}
      disabled={rest <= 0}
      style={{ whiteSpace: "pre-line" }}
    >
      <Group gap={8}>
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
