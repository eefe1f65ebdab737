import { type AppId, type Channel, covers, type Pattern } from "@pandapush/protocol";
import { describe, expect, test } from "vitest";
import { Random } from "../test/hostile/random.js";
import { Hub } from "./hub.js";
import { type Encoder, type Position, Session, type Subscription } from "./session.js";
import type { Batch, PushConnection, TransportKind } from "./transports/transport.js";

const encoder: Encoder = {
  event: ({ id }) => id,
  subscriptionEnded: () => "ended",
  join: (messages) => messages.join(" "),
};

/** A connection whose peer reads everything at once; remembers what it was given. */
class Recorder implements PushConnection {
  readonly kind: TransportKind = "websocket";
  readonly batches: Batch[] = [];

  deliver(batch: Batch): void {
    this.batches.push(batch);
    this.onDeliver?.();
  }

  handOver(batches: readonly Batch[]): void {
    for (const batch of batches) this.deliver(batch);
  }

  constructor(private readonly onDeliver?: () => void) {}

  get heard(): string[] {
    return this.batches.flatMap(({ messages }) => messages);
  }

  flushed(): Promise<void> {
    return Promise.resolve();
  }

  release(): readonly string[] {
    return [];
  }

  close(): void {}
}

const generous = { backlogMessages: 1_000_000, backlogBytes: 1_000_000_000 };
const limits = { expiryMs: 60_000, outboxMessages: 1_000_000, outboxBytes: 1_000_000_000 };
const app = "app" as AppId;

const name = (rest: string, appId: AppId = app): Channel => `/${appId}/public/${rest}` as Channel;

let made = 0;

function newSession(connection: PushConnection): Session {
  const session = new Session(`s${++made}`, encoder, undefined, limits, {
    subscribe: () => ({ isNew: true }),
    unsubscribe: () => undefined,
    ended: () => undefined,
  });
  session.attach(connection);
  return session;
}

class Listener {
  readonly connection: Recorder;
  readonly session: Session;

  constructor(
    private readonly hub: Hub,
    names: readonly string[],
    readonly appId: AppId = app,
    onDeliver?: () => void,
  ) {
    this.connection = new Recorder(onDeliver);
    this.session = newSession(this.connection);
    for (const each of names) this.subscribe(each);
  }

  subscribe(rest: string): Subscription {
    return this.hub.subscribe(this.session, this.appId, name(rest, this.appId), undefined);
  }

  unsubscribe(rest: string): boolean {
    return this.hub.unsubscribe(this.session, this.appId, name(rest, this.appId));
  }

  get heard(): string[] {
    return this.connection.heard;
  }

  get lastHeard(): string | undefined {
    return this.connection.batches.at(-1)?.messages.at(-1);
  }
}

let seq = 0;
const nextPosition = (): Position => ({ epoch: "e", seq: ++seq });

function publish(hub: Hub, rest: string, id: string, appId: AppId = app): boolean {
  return hub.receive(appId, { id, channel: name(rest, appId), data: "1" }, nextPosition());
}

/** Until the end of this turn: everything that small hubs have to deliver is delivered. */
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

async function turnsUntil(isTrue: () => boolean): Promise<void> {
  const deadline = performance.now() + 4_000;
  while (!isTrue()) {
    if (performance.now() > deadline) throw new Error("not within 4 s");
    await turn();
  }
}

test("a session that came from another node hears what follows its floor once, whichever of a pattern's channels comes first", async () => {
  const hub = new Hub(generous);
  const listener = new Listener(hub, ["a/*"]);
  hub.expect(listener.session);
  hub.settle(listener.session, new Map([[app, new Map([["e", 2]])]]));
  const receive = (channel: string, seq: number): boolean =>
    hub.receive(app, { id: `${seq}`, channel: name(channel), data: "1" }, { epoch: "e", seq });
  // In one turn, in which channels are delivered one after the other.
  receive("a/1", 1);
  receive("a/2", 2);
  receive("a/1", 3);
  receive("a/2", 4);
  await expect.poll(() => listener.connection.heard).toEqual(["3", "4"]);
  receive("a/1", 5);
  receive("a/2", 6);
  await expect.poll(() => listener.connection.heard).toEqual(["3", "4", "5", "6"]);
  const [subscription] = listener.session.subscriptions.values();
  expect(subscription?.floors).toBeUndefined();
});

