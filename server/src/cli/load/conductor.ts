/** Starts the processes of a load test, tells them what to do, and adds up what they count. */
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { Figures, type PackedFigures, type Sent } from "./figures.js";
import type { FromWorker, Plan, Share, ToWorker } from "./plan.js";

const program = fileURLToPath(new URL("./worker.js", import.meta.url));

type Answer<T extends FromWorker["type"]> = Extract<FromWorker, { type: T }>;

export interface Settled {
  /** How many messages the users were to receive, together. */
  readonly expected: number;
  readonly lost: number;
}

export class Conductor {
  private readonly workers: readonly Worker[];

  constructor(
    private readonly plan: Plan,
    private readonly shares: readonly Share[],
  ) {
    this.workers = shares.map(() => new Worker());
  }

  /** Of all processes together, up to a moment ago. */
  figures(): Figures {
    const all = new Figures();
    for (const { figures } of this.workers) if (figures !== undefined) all.merge(figures);
    return all;
  }

  /** Resolves when each user has a connection, or failed. @throws Error when a process ended */
  async open(): Promise<void> {
    await this.all("opened", (index) => {
      return { type: "open", plan: this.plan, share: this.shares[index] as Share };
    });
  }

  /** Resolves with what all users were to hear, when everything was published. */
  async publish(): Promise<Sent> {
    const answers = await this.all("published", () => ({ type: "publish" }));
    // One of them publishes to the shared channel.
    return answers.map(({ shared }) => shared).find(({ sent }) => sent > 0) ?? none;
  }

  /** Opens and publishes no more; what was sent is waited for. */
  stop(): void {
    for (const worker of this.workers) worker.tell({ type: "stop" });
  }

  /** Resolves when all has come, or nothing comes any more. */
  async settle(shared: Sent): Promise<Settled> {
    const answers = await this.all("settled", () => ({ type: "settle", shared }));
    return answers.reduce(
      (sum, { expected, lost }) => ({ expected: sum.expected + expected, lost: sum.lost + lost }),
      { expected: 0, lost: 0 },
    );
  }

  /** The users say goodbye, and the processes end. */
  async end(): Promise<void> {
    await Promise.all(this.workers.map((worker) => worker.end()));
  }

  private all<T extends FromWorker["type"]>(
    type: T,
    message: (index: number) => ToWorker,
  ): Promise<Answer<T>[]> {
    return Promise.all(this.workers.map((worker, index) => worker.ask(type, message(index))));
  }
}

const none: Sent = { sent: 0, failed: [] };
/** A process that does not end by itself is ended. */
const endMs = 10_000;

class Worker {
  figures: PackedFigures | undefined;
  private readonly child: ChildProcess;
  private readonly ended: Promise<never>;
  private answered: (message: FromWorker) => void = () => undefined;

  constructor() {
    this.child = fork(program, { execArgv: [], stdio: ["ignore", "ignore", "inherit", "ipc"] });
    this.child.on("message", (message: FromWorker) => {
      if (message.type === "figures") this.figures = message.figures;
      else this.answered(message);
    });
    this.ended = once(this.child, "exit").then(([code, signal]) => {
      throw new Error(`A process of the load test ended by itself (${signal ?? code}).`);
    });
    // Told to who asks it.
    this.ended.catch(() => undefined);
  }

  /** @throws Error when it has ended */
  ask<T extends FromWorker["type"]>(type: T, message: ToWorker): Promise<Answer<T>> {
    const answer = new Promise<Answer<T>>((resolve) => {
      this.answered = (each) => {
        if (each.type === type) resolve(each as Answer<T>);
      };
    });
    this.tell(message);
    return Promise.race([answer, this.ended]);
  }

  tell(message: ToWorker): void {
    if (this.child.connected) this.child.send(message);
  }

  async end(): Promise<void> {
    if (this.child.connected) this.child.disconnect();
    const timer = setTimeout(() => this.child.kill("SIGKILL"), endMs);
    await this.ended.catch(() => undefined);
    clearTimeout(timer);
  }
}
