import { type AppId, type Channel, expand, type Pattern } from "@pandapush/protocol";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { Position, Publication } from "../session.js";
import type { Broker, BrokerHandler } from "./broker.js";

export interface Received {
  readonly appId: AppId;
  readonly publication: Publication;
  readonly position: Position;
}

/** A node as its broker sees it: knows what it subscribed to, and remembers what it received of that. */
export class Node implements BrokerHandler {
  readonly heard: Received[] = [];
  /** Names of which it was told that something may be missing. */
  readonly gaps: string[] = [];
  readonly broker: Broker;
  private readonly names = new Set<string>();
  private readonly looks = new Set<() => void>();

  constructor(create: (handler: BrokerHandler) => Broker) {
    this.broker = create(this);
  }

  received(appId: AppId, publication: Publication, position: Position): void {
    if (!expand(publication.channel).some((name) => this.names.has(name))) return;
    this.heard.push({ appId, publication, position });
    for (const look of [...this.looks]) look();
  }

  missed(appId: AppId, name: Channel | Pattern): void {
    if (!name.startsWith(`/${appId}/`)) throw new Error(`${name} is not of ${appId}`);
    this.gaps.push(name);
    for (const look of [...this.looks]) look();
  }

  async subscribe(...names: string[]): Promise<void> {
    for (const name of names) this.names.add(name);
    await Promise.all(
      names.map((name) => this.broker.subscribe(appOf(name), name as Channel | Pattern)),
    );
  }

  unsubscribe(...names: string[]): void {
    for (const name of names) {
      this.names.delete(name);
      this.broker.unsubscribe(appOf(name), name as Channel | Pattern);
    }
  }

  /** @returns when the broker has taken it */
  async publish(channel: string, given: string | Partial<Publication> = {}): Promise<Position> {
    const fields = typeof given === "string" ? { id: given } : given;
    return this.broker.publish(appOf(channel), publication(channel, fields));
  }

  get ids(): string[] {
    return this.heard.map(({ publication: { id } }) => id);
  }

  /** Waits until a publication with this id was received; what it received up to there, emptied. */
  async until(id: string, deadlineMs = 8_000): Promise<string[]> {
    await this.untilTrue(() => this.ids.includes(id), id, deadlineMs);
    const end = this.ids.indexOf(id) + 1;
    return this.heard.splice(0, end).map(({ publication }) => publication.id);
  }

  /** As `settle`. @returns what it received meanwhile and before, emptied */
  async flush(app: AppId): Promise<string[]> {
    await this.settle(app);
    const ids = this.heard.splice(0).map(({ publication: { id } }) => id);
    return ids.filter((id) => !id.startsWith("flush-"));
  }

  /**
   * Waits until whatever was published before has been received, if it ever will be: what is
   * published to all of these channels takes every way there is.
   */
  async settle(app: AppId): Promise<void> {
    const ids = Array.from({ length: 16 }, () => `flush-${++made}`);
    const pattern = `/${app}/public/flush/*`;
    await this.subscribe(pattern);
    await Promise.all(ids.map((id) => this.publish(`/${app}/public/flush/${id}`, id)));
    await this.untilTrue(() => ids.every((id) => this.ids.includes(id)), "flush");
    this.unsubscribe(pattern);
  }

  untilTrue(isTrue: () => boolean, what: string, deadlineMs = 8_000): Promise<void> {
    return new Promise((resolve, reject) => {
      const look = (): void => {
        if (!isTrue()) return;
        clearTimeout(timer);
        this.looks.delete(look);
        resolve();
      };
      const timer = setTimeout(() => {
        this.looks.delete(look);
        reject(new Error(`not within ${deadlineMs} ms: ${what}; heard ${this.ids.slice(-20)}`));
      }, deadlineMs);
      this.looks.add(look);
      look();
    });
  }
}

let made = 0;
/** A name that no other test uses, in an application of its own. */
export function freshApp(): AppId {
  return `app${process.pid}x${++made}` as AppId;
}

export function publication(channel: string, fields: Partial<Publication> = {}): Publication {
  return { id: `node-${++made}`, channel: channel as Channel, data: "1", ...fields };
}

function appOf(name: string): AppId {
  return name.slice(1, name.indexOf("/", 1)) as AppId;
}

/** Texts that are easily damaged on the way, all of them JSON. */
const texts = [
  "1.0",
  "1e400",
  '""',
  '" "',
  '{"b":1,"a":1,"b":2}',
  '{ "a" :\t[ ] ,\r\n "c":null }',
  '"é ☃ 😀 \u2028 \u2029 \u0000"'.replace("\u0000", "\\u0000"),
  '"\\ud83d alone"',
  '"\u007f\u0080\uffff\ufeff"',
  `"${"x".repeat(300_000)}"`,
  `["${"ü€😀".repeat(5_000)}"]`,
  '"1 2 3\\n$5\\r\\n"',
];

