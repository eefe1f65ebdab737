/** What clients do in a chaos test. Whatever they ask goes through the balancer. */
import { setTimeout as delay } from "node:timers/promises";
import { type Message, Poller, Socket, token } from "../../server/test/harness.js";
import type { Random } from "../../server/test/hostile/random.js";
import type { Balancer } from "./balancer.js";
import type { FaultLog } from "./chaos-faults.js";
import { type ChaosRecord, type Interest, SessionRecord } from "./chaos-record.js";
import { publish } from "./requests.js";

/** How long a request may take that no dead or frozen node has swallowed, beyond what it is held. */
const dueMs = 40_000;
/** How long a client waits for a node that is dead or frozen. */
const patienceMs = 3_000;
const retryMs = 100;
/** What nodes are told to hold a connect at most, and how long after the last a session ends. */
export const timeoutMs = 10_000;
const expiryMs = 2 * timeoutMs;

export interface App {
  readonly id: string;
  readonly key: readonly [id: string, secret: string];
  /** What is published to. */
  readonly channels: readonly string[];
  /** What is subscribed to: channels, and patterns over them. */
  readonly names: readonly string[];
  readonly rooms: readonly string[];
  /** Over the rooms. */
  readonly roomPattern: string;
}

/** What all clients share. */
export class World {
  isCalm = false;
  isOver = false;
  private tags = 0;

  constructor(
    readonly balancer: Balancer,
    readonly apps: readonly App[],
    readonly faults: FaultLog,
    readonly record: ChaosRecord,
    /** Whether a node has said in its log that this session may be lost on its way there. */
    readonly isLostMoving: (clientId: string) => boolean,
  ) {}

  /** Marks one request, by which it is seen which node it went to. */
  tag(): string {
    this.tags++;
    return `?chaos=${this.tags}`;
  }

  /** The node that the request of this tag went to. */
  portOf(tag: string): number | undefined {
    return this.balancer.sent.findLast(({ what }) => what.endsWith(tag))?.port;
  }

  /**
   * @param what it is, ending in its tag
   * @param heldMs how long it may be held
   * @returns undefined when it was not answered and a fault explains that
   */
  async answered<T>(what: string, work: Promise<T>, heldMs = 0): Promise<T | undefined> {
    const sentAt = performance.now();
    let error: unknown;
    let isSettled = false;
    const settled = work
      .catch((reason: unknown) => {
        error = reason;
        return undefined;
      })
      .finally(() => {
        isSettled = true;
      });
    const isExplained = (): boolean => {
      const port = this.portOf(what.slice(what.indexOf("?")));
      return this.faults.hasStood(port, sentAt);
    };
    while (!isSettled) {
      await Promise.race([settled, delay(250)]);
      const ms = performance.now() - sentAt - heldMs;
      if (isSettled || ms < patienceMs) continue;
      if (isExplained()) return undefined;
      if (ms < dueMs) continue;
      this.record.complain(`${what} was not answered within ${Math.round(ms)} ms`);
      return undefined;
    }
    if (error === undefined) return settled;
    const isCut = error instanceof Error && error.name === "AbortError";
    if (!isCut && !isExplained()) this.record.complain(`${what}: ${String(error)}`);
    return undefined;
  }

  /** Sends messages to whichever node. */
  async post(
    clientId: string,
    messages: readonly object[],
    { heldMs = 0, cutAfterMs = 0, tag = this.tag() } = {},
  ): Promise<Message[] | undefined> {
    const poller = new Poller({ pushUrl: `${this.balancer.pushUrl}${tag}` });
    poller.clientId = clientId;
    const controller = new AbortController();
    const timer = cutAfterMs > 0 ? setTimeout(() => controller.abort(), cutAfterMs) : undefined;
    const { signal } = controller;
    try {
      return await this.answered(`POST /push${tag}`, poller.post(messages, { signal }), heldMs);
    } finally {
      clearTimeout(timer);
      controller.abort();
    }
  }

  appOf(name: string): App {
    const app = this.apps.find(({ id }) => name.startsWith(`/${id}/`));
    if (app === undefined) throw new Error(`${name} is in no application`);
    return app;
  }
}

