/**
 * Everything goes wrong at random, while clients publish, listen, and come and go. In between all is
 * mended, and then everything must be as a model of it says.
 */
import { createHash } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { appId, keyId, secret } from "../../server/test/harness.js";
import { Random } from "../../server/test/hostile/random.js";
import { type App, Client, publishAtRandom, timeoutMs, World } from "./chaos-client.js";
import { FaultLog, Storm } from "./chaos-faults.js";
import { ChaosRecord, type SessionRecord } from "./chaos-record.js";
import { Cluster } from "./cluster.js";
import { ask, publish } from "./requests.js";

export interface ChaosOptions {
  readonly seed: number;
  /** How long it goes on, but for the last round's end. */
  readonly ms: number;
}

export interface ChaosReport {
  /** What is not as it should be. */
  readonly complaints: readonly string[];
  /** What happened, for people. */
  readonly story: readonly string[];
  readonly counts: ReadonlyMap<string, number>;
  /** What the nodes wrote. */
  readonly logs: readonly string[];
}

const stormMs = 9_000;
/**
 * How soon after the last fault publishes are taken by all nodes on all channels, and how soon then
 * everything is heard, and presence is right. It takes seconds; but a machine that is busy with
 * other tests answers nobody for as long, which counts as another fault.
 */
const takenWithinMs = 30_000;
const settledWithinMs = 40_000;
const password = "password";

export async function runChaos({ seed, ms }: ChaosOptions): Promise<ChaosReport> {
  const cluster = await Cluster.start({
    nodes: 3,
    redisHosts: 2,
    hasWires: true,
    environment: { BAYEUX_TIMEOUT_MS: String(timeoutMs), ADMIN_PASSWORD: password },
  });
  try {
    const chaos = new Chaos(cluster, await appsOf(cluster), new Random(seed));
    return await chaos.run(ms);
  } finally {
    await cluster.stop();
  }
}

class Chaos {
  private readonly faults = new FaultLog();
  private readonly record: ChaosRecord;
  private readonly world: World;
  private readonly clients: readonly Client[];
  private readonly storm: Storm;

  constructor(
    private readonly cluster: Cluster,
    private readonly apps: readonly App[],
    private readonly random: Random,
  ) {
    this.record = new ChaosRecord((from, to) => this.faults.isTroubled(from, to));
    this.world = new World(cluster.balancer, apps, this.faults, this.record, (clientId) => {
      // As much of it as logs show.
      const hash = createHash("sha256").update(clientId).digest("hex").slice(0, 16);
      const named = `"client":"${hash}"`;
      const lines = cluster.nodes.flatMap(({ log }) => log.split("\n"));
      return lines.some((line) => line.includes(named) && line.includes("lost on its way"));
    });
    this.storm = new Storm(cluster, this.faults, this.fork());
    this.clients = Array.from({ length: 14 }, (_, n) => {
      const memberId = n < 8 ? { memberId: `user${n % 5}` } : {};
      const role = { ...memberId, isWatcher: n >= 6 && n < 11 };
      return new Client(this.world, this.fork(), `client${n}`, role);
    });
  }

  async run(ms: number): Promise<ChaosReport> {
    const { world, record } = this;
    const lanes = ["a", "b", "c"].map((lane) => publishAtRandom(world, this.fork(), lane));
    const lives = this.clients.map((client) => client.live());
    const all = Promise.all([...lanes, ...lives]);
    await Promise.race([all, this.rounds(ms)]);
    world.isOver = true;
    await all;
    record.checkOrder();
    const logs = this.cluster.nodes.map(({ name, log }) => `${name}:\n${log}`);
    return { complaints: record.complaints, story: this.story(), logs, counts: record.counts };
  }

  private async rounds(ms: number): Promise<void> {
    let since = performance.now();
    do {
      await this.storm.rage(stormMs);
      await this.calm(since);
      since = performance.now();
      this.world.isCalm = false;
    } while (since - this.record.beganAt < ms && this.record.complaints.length === 0);
  }

