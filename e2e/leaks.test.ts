/** What a client that lives for weeks must not gather. */
import { type ChildProcess, fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import { afterAll, afterEach, beforeAll, expect, it } from "vitest";
import { type Deployment, freshChannel, startServer } from "./deployment.js";
import { TcpProxy } from "./tcp-proxy.js";
import { Inbox } from "./waiting.js";

/** For all the times together that something was done. */
const maxGrowthBytes = 1_000_000;

let deployment: Deployment;
let proxy: TcpProxy;
let client: WeighedClient;
beforeAll(async () => {
  deployment = await startServer();
  proxy = await TcpProxy.start(deployment.url);
});
afterEach(() => client.end());
afterAll(async () => {
  await proxy?.close();
  await deployment?.stop();
});

interface Weight {
  readonly heapBytes: number;
  readonly timers: number;
  readonly sockets: number;
}

class WeighedClient {
  readonly held = new Inbox<void>("held connect");
  readonly #done = new Inbox<unknown>("answer of the client's process");
  readonly #child: ChildProcess;

  constructor(url: string, transport: "websocket" | "long-polling") {
    const other = transport === "websocket" ? "long-polling" : "websocket";
    const script = fileURLToPath(new URL("clients/weigh.mjs", import.meta.url));
    const args = [`${url}/push`, freshChannel(deployment, "public"), other, "eventsource"];
    this.#child = fork(script, args, { execArgv: ["--expose-gc"] });
    this.#child.on("message", ({ name, found }: { name: string; found?: unknown }) => {
      if (name === "held") this.held.push();
      else this.#done.push(found);
    });
  }

  async act(name: "subscribe" | "comeAndGo" | "weigh"): Promise<unknown> {
    this.#child.send(name);
    return this.#done.next();
  }

  end(): void {
    this.#child.kill();
  }
}

/** Does it often enough to be warm, and then as often as said: what is held must be the same. */
async function expectNoGrowth(times: number, act: () => Promise<unknown>): Promise<void> {
  for (let n = 0; n < times / 5; n++) await act();
  const before = (await client.act("weigh")) as Weight;
  for (let n = 0; n < times; n++) await act();
  const after = (await client.act("weigh")) as Weight;
  expect(after.heapBytes - before.heapBytes).toBeLessThan(maxGrowthBytes);
  // One more or less may be there at the moment of looking; a leak would show hundreds.
  expect(after.timers - before.timers).toBeLessThan(10);
  expect(after.sockets - before.sockets).toBeLessThan(10);
}

it.each(["websocket", "long-polling"] as const)(
  "ten thousand subscriptions that came and went over %s leave nothing behind",
  async (transport) => {
    client = new WeighedClient(deployment.url, transport);
    await expectNoGrowth(100, () => client.act("comeAndGo"));
  },
  120_000,
);

it.each(["websocket", "long-polling"] as const)(
  "a thousand reconnects over %s leave nothing behind",
  async (transport) => {
    client = new WeighedClient(proxy.url, transport);
    await client.act("subscribe");
    await client.held.next();
    await expectNoGrowth(1_000, async () => {
      // Between two polls there would be nothing to cut.
      await proxy.cut();
      proxy.mend();
      await client.held.next();
    });
  },
  120_000,
);