/** Publishes one after the other, for as long as there is a storm. */
export async function publishAtRandom(world: World, random: Random, lane: string): Promise<void> {
  const { record, balancer } = world;
  while (!world.isOver) {
    await delay(20 + random.below(40));
    const app = random.pick(world.apps);
    const channel = random.pick(app.channels);
    const isRest = random.isLucky(0.6);
    if (world.isCalm) continue;
    const publication = record.publication(lane, channel);
    const data = { p: publication.key };
    let isTaken: boolean;
    if (isRest) {
      const tag = world.tag();
      const sent = publish(balancer, `${channel}${tag}`, data, app.key);
      const reply = await world.answered(`POST /channel${channel}${tag}`, sent);
      isTaken = reply?.status === 200;
      if (reply !== undefined && ![200, 502, 503].includes(reply.status)) {
        record.complain(`${publication.key}: ${reply.status} ${reply.text}`);
      }
    } else {
      const [reply] = (await world.post("", [{ channel, data, ext: authOf(app) }])) ?? [];
      isTaken = reply?.successful === true;
    }
    if (isTaken) publication.takenAt = performance.now();
    record.count(isTaken ? "publications" : "publications that were refused or not answered");
  }
}

export interface Role {
  /** Whom it makes present; a client without joins nothing. */
  readonly memberId?: string;
  /** It hears who joins and leaves, and never unsubscribes from that. */
  readonly isWatcher: boolean;
}

/** One client that listens, in one session after the other. */
export class Client {
  session: SessionRecord | undefined;
  private socket: Line | undefined;

  constructor(
    private readonly world: World,
    private readonly random: Random,
    private readonly name: string,
    private readonly role: Role,
  ) {}

  /** Until the world is over. */
  async live(): Promise<void> {
    await Promise.all([this.listen(), this.act()]);
  }

  /** Ends its session, in order; it will begin another. */
  async disconnect(): Promise<void> {
    const { session, world } = this;
    if (session === undefined) return;
    session.isLeaving = true;
    for (;;) {
      const [reply] = (await world.post(session.clientId, [{ channel: "/meta/disconnect" }])) ?? [];
      if (reply?.successful === true || reply?.error?.startsWith("401")) break;
      await delay(retryMs);
    }
    this.over(session);
  }

  /** Who should be present by it: room and id. */
  get present(): string[] {
    const rooms = this.session?.effective.filter(({ memberId }) => memberId !== undefined) ?? [];
    return rooms.map(({ name, memberId }) => `${name} ${memberId}`);
  }

  private async listen(): Promise<void> {
    const { world, random } = this;
    while (!world.isOver) {
      const session = this.session ?? (await this.begin());
      if (session === undefined) await delay(retryMs);
      else if (random.isLucky(0.5)) await this.listenBySocket(session);
      else {
        for (let polls = 1 + random.below(5); polls > 0 && this.session === session; polls--) {
          await this.poll(session);
        }
      }
    }
  }

  private async begin(): Promise<SessionRecord | undefined> {
    const { world, random } = this;
    const role = this.role;
    const tag = world.tag();
    const [reply] = (await world.post("", [handshake], { tag })) ?? [];
    const port = world.portOf(tag);
    if (reply?.successful !== true || reply.clientId === undefined || port === undefined) return;
    const { sessions } = world.record;
    const name = `${this.name}/${sessions.length}`;
    const session = new SessionRecord(name, reply.clientId, port, world.record);
    sessions.push(session);
    const names = world.apps.map((app) => random.pick(app.names));
    if (role.isWatcher) names.push(...world.apps.map(({ roomPattern }) => roomPattern));
    for (const each of names) await this.subscribe(session, each);
    if (session.endedAt !== undefined) return undefined;
    this.session = session;
    return session;
  }

  private async poll(session: SessionRecord): Promise<void> {
    const { world, random } = this;
    const heldMs = world.isCalm ? 200 : random.below(2_000);
    const isCut = random.isLucky(0.15);
    const sentAt = performance.now();
    session.tell("polls");
    const connect = { ...pollMessage, advice: { timeout: heldMs } };
    const cutAfterMs = isCut && !world.isCalm ? 1 + random.below(500) : 0;
    const [reply, ...events] =
      (await world.post(session.clientId, [connect], { heldMs, cutAfterMs })) ?? [];
    if (reply === undefined) return;
    if (reply.successful === true) noteSent(session, reply, sentAt);
    for (const event of events) session.hear(event, true);
    if (reply.successful !== true) await this.refused(session, reply);
  }