describe("one turn", () => {
  test("nothing is delivered in the call that received it; all of it by the end of the turn", async () => {
    const hub = new Hub(generous);
    const listener = new Listener(hub, ["a"]);
    publish(hub, "a", "1");
    expect(listener.heard).toEqual([]);
    await turn();
    expect(listener.heard).toEqual(["1"]);
  });

  test("everyone who hears the same gets the same batch, so that its frame is made once", async () => {
    const hub = new Hub(generous);
    const listeners = Array.from({ length: 100 }, () => new Listener(hub, ["a"]));
    for (const id of ["1", "2", "3"]) publish(hub, "a", id);
    await turn();
    const batches = new Set(listeners.flatMap(({ connection }) => connection.batches));
    expect(batches.size).toBe(1);
    expect([...batches][0]?.messages).toEqual(["1", "2", "3"]);
  });

  test("everyone who hears the same two channels shares a batch too", async () => {
    const hub = new Hub(generous);
    const listeners = Array.from({ length: 50 }, () => new Listener(hub, ["a", "b"]));
    const others = Array.from({ length: 50 }, () => new Listener(hub, ["a"]));
    for (const [rest, id] of ["a1", "b2", "a3"].map((each) => [each.slice(0, 1), each] as const)) {
      publish(hub, rest, id);
    }
    await turn();
    const shared = new Set(listeners.flatMap(({ connection }) => connection.batches));
    expect([...shared].map(({ messages }) => messages)).toEqual([["a1", "b2", "a3"]]);
    const single = new Set(others.flatMap(({ connection }) => connection.batches));
    expect([...single].map(({ messages }) => messages)).toEqual([["a1", "a3"]]);
  });

  test("who hears several channels and patterns gets one copy, in the order of publication", async () => {
    const hub = new Hub(generous);
    const listener = new Listener(hub, ["x/b", "x/*", "**", "x/a", "y"]);
    const order = ["x/b", "y", "x/a", "x/c", "x/b", "x/d/e", "y"];
    for (const [index, rest] of order.entries()) publish(hub, rest, `${index}`);
    await turn();
    expect(listener.heard).toEqual(["0", "1", "2", "3", "4", "5", "6"]);
    expect(listener.connection.batches).toHaveLength(1);
  });

  test("a frame holds many small messages or one large one: batches stay below 64 Ki characters", async () => {
    const hub = new Hub(generous);
    const listener = new Listener(hub, ["a"]);
    const ids = Array.from({ length: 20 }, (_, index) => `${index}`.padEnd(10_000, "."));
    const huge = "huge".padEnd(200_000, ".");
    for (const id of [...ids, huge, "after"]) publish(hub, "a", id);
    await turn();
    expect(listener.heard).toEqual([...ids, huge, "after"]);
    for (const { messages } of listener.connection.batches) {
      const length = messages.join("").length;
      expect(messages.length === 1 || length <= 65_536).toBe(true);
    }
    expect(listener.connection.batches.length).toBeLessThan(8);
  });

  test("a large message is framed once for all who hear it, whatever else they hear", async () => {
    const hub = new Hub(generous);
    const listeners = Array.from(
      { length: 20 },
      (_, n) => new Listener(hub, ["all/*", `own/${n}`]),
    );
    const [first, second] = ["first", "second"].map((each) => each.padEnd(200_000, "."));
    const order = (n: number): unknown[] => [first, `before ${n}`, second, `after ${n}`];
    publish(hub, "all/a", `${first}`);
    for (const n of listeners.keys()) publish(hub, `own/${n}`, `before ${n}`);
    publish(hub, "all/b", `${second}`);
    for (const n of listeners.keys()) publish(hub, `own/${n}`, `after ${n}`);
    await turn();
    for (const [n, { heard }] of listeners.entries()) expect(heard).toEqual(order(n));
    const all = listeners.flatMap(({ connection }) => connection.batches);
    const large = all.filter(({ messages }) => messages.some(({ length }) => length >= 200_000));
    expect([large.length, new Set(large).size]).toEqual([40, 2]);
  });
});

