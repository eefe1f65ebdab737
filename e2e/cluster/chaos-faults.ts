/** What goes wrong in a chaos test. */
import { setTimeout as delay } from "node:timers/promises";
import type { Random } from "../../server/test/hostile/random.js";
import type { Cluster, ClusterNode } from "./cluster.js";

interface Fault {
  readonly what: string;
  readonly port: number | undefined;
  /** The node answers nobody. */
  readonly stands: boolean;
  /** Sessions may end by it. */
  readonly endsSessions: boolean;
  /** The node hears nothing of the others. */
  readonly isolates: boolean;
  /** A Redis host forgets what it knew. */
  readonly loses: boolean;
  /** Nodes may miss what is published meanwhile. */
  readonly cutsTopics: boolean;
  readonly from: number;
  to: number;
}

type Effects = Partial<
  Pick<Fault, "stands" | "endsSessions" | "isolates" | "loses" | "cutsTopics">
>;

/** A node that was thawed, or a host that is back, needs a moment. */
const afterMs = 3_000;
/** Longer than the lease. */
const longMs = 8_000;
/** How long after a fault a session that it ends may still seem well. */
const discoveryMs = 10_000;

export class FaultLog {
  readonly faults: Fault[] = [];

  begin(what: string, { port }: { port?: number }, effects: Effects = {}): Fault {
    const none = {
      stands: false,
      endsSessions: false,
      isolates: false,
      loses: false,
      cutsTopics: false,
    };
    const from = performance.now();
    const fault = { what, port, ...none, ...effects, from, to: Number.POSITIVE_INFINITY };
    this.faults.push(fault);
    return fault;
  }

  /** Whether this node was dead or frozen since then; undefined: any. */
  hasStood(port: number | undefined, since: number): boolean {
    return this.faults.some(
      (each) =>
        each.stands && (port === undefined || each.port === port) && each.to + afterMs > since,
    );
  }

  isTroubled(from: number, to: number): boolean {
    return this.faults.some((each) => each.from < to && each.to + afterMs > from);
  }

  /** Whether a fault of one of these nodes explains the end of a session that was well at that time. */
  mayHaveEnded(ports: ReadonlySet<number>, since: number): boolean {
    return this.faults.some(
      ({ endsSessions, port, to }) =>
        endsSessions && port !== undefined && ports.has(port) && to + discoveryMs > since,
    );
  }

  /** Whether this node was cut off from the others since then. */
  isAlone(port: number | undefined, since: number): boolean {
    return this.faults.some(
      (each) => each.isolates && each.port === port && each.to + afterMs > since,
    );
  }

  has(effect: keyof Effects, since: number): boolean {
    return this.faults.some((each) => each[effect] && each.to > since);
  }
}

interface Kind {
  readonly name: string;
  /** What it happens to. */
  readonly to: "node" | "host" | "wire";
  /** Sessions may end by it: only one node at a time. */
  readonly isDeadly?: boolean;
  run(storm: Storm, node: ClusterNode, host: number): Promise<void>;
}

const kinds: readonly Kind[] = [
  {
    name: "kill",
    to: "node",
    isDeadly: true,
    async run(storm, node) {
      await node.end("SIGKILL");
      await storm.pause(0, 3_000);
      await node.start();
    },
  },
  {
    name: "freeze",
    to: "node",
    async run(storm, node) {
      node.freeze();
      await storm.pause(300, 3_500);
      node.thaw();
    },
  },
  {
    name: "freeze for long",
    to: "node",
    isDeadly: true,
    async run(storm, node) {
      node.freeze();
      await storm.pause(longMs, longMs + 2_000);
      node.thaw();
    },
  },
  {
    name: "cut off from all of Redis for long",
    to: "node",
    isDeadly: true,
    async run(storm, node) {
      node.stall();
      await storm.pause(longMs, longMs + 2_000);
      node.flow();
    },
  },
  {
    name: "stall the wires to a Redis host",
    to: "wire",
    async run(storm, node, host) {
      node.stall(host);
      await storm.pause(100, 4_500);
      node.flow(host);
    },
  },
  {
    name: "restart Redis with its data",
    to: "host",
    async run({ cluster, pause }, _, host) {
      await cluster.redis[host]?.kill();
      await pause(0, 1_500);
      await cluster.redis[host]?.restart();
    },
  },
  {
    name: "restart Redis without its data",
    to: "host",
    async run({ cluster, pause }, _, host) {
      await cluster.redis[host]?.kill();
      await pause(0, 1_500);
      await cluster.redis[host]?.restart({ isEmpty: true });
    },
  },
  {
    name: "freeze Redis",
    to: "host",
    async run({ cluster, pause }, _, host) {
      cluster.redis[host]?.pause();
      await pause(100, 3_000);
      cluster.redis[host]?.resume();
    },
  },
];

/** Where fewer things go wrong, fewer are excused: Redis is well; no node dies. */
const gentle = [
  kinds.filter(({ to, name }) => to === "node" && name !== "cut off from all of Redis for long"),
  kinds.filter(({ isDeadly }) => isDeadly !== true),
];

/** Faults one after the other, some at the same time; what was begun is mended before it is over. */
export class Storm {
  private readonly busy = new Set<unknown>();
  private kinds = kinds;

  constructor(
    readonly cluster: Cluster,
    private readonly log: FaultLog,
    private readonly random: Random,
  ) {}

  async rage(ms: number): Promise<void> {
    const end = performance.now() + ms;
    this.kinds = this.random.pick([kinds, ...gentle]);
    const lane = async (): Promise<void> => {
      while (performance.now() < end) {
        await this.strike();
        await this.pause(0, 1_000);
      }
    };
    await Promise.all([lane(), lane()]);
  }

  readonly pause = (leastMs: number, mostMs: number): Promise<void> =>
    delay(leastMs + this.random.below(mostMs - leastMs));

  private async strike(): Promise<void> {
    const cluster = this.cluster;
    const random = this.random;
    const log = this.log;
    const busy = this.busy;
    const kind = random.pick(this.kinds);
    const node = random.pick(cluster.nodes);
    const host = random.below(cluster.redis.length);
    const taken: unknown[] = [];
    if (kind.to !== "host") taken.push(node);
    if (kind.to !== "node") taken.push(host);
    if (kind.isDeadly) taken.push("deadly");
    if (taken.some((each) => busy.has(each))) return;
    for (const each of taken) busy.add(each);
    const place = kind.to === "host" ? `host ${host}` : node.name;
    const isolates = kind.name === "cut off from all of Redis for long";
    const fault = log.begin(`${kind.name}: ${place}`, kind.to === "host" ? {} : node, {
      stands: kind.to === "node" && !isolates,
      isolates,
      endsSessions: kind.isDeadly === true,
      loses: kind.name === "restart Redis without its data",
      cutsTopics: kind.to !== "node" || isolates,
    });
    try {
      await kind.run(this, node, host);
    } finally {
      fault.to = performance.now();
      for (const each of taken) busy.delete(each);
    }
  }
}