/** What every broker does for one node. */
export function brokerSuite(
  open: () => Promise<{ create(handler: BrokerHandler): Broker; close(): Promise<void> }>,
): void {
  let node: Node;
  let app: AppId;
  let close: () => Promise<void>;

  beforeEach(async () => {
    const opened = await open();
    close = () => opened.close();
    node = new Node((handler) => opened.create(handler));
    app = freshApp();
  });

  afterEach(async () => {
    await node.broker.close();
    await close();
  });

  test("a publication arrives as it was published, byte for byte", async () => {
    const channel = `/${app}/private/exact`;
    await node.subscribe(channel);
    const published = texts.flatMap((text) => [
      publication(channel, { data: text }),
      publication(channel, { data: text, ext: `{"x":${text}}` }),
      publication(channel, { data: text, isMembership: true }),
    ]);
    for (const each of published) await node.broker.publish(app, each);
    await node.untilTrue(() => node.heard.length === published.length, "all of them");
    for (const [index, { data, ext, id, isMembership = false }] of published.entries()) {
      const heard = node.heard[index]?.publication;
      expect([heard?.id, heard?.channel]).toEqual([id, channel]);
      // Compared as a whole, a difference in long texts takes long to print.
      expect(heard?.data === data).toBe(true);
      expect(heard?.ext === ext).toBe(true);
      expect(heard?.isMembership ?? false).toBe(isMembership);
    }
  });

  test("publications of a channel arrive in the order of the calls, which is that of their positions", async () => {
    const channel = `/${app}/public/order`;
    await node.subscribe(channel);
    const ids = Array.from({ length: 1_000 }, (_, index) => `order-${index}`);
    const positions = await Promise.all(ids.map((id) => node.publish(channel, id)));
    await node.untilTrue(() => node.heard.length === ids.length, "all of them");
    expect(node.ids).toEqual(ids);
    expect(node.heard.map(({ position }) => position)).toEqual(positions);
    for (const [index, { epoch, seq }] of positions.entries()) {
      expect(epoch).toBe(positions[0]?.epoch);
      expect(seq).toBeGreaterThan(positions[index - 1]?.seq ?? 0);
    }
  });

  test("a publication is received once, whichever of its names are subscribed to", async () => {
    const channel = `/${app}/public/a/b/c`;
    const others = [`/${app}/public/a/b`, `/${app}/public/a/b/c/d`, `/${app}/private/a/b/c`];
    const names = expand(channel as Channel);
    expect(names).toHaveLength(5);
    for (let set = 1; set < 2 ** names.length; set++) {
      const chosen = names.filter((_, index) => set & (1 << index));
      await node.subscribe(...chosen);
      await node.publish(channel, "hit");
      for (const other of others) await node.publish(other, "other");
      const heard = await node.flush(app);
      expect(heard.filter((id) => id === "hit")).toEqual(["hit"]);
      node.unsubscribe(...chosen);
    }
  });

  test("each pattern hears what it covers and nothing else", async () => {
    const base = `/${app}/public/x`;
    const paths = ["", "/a", "/a/b", "/a/b/c", "y/a"];
    for (const [name, expected] of [
      [`${base}/*`, ["/a"]],
      [`${base}/**`, ["/a", "/a/b", "/a/b/c"]],
      [`${base}/a/*`, ["/a/b"]],
      [`/${app}/public/*`, [""]],
      [base, [""]],
    ] as const) {
      await node.subscribe(name);
      for (const path of paths) await node.publish(`${base}${path}`, `p${path}`);
      const heard = await node.flush(app);
      expect(heard.sort()).toEqual(expected.map((path) => `p${path}`));
      node.unsubscribe(name);
    }
  });

  test("a subscription is effective when it is acknowledged", async () => {
    for (let round = 0; round < 100; round++) {
      const name = `/${app}/public/fresh/${round}`;
      await node.subscribe(round % 2 === 0 ? name : `${name}/**`);
      await node.publish(round % 2 === 0 ? name : `${name}/deep/down`, `fresh-${round}`);
      await node.until(`fresh-${round}`);
    }
  });

  test("many subscriptions that are made together are all effective", async () => {
    const names = Array.from({ length: 2_500 }, (_, index) => `/${app}/public/many/${index}`);
    await node.subscribe(...names);
    await Promise.all(names.map((name) => node.publish(name, name)));
    await node.untilTrue(() => node.heard.length === names.length, "all of them");
  });

  test("unsubscribing takes back one name, at once or not, and subscribing again works", async () => {
    const [one, two] = [`/${app}/public/one`, `/${app}/public/two`];
    await node.subscribe(one, two);
    await node.subscribe(one);
    node.unsubscribe(one, `/${app}/public/never`);
    node.unsubscribe(one);
    await node.publish(one, "1");
    await node.publish(two, "2");
    expect(await node.flush(app)).toEqual(["2"]);
    for (let round = 0; round < 20; round++) {
      await node.subscribe(one);
      node.unsubscribe(one);
      const again = node.subscribe(one);
      node.unsubscribe(two);
      await again;
      await node.publish(one, `again-${round}`);
      await node.until(`again-${round}`);
    }
  });

  test("applications hear nothing of each other", async () => {
    const other = freshApp();
    await node.subscribe(`/${app}/public/**`, `/${other}/public/news`);
    await node.publish(`/${app}/public/news`, "mine");
    await node.publish(`/${other}/public/news`, "theirs");
    await node.publish(`/${other}/public/other`, "nobody's");
    await node.untilTrue(() => node.heard.length === 2, "both");
    const heard = node.heard.map(({ appId, publication: { id } }) => [appId, id]);
    expect(heard.sort(([, a = ""], [, b = ""]) => (a < b ? -1 : 1))).toEqual([
      [app, "mine"],
      [other, "theirs"],
    ]);
    expect((await node.flush(app)).sort()).toEqual(["mine", "theirs"]);
  });

  test("what nobody hears is taken all the same", async () => {
    const { seq } = await node.publish(`/${app}/public/silence`);
    expect(seq).toBeGreaterThan(0);
  });

  test("nothing is received after closing", async () => {
    await node.subscribe(`/${app}/public/news`);
    await node.publish(`/${app}/public/news`, "before");
    await node.until("before");
    await node.broker.close();
    await Promise.resolve(node.publish(`/${app}/public/news`, "after")).catch(() => undefined);
    expect(node.ids).toEqual([]);
    await node.broker.close();
  });
}