describe("subscriptions", () => {
  test("the last of a name at this node is told apart, and subscribing twice is one", () => {
    const hub = new Hub(generous);
    const [first, second] = [new Listener(hub, []), new Listener(hub, ["a"])];
    expect(first.subscribe("a")).toBe(first.subscribe("a"));
    expect([first.unsubscribe("a"), first.unsubscribe("a"), second.unsubscribe("a")]).toEqual([
      false,
      false,
      true,
    ]);
    expect(hub.isHeard(app, name("a"))).toBe(false);
  });

  test("one hears only what is received after it, also in the middle of a turn", async () => {
    const hub = new Hub(generous);
    const early = new Listener(hub, ["a"]);
    publish(hub, "a", "1");
    const late = new Listener(hub, ["a"]);
    publish(hub, "a", "2");
    const latest = new Listener(hub, ["a"]);
    await turn();
    expect([early.heard, late.heard, latest.heard]).toEqual([["1", "2"], ["2"], []]);
  });

  test("a second one over the same channel neither repeats nor hides what the first hears", async () => {
    const hub = new Hub(generous);
    const listener = new Listener(hub, ["a/*"]);
    publish(hub, "a/b", "1");
    listener.subscribe("a/b");
    publish(hub, "a/b", "2");
    listener.unsubscribe("a/*");
    publish(hub, "a/b", "3");
    publish(hub, "a/c", "not for us");
    await turn();
    expect(listener.heard.filter((id) => id !== "1")).toEqual(["2", "3"]);
  });

  test("after its end nothing is heard of what is received later in the same turn", async () => {
    const hub = new Hub(generous);
    const listener = new Listener(hub, ["a"]);
    const other = new Listener(hub, ["a"]);
    listener.unsubscribe("a");
    publish(hub, "a", "1");
    await turn();
    expect([listener.heard, other.heard]).toEqual([[], ["1"]]);
  });

  test("ended and begun again in one turn, it hears what is received after its new beginning", async () => {
    const hub = new Hub(generous);
    const listener = new Listener(hub, ["a"]);
    publish(hub, "a", "1");
    listener.unsubscribe("a");
    listener.subscribe("a");
    publish(hub, "a", "2");
    await turn();
    expect(listener.heard).toEqual(["2"]);
  });

  test("whoever subscribes while a delivery is under way does not hear of it", async () => {
    const hub = new Hub(generous);
    let late: Listener | undefined;
    const subscribeOnce = (): void => {
      late ??= new Listener(hub, ["a"]);
    };
    new Listener(hub, ["a"], app, subscribeOnce);
    const second = new Listener(hub, ["a"]);
    publish(hub, "a", "1");
    await turn();
    publish(hub, "a", "2");
    await turn();
    expect([second.heard, late?.heard]).toEqual([["1", "2"], ["2"]]);
  });

  test("applications hear nothing of each other, whatever their patterns", async () => {
    const hub = new Hub(generous);
    const other = "app2" as AppId;
    const mine = new Listener(hub, ["**", "a"]);
    const theirs = new Listener(hub, ["**", "a"], other);
    publish(hub, "a", "mine");
    publish(hub, "a", "theirs", other);
    await turn();
    expect([mine.heard, theirs.heard]).toEqual([["mine"], ["theirs"]]);
  });
});

describe("counters and limits", () => {
  test("they count sessions, subscriptions, names and deliveries, and return to zero", async () => {
    const hub = new Hub(generous);
    const first = new Listener(hub, ["a", "b"]);
    const second = new Listener(hub, ["a", "**"]);
    publish(hub, "a", "1");
    publish(hub, "b", "2");
    publish(hub, "nobody", "3");
    await turn();
    expect(Object.fromEntries(hub.counters())).toEqual({
      app: { connections: 2, subscriptions: 4, channels: 3, delivered: 5 },
    });
    for (const rest of ["a", "b"]) first.unsubscribe(rest);
    for (const rest of ["a", "**"]) second.unsubscribe(rest);
    expect(Object.fromEntries(hub.counters())).toMatchObject({
      app: { connections: 0, subscriptions: 0, channels: 0 },
    });
  });

  test("an application is busy while too many messages or bytes wait, and only that one", async () => {
    const other = "app2" as AppId;
    const few = new Hub({ backlogMessages: 3, backlogBytes: 1_000_000 });
    new Listener(few, ["a"]);
    for (const id of ["1", "2"]) publish(few, "a", id);
    publish(few, "nobody", "unheard messages do not wait");
    expect(few.isBusy(app)).toBe(false);
    publish(few, "a", "3");
    expect([few.isBusy(app), few.isBusy(other)]).toEqual([true, false]);
    await turn();
    expect(few.isBusy(app)).toBe(false);

    const small = new Hub({ backlogMessages: 1_000, backlogBytes: 100 });
    new Listener(small, ["a"]);
    for (const large of [
      { id: "1", channel: name("a"), data: "x".repeat(100) },
      { id: "2", channel: name("a"), data: "x", ext: "x".repeat(99) },
    ]) {
      small.receive(app, large, nextPosition());
      expect(small.isBusy(app)).toBe(true);
      await turn();
      expect(small.isBusy(app)).toBe(false);
    }
  });
});

