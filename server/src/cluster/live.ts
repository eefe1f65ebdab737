/**
 * What goes on in an application on all nodes: each is asked for its part, and the parts are put
 * together. Presence is shared by all nodes already.
 *
 * What nodes answer is bounded, because a Redis host that has to keep too much for a slow node cuts
 * it off.
 */
import type { AppId, Channel, ParsedChannel } from "@pandapush/protocol";
import {
  type ActiveChannel,
  Best,
  byCountThenName,
  type ChannelInfo,
  type Connection,
  type Disconnected,
  type Gathered,
  type Listed,
  type Live,
  type LocalLive,
  Looks,
  type NamedCount,
  type Window,
} from "../live.js";
import { maxRefusals, type Refused } from "../refusals.js";
import { inSlices } from "../slices.js";
import type { Membership } from "./membership.js";
import { type Peers, PeerUnavailable } from "./peers.js";

/** How long a node may take to answer. Whoever asked waits for it. */
const answerMs = 2_500;
/** Names that a node tells of: as many as there may be up to the end of the last page. */
const maxNames = 11_000;
/** Characters of one answer, about. */
const maxAnswerLength = 512 * 1024;
/** Names that are put together between two looks at the clock. */
const betweenLooks = 64;

/** What nodes ask each other, and what is answered. */
interface Questions {
  /** The busiest first: behind `/<appId>/`, and how many subscribed to it. */
  names: [
    { appId: AppId; prefix: string },
    { names: readonly (readonly [name: string, subscribers: number])[]; total: number },
  ];
  channel: [ParsedChannel, { subscribers: number; listeners: number }];
  /** Since when connections are there, the newest first. */
  ages: [
    { appId: AppId; search: string; limit: number },
    { ages: readonly number[]; total: number },
  ];
  /** Some of the window, at least the first. */
  connections: [{ appId: AppId; search: string } & Window, { connections: readonly Connection[] }];
  disconnect: [{ appId: AppId; connectionId: string }, { count: number }];
  disconnectUser: [{ appId: AppId; presenceId: string }, { count: number }];
  refusals: [{ appId: AppId }, { refusals: readonly Refused[] }];
}

type Kind = keyof Questions;
type Body<K extends Kind> = Questions[K][0];
type Answer<K extends Kind> = Questions[K][1];

/** What the nodes say that have answered, by their ids. */
interface Answers<T> extends Gathered {
  readonly of: ReadonlyMap<string, T>;
}

export interface ClusterLiveParts {
  /** This node's own part. */
  readonly local: LocalLive;
  readonly membership: Membership;
  readonly peers: Peers;
}

export class ClusterLive implements Live {
  private readonly looks = new Looks();
  private readonly handlers: {
    [K in Kind]: (body: Body<K>) => Promise<Answer<K>>;
  };

  constructor(private readonly parts: ClusterLiveParts) {
    const { local, peers } = parts;
    this.handlers = {
      names: ({ appId, prefix }) => this.ownNames(appId, prefix),
      channel: (channel) => local.channel(channel),
      ages: async ({ appId, search, limit }) => {
        const { items, total } = await local.ages(appId, search, { offset: 0, limit });
        return { ages: items, total };
      },
      connections: async ({ appId, search, offset, limit }) => {
        const { items } = await local.connections(appId, { search, offset, limit });
        return { connections: beginning(items, (item) => JSON.stringify(item).length) };
      },
      disconnect: ({ appId, connectionId }) => local.disconnect(appId, connectionId),
      disconnectUser: ({ appId, presenceId }) => local.disconnectUser(appId, presenceId),
      refusals: async ({ appId }) => {
        const { items } = await local.refusals(appId, { offset: 0, limit: maxRefusals });
        return { refusals: items };
      },
    };
    for (const kind of Object.keys(this.handlers) as Kind[]) {
      peers.serve(topicOf(kind), (body) => this.handlers[kind](body));
    }
  }

