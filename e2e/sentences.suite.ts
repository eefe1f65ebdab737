import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { ClientKind, StockClient, Subscription } from "./clients/client.js";
import {
  type Deployment,
  disconnectUser,
  freshChannel,
  holdMs,
  isForeign,
  publish,
  signToken,
} from "./deployment.js";
import { TcpProxy } from "./tcp-proxy.js";

const nameOf = (kind: ClientKind) => `${kind.name} over ${kind.transport}`;

/**
 * What every client can rely on, over each transport; one `describe` per kind.
 * @param isFaye the server is npm `faye`'s: what only Pandapush promises is left out
 */
export function sentences(
  kinds: readonly ClientKind[],
  deployment: () => Deployment,
  { isFaye = false } = {},
): void {
  describe.concurrent.each(kinds.map((kind) => [nameOf(kind), kind] as const))("%s", (_, kind) => {
    let client: StockClient;
    let other: StockClient;

    beforeAll(async () => {
      [client, other] = await Promise.all([
        kind.open(deployment().url),
        kind.open(deployment().url),
      ]);
    });
    afterAll(() => Promise.all([client?.close(), other?.close()]));

    const sentence = kind.oneAtATime ? it.sequential : it.concurrent;
    const ours = (name: string, run: () => Promise<void>): void => {
      if (!isFaye) sentence(name, run);
    };
    const fresh = (type: "public" | "private" | "presence") => freshChannel(deployment(), type);
    const keyAuth = () => ({ key: deployment().keyId, secret: deployment().secret });
    const tokenFor = (
      channel: string,
      rights: {
        sub?: boolean;
        pub?: boolean;
        exp?: number;
        keyId?: string;
        presence?: { id: string; name?: string };
      },
    ) => ({ token: signToken(deployment(), { channel, ...rights }) });

    sentence("connects over the transport it is meant to use", async () => {
      await client.subscribe(fresh("public"));
      await client.uses(kind.transport);
    });

    sentence("hears what is published over REST, in order and unchanged", async () => {
      const channel = fresh("public");
      const subscription = await client.subscribe(channel);
      const published = [
        { text: "hello" },
        { snowman: "é☃😀", separators: "\u2028\u2029", quotes: `"'\\/<>&` },
        [1, -0.5, 1e21, [], {}],
        "text",
        0,
        false,
        "",
        { nested: { deeply: [{ null: null }] } },
      ];
      for (const data of published) await publish(deployment(), channel, data);
      for (const data of published) expect(await subscription.next()).toEqual(data);
    });

    sentence("hears fifty messages published at once, each once", async () => {
      const channel = fresh("public");
      const subscription = await client.subscribe(channel);
      const numbers = Array.from({ length: 50 }, (_, n) => n);
      await Promise.all(numbers.map((n) => publish(deployment(), channel, n)));
      await publish(deployment(), channel, "end");
      const heard = await subscription.heard.upTo((data) => data === "end");
      expect(heard.pop()).toBe("end");
      expect(heard.sort((a, b) => Number(a) - Number(b))).toEqual(numbers);
    });

    sentence("subscribes to a private channel with a token", async () => {
      const channel = fresh("private");
      const subscription = await client.subscribe(channel, tokenFor(channel, { sub: true }));
      await publish(deployment(), channel, "for members");
      expect(await subscription.next()).toBe("for members");
    });

    sentence("hears the channels of a pattern and no others", async () => {
      const users = `${fresh("public")}/users`;
      const [children, descendants] = [
        await client.subscribe(`${users}/1/*`),
        await client.subscribe(`${users}/1/**`),
      ];
      for (const path of ["/1", "/1/foo", "/1/foo/bar", "/2/foo", "/11/foo", "/1/end"]) {
        await publish(deployment(), `${users}${path}`, path);
      }
      const isEnd = (data: unknown) => data === "/1/end";
      expect(await children.heard.upTo(isEnd)).toEqual(["/1/foo", "/1/end"]);
      expect(await descendants.heard.upTo(isEnd)).toEqual(["/1/foo", "/1/foo/bar", "/1/end"]);
    });

    sentence("subscribes to a private pattern with a token for it", async () => {
      const room = fresh("private");
      const subscription = await client.subscribe(
        `${room}/**`,
        tokenFor(`${room}/**`, { sub: true }),
      );
      await publish(deployment(), `${room}/a/b`, "deep");
      expect(await subscription.next()).toBe("deep");
    });

    sentence("gets one copy for overlapping subscriptions", async () => {
      const parent = fresh("public");
      const channel = `${parent}/news`;
      const listeners: Subscription[] = [];
      for (const pattern of [channel, channel, `${parent}/*`, `${parent}/**`]) {
        listeners.push(await client.subscribe(pattern));
      }
      await publish(deployment(), channel, "once");
      await publish(deployment(), channel, "marker");
      for (const listener of listeners) {
        expect([await listener.next(), await listener.next()]).toEqual(["once", "marker"]);
      }
      expect(client.arrived(channel)).toEqual(["once", "marker"]);
    });

    sentence("hears nothing more of a channel after it unsubscribed", async () => {
      const [left, kept] = [fresh("public"), fresh("public")];
      const subscription = await client.subscribe(left);
      const marker = await client.subscribe(kept);
      await publish(deployment(), left, "before");
      expect(await subscription.next()).toBe("before");
      await client.unsubscribe(left);
      await publish(deployment(), left, "after");
      await publish(deployment(), kept, "marker");
      expect(await marker.next()).toBe("marker");
      expect(client.arrived(left)).toEqual(["before"]);
    });

    ours("is told why a subscription is refused, and goes on", async () => {
      const channel = fresh("private");
      const { appId, secret } = deployment();
      const refusal = async (pattern: string, auth?: { token: string }) =>
        client.subscribe(pattern, auth).then(
          () => "accepted",
          (error: Error) => error.message,
        );
      const stranger = { token: signToken(deployment(), { channel, sub: true }, `x${secret}`) };
      const past = Math.floor(Date.now() / 1000) - 60;

      expect(await refusal(channel)).toBe("No auth supplied");
      expect(await refusal(channel, { token: "rubbish" })).toBe("Invalid token");
      expect(await refusal(channel, stranger)).toBe("Invalid token provided");
      expect(await refusal(channel, tokenFor(channel, { sub: true, exp: past }))).toBe(
        "Invalid token provided",
      );
      expect(await refusal(channel, tokenFor(channel, { sub: true, keyId: "PSIDnone" }))).toBe(
        "Could not find key",
      );
      expect(await refusal(channel, tokenFor(`${channel}x`, { sub: true }))).toBe(
        "Token does not match channel",
      );
      expect(await refusal(channel, tokenFor(channel, { pub: true }))).toBe(
        "Token does not allow subscribing",
      );
      expect(await refusal(`/${appId}/secret/room`)).toBe("Invalid channel name");
      expect(await refusal("/**")).toBe("Invalid channel name");

      const subscription = await client.subscribe(channel, tokenFor(channel, { sub: true }));
      await publish(deployment(), channel, "after all");
      expect(await subscription.next()).toBe("after all");
    });

    ours("is a member of a presence channel until it disconnects", async () => {
      const channel = fresh("presence");
      const memberToken = (id: string, name: string) =>
        tokenFor(channel, { sub: true, presence: { id, name } });
      const [one, two] = [
        { id: "user1", name: "One" },
        { id: "user2", name: "Two" },
      ];

      const first = await client.subscribe(channel, memberToken("user1", "One"));
      expect(first.snapshot).toEqual({ subscribe: { user1: one } });

      const leaver = await kind.open(deployment().url);
      try {
        const second = await leaver.subscribe(channel, memberToken("user2", "Two"));
        expect(second.snapshot).toEqual({ subscribe: { user1: one, user2: two } });
        expect(await first.next()).toEqual({ subscribe: { user2: two } });

        await publish(deployment(), channel, "marker");
        expect(await first.next()).toBe("marker");
        // The marker comes first: nobody hears of itself.
        expect(await second.next()).toBe("marker");
        expect(leaver.arrived(channel)).toEqual(["marker"]);

        await leaver.disconnect();
        expect(await first.next(3 * holdMs)).toEqual({ unsubscribe: { user2: null } });
      } finally {
        await leaver.close();
      }
      expect(client.arrived(channel)).toHaveLength(3);
    });

    ours("needs a presence id to be a member", async () => {
      const channel = fresh("presence");
      await expect(client.subscribe(channel, tokenFor(channel, { sub: true }))).rejects.toThrow(
        "No presence id specified in presence subscription",
      );
    });

    ours("goes on when a back end has disconnected its user, and may subscribe again", async () => {
      const [room, news] = [fresh("presence"), fresh("public")];
      const id = `user of ${room}`;
      const member = tokenFor(room, { sub: true, presence: { id } });
      const user = await kind.open(deployment().url);
      try {
        await user.subscribe(room, member);
        await user.subscribe(news);
        expect(await disconnectUser(deployment(), id)).toBe(1);
        expect(await disconnectUser(deployment(), id)).toBe(0);
        await publish(deployment(), news, "not heard");
        await publish(deployment(), room, "not heard either");
        for (const channel of [room, news]) await user.unsubscribe(channel);
        const again = await user.subscribe(room, member);
        expect(again.snapshot).toEqual({ subscribe: { [id]: { id } } });
        await publish(deployment(), room, "heard again");
        expect(await again.next()).toBe("heard again");
        expect([...user.arrived(news), ...user.arrived(room)]).toEqual(["heard again"]);
      } finally {
        await user.close();
      }
    });

    if (kind.publishes) {
      sentence("publishes with a key or a token, and hears itself", async () => {
        const channel = fresh("private");
        const own = await client.subscribe(channel, tokenFor(channel, { sub: true }));
        const theirs = await other.subscribe(channel, tokenFor(channel, { sub: true }));
        await client.publish(channel, { with: "key" }, keyAuth());
        await client.publish(channel, { with: "token" }, tokenFor(channel, { pub: true }));
        for (const subscription of [own, theirs]) {
          expect(await subscription.next()).toEqual({ with: "key" });
          expect(await subscription.next()).toEqual({ with: "token" });
        }
        expect(client.arrived(channel)).toHaveLength(2);
      });

      ours("is told why a publication is refused, and goes on", async () => {
        const channel = fresh("public");
        const subscription = await client.subscribe(channel);
        const refusal = async (auth?: Parameters<StockClient["publish"]>[2]) =>
          client.publish(channel, "refused", auth).then(
            () => "accepted",
            (error: Error) => error.message,
          );

        expect(await refusal()).toBe("No auth supplied");
        expect(await refusal({ token: "rubbish" })).toBe("Invalid token");
        expect(await refusal(tokenFor(channel, { sub: true }))).toBe(
          "Token does not allow publishing",
        );
        expect(await refusal(tokenFor(fresh("public"), { pub: true }))).toBe(
          "Token does not match channel",
        );
        expect(await refusal({ ...keyAuth(), secret: "wrong" })).toBe("Invalid secret");
        expect(await refusal({ ...keyAuth(), key: "PSIDnone" })).toBe("Could not find key");

        await client.publish(channel, "marker", keyAuth());
        expect(await subscription.next()).toBe("marker");
      });

      sentence("publishes a message as long as it can send", async () => {
        const channel = fresh("public");
        const subscription = await other.subscribe(channel);
        const data = "x".repeat(kind.maxPublishLength);
        await client.publish(channel, data, keyAuth());
        expect(await subscription.next()).toBe(data);
      });
    }

    // Faye's server answers a poll that is gone, and the message goes with it.
    const kept = kind.transport === "long-polling" ? ours : sentence;
    kept("gets what was published while its connection was cut", async () => {
      const proxy = await TcpProxy.start(deployment().url);
      const cutOff = await kind.open(proxy.url);
      try {
        const channel = fresh("private");
        const subscription = await cutOff.subscribe(channel, tokenFor(channel, { sub: true }));
        await cutOff.uses(kind.transport);
        await publish(deployment(), channel, "before");
        expect(await subscription.next()).toBe("before");

        // Not between two polls, when there is nothing to cut.
        await proxy.idle();
        await proxy.cut();
        await publish(deployment(), channel, "meanwhile");
        proxy.mend();
        expect(await subscription.next(3 * holdMs)).toBe("meanwhile");
        await publish(deployment(), channel, "afterwards");
        expect(await subscription.next()).toBe("afterwards");
      } finally {
        await cutOff.close();
        await proxy.close();
      }
    });
  });

  describe.skipIf(isForeign).each([
    ["restarts", "SIGTERM"],
    ["crashes and starts again", "SIGKILL"],
  ] as const)("when the server %s", (_, signal) => {
    const opened = new Map<ClientKind, { client: StockClient; subscription: Subscription }>();

    beforeAll(async () => {
      await Promise.all(
        kinds.map(async (kind) => {
          const client = await kind.open(deployment().url);
          const channel = freshChannel(deployment(), "private");
          const token = signToken(deployment(), { channel, sub: true });
          opened.set(kind, { client, subscription: await client.subscribe(channel, { token }) });
          await client.uses(kind.transport);
        }),
      );
      await deployment().restart(signal);
    });
    afterAll(() => Promise.all([...opened.values()].map(({ client }) => client.close())));

    const named = kinds.map((kind) => [nameOf(kind), kind] as const);
    it.concurrent.each(named)("%s subscribes again", async (name, kind) => {
      const subscription = opened.get(kind)?.subscription;
      if (subscription === undefined) throw new Error(`${name} never subscribed`);
      // Whoever came back to a node that was about to go, too, has to do so again.
      const publishing = async (): Promise<never> => {
        for (;;) {
          await subscription.renewals.next(9 * holdMs);
          await publish(deployment(), subscription.pattern, "after the restart");
        }
      };
      const heard = subscription.next(10 * holdMs);
      expect(await Promise.race([heard, publishing()])).toBe("after the restart");
    });
  });
}