describe("fairness", () => {
  test("an application with 50,000 sessions does not delay one with a single session", async () => {
    const hub = new Hub(generous);
    const large = "large" as AppId;
    let delivered = 0;
    const crowd = new Recorder(() => {
      delivered++;
    });
    for (let i = 0; i < 50_000; i++) {
      hub.subscribe(newSession(crowd), large, name("a", large), undefined);
    }
    let deliveredBefore = -1;
    const small = new Listener(hub, ["a"], app, () => {
      deliveredBefore = delivered;
    });
    publish(hub, "a", "1", large);
    publish(hub, "a", "1");
    await turnsUntil(() => small.heard.length === 1);
    // A slice of the large one at most.
    expect(deliveredBefore).toBeLessThan(5_000);
    await turnsUntil(() => delivered === 50_000);
  });

  test("other work of the process runs while a large delivery is under way", async () => {
    const hub = new Hub(generous);
    // A write to a socket costs some microseconds; as much is spent here.
    let delivered = 0;
    const slow = new Recorder(() => {
      delivered++;
      const end = performance.now() + 0.005;
      while (performance.now() < end);
    });
    for (let i = 0; i < 20_000; i++) hub.subscribe(newSession(slow), app, name("a"), undefined);
    publish(hub, "a", "1");
    let turns = 0;
    await turnsUntil(() => {
      turns++;
      return delivered === 20_000;
    });
    expect(turns).toBeGreaterThan(5);
  });

  test("large messages delay others no longer than small ones: few are written in one piece", async () => {
    const hub = new Hub(generous);
    const large = "large" as AppId;
    let delivered = 0;
    let deliveredBefore = -1;
    const small = new Listener(hub, ["a"], app, () => {
      deliveredBefore = delivered;
    });
    const crowd = Array.from(
      { length: 60 },
      (_, n) =>
        new Listener(hub, ["all/*", `own/${n}`], large, () => {
          if (++delivered === 1) publish(hub, "a", "1");
        }),
    );
    const data = "x".repeat(200_000);
    for (const n of crowd.keys()) publish(hub, `own/${n}`, `${n}`, large);
    for (let n = 0; n < 20; n++) {
      const id = `all ${n}`.padEnd(data.length, ".");
      hub.receive(large, { id, channel: name(`all/${n}`, large), data }, nextPosition());
    }
    await turnsUntil(() => small.heard.length === 1);
    // What one session is given in one piece: a part of its 21 messages.
    expect(deliveredBefore).toBeLessThan(20);
    await turnsUntil(() => crowd.every(({ heard }) => heard.length === 21));
    for (const [n, { heard }] of crowd.entries()) {
      expect(heard.map((id) => id.replace(/\.+$/, ""))).toEqual([
        `${n}`,
        ...Array.from({ length: 20 }, (_, index) => `all ${index}`),
      ]);
    }
  });

  test("a pattern over many channels costs as much as their messages, not as their square", async () => {
    const hub = new Hub(generous);
    const count = 10_000;
    const listener = new Listener(hub, ["**"]);
    for (let i = 0; i < count; i++) publish(hub, `c${i}`, `${i}`);
    const start = performance.now();
    await turnsUntil(() => listener.lastHeard === `${count - 1}`);
    expect(listener.heard).toEqual(Array.from({ length: count }, (_, index) => `${index}`));
    // Some 10 ms; the square takes seconds and as many megabytes.
    expect(performance.now() - start).toBeLessThan(500);
  });

  test("many channels of one application do not keep another one waiting", async () => {
    const hub = new Hub(generous);
    const large = "large" as AppId;
    const crowd = Array.from({ length: 20 }, () => new Listener(hub, ["**"], large));
    for (let i = 0; i < 3_000; i++) publish(hub, `c${i}`, `${i}`, large);
    const small = new Listener(hub, ["a"]);
    publish(hub, "a", "1");
    const start = performance.now();
    await turnsUntil(() => small.heard.length === 1);
    expect(performance.now() - start).toBeLessThan(100);
    await turnsUntil(() => crowd.every(({ lastHeard }) => lastHeard === "2999"));
  });

  test("order is kept although a delivery needs many slices and more is published meanwhile", async () => {
    const hub = new Hub(generous);
    const listeners = Array.from({ length: 2_000 }, (_, index) =>
      index % 2 === 0 ? new Listener(hub, ["a"]) : new Listener(hub, ["a", "**"]),
    );
    const expected: string[] = [];
    for (let round = 0; round < 50; round++) {
      for (const rest of ["a", "b", "a"]) {
        const id = `${expected.length}${rest}`;
        expected.push(id);
        publish(hub, rest, id);
      }
      await turn();
    }
    const last = expected.at(-1);
    await turnsUntil(() => listeners.every((each) => each.lastHeard === last));
    const onlyA = expected.filter((id) => id.endsWith("a"));
    for (const [index, { heard }] of listeners.entries()) {
      expect(heard).toEqual(index % 2 === 0 ? onlyA : expected);
    }
  });
});

