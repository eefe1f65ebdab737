/** Logging in to the console at an OpenID provider, with a real one. */

import { once } from "node:events";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import net from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from "vitest";
import { Chromium } from "./clients/chromium.js";
import { type Deployment, isForeign, startServer } from "./deployment.js";
import { HttpBrowser, linkOf, type Visit } from "./http-browser.js";
import { TestProvider } from "./oidc-provider.js";

const users = {
  ann: { email: "Ann@Example.com", email_verified: true, preferred_username: "ann@example.com" },
  ben: { email: "ben@example.com", email_verified: true, preferred_username: "ben@example.com" },
  root: { email: "root@example.com", email_verified: true },
  admin: { email: "admin@example.com", email_verified: true },
  eve: { email: "eve@example.org", email_verified: true },
  guest: { email: "guest@example.org", email_verified: true },
  // The first letter is the sign of the Kelvin.
  kelvin: { email: "\u212Aate@example.com", email_verified: true },
  liar: { email: "root@example.com", email_verified: false },
  nobody: {},
};

/** Anything that is to end with its test. */
const ends: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  vi.useRealTimers();
  for (const end of ends.splice(0).reverse()) await end();
});

async function freePort(): Promise<number> {
  const server = net.createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as net.AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}

interface Site {
  readonly provider: TestProvider;
  readonly server: Deployment;
  readonly logPath: string;
  readonly environment: Record<string, string>;
  /** A page of the console. */
  page(path?: string): string;
  close(): Promise<void>;
}

interface SiteOptions {
  readonly environment?: (urls: { own: string; provider: string }) => Record<string, string>;
  readonly callback?: string;
  readonly hasLogout?: boolean;
  readonly clientAuthentication?: "client_secret_basic" | "client_secret_post";
  /** Whether the provider answers when the server starts. */
  readonly isUp?: boolean;
}

/** A provider and a server that takes its users. */
async function startSite(options: SiteOptions = {}): Promise<Site> {
  const port = await freePort();
  const own = `http://127.0.0.1:${port}`;
  const callback = options.callback ?? `${own}/admin/login/callback`;
  const directory = await mkdtemp(path.join(tmpdir(), "pandapush-oidc-"));
  const logPath = path.join(directory, "log");
  const provider = await TestProvider.create({
    users,
    redirectUris: [callback],
    afterLogoutUris: [`${own}/`],
    hasLogout: options.hasLogout ?? true,
    clientAuthentication: options.clientAuthentication ?? "client_secret_basic",
  });
  if (options.isUp !== false) await provider.up();
  const environment = {
    AUTH_METHOD: "oidc",
    OIDC_ISSUER: provider.url,
    OIDC_CLIENT_ID: provider.clientId,
    OIDC_CLIENT_SECRET: provider.clientSecret,
    OIDC_REDIRECT_URI: callback,
    OIDC_ALLOWED_USERS: "example.com, guest@example.org",
    OIDC_STRIP_DOMAIN: "example.com",
    OIDC_NAME: "Example & Sons",
    ROOT_ADMINS: "root",
    TRUST_PROXY: "loopback",
    LOG_PATH: logPath,
    LOG_LEVEL: "trace",
    ...options.environment?.({ own, provider: provider.url }),
  };
  const server = await startServer({ port, environment });
  return {
    provider,
    server,
    logPath,
    environment,
    page: (rest = "") => `${server.url}/admin${rest}`,
    async close() {
      await Promise.all([provider.down(), server.stop()]);
      await rm(directory, { recursive: true, force: true });
    },
  };
}

async function startOwnSite(options: SiteOptions = {}): Promise<Site> {
  const site = await startSite(options);
  ends.push(() => site.close());
  return site;
}

/** Begins where a person does, and stops at the provider's form. */
async function begin(browser: HttpBrowser, page: string, button = signIn): Promise<Visit> {
  return browser.click(await browser.open(page), button);
}

const signIn = "Sign in with Example &amp; Sons";

async function logIn(browser: HttpBrowser, page: string, login: string): Promise<Visit> {
  return browser.submit(await begin(browser, page), { login });
}

