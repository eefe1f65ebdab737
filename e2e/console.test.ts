/** What people do in the console, in real Chromium, against a running server. */
import { execFile } from "node:child_process";
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import type { Locator, Page } from "playwright-core";
import { beforeAll, describe, expect, it } from "vitest";
import { consoleWorld, environment, user } from "./console-world.js";
import { type Deployment, publish, signToken, startServer } from "./deployment.js";
import { Inbox } from "./waiting.js";

const shell = promisify(execFile);
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const pictures = fileURLToPath(new URL("screenshots/", import.meta.url));

/** What the scanner puts into a page. */
interface Axe {
  run(): Promise<{
    violations: { id: string; impact: string; nodes: { html: string }[] }[];
  }>;
}

const world = consoleWorld({
  STATISTICS_INTERVAL_MS: "1000",
  KEY_STATS_INTERVAL_MS: "1000",
  CG_ENVIRONMENT: "test",
  ENVIRONMENTS: "test,http://127.0.0.1:1;production,https://push.example.com",
});
const { open, stranger, api, newApplication, newKey, newClient } = world;
beforeAll(() => {
  mkdirSync(pictures, { recursive: true });
});

async function signIn(page: Page, password = user.password): Promise<void> {
  await page.getByLabel("User name").fill(user.name);
  await page.getByLabel("Password").fill(password);
  await page.getByRole("button", { name: "Sign in" }).click();
}

/** Publishes again and again, until the page shows this. */
async function publishUntil(shown: Locator, by: Deployment, channel: string): Promise<void> {
  let isSeen = false;
  const seen = shown.waitFor().then(() => {
    isSeen = true;
  });
  while (!isSeen) await publish(by, channel, { at: Date.now() });
  await seen;
}

describe("signing in", () => {
  it("shows its page for every address of the console, says when it is wrong, and leads there", async () => {
    const page = await stranger();
    const answer = await page.goto(`${world.admin}/activity`);
    expect(answer?.status()).toBe(401);
    await signIn(page, "bamboo for lunch");
    await page.getByText(/wrong user name or password/i).waitFor();
    await signIn(page);
    await page.getByRole("heading", { name: "Activity", level: 1 }).waitFor();
  });

  it("ends by signing out, here and for what is done afterwards", async () => {
    const page = await open();
    await page.getByRole("button", { name: `Signed in as ${user.name}` }).click();
    await page.getByRole("menuitem", { name: "Sign out" }).click();
    await page.getByLabel("Password").waitFor();
    const answer = await page.context().request.get(`${world.admin}/api/applications`);
    expect(answer.status()).toBe(401);
  });

  it("is asked for again when the session is over, and leads back", async () => {
    const brief = await startServer({ environment: { ...environment, ADMIN_SESSION_MS: "4000" } });
    try {
      const page = await stranger();
      const address = `${brief.url}/admin/apps/${brief.appId}/connections`;
      await page.goto(address);
      await signIn(page);
      await page.getByRole("heading", { name: "Connections" }).waitFor();
      await page.getByText("Your session has ended").waitFor();
      await page.getByRole("button", { name: "Sign in" }).click();
      await signIn(page);
      await page.getByRole("heading", { name: "Connections" }).waitFor();
      expect(page.url()).toBe(address);
    } finally {
      await brief.stop();
    }
  });

  it("tells the environment, the version and who one is", async () => {
    const page = await open();
    await page.getByRole("button", { name: "Environment test: choose another" }).click();
    const other = page.getByRole("menuitem", { name: "production" });
    expect(await other.getAttribute("href")).toBe("https://push.example.com/admin");
    await page.keyboard.press("Escape");
    await page.getByText(/^Pandapush \d+\.\d+/).waitFor();
    await page.getByRole("button", { name: `Signed in as ${user.name}` }).waitFor();
  });
});

