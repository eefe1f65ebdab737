/** `load`: many users at a server, who hear what is published, and how long that takes. */
import { randomBytes } from "node:crypto";
import { availableParallelism } from "node:os";
import { type Command, InvalidArgumentError, Option } from "commander";
import { exitCodes, Failure, print, program } from "./core.js";
import { Conductor } from "./load/conductor.js";
import type { Figures } from "./load/figures.js";
import type { Plan, Share } from "./load/plan.js";
import { type LoadResult, Progress, tables } from "./load/report.js";
import { type ServerFigures, ServerStatistics } from "./load/server-figures.js";
import { openFilesLimit } from "./open-files.js";
import {
  addRemoteOptions,
  openBackEnd,
  parseSeconds,
  type Remote,
  type RemoteOptions,
  readRemote,
} from "./remote.js";

interface LoadOptions extends RemoteOptions {
  readonly users: number;
  readonly rate: number;
  readonly sharedRate: number;
  readonly pushes?: number;
  readonly duration?: number;
  readonly size: number;
  readonly ramp: number;
  readonly transport: Plan["transport"];
  readonly workers?: number;
}

const maxUsers = 1_000_000;
const maxRate = 100_000;
const defaultSeconds = 30;
const smallestMessage = 64;
const largestMessage = 262_144;
/** What a process opens besides its users' connections: publishing, files, and some to spare. */
const otherFiles = 200;

addRemoteOptions(
  program
    .command("load")
    .description("a load test: connected users, pushes at a steady rate, and their latency")
    .option("--users <n>", "how many are connected", whole(1, maxUsers), 100)
    .option("--rate <n>", "pushes a second to users' own channels, in turn", rate, 10)
    .option("--shared-rate <n>", "pushes a second to a channel that all users hear", rate, 0)
    .option("--pushes <n>", "end when each user got so many on its own channel", whole(1, maxUsers))
    .option(
      "--duration <seconds>",
      "how long to push, without --pushes (default: 30)",
      parseSeconds,
    )
    .option("--size <bytes>", "of each message's data", whole(smallestMessage, largestMessage), 100)
    .option("--ramp <seconds>", "how long connecting takes; 0: as fast as it goes", parseRamp, 0)
    .addOption(
      new Option("--transport <name>", "how users are connected")
        .choices(["websocket", "long-polling"])
        .default("websocket"),
    )
    .option("--workers <n>", "processes (default: one for each processor)", whole(1, 256))
    .addHelpText(
      "after",
      `
Each user is a session of its own, subscribed with a token to a private channel
of its own (--rate) and to one that all hear (--shared-rate: 1 push to 5000
users is 5000 deliveries). Pushes are REST publishes, as a back end sends them.
The application should have no other traffic: the server's own figures, which
are of all that goes on in it, are printed beside those of the test.

Latency is from sending a push to its receipt. Both are on this machine, and by
its one monotonic clock; a busy machine adds to it: the server is better tested
from another one. A connection is a file: "ulimit -n" bounds those of a process.

While it runs, "out" are pushes and "in" is what users received. Ctrl-C ends it
early, with the figures so far.

Exit code: 0 when all users were connected, all pushes were taken, and every
message came once, else 1.

Examples:
  pandapush load --users 50 --rate 20 --duration 10
  pandapush load --users 5000 --rate 200 --shared-rate 1 --ramp 20
  pandapush load --users 500 --pushes 10 --rate 100 --transport long-polling
  pandapush load --users 1000 --json | jq .latency_ms.own_delivery.p99`,
    ),
).action(async (options: LoadOptions, self: Command) => {
  if (options.rate === 0 && options.sharedRate === 0) {
    self.error("error: nothing would be pushed: --rate or --shared-rate must be more than 0");
  }
  if (options.pushes !== undefined && (options.duration !== undefined || options.rate === 0)) {
    self.error("error: --pushes goes with a --rate, and without --duration");
  }
  const remote = await readRemote(options, self);
  const workers = Math.min(options.users, options.workers ?? availableParallelism());
  requireFiles(Math.ceil(options.users / workers));
  const result = await run(remote, options, workers);
  print(result, tables(result));
  if (!result.ok) process.exitCode = exitCodes.failed;
});

/** @throws Failure when a process could not open so many connections */
function requireFiles(connections: number): void {
  const limit = openFilesLimit();
  if (connections + otherFiles <= limit) return;
  throw new Failure(
    `Each process would have ${connections} connections, but may open ${limit} files only. Raise that (ulimit -n ${connections + otherFiles}), or share the users out over more processes with --workers.`,
  );
}