interface Info {
  readonly username: string;
}

async function nameOf(browser: HttpBrowser, site: Site): Promise<string | number> {
  const { status, text } = await browser.open(site.page("/api/info"));
  return status === 200 ? (JSON.parse(text) as Info).username : status;
}

const isCallback = (url: string): boolean => new URL(url).searchParams.has("code");

/** By the address of Pandapush 2.2, and the button of the page there. */
async function logOut(browser: HttpBrowser, server: string): Promise<Visit> {
  return browser.submit(await browser.open(`${server}/logout`), {});
}

/** Logs in at the provider, and gives the URL that it sends the browser back to. */
async function obtainCallback(browser: HttpBrowser, site: Site, login = "ann"): Promise<string> {
  const form = await begin(browser, site.page());
  const last = await browser.submit(form, { login }, isCallback);
  return new URL(last.headers.get("location") ?? "", last.url).href;
}

describe.skipIf(isForeign)("AUTH_METHOD=oidc", () => {
  let site: Site;
  const browsers: HttpBrowser[] = [];
  const newBrowser = (): HttpBrowser => {
    const browser = new HttpBrowser();
    browsers.push(browser);
    return browser;
  };
  beforeAll(async () => {
    site = await startSite();
  });
  afterAll(() => site?.close());

  it("shows a page that leads to the provider, and lets nobody in without a login", async () => {
    const browser = newBrowser();
    const page = await browser.open(site.page("/applications/x?tab=keys"));
    expect(page.status).toBe(401);
    expect(page.headers.get("www-authenticate")).toBeNull();
    expect(linkOf(page, signIn)).toBe(
      "/admin/login/oidc?return=%2Fadmin%2Fapplications%2Fx%3Ftab%3Dkeys",
    );
    const api = await browser.open(site.page("/api/applications"));
    expect([
      api.status,
      api.headers.get("content-type"),
      api.headers.get("www-authenticate"),
    ]).toEqual([401, "application/json; charset=utf-8", null]);
  });

  it("logs in and returns to the page that was asked for", async () => {
    const browser = newBrowser();
    const asked = site.page("/applications/x?tab=keys&q=a%2Fb");
    const page = await logIn(browser, asked, "ann");
    expect(page.url).toBe(asked);
    expect(page.status).not.toBe(401);
    // In lower case, and without its domain.
    expect(await nameOf(browser, site)).toBe("ann");
  });

  it("asks the provider as it should, and keeps its own cookies to itself", async () => {
    const browser = newBrowser();
    const form = await begin(browser, site.page("/x"));
    const asked = browser.visits.find(({ url }) => url.includes("/auth?"))?.url ?? "";
    expect(Object.fromEntries(new URL(asked).searchParams)).toEqual({
      client_id: site.provider.clientId,
      redirect_uri: `${site.server.url}/admin/login/callback`,
      response_type: "code",
      scope: "openid profile email",
      state: expect.stringMatching(/^[\w-]{22}$/),
      nonce: expect.stringMatching(/^[\w-]{43}$/),
      code_challenge: expect.stringMatching(/^[\w-]{43}$/),
      code_challenge_method: "S256",
    });
    await browser.submit(form, { login: "ann" });
    const set = browser.visits.flatMap(({ url, headers }) =>
      url.startsWith(site.server.url) ? headers.getSetCookie() : [],
    );
    const flags = "HttpOnly; SameSite=Lax";
    expect(set).toEqual([
      expect.stringMatching(
        `^pandapush_login_[\\w-]{22}=[\\w-]+\\.[\\w-]+; Path=/admin/login/callback; Max-Age=600; ${flags}$`,
      ),
      expect.stringMatching(
        `^pandapush_login_[\\w-]{22}=; Path=/admin/login/callback; Max-Age=0; ${flags}$`,
      ),
      expect.stringMatching(
        `^pandapush_session=[\\w-]+\\.[\\w-]+; Path=/admin; Max-Age=43200; ${flags}$`,
      ),
      expect.stringMatching(
        `^pandapush_id_token=[\\w.-]+; Path=/admin/logout; Max-Age=43200; ${flags}$`,
      ),
    ]);
  });

  it.each([
    "https://evil.example/",
    "//evil.example/admin",
    "/\\evil.example/admin",
    "/admin/../../evil",
    "/admin\t/../..//evil.example",
    "javascript:alert(1)",
    "/adminevil",
    "/admin/api/info",
    "/admin/logout",
    "/admin/login/oidc?return=/admin",
    `/admin/${"x".repeat(3000)}`,
  ])("returns to the console's first page, not to %j", async (bad) => {
    const browser = newBrowser();
    const url = site.page(`/login/oidc?${new URLSearchParams({ return: bad })}`);
    const page = await browser.submit(await browser.open(url), { login: "ann" });
    expect(page.url).toBe(site.page());
  });

  it("takes several logins of one browser at once, in any order", async () => {
    const browser = newBrowser();
    const first = await begin(browser, site.page("/first"));
    const second = await begin(browser, site.page("/second"));
    expect((await browser.submit(second, { login: "ann" })).url).toBe(site.page("/second"));
    expect((await browser.submit(first, { login: "ben" })).url).toBe(site.page("/first"));
    expect(await nameOf(browser, site)).toBe("ben");
  });

  it("refuses a callback of another browser, with another state or with none", async () => {
    const victim = newBrowser();
    const attacker = newBrowser();
    const callback = await obtainCallback(attacker, site, "ben");
    const own = await begin(victim, site.page()).then(
      () => victim.visits.findLast(({ url }) => url.includes("/auth?"))?.url ?? "",
    );
    const wrong = new URL(callback);
    wrong.searchParams.set("state", new URL(own).searchParams.get("state") ?? "");
    const stateless = new URL(callback);
    stateless.searchParams.delete("state");
    for (const url of [callback, wrong.href, stateless.href]) {
      const page = await victim.open(url);
      expect([page.status, page.text]).toEqual([400, expect.stringContaining("sign-in is over")]);
      expect(await nameOf(victim, site)).toBe(401);
    }
  });

  it("refuses a callback that was used, and leads on", async () => {
    const browser = newBrowser();
    const callback = await obtainCallback(browser, site);
    expect((await browser.open(callback)).url).toBe(site.page());
    const replayed = await browser.open(callback);
    expect(replayed.status).toBe(400);
    expect(replayed.headers.getSetCookie()).toEqual([]);
    // The provider still knows who it is.
    expect((await browser.click(replayed, "Sign in again")).url).toBe(site.page());
  });

  it("refuses a code that the provider does not know", async () => {
    const browser = newBrowser();
    const callback = new URL(await obtainCallback(browser, site));
    callback.searchParams.set("code", "made-up");
    const page = await browser.open(callback.href);
    expect([page.status, page.text]).toEqual([400, expect.stringContaining("sign-in is over")]);
    expect(await nameOf(browser, site)).toBe(401);
  });

  it("shows what the provider says to somebody whom it denies, who can try again", async () => {
    const browser = newBrowser();
    const form = await begin(browser, site.page("/x"));
    const denied = await browser.click(form, "Cancel");
    expect(denied.status).toBe(403);
    expect(denied.text).toContain("Example &amp; Sons says: &lt;b&gt;Not&lt;/b&gt; your day");
    const again = await browser.click(denied, "Sign in again");
    expect((await browser.submit(again, { login: "ann" })).url).toBe(site.page("/x"));
  });

  it("shows nothing of what somebody else may have put into the address", async () => {
    const page = await newBrowser().open(
      site.page("/login/callback?error=access_denied&error_description=call-0900&state=x"),
    );
    expect(page.status).toBe(400);
    expect(page.text).not.toContain("0900");
  });

  it.each([
    ["eve", "eve@example.org is not among those who may sign in here."],
    ["liar", "does not say that you have a verified e-mail address."],
    ["nobody", "does not say that you have a verified e-mail address."],
  ])("does not let in %s", async (login, reason) => {
    const browser = newBrowser();
    const page = await logIn(browser, site.page(), login);
    expect([page.status, page.text]).toEqual([403, expect.stringContaining(reason)]);
    expect(await nameOf(browser, site)).toBe(401);
    // At the provider it is still them: it is asked to let somebody else log in.
    const form = await browser.click(page, "Sign in again");
    await browser.submit(form, { login: "ann" });
    expect(await nameOf(browser, site)).toBe("ann");
  });

  it("keeps apart who only looks alike", async () => {
    const browser = newBrowser();
    await logIn(browser, site.page(), "kelvin");
    expect(await nameOf(browser, site)).toBe("\u212Aate");
  });

  it("lets in a user who is named by address, under that name", async () => {
    const browser = newBrowser();
    await logIn(browser, site.page(), "guest");
    expect(await nameOf(browser, site)).toBe("guest@example.org");
  });

  it("shows to each what they administer, and to those of ROOT_ADMINS all", async () => {
    const [ann, ben, root, admin] = [newBrowser(), newBrowser(), newBrowser(), newBrowser()];
    await logIn(ann, site.page(), "ann");
    await logIn(ben, site.page(), "ben");
    await logIn(root, site.page(), "root");
    // Called as ADMIN_USERNAME is by default.
    await logIn(admin, site.page(), "admin");
    const created = await ann.open(site.page("/api/applications"), {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: `{"name":"Ann's"}`,
    });
    expect(created.status).toBe(201);
    const namesOf = async (browser: HttpBrowser): Promise<string[]> => {
      const { text } = await browser.open(site.page("/api/applications"));
      return (JSON.parse(text) as { name: string }[]).map(({ name }) => name);
    };
    expect(await namesOf(ann)).toEqual(["Ann's"]);
    expect(await namesOf(ben)).toEqual([]);
    // What was made by that one is theirs, and no more.
    expect(await namesOf(admin)).toEqual(["dev"]);
    expect((await namesOf(root)).sort()).toEqual(["Ann's", "dev"]);
  });

  it("logs out here and at the provider", async () => {
    const browser = newBrowser();
    await logIn(browser, site.page(), "ann");
    const confirm = await logOut(browser, site.server.url);
    expect(confirm.url).toMatch(`${site.provider.url}/session/end?id_token_hint=`);
    expect(await nameOf(browser, site)).toBe(401);
    const left = browser.cookies(site.page("/logout")).map(({ name }) => name);
    expect(left.filter((name) => name.startsWith("pandapush"))).toEqual([]);
    const done = await browser.submit(confirm, { logout: "yes" });
    expect(done.text).toContain("Logged out");
    const form = await begin(browser, site.page());
    expect(form.url).toContain(`${site.provider.url}/interaction/`);
  });

  it("ends no session, and begins none, for another site", async () => {
    const browser = newBrowser();
    await logIn(browser, site.page(), "ann");
    const fromElsewhere = { headers: { "sec-fetch-site": "cross-site" } };
    for (const url of [site.page("/logout"), site.page("/api/logout")]) {
      const refused = await browser.send(url, { ...fromElsewhere, method: "POST" });
      expect(refused.status).toBe(403);
    }
    await browser.open(`${site.server.url}/logout`, fromElsewhere);
    expect(await nameOf(browser, site)).toBe("ann");
    const begun = await browser.send(site.page("/login/oidc?return=/admin/x"), fromElsewhere);
    expect([begun.status, begun.headers.get("location")]).toEqual([302, "/admin/x"]);
    expect(begun.headers.getSetCookie()).toEqual([]);
  });

  it("knows no passwords", async () => {
    const browser = newBrowser();
    const login = await browser.open(site.page("/api/login"), {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ username: "ann", password: "" }),
    });
    expect([login.status, login.text]).toEqual([401, expect.stringContaining("no passwords here")]);
    const authorization = `Basic ${Buffer.from("root:").toString("base64")}`;
    for (const url of [site.page(), site.page("/api/info")]) {
      const { status, headers } = await browser.open(url, { headers: { authorization } });
      expect([status, headers.get("www-authenticate")]).toEqual([401, null]);
    }
    // Those that a proxy asks for come with each request, and are nobody's failure.
    for (let n = 0; n < 12; n++) await browser.send(site.page(), { headers: { authorization } });
    expect((await begin(browser, site.page())).status).toBe(200);
  });

  it("refuses more logins after ten that failed", async () => {
    const browser = newBrowser();
    const strangers = newBrowser();
    for (let n = 0; n < 12; n++) {
      // What did not begin in this browser is nobody's failure: any page has such pictures.
      expect((await browser.open(site.page("/login/callback?state=x"))).status).toBe(400);
    }
    for (let n = 0; n < 10; n++) {
      const begun = await browser.send(site.page("/login/oidc"));
      const state = new URL(begun.headers.get("location") ?? "").searchParams.get("state") ?? "";
      const denied = new URLSearchParams({
        state,
        error: "access_denied",
        iss: site.provider.url,
      });
      expect((await browser.open(site.page(`/login/callback?${denied}`))).status).toBe(403);
    }
    const refused = await browser.open(site.page("/login/oidc"));
    expect(refused.status).toBe(429);
    expect(Number(refused.headers.get("retry-after"))).toBeGreaterThan(60);
    expect((await strangers.open(site.page("/login/oidc"))).status).toBe(200);
    expect(refused.text).toContain("Too many failed logins");
    expect((await newBrowser().open(site.page("/login/oidc"))).status).toBe(200);
  });

  it("logs in in a browser, by its sign-in page, and out again", async () => {
    const chromium = await Chromium.launch();
    ends.push(() => chromium.close());
    const page = await chromium.page(site.server.url, "same");
    const faults: string[] = [];
    page.on("pageerror", (error) => faults.push(error.message));
    page.on("console", (message) => {
      if (/Content Security Policy/.test(message.text())) faults.push(message.text());
    });
    await page.goto(site.page("/somewhere?q=1"));
    await page.getByRole("link", { name: "Sign in with Example & Sons" }).press("Enter");
    await page.getByLabel("User").fill("ann");
    await page.getByRole("button", { name: "Log in" }).click();
    await page.waitForURL(site.page("/somewhere?q=1"));
    const info = await page.request.get(site.page("/api/info"));
    expect(await info.json()).toMatchObject({ username: "ann" });
    const session = (await page.context().cookies(site.page())).find(
      ({ name }) => name === "pandapush_session",
    );
    expect(session).toMatchObject({ httpOnly: true, sameSite: "Lax", path: "/admin" });
    await page.goto(`${site.server.url}/logout`);
    await page.getByRole("button", { name: "Sign out" }).click();
    await page.getByRole("button", { name: "Log out" }).click();
    await page.getByRole("heading", { name: "Logged out" }).waitFor();
    await page.goto(site.page("/somewhere"));
    await page.getByRole("heading", { name: "Sign in" }).waitFor();
    expect(faults).toEqual([]);
  });

  it("has put no secret into any answer or its log", async () => {
    const seen = browsers.flatMap(({ visits }) =>
      visits.filter(({ url }) => url.startsWith(site.server.url)),
    );
    const codes = seen.flatMap(({ url }) => new URL(url).searchParams.get("code") ?? []);
    expect([seen.length, codes.length].map((count) => count > 10)).toEqual([true, true]);
    const answers = seen.map(({ headers, text }) => JSON.stringify([...headers, text])).join();
    const log = await readFile(site.logPath, "utf8");
    for (const secret of [site.provider.clientSecret, ...codes]) {
      expect(answers).not.toContain(secret);
      expect(log).not.toContain(secret);
    }
    expect(log).not.toContain("@example");
    expect(log).toContain("admin login failed");
  });
});