  /** All is mended: now it is checked. */
  private async calm(since: number): Promise<void> {
    const { world, clients, record } = this;
    await this.publishEverywhere("taken again", takenWithinMs);
    world.isCalm = true;
    await this.publishEverywhere("taken in the calm", takenWithinMs);
    const calmAt = performance.now();
    const sessions = (): SessionRecord[] => clients.flatMap(({ session }) => session ?? []);
    await this.until("clients are well", settledWithinMs, () => {
      const unwell = sessions().filter(({ seenAt }) => seenAt < calmAt);
      const without = clients.length - sessions().length;
      return [...unwell.map(({ name }) => name), ...(without > 0 ? [`${without} others`] : [])];
    });
    await this.until("everything is heard", settledWithinMs, () =>
      sessions().flatMap((session) => {
        const missing = session.hasGap ? [] : session.missing(since);
        const some = missing
          .slice(0, 5)
          .map((key) => `${key} (${record.publications.get(key)?.channel})`);
        return missing.length > 0 ? [`${session.name}: ${some.join(", ")}`] : [];
      }),
    );
    for (const session of sessions()) this.noteGap(session, since);
    const unsure = clients.filter(({ session }) => (session?.unsure.size ?? 0) > 0);
    await Promise.all(unsure.map((client) => client.disconnect()));
    await this.checkPresence(sessions, since);
    for (const session of sessions()) session.formerExcess = session.excess;
  }

  private noteGap(session: SessionRecord, since: number): void {
    const { record, faults } = this;
    if (session.excess < session.formerExcess) {
      record.complain(
        `${session.name} received ${session.formerExcess - session.excess} more than was sent`,
      );
    }
    if (!session.hasGap) return;
    const missed = session.missing(since).length;
    const told = session.excess - session.formerExcess;
    record.count("sessions that were told of a gap");
    record.count("publications missed by them", missed);
    // What a node does not hear counts as one, however much it is.
    if (missed > told && !faults.has("cutsTopics", since)) {
      record.complain(`${session.name} missed ${missed}, and was told of ${told}`);
    }
  }

  /** The lists at each node, who is really there, and who is by what is heard, are the same. */
  private async checkPresence(sessions: () => SessionRecord[], since: number): Promise<void> {
    const { clients, faults, record } = this;
    const expected = (): string =>
      [...new Set(clients.flatMap(({ present }) => present))].sort().join(", ");
    const listed = async (): Promise<string[]> => {
      const lists = await Promise.all(this.cluster.nodes.map((node) => this.listAt(node)));
      return lists
        .filter((list) => list !== expected())
        .map((list) => `listed: ${list}; really: ${expected()}`);
    };
    await this.until("lists of members are right", settledWithinMs, listed);
    const present = (): Set<string> => new Set(clients.flatMap((each) => each.present));
    // What died with a host that forgot it is announced by nobody.
    const isExcused = faults.has("loses", since) && faults.has("endsSessions", since - 15_000);
    const watching = (): SessionRecord[] =>
      sessions().filter(({ roll, hasGap }) => roll.present !== undefined && !hasGap);
    if (!isExcused) {
      await this.until("announced members are right", settledWithinMs, () =>
        watching().flatMap(({ name, roll }) => {
          const heard = [...(roll.present ?? [])].sort().join(", ");
          return heard === expected() ? [] : [`${name} heard: ${heard}; really: ${expected()}`];
        }),
      );
    }
    for (const session of sessions()) {
      const { roll, name, hasGap } = session;
      const fault = roll.faults.splice(0);
      if (!isExcused && !hasGap) for (const each of fault) record.complain(`${name}: ${each}`);
      else if (fault.length > 0) record.count("excused faults of announcements", fault.length);
      const watches = this.apps.every(({ roomPattern }) =>
        session.effective.some((each) => each.name === roomPattern),
      );
      roll.present = watches ? present() : undefined;
    }
  }