describe("applications", () => {
  it("are created, found, renamed, given admins, and deleted after typing their name", async () => {
    const page = await open();
    await page.getByRole("button", { name: "New application" }).first().click();
    await page.getByLabel("Name").fill("Physics lab");
    await page.getByRole("button", { name: "Create" }).click();
    await page.getByRole("heading", { name: "Physics lab", level: 1 }).waitFor();

    await page.getByRole("link", { name: "Applications", exact: true }).click();
    await page.getByLabel("Search applications").fill("physics");
    await page.getByText("1 application", { exact: true }).waitFor();
    await page.getByRole("link", { name: "Physics lab" }).click();

    await page.getByRole("link", { name: "Settings" }).click();
    await page.getByLabel("Name", { exact: true }).fill("Chemistry lab");
    await page.getByRole("button", { name: "Rename" }).click();
    await page.getByRole("navigation").getByText("Chemistry lab").waitFor();
    await page.getByRole("combobox", { name: "Admins" }).fill("bob@school.example");
    await page.keyboard.press("Enter");
    await page.getByRole("button", { name: "Save admins" }).click();
    await page.getByText("has its new admins").waitFor();
    const id = /apps\/(\w+)/.exec(page.url())?.[1] ?? "";
    const { admins } = await api<{ admins: string[] }>("GET", `/application/${id}`);
    expect(admins.toSorted()).toEqual([user.name, "bob@school.example"]);

    await page.getByRole("button", { name: "Delete this application" }).click();
    const confirm = page.getByRole("button", { name: "Delete for ever" });
    expect(await confirm.isDisabled()).toBe(true);
    await page.getByLabel(/to confirm/).fill("Chemistry lab");
    await confirm.click();
    await page.getByText("is deleted").waitFor();
    await page.goto(`${world.admin}/apps/${id}`);
    await page.getByText("There is nothing here").waitFor();

    await page.goto(`${world.admin}/activity`);
    for (const deed of [
      "created the application",
      "changed the application",
      "deleted the application",
    ]) {
      await page.getByText(deed).first().waitFor();
    }
  });

  it("are given limits, which hold at once, are told to whoever meets them, and can be removed", async () => {
    const { id } = await newApplication("Noisy club");
    const key = await newKey(id, "publisher");
    const page = await open(`/apps/${id}/settings`);
    const save = page.getByRole("button", { name: "Save limits" });
    const field = page.getByRole("textbox", { name: "Bytes of a message" });
    expect(await save.getAttribute("aria-disabled")).toBe("true");
    await field.fill("2000");
    await page.getByRole("textbox", { name: "Connections", exact: true }).fill("100");
    await save.click();
    await page.getByText("has its new limits").waitFor();
    const { limits } = await api<{ limits: object }>("GET", `/application/${id}`);
    expect(limits).toEqual({
      max_publishes_per_second: null,
      max_connections: 100,
      max_sessions_per_second: null,
      max_message_bytes: 2000,
    });

    const by = { ...world.deployment, keyId: key.id, secret: key.secret };
    const channel = `/${id}/public/loud`;
    const loud = "x".repeat(2000);
    await expect(publish(by, channel, loud)).rejects.toThrow("413");
    await page.getByRole("link", { name: "Overview" }).click();
    await page.getByText("Message too large for this application").waitFor();
    await page.getByText("may have 2000 bytes").waitFor();
    await page.getByRole("navigation").getByRole("link", { name: "Activity" }).last().click();
    await page.getByText("changed the limits").waitFor();
    await page.getByText("after: max connections 100, max message bytes 2000").waitFor();

    await page.getByRole("link", { name: "Settings" }).click();
    expect(await field.inputValue()).toBe("2,000");
    await page.screenshot({ path: `${pictures}limits.png`, fullPage: true });
    await field.fill("");
    await save.click();
    await page.getByText("has its new limits").waitFor();
    await publish(by, channel, loud);
  });

  it("begin with a command that works as it is shown, and a page that hears it", async () => {
    const { id } = await newApplication("First steps");
    const page = await open(`/apps/${id}`);
    await page.getByRole("button", { name: "Make a key for this command" }).click();
    await page.getByText("now holds the new key’s secret").waitFor();
    const command = await page.getByRole("region", { name: "Terminal" }).innerText();
    const opened = page.waitForEvent("popup");
    await page.getByRole("link", { name: "listen in the live console" }).click();
    const live = await opened;
    await live.getByText("Listening. Nothing has come yet.").waitFor();
    await shell("bash", ["-c", command]);
    await live.getByRole("region", { name: "Messages" }).getByText('"text": "hello"').waitFor();
  });
});

