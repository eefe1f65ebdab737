/** What the console bears: floods, lost connections, lost rights, odd names, and nobody's mouse. */
import type { Locator, Page } from "playwright-core";
import { describe, expect, it } from "vitest";
import { consoleWorld } from "./console-world.js";
import { type Deployment, publish, signToken } from "./deployment.js";
import { TcpProxy } from "./tcp-proxy.js";

const world = consoleWorld({ STATISTICS_INTERVAL_MS: "1000" });
const { open, api, newApplication, newKey, newClient } = world;

/** An application with a key that may do anything in it. */
async function newDeployment(name: string): Promise<Deployment> {
  const { id } = await newApplication(name);
  const key = await newKey(id, "back end");
  return { ...world.deployment, appId: id, keyId: key.id, secret: key.secret };
}

/** The live console, listening to this. */
async function listen(app: Deployment, channel: string, origin?: string): Promise<Page> {
  const path = `/apps/${app.appId}/live?${new URLSearchParams({ listen: channel })}`;
  const page = await open(path, {}, origin);
  await page.getByText("Listening. Nothing has come yet.").waitFor();
  return page;
}

/** Waits until the focus is there. */
async function focused(where: Locator): Promise<void> {
  const handle = await where.elementHandle();
  await where.page().waitForFunction((element) => document.activeElement === element, handle);
}

function pressed(page: Page, name: string): Promise<void> {
  return page.getByRole("button", { name, exact: true }).press("Enter");
}