async function run(remote: Remote, options: LoadOptions, workers: number): Promise<LoadResult> {
  const { users, transport, ramp } = options;
  const name = randomBytes(6).toString("hex");
  const statistics = await openStatistics(remote);
  const plan: Plan = {
    url: remote.url,
    keyId: remote.keyId,
    keySecret: remote.keySecret,
    transport,
    ownChannels: `/${remote.appId}/private/load-${name}/`,
    sharedChannel: `/${remote.appId}/public/load-${name}`,
    size: options.size,
    rampMs: ramp * 1000,
    isOwnHeard: options.rate > 0,
    isSharedHeard: options.sharedRate > 0,
  };
  const shares = shareOut(options, workers);
  const pushes = shares.reduce((sum, { own, shared }) => sum + own.count + shared.count, 0);
  const conductor = new Conductor(plan, shares);
  const progress = new Progress(() => conductor.figures());
  const interrupt = (): void => conductor.stop();
  process.once("SIGINT", interrupt).once("SIGTERM", interrupt);
  try {
    const openedAt = performance.now();
    progress.begin("connecting", ({ counts }) => (counts.opened + counts.unopened) / users);
    await conductor.open();
    const openSeconds = secondsSince(openedAt);
    const before = await statistics.latest();
    const publishedAt = performance.now();
    progress.begin("publishing", ({ counts }) => (counts.published + counts.unpublished) / pushes);
    const shared = await conductor.publish();
    const publishSeconds = secondsSince(publishedAt);
    progress.begin("receiving", () => 1);
    const settled = await conductor.settle(shared);
    progress.begin("comparing", () => 1);
    const after = before && (await statistics.next());
    const figures = conductor.figures();
    const { counts } = figures;
    const wrong = users - counts.opened + counts.unpublished + settled.lost + counts.duplicated;
    return {
      users,
      transport,
      workers,
      connects: { opened: counts.opened, failed: users - counts.opened, seconds: openSeconds },
      reconnects: counts.reconnects,
      new_sessions: counts.newSessions,
      publishes: {
        confirmed: counts.published,
        failed: counts.unpublished,
        seconds: publishSeconds,
        per_second: Math.round((counts.published / publishSeconds) * 10) / 10,
      },
      deliveries: {
        expected: settled.expected,
        received: counts.received,
        lost: settled.lost,
        duplicated: counts.duplicated,
      },
      ...described(figures, before, after),
      ok: wrong === 0,
    };
  } finally {
    process.off("SIGINT", interrupt).off("SIGTERM", interrupt);
    progress.end();
    await Promise.all([conductor.end(), statistics.close()]);
  }
}

function described(
  { connecting, publishing, deliveringOwn, deliveringShared, errors }: Figures,
  before: ServerFigures | undefined,
  after: ServerFigures | undefined,
): Pick<LoadResult, "latency_ms" | "errors" | "server"> {
  return {
    latency_ms: {
      connect: connecting.summary() ?? null,
      publish: publishing.summary() ?? null,
      own_delivery: deliveringOwn.summary() ?? null,
      shared_delivery: deliveringShared.summary() ?? null,
    },
    errors: Object.fromEntries(errors),
    server:
      before === undefined || after === undefined || after.published < before.published
        ? null
        : {
            // Without the one that hears these figures.
            connections: after.connections - 1,
            published: after.published - before.published,
            delivered: after.delivered - before.delivered,
          },
  };
}

/** Says early what is wrong with server or key, too. @throws Error */
async function openStatistics(remote: Remote): Promise<ServerStatistics> {
  const backEnd = await openBackEnd(remote);
  const channel = `/${remote.appId}/meta/statistics`;
  await backEnd.channel(channel);
  const { Client } = await import("pandapush-client");
  const client = new Client(`${remote.url}/push`);
  return new ServerStatistics(client, channel, () =>
    backEnd.generateToken({ channel, sub: true, expiresInMs: 86_400_000 }),
  );
}

/** Users and pushes, as evenly as they go. */
function shareOut(options: LoadOptions, workers: number): Share[] {
  const { users, rate, sharedRate, pushes, duration = defaultSeconds } = options;
  const own = pushes === undefined ? Math.ceil(rate * duration) : pushes * users;
  const seconds = rate > 0 ? own / rate : duration;
  const shares: Share[] = [];
  const upTo = (index: number, all: number): number => Math.round((all * index) / workers);
  for (let index = 0; index < workers; index++) {
    const first = upTo(index, users);
    const count = upTo(index + 1, users) - first;
    const isFirst = index === 0;
    shares.push({
      first,
      users: count,
      own: {
        // Each user gets as many as any other.
        count: pushes === undefined ? upTo(index + 1, own) - upTo(index, own) : pushes * count,
        perSecond: (rate * count) / users,
      },
      shared: { count: isFirst ? Math.ceil(sharedRate * seconds) : 0, perSecond: sharedRate },
    });
  }
  return shares;
}

function secondsSince(at: number): number {
  return Math.round((performance.now() - at) / 10) / 100;
}

function whole(least: number, most: number): (text: string) => number {
  return (text) => {
    const value = /^\d{1,9}$/.test(text) ? Number(text) : Number.NaN;
    if (value >= least && value <= most) return value;
    throw new InvalidArgumentError(`It must be a whole number from ${least} to ${most}.`);
  };
}

function rate(text: string): number {
  const value = /^\d{1,6}(\.\d{1,3})?$/.test(text) ? Number(text) : Number.NaN;
  if (value <= maxRate) return value;
  throw new InvalidArgumentError(`It must be a number from 0 to ${maxRate}.`);
}

function parseRamp(text: string): number {
  return text === "0" ? 0 : parseSeconds(text);
}