describe("the overview", () => {
  it("shows live figures, the busiest channels, and what was refused without its secret", async () => {
    const { id } = await newApplication("Figures");
    const key = await newKey(id, "publisher");
    const channel = `/${id}/public/busy`;
    const client = newClient();
    await client.subscribe(channel);
    const refused = fetch(`${world.deployment.url}/channel${channel}`, {
      method: "POST",
      headers: {
        Authorization: `Basic ${btoa(`${key.id}:not-the-secret`)}`,
        "Content-Type": "application/json",
      },
      body: "{}",
    });
    expect((await refused).status).toBe(400);

    const page = await open(`/apps/${id}`);
    const figure = (name: string) => page.getByRole("region", { name });
    // The console listens as well.
    await figure("Connections").getByText("2", { exact: true }).waitFor();
    await page.getByRole("cell", { name: "/public/busy", exact: true }).waitFor();
    await page.getByText("Invalid secret").waitFor();
    expect(await page.content()).not.toContain("not-the-secret");

    await publishUntil(
      figure("Published per second").getByText(/^[1-9][\d.,]*$/),
      { ...world.deployment, appId: id, keyId: key.id, secret: key.secret },
      channel,
    );
  });
});

describe("keys", () => {
  it("are created with an end, shown once, and work", async () => {
    const { id } = await newApplication("Keys");
    const page = await open(`/apps/${id}/keys`);
    await page.getByRole("button", { name: "Create a key" }).click();
    await page.getByLabel("Purpose").fill("Gradebook");
    await page.getByRole("combobox", { name: "Expires after" }).click();
    await page.getByRole("option", { name: "90 days" }).click();
    await page.getByRole("button", { name: "Create key" }).click();
    const keyId = await page.getByRole("region", { name: "Key id" }).innerText();
    const secret = await page.getByRole("region", { name: "Secret" }).innerText();
    await publish({ ...world.deployment, appId: id, keyId, secret }, `/${id}/public/a`, "it works");
    await page.getByRole("button", { name: "I have kept it" }).click();
    await page.getByRole("cell", { name: "in 3 months" }).waitFor();
    await page.reload();
    await page.getByText("Gradebook").waitFor();
    expect(await page.content()).not.toContain(secret);
  });

  it("end at a time that is picked from a calendar", async () => {
    const { id } = await newApplication("Calendar");
    const page = await open(`/apps/${id}/keys`);
    await page.getByRole("button", { name: "New key" }).click();
    await page.getByLabel("Purpose").fill("Exam week");
    await page.getByRole("combobox", { name: "Expires after" }).click();
    await page.getByRole("option", { name: "At a time that I choose" }).click();
    await page.getByRole("button", { name: /Expires at/ }).click();
    await page.getByRole("button", { name: "Next month" }).click();
    await page.getByRole("button", { name: /^15 / }).click();
    await page.getByRole("button", { name: "Take this time" }).click();
    await page.getByRole("button", { name: "Create key" }).click();
    await page.getByRole("button", { name: "I have kept it" }).click();
    const { keys } = await api<{ keys: { purpose: string; expires: string }[] }>(
      "GET",
      `/application/${id}`,
    );
    const made = keys.find(({ purpose }) => purpose === "Exam week");
    expect(new Date(made?.expires ?? 0).getDate()).toBe(15);
  });

  it("are rotated with an overlap, revoked and deleted, at once for live traffic", async () => {
    const { id } = await newApplication("Rotation");
    const old = await newKey(id, "Old server");
    const page = await open(`/apps/${id}/keys`);
    const choose = async (what: RegExp): Promise<void> => {
      await page.getByRole("button", { name: "Actions for Old server" }).click();
      await page.getByRole("menuitem", { name: what }).click();
    };
    await choose(/rotate/);
    await page.getByRole("button", { name: "Make a new secret" }).click();
    const secret = await page.getByRole("region", { name: "Secret" }).innerText();
    await page.getByRole("button", { name: "I have kept it" }).click();
    await page.getByText("old secret ends").waitFor();
    const channel = `/${id}/private/a`;
    for (const each of [old.secret, secret]) {
      await publish({ ...world.deployment, appId: id, keyId: old.id, secret: each }, channel, 1);
    }

    const client = newClient();
    const token = signToken({ ...world.deployment, keyId: old.id, secret }, { channel, sub: true });
    const subscription = client.subscribeTo(channel, token);
    await subscription;
    const refusals = new Inbox<string>("refusal");
    subscription.on("refused", (error) => refusals.push(error.message));
    await choose(/Revoke/);
    await page.getByRole("button", { name: "Revoke", exact: true }).click();
    expect(await refusals.next()).toBe("Revoked key");
    await page.getByText(`by ${user.name}`).first().waitFor();

    await choose(/Delete/);
    await page.getByRole("button", { name: "Delete", exact: true }).click();
    await page
      .getByRole("button", { name: "Actions for Old server" })
      .waitFor({ state: "detached" });
  });
});

