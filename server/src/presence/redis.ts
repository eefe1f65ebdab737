/**
 * Who is present, for nodes that share one or several Redis hosts.
 *
 * A channel's members are on the host of the channel. What changes there and what is said of it is
 * one script, in the sequence of all publications (ADR 0009). Each node also remembers the sessions
 * that are its own, and what it wants of them: what a host could not be told while it was down, and
 * what it forgot, is told again when it is back. Whatever is kept under a node's id ends with it.
 */
import { createHash } from "node:crypto";
import type { AppId, Channel } from "@pandapush/protocol";
import { expand } from "@pandapush/protocol";
import { readPosition, topicOf } from "../broker/wire.js";
import type { Membership } from "../cluster/membership.js";
import { Refusal } from "../errors.js";
import { after, type MaybePromise } from "../maybe-promise.js";
import type { Log, RedisHost, RedisHosts, Script } from "../redis/hosts.js";
import { HostUnavailable, luaUrl, readScript } from "../redis/hosts.js";
import type { Member } from "../session.js";
import {
  entryOf,
  listTooLong,
  maxListLength,
  type Presence,
  type PresenceLimits,
  replyTooLong,
  requireAllowedSize,
  type Snapshot,
  tooManyMembers,
} from "./presence.js";

/** Sessions that one script sees to, where many are to be seen to. */
const sliceSessions = 50;
/** How long a join waits for a host that is down: its topics may be back a moment before the rest. */
const joinWaitMs = 800;
/** How often it is tried to settle what a host could not be told. */
const settleMs = 500;
/**
 * How long after a host lost its data some nodes may not have told it of their sessions. Whose last
 * session leaves meanwhile is remembered for this long.
 */
const healingMs = 30_000;
/** As long as nodes remember who is dead. */
const fenceMs = 3_600_000;
/** Faults of a host that are no outages are logged at most this often. */
const complaintMs = 10_000;

const presenceScript = (name: string): Script =>
  readScript(luaUrl("say"), luaUrl("presence"), luaUrl(name));
const joinScript = presenceScript("join");
const leaveScript = presenceScript("leave");
const restoreScript = presenceScript("restore");
const fenceScript = readScript(luaUrl("time"), luaUrl("fence"));

export interface RedisPresenceParts {
  readonly hosts: RedisHosts;
  readonly membership: Pick<Membership, "id" | "verified" | "register">;
  /** A fresh id for a publication. */
  readonly nextId: () => string;
  readonly limits: PresenceLimits;
  readonly log: Log;
  /** After this long, a session that was handed over and not taken leaves. */
  readonly handoverMs?: number;
}

export interface RedisPresence extends Presence {
  /** This node was declared dead: none of its sessions is its own any more. */
  lost(): void;
  /**
   * Removes what a dead node has in an application on this host, and announces it. Others may be
   * doing the same: each is announced once.
   * @throws HostUnavailable
   */
  clean(host: RedisHost, nodeId: string, appId: AppId): Promise<void>;
  close(): void;
}

export function createRedisPresence(parts: RedisPresenceParts): RedisPresence {
  const { hosts, limits } = parts;
  const shares = new Map<RedisHost, HostPresence>();
  for (const host of hosts.all) shares.set(host, new HostPresence(host, parts));
  const shareOf = (channel: Channel): HostPresence =>
    shares.get(hosts.hostOf(channel)) as HostPresence;

  return {
    join(appId, channel, clientId, member, listLength) {
      requireAllowedSize(member, limits);
      return shareOf(channel).join(appId, channel, keyOf(clientId), member, listLength);
    },
    leave: (_appId, channel, clientId) => shareOf(channel).leave(channel, keyOf(clientId)),
    adopt: (appId, channel, clientId, member) =>
      shareOf(channel).adopt(appId, channel, keyOf(clientId), member),
    forget: (_appId, channel, clientId) => shareOf(channel).forget(channel, keyOf(clientId)),
    async members(appId, channel) {
      return listOf((await shareOf(channel).ask("HVALS", appId, channel)) as string[]);
    },
    counts: (appId, channels) =>
      Promise.all(
        channels.map(async (channel) => Number(await shareOf(channel).ask("HLEN", appId, channel))),
      ),
    lost() {
      for (const share of shares.values()) share.forgetAll();
    },
    clean: (host, nodeId, appId) => shares.get(host)?.clean(nodeId, appId) ?? Promise.resolve(),
    close() {
      for (const share of shares.values()) share.close();
    },
  };
}

/** As whom a session is present. */
interface Present {
  /** As JSON text. */
  readonly id: string;
  readonly entry: string;
}

