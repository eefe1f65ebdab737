/**
 * Brings sessions from node to node, so that they have one owner at every moment and nothing is
 * delivered twice or lost.
 *
 * The new node has the owner `prepare`: it takes no more subscribes and says what the session hears.
 * The new node begins to hear all of it, and keeps that back. Then it `take`s the session: the
 * owner stops hearing for it, and hands over what waits for the client and the positions up to
 * which the client has everything. What the new node has kept back above these comes next. When the
 * owner's answer is lost the session is: its client begins again.
 */
import { setTimeout as delay, setImmediate as nextTurn } from "node:timers/promises";
import type { AppId, KeyId } from "@pandapush/protocol";
import { Refusal } from "../errors.js";
import { Gate } from "../gate.js";
import type { MaybePromise } from "../maybe-promise.js";
import type { Baggage, Interest, Node } from "../node.js";
import type { Log } from "../redis/hosts.js";
import { type ClientSession, type Encoder, type Floors, hashOf, type Session } from "../session.js";
import type { Directory, Elsewhere } from "./directory.js";
import type { Membership } from "./membership.js";
import { type Peers, PeerUnavailable } from "./peers.js";

/** What the new node may take between `prepare` and `take`: a broker may keep it waiting. */
const prepareMs = 10_000;
/** Sessions in one request to take them over. */
const batchSize = 20;
/** How often a session is offered to another node. */
const maxAttempts = 3;
/** Sessions on their last step here at once: what waits for them can be much. */
const maxTakes = 16;
/** How many of these run at once. */
const batchesAtOnce = 4;

interface Expected {
  readonly interests: readonly Interest[];
  readonly address?: string | undefined;
}

type Prepared = Expected | Elsewhere;

/** As JSON can hold it. */
interface Packed extends Omit<Baggage, "floors"> {
  readonly floors: readonly (readonly [AppId, readonly (readonly [string, number])[]])[];
}

interface Departure {
  readonly to: string;
  readonly decided: Promise<ClientSession>;
  /** It lives there now. */
  readonly left: (there: ClientSession) => void;
  readonly stays: () => void;
}

export interface MovesParts {
  readonly node: Node;
  readonly directory: Directory;
  readonly membership: Membership;
  readonly peers: Peers;
  /** Writes events for sessions that come from other nodes. */
  readonly encoder: Encoder;
  /** Whether what this key permits goes on, as far as this node knows. */
  readonly isAllowed: (appId: AppId, keyId: KeyId | undefined) => MaybePromise<boolean>;
  /** What speaks to a session that lives elsewhere. */
  readonly remote: (clientId: string) => ClientSession;
  /** It is written down again this often where a session lives. */
  readonly noteMs: number;
  readonly log: Log;
}

export class Moves {
  private readonly arrivals = new Map<string, Promise<Session | undefined>>();
  private readonly departures = new Map<Session, Departure>();
  /** Sessions that were born elsewhere. */
  private readonly guests = new Set<string>();
  private readonly takes = new Gate(maxTakes);
  private isLeaving = false;
  private readonly noting: NodeJS.Timeout;

  constructor(private readonly parts: MovesParts) {
    const { peers } = parts;
    peers.serve("prepare", ({ clientId }: { clientId: string }, from) =>
      this.prepare(clientId, from),
    );
    peers.serve("take", ({ clientId }: { clientId: string }, from) => this.give(clientId, from));
    peers.serve("leave it", ({ clientId }: { clientId: string }, from) => {
      this.departureTo(clientId, from)?.[1].stays();
    });
    peers.serve("adopt", ({ clientIds }: { clientIds: string[] }) => this.adopt(clientIds));
    this.noting = setInterval(() => void this.noteAll(), parts.noteMs);
    this.noting.unref();
  }

  /**
   * The session lives here when this resolves.
   * @param isAdopted another node wants to be rid of it, and limits do not count
   * @returns undefined when there is none
   * @throws Refusal when it cannot be brought here at the moment
   */
  fetch(clientId: string, isAdopted = false): Promise<Session | undefined> {
    const known = this.arrivals.get(clientId);
    // One after the other: what one socket was given it has taken before the next one gets the rest.
    const arrival = (
      known === undefined
        ? this.bring(clientId, isAdopted)
        : known.then((session) => afterTurn(session))
    ).finally(() => {
      if (this.arrivals.get(clientId) === arrival) this.arrivals.delete(clientId);
    });
    this.arrivals.set(clientId, arrival);
    return arrival;
  }