  private async listenBySocket(session: SessionRecord): Promise<void> {
    const { world, random } = this;
    const untilMs = performance.now() + 500 + random.below(6_000);
    const line = await Line.open(world, session);
    if (line === undefined) return;
    this.socket = line;
    session.tell(`its socket is open at ${line.port}`);
    session.homes.add(line.port);
    try {
      while (this.session === session && !line.isClosed) {
        if (performance.now() > untilMs && !world.isCalm) break;
        if (world.isOver) break;
        const heldMs = world.isCalm ? 200 : random.below(2_000);
        const sentAt = performance.now();
        const reply = await line.ask(
          { channel: "/meta/connect", connectionType: "websocket", advice: { timeout: heldMs } },
          heldMs,
        );
        if (reply === undefined) break;
        if (reply.successful === true) {
          session.homes = new Set([line.port]);
          noteSent(session, reply, sentAt);
        } else await this.refused(session, reply);
      }
    } finally {
      this.socket = undefined;
      session.tell("its socket is no more");
      line.end(random.isLucky(0.5));
    }
  }

  private async refused(session: SessionRecord, { error, advice }: Message): Promise<void> {
    session.tell(`is refused: ${error}`);
    if (error?.startsWith("401") && advice?.reconnect === "handshake") await this.lost(session);
    else if (!error?.startsWith("503")) this.world.record.complain(`${session.name}: ${error}`);
    await delay(retryMs);
  }

  /**
   * None of the nodes has a session of which one said that it is no more; but one that is cut off
   * from Redis cannot know that the others have declared it dead.
   */
  private async requireGone({ name, clientId }: SessionRecord): Promise<void> {
    const { world } = this;
    const connect = { ...pollMessage, advice: { timeout: 0 } };
    for (let n = 0; n < 3; n++) {
      const tag = world.tag();
      const sentAt = performance.now();
      const [reply] = (await world.post(clientId, [connect], { tag })) ?? [];
      if (reply?.successful !== true || world.faults.isAlone(world.portOf(tag), sentAt)) continue;
      world.record.complain(`${name} lives, and was called unknown`);
    }
  }

  /** Its client hears that it is no more. */
  private async lost(session: SessionRecord): Promise<void> {
    if (session.endedAt !== undefined) return;
    this.over(session);
    if (session.isLeaving) return;
    const { record } = this.world;
    session.tell(`is unknown; it was well at ${record.seconds(session.seenAt)} s`);
    const reason = this.reasonFor(session);
    record.count(`sessions that were lost ${reason ?? "for no reason"}`);
    if (reason === undefined) {
      record.complain(`${session.name} was lost, and nothing explains that`);
    }
    await this.requireGone(session);
  }

  private reasonFor({ homes, seenAt, beganAt, clientId }: SessionRecord): string | undefined {
    const { faults, isLostMoving } = this.world;
    const wellAt = Math.max(seenAt, beganAt);
    if (faults.mayHaveEnded(homes, wellAt)) return "with their node";
    if (isLostMoving(clientId)) return "on their way";
    const hasExpired = performance.now() - wellAt > expiryMs;
    if (hasExpired && faults.isTroubled(wellAt, wellAt + expiryMs)) return "out of reach";
    return undefined;
  }

  private over(session: SessionRecord): void {
    session.endedAt ??= performance.now();
    if (this.session === session) this.session = undefined;
  }

  private async act(): Promise<void> {
    const { world, random } = this;
    const role = this.role;
    while (!world.isOver) {
      await delay(100 + random.below(500));
      const { session } = this;
      const app = random.pick(world.apps);
      const isJoining = role.memberId !== undefined && random.isLucky(0.5);
      const name = random.pick(isJoining ? app.rooms : app.names);
      if (session === undefined || world.isCalm || session.unsure.has(name)) continue;
      const interest = session.effective.find((each) => each.name === name);
      if (interest === undefined) await this.subscribe(session, name);
      else if (random.isLucky(0.7)) await this.unsubscribe(session, interest);
    }
  }

  private async subscribe(session: SessionRecord, name: string): Promise<void> {
    const { world } = this;
    const role = this.role;
    const app = world.appOf(name);
    const memberId = app.rooms.includes(name) ? role.memberId : undefined;
    const interest: Interest = {
      name,
      askedAt: performance.now(),
      ...(memberId === undefined ? {} : { memberId }),
    };
    session.interests.push(interest);
    const claims = { keyId: app.key[0], channel: name, sub: true, presence: { id: memberId } };
    const ext =
      memberId === undefined ? authOf(app) : { auth: { token: token(claims, app.key[1]) } };
    const reply = await this.ask(session, { channel: "/meta/subscribe", subscription: name, ext });
    if (reply === undefined) session.unsure.add(name);
    else if (reply.successful === true) interest.effectiveAt = performance.now();
    else if (reply.error === `503:${name}:Broker unavailable`) {
      interest.endAskedAt = performance.now();
      interest.endedAt = interest.endAskedAt;
    } else await this.notDone(session, reply, name);
  }