/** A session of this node on one channel. */
interface Own {
  readonly room: Room;
  /** How Redis calls it: not by its clientId, which is a secret. */
  readonly session: string;
  /** What it is to be. */
  wanted: Present | undefined;
  /** What it is to be when a join fails, and by which wish: those that wait for an answer do not count. */
  kept: Present | undefined;
  keptSince: number;
  /** What it is for the host, as far as that has said so. */
  confirmed: Present | undefined;
  /** What it may have become, for all that is known. */
  uncertain: Present | undefined;
  /** Counts what was asked of the host: only the last is what the session is to be. */
  asked: number;
}

/** A channel that sessions of this node are on. */
interface Room {
  readonly appId: AppId;
  readonly channel: Channel;
  readonly sessions: Map<string, Own>;
  /** Those that the host may have forgotten. */
  unrestored: Set<Own>;
}

/** The channels of one host. */
class HostPresence {
  private readonly handoverMs: number;
  private readonly rooms = new Map<Channel, Room>();
  /** Where this node was ever present. */
  private readonly apps = new Set<AppId>();
  /** What the host could not be told, or may not have understood. */
  private readonly unsettled = new Set<Own>();
  private readonly unrestored = new Set<Room>();
  /** Applications in which the host may list sessions as this node's that are not. */
  private readonly unchecked = new Set<AppId>();
  /**
   * Sessions that others were to take over, and since when. Whoever was to do so may have died
   * before it did.
   */
  private readonly handedOver = new Map<Own, number>();
  /** Whatever is sent goes behind it. */
  private gate: Promise<unknown> | undefined;
  /** Counts connections: what was sent on an old one is refused behind what came on a newer one. */
  private generation = 1;
  private waiting: Promise<void> | undefined;
  private endWait: () => void = noop;
  private settling: Promise<void> | undefined;
  private timer: NodeJS.Timeout | undefined;
  private complainedAt = Number.NEGATIVE_INFINITY;

  constructor(
    private readonly host: RedisHost,
    private readonly parts: RedisPresenceParts,
  ) {
    this.handoverMs = parts.handoverMs ?? 10_000;
    host.onState((state) => {
      if (!state.isUp) return;
      this.generation++;
      // Nobody could take anything over while it was down.
      for (const own of this.handedOver.keys()) this.handedOver.set(own, performance.now());
      if (state.mayLackData) this.distrust();
      this.endWait();
      this.settle();
    });
  }

  async join(
    appId: AppId,
    channel: Channel,
    session: string,
    member: Member,
    listLength: number,
  ): Promise<Snapshot> {
    const own = this.own(appId, channel, session);
    const wanted = presentOf(member);
    const number = want(own, wanted);
    if (!this.host.isUp) {
      await this.returned();
      if (!this.host.isUp || own.asked !== number || !this.isOwn(own)) {
        // Nothing was sent: there is nothing to make good.
        this.takeBack(own, number);
        throw new Refusal("brokerUnavailable", [channel]);
      }
    }
    let reply: unknown;
    try {
      reply = await this.enterFor(own, () => this.sendJoin(own, "join", wanted, listLength));
      if (reply === "fenced") throw new Refusal("brokerUnavailable", [channel]);
    } catch (error) {
      own.uncertain = wanted;
      if (own.asked === number) own.wanted = own.kept;
      this.settleLater(own);
      throw this.refusal(channel, error);
    }
    const refusal = this.refusalOf(reply);
    if (refusal !== undefined) {
      this.takeBack(own, number);
      throw refusal;
    }
    keep(own, wanted, number);
    this.confirm(own, number, wanted);
    const [position, entries] = reply as Joined;
    return {
      list: listOf(entries),
      position: position === "" ? undefined : readPosition(position),
    };
  }

  leave(channel: Channel, session: string): MaybePromise<void> {
    const own = this.rooms.get(channel)?.sessions.get(session);
    if (own === undefined) return;
    keep(own, undefined, want(own, undefined));
    return this.tell(own);
  }

  adopt(appId: AppId, channel: Channel, session: string, member: Member): Promise<void> {
    const own = this.own(appId, channel, session);
    const present = presentOf(member);
    keep(own, present, want(own, present));
    // By the other node, so far.
    own.confirmed ??= present;
    return this.tell(own);
  }

  forget(channel: Channel, session: string): void {
    const own = this.rooms.get(channel)?.sessions.get(session);
    if (own === undefined) return;
    this.drop(own);
    this.handedOver.set(own, performance.now());
    this.keepSettling();
  }

