import { Anchor, Badge, Button, Group, Modal, Skeleton, Text } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { Link } from "react-router";
import { get, type LiveChannel } from "../api.js";
import { useLive } from "../queries.js";
import { DataTable } from "../ui/data-table.js";
import { Empty } from "../ui/empty.js";
import { Heading } from "../ui/heading.js";
import { Pages, useListPlace } from "../ui/paging.js";
import { Problem } from "../ui/problem.js";
import { Search } from "../ui/search.js";
import { useUrlState } from "../ui/url-state.js";
import { useThisApplication } from "./application.js";

/** The channels that somebody is subscribed to, the busiest first. */
export function Channels() {
  const { app } = useThisApplication();
  const { search, page, window, set } = useListPlace();
  const { value } = useUrlState();
  const { limit, offset } = window;
  // People paste whole channels.
  const ownPrefix = `/${app.id}/`;
  const prefix = search.startsWith(ownPrefix) ? search.slice(ownPrefix.length) : search;
  const { data, error, refetch } = useLive<LiveChannel>(app.id, "channels", {
    prefix: prefix.replace(/^\//, ""),
    limit,
    offset,
  });
  const room = value("members");
  return (
    <>
      <Heading
        title="Channels"
        about="Those that somebody is subscribed to now; patterns are listed by their own names."
      />
      <Search
        label="Show channels that begin with"
        placeholder="Begins with, such as private/orders"
        value={search}
        onChange={(next) => set({ search: next, page: "" })}
      />
      {error !== null && <Problem error={error} onRetry={() => refetch()} />}
      {data === undefined && error === null && <Skeleton height={180} />}
      {data?.total === 0 && (
        <Empty title={search === "" ? "Nobody is listening now" : "No such channel is listened to"}>
          <Text c="dimmed">
            A channel exists while somebody is subscribed to it; nothing has to be created. Listen
            to one in the{" "}
            <Anchor component={Link} to={`/apps/${app.id}/live`}>
              live console
            </Anchor>{" "}
            and it appears here.
          </Text>
        </Empty>
      )}
      {data !== undefined && data.total > 0 && (
        <>
          <DataTable
            label="Channels"
            rows={data.items}
            keyOf={({ channel }) => channel}
            columns={[
              {
                name: "Channel",
                cell: ({ channel }) => (
                  <Group gap="xs">
                    <span className="code">{channel}</span>
                    {channel.endsWith("*") && (
                      <Badge variant="default" tt="none" miw="max-content">
                        pattern
                      </Badge>
                    )}
                  </Group>
                ),
              },
              { name: "Subscribers", isNumber: true, cell: ({ subscribers }) => subscribers },
              {
                name: "Present",
                isNumber: true,
                cell: ({ channel, members }) =>
                  members === undefined ? (
                    <Text span c="dimmed">
                      –
                    </Text>
                  ) : (
                    <Button
                      size="compact-sm"
                      variant="default"
                      onClick={() => set({ members: channel })}
                      aria-label={`Who is present on ${channel}: ${members}`}
                    >
                      {members}
                    </Button>
                  ),
              },
              {
                name: "",
                cell: ({ channel }) => (
                  <Button
                    component={Link}
                    size="compact-sm"
                    variant="default"
                    to={`/apps/${app.id}/live?${new URLSearchParams({ listen: channel })}`}
                    aria-label={`Listen to ${channel}`}
                  >
                    Listen
                  </Button>
                ),
              },
            ]}
          />
          <Pages total={data.total} page={page} onChange={(next) => set({ page: String(next) })}>
            {data.total === 1 ? "1 channel" : `${data.total} channels`}
          </Pages>
        </>
      )}
      {room !== "" && (
        <Modal
          opened
          onClose={() => set({ members: "" })}
          title={<span className="code">{room}</span>}
          size="lg"
          closeButtonProps={{ "aria-label": "Close" }}
        >
          <Members channel={room} />
        </Modal>
      )}
    </>
  );
}

/** Who is present on a channel, without joining it. */
function Members({ channel }: { channel: string }) {
  const { app } = useThisApplication();
  const path = channel.slice(`/${app.id}/presence/`.length);
  const { data, error } = useQuery({
    queryKey: ["live", app.id, "presence", path],
    queryFn: ({ signal }) =>
      get<{ members: Record<string, Record<string, unknown>> }>(
        `/application/${app.id}/presence/${path}`,
        signal,
      ),
    refetchInterval: 3_000,
  });
  if (error !== null) return <Problem error={error} />;
  if (data === undefined) return <Skeleton height={80} />;
  const members = Object.entries(data.members);
  if (members.length === 0) return <Text c="dimmed">Nobody is present.</Text>;
  return (
    <DataTable
      label="Present"
      rows={members}
      keyOf={([id]) => id}
      columns={[
        { name: "Presence id", cell: ([id]) => <span className="code">{id}</span> },
        {
          name: "What the token says of them",
          cell: ([, { id: _, ...rest }]) => (
            <span className="code">
              {Object.keys(rest).length === 0 ? "–" : JSON.stringify(rest)}
            </span>
          ),
        },
      ]}
    />
  );
}
