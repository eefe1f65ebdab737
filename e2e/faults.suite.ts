/**
 * What our client makes of a bad network. Messages are numbered, published past the network that
 * fails, and accounted for: each comes once and in order, and where one is missing, and only
 * there, the subscription has said so with `gap`.
 */
import { setTimeout as delay } from "node:timers/promises";
import { Client } from "pandapush-client";
import { afterAll, afterEach, beforeAll, expect, it } from "vitest";
import { type Deployment, freshChannel, publish, signToken, startServer } from "./deployment.js";
import { TcpProxy } from "./tcp-proxy.js";
import { Inbox } from "./waiting.js";

/** Short, so that a dead link is noticed soon; sessions outlive a few failed attempts. */
const holdMs = 4_000;
/** A connect's answer may be late by five seconds, and the next attempt may wait for two. */
const noticeMs = holdMs + 10_000;

let deployment: Deployment;
let proxy: TcpProxy;
let listener: Listener;

/** A client behind the proxy that listens to one private channel. */
class Listener {
  readonly client: Client;
  readonly channel = freshChannel(deployment, "private");
  readonly received: number[] = [];
  readonly arrivals = new Inbox<number>("number");
  readonly happened = new Inbox<string>("event of the subscription");
  gaps = 0;
  published = 0;

  constructor(url: string, transport: "websocket" | "long-polling") {
    this.client = new Client(`${url}/push`);
    if (transport !== "websocket") this.client.disable("websocket");
  }

  async listen(): Promise<void> {
    const token = () => signToken(deployment, { channel: this.channel, sub: true });
    const subscription = this.client.subscribeTo<number>(this.channel, token, (n) => {
      this.received.push(n);
      this.arrivals.push(n);
    });
    subscription.on("gap", () => {
      this.gaps += 1;
      this.happened.push("gap");
    });
    subscription.on("resubscribed", () => this.happened.push("resubscribed"));
    await subscription;
  }

  /** Publishes the next number, directly to the server. */
  publish(): Promise<void> {
    return publish(deployment, this.channel, this.published++);
  }

  async publishFor(ms: number, pauseMs = 5): Promise<void> {
    const end = Date.now() + ms;
    while (Date.now() < end) {
      await this.publish();
      await delay(pauseMs);
    }
  }

  /** Publishes until what is published comes: the first numbers may still go astray. */
  async catchUp(deadlineMs = noticeMs): Promise<void> {
    const deadline = Date.now() + deadlineMs;
    for (;;) {
      const last = this.published;
      await this.publish();
      if (await this.hears(last, 1_000)) return;
      if (Date.now() > deadline) throw new Error(`nothing came for ${deadlineMs} ms`);
    }
  }

  async hears(number: number, deadlineMs: number): Promise<boolean> {
    const isIt = (n: number): boolean => n === number;
    return this.arrivals.upTo(isIt, deadlineMs).then(
      () => true,
      () => false,
    );
  }

  /** Everything once and in order, and a gap exactly where something is missing. */
  async account(): Promise<{ missing: number }> {
    // What waited for a new connection comes before the server says how much it was.
    await expect.poll(() => this.client.state).toBe("connected");
    const ordered = [...new Set(this.received)].sort((a, b) => a - b);
    expect(this.received).toEqual(ordered);
    const missing = this.published - this.received.length;
    expect(this.gaps > 0, `${missing} missing, ${this.gaps} gaps`).toBe(missing > 0);
    return { missing };
  }
}

export function faults(transport: "websocket" | "long-polling"): void {
  beforeAll(async () => {
    deployment = await startServer({ environment: { BAYEUX_TIMEOUT_MS: String(holdMs) } });
  });
  afterAll(() => deployment?.stop());
  afterEach(async () => {
    await listener.client.disconnect();
    await proxy.close();
  });

  const start = async (): Promise<void> => {
    proxy = await TcpProxy.start(deployment.url);
    listener = new Listener(proxy.url, transport);
    await listener.listen();
    await listener.catchUp();
  };

  it("a cut while nothing is on its way loses nothing, and nobody is alarmed", async () => {
    await start();
    await proxy.idle();
    await proxy.cut();
    await listener.publishFor(300);
    proxy.mend();
    await listener.catchUp();
    expect(await listener.account()).toEqual({ missing: 0 });
  });

  it("after cuts in the middle of messages, what is missing is announced", async () => {
    await start();
    const publishing = listener.publishFor(6_000);
    for (let n = 0; n < 4; n++) {
      await delay(1_000);
      await proxy.cut();
      proxy.mend();
    }
    await publishing;
    await listener.catchUp(30_000);
    await listener.account();
  });

  it("a link that became silent is noticed by the missing answer to its connect", async () => {
    await start();
    await proxy.idle();
    proxy.forget();
    await listener.publish();
    await listener.catchUp();
    await listener.account();
    expect(listener.client.state).toBe("connected");
  });

  it("a network that stands still for a moment loses nothing", async () => {
    await start();
    proxy.stall();
    await listener.publishFor(2_000, 50);
    proxy.flow();
    await listener.catchUp();
    expect(await listener.account()).toEqual({ missing: 0 });
  });

  it("a slow network loses nothing", async () => {
    proxy = await TcpProxy.start(deployment.url);
    proxy.slow(20_000);
    listener = new Listener(proxy.url, transport);
    await listener.listen();
    await listener.publishFor(3_000, 20);
    await listener.catchUp(30_000);
    expect(await listener.account()).toEqual({ missing: 0 });
  });

  it("a server that restarts is found again, and the gap is announced", async () => {
    await start();
    await deployment.restart("SIGKILL");
    await listener.happened.upTo((what) => what === "resubscribed", 30_000);
    expect(await listener.happened.next()).toBe("gap");
    await listener.catchUp();
    expect(listener.gaps).toBe(1);
    expect(new Set(listener.received).size).toBe(listener.received.length);
  });

  it("thirty seconds of cuts end with a connection, and without a storm of attempts", async () => {
    await start();
    const before = proxy.attempts;
    const publishing = listener.publishFor(30_000, 100);
    const end = Date.now() + 30_000;
    while (Date.now() < end) {
      await delay(200 + 400 * Math.random());
      await proxy.cut();
      await delay(200 * Math.random());
      proxy.mend();
    }
    await publishing;
    const attempts = proxy.attempts - before;
    await listener.catchUp(40_000);
    await listener.account();
    // Without any backoff there would be hundreds; polling needs two connections at a time.
    expect(attempts).toBeLessThan(60);
  }, 120_000);
}
