/** The pages under /admin that are shown before a login, in real Chromium. */
import { mkdir } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import axe from "axe-core";
import type { Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Chromium } from "./clients/chromium.js";
import { type Deployment, isForeign, startServer } from "./deployment.js";

/** Left there for people to look at. */
const screenshots = fileURLToPath(new URL("screenshots/", import.meta.url));

const password = "correct horse";
const logins = {
  basic: { ADMIN_PASSWORD: password },
  oidc: {
    AUTH_METHOD: "oidc",
    // Nobody listens there.
    OIDC_ISSUER: "http://127.0.0.1:9",
    OIDC_CLIENT_ID: "id",
    OIDC_CLIENT_SECRET: "secret",
    OIDC_REDIRECT_URI: "http://127.0.0.1/admin/login/callback",
    OIDC_ALLOWED_USERS: "*",
    OIDC_NAME: "Example Inc.",
  },
  none: { AUTH_METHOD: "none" },
};

describe.skipIf(isForeign)("/admin before a login", () => {
  let chromium: Chromium;
  let servers: Record<keyof typeof logins, Deployment>;
  beforeAll(async () => {
    const [started, basic, oidc, none] = await Promise.all([
      Chromium.launch(),
      startServer({ environment: logins.basic }),
      startServer({ environment: logins.oidc }),
      startServer({ environment: logins.none }),
      mkdir(screenshots, { recursive: true }),
    ]);
    [chromium, servers] = [started, { basic, oidc, none }];
  });
  afterAll(async () => {
    await chromium?.close();
    await Promise.all(Object.values(servers ?? {}).map((server) => server.stop()));
  });

  async function open(url: string): Promise<{ page: Page; faults: string[] }> {
    const page = await chromium.page(new URL(url).origin, "same");
    const faults: string[] = [];
    page.on("pageerror", (error) => faults.push(error.message));
    page.on("console", (message) => {
      // That a page's status is 401 is an error to Chromium.
      if (message.type() === "error" && !/Failed to load resource/.test(message.text())) {
        faults.push(message.text());
      }
    });
    await page.goto(url);
    return { page, faults };
  }

  const fault = (page: Page) => page.getByRole("alert");
  const signIn = (page: Page) => page.getByRole("button", { name: "Sign in" });
  const asked = () => `${servers.basic.url}/admin/applications/x?tab=keys#top`;

  it("logs in with the keyboard alone, and loads the page that was asked for", async () => {
    const { page, faults } = await open(asked());
    // The user name gets the focus.
    await page.waitForFunction(() => document.activeElement instanceof HTMLInputElement);
    await page.keyboard.type("admin");
    await page.keyboard.press("Tab");
    await page.keyboard.type(password);
    const loaded = page.waitForEvent("load");
    await page.keyboard.press("Enter");
    await loaded;
    expect(await page.locator("#sign-in").count()).toBe(0);
    expect(page.url()).toContain("/admin/");
    const info = await page.request.get(`${servers.basic.url}/admin/api/info`);
    expect(await info.json()).toMatchObject({ username: "admin" });
    expect(faults).toEqual([]);
    await page.context().close();
  });

  it("says beside the form what was wrong, and lets one type again", async () => {
    const { page, faults } = await open(asked());
    await page.getByLabel("User name").fill("admin");
    await page.getByLabel("Password").fill("wrong");
    await signIn(page).click();
    await expect.poll(() => fault(page).textContent()).toMatch(/^Wrong user name or password\. /);
    const field = page.getByLabel("Password");
    expect(await field.getAttribute("aria-invalid")).toBe("true");
    const loaded = page.waitForEvent("load");
    // What was wrong is selected.
    await page.keyboard.type(password);
    await page.keyboard.press("Enter");
    await loaded;
    expect(await page.locator("#sign-in").count()).toBe(0);
    expect(faults).toEqual([]);
    await page.context().close();
  });

  it("says that the server does not answer, and sends what is typed only once", async () => {
    const { page } = await open(asked());
    await page.getByLabel("User name").fill("admin");
    await page.getByLabel("Password").fill(password);
    let requests = 0;
    let release = (): void => undefined;
    const released = new Promise<void>((resolve) => {
      release = resolve;
    });
    await page.route("**/admin/api/login", async (route) => {
      requests++;
      await released;
      await route.abort();
    });
    await signIn(page).click();
    await page.keyboard.press("Enter");
    release();
    await expect.poll(() => fault(page).textContent()).toMatch(/^The server does not answer\. /);
    expect(requests).toBe(1);
    await page.context().close();
  });

  it("can be filled in by a password manager, and tells nobody where it comes from", async () => {
    const { page } = await open(asked());
    const fields = await page
      .locator("input")
      .evaluateAll((inputs) => inputs.map((input) => input.getAttribute("autocomplete")));
    expect(fields).toEqual(["username", "current-password"]);
    // A form whose script did not load must not put the password into the address.
    const form = page.locator("#sign-in");
    expect([await form.getAttribute("method"), await form.getAttribute("action")]).toEqual([
      "post",
      "/admin/api/login",
    ]);
    await page.context().close();
  });

  const pages: [string, () => Promise<Page>][] = [
    ["sign-in", async () => (await open(asked())).page],
    [
      "sign-in-wrong",
      async () => {
        const { page } = await open(asked());
        await page.getByLabel("User name").fill("admin");
        await page.getByLabel("Password").fill("wrong");
        await page.keyboard.press("Enter");
        await fault(page).getByText("Wrong").waitFor();
        return page;
      },
    ],
    ["sign-in-provider", async () => (await open(`${servers.oidc.url}/admin`)).page],
    [
      "sign-in-provider-down",
      async () => {
        const { page } = await open(`${servers.oidc.url}/admin`);
        await page.getByRole("link", { name: "Sign in with Example Inc." }).click();
        await page.getByRole("link", { name: "Try again" }).waitFor();
        return page;
      },
    ],
    [
      "sign-in-over",
      async () => (await open(`${servers.oidc.url}/admin/login/callback?state=x`)).page,
    ],
    ["console-closed", async () => (await open(`${servers.none.url}/admin`)).page],
  ];

  it.each(pages)("%s is readable to everybody, on laptops and phones", async (name, show) => {
    const page = await show();
    for (const colorScheme of ["light", "dark"] as const) {
      await page.emulateMedia({ colorScheme });
      for (const width of [1280, 390]) {
        await page.setViewportSize({ width, height: 800 });
        const scrolled = await page.evaluate("document.documentElement.scrollWidth");
        expect(scrolled).toBeLessThanOrEqual(width);
        await page.screenshot({ path: `${screenshots}${name}-${colorScheme}-${width}.png` });
        expect(await violations(page)).toEqual([]);
      }
    }
    await page.context().close();
  });
});

/** What keeps people from using the page. */
async function violations(page: Page): Promise<string[]> {
  await page.evaluate(axe.source);
  const { violations: found } = (await page.evaluate("axe.run()")) as axe.AxeResults;
  return found.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join()}`);
}
