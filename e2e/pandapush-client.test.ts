import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { PandapushClient } from "./clients/agents.js";
import { Chromium, pandapushClientScript, pandapushInChromium } from "./clients/chromium.js";
import { type Deployment, freshChannel, publish, signToken, startServer } from "./deployment.js";
import { sentences } from "./sentences.suite.js";
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

sentences(
  [
    pandapushInChromium(() => chromium, "same", "websocket", []),
    pandapushInChromium(() => chromium, "same", "eventsource", ["WebSocket"]),
    pandapushInChromium(() => chromium, "same", "long-polling", ["WebSocket", "EventSource"]),
    pandapushInChromium(() => chromium, "other", "websocket", []),
    pandapushInChromium(() => chromium, "other", "cross-origin-long-polling", ["WebSocket"]),
    pandapushInChromium(() => chromium, "other", "callback-polling", [
      "WebSocket",
      "XMLHttpRequest",
    ]),
  ],
  () => deployment,
);

describe("subscribe(channel, token, presence, callback) of pandapush-client 1.0.0", () => {
  it("calls back with the members first, as the token names them, then with messages", async () => {
    const channel = freshChannel(deployment, "presence");
    const presence = { id: "user1", name: "Joe" };
    const token = signToken(deployment, { channel, sub: true, presence });
    const heard = new Inbox<unknown>("callback");

    const page = await chromium.page(deployment.url, "other");
    await page.addScriptTag({ path: pandapushClientScript });
    await page.exposeFunction("heard", (data: unknown) => heard.push(data));
    await page.evaluate(
      ([url, channel, token]) => {
        const globals = globalThis as unknown as {
          Pandapush: { Client: new (url: string) => PandapushClient };
          heard(data: unknown): void;
        };
        const client = new globals.Pandapush.Client(url);
        const claimed = { id: "somebody-else" };
        client.subscribe(channel, token, claimed, (data) => globals.heard(data));
      },
      [`${deployment.url}/push`, channel, token] as const,
    );

    expect(await heard.next()).toEqual({ subscribe: { user1: presence } });
    await publish(deployment, channel, "marker");
    expect(await heard.next()).toBe("marker");
    await page.context().close();
  });
});