  /** Waits for a session that is on its way here; undefined when none is. */
  async arriving(clientId: string): Promise<Session | undefined> {
    try {
      return await this.arrivals.get(clientId);
    } catch (error) {
      // Whoever brings it hears why it did not come.
      if (error instanceof Refusal) return undefined;
      throw error;
    }
  }

  /** Resolves when it is decided where a session that may leave lives. */
  async decided(session: Session): Promise<void> {
    await this.departures.get(session)?.decided.catch(() => undefined);
  }

  /** A session is here no more. */
  ended(clientId: string, hasMoved: boolean): void {
    if (this.guests.delete(clientId) && !hasMoved) this.parts.directory.ended(clientId);
  }

  /**
   * Gives the sessions of this node to the others, some to each, until none is left that was not
   * tried or it is too late. Spread over that time: their clients return to all nodes at once.
   * @returns how many went
   */
  async giveAway(deadline: number): Promise<number> {
    const { node, membership } = this.parts;
    this.isLeaving = true;
    const attempts = new Map<string, number>();
    let moved = 0;
    while (performance.now() < deadline) {
      const clientIds = node
        .clientIds()
        .filter((clientId) => (attempts.get(clientId) ?? 0) < maxAttempts);
      if (clientIds.length === 0 || membership.nodes.length === 0) break;
      for (const clientId of clientIds) {
        attempts.set(clientId, (attempts.get(clientId) ?? 0) + 1);
      }
      moved += await this.giveBatches(clientIds, deadline);
    }
    return moved;
  }

  private async giveBatches(clientIds: readonly string[], deadline: number): Promise<number> {
    const { membership, peers, log } = this.parts;
    const begin = performance.now();
    const batches = Math.ceil(clientIds.length / batchSize);
    // What is left of the time is for the last ones, and for those that come meanwhile.
    const betweenMs = (deadline - begin) / 2 / batches;
    let next = 0;
    let moved = 0;
    const work = async (): Promise<void> => {
      for (let batch = next++; batch < batches; batch = next++) {
        await delay(begin + batch * betweenMs - performance.now());
        const leftMs = deadline - performance.now();
        // Others may leave meanwhile, too.
        const to = membership.nodes[batch % membership.nodes.length];
        if (leftMs <= 0 || to === undefined) return;
        const some = clientIds.slice(batch * batchSize, (batch + 1) * batchSize);
        try {
          moved += Number(await peers.ask(to, "adopt", { clientIds: some }, leftMs));
        } catch (error) {
          log("info", "sessions were not taken over", { node: to, reason: String(error) });
        }
      }
    };
    await Promise.all(Array.from({ length: batchesAtOnce }, work));
    return moved;
  }

  close(): void {
    clearInterval(this.noting);
  }

  private async bring(clientId: string, isAdopted: boolean): Promise<Session | undefined> {
    const { node, directory, membership } = this.parts;
    const leaving = node.findSession(clientId);
    if (leaving !== undefined) {
      await this.decided(leaving);
      if (node.findSession(clientId) === leaving) return leaving;
    }
    const found = await directory.seek(clientId, async (owner) => {
      if (owner === membership.id) {
        const here = node.findSession(clientId);
        return here === undefined ? { unknown: true } : { done: here };
      }
      const prepared = await this.ask(owner, clientId);
      if (!("interests" in prepared)) return prepared;
      const taken = await this.takes.do(() => this.take(clientId, owner, prepared, isAdopted));
      // It has ended, or the owner no longer expected that it would be taken: it says so itself.
      return taken === undefined ? { moved: owner } : { done: taken };
    });
    return found?.done;
  }

  /** @returns undefined when it does not come */
  private async take(
    clientId: string,
    owner: string,
    { interests, address }: Expected,
    isAdopted: boolean,
  ): Promise<Session | undefined> {
    const { node, peers, encoder, directory, log } = this.parts;
    let session: Session;
    try {
      session = await node.expect(clientId, encoder, address, interests, isAdopted);
    } catch (error) {
      peers.tell(owner, "leave it", { clientId });
      throw error;
    }
    let packed: Packed | undefined;
    try {
      packed = (await peers.ask(owner, "take", { clientId }, prepareMs)) as Packed | undefined;
    } catch (error) {
      node.turnAway(session);
      if (!(error instanceof PeerUnavailable)) throw error;
      // Unless it has not been given away: nobody knows.
      log("warn", "a session may be lost on its way here: its node did not answer", {
        client: hashOf(clientId),
        node: owner,
        reason: error.message,
      });
      throw new Refusal("unavailable", [clientId]);
    }
    if (packed === undefined) {
      node.turnAway(session);
      return undefined;
    }
    directory.forget(clientId);
    const isGuest = !clientId.startsWith(this.parts.membership.id);
    if (isGuest) this.guests.add(clientId);
    const baggage: Baggage = { ...packed, floors: unpack(packed.floors) };
    const noted = directory.moved(clientId);
    await node.moveIn(session, baggage);
    await Promise.all([noted, this.endRevoked(session)]);
    return session;
  }

