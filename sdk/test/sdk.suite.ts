import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:net";
import { Client } from "pandapush-client";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { type Deployment, startServer } from "../../e2e/deployment.js";
import { Inbox } from "../../e2e/waiting.js";
import { UnreliableProxy } from "./unreliable-proxy.js";

export interface Account {
  readonly url: string;
  readonly appId: string;
  readonly keyId: string;
  readonly keySecret: string;
}

export interface Settings {
  readonly timeoutMs?: number;
  readonly retries?: number;
}

/** A call that failed, as its program sees it. */
export interface Fault {
  readonly kind: string;
  readonly message: string;
  readonly status?: number | null;
  readonly code?: number | null;
  readonly details?: string | null;
  readonly retryAfter?: number | null;
  readonly attempts?: number;
}

type Type = "public" | "private" | "presence";
type Counts = { readonly channel: string; readonly subscribers: number };

/** The calls that all SDKs have, in the words of none. What fails rejects with a `Fault`. */
export interface Sdk {
  publish(type: Type, name: string, data: unknown, idempotencyKey?: string): Promise<void>;
  publishBatch(
    messages: readonly { readonly type: Type; readonly name: string; readonly data: unknown }[],
    idempotencyKey?: string,
  ): Promise<
    { channel: string; successful: boolean; error?: { message: string; code: number | null } }[]
  >;
  token(
    type: Type,
    name: string,
    options: { readonly pub: boolean; readonly sub: boolean; readonly presence?: object },
  ): Promise<string>;
  channels(prefix: string): Promise<{ items: Counts[]; total: number }>;
  channel(type: Type, name: string): Promise<Counts & { listeners: number }>;
  presence(name: string): Promise<Record<string, unknown>>;
  connections(search: string): Promise<{ items: { id: string; presence: string[] }[] }>;
  disconnect(id: string): Promise<boolean>;
  disconnectUser(presenceId: string): Promise<number>;
  refusals(): Promise<{ items: { message: string }[] }>;
  /** All that its program could print of it. */
  inspect(): Promise<string>;
  close(): Promise<void>;
}

export type OpenSdk = (account: Account, settings?: Settings) => Promise<Sdk>;