  private async listAt(node: { readonly url: string }): Promise<string> {
    const lists = this.apps.flatMap(({ rooms, id, key }) =>
      rooms.map(async (room) => {
        const name = room.replace(`/${id}/presence/`, "");
        const { status, text } = await ask(node, "GET", `/api/${id}/presence/${name}`, key);
        if (status !== 200) return [`${room}: ${status}`];
        const { members } = JSON.parse(text) as { members: Record<string, unknown> };
        return Object.keys(members).map((member) => `${room} ${member}`);
      }),
    );
    return (await Promise.all(lists)).flat().sort().join(", ");
  }

  /** @param withinMs how long it may be refused */
  private async publishEverywhere(what: string, withinMs: number): Promise<void> {
    await Promise.all(
      this.cluster.nodes.map((node) =>
        this.until(`publishes at ${node.name} are ${what}`, withinMs, async () => {
          const refused: string[] = [];
          for (const app of this.apps) {
            for (const channel of app.channels) {
              const publication = this.record.publication(`${node.name}-`, channel);
              const { status } = await publish(node, channel, { p: publication.key }, app.key);
              if (status === 200) publication.takenAt = performance.now();
              else refused.push(`${channel}: ${status}`);
            }
          }
          return refused;
        }),
      ),
    );
  }

  /** Complains when something is still wrong after that time. */
  private async until(
    what: string,
    withinMs: number,
    wrong: () => readonly string[] | Promise<readonly string[]>,
  ): Promise<void> {
    const end = performance.now() + withinMs;
    for (;;) {
      const found = await wrong();
      if (found.length === 0) return;
      if (performance.now() > end) {
        for (const each of found.slice(0, 5)) {
          this.record.complain(`not within ${withinMs} ms: ${what}: ${each}`);
        }
        return;
      }
      await delay(100);
    }
  }

  private story(): string[] {
    const { record, faults } = this;
    const sessions = record.sessions.filter(({ name }) =>
      record.complaints.some((complaint) => complaint.split(/[ :,]/).includes(name)),
    );
    return [
      ...faults.faults.map(
        ({ what, from, to }) => `${record.seconds(from)} to ${record.seconds(to)} s: ${what}`,
      ),
      ...sessions.flatMap(({ name, clientId, story }) => [`${name}, ${clientId}:`, ...story]),
    ];
  }

  private fork(): Random {
    return new Random(this.random.below(2 ** 31));
  }
}

/** The application that every cluster has, and another one, with channels of the same names. */
async function appsOf(cluster: Cluster): Promise<App[]> {
  const administer = async <T>(path: string, body: object): Promise<T> => {
    const at = `/admin/api${path}`;
    const user = ["admin", password] as const;
    const { status, text } = await ask(cluster.balancer, "POST", at, user, body);
    if (status >= 300) throw new Error(`${at}: ${status} ${text}`);
    return JSON.parse(text) as T;
  };
  const { id } = await administer<{ id: string }>("/applications", { name: "other" });
  const key = await administer<{ id: string; secret: string }>(`/application/${id}/keys`, {
    purpose: "chaos",
  });
  return [appOf(appId, [keyId, secret]), appOf(id, [key.id, key.secret])];
}

function appOf(id: string, key: App["key"]): App {
  const [open, closed, presence] = ["public", "private", "presence"].map(
    (kind) => `/${id}/${kind}/chaos`,
  );
  const channels = [0, 1, 2].map((n) => `${open}/${n}`).concat(`${closed}/0`, `${closed}/deep/0`);
  const patterns = [`${open}/*`, `/${id}/public/**`, `${closed}/**`, `${closed}/*`];
  return {
    id,
    key,
    channels,
    names: [...channels, ...patterns],
    rooms: [0, 1].map((n) => `${presence}/${n}`),
    roomPattern: `${presence}/*`,
  };
}