describe("the live console", () => {
  it("carries messages between two browsers, by REST and by the client", async () => {
    const { id } = await newApplication("Two browsers");
    const pattern = `/${id}/private/**`;
    const one = await open(`/apps/${id}/live?${new URLSearchParams({ listen: pattern })}`);
    await one.getByText("Listening. Nothing has come yet.").waitFor();
    const channel = `/${id}/private/talk`;
    const two = await open(`/apps/${id}/live?${new URLSearchParams({ channel, data: '{"n":1}' })}`);
    await two.getByRole("button", { name: "Publish", exact: true }).click();
    await one.getByText('"n": 1').waitFor();
    await two.getByText("By the client", { exact: true }).click();
    await two.getByLabel("Message (JSON)").fill('{"n":2}');
    await two.getByRole("button", { name: "Publish", exact: true }).click();
    await one.getByText('"n": 2').waitFor();
    await one.getByText("7 bytes").first().waitFor();

    await one.getByLabel("Filter messages").fill('"n": 2');
    await one.getByText("1 of 2 messages").waitFor();
    await one.getByRole("button", { name: "Clear the filter" }).click();
    await one.getByRole("button", { name: "Pause" }).click();
    await two.getByRole("button", { name: "Publish", exact: true }).click();
    await one.getByRole("button", { name: "Go on (1)" }).click();
    await one.getByText("3 messages, the newest first.").waitFor();
    await one.getByRole("button", { name: "Clear", exact: true }).click();
    await one.getByText("Listening. Nothing has come yet.").waitFor();
  });

  it("says what is wrong with a channel or message before it is sent, and with a refusal after", async () => {
    const { id } = await newApplication("Faults");
    const page = await open(`/apps/${id}/live`);
    const button = page.getByRole("button", { name: "Publish", exact: true });
    await page.getByLabel("Message (JSON)").fill("{text: 1}");
    await page.getByText("This is no JSON").waitFor();
    expect(await button.isDisabled()).toBe(true);
    await page.getByLabel("Message (JSON)").fill('{"text": 1}');
    await page.getByLabel("Channel", { exact: true }).fill(`/${id}/public/*`);
    await page.getByText("One publishes to a single channel").waitFor();
    await page.getByLabel("Channel", { exact: true }).fill(`/${id}/presence/room`);
    await page.getByLabel("Message (JSON)").fill('{"subscribe": {}}');
    await button.click();
    await page.getByText("It was not published").waitFor();
  });

  it("gives commands that work with a key", async () => {
    const { id } = await newApplication("Snippets");
    const key = await newKey(id, "snippets");
    const channel = `/${id}/public/it-s`;
    const heard = new Inbox<unknown>("message");
    await newClient().subscribe(channel, (message) => heard.push(message));
    const data = JSON.stringify({ text: "it's “here” \\ $HOME" });
    const page = await open(`/apps/${id}/live?${new URLSearchParams({ channel, data })}`);
    const command = await page.getByRole("region", { name: "curl" }).innerText();
    await shell("bash", ["-c", command.replace("KEY_ID:KEY_SECRET", `${key.id}:${key.secret}`)]);
    expect(await heard.next()).toEqual(JSON.parse(data));
    const environment = { PANDAPUSH_KEY_ID: key.id, PANDAPUSH_KEY_SECRET: key.secret };
    const env = { ...process.env, ...environment };
    await page.getByRole("tab", { name: "Ruby" }).click();
    const ruby = await page.getByRole("region", { name: "Ruby" }).innerText();
    await shell("ruby", ["-e", ruby], { env });
    expect(await heard.next()).toEqual(JSON.parse(data));
    await page.getByRole("tab", { name: "JavaScript" }).click();
    const javascript = await page.getByRole("region", { name: "JavaScript" }).innerText();
    await shell("node", ["--input-type=module", "-e", javascript], { env });
    expect(await heard.next()).toEqual(JSON.parse(data));
  });

  it("shows who is present, and who comes and goes", async () => {
    const { id } = await newApplication("Presence");
    const channel = `/${id}/presence/room`;
    const path = `/apps/${id}/live?${new URLSearchParams({ listen: channel })}`;
    const ann = await open(path);
    const members = ann.getByRole("list", { name: `Present on ${channel}` });
    await members.getByText(user.name, { exact: true }).waitFor();
    const bob = await open(`/apps/${id}/live`);
    await bob.getByLabel("Listen to").fill(channel);
    await bob.getByLabel("As", { exact: true }).fill("bob");
    await bob.getByRole("button", { name: "Listen", exact: true }).click();
    await members.getByText("bob", { exact: true }).waitFor();
    await bob.getByRole("button", { name: `Stop listening to ${channel}` }).click();
    await members.getByText("bob", { exact: true }).waitFor({ state: "detached" });
    await members.getByText(user.name, { exact: true }).waitFor();
  });

  it("listens to meta channels, and keeps in its address all but secrets", async () => {
    const { id } = await newApplication("Meta");
    const page = await open(`/apps/${id}/live`);
    await page.getByLabel("Listen to").fill(`/${id}/meta/statistics`);
    await page.getByRole("button", { name: "Listen", exact: true }).click();
    await page.getByText('"publishedPerSecond"').first().waitFor();
    await page.getByLabel("Filter messages").fill("connections");
    await page.getByRole("tab", { name: "Make a token" }).click();
    await page.getByLabel("May publish").check();
    await page.getByRole("button", { name: "Make a token" }).click();
    const token = await page.getByRole("region", { name: "Token", exact: true }).innerText();
    await page.waitForURL(/rights=sub%2Cpub/);
    const copy = await open(`${page.url().slice(world.admin.length)}`);
    await copy.getByText('"publishedPerSecond"').first().waitFor();
    expect(await copy.getByLabel("Filter messages").inputValue()).toBe("connections");
    expect(await copy.getByLabel("May publish").isChecked()).toBe(true);
    expect(page.url()).not.toContain(token.slice(0, 20));
  });

  it("makes tokens that open what they say", async () => {
    const { id } = await newApplication("Tokens");
    const key = await newKey(id, "signing");
    const page = await open(`/apps/${id}/live?tool=token`);
    const channel = `/${id}/presence/staff`;
    await page.getByLabel("Channel or pattern").fill(channel);
    await page.getByText("Nobody joins a presence channel without an id").waitFor();
    await page.getByLabel("Presence").fill('{"id": "7", "name": "Ann"}');
    await page.getByRole("combobox", { name: "Signed by" }).click();
    await page.getByRole("option", { name: "signing" }).click();
    await page.getByRole("button", { name: "Make a token" }).click();
    const claims = await page.getByRole("region", { name: "What it says" }).innerText();
    expect(claims).toContain(`"keyId": "${key.id}"`);
    const token = await page.getByRole("region", { name: "Token", exact: true }).innerText();
    const room = newClient().presence(channel, token);
    await room;
    expect(room.members.get("7")).toEqual({ id: "7", name: "Ann" });
  });
});