describe("the live console", () => {
  it("shortens what is nested deeply or long, and copies all of it", async () => {
    const app = await newDeployment("Deep");
    const channel = `/${app.appId}/public/deep`;
    const page = await listen(app, channel);
    await page.context().grantPermissions(["clipboard-read", "clipboard-write"]);
    const deep = "[".repeat(3000) + "]".repeat(3000);
    const shown = page.getByRole("region", { name: /^Messages/ }).getByRole("listitem");
    for (const text of [deep, JSON.stringify({ long: "x".repeat(100_000) })]) {
      await publish(app, channel, JSON.parse(text));
      await shown.getByText("shortened").waitFor();
      expect((await shown.innerText()).length).toBeLessThan(6_000);
      await shown.getByRole("button", { name: "Copy the message" }).click();
      await shown.getByRole("button", { name: "Copied the message" }).waitFor();
      expect(await page.evaluate(() => navigator.clipboard.readText())).toBe(text);
      await page.getByRole("button", { name: "Clear", exact: true }).click();
    }
  });

  it("shows a little of what tokens say of members, however much it is", async () => {
    const app = await newDeployment("Claims");
    const channel = `/${app.appId}/presence/room`;
    const presence = { id: "ann", about: "x".repeat(2_000) };
    await newClient().subscribeTo(channel, signToken(app, { channel, sub: true, presence }));
    const page = await open(
      `/apps/${app.appId}/live?${new URLSearchParams({ listen: `/${app.appId}/presence/room` })}`,
    );
    const member = page
      .getByRole("list", { name: /^Present on/ })
      .getByText("ann", { exact: true });
    await member.waitFor();
    const titles = await page
      .locator('[role="listitem"][title]')
      .evaluateAll((badges) => badges.map((badge) => badge.getAttribute("title")?.length ?? 0));
    expect(Math.max(...titles)).toBeLessThan(400);
    await page.goto(`${world.admin}/apps/${app.appId}/channels?members=${channel}`);
    const dialog = page.getByRole("dialog");
    await dialog.getByText("shortened").waitFor();
    expect((await dialog.innerText()).length).toBeLessThan(1_000);
  });

  it("answers while thousands of messages come, and keeps the newest", async () => {
    const app = await newDeployment("Flood");
    const channel = `/${app.appId}/public/flood`;
    const page = await listen(app, channel);
    const authorization = `Basic ${btoa(`${app.keyId}:${app.secret}`)}`;
    const send = async (batch: number): Promise<void> => {
      const messages = Array.from({ length: 100 }, (_, n) => ({ channel, data: batch * 100 + n }));
      const response = await fetch(`${app.url}/api/${app.appId}/publish`, {
        method: "POST",
        headers: { Authorization: authorization, "Content-Type": "application/json" },
        body: JSON.stringify({ messages }),
      });
      expect(response.status).toBe(200);
    };
    await page.evaluate(() => {
      const rows = { most: 0 };
      new MutationObserver(() => {
        rows.most = Math.max(rows.most, document.querySelectorAll(".messages li").length);
      }).observe(document.body, { childList: true, subtree: true });
      Object.assign(globalThis, { rows });
    });
    const flood = Promise.all(Array.from({ length: 50 }, (_, batch) => send(batch)));
    await page.getByRole("button", { name: "Pause" }).click();
    await page.getByRole("button", { name: /^Go on/ }).click();
    await flood;
    await publish(app, channel, "the last");
    await page.getByText('"the last"').waitFor();
    await page.getByText("500 messages, the newest first.").waitFor();
    const most = await page.evaluate(
      () => (globalThis as unknown as { rows: { most: number } }).rows.most,
    );
    expect(most).toBeLessThan(50);
    // Those below are there for whoever goes there.
    await page.getByRole("button", { name: "Show older (470)" }).click();
    await page.getByRole("button", { name: "Show older (440)" }).waitFor();
  });

  it("says when not all of the server's nodes could be asked", async () => {
    const app = await newDeployment("Nodes");
    const room = `/${app.appId}/presence/room`;
    const token = signToken(app, { channel: room, sub: true, presence: { id: "ann" } });
    await newClient().subscribeTo(room, token);
    const page = await open(`/apps/${app.appId}/connections`);
    await page.getByRole("table", { name: "Connections" }).waitFor();
    const isMissing = { "x-incomplete": "1 of 3 nodes did not answer" };
    await page.route(`**/admin/api/application/${app.appId}/**`, async (route) => {
      const response = await route.fetch();
      await route.fulfill({ response, headers: { ...response.headers(), ...isMissing } });
    });
    for (const path of ["connections", "channels", ""]) {
      await page.goto(`${world.admin}/apps/${app.appId}/${path}`);
      const said = page.getByRole("status").filter({ hasText: "This may not be all" });
      await said.getByText("1 of 3 nodes did not answer.").first().waitFor();
    }
    await page.goto(`${world.admin}/apps/${app.appId}/channels?members=${room}`);
    const dialog = page.getByRole("dialog");
    await dialog.getByRole("button", { name: "Disconnect ann" }).click();
    const question = page.getByRole("dialog", { name: "Disconnect “ann”?" });
    await question.getByRole("button", { name: "Disconnect", exact: true }).click();
    await page.getByText("may still be connected: 1 of 3 nodes did not answer.").waitFor();
  });

  it("says when the connection is lost, and that something may be missing when it is back", async () => {
    const app = await newDeployment("Lost");
    const proxy = await TcpProxy.start(app.url);
    try {
      const page = await listen(app, `/${app.appId}/public/a`, proxy.url);
      await page.getByText("Live", { exact: true }).waitFor();
      await proxy.cut();
      await page.getByText("The connection is lost").waitFor();
      await page.getByText("Reconnecting …", { exact: true }).first().waitFor();
      // A session that is still there misses nothing.
      await world.deployment.restart("SIGKILL");
      proxy.mend();
      await page.getByText("Live", { exact: true }).waitFor();
      await page.getByText("Something may be missing").waitFor();
      await page.getByText("The connection is lost").waitFor({ state: "detached" });
    } finally {
      await proxy.close();
    }
  });

  it("keeps its address when its link is followed, and when one comes back from another page", async () => {
    const app = await newDeployment("Address");
    const channel = `/${app.appId}/public/a`;
    const page = await listen(app, channel);
    const address = page.url();
    const link = page.getByRole("link", { name: "Live console" });
    await link.click();
    expect(page.url()).toBe(address);
    await page.getByRole("link", { name: "Keys" }).click();
    await page.getByRole("heading", { name: "Keys", level: 1 }).waitFor();
    await link.click();
    await page.waitForURL(address);
    await page.getByText("Listening. Nothing has come yet.").waitFor();
  });
});

