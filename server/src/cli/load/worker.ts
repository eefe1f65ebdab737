/** A process of a load test: its users, and the publisher of what they hear. Does what it is told. */
import { setTimeout as delay } from "node:timers/promises";
import type { KeyId } from "@pandapush/protocol";
import { signToken } from "../../auth/token.js";
import { Figures, type Sent } from "./figures.js";
import type { FromWorker, Plan, Share, ToWorker } from "./plan.js";
import { Numbers, Publisher } from "./publisher.js";
import { type Interest, User } from "./user.js";
import { HttpConnections, PollingWire, WebSocketWire } from "./wire.js";

const reportMs = 250;
/** Users whose connections are being opened at once, without a ramp. */
const maxOpening = 50;
const tokenMs = 86_400_000;
const settleTickMs = 100;
/** Nothing has come for so long: nothing will. */
const settledMs = 5_000;
const publisherConnections = 64;
const goodbyeMs = 3_000;
/** How soon it is noticed that no more users are to be opened. */
const rampTickMs = 200;

const figures = new Figures();
const polls = new HttpConnections(Number.POSITIVE_INFINITY);
const publishes = new HttpConnections(publisherConnections);

interface Member {
  readonly user: User;
  readonly channel: string;
  readonly own: Numbers;
}

class Worker {
  private readonly members: Member[] = [];
  private readonly shared = new Numbers();
  private readonly publisher: Publisher;
  private isOpening = true;

  constructor(
    private readonly plan: Plan,
    private readonly share: Share,
  ) {
    this.publisher = new Publisher(plan, publishes, figures);
  }

  async open(): Promise<void> {
    const { users, first } = this.share;
    const { rampMs } = this.plan;
    const startedAt = performance.now();
    let next = 0;
    const openNext = async (): Promise<void> => {
      while (next < users && this.isOpening) {
        const index = next++;
        await this.untilDue(startedAt + (index / users) * rampMs);
        if (!this.isOpening) return;
        const member = this.member(first + index);
        if (await member.user.open()) this.members.push(member);
      }
    };
    await Promise.all(Array.from({ length: maxOpening }, openNext));
  }

  async publish(): Promise<void> {
    const { own, shared } = this.share;
    const { members, plan } = this;
    const nobody = { count: 0, perSecond: 1 };
    await Promise.all([
      this.publisher.run(members.length === 0 ? nobody : own, (index) => {
        const { channel, own: numbers } = members[index % members.length] as Member;
        return { channel, numbers };
      }),
      this.publisher.run(shared, () => ({ channel: plan.sharedChannel, numbers: this.shared })),
    ]);
    tell({ type: "published", shared: { sent: this.shared.sent, failed: this.shared.failed } });
  }

  /** Opens and publishes no more. */
  stop(): void {
    this.isOpening = false;
    this.publisher.stop();
  }

  /** Resolves when all has come, or nothing comes any more. */
  async settle(shared: Sent): Promise<void> {
    let [received, sinceAt] = [figures.counts.received, performance.now()];
    let lost = this.lost(shared);
    while (lost > 0 && performance.now() - sinceAt < settledMs) {
      await delay(settleTickMs);
      if (figures.counts.received > received) {
        [received, sinceAt] = [figures.counts.received, performance.now()];
      }
      lost = this.lost(shared);
    }
    const ofShared = this.plan.isSharedHeard ? shared.sent - shared.failed.length : 0;
    let expected = this.members.length * ofShared;
    for (const { own } of this.members) expected += own.sent - own.failed.length;
    report();
    tell({ type: "settled", expected, lost });
  }

  end(): void {
    for (const { user } of this.members) user.end();
  }

  private async untilDue(dueAt: number): Promise<void> {
    let leftMs = dueAt - performance.now();
    while (this.isOpening && leftMs > 1) {
      await delay(Math.min(leftMs, rampTickMs));
      leftMs = dueAt - performance.now();
    }
  }

  private lost(shared: Sent): number {
    const { isSharedHeard, sharedChannel } = this.plan;
    let lost = 0;
    for (const { user, channel, own } of this.members) {
      lost += user.lost(channel, own);
      if (isSharedHeard) lost += user.lost(sharedChannel, shared);
    }
    return lost;
  }

  private member(number: number): Member {
    const { url, transport, keyId, keySecret } = this.plan;
    const { ownChannels, sharedChannel, isOwnHeard, isSharedHeard } = this.plan;
    const channel = `${ownChannels}${number}`;
    const interests: Interest[] = isSharedHeard ? [{ channel: sharedChannel }] : [];
    if (isOwnHeard) {
      const claims = { keyId: keyId as KeyId, channel, sub: true, pub: false };
      interests.push({ channel, token: signToken(keySecret, claims, Date.now() + tokenMs) });
    }
    const user = new User({
      interests,
      ownChannel: channel,
      figures,
      connectionType: transport,
      open: (listener) =>
        transport === "websocket"
          ? new WebSocketWire(`${url}/push`, listener)
          : new PollingWire(`${url}/push`, polls, listener),
    });
    return { user, channel, own: new Numbers() };
  }
}

function tell(message: FromWorker): void {
  process.send?.(message);
}

function report(): void {
  tell({ type: "figures", figures: figures.pack() });
}

async function serve(message: ToWorker, worker: Worker): Promise<void> {
  switch (message.type) {
    case "open":
      await worker.open();
      report();
      tell({ type: "opened" });
      return;
    case "publish":
      return worker.publish();
    case "stop":
      return worker.stop();
    case "settle":
      return worker.settle(message.shared);
  }
}

let worker: Worker | undefined;
const reporting = setInterval(report, reportMs);
process.on("message", (message: ToWorker) => {
  if (message.type === "open") worker = new Worker(message.plan, message.share);
  if (worker !== undefined) void serve(message, worker);
});
// Ctrl-C goes to all processes of a terminal: the one that started this one decides.
process.on("SIGINT", () => undefined);
process.on("disconnect", () => {
  clearInterval(reporting);
  worker?.stop();
  worker?.end();
  publishes.close();
  // Who says goodbye has left by then; what the server does not answer is not waited for.
  setTimeout(() => process.exit(), goodbyeMs).unref();
});