describe("a client that is being sent the list of a channel's members", () => {
  /** Says who came or went. */
  function announce(hub: Hub, rest: string, id: string): Position {
    const position = nextPosition();
    hub.receive(app, { id, channel: name(rest), data: "{}", isMembership: true }, position);
    return position;
  }

  test("hears the channel when the list is on its way, without the changes that the list has", async () => {
    const hub = new Hub(generous);
    const joiner = new Listener(hub, ["other"]);
    const watcher = new Listener(hub, ["room"]);
    const room = joiner.subscribe("room");
    hub.hold(room);
    publish(hub, "room", "message 1");
    announce(hub, "room", "join 1");
    publish(hub, "other", "elsewhere");
    await turn();
    expect(joiner.heard).toEqual(["elsewhere"]);
    const position = announce(hub, "room", "join 2");
    publish(hub, "room", "message 2");
    announce(hub, "room", "join 3");
    room.snapshot = position;
    hub.release(room, app);
    announce(hub, "room", "join 4");
    await turn();
    expect(joiner.heard).toEqual(["elsewhere", "message 1", "message 2", "join 3", "join 4"]);
    expect(watcher.heard).toHaveLength(6);
  });

  test("hears each once, though a pattern of its covers the channel", async () => {
    const hub = new Hub(generous);
    const joiner = new Listener(hub, ["room/*"]);
    const room = joiner.subscribe("room/1");
    hub.hold(room);
    for (const id of ["1", "2"]) publish(hub, "room/1", id);
    publish(hub, "room/2", "other");
    await turn();
    publish(hub, "room/1", "3");
    await turn();
    expect(joiner.heard).toEqual(["other"]);
    hub.release(room, app);
    expect(joiner.heard).toEqual(["other", "1", "2", "3"]);
  });

  test("waits for the last of several lists, and for none when it has left", async () => {
    const hub = new Hub(generous);
    const joiner = new Listener(hub, []);
    const room = joiner.subscribe("room");
    for (let lists = 0; lists < 2; lists++) hub.hold(room);
    publish(hub, "room", "1");
    await turn();
    hub.release(room, app);
    expect(joiner.heard).toEqual([]);
    hub.release(room, app);
    expect(joiner.heard).toEqual(["1"]);
    hub.hold(room);
    publish(hub, "room", "2");
    await turn();
    joiner.unsubscribe("room");
    hub.release(room, app);
    joiner.subscribe("room");
    publish(hub, "room", "3");
    await turn();
    expect(joiner.heard).toEqual(["1", "3"]);
  });

  test("hears changes of a later life of the sequence, whatever their numbers", async () => {
    const hub = new Hub(generous);
    const joiner = new Listener(hub, []);
    joiner.subscribe("room").snapshot = { epoch: "e", seq: 1_000_000 };
    announce(hub, "room", "old");
    const change = { id: "new", channel: name("room"), data: "{}", isMembership: true };
    hub.receive(app, change, { epoch: "f", seq: 1 });
    await turn();
    expect(joiner.heard).toEqual(["new"]);
  });
});

