import type { AppId, Channel, KeyId, ParsedChannel } from "@pandapush/protocol";
import { describe, expect, test } from "vitest";
import type { Broker, PublicationHandler } from "./broker/broker.js";
import { Node } from "./node.js";
import type { Encoder, Session } from "./session.js";
import type { Batch, PushConnection, TransportKind } from "./transports/transport.js";

const encoder: Encoder = {
  event: ({ channel, data }) => `${channel} ${data}`,
  subscriptionEnded: (_clientId, name, error) => `${name} ended: ${error}`,
  join: (messages) => messages.join(" "),
};

class Recorder implements PushConnection {
  readonly kind: TransportKind = "websocket";
  readonly heard: string[] = [];

  deliver({ messages }: Batch): void {
    this.heard.push(...messages);
  }

  handOver(batches: readonly Batch[]): void {
    for (const batch of batches) this.deliver(batch);
  }

  release(): readonly string[] {
    return [];
  }

  close(): void {}
}

const createBroker = (handle: PublicationHandler): Broker => ({
  publish: handle,
  subscribe: () => undefined,
  unsubscribe: () => undefined,
  close: async () => undefined,
});

function startNode(): Node {
  return new Node({
    createBroker,
    createPresence: () => ({
      join: () => "{}",
      leave: () => undefined,
      members: () => "{}",
      counts: () => [],
    }),
    limits: {
      backlogMessages: 1_000_000,
      backlogBytes: 1_000_000_000,
      outboxMessages: 1_000_000,
      outboxBytes: 1_000_000_000,
      subscriptionsPerSession: 1_000_000,
      sessionsPerAddress: 1_000_000,
    },
    sessionExpiryMs: 60_000,
    statisticsIntervalMs: 60_000,
    logError: (error) => {
      throw error;
    },
  });
}

const [app, other] = ["app" as AppId, "other" as AppId];
const [key, otherKey] = ["key" as KeyId, "otherKey" as KeyId];

function subscribe(node: Node, session: Session, appId: AppId, rest: string, keyId?: KeyId): void {
  const name = `/${appId}/private/${rest}` as Channel;
  const channel: ParsedChannel = { appId, kind: "private", isPattern: false, name };
  void node.subscribe(session, channel, keyId === undefined ? { appId } : { appId, keyId }, 0);
}

async function turnsUntil(isTrue: () => boolean): Promise<number> {
  const deadline = performance.now() + 8_000;
  for (let turns = 0; ; turns++) {
    if (isTrue()) return turns;
    if (performance.now() > deadline) throw new Error("not within 8 s");
    await new Promise((resolve) => setImmediate(resolve));
  }
}

describe("[AUTH-18] what is revoked", () => {
  test("ends the subscriptions that it permitted, each told to its client, and no others", async () => {
    const node = startNode();
    const connection = new Recorder();
    const session = node.createSession(encoder, undefined);
    session.attach(connection);
    for (const rest of ["a", "b"]) subscribe(node, session, app, rest, key);
    subscribe(node, session, app, "c", otherKey);
    subscribe(node, session, app, "d");
    subscribe(node, session, other, "a", otherKey);
    node.revoke({ appIds: [], keyIds: [key] });
    expect(connection.heard).toEqual([
      "/app/private/a ended: Revoked key",
      "/app/private/b ended: Revoked key",
    ]);
    node.revoke({ appIds: [app], keyIds: [key] });
    expect(connection.heard.slice(2)).toEqual([
      "/app/private/c ended: Unknown application",
      "/app/private/d ended: Unknown application",
    ]);
    expect([...session.subscriptions.keys()]).toEqual(["/other/private/a"]);
    await node.close();
  });

  test("keeps nobody waiting, however many subscriptions end", async () => {
    const node = startNode();
    const sessions = Array.from({ length: 400 }, () => {
      const session = node.createSession(encoder, undefined);
      const connection = new Recorder();
      session.attach(connection);
      for (let n = 0; n < 200; n++) subscribe(node, session, app, `${n}/${session.clientId}`, key);
      return { session, connection };
    });
    const live = (): number =>
      sessions.reduce((sum, { session }) => sum + session.subscriptions.size, 0);
    node.revoke({ appIds: [app], keyIds: [key] });
    // 80,000 of them take some 100 ms: others get their turns meanwhile.
    expect(live()).toBeGreaterThan(0);
    expect(await turnsUntil(() => live() === 0)).toBeGreaterThan(1);
    for (const { connection } of sessions) expect(connection.heard).toHaveLength(200);
    await node.close();
  });

  test("is not left half done by sessions that come and go meanwhile", async () => {
    const node = startNode();
    const sessions = Array.from({ length: 200 }, () => {
      const session = node.createSession(encoder, undefined);
      for (let n = 0; n < 200; n++) subscribe(node, session, app, `${n}/${session.clientId}`, key);
      return session;
    });
    node.revoke({ appIds: [], keyIds: [key] });
    for (const session of sessions.filter((_, index) => index % 3 === 0)) session.end("disconnect");
    subscribe(node, node.createSession(encoder, undefined), app, "new", otherKey);
    await turnsUntil(() => sessions.every(({ subscriptions }) => subscriptions.size === 0));
    expect(node.sessionCount).toBe(134);
    await node.close();
  });
});
