import { fileURLToPath } from "node:url";
import type { Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { Chromium } from "../../e2e/clients/chromium.js";
import { freshChannel, publish } from "../../e2e/deployment.js";
import { Inbox, promptMs } from "../../e2e/waiting.js";
import { bundleForPages } from "./bundle.js";
import { closeClients, newClient, tokenFor } from "./clients.js";
import type * as reactPage from "./react-page.js";
import { type Server, startServer } from "./server.js";

let server: Server;
let chromium: Chromium;
let script: string;
beforeAll(async () => {
  [server, chromium, script] = await Promise.all([
    startServer(),
    Chromium.launch(),
    bundleForPages(fileURLToPath(new URL("react-page.tsx", import.meta.url))),
  ]);
});
afterAll(async () => {
  await chromium?.close();
  await server?.stop();
});

let page: Page;
let reports: Inbox<string>;
/** Whatever React or the browser has to criticise. */
let complaints: string[];
beforeEach(async () => {
  reports = new Inbox("report");
  complaints = [];
  page = await chromium.page(server.url, "other");
  page.setDefaultTimeout(promptMs);
  page.on("pageerror", (error) => complaints.push(error.message));
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) complaints.push(message.text());
  });
  await page.exposeFunction("report", (text: string) => reports.push(text));
  await page.evaluate(`${script}; globalThis.page = page;`);
});
afterEach(async () => {
  await closeClients();
  await page.context().close();
  expect(complaints).toEqual([]);
});

/** Calls a function of react-page.tsx. */
async function run<K extends keyof typeof reactPage>(
  name: K,
  ...args: Parameters<(typeof reactPage)[K]>
): Promise<void> {
  await page.evaluate(`page.${name}(...${JSON.stringify(args)})`);
}

/** Waits until the component shows exactly this. */
async function shown(text: string): Promise<void> {
  await page
    .locator("output")
    .and(page.getByText(text, { exact: true }))
    .waitFor();
}

test("useSubscription calls the newest listener, subscribes once, and unsubscribes at the end", async () => {
  const channel = freshChannel(server, "private");
  await run("showCounter", server.push, channel, tokenFor(server, channel), false);
  expect(await reports.next()).toBe("/meta/subscribe");
  expect(await reports.next()).toBe("answer to /meta/subscribe");
  await publish(server, channel, "first");
  expect(await reports.next()).toBe("0 first");
  await shown("1 heard");
  await publish(server, channel, "second");
  expect(await reports.next()).toBe("1 second");
  await run("unmount");
  expect(await reports.next()).toBe("/meta/unsubscribe");
});

test("useSubscription hears once where effects are run twice", async () => {
  const channel = freshChannel(server, "private");
  await run("showCounter", server.push, channel, tokenFor(server, channel), true);
  await reports.upTo((report) => report === "answer to /meta/subscribe");
  for (const count of [0, 1, 2]) {
    await publish(server, channel, "news");
    expect(await reports.next()).toBe(`${count} news`);
    await shown(`${count + 1} heard`);
  }
});

test("useSubscription gives the error of a refusal", async () => {
  await run("showRefusal", server.push, freshChannel(server, "private"));
  await shown("No auth supplied");
});

test("usePresence gives who is there, whenever that changes", async () => {
  const channel = freshChannel(server, "presence");
  await run("showMembers", server.push, channel, tokenFor(server, channel, { id: "a" }));
  await shown("a");
  const other = newClient(server.push);
  await other.presence(channel, tokenFor(server, channel, { id: "b" }));
  await shown("a,b");
  await other.disconnect();
  await shown("a");
});

test("usePresence gives the error of a refusal", async () => {
  const channel = freshChannel(server, "presence");
  await run("showMembers", server.push, channel, tokenFor(server, channel));
  await shown("No presence id specified in presence subscription");
});

test("usePresence gives the error of what is no presence channel", async () => {
  await run("showMembers", server.push, "/app/public/x", "token");
  await shown("/app/public/x is no presence channel; one is /APP_ID/presence/lobby");
});

test("useConnectionState follows the client", async () => {
  await run("showState", server.push);
  await shown("unconnected");
  await page.click("button");
  await shown("connected");
  await page.click("button");
  await shown("disconnected");
});