/** What all SDKs do, with a real server. */
export function sdkSuite(open: OpenSdk): void {
  let server: Deployment;
  let account: Account;
  let front: UnreliableProxy;
  let sdk: Sdk;
  /** Behind the front, soon impatient. */
  let behind: Sdk;
  beforeAll(async () => {
    server = await startServer();
    const { url, appId, keyId, secret: keySecret } = server;
    account = { url, appId, keyId, keySecret };
    front = await UnreliableProxy.start(url);
    sdk = await open(account);
    behind = await open({ ...account, url: front.url }, { timeoutMs: 2_000 });
  });
  afterAll(async () => {
    await Promise.all([sdk?.close(), behind?.close()]);
    await front?.close();
    await server?.stop();
  });

  let name: string;
  let client: Client;
  beforeEach(() => {
    name = `room-${randomBytes(6).toString("hex")}`;
    client = newClient();
    front.fates = [];
    front.take();
  });
  afterEach(async () => {
    await Promise.all(clients.splice(0).map((each) => each.disconnect()));
  });

  const clients: Client[] = [];
  function newClient(): Client {
    const made = new Client(`${server.url}/push`, { retry: 0.05 });
    clients.push(made);
    return made;
  }

  const nameOf = (type: string, of = name): string => `/${server.appId}/${type}/${of}`;

  /** What is delivered on a public channel. */
  async function listen(type: Type = "public"): Promise<Inbox<unknown>> {
    const heard = new Inbox<unknown>("message");
    const token = await sdk.token(type, name, { pub: false, sub: true });
    await client.subscribeTo(nameOf(type), token, (data) => heard.push(data));
    return heard;
  }

  /** Nothing but this was delivered. */
  async function expectHeard(heard: Inbox<unknown>, ...data: unknown[]): Promise<void> {
    await sdk.publish("public", name, "the end");
    for (const each of [...data, "the end"]) expect(await heard.next()).toEqual(each);
  }

  /** What a call failed with; none of it may have the secret. */
  async function fault(call: Promise<unknown>): Promise<Fault> {
    const failed = await call.then(
      () => undefined,
      (error: Fault) => error,
    );
    if (failed === undefined) throw new Error("it did not fail");
    const basic = Buffer.from(`${account.keyId}:${account.keySecret}`).toString("base64");
    for (const secret of [account.keySecret, basic]) {
      expect(JSON.stringify(failed)).not.toContain(secret);
    }
    return failed;
  }

  describe("publishing", () => {
    test("any JSON value arrives as it was", async () => {
      const heard = await listen("private");
      const values = [{ a: [1, null, { b: "ü € 😀" }] }, "text", 0, false, null, [], {}];
      for (const value of values) await sdk.publish("private", name, value);
      for (const value of values) expect(await heard.next()).toEqual(value);
    });

    test("several channels are published to in their order, and each has its own result", async () => {
      const heard = await listen();
      const results = await sdk.publishBatch([
        { type: "public", name, data: 1 },
        { type: "presence", name, data: { subscribe: {} } },
        { type: "public", name, data: null },
      ]);
      expect(results).toMatchObject([
        { channel: nameOf("public"), successful: true },
        {
          channel: nameOf("presence"),
          successful: false,
          error: { code: null, message: "Cannot publish presence membership" },
        },
        { channel: nameOf("public"), successful: true },
      ]);
      await expectHeard(heard, 1, null);
    });

    test("the same idempotency key publishes once, and another message with it is an error", async () => {
      const heard = await listen();
      const key = `paid-${name}`;
      await sdk.publish("public", name, { paid: 7 }, key);
      await sdk.publish("public", name, { paid: 7 }, key);
      expect(await fault(sdk.publish("public", name, { paid: 8 }, key))).toMatchObject({
        kind: "RequestError",
        status: 422,
        message: expect.stringContaining("Idempotency key was used for another request"),
        details: expect.stringContaining("another key"),
      });
      const messages = [{ type: "public", name, data: "batch" }] as const;
      const first = await sdk.publishBatch(messages, `${key}-batch`);
      expect(await sdk.publishBatch(messages, `${key}-batch`)).toEqual(first);
      await expectHeard(heard, { paid: 7 }, "batch");
    });

    test("each call publishes, also the same twice", async () => {
      const heard = await listen();
      await sdk.publish("public", name, 1);
      await sdk.publish("public", name, 1);
      await expectHeard(heard, 1, 1);
    });
  });

  describe("tokens", () => {
    test("allow what they say, and nothing else", async () => {
      const channel = nameOf("private");
      const subscribing = await sdk.token("private", name, { pub: false, sub: true });
      const publishing = await sdk.token("private", name, { pub: true, sub: false });
      const heard = new Inbox<unknown>("message");
      await client.subscribeTo(channel, subscribing, (data) => heard.push(data));
      await client.publishTo(channel, publishing, "with a token");
      expect(await heard.next()).toBe("with a token");
      await expect(client.publishTo(channel, subscribing, 1)).rejects.toThrow(
        "Token does not allow publishing",
      );
      await expect(newClient().subscribeTo(channel, publishing, () => undefined)).rejects.toThrow(
        "Token does not allow subscribing",
      );
    });

    test("say who somebody is on a presence channel; of a pattern they open all it covers", async () => {
      const pattern = `${name}/**`;
      const token = await sdk.token("presence", pattern, {
        pub: false,
        sub: true,
        presence: { id: "user1", name: "Zoë" },
      });
      await client.subscribeTo(nameOf("presence", `${name}/lobby`), token, () => undefined);
      expect(await sdk.presence(`${name}/lobby`)).toEqual({ user1: { id: "user1", name: "Zoë" } });
    });

    test("end", async () => {
      const token = await sdk.token("private", name, { pub: true, sub: true });
      const claims = JSON.parse(Buffer.from(token.split(".")[1] ?? "", "base64url").toString());
      expect(claims).toMatchObject({ keyId: account.keyId, channel: nameOf("private") });
      expect(claims.exp).toBeGreaterThan(Date.now() / 1000);
    });

    test("need an id for presence", async () => {
      const options = { pub: false, sub: true, presence: { name: "Joe" } };
      expect(await fault(sdk.token("presence", name, options))).toMatchObject({
        kind: "argument",
        message: expect.stringContaining("presence must have an id"),
      });
    });
  });

  describe("asking", () => {
    test("channels, with how many listen", async () => {
      await client.subscribe(nameOf("public"), () => undefined);
      await newClient().subscribe(nameOf("public", `${name}/**`), () => undefined);
      const counts = { channel: nameOf("public"), subscribers: 1 };
      expect(await sdk.channels(`public/${name}`)).toEqual({
        items: [counts, { channel: nameOf("public", `${name}/**`), subscribers: 1 }],
        total: 2,
      });
      expect(await sdk.channel("public", name)).toEqual({ ...counts, listeners: 1 });
      expect(await sdk.channel("public", `${name}/a/b`)).toMatchObject({ listeners: 1 });
      expect(await sdk.presence(name)).toEqual({});
    });

    test("connections, which can be ended, and so can all of a user", async () => {
      const id = `user/${name} ü`;
      const heard = new Inbox<unknown>("refusal");
      for (const each of [client, newClient()]) {
        const presence = { id, name: "Joe" };
        const token = await sdk.token("presence", name, { pub: false, sub: true, presence });
        const subscription = each.subscribeTo(nameOf("presence"), token, () => undefined);
        subscription.on("refused", ({ message }) => heard.push(message));
        await subscription;
      }
      const { items } = await sdk.connections(id);
      expect(items.map(({ presence }) => presence)).toEqual([[id], [id]]);
      expect(await sdk.disconnect(items[0]?.id ?? "")).toBe(true);
      expect(await heard.next()).toBe("Disconnected");
      expect(await sdk.disconnect(items[0]?.id ?? "")).toBe(false);
      expect(await sdk.disconnectUser(id)).toBe(1);
      expect(await heard.next()).toBe("Disconnected");
      expect(await sdk.disconnectUser(id)).toBe(0);
    });

    test("what was refused lately", async () => {
      await sdk.publishBatch([{ type: "presence", name, data: { subscribe: {} } }]);
      const { items } = await sdk.refusals();
      expect(items.map(({ message }) => message)).toContain("Cannot publish presence membership");
    });
  });

  describe("what goes wrong", () => {
    test("a wrong secret, an unknown key and an unknown application are errors of their own", async () => {
      for (const [wrong, message] of [
        [{ keySecret: "not-the-secret" }, "Invalid secret"],
        [{ keyId: "PSIDnobody" }, "Could not find key"],
      ] as const) {
        const stranger = await open({ ...account, ...wrong });
        const kind = "AuthenticationError";
        const expected = { kind, message: expect.stringContaining(message), code: null };
        expect(await fault(stranger.publish("public", name, 1))).toMatchObject({
          ...expected,
          status: 400,
          details: expect.any(String),
          attempts: 1,
        });
        expect(await fault(stranger.channels(""))).toMatchObject({ ...expected, status: 403 });
        expect(await stranger.inspect()).not.toContain("not-the-secret");
        await stranger.close();
      }
      const elsewhere = await open({ ...account, appId: "nowhere" });
      expect(await fault(elsewhere.publish("public", name, 1))).toMatchObject({
        kind: "RequestError",
        message: expect.stringContaining("Unknown application"),
      });
      await elsewhere.close();
    });

    test("what the server does not take is an error with its reason, and is not sent again", async () => {
      expect(await fault(behind.publish("presence", name, { subscribe: {} }))).toMatchObject({
        kind: "RequestError",
        status: 400,
        code: null,
        message: expect.stringContaining("Cannot publish presence membership: "),
        details: expect.stringContaining("said by the server only"),
        attempts: 1,
      });
      expect(front.take()).toHaveLength(1);
      expect(await fault(sdk.publish("public", name, "x".repeat(300_000)))).toMatchObject({
        kind: "RequestError",
        status: 413,
        details: expect.stringContaining("262144"),
      });
    });

    test("what is no channel, or a pattern, is told before anything is sent", async () => {
      for (const wrong of ["a b", "ü", "a//b", "a?token=1", "a/*/b"]) {
        const { kind, message } = await fault(behind.publish("public", wrong, 1));
        expect([wrong, kind, message]).toEqual([
          wrong,
          "argument",
          expect.stringContaining("is no channel"),
        ]);
      }
      expect(await fault(behind.publish("public", "a/*", 1))).toMatchObject({
        kind: "argument",
        message: expect.stringContaining("is a pattern"),
      });
      expect(front.take()).toEqual([]);
    });

    test("what is no Pandapush is said to be none", async () => {
      front.fates = [
        { status: 200, body: "<html>Welcome</html>" },
        { status: 301, headers: { location: "https://elsewhere.example/" } },
      ];
      expect(await fault(behind.publish("public", name, 1))).toMatchObject({
        kind: "RequestError",
        message: expect.stringContaining("is not Pandapush"),
      });
      expect(await fault(behind.publish("public", name, 1))).toMatchObject({
        kind: "RequestError",
        status: 301,
        message: expect.stringContaining("https://elsewhere.example/"),
      });
    });

    test("where nobody listens is a ConnectionError", async () => {
      const nobody = createServer().listen(0, "127.0.0.1");
      await once(nobody, "listening");
      const { port } = nobody.address() as { port: number };
      nobody.close();
      await once(nobody, "close");
      const lost = await open({ ...account, url: `http://127.0.0.1:${port}` }, { retries: 1 });
      expect(await fault(lost.publish("public", name, 1))).toMatchObject({
        kind: "ConnectionError",
        message: expect.stringContaining(`127.0.0.1:${port}`),
        attempts: 2,
      });
      await lost.close();
    });
  });

  describe("trying again", () => {
    test("an answer that is lost: the same request goes again, and is delivered once", async () => {
      const heard = await listen();
      front.fates = ["lose", "lose"];
      await behind.publish("public", name, "once");
      const keys = front.take().map(({ headers }) => headers["idempotency-key"]);
      expect(keys).toHaveLength(3);
      expect(keys[0]).toMatch(/^\S{16,}$/);
      expect(new Set(keys).size).toBe(1);
      front.fates = ["lose"];
      const results = await behind.publishBatch([{ type: "public", name, data: "batch" }]);
      expect(results).toMatchObject([{ successful: true }]);
      const [first, second] = front.take();
      expect(second?.headers["idempotency-key"]).toBe(first?.headers["idempotency-key"]);
      expect(first?.headers["idempotency-key"]).not.toBe(keys[0]);
      await expectHeard(heard, "once", "batch");
    });

    test("an answer that does not come in time", async () => {
      const hasty = await open({ ...account, url: front.url }, { timeoutMs: 300, retries: 1 });
      const heard = await listen();
      front.fates = ["stall", "stall"];
      expect(await fault(hasty.publish("public", name, "late"))).toMatchObject({
        kind: "TimeoutError",
        attempts: 2,
      });
      await expectHeard(heard, "late");
      await hasty.close();
    });

    test("a server that cannot at the moment, when it wants to be asked again", async () => {
      const body = '{"code":503,"params":[],"message":"Service unavailable","details":"Soon."}';
      front.fates = [
        { status: 503, headers: { "retry-after": "0" }, body },
        { status: 502, body: "<html>Bad gateway</html>" },
      ];
      expect(await behind.channels("none/")).toEqual({ items: [], total: 0 });
      expect(front.take()).toHaveLength(3);
      front.fates = Array(3).fill({ status: 503, headers: { "retry-after": "0" }, body });
      expect(await fault(behind.publish("public", name, 1))).toMatchObject({
        kind: "ServerError",
        status: 503,
        code: 503,
        message: "Service unavailable: Soon.",
        details: "Soon.",
        retryAfter: 0,
        attempts: 3,
      });
      front.fates = [{ status: 429, headers: { "retry-after": "3600" } }];
      expect(await fault(behind.publish("public", name, 1))).toMatchObject({
        kind: "ServerError",
        message: "The server answered 429",
        retryAfter: 3600,
        attempts: 1,
      });
    });

    test.each([
      { code: 503, message: "Broker unavailable" },
      { code: 429, message: "Publish limit reached" },
    ])("what of a batch failed for the time being ($code), under the same key", async (kind) => {
      const heard = await listen();
      const channel = nameOf("public");
      const error = { params: [], details: "Soon.", ...kind };
      const results = [{ channel, successful: false, error }];
      front.fates = [{ status: 200, body: JSON.stringify({ results }) }];
      expect(await behind.publishBatch([{ type: "public", name, data: 1 }])).toEqual([
        { channel, successful: true },
      ]);
      const keys = front.take().map(({ headers }) => headers["idempotency-key"]);
      expect(keys).toEqual([keys[0], keys[0]]);
      await expectHeard(heard, 1);
    });

    test("a disconnect whose answer is lost is not sent again", async () => {
      front.fates = ["lose"];
      expect(await fault(behind.disconnectUser("nobody"))).toMatchObject({
        kind: "ConnectionError",
        attempts: 1,
      });
      expect(front.take()).toHaveLength(1);
      front.fates = [{ status: 503, headers: { "retry-after": "0" } }];
      expect(await behind.disconnectUser("nobody")).toBe(0);
    });
  });
}
