/** A server with a console, Chromium, and somebody who is signed in: for the tests of a file. */
import { Client } from "pandapush-client";
import type { BrowserContext, BrowserContextOptions, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, expect } from "vitest";
import { Chromium } from "./clients/chromium.js";
import { type Deployment, startServer } from "./deployment.js";
import { promptMs } from "./waiting.js";

export const user = { name: "ann@school.example", password: "bamboo for breakfast" };

/** What the console's own server is told, and who may sign in there. */
export const environment = {
  AUTH_METHOD: "basic",
  ADMIN_USERNAME: user.name,
  ADMIN_PASSWORD: user.password,
};

export interface ConsoleWorld {
  readonly deployment: Deployment;
  readonly chromium: Chromium;
  /** The console's address. */
  readonly admin: string;
  /**
   * A page that is signed in.
   * @param origin another way to the same server, such as a proxy
   */
  open(path?: string, options?: BrowserContextOptions, origin?: string): Promise<Page>;
  stranger(options?: BrowserContextOptions): Promise<Page>;
  /** Calls the admin API as the console does. */
  api<T>(method: "GET" | "POST", path: string, body?: object): Promise<T>;
  newApplication(name: string): Promise<{ id: string }>;
  newKey(appId: string, purpose: string): Promise<{ id: string; secret: string }>;
  /** A client of the test's own application, in this process. */
  newClient(): Client;
}

/** Begins and ends with the tests of the file that calls it; windows and clients with each test. */
export function consoleWorld(more: NodeJS.ProcessEnv = {}): ConsoleWorld {
  let deployment: Deployment;
  let chromium: Chromium;
  const windows: BrowserContext[] = [];
  const clients: Client[] = [];

  beforeAll(async () => {
    [deployment, chromium] = await Promise.all([
      startServer({ environment: { ...environment, ...more } }),
      Chromium.launch(),
    ]);
  });
  afterAll(async () => {
    await chromium?.close();
    await deployment?.stop();
  });
  afterEach(async () => {
    await Promise.all(windows.splice(0).map((window) => window.close()));
    for (const client of clients.splice(0)) client.disconnect();
  });

  const world: ConsoleWorld = {
    get deployment() {
      return deployment;
    },
    get chromium() {
      return chromium;
    },
    get admin() {
      return `${deployment.url}/admin`;
    },
    async open(path = "", options = {}, origin = deployment.url) {
      const page = await world.stranger(options);
      const answer = await page.context().request.post(`${origin}/admin/api/login`, {
        data: { username: user.name, password: user.password },
      });
      expect(answer.status()).toBe(200);
      await page.goto(`${origin}/admin${path}`);
      return page;
    },
    async stranger(options = {}) {
      const window = await chromium.window(options);
      windows.push(window);
      const page = await window.newPage();
      page.setDefaultTimeout(promptMs);
      return page;
    },
    async api<T>(method: "GET" | "POST", path: string, body?: object) {
      const response = await fetch(`${world.admin}/api${path}`, {
        method,
        headers: {
          Authorization: `Basic ${Buffer.from(`${user.name}:${user.password}`).toString("base64")}`,
          "Content-Type": "application/json",
        },
        body: body === undefined ? null : JSON.stringify(body),
      });
      expect(response.status, `${method} ${path}`).toBeLessThan(300);
      return (await response.json()) as T;
    },
    newApplication: (name) => world.api("POST", "/applications", { name }),
    newKey: (appId, purpose) => world.api("POST", `/application/${appId}/keys`, { purpose }),
    newClient() {
      const client = new Client(`${deployment.url}/push`);
      clients.push(client);
      return client;
    },
  };
  return world;
}
