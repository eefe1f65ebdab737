import type { AppId, Channel, KeyId, ParsedChannel } from "@pandapush/protocol";
import { describe, expect, test } from "vitest";
import type { Broker, BrokerHandler } from "./broker/broker.js";
import { createMemoryBroker } from "./broker/memory.js";
import { Refusal } from "./errors.js";
import { Node, type NodeParts } from "./node.js";
import { createMemoryPresence } from "./presence/memory.js";
import type { Encoder, Position, Publication, Session } from "./session.js";
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

  flushed(): Promise<void> {
    return Promise.resolve();
  }

  release(): readonly string[] {
    return [];
  }

  close(): void {}
}

const generous = {
  backlogMessages: 1_000_000,
  backlogBytes: 1_000_000_000,
  outboxMessages: 1_000_000,
  outboxBytes: 1_000_000_000,
  subscriptionsPerSession: 1_000_000,
  sessionsPerAddress: 1_000_000,
};

function startNode(parts: Partial<NodeParts> = {}): Node {
  return new Node({
    createBroker: createMemoryBroker,
    createPresence: () => ({
      join: () => ({ list: "{}", position: undefined }),
      leave: () => undefined,
      adopt: () => undefined,
      forget: () => undefined,
      members: () => "{}",
      counts: () => [],
    }),
    limits: generous,
    sessionExpiryMs: 60_000,
    statisticsIntervalMs: 60_000,
    logError: (error) => {
      throw error;
    },
    ...parts,
  });
}

const [app, other] = ["app" as AppId, "other" as AppId];
const [key, otherKey] = ["key" as KeyId, "otherKey" as KeyId];

function subscribe(node: Node, session: Session, appId: AppId, rest: string, keyId?: KeyId): void {
  const name = `/${appId}/private/${rest}` as Channel;
  const channel: ParsedChannel = { appId, kind: "private", isPattern: false, name };
  void node.subscribe(session, channel, keyId === undefined ? { appId } : { appId, keyId }, {
    left: 0,
  });
}

async function turnsUntil(isTrue: () => boolean): Promise<number> {
  const deadline = performance.now() + 8_000;
  for (let turns = 0; ; turns++) {
    if (isTrue()) return turns;
    if (performance.now() > deadline) throw new Error("not within 8 s");
    await new Promise((resolve) => setImmediate(resolve));
  }
}

test("a node that was declared dead ends its sessions, and goes on as another", async () => {
  const ended: string[] = [];
  const identity = { id: "before" };
  const node = startNode({
    identity,
    onSessionEnd: ({ clientId }, reason) => ended.push(`${clientId} ${reason}`),
  });
  const connection = new Recorder();
  const session = node.createSession(encoder, undefined);
  session.attach(connection);
  subscribe(node, session, app, "a");
  identity.id = "after";
  node.endAll("lost");
  expect(ended).toEqual([`${session.clientId} lost`]);
  expect(session.clientId).toMatch(/^before/);
  expect(node.findSession(session.clientId)).toBeUndefined();
  expect(node.view(app)?.channels.size).toBe(0);
  expect(node.createSession(encoder, undefined).clientId).toMatch(/^after/);
  await node.close();
});

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

/** A broker that confirms, refuses and delivers when it is told to. */
class LateBroker implements Broker {
  readonly asked: { name: string; confirm: () => void; refuse: () => void }[] = [];
  readonly given: { publication: Publication; take: () => void; refuse: () => void }[] = [];
  readonly unsubscribed: string[] = [];
  private handler: BrokerHandler | undefined;
  private seq = 0;

  readonly create = (handler: BrokerHandler): Broker => {
    this.handler = handler;
    return this;
  };

  publish(_appId: AppId, publication: Publication): Promise<Position> {
    return new Promise((resolve, reject) => {
      const position = { epoch: "e", seq: ++this.seq };
      this.given.push({
        publication,
        take: () => resolve(position),
        refuse: () => reject(new Refusal("brokerUnavailable", [publication.channel])),
      });
    });
  }

  caughtUp(): boolean {
    return true;
  }

  subscribe(_appId: AppId, name: string): Promise<void> {
    return new Promise((resolve, reject) => {
      const refuse = (): void => reject(new Refusal("brokerUnavailable", [name]));
      this.asked.push({ name, confirm: resolve, refuse });
    });
  }

  unsubscribe(_appId: AppId, name: string): void {
    this.unsubscribed.push(name);
  }

