import { Grid, Paper, Tabs } from "@mantine/core";
import { useSessionStorage } from "@mantine/hooks";
import { useEffect, useState, useSyncExternalStore } from "react";
import { ConnectionBadge, ConnectionLost } from "../live/connection.js";
import { Listener } from "../live/listener.js";
import { Listening } from "../live/listening.js";
import { Publisher } from "../live/publisher.js";
import { TokenMaker } from "../live/token-maker.js";
import { useView } from "../live/view.js";
import { useInfo } from "../queries.js";
import { Heading } from "../ui/heading.js";
import { useFeed, useThisApplication } from "./application.js";

/** `/admin/apps/:id/live`: publish, listen, make tokens. */
export function Live() {
  const { app, feed } = useThisApplication();
  const { data: info } = useInfo();
  const [view, change] = useView(app.id, {
    listen: [],
    filter: "",
    channel: `/${app.id}/public/hello`,
    data: '{"text": "hello"}',
    via: "rest",
    tool: "publish",
    token: {
      channel: `/${app.id}/private/news`,
      sub: true,
      pub: false,
      presence: "",
      lifetime: "3600",
      key: "",
    },
  });
  const now = useFeed(feed);
  const [listening] = useState(() => new Listening(feed));
  const state = useSyncExternalStore(listening.subscribe, listening.snapshot);
  // Not in the address: whoever is sent that is somebody else.
  const [chosenId, setChosenId] = useSessionStorage({ key: "presence-id", defaultValue: "" });
  const as = chosenId || info?.username || "";

  useEffect(() => {
    // Nobody joins a room without a name.
    if (as !== "") listening.listenTo(view.listen, as);
  }, [listening, view.listen, as]);
  useEffect(() => () => listening.end(), [listening]);

  return (
    <>
      <Heading
        title="Live console"
        about="Try the channels of this application. The address of this page keeps what you choose, so you can share it."
      >
        <ConnectionBadge of={now} />
      </Heading>
      <ConnectionLost
        of={now}
        note="What is published meanwhile may be missed; this page says so when it is back."
      />
      <Grid gap="lg">
        <Grid.Col span={{ base: 12, lg: 5 }}>
          <Paper withBorder p="md">
            <Tabs
              value={view.tool}
              onChange={(tool) => change({ tool: tool === "token" ? "token" : "publish" })}
              keepMounted={false}
            >
              <Tabs.List mb="md" aria-label="Tools">
                <Tabs.Tab value="publish">Publish</Tabs.Tab>
                <Tabs.Tab value="token">Make a token</Tabs.Tab>
              </Tabs.List>
              <Tabs.Panel value="publish">
                <Publisher view={view} onChange={change} />
              </Tabs.Panel>
              <Tabs.Panel value="token">
                <TokenMaker form={view.token} onChange={(token) => change({ token })} />
              </Tabs.Panel>
            </Tabs>
          </Paper>
        </Grid.Col>
        <Grid.Col span={{ base: 12, lg: 7 }}>
          <Paper withBorder p="md">
            <Listener
              view={view}
              presenceId={as}
              onPresenceId={setChosenId}
              onChange={change}
              listening={listening}
              state={state}
              connection={now.connection}
            />
          </Paper>
        </Grid.Col>
      </Grid>
    </>
  );
}