describe.skipIf(isForeign)("AUTH_METHOD=okta", () => {
  const oktaOf = ({ provider, callback }: { provider: TestProvider; callback: string }) => ({
    AUTH_METHOD: "okta",
    OKTA_ISSUER: `${provider.url}/`,
    OKTA_CLIENT_ID: provider.clientId,
    OKTA_CLIENT_SECRET: provider.clientSecret,
    OKTA_REDIRECT_URI: callback,
  });

  it("takes users by their Okta name, comes back to any path, and logs out", async () => {
    const port = await freePort();
    const callback = `http://127.0.0.1:${port}/authorization-code/callback`;
    const provider = await TestProvider.start({
      users,
      redirectUris: [callback],
      hasLogout: false,
    });
    ends.push(() => provider.down());
    const environment = {
      ...oktaOf({ provider, callback }),
      OKTA_STRIP_DOMAIN: "@example.com",
      ADMIN_USERNAME: "ben",
    };
    const server = await startServer({ port, environment });
    ends.push(() => server.stop());
    const browser = new HttpBrowser();
    const form = await begin(browser, `${server.url}/admin/x`, "Sign in with Okta");
    expect((await browser.submit(form, { login: "ben" })).url).toBe(`${server.url}/admin/x`);
    const info = await browser.open(`${server.url}/admin/api/info`);
    expect(JSON.parse(info.text)).toMatchObject({ username: "ben" });
    const all = await browser.open(`${server.url}/admin/api/applications`);
    expect(JSON.parse(all.text)).toMatchObject([{ name: "dev" }]);
    // This one announces no logout.
    expect((await logOut(browser, server.url)).url).toBe(`${server.url}/admin`);
    expect((await browser.open(`${server.url}/admin/api/info`)).status).toBe(401);
  });

  it("does not let in somebody without a name", async () => {
    const port = await freePort();
    const callback = `http://127.0.0.1:${port}/admin/login/callback`;
    const provider = await TestProvider.start({ users, redirectUris: [callback] });
    ends.push(() => provider.down());
    const server = await startServer({ port, environment: oktaOf({ provider, callback }) });
    ends.push(() => server.stop());
    const browser = new HttpBrowser();
    const form = await begin(browser, `${server.url}/admin`, "Sign in with Okta");
    const page = await browser.submit(form, { login: "eve" });
    expect([page.status, page.text]).toEqual([403, expect.stringContaining("preferred_username")]);
  });
});

