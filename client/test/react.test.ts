import type { PandapushError } from "pandapush-client";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { freshChannel, publish } from "../../e2e/deployment.js";
import { Inbox } from "../../e2e/waiting.js";
import {
  useConnectionState,
  usePresence,
  useSubscription,
} from "../../examples/react/use-pandapush.js";
import { closeClients, newClient, tap, tokenFor } from "./clients.js";
import { Root, useState } from "./react.js";
import { type Server, startServer } from "./server.js";

let server: Server;
beforeAll(async () => {
  server = await startServer();
});
afterAll(() => server?.stop());
afterEach(closeClients);

test("useSubscription calls the newest listener, subscribes once, and unsubscribes at the end", async () => {
  const channel = freshChannel(server, "private");
  const client = newClient(server.push);
  const { out } = tap(client);
  const heard = new Inbox<string>("message");
  const rendered = new Inbox<number>("rendering");
  const root = new Root(
    () => {
      const [count, setCount] = useState(0);
      useSubscription<string>(
        client,
        channel,
        (data) => {
          heard.push(`${count} ${data}`);
          setCount((last) => last + 1);
        },
        { token: () => tokenFor(server, channel) },
      );
      return count;
    },
    (count) => rendered.push(count),
  );
  // Its answer comes after that of the hook's own subscribe.
  await client.subscribe(freshChannel(server, "public"));
  await publish(server, channel, "first");
  expect(await heard.next()).toBe("0 first");
  await rendered.upTo((count) => count === 1);
  await publish(server, channel, "second");
  expect(await heard.next()).toBe("1 second");
  root.unmount();
  const sent = await out.upTo((message) => message.channel === "/meta/unsubscribe");
  const about = sent.filter(({ subscription }) => subscription === channel);
  expect(about.map((message) => message.channel)).toEqual(["/meta/subscribe", "/meta/unsubscribe"]);
});

test("useSubscription gives the error of a refusal", async () => {
  const client = newClient(server.push);
  const errors = new Inbox<PandapushError | undefined>("error");
  const root = new Root(
    () => useSubscription(client, freshChannel(server, "private"), () => {}, { token: null }),
    (error) => errors.push(error),
  );
  const [last] = (await errors.upTo((error) => error !== undefined)).slice(-1);
  expect(last?.message).toBe("No auth supplied");
  root.unmount();
});

test("usePresence gives who is there, whenever that changes", async () => {
  const channel = freshChannel(server, "presence");
  const members = new Inbox<string>("members");
  const client = newClient(server.push);
  const root = new Root(
    () => usePresence(client, channel, tokenFor(server, channel, { id: "a" })),
    (all) => members.push([...all.keys()].sort().join()),
  );
  await members.upTo((all) => all === "a");
  const other = newClient(server.push);
  await other.presence(channel, tokenFor(server, channel, { id: "b" }));
  await members.upTo((all) => all === "a,b");
  await other.disconnect();
  await members.upTo((all) => all === "a");
  root.unmount();
});

test("useConnectionState follows the client", async () => {
  const states = new Inbox<string>("state");
  const client = newClient(server.push);
  const root = new Root(
    () => useConnectionState(client),
    (state) => states.push(state),
  );
  client.connect();
  expect(await states.upTo((state) => state === "connected")).toEqual([
    "unconnected",
    "connecting",
    "connected",
  ]);
  root.unmount();
});