  async channels(
    appId: AppId,
    { prefix, ...window }: { readonly prefix: string } & Window,
  ): Promise<Listed<ActiveChannel>> {
    const { of, incomplete } = await this.askAll(appId, "names", { appId, prefix });
    const start = `/${appId}/`;
    const sums = new Map<string, number>();
    let total = 0;
    let isCut = false;
    for (const answer of of.values()) {
      const add = ([name, count]: readonly [string, number]): void => {
        sums.set(name, (sums.get(name) ?? 0) + count);
      };
      await inSlices(answer.names, add, betweenLooks);
      total = Math.max(total, answer.total);
      isCut ||= answer.names.length < answer.total;
    }
    const busiest = new Best<NamedCount>(window, ({ name }) => name, byCountThenName);
    const see = ([name, count]: readonly [string, number]): void =>
      busiest.add({ name: `${start}${name}` as Channel, count });
    await inSlices(sums, see, betweenLooks);
    const cut = isCut
      ? "there are more channels than are counted together, so numbers and order may be wrong: ask for those with a prefix"
      : undefined;
    return {
      items: await this.parts.local.withMembers(appId, busiest.items()),
      total: Math.max(total, sums.size),
      incomplete: [incomplete, cut].filter((text) => text !== undefined).join("; ") || undefined,
    };
  }

  async channel(channel: ParsedChannel): Promise<ChannelInfo & Gathered> {
    const { name, appId } = channel;
    const { of, incomplete } = await this.askAll(appId, "channel", channel);
    let subscribers = 0;
    let listeners = 0;
    for (const part of of.values()) {
      subscribers += part.subscribers;
      listeners += part.listeners;
    }
    const [known] = await this.parts.local.withMembers(appId, [{ name, count: subscribers }]);
    return { channel: name, subscribers, listeners, members: known?.members, incomplete };
  }

  members(appId: AppId, channel: Channel): Promise<string> {
    return this.parts.local.members(appId, channel);
  }

  async connections(
    appId: AppId,
    { search, offset, limit }: { readonly search: string } & Window,
  ): Promise<Listed<Connection>> {
    const question = { appId, search, limit: offset + limit };
    const { of, incomplete } = await this.askAll(appId, "ages", question);
    const places: { readonly since: number; readonly nodeId: string }[] = [];
    let total = 0;
    for (const [nodeId, answer] of of) {
      for (const since of answer.ages) places.push({ since, nodeId });
      total += answer.total;
    }
    // Those of one node stay in its order.
    places.sort((one, other) => other.since - one.since);
    const ahead = countBy(places.slice(0, offset), ({ nodeId }) => nodeId);
    const shown = countBy(places.slice(offset, offset + limit), ({ nodeId }) => nodeId);
    const pages = await this.gather(
      // In the same order always, for those that are of the same age.
      [...of.keys()].filter((nodeId) => shown.has(nodeId)),
      (nodeId) =>
        this.connectionsOf(nodeId, {
          appId,
          search,
          offset: ahead.get(nodeId) ?? 0,
          limit: shown.get(nodeId) ?? 0,
        }),
      this.parts.membership.all.length,
    );
    const items = [...pages.of.values()].flat().sort((one, other) => other.since - one.since);
    // One that has just moved may be told of by two nodes.
    const byId = new Map(items.map((item) => [item.id, item]));
    return { items: [...byId.values()], total, incomplete: incomplete ?? pages.incomplete };
  }

  async disconnect(appId: AppId, connectionId: string): Promise<Disconnected> {
    const done = sum(await this.askAll(appId, "disconnect", { appId, connectionId }));
    // It is one, even when it was about to go to another node.
    return done.count > 0 ? { count: 1 } : done;
  }

  async disconnectUser(appId: AppId, presenceId: string): Promise<Disconnected> {
    return sum(await this.askAll(appId, "disconnectUser", { appId, presenceId }));
  }