describe("rights that end", () => {
  it("are told by whatever is asked for first", async () => {
    const app = await newDeployment("Session");
    const page = await open(`/apps/${app.appId}/live`);
    await page.getByText("Live", { exact: true }).waitFor();
    // What asks again and again has no answer, so that it is not the one to tell.
    await page.route(/\/admin\/api\/(info|application\/[^/]+)$/, () => undefined);
    await page.context().clearCookies();
    await page.getByRole("button", { name: "Publish", exact: true }).click();
    await page.getByText("Your session has ended").waitFor();
  });

  it("close what is listened to in an application that is no longer one's own", async () => {
    const app = await newDeployment("Removed");
    const page = await listen(app, `/${app.appId}/private/a`);
    const heard = async (): Promise<number> => {
      const list = await api<unknown[]>("GET", `/application/${app.appId}/connections`);
      return list.length;
    };
    expect(await heard()).toBe(1);
    const refusal = { code: null, params: [], message: "Not found", details: "" };
    await page.route(`**/admin/api/application/${app.appId}`, (route) =>
      route.fulfill({ status: 404, json: refusal }),
    );
    await page.getByText("This application is no longer yours to see").waitFor({ timeout: 20_000 });
    await expect.poll(heard).toBe(0);
    await page.getByRole("navigation").getByText("Keys").waitFor({ state: "detached" });
  });
});

describe("the focus", () => {
  it("stays where one publishes, and goes to what is beside what leaves", async () => {
    const app = await newDeployment("Focus");
    const page = await listen(app, `/${app.appId}/public/**`);
    await pressed(page, "Publish");
    await page.getByText("Published to").waitFor();
    await focused(page.getByRole("button", { name: "Publish", exact: true }));
    await pressed(page, "Close");
    await focused(page.getByRole("button", { name: "Publish", exact: true }));
    await page.getByLabel("Filter messages").fill("x");
    await pressed(page, "Clear the filter");
    await focused(page.getByLabel("Filter messages"));
    await pressed(page, `Stop listening to /${app.appId}/public/**`);
    await focused(page.getByRole("button", { name: "Listen", exact: true }));
    // Nobody is led back to what they left by themselves.
    await page.getByLabel("Filter messages").fill("x");
    await page.getByRole("button", { name: "Clear the filter" }).focus();
    await page.getByText(/^Pandapush \d/).click();
    await page.getByLabel("Filter messages").evaluate((field) => {
      const { set } = Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, "value") ?? {};
      set?.call(field, "");
      field.dispatchEvent(new Event("input", { bubbles: true }));
    });
    await page.getByRole("button", { name: "Clear the filter" }).waitFor({ state: "detached" });
    await focused(page.locator("body"));
  });

  it("comes back from dialogs to what opened them, or to its neighbour", async () => {
    const app = await newDeployment("Dialogs");
    const page = await open(`/apps/${app.appId}/keys`);
    await pressed(page, "New key");
    await page.getByLabel("Purpose").fill("second");
    await pressed(page, "Create key");
    await pressed(page, "I have kept it");
    await focused(page.getByRole("button", { name: "New key" }));
    await pressed(page, "Actions for second");
    // The menu takes the focus when it has opened.
    await page.waitForFunction(() => document.activeElement?.closest("[role=menu]") != null);
    await page.getByRole("menuitem", { name: /Delete/ }).press("Enter");
    await pressed(page, "Delete");
    await page.getByRole("button", { name: "Actions for second" }).waitFor({ state: "detached" });
    await page.waitForFunction(() => document.activeElement?.ariaLabel?.startsWith("Actions for"));
  });

  it("goes to the heading of a page that one is led to", async () => {
    const page = await open();
    await pressed(page, "New application");
    await page.getByLabel("Name").fill("Led to");
    await pressed(page, "Create");
    await focused(page.getByRole("heading", { name: "Led to", level: 1 }));
    await page.getByRole("link", { name: "Settings" }).press("Enter");
    await page.getByLabel("Name", { exact: true }).fill("Led elsewhere");
    await pressed(page, "Rename");
    await page.getByText("has its new name").waitFor();
    await focused(page.getByRole("button", { name: "Rename" }));
    await pressed(page, "Delete this application");
    await page.getByLabel(/to confirm/).fill("Led elsewhere");
    await pressed(page, "Delete for ever");
    await focused(page.getByRole("heading", { name: "Applications", level: 1 }));
  });
});