  /** The publication that was given as number `index` comes back. */
  deliver(index: number): void {
    const { publication } = this.given[index] ?? {};
    if (publication === undefined) throw new Error(`nothing was given as number ${index}`);
    this.handler?.received(app, publication, { epoch: "e", seq: index + 1 });
  }

  async close(): Promise<void> {}
}

describe("with a broker that takes its time", () => {
  const news = `/${app}/private/news` as Channel;
  const room = `/${app}/presence/room` as Channel;
  const channelOf = (name: Channel): ParsedChannel =>
    name === room
      ? { appId: app, kind: "presence", isPattern: false, name }
      : { appId: app, kind: "private", isPattern: false, name };

  function start(parts: Partial<NodeParts> = {}) {
    const broker = new LateBroker();
    const limits = { presenceBytes: 1_000, presenceMembers: 3 };
    const node = startNode({
      createBroker: broker.create,
      createPresence: (announce) => createMemoryPresence(limits, announce),
      ...parts,
    });
    const connect = () => {
      const session = node.createSession(encoder, undefined);
      const connection = new Recorder();
      session.attach(connection);
      return { session, heard: connection.heard };
    };
    const ask = async (session: Session, name: Channel, id?: string) => {
      const presence = id === undefined ? {} : { presence: { id, json: `{"id":"${id}"}` } };
      const done = node.subscribe(
        session,
        channelOf(name),
        { appId: app, keyId: key, ...presence },
        { left: 1_000 },
      );
      return (await done).joined;
    };
    return { broker, node, connect, ask };
  }

  /** What it failed with, or how it stands now. */
  async function outcome(work: Promise<unknown>): Promise<unknown> {
    const turns = new Promise((resolve) => setImmediate(() => setImmediate(resolve, "waits")));
    return Promise.race([work.catch((error: Refusal) => error.toBayeux()), turns]);
  }

  test("everyone who subscribes waits for it, and who comes later does not", async () => {
    const { broker, connect, ask } = start();
    const [first, second] = [connect(), connect()];
    const asked = [ask(first.session, news), ask(second.session, news), ask(first.session, news)];
    for (const each of asked) expect(await outcome(each)).toBe("waits");
    expect(broker.asked.map(({ name }) => name)).toEqual([news, news, news]);
    for (const { confirm } of broker.asked) confirm();
    for (const each of asked) expect(await outcome(each)).toBeUndefined();
  });

  test("what is refused leaves nothing behind, unless it was acknowledged before or somebody waits", async () => {
    const { broker, connect, ask } = start();
    const { session } = connect();
    const [one, two] = [ask(session, news), ask(session, news)];
    broker.asked[0]?.refuse();
    expect(await outcome(one)).toBe(`503:${news}:Broker unavailable`);
    expect([...session.subscriptions.keys()]).toEqual([news]);
    broker.asked[1]?.refuse();
    expect(await outcome(two)).toBe(`503:${news}:Broker unavailable`);
    expect(session.subscriptions.size).toBe(0);
    expect(broker.unsubscribed).toEqual([news]);

    const again = ask(session, news);
    broker.asked[2]?.confirm();
    expect(await outcome(again)).toBeUndefined();
    const repeated = ask(session, news);
    broker.asked[3]?.refuse();
    expect(await outcome(repeated)).toBe(`503:${news}:Broker unavailable`);
    expect([...session.subscriptions.keys()]).toEqual([news]);
    expect(broker.unsubscribed).toEqual([news]);
  });

  test("who leaves, or is revoked, while a subscription waits does not have it", async () => {
    const { broker, node, connect, ask } = start();
    const [ended, left, revoked] = [connect(), connect(), connect()];
    const asked = [ended, left, revoked].flatMap(({ session }, index) => [
      ask(session, news),
      ask(session, room, `${index}`),
    ]);
    ended.session.end("disconnect");
    for (const name of [news, room]) node.unsubscribe(left.session, name);
    node.revoke({ appIds: [], keyIds: [key] });
    for (const { confirm } of broker.asked) confirm();
    const outcomes = await Promise.all(asked.map(outcome));
    const unknown = `401:${ended.session.clientId}:Unknown client`;
    expect(outcomes).toEqual([
      ...[unknown, unknown],
      ...[undefined, undefined],
      ...["Revoked key", "Revoked key"],
    ]);
    for (const { session } of [ended, left, revoked]) expect(session.subscriptions.size).toBe(0);
    expect(revoked.heard).toEqual([`${news} ended: Revoked key`, `${room} ended: Revoked key`]);
    // Nobody was present for a moment.
    expect(broker.given).toEqual([]);
  });

  test("[PRES-3] [PRES-4] a joiner hears what follows its list, and nothing that the list has", async () => {
    const { broker, connect, ask } = start();
    const [joiner, early, late] = [connect(), connect(), connect()];
    const joining = ask(joiner.session, room, "joiner");
    const first = ask(early.session, room, "early");
    broker.asked[1]?.confirm();
    expect(await outcome(first)).toBe("waits");
    broker.asked[0]?.confirm();
    expect(await outcome(joining)).toBe("waits");
    const last = ask(late.session, room, "late");
    broker.asked[2]?.confirm();
    expect(await outcome(last)).toBe("waits");
    expect(broker.given.map(({ publication }) => publication.data)).toEqual([
      '{"subscribe":{"early":{"id":"early"}}}',
      '{"subscribe":{"joiner":{"id":"joiner"}}}',
      '{"subscribe":{"late":{"id":"late"}}}',
    ]);
    // They come back before anybody knows at which positions.
    for (const index of [0, 1, 2]) broker.deliver(index);
    await turnsUntil(() => true);
    for (const { take } of broker.given) take();
    const joined = await joining;
    expect(JSON.parse(joined?.list ?? "")).toEqual({
      early: { id: "early" },
      joiner: { id: "joiner" },
    });
    await new Promise((resolve) => setImmediate(resolve));
    expect(joiner.heard).toEqual([]);
    joined?.release();
    expect(joiner.heard).toEqual([`${room} {"subscribe":{"late":{"id":"late"}}}`]);
    (await first)?.release();
    expect(early.heard).toEqual([
      `${room} {"subscribe":{"joiner":{"id":"joiner"}}}`,
      `${room} {"subscribe":{"late":{"id":"late"}}}`,
    ]);
    (await last)?.release();
    expect(late.heard).toEqual([]);
  });

  test("[PRES-7] who changes its id hears neither change, and nothing else is lost to it", async () => {
    const { broker, node, connect, ask } = start();
    const { session, heard } = connect();
    const joining = ask(session, room, "old");
    broker.asked[0]?.confirm();
    await outcome(joining);
    broker.given[0]?.take();
    (await joining)?.release();
    broker.deliver(0);
    const changing = ask(session, room, "new");
    void node.publish({ appId: app }, room, '"hello"');
    broker.asked[1]?.confirm();
    await outcome(changing);
    for (const { take } of broker.given) take();
    for (const index of [1, 2, 3]) broker.deliver(index);
    const changed = await changing;
    expect(JSON.parse(changed?.list ?? "")).toEqual({ new: { id: "new" } });
    changed?.release();
    await turnsUntil(() => heard.length > 0);
    expect(heard).toEqual([`${room} "hello"`]);
  });

  test("a join that is refused leaves nothing behind, and what a member would have heard it hears", async () => {
    const { broker, connect, ask } = start();
    const large = `large${"x".repeat(1_000)}`;
    const [stranger, member] = [connect(), connect()];
    const refused = ask(stranger.session, room, large);
    broker.asked[0]?.confirm();
    expect(await outcome(refused)).toBe("Presence object too large");
    expect(stranger.session.subscriptions.size).toBe(0);
    expect(broker.unsubscribed).toEqual([room]);
    const joining = ask(member.session, room, "member");
    broker.asked[1]?.confirm();
    await outcome(joining);
    broker.given[0]?.take();
    (await joining)?.release();
    const changing = ask(member.session, room, large);
    broker.asked[2]?.confirm();
    expect(await outcome(changing)).toBe("Presence object too large");
    expect([...member.session.subscriptions.keys()]).toEqual([room]);
  });

  test("[PUB-9] what it has not taken counts as waiting", async () => {
    const { node, broker } = start({ limits: { ...generous, backlogMessages: 2 } });
    const publish = async () => node.publish({ appId: app }, news, "1");
    const taken = [publish(), publish(), publish()].map(outcome);
    expect(await Promise.all(taken)).toEqual(["waits", "waits", `503:${news}:Application is busy`]);
    broker.given[0]?.take();
    broker.given[1]?.refuse();
    await outcome(Promise.resolve());
    expect(await outcome(publish())).toBe("waits");
  });
});
