/** Several real nodes, with a Postgres and Redis hosts of their own, behind a balancer. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { appId, keyId, secret } from "../../server/test/harness.js";
import { environmentOf, Postgres } from "../../server/test/postgres.js";
import { TestRedis } from "../../server/test/redis.js";
import { answersWell, freePort, ServerProcess } from "../server-process.js";
import { Balancer } from "./balancer.js";
import { RedisWires } from "./wires.js";

const servingMs = 30_000;

export type Database = Parameters<typeof environmentOf>[0];

export interface ClusterOptions {
  /** Two unless told otherwise. */
  readonly nodes?: number;
  /** One unless told otherwise; with none, the nodes do not know of each other. */
  readonly redisHosts?: number;
  /** Whether nodes reach Redis by wires that can be stalled. */
  readonly hasWires?: boolean;
  /** Of the balancer; a free one unless told otherwise. */
  readonly port?: number;
  /** Further variables of each node. */
  readonly environment?: NodeJS.ProcessEnv;
  /** Done with the empty database before any node starts. */
  readonly prepare?: (postgres: Postgres, database: Database) => Promise<void>;
}

/**
 * Whatever happens, its processes end with the test's own.
 *
 *     const cluster = await Cluster.start({ nodes: 3, redisHosts: 2, hasWires: true });
 *     const [one, two] = cluster.nodes;
 *     await one.end("SIGKILL");            // or SIGTERM; gives the exit code
 *     await one.start();                   // same port, same environment
 *     two.freeze(); two.thaw();            // SIGSTOP, SIGCONT
 *     two.stall(0); two.flow(0);           // its wires to the first Redis host
 *     await cluster.redis[0].restart({ isEmpty: true });
 *     Socket.open(cluster.balancer);       // every request and upgrade to the next node
 *     one.log                              // what it wrote
 *     await cluster.stop();
 */
export class Cluster {
  readonly #cleanUp: (() => Promise<unknown>)[] = [];

  static async start(options: ClusterOptions = {}): Promise<Cluster> {
    const cleanUp: (() => Promise<unknown>)[] = [];
    try {
      return await start(options, cleanUp);
    } catch (error) {
      for (const each of cleanUp.reverse()) await each();
      throw error;
    }
  }

  constructor(
    readonly nodes: readonly ClusterNode[],
    readonly redis: readonly TestRedis[],
    readonly postgres: Postgres,
    readonly database: Database,
    readonly balancer: Balancer,
    cleanUp: (() => Promise<unknown>)[],
  ) {
    this.#cleanUp = cleanUp;
  }