describe("what is live", () => {
  it("lists channels by prefix with their subscribers, and who is present", async () => {
    const { id } = await newApplication("Channels");
    const key = await newKey(id, "signing");
    const client = newClient();
    await client.subscribe(`/${id}/public/orders/1`);
    await client.subscribe(`/${id}/public/orders/*`);
    await newClient().subscribe(`/${id}/public/orders/1`);
    const channel = `/${id}/presence/staff`;
    const token = signToken(
      { ...world.deployment, keyId: key.id, secret: key.secret },
      { channel, sub: true, presence: { id: "ann", shift: "late" } },
    );
    await client.subscribeTo(channel, token);

    const page = await open(`/apps/${id}/channels`);
    const row = page.getByRole("row").filter({ hasText: `/${id}/public/orders/1` });
    await row.getByRole("cell", { name: "2", exact: true }).waitFor();
    await page.getByText("pattern", { exact: true }).waitFor();
    await page.getByRole("button", { name: `Who is present on ${channel}: 1` }).click();
    await page.getByText('{"shift":"late"}').waitFor();
    await page.getByRole("button", { name: "Disconnect ann" }).click();
    await page.getByRole("button", { name: "Disconnect", exact: true }).click();
    await page.getByText("Nobody is present.").waitFor();
    await page.getByRole("button", { name: "Close" }).click();
    await page.getByLabel("Show channels that begin with").fill("public/orders/1");
    await page.getByText("1 channel", { exact: true }).waitFor();
  });

  it("lists connections, and disconnects one", async () => {
    const { id } = await newApplication("Connections");
    const client = newClient();
    const subscription = client.subscribe(`/${id}/public/a`);
    await subscription;
    const refusals = new Inbox<string>("refusal");
    subscription.on("refused", (error) => refusals.push(error.message));
    const page = await open(`/apps/${id}/connections?search=public/a`);
    const row = page.getByRole("row").filter({ hasText: "/public/a" });
    await row.getByText("websocket").waitFor();
    await row.getByRole("button", { name: /Disconnect/ }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Disconnect" }).click();
    await refusals.next();
    await row.waitFor({ state: "detached" });
    await page.getByRole("link", { name: "Activity" }).click();
    await page.getByText("disconnected a client").waitFor();
  });

  it("the activity of all applications names them, with their ids behind the names", async () => {
    const { id } = await newApplication("Canteen menu");
    const page = await open("/activity");
    const link = page.getByRole("link", { name: "Canteen menu" }).first();
    expect(await link.getAttribute("title")).toBe(id);
    await link.click();
    await page.getByRole("heading", { name: "Canteen menu" }).waitFor();
  });
});

describe("every page", () => {
  let id: string;
  beforeAll(async () => {
    ({ id } = await newApplication("Campus chat"));
    const key = await newKey(id, "Gradebook, production");
    await newKey(id, "Old timetable");
    await api("POST", `/application/${id}/keys`, {
      purpose: "Exam week",
      expires: new Date(Date.now() + 3 * 86_400_000).toISOString(),
    });
    const { keys } = await api<{ keys: { id: string; purpose: string }[] }>(
      "GET",
      `/application/${id}`,
    );
    const old = keys.find(({ purpose }) => purpose === "Old timetable");
    await api("POST", `/application/${id}/keys/${old?.id}/revoke`, {});
    for (const name of ["Library kiosks", "Sports day"]) await newApplication(name);
    people = { id, keyId: key.id, secret: key.secret };
  });
  let people: { id: string; keyId: string; secret: string };

  /** Somebody is there, so that pages show what they are for. */
  async function populate(): Promise<void> {
    const { keyId, secret } = people;
    const signer = { ...world.deployment, keyId, secret };
    for (const name of ["Ann", "Bob", "Cleo"]) {
      const client = newClient();
      const channel = `/${id}/presence/staff-room`;
      const presence = { id: name.toLowerCase(), name };
      await client.subscribeTo(channel, signToken(signer, { channel, sub: true, presence }));
      await client.subscribe(`/${id}/public/timetable`);
      if (name === "Ann") await client.subscribe(`/${id}/public/**`);
    }
    const wrong = `Basic ${btoa(`${keyId}:wrong`)}`;
    await fetch(`${world.deployment.url}/channel/${id}/private/grades`, {
      method: "POST",
      headers: { Authorization: wrong, "Content-Type": "application/json" },
      body: "{}",
    });
  }

  const pages = [
    ["sign-in", ""],
    ["applications", ""],
    ["overview", "/apps/ID"],
    ["live", "/apps/ID/live?listen=/ID/public/**&listen=/ID/presence/staff-room"],
    ["token", "/apps/ID/live?tool=token&for=/ID/presence/staff-room&presence=ann"],
    ["channels", "/apps/ID/channels"],
    ["connections", "/apps/ID/connections"],
    ["keys", "/apps/ID/keys"],
    ["new-key", "/apps/ID/keys"],
    ["activity", "/apps/ID/activity"],
    ["settings", "/apps/ID/settings"],
    ["lost", "/nowhere"],
  ] as const;
  const looks = [
    { colorScheme: "light", width: 1280 },
    { colorScheme: "dark", width: 1280 },
    { colorScheme: "light", width: 390 },
    { colorScheme: "dark", width: 390 },
  ] as const;

  /** Something on the page that comes last. */
  async function settle(page: Page, name: string): Promise<void> {
    switch (name) {
      case "overview":
        await page.getByText("Invalid secret").waitFor();
        await page.getByText("Live", { exact: true }).waitFor();
        await publishUntil(
          page.getByRole("region", { name: "Published per second" }).getByText(/^[1-9][\d.,]*$/),
          { ...world.deployment, keyId: people.keyId, secret: people.secret },
          `/${id}/public/timetable`,
        );
        break;
      case "live": {
        const { keyId, secret } = people;
        const present = page.getByRole("list", { name: /^Present on/ });
        await present.getByText(user.name).waitFor();
        const by = { ...world.deployment, keyId, secret };
        await publish(by, `/${id}/public/timetable`, { room: 204, lesson: "Physics", moved: true });
        await page.getByText('"lesson": "Physics"').first().waitFor();
        break;
      }
      case "token":
        await page.getByRole("button", { name: "Make a token" }).click();
        await page.getByText("What it says").waitFor();
        break;
      case "new-key":
        await page.getByRole("button", { name: "New key" }).click();
        await page.getByRole("dialog").waitFor();
        await page.getByText("It works until").waitFor();
        break;
      case "sign-in":
        await page.getByLabel("Password").waitFor();
        break;
      case "lost":
        await page.getByText("There is nothing here").waitFor();
        break;
      case "settings":
        await page.getByRole("button", { name: "Save admins" }).waitFor();
        break;
      default:
        await page.getByRole("table").first().waitFor();
    }
  }

  it.each(looks)(
    "is accessible and fits, in $colorScheme at $width px",
    async (look) => {
      await populate();
      const { colorScheme, width } = look;
      const options = {
        colorScheme,
        viewport: { width, height: 860 },
        reducedMotion: "reduce",
      } as const;
      const inside = await open("", options);
      const outside = await stranger(options);
      const faults: string[] = [];
      inside.on("pageerror", ({ message }) => faults.push(message));
      inside.on("console", (line) => {
        if (line.type() === "error") faults.push(line.text());
      });
      for (const [name, path] of pages) {
        const page = name === "sign-in" ? outside : inside;
        await page.goto(`${world.admin}${path.replaceAll("ID", id)}`);
        await settle(page, name);
        await page.screenshot({
          path: `${pictures}${name}-${colorScheme}-${width}.png`,
          fullPage: true,
          animations: "disabled",
        });
        await page.evaluate(axe);
        const { violations, excess } = await page.evaluate(async () => {
          const { violations } = await (globalThis as unknown as { axe: Axe }).axe.run();
          return { violations, excess: document.documentElement.scrollWidth - innerWidth };
        });
        const serious = violations.filter(
          ({ impact }) => impact === "serious" || impact === "critical",
        );
        expect(
          serious.map(({ id, nodes }) => `${id}: ${nodes[0]?.html}`),
          `${name} has no serious violation`,
        ).toEqual([]);
        expect(excess, `${name} does not scroll sideways`).toBeLessThanOrEqual(0);
      }
      expect(faults).toEqual([]);
    },
    120_000,
  );
});