  forgetAll(): void {
    // Who is about to restore one of them restores nothing: it would be in this node's new name.
    for (const { sessions, unrestored } of this.rooms.values()) {
      sessions.clear();
      unrestored.clear();
    }
    this.rooms.clear();
    this.apps.clear();
    this.unsettled.clear();
    this.unrestored.clear();
    this.unchecked.clear();
    this.handedOver.clear();
  }

  async ask(command: "HVALS" | "HLEN", appId: AppId, channel: Channel): Promise<unknown> {
    try {
      return await this.host.command(command, this.key(appId, `:members:${channel}`));
    } catch (error) {
      throw this.refusal(channel, error);
    }
  }

  async clean(nodeId: string, appId: AppId): Promise<void> {
    const nodes = this.key(appId, ":presence:nodes");
    await this.host.run(fenceScript, [nodes], [nodeId, String(fenceMs)]);
    const index = this.indexOf(appId, nodeId);
    for (;;) {
      const listed = await this.host.command("SRANDMEMBER", index, String(sliceSessions));
      if ((listed as string[]).length === 0) return;
      for (const [channel, sessions] of byChannel(listed as string[])) {
        const named = sessions.flatMap((session) => [session, this.parts.nextId()]);
        await this.run(leaveScript, appId, channel, named, nodeId, "cleaner");
      }
    }
  }

  close(): void {
    clearInterval(this.timer);
    this.timer = undefined;
    this.forgetAll();
    this.endWait();
  }

  /** Resolves when the host is up, or after a moment. */
  private returned(): Promise<void> {
    this.waiting ??= new Promise((resolve) => {
      const timer = setTimeout(() => this.endWait(), joinWaitMs);
      this.endWait = () => {
        clearTimeout(timer);
        this.waiting = undefined;
        this.endWait = noop;
        resolve();
      };
    });
    return this.waiting;
  }

  private own(appId: AppId, channel: Channel, session: string): Own {
    this.apps.add(appId);
    let room = this.rooms.get(channel);
    if (room === undefined) {
      room = { appId, channel, sessions: new Map(), unrestored: new Set() };
      this.rooms.set(channel, room);
    }
    let own = room.sessions.get(session);
    if (own === undefined) {
      own = {
        room,
        session,
        wanted: undefined,
        kept: undefined,
        keptSince: 0,
        confirmed: undefined,
        uncertain: undefined,
        asked: 0,
      };
      room.sessions.set(session, own);
    }
    return own;
  }

  private isOwn(own: Own): boolean {
    return this.rooms.get(own.room.channel)?.sessions.get(own.session) === own;
  }

  private drop(own: Own): void {
    if (!this.isOwn(own)) return;
    const { room, session } = own;
    this.unsettled.delete(own);
    room.unrestored.delete(own);
    room.sessions.delete(session);
    if (room.sessions.size > 0) return;
    this.rooms.delete(room.channel);
    this.unrestored.delete(room);
  }

  /** It is what it was, unless something else is wanted of it meanwhile. */
  private takeBack(own: Own, number: number): void {
    if (own.asked !== number) return;
    own.wanted = own.kept;
    this.dropIfGone(own);
  }

  private dropIfGone(own: Own): void {
    const { wanted, confirmed } = own;
    if (wanted === undefined && confirmed === undefined && !this.unsettled.has(own)) this.drop(own);
  }

  /** The host has done what it was asked for, and whatever it was asked for before is over. */
  private confirm(own: Own, number: number, present: Present | undefined): void {
    own.confirmed = present;
    own.uncertain = undefined;
    if (own.asked !== number) return;
    this.unsettled.delete(own);
    this.dropIfGone(own);
  }

  /** Has the host know what is wanted; what it cannot be told now is settled later. */
  private async tell(own: Own): Promise<void> {
    const { wanted, asked, room } = own;
    try {
      const reply = await this.enterFor(own, () =>
        wanted === undefined
          ? this.run(leaveScript, room.appId, room.channel, [own.session, this.parts.nextId()])
          : this.sendJoin(own, "adopt", wanted, 0),
      );
      // Then nothing is this node's any more.
      if (reply === "fenced") return;
      this.confirm(own, asked, wanted);
    } catch (error) {
      own.uncertain = wanted ?? own.uncertain;
      this.settleLater(own);
      this.refusal(room.channel, error);
    }
  }

  /** As `enter`; what the host has forgotten of the channel goes in front. */
  private enterFor(own: Own, send: () => Promise<unknown>): Promise<unknown> {
    return this.enter(own.room.appId, () => {
      // Meanwhile it may have become another's, or nobody's.
      if (!this.isOwn(own)) throw new Refusal("brokerUnavailable", [own.room.channel]);
      for (const restored of this.restore(own.room)) restored.catch(noop);
      return send();
    });
  }