  async refusals(appId: AppId, { offset, limit }: Window): Promise<Listed<Refused>> {
    const { of, incomplete } = await this.askAll(appId, "refusals", { appId });
    const merged = new Map<string, Refused>();
    for (const answer of of.values()) {
      for (const refused of answer.refusals) {
        const name = JSON.stringify([refused.action, refused.channel, refused.message]);
        const other = merged.get(name);
        merged.set(name, other === undefined ? refused : together(refused, other));
      }
    }
    const items = [...merged.values()].sort((one, other) => other.lastAt - one.lastAt);
    return { items: items.slice(offset, offset + limit), total: items.length, incomplete };
  }

  private async ownNames(appId: AppId, prefix: string): Promise<Answer<"names">> {
    const { local } = this.parts;
    const { items, total } = await local.names(appId, prefix, { offset: 0, limit: maxNames });
    const start = `/${appId}/`.length;
    const names = items.map(({ name, count }) => [name.slice(start), count] as const);
    // Quotes, brackets, commas and digits.
    return { names: beginning(names, ([name]) => name.length + 12), total };
  }

  /** Asked for again and again, as much as fits into an answer each time. */
  private async connectionsOf(nodeId: string, body: Body<"connections">): Promise<Connection[]> {
    const all: Connection[] = [];
    while (all.length < body.limit) {
      const rest = { offset: body.offset + all.length, limit: body.limit - all.length };
      const { connections } = await this.ask(nodeId, "connections", { ...body, ...rest });
      // Some have left meanwhile.
      if (connections.length === 0) break;
      all.push(...connections);
    }
    return all;
  }

  private async askAll<K extends Kind>(
    appId: AppId,
    kind: K,
    body: Body<K>,
  ): Promise<Answers<Answer<K>>> {
    const done = this.looks.begin(appId);
    try {
      return await this.gather(this.parts.membership.all, (id) => this.ask(id, kind, body));
    } finally {
      done();
    }
  }

  /** @param among how many nodes there are in all */
  private async gather<T>(
    nodeIds: Iterable<string>,
    ask: (nodeId: string) => Promise<T>,
    among?: number,
  ): Promise<Answers<T>> {
    const asked = [...nodeIds];
    const of = new Map<string, T>();
    const answers = asked.map(async (nodeId) => {
      try {
        return [nodeId, await ask(nodeId)] as const;
      } catch (error) {
        if (error instanceof PeerUnavailable) return undefined;
        throw error;
      }
    });
    for (const answer of await Promise.all(answers)) if (answer !== undefined) of.set(...answer);
    const silent = asked.length - of.size;
    if (silent === 0) return { of };
    return { of, incomplete: `${silent} of ${among ?? asked.length} nodes did not answer` };
  }

  private ask<K extends Kind>(nodeId: string, kind: K, body: Body<K>): Promise<Answer<K>> {
    const { membership, peers } = this.parts;
    if (nodeId === membership.id) return this.handlers[kind](body);
    return peers.ask(nodeId, topicOf(kind), body, answerMs) as Promise<Answer<K>>;
  }
}

function topicOf(kind: Kind): string {
  return `live ${kind}`;
}

/** As many as fit into an answer, at least one. */
function beginning<T>(items: readonly T[], lengthOf: (item: T) => number): readonly T[] {
  let length = 0;
  const end = items.findIndex((item, index) => {
    length += lengthOf(item);
    return length > maxAnswerLength && index > 0;
  });
  return end === -1 ? items : items.slice(0, end);
}

function sum({ of, incomplete }: Answers<{ readonly count: number }>): Disconnected {
  let count = 0;
  for (const answer of of.values()) count += answer.count;
  return { count, incomplete };
}

/** The same refusal at two nodes. */
function together(one: Refused, other: Refused): Refused {
  const last = one.lastAt >= other.lastAt ? one : other;
  return {
    ...last,
    keyId: last.keyId ?? one.keyId ?? other.keyId,
    firstAt: Math.min(one.firstAt, other.firstAt),
    count: one.count + other.count,
  };
}

function countBy<T>(items: readonly T[], keyOf: (item: T) => string): Map<string, number> {
  const counts = new Map<string, number>();
  for (const item of items) counts.set(keyOf(item), (counts.get(keyOf(item)) ?? 0) + 1);
  return counts;
}
