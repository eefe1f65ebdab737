/** The Node SDK: what all SDKs do, and what is its own. */
import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { inspect, promisify } from "node:util";
import { ConnectionError, Pandapush, PandapushError } from "pandapush";
import { describe, expect, test } from "vitest";
import { type Fault, type OpenSdk, sdkSuite } from "./sdk.suite.js";
import { UnreliableProxy } from "./unreliable-proxy.js";

const run = promisify(execFile);

function told(error: unknown): never {
  if (error instanceof TypeError) throw { kind: "argument", message: error.message };
  if (!(error instanceof PandapushError)) throw error;
  const { name: kind, message, status, code, details, retryAfter, attempts } = error;
  const fields = { status, details, retryAfter };
  throw { kind, message, code, attempts, ...fields, stack: error.stack } as Fault;
}

const openNode: OpenSdk = async (account, settings = {}) => {
  const pandapush = new Pandapush({ ...account, ...settings });
  const keyed = (idempotencyKey: string | undefined) =>
    idempotencyKey === undefined ? {} : { idempotencyKey };
  return {
    publish: async (type, name, data, key) =>
      pandapush.publish(`${type}/${name}`, data, keyed(key)).catch(told),
    publishBatch: async (messages, key) => {
      const batch = messages.map(({ type, name, data }) => ({ channel: `${type}/${name}`, data }));
      return pandapush.publishBatch(batch, keyed(key)).catch(told);
    },
    async token(type, name, options) {
      try {
        const { presence, ...rest } = options;
        const claims = { channel: `${type}/${name}`, ...rest };
        const who = presence as { id: string } | undefined;
        return pandapush.generateToken(who === undefined ? claims : { ...claims, presence: who });
      } catch (error) {
        return told(error);
      }
    },
    channels: (prefix) => pandapush.channels({ prefix }).catch(told),
    channel: (type, name) => pandapush.channel(`${type}/${name}`).catch(told),
    presence: (name) => pandapush.presence(`presence/${name}`).catch(told),
    async connections(search) {
      const { items, total } = await pandapush.connections({ search }).catch(told);
      for (const { since, subscriptionCount } of items) {
        expect(since.getTime()).toBeLessThanOrEqual(Date.now() + 1_000);
        expect(subscriptionCount).toBe(1);
      }
      return { items: items.map(({ id, presence }) => ({ id, presence: [...presence] })), total };
    },
    disconnect: (id) => pandapush.disconnect(id).catch(told),
    disconnectUser: (id) => pandapush.disconnectUser(id).catch(told),
    refusals: () => pandapush.refusals({ limit: 100 }).catch(told),
    inspect: async () =>
      inspect(pandapush, { depth: 10, showHidden: true }) + JSON.stringify(pandapush),
    close: async () => undefined,
  };
};

describe("pandapush for Node", () => {
  sdkSuite(openNode);

  const account = { appId: "app", keyId: "key", keySecret: "secret" };

  test("a signal gives up a call, while it waits for an answer and between attempts", async () => {
    const front = await UnreliableProxy.start("http://127.0.0.1:1");
    try {
      const pandapush = new Pandapush({ ...account, url: front.url });
      const reason = new Error("no longer of interest");
      const slow = { status: 503, headers: { "retry-after": "20" } };
      front.fates = [slow];
      const waiting = new AbortController();
      const call = pandapush.publish("public/news", 1, { signal: waiting.signal });
      await expect.poll(() => front.seen.length).toBe(1);
      waiting.abort(reason);
      await expect(call).rejects.toBe(reason);
      await expect(pandapush.channels({ signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
      expect(front.take()).toHaveLength(1);
    } finally {
      await front.close();
    }
  });

  test.each([
    [{ url: "push.example.com" }, "url must be the server's address"],
    [{ url: "https://user:word@push.example.com" }, "no user name"],
    [{ appId: "a/b" }, "appId has letters"],
    [{ keyId: "a:b" }, "keyId has no colon"],
    [{ keySecret: "" }, "keySecret must be a text"],
  ])("%j is refused at once", (wrong, message) => {
    const options = { ...account, url: "https://push.example.com", ...wrong };
    expect(() => new Pandapush(options)).toThrow(TypeError);
    expect(() => new Pandapush(options)).toThrow(message);
  });

  test("a whole name of this application is taken, one of another is not; data must be JSON", async () => {
    const pandapush = new Pandapush({ ...account, url: "http://127.0.0.1:1", retries: 0 });
    const whole = pandapush.generateToken({ channel: "/app/private/a/**", sub: true });
    expect(Buffer.from(whole.split(".")[1] ?? "", "base64url").toString()).toContain(
      '"channel":"/app/private/a/**"',
    );
    const other = { channel: "/other/private/a", sub: true };
    expect(() => pandapush.generateToken(other)).toThrow("is not in the application app");
    expect(() => pandapush.generateToken({ channel: "private/a" })).toThrow("sub, pub, or both");
    for (const wrong of [undefined, () => 1, 1n, { toJSON: () => undefined }]) {
      await expect(pandapush.publish("public/a", wrong)).rejects.toThrow(TypeError);
      const batch = pandapush.publishBatch([{ channel: "public/a", data: wrong }]);
      await expect(batch).rejects.toThrow(TypeError);
    }
    // What is undefined was not given.
    const options = { timeoutMs: undefined, retries: undefined } as object;
    await expect(pandapush.publish("public/a", 1, options)).rejects.toThrow(ConnectionError);
    await expect(pandapush.presence("public/a")).rejects.toThrow("Nobody is present");
  });

  test.each([
    ["import", 'import { Pandapush } from "pandapush";', "module"],
    ["require", 'const { Pandapush } = require("pandapush");', "commonjs"],
  ])("%s finds it", async (_how, line, type) => {
    const program = `${line} console.log(typeof Pandapush, new Pandapush({url:"http://a",appId:"a",keyId:"k",keySecret:"s"}).generateToken({channel:"public/a",pub:true}).length > 50)`;
    const args = [`--input-type=${type}`, "-e", program];
    const cwd = fileURLToPath(new URL("../node", import.meta.url));
    expect((await run(process.execPath, args, { cwd })).stdout).toBe("function true\n");
  });
});