  /** What was revoked while the session was on its way. */
  private async endRevoked(session: Session): Promise<void> {
    const { node, isAllowed } = this.parts;
    const seen = new Set<string>();
    for (const { name, keyId } of [...session.subscriptions.values()]) {
      const appId = name.slice(1, name.indexOf("/", 1)) as AppId;
      const key = `${appId}/${keyId ?? ""}`;
      if (seen.has(key)) continue;
      seen.add(key);
      if (!(await isAllowed(appId, keyId))) node.endPermittedBy(session, appId, keyId);
    }
  }

  private async ask(owner: string, clientId: string): Promise<Prepared> {
    try {
      return (await this.parts.peers.ask(owner, "prepare", { clientId }, prepareMs)) as Prepared;
    } catch (error) {
      if (!(error instanceof PeerUnavailable)) throw error;
      return { unreachable: true };
    }
  }

  /** Another node wants a session of ours. */
  private async prepare(clientId: string, to: string): Promise<Prepared> {
    const { node, directory, membership } = this.parts;
    const session = node.findSession(clientId) ?? (await this.arriving(clientId));
    if (session === undefined) {
      const moved = directory.recall(clientId);
      return moved === undefined || moved === membership.id ? { unknown: true } : { moved };
    }
    if (session.isLeaving) {
      await this.decided(session);
      return this.prepare(clientId, to);
    }
    const departure = this.begin(session, to);
    const interests = await node.prepareToLeave(session, departure.decided);
    return session.hasEnded ? { unknown: true } : { interests, address: session.address };
  }

  private begin(session: Session, to: string): Departure {
    let resolve: (there: ClientSession) => void = noop;
    let reject: (error: Error) => void = noop;
    const decided = new Promise<ClientSession>((...settle) => {
      [resolve, reject] = settle;
    });
    decided.catch(noop);
    const over = (): void => {
      clearTimeout(timer);
      this.departures.delete(session);
    };
    const departure: Departure = {
      to,
      decided,
      left: (there) => {
        over();
        resolve(there);
      },
      stays: () => {
        over();
        if (session.hasEnded) reject(new Refusal("unknownClient", [session.clientId]));
        else resolve(session);
      },
    };
    const timer = setTimeout(departure.stays, prepareMs);
    this.departures.set(session, departure);
    return departure;
  }

  /** @returns undefined when it has ended, or is no longer meant to go there */
  private async give(clientId: string, to: string): Promise<Packed | undefined> {
    const [session, departure] = this.departureTo(clientId, to) ?? [];
    if (session === undefined || departure === undefined) return undefined;
    const { node, directory } = this.parts;
    try {
      const baggage = await node.moveOut(session);
      directory.remember(clientId, to);
      departure.left(this.parts.remote(clientId));
      return { ...baggage, floors: pack(baggage.floors) };
    } catch (error) {
      departure.stays();
      if (error instanceof Refusal) return undefined;
      throw error;
    }
  }

  private departureTo(clientId: string, to: string): [Session, Departure] | undefined {
    const session = this.parts.node.findSession(clientId);
    const departure = session && this.departures.get(session);
    return session && departure?.to === to ? [session, departure] : undefined;
  }

  /** A node that drains gives us these. */
  private async adopt(clientIds: readonly string[]): Promise<number> {
    if (this.isLeaving) throw new Refusal("draining");
    const fetched = await Promise.allSettled(
      clientIds.map((clientId) => this.fetch(clientId, true)),
    );
    return fetched.filter((each) => each.status === "fulfilled" && each.value !== undefined).length;
  }

  /** Writes down again which sessions live here: a host that was down knows older places, or none. */
  async noteAll(): Promise<void> {
    const all = [...this.guests];
    while (all.length > 0) {
      // Some may have gone meanwhile.
      const some = all.splice(-batchSize).filter((clientId) => this.guests.has(clientId));
      await Promise.all(some.map((clientId) => this.parts.directory.moved(clientId)));
    }
  }
}

async function afterTurn<T>(value: T): Promise<T> {
  await nextTurn();
  return value;
}

function noop(): void {}

function pack(floors: Floors): Packed["floors"] {
  return Array.from(floors, ([appId, epochs]) => [appId, [...epochs]] as const);
}

function unpack(packed: Packed["floors"]): Floors {
  return new Map(packed.map(([appId, epochs]) => [appId, new Map(epochs)]));
}