  /** Ends everything; does nothing the second time. */
  async stop(): Promise<void> {
    for (const each of this.#cleanUp.splice(0).reverse()) await each();
  }
}

async function start(
  options: ClusterOptions,
  cleanUp: (() => Promise<unknown>)[],
): Promise<Cluster> {
  const { nodes: size = 2, redisHosts = 1, hasWires = false, environment, prepare } = options;
  const directory = await mkdtemp(path.join(tmpdir(), "pandapush-cluster-"));
  cleanUp.push(() => rm(directory, { recursive: true, force: true }));
  const names = Array.from({ length: size }, (_, index) => `node${index}`);

  const users = names.flatMap((user) => ["--user", user, "on", ">none", "~*", "&*", "+@all"]);
  const [postgres, ...redis] = await Promise.all([
    started(Postgres.start(), (each) => each.remove()),
    ...Array.from({ length: redisHosts }, () =>
      started(TestRedis.start(...users), (each) => each.stop()),
    ),
  ]);
  async function started<T>(starting: Promise<T>, end: (started: T) => Promise<unknown>) {
    const each = await starting;
    cleanUp.push(() => end(each));
    return each;
  }
  const database = await postgres.createDatabase();
  await prepare?.(postgres, database);

  const wires = hasWires
    ? await Promise.all(
        redis.map(({ port }) => started(RedisWires.start(port), (each) => each.close())),
      )
    : undefined;
  const addresses = (wires ?? redis).map(({ port }) => `127.0.0.1:${port}`);
  const nodes = await Promise.all(
    names.map(async (name) => {
      const port = await freePort();
      const process = ServerProcess.pandapush({
        directory,
        healthUrl: `http://127.0.0.1:${port}/live`,
        environment: {
          NODE_ENV: "production",
          PORT: String(port),
          HOST: "127.0.0.1",
          TRUST_PROXY: "loopback",
          ...environmentOf(database),
          ...(redisHosts === 0
            ? {}
            : { REDIS_HOSTS: addresses.map((at) => `redis://${name}:none@${at}`).join() }),
          DEV_APPLICATION_ID: appId,
          DEV_KEY_ID: keyId,
          DEV_KEY_SECRET: secret,
          ...environment,
        },
      });
      cleanUp.push(() => process.end("SIGKILL"));
      return new ClusterNode(name, port, process, wires);
    }),
  );
  await Promise.all(nodes.map((node) => node.start()));
  const balancer = await started(Balancer.start(nodes, options.port), (each) => each.close());
  return new Cluster(nodes, redis, postgres, database, balancer, cleanUp);
}

export class ClusterNode {
  readonly url: string;
  readonly wsUrl: string;
  readonly pushUrl: string;
  /** Whether the balancer chooses it. A test takes it out as a health check would. */
  isInRotation = false;
  readonly #process: ServerProcess;
  readonly #wires: readonly RedisWires[] | undefined;

  constructor(
    readonly name: string,
    readonly port: number,
    process: ServerProcess,
    wires: readonly RedisWires[] | undefined,
  ) {
    this.#process = process;
    this.#wires = wires;
    this.url = `http://127.0.0.1:${port}`;
    this.wsUrl = `ws://127.0.0.1:${port}/push`;
    this.pushUrl = `${this.url}/push`;
  }

  get isRunning(): boolean {
    return this.#process.isRunning;
  }

  /** All that it wrote, over all its lives. */
  get log(): string {
    return this.#process.output;
  }

  /**
   * It is in rotation again when this resolves.
   * @param until `serving`: it has all it needs; `listening`: for when something is to be missing
   */
  async start(until: "serving" | "listening" = "serving"): Promise<void> {
    await this.#process.start();
    const deadline = Date.now() + servingMs;
    while (until === "serving" && !(await this.isReady(""))) {
      if (Date.now() > deadline) throw new Error(`${this.name} does not serve:\n${this.log}`);
      await delay(50);
    }
    this.isInRotation = true;
  }

  /**
   * SIGKILL, or SIGTERM, and waits for the end. The balancer goes on choosing it for as long as it
   * accepts connections, unless it is taken out of rotation before.
   * @returns its exit code, null when the signal ended it
   */
  end(signal: "SIGKILL" | "SIGTERM"): Promise<number | null> {
    return this.#process.end(signal);
  }

  /** It stands still; the balancer, as one without health checks, goes on choosing it. */
  freeze(): void {
    this.#process.freeze();
  }

  thaw(): void {
    this.#process.thaw();
  }

  /** What `/ready` says now; false too when it does not answer. */
  isReady(exclude = "database"): Promise<boolean> {
    return answersWell(`${this.url}/ready?exclude=${exclude}`);
  }

  /** Nothing passes between it and this Redis host (all of them) any more. */
  stall(host?: number): void {
    for (const wires of this.#wiresTo(host)) wires.stall(this.name);
  }

  flow(host?: number): void {
    for (const wires of this.#wiresTo(host)) wires.flow(this.name);
  }

  #wiresTo(host: number | undefined): readonly RedisWires[] {
    if (this.#wires === undefined) throw new Error("start the cluster with `hasWires`");
    return host === undefined ? this.#wires : this.#wires.slice(host, host + 1);
  }
}
