import { Anchor, Badge, Button, Group, Skeleton, Text } from "@mantine/core";
import { notifications } from "@mantine/notifications";
import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { Link } from "react-router";
import { get, type LiveChannel, type LiveMembers } from "../api.js";
import { useDisconnectUser, useLive } from "../queries.js";
import { Confirm } from "../ui/confirm.js";
import { Copy } from "../ui/copy.js";
import { DataTable } from "../ui/data-table.js";
import { Dialog } from "../ui/dialog.js";
import { Empty } from "../ui/empty.js";
import { Heading } from "../ui/heading.js";
import { Incomplete } from "../ui/incomplete.js";
import { brief, jsonOf } from "../ui/json.js";
import { Name } from "../ui/name.js";
import { maxLiveOffset, Pages, pageSize, useListPlace } from "../ui/paging.js";
import { Problem } from "../ui/problem.js";
import { Search } from "../ui/search.js";
import { isolate, shorten } from "../ui/text.js";
import { useUrlState } from "../ui/url-state.js";
import { useThisApplication } from "./application.js";

/** The channels that somebody is subscribed to, the busiest first. */
export function Channels() {
  const { app } = useThisApplication();
  const place = useListPlace(maxLiveOffset);
  const { search, window, set } = place;
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
      <Incomplete of={data} />
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
          <Pages total={data.total} place={place}>
            {data.total === 1 ? "1 channel" : `${data.total} channels`}
          </Pages>
        </>
      )}
      {room !== "" && (
        <Dialog
          title={<span className="code">{room}</span>}
          size="lg"
          onClose={() => set({ members: "" })}
        >
          <Members channel={room} />
        </Dialog>
      )}
    </>
  );
}

/** Who is present on a channel, without joining it. */
function Members({ channel }: { channel: string }) {
  const { app } = useThisApplication();
  const path = channel.slice(`/${app.id}/presence/`.length);
  const [chosen, setChosen] = useState<string>();
  const [page, setPage] = useState(1);
  const disconnect = useDisconnectUser(app.id);
  const { data, error } = useQuery({
    queryKey: ["live", app.id, "presence", path],
    queryFn: ({ signal }) => get<LiveMembers>(`/application/${app.id}/presence/${path}`, signal),
    refetchInterval: 3_000,
  });
  if (error !== null) return <Problem error={error} />;
  if (data === undefined) return <Skeleton height={80} />;
  const members = Object.entries(data.members);
  if (members.length === 0) return <Text c="dimmed">Nobody is present.</Text>;
  return (
    <>
      <DataTable
        label="Present"
        rows={members.slice((page - 1) * pageSize, page * pageSize)}
        keyOf={([id]) => id}
        columns={[
          {
            name: "Presence id",
            cell: ([id]) => (
              <div className="code">
                <Name>{id}</Name>
              </div>
            ),
          },
          {
            name: "Claims of the token",
            cell: ([id, claims]) => <Claims of={id} claims={claims} />,
          },
          {
            name: "",
            cell: ([id]) => (
              <Button
                size="compact-sm"
                variant="default"
                onClick={() => setChosen(id)}
                aria-label={`Disconnect ${id}`}
              >
                Disconnect
              </Button>
            ),
          },
        ]}
      />
      {members.length > pageSize && (
        <Pages total={members.length} place={{ page, go: setPage }}>
          {members.length} members
        </Pages>
      )}
      {chosen !== undefined && (
        <Confirm
          title={
            <>
              Disconnect “<bdi>{shorten(chosen)}</bdi>”?
            </>
          }
          action="Disconnect"
          onClose={() => setChosen(undefined)}
          onConfirm={async () => {
            const { incomplete } = await disconnect.mutateAsync(chosen);
            setChosen(undefined);
            const name = `“${isolate(shorten(chosen))}”`;
            notifications.show(
              incomplete === undefined
                ? { message: `${name} is disconnected from this application.` }
                : {
                    color: "yellow",
                    message: `${name} may still be connected: ${incomplete}. Try again in a moment.`,
                  },
            );
          }}
        >
          <Text size="sm">
            All that this user’s clients are subscribed to in this application ends, on this channel
            and elsewhere. They may come back as long as they have a token that permits it.
          </Text>
        </Confirm>
      )}
    </>
  );
}

/** What is known of a member beside the id. */
function Claims({ of, claims }: { of: string; claims: LiveMembers["members"][string] }) {
  const isObject = typeof claims === "object" && claims !== null && !Array.isArray(claims);
  const { id: _, ...rest } = isObject ? claims : { claims };
  if (Object.keys(rest).length === 0) return <span className="code">–</span>;
  const json = jsonOf(isObject ? rest : claims);
  const { text, isShortened } = brief(json);
  return (
    <>
      <bdi className="code">{text}</bdi>
      {isShortened && (
        <Group gap={4} wrap="nowrap">
          <Text size="xs" c="dimmed" fs="italic">
            shortened: a copy has all of it
          </Text>
          <Copy text={json} what={`what is said of ${of}`} />
        </Group>
      )}
    </>
  );
}