  /**
   * Sends when this node may write, in the order of these calls. Nearly always at once.
   * @throws whatever `send` throws, or why it may not
   */
  private enter<T>(appId: AppId, send: () => Promise<T>): Promise<T> {
    const { membership } = this.parts;
    const ready = after(membership.verified(), () => membership.register(this.host, appId));
    if (this.gate === undefined && !(ready instanceof Promise)) return send();
    if (ready instanceof Promise) ready.catch(noop);
    const sent = (this.gate ?? Promise.resolve()).then(() => ready).then(() => ({ reply: send() }));
    const passed = sent.then(noop, noop);
    this.gate = passed;
    void passed.then(() => {
      if (this.gate === passed) this.gate = undefined;
    });
    return sent.then(({ reply }) => reply);
  }

  private sendJoin(
    { room, session }: Own,
    mode: "join" | "adopt",
    { id, entry }: Present,
    listLength: number,
  ): Promise<unknown> {
    const { nextId, limits } = this.parts;
    const bounds = [limits.presenceMembers, maxListLength, listLength].map(String);
    return this.run(joinScript, room.appId, room.channel, [
      mode,
      session,
      id,
      entry,
      ...bounds,
      nextId(),
      nextId(),
    ]);
  }

  /** Runs one of the scripts on a channel: `presence.lua` says what they have in common. */
  private run(
    script: Script,
    appId: AppId,
    channel: Channel,
    args: readonly string[],
    nodeId = this.parts.membership.id,
    generation = String(this.generation),
  ): Promise<unknown> {
    const keys = [
      ":sequence",
      ":presence:nodes",
      `:members:${channel}`,
      `:sessions:${channel}`,
      `:counts:${channel}`,
    ].map((rest) => this.key(appId, rest));
    keys.push(this.indexOf(appId, nodeId));
    keys.push(this.key(appId, ":presence:healing"), this.key(appId, ":presence:left"));
    const topics = expand(channel).map((name) => topicOf(this.host, appId, name));
    const head = [nodeId, generation, channel, String(topics.length), ...topics];
    // Also while only its topics are not heard: nobody knows yet what it has forgotten.
    if (!this.host.isUp) return Promise.reject(new Refusal("brokerUnavailable", [channel]));
    return this.host.run(script, keys, head.concat(args));
  }

  /** The host may have lost anything, or have older data. */
  private distrust(): void {
    for (const room of this.rooms.values()) {
      for (const own of room.sessions.values()) {
        if ((own.uncertain ?? own.confirmed) !== undefined) room.unrestored.add(own);
      }
      if (room.unrestored.size > 0) this.unrestored.add(room);
    }
    for (const appId of this.apps) this.unchecked.add(appId);
  }

  /** Sends what the host may have forgotten of a channel, or some of that. */
  private restore(room: Room, slices = Number.POSITIVE_INFINITY): Promise<unknown>[] {
    const sent: Promise<unknown>[] = [];
    while (room.unrestored.size > 0 && sent.length < slices) {
      const slice: Own[] = [];
      for (const own of room.unrestored) {
        if (slice.length === sliceSessions) break;
        slice.push(own);
        room.unrestored.delete(own);
      }
      sent.push(this.restoreSlice(room, slice));
    }
    if (room.unrestored.size === 0) this.unrestored.delete(room);
    return sent;
  }

  private async restoreSlice(room: Room, slice: readonly Own[]): Promise<void> {
    const args = [String(healingMs)];
    for (const { session, uncertain, confirmed } of slice) {
      const present = uncertain ?? confirmed;
      if (present !== undefined) {
        args.push(session, present.id, present.entry, this.parts.nextId());
      }
    }
    try {
      await this.run(restoreScript, room.appId, room.channel, args);
    } catch (error) {
      for (const own of slice) {
        if (!this.isOwn(own)) continue;
        room.unrestored.add(own);
        this.unrestored.add(room);
      }
      throw error;
    }
  }

  private settleLater(own: Own): void {
    if (!this.isOwn(own)) return;
    this.unsettled.add(own);
    this.keepSettling();
  }

  private keepSettling(): void {
    this.timer ??= setInterval(() => this.settle(), settleMs).unref();
  }

  private settle(): void {
    if (this.settling !== undefined || !this.host.isUp) return;
    this.settling = this.settleAll()
      .catch((error: unknown) => {
        this.complain(error);
        // It is tried again, also when the host is up all the time.
        this.keepSettling();
      })
      .finally(() => {
        this.settling = undefined;
      });
  }