  private async unsubscribe(session: SessionRecord, interest: Interest): Promise<void> {
    const { name } = interest;
    interest.endAskedAt = performance.now();
    const reply = await this.ask(session, { channel: "/meta/unsubscribe", subscription: name });
    if (reply?.successful === true) interest.endedAt = performance.now();
    else if (reply === undefined) session.unsure.add(name);
    else await this.notDone(session, reply, name);
  }

  private async notDone(session: SessionRecord, reply: Message, name: string): Promise<void> {
    // Where it names the client, its node could not be asked, or did not answer. SUB-10
    session.unsure.add(name);
    if (reply.error?.startsWith("401")) await this.lost(session);
    else if (!reply.error?.startsWith("503")) {
      this.world.record.complain(`${session.name}, ${name}: ${reply.error}`);
    }
  }

  /** By the socket, if there is one, or by a post. */
  private async ask(session: SessionRecord, message: object): Promise<Message | undefined> {
    const socket = this.socket;
    const isBySocket = socket?.session === session && this.random.isLucky(0.4);
    session.tell(
      `${JSON.stringify(message).slice(0, 120)}, ${isBySocket ? "by the socket" : "posted"}`,
    );
    const [reply] =
      (isBySocket
        ? [await socket.ask(message)]
        : await this.world.post(session.clientId, [message])) ?? [];
    session.tell(`answered ${JSON.stringify(reply)}`);
    return reply;
  }
}

/** A WebSocket of one session. */
class Line {
  isClosed = false;
  private readonly pending = new Map<string, (reply: Message | undefined) => void>();

  static async open(world: World, session: SessionRecord): Promise<Line | undefined> {
    const tag = world.tag();
    const opening = Socket.open({ wsUrl: `${world.balancer.wsUrl}${tag}` });
    const socket = await world.answered(`upgrade /push${tag}`, opening);
    if (socket === undefined) {
      // It may open yet.
      opening.then(
        (late) => late.cut(),
        () => undefined,
      );
      return undefined;
    }
    const port = world.portOf(tag);
    if (port === undefined) throw new Error(`${tag} went nowhere`);
    return new Line(world, session, socket, tag, port);
  }

  private constructor(
    private readonly world: World,
    readonly session: SessionRecord,
    private readonly socket: Socket,
    private readonly tag: string,
    readonly port: number,
  ) {
    socket.clientId = session.clientId;
    void this.receive();
  }

  /** @returns undefined when there is no answer and a fault, or a lost connection, explains that */
  async ask(message: object, heldMs = 0): Promise<Message | undefined> {
    if (this.isClosed) return undefined;
    const id = this.socket.send(message);
    const reply = new Promise<Message | undefined>((resolve) => this.pending.set(id, resolve));
    const { channel } = message as Message;
    const answered = await this.world.answered(`${channel} ${this.tag}`, reply, heldMs);
    this.pending.delete(id);
    return answered;
  }

  end(isCut: boolean): void {
    this.isClosed = true;
    if (isCut) this.socket.cut();
    else this.socket.close();
  }

  private async receive(): Promise<void> {
    const { socket, session, pending } = this;
    while (socket.closed === undefined || socket.received.length > 0) {
      const message = await socket.next(() => true, 500).catch(() => undefined);
      if (message === undefined) continue;
      if (message.successful === undefined || message.id === undefined)
        session.hear(message, false);
      else pending.get(String(message.id))?.(message);
    }
    this.isClosed = true;
    for (const resolve of pending.values()) resolve(undefined);
  }
}

const handshake = {
  channel: "/meta/handshake",
  version: "1.0",
  supportedConnectionTypes: ["websocket", "long-polling"],
  ext: { pandapush: { count: true } },
};

const pollMessage = { channel: "/meta/connect", connectionType: "long-polling" };

function authOf({ key: [key, secret] }: App): object {
  return { auth: { key, secret } };
}

function noteSent(session: SessionRecord, reply: Message, sentAt: number): void {
  const { pandapush } = (reply.ext ?? {}) as { pandapush?: { sent?: number } };
  if (pandapush?.sent !== undefined) session.noteSent(pandapush.sent, sentAt);
}
