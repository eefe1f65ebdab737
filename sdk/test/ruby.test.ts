/** The Ruby SDK: what all SDKs do, and what is its own. */
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { describe, expect, test } from "vitest";
import { type Fault, type OpenSdk, sdkSuite } from "./sdk.suite.js";

const run = promisify(execFile);
const ruby = process.env.RUBY_PATH ?? "ruby";
const lib = fileURLToPath(new URL("../ruby/lib", import.meta.url));
const agent = fileURLToPath(new URL("agent.rb", import.meta.url));

interface Answer {
  readonly call: number;
  readonly result?: unknown;
  readonly fault?: Fault;
}

const openRuby: OpenSdk = async ({ url, appId, keyId, keySecret }, settings = {}) => {
  const { timeoutMs, retries } = settings;
  const options = {
    ...{ url, app_id: appId, key_id: keyId, key_secret: keySecret },
    ...(timeoutMs === undefined ? {} : { timeout: timeoutMs / 1000 }),
    ...(retries === undefined ? {} : { retries }),
  };
  const child = spawn(ruby, ["-w", "-I", lib, agent, JSON.stringify(options)], {
    stdio: ["pipe", "pipe", "pipe"],
  });
  const ended = once(child, "close");
  let complaints = "";
  child.stderr.on("data", (text: Buffer) => {
    complaints += text.toString();
  });
  const waiting = new Map<number, (answer: Answer) => void>();
  createInterface({ input: child.stdout }).on("line", (line) => {
    const answer = JSON.parse(line) as Answer;
    waiting.get(answer.call)?.(answer);
  });
  let calls = 0;
  async function call<T>(name: string, named: object = {}, ...args: unknown[]): Promise<T> {
    const id = ++calls;
    const answer = new Promise<Answer>((resolve) => waiting.set(id, resolve));
    child.stdin.write(`${JSON.stringify({ call: id, name, args, named })}\n`);
    const gone = ended.then(() => Promise.reject(new Error(`Ruby ended: ${complaints}`)));
    const { result, fault } = await Promise.race([answer, gone]);
    waiting.delete(id);
    if (fault !== undefined) throw fault;
    return result as T;
  }
  const keyed = (key: string | undefined) => (key === undefined ? {} : { idempotency_key: key });
  return {
    publish: (type, name, data, key) =>
      call("publish", { channel: name, channel_type: type, message: data, ...keyed(key) }),
    publishBatch: (messages, key) =>
      call(
        "publish_batch",
        keyed(key),
        messages.map(({ type, name, data }) => ({
          ...{ channel: name, channel_type: type },
          message: data,
        })),
      ),
    token: (type, name, given) =>
      call("generate_token", { channel: name, channel_type: type, ...given }),
    channels: (prefix) => call("channels", { prefix }),
    channel: (type, name) => call("channel", { channel: name, channel_type: type }),
    presence: (name) => call("presence", { channel: name }),
    connections: (search) => call("connections", { search }),
    disconnect: (id) => call("disconnect", {}, id),
    disconnectUser: (id) => call("disconnect_user", {}, id),
    refusals: () => call("refusals", { limit: 100 }),
    inspect: () => call("inspect"),
    async close() {
      child.stdin.end();
      await ended;
      // Ruby warned of nothing.
      expect(complaints).toBe("");
    },
  };
};

describe("pandapush for Ruby", () => {
  sdkSuite(openRuby);

  /** @returns what it prints */
  async function evaluate(program: string, options = 'url: "http://127.0.0.1:1"'): Promise<string> {
    const before = `require "pandapush"; pandapush = Pandapush::Client.new(${options}, app_id: "app", key_id: "key", key_secret: "secret", retries: 0)`;
    const { stdout } = await run(ruby, ["-w", "-I", lib, "-e", `${before}\n${program}`]);
    return stdout.trim();
  }

  test("the calls of the gem 2.0.0 make the same tokens, with an end", async () => {
    const printed = await evaluate(`
      require "jwt"
      token = pandapush.generate_token(channel: "room", channel_type: "presence", presence: { id: 7 })
      claims, header = JWT.decode(token, "secret", true, algorithm: "HS256")
      puts JSON.generate([claims, header])
      whole = pandapush.generate_token(channel: "/app/public/a/**", channel_type: "public", pub: false, expires_in: nil)
      puts JSON.generate(JWT.decode(whole, "secret", true, algorithm: "HS256")[0])
    `);
    const [first, second] = printed.split("\n").map((line) => JSON.parse(line));
    expect(first).toEqual([
      {
        ...{ keyId: "key", channel: "/app/presence/room", pub: true, sub: true },
        presence: { id: 7 },
        exp: expect.any(Number),
      },
      { alg: "HS256", typ: "JWT" },
    ]);
    expect(second).toEqual({ keyId: "key", channel: "/app/public/a/**", pub: false, sub: true });
  });

  test.each([
    ['url: "push.example.com"', "url must be the server's address"],
    ['url: "https://user:word@push.example.com"', "no user name"],
  ])("%s is refused at once", async (options, message) => {
    await expect(evaluate("", options)).rejects.toThrow(message);
  });

  test("what JSON cannot hold is refused before it is sent", async () => {
    for (const value of ["Float::NAN", '"\\xff"', "[].then { |list| list << list }"]) {
      const program = `
        begin
          pandapush.publish(channel: "room", message: { value: ${value} })
        rescue ArgumentError => e
          puts e.message
        end`;
      expect(await evaluate(program)).toMatch(/^What is published must be a JSON value: /);
    }
  });

  test("its gem holds all that it needs", async () => {
    const folder = fileURLToPath(new URL("../ruby", import.meta.url));
    const program =
      'spec = Gem::Specification.load("pandapush.gemspec"); puts spec.files.sort, spec.dependencies.size';
    const { stdout } = await run(ruby, ["-e", program], { cwd: folder });
    expect(stdout.trim().split("\n")).toEqual([
      "README.md",
      "lib/pandapush.rb",
      "lib/pandapush/client.rb",
      "lib/pandapush/errors.rb",
      "lib/pandapush/requests.rb",
      "lib/pandapush/version.rb",
      "0",
    ]);
  });
});
