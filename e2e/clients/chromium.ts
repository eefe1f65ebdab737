import { accessSync, constants } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import {
  type Browser,
  type BrowserContext,
  type BrowserContextOptions,
  chromium,
  type Page,
} from "playwright-core";
import { cometdAgent, fayeAgent, pandapushAgent } from "./agents.js";
import { type ClientKind, type Command, type Link, type Report, StockClient } from "./client.js";
import { PageServer } from "./page-server.js";

const require = createRequire(import.meta.url);
/** The bundle that npm `pandapush-client` 1.0.0 publishes for browsers. */
export const pandapushClientScript = path.join(
  path.dirname(require.resolve("pandapush-client-1.0.0/package.json")),
  "dist/client.js",
);

/** The script that our server hands out at `/client.js`, for pages of any server. */
export const pandapushScript = require.resolve("pandapush-client/pandapush.min.js");

/** What the driver puts into a page. */
interface PageGlobals {
  operate(command: Command): void;
}

/** Where a page comes from: the server itself, or a site on another port. */
export type Origin = "same" | "other";

/** One Chromium and one foreign site, in which the browser clients of a test file live. */
export class Chromium {
  readonly #browser: Browser;
  readonly #site: PageServer;

  /** Starts the Chromium that `CHROMIUM_PATH` names or the PATH has. */
  static async launch(): Promise<Chromium> {
    const browser = await chromium.launch({
      executablePath: executable(),
      args: [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
      ],
    });
    return new Chromium(browser, await PageServer.start());
  }

  private constructor(browser: Browser, site: PageServer) {
    this.#browser = browser;
    this.#site = site;
  }

  /**
   * Opens a page of that origin. Each page has a context of its own, because Chromium allows only
   * six connections to a host in one.
   */
  async page(url: string, origin: Origin, hidden: readonly string[] = []): Promise<Page> {
    const context = await this.#browser.newContext();
    const page = await context.newPage();
    if (hidden.length > 0) {
      await page.addInitScript((names: readonly string[]) => {
        for (const name of names) Reflect.deleteProperty(globalThis, name);
      }, hidden);
    }
    await page.goto(origin === "same" ? `${url}/health_check.json` : this.#site.url);
    return page;
  }

  /** A browser window of its own, with its own cookies. */
  window(options: BrowserContextOptions = {}): Promise<BrowserContext> {
    return this.#browser.newContext(options);
  }

  async close(): Promise<void> {
    await this.#browser.close();
    await this.#site.close();
  }
}

function executable(): string {
  const named = process.env.CHROMIUM_PATH;
  if (named !== undefined) return named;
  for (const directory of (process.env.PATH ?? "").split(path.delimiter)) {
    for (const name of ["chromium", "chromium-browser", "google-chrome"]) {
      const candidate = path.join(directory, name);
      if (isExecutable(candidate)) return candidate;
    }
  }
  throw new Error("no Chromium on the PATH: install it or name it in CHROMIUM_PATH");
}

function isExecutable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch (error) {
    // Not being there or not being executable is the answer; anything else is not expected.
    if (error instanceof Error && "code" in error) return false;
    throw error;
  }
}

/** Sets an agent up in a page; `script` is an expression that gives the agent's function. */
async function link(
  page: Page,
  report: (report: Report) => void,
  script: string,
): Promise<Link & { readonly page: Page }> {
  await page.exposeFunction("report", report);
  await page.evaluate(`(async () => { globalThis.operate = await (${script}) })()`);
  return {
    page,
    send: (command) =>
      page.evaluate(
        (sent) => (globalThis as unknown as PageGlobals).operate(sent as Command),
        command as unknown,
      ),
    close: () => page.context().close(),
  };
}

/** The browser build of Faye that the server itself hands out at `/push/client.js`. */
export function fayeInChromium(
  browser: () => Chromium,
  origin: Origin,
  transport: string,
  disabled: readonly string[],
): ClientKind {
  return {
    name: `/push/client.js on a page of ${origin === "same" ? "the same" : "another"} origin`,
    transport,
    publishes: true,
    maxPublishLength: transport === "callback-polling" ? 3_000 : 100_000,
    oneAtATime: false,
    open: (url) =>
      StockClient.open(async (report) => {
        const page = await browser().page(url, origin);
        await page.addScriptTag({ url: `${url}/push/client.js` });
        return link(
          page,
          report,
          `(() => {
            const client = new Faye.Client(${JSON.stringify(`${url}/push`)}, { retry: 1 });
            for (const type of ${JSON.stringify(disabled)}) client.disable(type);
            return (${fayeAgent})(client, globalThis.report);
          })()`,
        );
      }),
  };
}

/** Our own client, the script of `/client.js`, driven as a Faye client. */
export function pandapush2InChromium(
  browser: () => Chromium,
  origin: Origin,
  transport: string,
  disabled: readonly string[],
): ClientKind {
  return {
    name: `/client.js on a page of ${origin === "same" ? "the same" : "another"} origin`,
    transport,
    publishes: true,
    maxPublishLength: 100_000,
    oneAtATime: false,
    open: (url) =>
      StockClient.open(async (report) => {
        const page = await browser().page(url, origin);
        await page.addScriptTag({ path: pandapushScript });
        return link(
          page,
          report,
          `(() => {
            const client = new Pandapush.Client(${JSON.stringify(`${url}/push`)});
            for (const type of ${JSON.stringify(disabled)}) client.disable(type);
            return (${fayeAgent})(client, globalThis.report);
          })()`,
        );
      }),
  };
}

/**
 * npm `pandapush-client`, whose API can neither choose a transport nor disconnect: browser
 * features are hidden from it, and it disconnects by leaving the page.
 */
export function pandapushInChromium(
  browser: () => Chromium,
  origin: Origin,
  transport: string,
  hidden: readonly string[],
): ClientKind {
  return {
    name: `pandapush-client 1.0.0 on a page of ${origin === "same" ? "the same" : "another"} origin`,
    transport,
    publishes: false,
    maxPublishLength: 0,
    oneAtATime: true,
    open: (url) =>
      StockClient.open(async (report) => {
        const page = await browser().page(url, origin, hidden);
        await page.addScriptTag({ path: pandapushClientScript });
        const agent = await link(
          page,
          report,
          `(${pandapushAgent})(new Pandapush.Client(${JSON.stringify(`${url}/push`)}), globalThis.report)`,
        );
        return {
          close: agent.close,
          send: async (command) => {
            if (command.name !== "disconnect") return agent.send(command);
            await page.goto("about:blank");
            report({ kind: "answer", call: command.call });
          },
        };
      }),
  };
}

/** CometD's JavaScript client on a page of another origin, as an application would load it. */
export function cometdInChromium(
  browser: () => Chromium,
  transport: "websocket" | "long-polling" | "callback-polling",
): ClientKind {
  return {
    name: "cometd 9 on a page of another origin",
    transport,
    publishes: true,
    maxPublishLength: transport === "callback-polling" ? 500 : 7_000,
    oneAtATime: false,
    open: (url) =>
      StockClient.open(async (report) => {
        const page = await browser().page(url, "other");
        return link(
          page,
          report,
          `(async () => {
            const { CometD } = await import("/cometd/cometd.js");
            const client = new CometD();
            for (const type of client.getTransportTypes()) {
              if (type !== ${JSON.stringify(transport)}) client.unregisterTransport(type);
            }
            client.configure({ url: ${JSON.stringify(`${url}/push`)}, logLevel: "warn" });
            return (${cometdAgent})(client, globalThis.report);
          })()`,
        );
      }),
  };
}
