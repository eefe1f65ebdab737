import type { Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { Chromium, pandapushScript } from "../../e2e/clients/chromium.js";
import { freshChannel, publish } from "../../e2e/deployment.js";
import { Inbox } from "../../e2e/waiting.js";
import { closeClients, newClient, tokenFor } from "./clients.js";
import { type Server, startServer } from "./server.js";

let server: Server;
let chromium: Chromium;
beforeAll(async () => {
  // Sessions that nobody ends live on for the time of these tests.
  [server, chromium] = await Promise.all([
    startServer({ BAYEUX_TIMEOUT_MS: "30000" }),
    Chromium.launch(),
  ]);
});
afterAll(async () => {
  await chromium?.close();
  await server?.stop();
});

let page: Page;
let reports: Inbox<string>;
beforeEach(async () => {
  page = await chromium.page(server.url, "same");
  reports = new Inbox("report of the page");
  await page.exposeFunction("report", (text: string) => reports.push(text));
  await page.addScriptTag({ path: pandapushScript });
});
afterEach(async () => {
  await closeClients();
  await page.context().close();
});

describe.each([
  ["WebSocket", []],
  ["EventSource", ["websocket"]],
  ["polling", ["websocket", "eventsource"]],
])("a page with a client over %s", (_, disabled) => {
  const run = (code: string) =>
    page.evaluate(`(async () => {
      const client = new Pandapush.Client(${JSON.stringify(server.push)});
      for (const feature of ${JSON.stringify(disabled)}) client.disable(feature);
      ${code}
    })()`);

  test("that is left ends its session", async () => {
    const channel = freshChannel(server, "presence");
    const events = new Inbox<string>("event of the room");
    await newClient(server.push)
      .presence(channel, tokenFor(server, channel, { id: "watcher" }))
      .on("join", (id) => events.push(`join ${id}`))
      .on("leave", (id) => events.push(`leave ${id}`));
    const token = tokenFor(server, channel, { id: "page" });
    await run(`await client.presence(${JSON.stringify(channel)}, ${JSON.stringify(token)})`);
    expect(await events.next()).toBe("join page");
    await page.goto("about:blank");
    expect(await events.next()).toBe("leave page");
  });

  test("that asks whether to leave, and stays, goes on as if nothing had been", async () => {
    const channel = freshChannel(server, "public");
    const asked = new Inbox<string>("dialog");
    page.on("dialog", async (dialog) => {
      await dialog.dismiss();
      asked.push(dialog.type());
    });
    await run(`
      await client
        .subscribe(${JSON.stringify(channel)}, report)
        .on("gap", () => report("gap"))
        .on("resubscribed", () => report("resubscribed"));
      addEventListener("beforeunload", (event) => event.preventDefault());
    `);
    // Without a click nobody is asked.
    await page.click("body");
    await page.evaluate('setTimeout(() => location.assign("/elsewhere"))');
    expect(await asked.next()).toBe("beforeunload");
    await publish(server, channel, "still here");
    expect(await reports.next()).toBe("still here");
  });
});
