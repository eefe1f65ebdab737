/** What our client makes of the world around a page, in real Chromium. */
import { once } from "node:events";
import http from "node:http";
import net, { type AddressInfo } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import type { Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { Chromium, pandapushScript } from "./clients/chromium.js";
import { type Deployment, freshChannel, publish, signToken, startServer } from "./deployment.js";
import { TcpProxy } from "./tcp-proxy.js";
import { Inbox } from "./waiting.js";

let deployment: Deployment;
let chromium: Chromium;
beforeAll(async () => {
  [deployment, chromium] = await Promise.all([startServer(), Chromium.launch()]);
});
afterAll(async () => {
  await chromium?.close();
  await deployment?.stop();
});

/** A page with a client that listens, and tells here what it hears and which state it is in. */
class Listener {
  readonly heard = new Inbox<unknown>("message");
  readonly states = new Inbox<string>("state");
  private constructor(readonly page: Page) {}

  static async open(
    url: string,
    channel: string,
    { disabled = [], presence }: { disabled?: readonly string[]; presence?: string } = {},
  ): Promise<Listener> {
    const page = await chromium.page(deployment.url, "other");
    const listener = new Listener(page);
    await page.addScriptTag({ path: pandapushScript });
    await page.exposeFunction("hear", (data: unknown) => listener.heard.push(data));
    await page.exposeFunction("tell", (state: string) => listener.states.push(state));
    const rights = presence === undefined ? {} : { presence: { id: presence } };
    const token = signToken(deployment, { channel, sub: true, ...rights });
    await page.evaluate(`(async () => {
      client = new Pandapush.Client(${JSON.stringify(`${url}/push`)});
      for (const type of ${JSON.stringify(disabled)}) client.disable(type);
      client.on("state", tell);
      await client.subscribeTo(${JSON.stringify(channel)}, ${JSON.stringify(token)}, hear);
    })()`);
    await listener.states.upTo((state) => state === "connected");
    return listener;
  }

  /** Publishes until it is heard: a session that has expired begins with its subscriptions. */
  async hearsAgain(channel: string): Promise<void> {
    const isBack = (data: unknown): boolean => data === "back";
    const heard = this.heard.upTo(isBack);
    let isHeard = false;
    const noticed = heard.then(() => {
      isHeard = true;
    });
    while (!isHeard) {
      await publish(deployment, channel, "back");
      await Promise.race([noticed, delay(100)]);
    }
  }

  close(): Promise<void> {
    return this.page.context().close();
  }
}

describe("a page that waits to try again", () => {
  let proxy: TcpProxy;
  let listener: Listener;
  afterEach(async () => {
    await listener.close();
    await proxy.close();
  });

  it.each([
    ["the network comes", `dispatchEvent(new Event("online"))`],
    ["somebody looks at it", `document.dispatchEvent(new Event("visibilitychange"))`],
    ["the machine wakes up", `{ const now = Date.now; Date.now = () => now() + 60_000; }`],
  ])("tries at once when %s", async (_, event) => {
    const channel = freshChannel(deployment, "private");
    proxy = await TcpProxy.start(deployment.url);
    listener = await Listener.open(proxy.url, channel);
    // Every pause is as long as it can be.
    await listener.page.evaluate("Math.random = () => 1");
    await proxy.cut();
    await listener.states.upTo((state) => state === "connecting");
    const failures = proxy.attempts + 5;
    await expect.poll(() => proxy.attempts, { timeout: 30_000 }).toBeGreaterThan(failures);
    proxy.mend();
    await listener.page.evaluate(event);
    // The pause that it was in would last for eight seconds and more.
    await listener.states.upTo((state) => state === "connected", 4_000);
    await listener.hearsAgain(channel);
  });

  it("looks whether its connection lives when the network is said to be gone", async () => {
    const channel = freshChannel(deployment, "private");
    proxy = await TcpProxy.start(deployment.url);
    listener = await Listener.open(proxy.url, channel);
    await proxy.idle();
    proxy.forget();
    await listener.page.evaluate(`dispatchEvent(new Event("offline"))`);
    await listener.states.upTo((state) => state === "connecting");
    await listener.states.upTo((state) => state === "connected");
    await listener.hearsAgain(channel);
  });
});

describe("a page that is left", () => {
  it.each([
    ["websocket", ["eventsource", "long-polling"]],
    ["eventsource or long-polling", ["websocket"]],
  ])("says goodbye over %s", async (_, disabled) => {
    const channel = freshChannel(deployment, "presence");
    const stays = await Listener.open(deployment.url, channel, { presence: "stays" });
    const leaves = await Listener.open(deployment.url, channel, { presence: "leaves", disabled });
    expect(await stays.heard.next()).toEqual({ subscribe: { stays: { id: "stays" } } });
    expect(await stays.heard.next()).toEqual({ subscribe: { leaves: { id: "leaves" } } });
    await leaves.page.goto("about:blank");
    // Without a goodbye the session would expire in ten seconds.
    expect(await stays.heard.next(4_000)).toEqual({ unsubscribe: { leaves: null } });
    await Promise.all([stays.close(), leaves.close()]);
  });
});

/** A proxy that lets no WebSocket through while it is blocking, like many a company's. */
async function startBlockingProxy(): Promise<{
  readonly url: string;
  isBlocking: boolean;
  close(): Promise<void>;
}> {
  const { hostname, port } = new URL(deployment.url);
  const proxy = http.createServer((request, response) => {
    const { method, url, headers } = request;
    const onward = http.request({ hostname, port, method, path: url, headers }, (answer) => {
      response.writeHead(answer.statusCode ?? 502, answer.headers);
      answer.pipe(response);
    });
    onward.on("error", () => response.destroy());
    response.on("close", () => onward.destroy());
    request.pipe(onward);
  });
  const state = { isBlocking: true };
  proxy.on("upgrade", (request, socket) => {
    if (state.isBlocking) {
      socket.end("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
      return;
    }
    const onward = net.connect(Number(port), hostname);
    const head = request.rawHeaders.map((text, i) => (i % 2 ? `${text}\r\n` : `${text}: `));
    onward.write(`GET ${request.url} HTTP/1.1\r\n${head.join("")}\r\n`);
    socket.pipe(onward).pipe(socket);
    onward.on("error", () => socket.destroy());
    socket.on("error", () => onward.destroy());
  });
  proxy.listen(0, "127.0.0.1");
  await once(proxy, "listening");
  return Object.assign(state, {
    url: `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`,
    async close() {
      proxy.close();
      proxy.closeAllConnections();
      await once(proxy, "close");
    },
  });
}

it("a page behind a proxy that blocks WebSockets polls, and uses one when it may", async () => {
  const proxy = await startBlockingProxy();
  const channel = freshChannel(deployment, "private");
  const listener = await Listener.open(proxy.url, channel);
  await publish(deployment, channel, "over long-polling");
  expect(await listener.heard.next()).toBe("over long-polling");

  proxy.isBlocking = false;
  const socket = await listener.page.waitForEvent("websocket", { timeout: 60_000 });
  const isConnect = (frame: { payload: string | Buffer }): boolean =>
    String(frame.payload).includes("/meta/connect");
  await socket.waitForEvent("framesent", { predicate: isConnect, timeout: 20_000 });
  for (let n = 0; n < 20; n++) await publish(deployment, channel, n);
  for (let n = 0; n < 20; n++) expect(await listener.heard.next()).toBe(n);
  await listener.close();
  await proxy.close();
}, 120_000);