describe("names", () => {
  it.each([1280, 390])("of 255 letters without a space fit, at %i px", async (width) => {
    const long = "W".repeat(255);
    const { id } = await newApplication(long);
    const key = await newKey(id, long);
    for (const overlap_ms of [3_600_000, 86_400_000]) {
      await api("POST", `/application/${id}/keys/${key.id}/rotate`, { overlap_ms });
    }
    const page = await open("", { viewport: { width, height: 860 } });
    for (const path of ["", `/apps/${id}`, `/apps/${id}/keys`, `/apps/${id}/activity`]) {
      await page.goto(`${world.admin}${path}`);
      await page.locator(".name").first().waitFor();
      const { excess, highest } = await page.evaluate(() => ({
        excess: document.documentElement.scrollWidth - innerWidth,
        highest: Math.max(
          ...[...document.querySelectorAll(".name")].map((name) => name.clientHeight),
        ),
      }));
      expect(excess, path).toBeLessThanOrEqual(0);
      expect(highest, `${path} shows two lines of a name`).toBeLessThan(80);
    }
  });

  it.each([
    ["of another direction", "مرحبا (1)", "مرحبا (1)"],
    ["with what cannot be seen", "zero\u200Bwidth\u202E \u00A0 spaces", "zerowidth spaces"],
    ["of 255 letters", "W".repeat(255), undefined],
  ])("%s can be typed to confirm", async (_, name, typed) => {
    const { id } = await newApplication(name);
    const page = await open(`/apps/${id}/settings`);
    await page.getByRole("button", { name: "Delete this application" }).click();
    await page
      .getByRole("dialog")
      .locator("bdi.code", { hasText: typed ?? id })
      .waitFor();
    await page.getByLabel(/to confirm/).fill(typed ?? id);
    await page.getByRole("button", { name: "Delete for ever" }).click();
    await page.getByText("is deleted").waitFor();
  });
});

describe("lists", () => {
  it("have pages, and lead from one that is not there to the last", async () => {
    const app = await newDeployment("Many keys");
    for (let n = 1; n <= 30; n++) await newKey(app.appId, `key ${n}`);
    const page = await open(`/apps/${app.appId}/keys`);
    await page.getByText("31 keys").waitFor();
    expect(await page.getByRole("row").count()).toBe(26);
    await page.getByRole("button", { name: "page 2", exact: true }).click();
    await page.getByText("key 30", { exact: true }).waitFor();
    await page.getByLabel("Search keys").fill("key 7");
    await page.getByText("1 key", { exact: true }).waitFor();

    await page.goto(`${world.admin}/apps/${app.appId}/keys?page=9999`);
    await page.getByText("key 30", { exact: true }).waitFor();
    await page.waitForURL(/page=2$/);
    const channel = `/${app.appId}/public/a`;
    await newClient().subscribe(channel);
    await page.goto(`${world.admin}/apps/${app.appId}/channels?page=9999`);
    await page.getByText(channel, { exact: true }).waitFor();
    expect(new URL(page.url()).search).toBe("");
  });
});

describe("a key", () => {
  it("is rotated with the promised times of its older secrets in sight", async () => {
    const app = await newDeployment("Rotations");
    const secrets = [app.secret];
    const rotate = async (overlap_ms: number): Promise<void> => {
      const path = `/application/${app.appId}/keys/${app.keyId}/rotate`;
      const { secret } = await api<{ secret: string }>("POST", path, { overlap_ms });
      secrets.push(secret);
    };
    await rotate(7 * 86_400_000);
    await rotate(86_400_000);
    const page = await open(`/apps/${app.appId}/keys`);
    await page.getByRole("button", { name: "Actions for back end" }).click();
    await page.getByRole("menuitem", { name: /rotate/ }).click();
    const times = page.getByRole("list", { name: "Older secrets work until" });
    expect(await times.getByRole("listitem").count()).toBe(2);
    await page.getByRole("button", { name: "Make a new secret" }).click();
    secrets.push(await page.getByRole("region", { name: "Secret" }).innerText());
    await page.getByRole("button", { name: "I have kept it" }).click();
    for (const secret of secrets) await publish({ ...app, secret }, `/${app.appId}/public/a`, 1);
    expect(await page.getByText(/^old secret ends/).count()).toBe(3);
  });

  it("that has expired is not offered a new secret, and says why", async () => {
    const { id } = await newApplication("Expired");
    const expires = new Date(Date.now() + 1_000).toISOString();
    await api("POST", `/application/${id}/keys`, { purpose: "brief", expires });
    const status = async (): Promise<string | undefined> => {
      const [key] = await api<{ status: string }[]>("GET", `/application/${id}/keys`);
      return key?.status;
    };
    await expect.poll(status, { timeout: 5_000 }).toBe("expired");
    const page = await open(`/apps/${id}/keys`);
    await page.getByRole("button", { name: "Actions for brief" }).click();
    const item = page.getByRole("menuitem", { name: /rotate/ });
    await item.getByText("It has expired").waitFor();
    expect(await item.isDisabled()).toBe(true);
  });
});