describe("what could not be received", () => {
  test("is counted for those whose subscription was effective, so that they can know", () => {
    const hub = new Hub(generous);
    const [heard, waiting, elsewhere] = [
      new Listener(hub, ["a"]),
      new Listener(hub, ["a"]),
      new Listener(hub, ["b"]),
    ];
    heard.subscribe("a").isEffective = true;
    elsewhere.subscribe("b").isEffective = true;
    hub.miss(app, name("a"));
    hub.miss(app, name("nobody"));
    expect([heard, waiting, elsewhere].map(({ session }) => session.sentCount)).toEqual([1, 0, 0]);
  });

  test("because too much waits is lost, and told and counted once when less waits", async () => {
    const hub = new Hub({ ...generous, backlogMessages: 600 });
    const [listener, other] = [new Listener(hub, ["a"]), new Listener(hub, ["b"])];
    for (const [each, rest] of [
      [listener, "a"],
      [other, "b"],
    ] as const) {
      each.subscribe(rest).isEffective = true;
    }
    const taken = Array.from({ length: 1_500 }, (_, index) => publish(hub, "a", `${index}`));
    expect(taken.flatMap((isTaken, index) => (isTaken ? [] : [index]))).toEqual([1_200]);
    expect(listener.session.sentCount).toBe(0);
    await turnsUntil(() => listener.heard.length === 1_200);
    await turnsUntil(() => !hub.isBusy(app));
    expect(listener.heard.at(-1)).toBe("1199");
    expect(listener.session.sentCount).toBe(1_201);
    expect(other.session.sentCount).toBe(0);
    // What comes when there is room again is heard, and a new loss is told anew.
    expect(publish(hub, "a", "later")).toBe(true);
    await turnsUntil(() => listener.lastHeard === "later");
  });
});

describe("against a naive model", () => {
  const names = ["a", "b", "a/b", "a/b/c", "a/c", "b/a", "**", "*", "a/*", "a/**", "a/b/*", "b/**"];
  const channels = names.filter((each) => !each.includes("*"));

  interface Expected {
    readonly listener: Listener;
    readonly live: Set<string>;
    /** In the order of publication; `since` names the subscriptions that heard it then. */
    readonly published: { id: string; by: Set<string> }[];
  }

  function hears(live: Set<string>, rest: string): Set<string> {
    return new Set([...live].filter((each) => covers(name(each) as Channel | Pattern, name(rest))));
  }

  test("everyone hears what the model says, in its order, each once", async () => {
    const random = Random.fromEnvironment("hub model");
    // With this limit it is busy as long as anything waits for delivery.
    const hub = new Hub({ ...generous, backlogMessages: 1 });
    const all: Expected[] = [];
    let id = 0;
    for (let step = 0; step < 8_000; step++) {
      const roll = random.next();
      if (all.length < 3 || (roll < 0.01 && all.length < 25)) {
        all.push({ listener: new Listener(hub, []), live: new Set(), published: [] });
      } else if (roll < 0.15) {
        const { listener, live } = random.pick(all);
        const rest = random.pick(names);
        listener.subscribe(rest);
        live.add(rest);
      } else if (roll < 0.25) {
        const { listener, live, published } = random.pick(all);
        const rest = random.pick(names);
        listener.unsubscribe(rest);
        live.delete(rest);
        for (const { by } of published) by.delete(rest);
      } else if (roll < 0.9) {
        const rest = random.pick(channels);
        id++;
        publish(hub, rest, `${id}`);
        for (const { live, published } of all) {
          const by = hears(live, rest);
          if (by.size > 0) published.push({ id: `${id}`, by });
        }
      } else {
        await settle(hub, all);
      }
    }
    await settle(hub, all);
    for (const { listener, live } of all) {
      for (const rest of live) listener.unsubscribe(rest);
    }
    const [counters] = [...hub.counters()].map(([, counted]) => counted);
    expect(counters).toMatchObject({ connections: 0, subscriptions: 0, channels: 0 });
  });

  /** Delivers, compares and forgets. What was unsubscribed before its delivery is not heard. */
  async function settle(hub: Hub, all: readonly Expected[]): Promise<void> {
    await turnsUntil(() => !hub.isBusy(app));
    for (const { listener, published } of all) {
      const due = published.splice(0).flatMap(({ id, by }) => (by.size > 0 ? [id] : []));
      expect(listener.heard.join()).toBe(due.join());
      listener.connection.batches.length = 0;
    }
  }
});
