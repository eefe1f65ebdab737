import { spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { Client, type ClientOptions, type ErrorReason, type Message } from "pandapush-client";
import { vi } from "vitest";
import { signToken } from "../../e2e/deployment.js";
import { Inbox, promptMs } from "../../e2e/waiting.js";
import type { Account } from "./server.js";

export const transports = ["websocket", "long-polling"] as const;
export type TransportName = (typeof transports)[number];

const open = new Set<Client>();

/** A client that `closeClients` disconnects. */
export function newClient(
  url: string,
  transport: TransportName = "websocket",
  options: ClientOptions = {},
): Client {
  const client = new Client(url, { retry: 0.001, ...options });
  if (transport === "long-polling") client.disable("websocket");
  else client.disable("long-polling");
  if (transport === "websocket") client.disable("eventsource");
  open.add(client);
  return client;
}

/**
 * Lets the clients of a test file come back at once: the servers of tests are away several times in
 * a row, for which pauses grow.
 */
export function comeBackSoon(): void {
  vi.spyOn(Math, "random").mockReturnValue(0.002);
}

/** For `afterEach`. */
export async function closeClients(): Promise<void> {
  const all = [...open];
  open.clear();
  await Promise.all(all.map((client) => client.disconnect()));
}

interface Member {
  readonly id: string;
  readonly [field: string]: unknown;
}

/** A token that may do everything on a channel. */
export function tokenFor(account: Account, channel: string, member?: Member): string {
  const claims = { channel, pub: true, sub: true };
  return signToken(account, member === undefined ? claims : { ...claims, presence: member });
}

/** A token whose time is over. */
export function expiredTokenFor(account: Account, channel: string): string {
  return signToken(account, { channel, pub: true, sub: true, exp: 1_000_000_000 });
}

/** What passes a client on its way out and in. */
export function tap(client: Client): { readonly out: Inbox<Message>; readonly in: Inbox<Message> } {
  const inboxes = { out: new Inbox<Message>("message"), in: new Inbox<Message>("message") };
  client.addExtension({
    outgoing(message, pass) {
      inboxes.out.push(structuredClone(message));
      pass(message);
    },
    incoming(message, pass) {
      inboxes.in.push(structuredClone(message));
      pass(message);
    },
  });
  return inboxes;
}

/** The error with which a promise is rejected; fails when it is fulfilled. */
export async function failure(promise: PromiseLike<unknown>): Promise<Error & Partial<Refusal>> {
  const nothing = {};
  const result = await promise.then(
    () => nothing,
    (error: unknown) => error,
  );
  if (result === nothing) throw new Error("it was not rejected");
  return result as Error & Partial<Refusal>;
}

interface Refusal {
  readonly code: number | null;
  readonly params: readonly string[];
  readonly detail?: string;
  readonly reason: ErrorReason;
}

export interface Run {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

/** Runs a program beside the package, and waits until it ends by itself. */
export async function runNode(
  program: string,
  type: "module" | "commonjs" = "module",
  env: NodeJS.ProcessEnv = {},
): Promise<Run> {
  const child = spawn(process.execPath, [`--input-type=${type}`, "-e", program], {
    cwd: fileURLToPath(new URL("..", import.meta.url)),
    env: { ...process.env, ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let out = "";
  let err = "";
  child.stdout.on("data", (part: Buffer) => {
    out += part;
  });
  child.stderr.on("data", (part: Buffer) => {
    err += part;
  });
  const timer = setTimeout(() => child.kill("SIGKILL"), 1.5 * promptMs);
  const [code] = (await once(child, "close")) as [number | null];
  clearTimeout(timer);
  return { code, out, err };
}