  private async settleAll(): Promise<void> {
    for (const room of this.unrestored) {
      while (room.unrestored.size > 0) {
        await this.enter(room.appId, () => Promise.all(this.restore(room, 1)));
      }
    }
    for (const appId of this.unchecked) {
      await this.check(appId);
      this.unchecked.delete(appId);
    }
    const unsettled = [...this.unsettled];
    for (let from = 0; from < unsettled.length; from += sliceSessions) {
      const slice = unsettled.slice(from, from + sliceSessions);
      await Promise.all(slice.map((own) => this.tell(own)));
      if (slice.some((own) => this.unsettled.has(own))) return;
    }
    await this.endHandovers();
    const { unsettled: more, unrestored, unchecked, handedOver } = this;
    if (more.size + unrestored.size + unchecked.size + handedOver.size > 0) return;
    clearInterval(this.timer);
    this.timer = undefined;
  }

  /** Removes what the host lists as this node's and is not. That was announced before it came back. */
  private async check(appId: AppId): Promise<void> {
    const index = this.indexOf(appId, this.parts.membership.id);
    let cursor = "0";
    do {
      const reply = await this.host.command("SSCAN", index, cursor, "COUNT", String(sliceSessions));
      const [next, listed] = reply as [string, string[]];
      for (const [channel, sessions] of byChannel(listed)) {
        await this.enter(appId, async () => {
          const known = this.rooms.get(channel)?.sessions;
          const strangers = sessions.filter((session) => known?.has(session) !== true);
          if (strangers.length === 0) return;
          const named = strangers.flatMap((session) => [session, ""]);
          await this.run(leaveScript, appId, channel, named);
        });
      }
      cursor = next;
    } while (cursor !== "0");
  }

  /** What is still listed as this node's was not taken over: it leaves. */
  private async endHandovers(): Promise<void> {
    const due: Own[] = [];
    for (const [own, since] of this.handedOver) {
      if (performance.now() - since < this.handoverMs) break;
      due.push(own);
    }
    for (const own of due) {
      const { room, session } = own;
      // It may have come back.
      if (this.rooms.get(room.channel)?.sessions.has(session) !== true) {
        const named = [session, this.parts.nextId()];
        await this.enter(room.appId, () => this.run(leaveScript, room.appId, room.channel, named));
      }
      this.handedOver.delete(own);
    }
  }

  private refusalOf(reply: unknown): Refusal | undefined {
    if (reply === "full") return tooManyMembers(this.parts.limits);
    if (reply === "long") return listTooLong();
    if (reply === "tooLong") return replyTooLong();
    return undefined;
  }

  /** What a client is told of a fault. */
  private refusal(channel: Channel, error: unknown): Refusal {
    this.complain(error);
    return new Refusal("brokerUnavailable", [channel]);
  }

  /** A host that is down says so itself. */
  private complain(error: unknown): void {
    if (error instanceof HostUnavailable || error instanceof Refusal) return;
    if (performance.now() - this.complainedAt < complaintMs) return;
    this.complainedAt = performance.now();
    this.parts.log("error", "Redis refuses a change of presence", { err: error });
  }

  private indexOf(appId: AppId, nodeId: string): string {
    return this.key(appId, `:presence:of:${nodeId}`);
  }

  private key(appId: AppId, rest: string): string {
    return this.host.key(appId, rest);
  }
}

/** See `join.lua`. */
type Joined = readonly [position: string, entries: readonly string[]];

/** @returns which of the wishes for this session it is */
function want(own: Own, wanted: Present | undefined): number {
  own.wanted = wanted;
  return ++own.asked;
}

function keep(own: Own, present: Present | undefined, number: number): void {
  if (number < own.keptSince) return;
  own.kept = present;
  own.keptSince = number;
}

function presentOf(member: Member): Present {
  return { id: JSON.stringify(member.id), entry: entryOf(member) };
}

/** 128 bits of a hash. */
function keyOf(clientId: string): string {
  return createHash("sha256").update(clientId).digest("base64url").slice(0, 22);
}

function listOf(entries: readonly string[]): string {
  return `{${entries.join(",")}}`;
}

/** Lines of a node's index, `<session> <channel>`. */
function byChannel(listed: readonly string[]): Map<Channel, string[]> {
  const sessions = new Map<Channel, string[]>();
  for (const line of listed) {
    const [session = "", name = ""] = line.split(" ");
    const channel = name as Channel;
    const others = sessions.get(channel);
    if (others === undefined) sessions.set(channel, [session]);
    else others.push(session);
  }
  return sessions;
}

function noop(): void {}