describe.skipIf(isForeign)("a server that takes a provider's users", () => {
  describe("a provider that does not answer", () => {
    it("keeps nobody from starting, and lets people in when it is back", async () => {
      const site = await startOwnSite({ isUp: false });
      const browser = new HttpBrowser();
      const down = await begin(browser, site.page("/x"));
      expect([down.status, down.headers.get("retry-after")]).toEqual([503, "5"]);
      expect(down.text).toContain("Example &amp; Sons cannot be reached");
      expect(await readFile(site.logPath, "utf8")).toContain("ECONNREFUSED");
      await site.provider.up();
      const form = await browser.click(down, "Try again");
      expect((await browser.submit(form, { login: "ann" })).url).toBe(site.page("/x"));

      await site.provider.down();
      // Sessions need no provider.
      expect(await nameOf(browser, site)).toBe("ann");
      const left = await browser.send(site.page("/logout"), { method: "POST" });
      expect(left.headers.get("refresh")).toContain(`${site.provider.url}/session/end`);
      expect(left.text).toContain("Sign out at Example &amp; Sons");
      expect(await nameOf(browser, site)).toBe(401);
    });

    it("and goes away in the middle of a login, does not use it up", async () => {
      const site = await startOwnSite();
      const browser = new HttpBrowser();
      const callback = await obtainCallback(browser, site);
      await site.provider.down();
      const page = await browser.open(callback);
      expect(page.status).toBe(503);
      await site.provider.up();
      expect((await browser.click(page, "Try again")).url).toBe(site.page());
      expect(await nameOf(browser, site)).toBe("ann");
    });

    it("holds nobody for long", async () => {
      const silent = net.createServer(() => undefined).listen(0, "127.0.0.1");
      await once(silent, "listening");
      const { port } = silent.address() as net.AddressInfo;
      ends.push(async () => silent.close());
      const site = await startOwnSite({
        environment: () => ({ OIDC_ISSUER: `http://127.0.0.1:${port}` }),
      });
      const browser = new HttpBrowser();
      const pages = await Promise.all([begin(browser, site.page()), begin(browser, site.page())]);
      expect(pages.map(({ status }) => status)).toEqual([503, 503]);
    });
  });

  describe("a provider that does not fit the configuration is named to people and operators", () => {
    it.each([
      ["a wrong secret", () => ({ OIDC_CLIENT_SECRET: "not-the-one" }), "SECRET is wrong", "401"],
      [
        "no provider",
        (provider: string) => ({ OIDC_ISSUER: `${provider}/nowhere` }),
        "answers at OIDC_ISSUER",
        "404",
      ],
      [
        "an issuer that calls itself otherwise",
        (provider: string) => ({ OIDC_ISSUER: provider.replace("localhost", "127.0.0.1") }),
        "answers at OIDC_ISSUER",
        "it calls itself http://localhost",
      ],
    ])("%s", async (_, change, text, reason) => {
      const site = await startOwnSite({ environment: ({ provider }) => change(provider) });
      const browser = new HttpBrowser();
      let page = await begin(browser, site.page());
      if (page.status === 200) page = await browser.submit(page, { login: "ann" });
      expect([page.status, page.text]).toEqual([502, expect.stringContaining(text)]);
      const readLog = () => readFile(site.logPath, "utf8");
      await expect.poll(readLog).toContain(reason);
      expect((await readLog()) + page.text).not.toContain("not-the-one");
    });

    it("clocks that differ", async () => {
      const site = await startOwnSite();
      vi.useFakeTimers({ toFake: ["Date"], now: Date.now() - 2 * 3_600_000 });
      const page = await logIn(new HttpBrowser(), site.page(), "ann");
      expect([page.status, page.text]).toEqual([
        502,
        expect.stringContaining("differ by more than"),
      ]);
    });
  });

  it("a provider that wants the secret in the body gets it, and may send people back", async () => {
    const site = await startOwnSite({
      clientAuthentication: "client_secret_post",
      environment: ({ own }) => ({ OIDC_AFTER_LOGOUT_URI: `${own}/` }),
    });
    const browser = new HttpBrowser();
    await logIn(browser, site.page(), "ann");
    expect(await nameOf(browser, site)).toBe("ann");
    const confirm = await logOut(browser, site.server.url);
    expect((await browser.submit(confirm, { logout: "yes" })).url).toBe(`${site.server.url}/`);
  });

  it("a session ends after ADMIN_SESSION_MS, and the provider's begins another", async () => {
    const site = await startOwnSite({ environment: () => ({ ADMIN_SESSION_MS: "1000" }) });
    const browser = new HttpBrowser();
    await logIn(browser, site.page("/x"), "ann");
    await expect.poll(() => nameOf(browser, site), { timeout: 10_000 }).toBe(401);
    const page = await begin(browser, site.page("/y"));
    expect(page.url).toBe(site.page("/y"));
  });

  it("sessions count at all nodes, and no more when it is decided anew who may log in", async () => {
    const SESSION_PRIVATE_KEY = "0123456789abcdef";
    const site = await startOwnSite({ environment: () => ({ SESSION_PRIVATE_KEY }) });
    const browser = new HttpBrowser();
    await logIn(browser, site.page(), "ann");
    const statusAt = async (environment: Record<string, string>): Promise<number> => {
      const server = await startServer({ environment: { ...site.environment, ...environment } });
      ends.push(() => server.stop());
      return (await browser.open(`${server.url}/admin/api/info`)).status;
    };
    expect(await statusAt({})).toBe(200);
    expect(await statusAt({ OIDC_ALLOWED_USERS: "ben@example.com" })).toBe(401);
  });

  it("behind a proxy that does TLS, cookies travel by TLS only", async () => {
    const origin = "https://push.example.com";
    const site = await startOwnSite({ callback: `${origin}/admin/login/callback` });
    const browser = new HttpBrowser({ [origin]: site.server.url });
    const page = await logIn(browser, `${origin}/admin/x`, "ann");
    expect(page.url).toBe(`${origin}/admin/x`);
    const cookies = browser.visits
      .filter(({ url }) => url.startsWith(origin))
      .flatMap(({ headers }) => headers.getSetCookie());
    expect(cookies).toHaveLength(4);
    for (const cookie of cookies) expect(cookie).toMatch(/; HttpOnly; SameSite=Lax; Secure$/);
  });
});
