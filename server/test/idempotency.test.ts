/** Requests that are sent again: the contract, its implementations, and REST over one node and two. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { once } from "../src/idempotency/idempotency.js";
import { freshRequest, idempotencySuite } from "../src/idempotency/idempotency.suite.js";
import { createMemoryIdempotency } from "../src/idempotency/memory.js";
import { createRedisIdempotency } from "../src/idempotency/redis.js";
import { RedisHosts } from "../src/redis/hosts.js";
import {
  appId,
  keyId,
  Socket,
  secret,
  startTestServer,
  type TestServer,
  token,
} from "./harness.js";
import { TestRedis } from "./redis.js";

interface Answer {
  readonly status: number;
  readonly body: unknown;
  readonly isRepeated: boolean;
}

const authorization = `Basic ${Buffer.from(`${keyId}:${secret}`).toString("base64")}`;
const noLog = (): void => undefined;
const outcome = async (text: string) => ({ text, isFinal: true });

let redis: TestRedis;
let other: TestRedis;
beforeAll(async () => {
  [redis, other] = await Promise.all([TestRedis.start(), TestRedis.start()]);
});
afterAll(async () => {
  await Promise.all([redis.stop(), other.stop()]);
});

describe("in memory", () => {
  idempotencySuite(async (times) => {
    const memory = createMemoryIdempotency(times);
    return { nodes: [memory, memory], close: async () => undefined };
  });

  test("the oldest are forgotten when there are too many, or their answers too long", async () => {
    const times = { rememberMs: 60_000, leaseMs: 60_000 };
    const memory = createMemoryIdempotency(times, { requests: 3, textLength: 100 });
    const requests = Array.from({ length: 4 }, () => freshRequest());
    for (const request of requests) await once(memory, request, () => outcome("short"));
    const states = async () => {
      const claims = await Promise.all(requests.map((request) => memory.claim(request)));
      for (const claim of claims) if (claim.state === "mine") await claim.settle(undefined);
      return claims.map(({ state }) => state);
    };
    expect(await states()).toEqual(["mine", "done", "done", "done"]);
    await once(memory, freshRequest(), () => outcome("x".repeat(91)));
    expect(await states()).toEqual(["mine", "mine", "mine", "done"]);
  });
});

describe.each([1, 2])("on %i Redis host(s)", (count) => {
  idempotencySuite(async (times) => {
    const configs = [redis.config, other.config].slice(0, count);
    const opened = [1, 2].map(() => new RedisHosts({ hosts: configs, prefix: "suite:" }, noLog));
    await Promise.all(opened.map((hosts) => hosts.tried()));
    const [one, two] = opened.map((hosts) => createRedisIdempotency(hosts, noLog, times));
    return {
      nodes: [one, two] as [typeof one & object, typeof two & object],
      close: async () => {
        await Promise.all(opened.map((hosts) => hosts.close()));
      },
    };
  });
});

describe("on Redis", () => {
  let own: TestRedis;
  let hosts: RedisHosts;
  beforeEach(async () => {
    own = await TestRedis.start();
    hosts = new RedisHosts({ hosts: [own.config], prefix: "own:" }, noLog);
    await hosts.tried();
  });
  afterEach(async () => {
    await hosts.close();
    await own.stop();
  });

  test("a record lasts five minutes and no longer", async () => {
    const idempotency = createRedisIdempotency(hosts, noLog);
    await once(idempotency, freshRequest(), () => outcome(""));
    const keys = (await own.command("KEYS", "own:*:once:*")) as string[];
    expect(keys).toHaveLength(1);
    const leftMs = Number(await own.command("PTTL", keys[0] ?? ""));
    expect(leftMs).toBeGreaterThan(200_000);
    expect(leftMs).toBeLessThanOrEqual(300_000);
  });

  test("what cannot be remembered is refused; who did it while the host went down still has done it", async () => {
    const idempotency = createRedisIdempotency(hosts, noLog);
    const told = await once(idempotency, freshRequest(), async () => {
      await own.kill();
      return outcome("done");
    });
    expect(told).toEqual({ text: "done", isRepeated: false });
    await expect(once(idempotency, freshRequest(), () => outcome("no"))).rejects.toThrow(
      "Broker unavailable",
    );
  });
});

test("[REST-13] a batch that was taken in part is sent again: what was taken stays so, the rest is done", async () => {
  const own = await TestRedis.start();
  const hosts = new RedisHosts({ hosts: [redis.config, own.config], prefix: "part:" }, noLog);
  const addresses = `${redis.address},${own.address}`;
  const server = await startTestServer({ REDIS_HOSTS: addresses, REDIS_PREFIX: "part:" });
  try {
    const channelOn = ({ address }: TestRedis): string => {
      for (let index = 0; ; index++) {
        const channel = `/${appId}/public/part/${index}`;
        if (hosts.hostOf(channel).name === address) return channel;
      }
    };
    const [up, down] = [channelOn(redis), channelOn(own)];
    const subscriber = await Socket.connect(server);
    await subscriber.subscribe(`/${appId}/public/part/*`);
    await own.kill();
    const publishAll = async (): Promise<object[]> => {
      const response = await fetch(`http://127.0.0.1:${server.port}/api/${appId}/publish`, {
        method: "POST",
        headers: { authorization, "content-type": "application/json", "idempotency-key": "part" },
        body: JSON.stringify({
          messages: [
            { channel: up, data: "first" },
            { channel: down, data: "second" },
          ],
        }),
      });
      return ((await response.json()) as { results: object[] }).results;
    };
    const taken = (channel: string) => ({ channel, successful: true });
    const error = expect.objectContaining({ code: 503 });
    expect(await publishAll()).toEqual([taken(up), { channel: down, successful: false, error }]);
    await own.restart();
    let results = await publishAll();
    for (const deadline = Date.now() + 10_000; Date.now() < deadline; ) {
      if (results.every((result) => !("error" in result))) break;
      results = await publishAll();
    }
    expect(results).toEqual([taken(up), taken(down)]);
    await subscriber.publish(up, "marker");
    const data = [];
    while (data.at(-1) !== "marker") data.push((await subscriber.event(up)).data);
    expect(data).toEqual(["first", "marker"]);
    expect((await subscriber.event(down)).data).toBe("second");
  } finally {
    await server.close();
    await hosts.close();
    await own.stop();
  }
});

describe.each(["one node", "two nodes on Redis"])("[REST-13] on %s", (shape) => {
  const servers: TestServer[] = [];
  const [first, last] = [() => servers[0] as TestServer, () => servers.at(-1) as TestServer];
  beforeAll(async () => {
    const variables = { REDIS_HOSTS: redis.address, REDIS_PREFIX: "rest:" };
    for (const environment of shape === "one node" ? [{}] : [variables, variables]) {
      servers.push(await startTestServer(environment));
    }
  });
  afterAll(async () => {
    await Promise.all(servers.map((server) => server.close()));
  });

  let count = 0;
  let name: string;
  let channel: string;
  let subscriber: Socket;
  beforeEach(async () => {
    count++;
    name = `${shape}-${count}`.replaceAll(" ", "_");
    channel = `/${appId}/public/repeated/${count}`;
    subscriber = await Socket.connect(last());
    await subscriber.subscribe(`/${appId}/public/repeated/*`);
  });
  afterEach(() => subscriber.close());

  async function post(
    server: TestServer,
    path: string,
    body: string,
    headers: Record<string, string> = {},
  ): Promise<Answer> {
    const response = await fetch(`http://127.0.0.1:${server.port}${path}`, {
      method: "POST",
      headers: {
        authorization,
        "content-type": "application/json",
        "idempotency-key": name,
        ...headers,
      },
      body,
    });
    const text = await response.text();
    return {
      status: response.status,
      body: text.startsWith("{") ? JSON.parse(text) : text,
      isRepeated: response.headers.get("idempotent-replayed") === "true",
    };
  }

  const publish = (server: TestServer, body: string, headers?: Record<string, string>) =>
    post(server, `/channel${channel}`, body, headers);
  const publishAll = (server: TestServer, messages: object[]) =>
    post(server, `/api/${appId}/publish`, JSON.stringify({ messages }));

  /** What was delivered until now. */
  async function delivered(): Promise<unknown[]> {
    const marker = `/${appId}/public/repeated/marker`;
    await subscriber.publish(marker, count);
    await subscriber.next(({ channel: on, data }) => on === marker && data === count);
    const events = subscriber.received.filter(({ successful }) => successful === undefined);
    return events.map(({ data }) => data);
  }

  test("the same publish again is answered as the first, and delivered once", async () => {
    expect(await publish(first(), "1")).toEqual({ status: 200, body: "OK", isRepeated: false });
    for (const server of [...servers, first()]) {
      expect(await publish(server, " 1 ")).toEqual({ status: 200, body: "OK", isRepeated: true });
    }
    expect(await delivered()).toEqual([1]);
  });

  test("many at once are one", async () => {
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, index) => publish(index % 2 === 0 ? first() : last(), "2")),
    );
    expect(answers.map(({ status }) => status)).toEqual(Array(20).fill(200));
    expect(answers.filter(({ isRepeated }) => !isRepeated)).toHaveLength(1);
    expect(await delivered()).toEqual([2]);
  });

  test("another body, or another channel, is a 422 that says so", async () => {
    await publish(first(), "1");
    const conflict = {
      status: 422,
      isRepeated: false,
      body: {
        code: null,
        params: [],
        message: "Idempotency key was used for another request",
        details: expect.stringContaining("another key"),
      },
    };
    expect(await publish(last(), "2")).toEqual(conflict);
    expect(await post(last(), `/channel${channel}/else`, "1")).toEqual(conflict);
    expect(await publishAll(last(), [{ channel, data: 1 }])).toEqual(conflict);
    expect(await delivered()).toEqual([1]);
  });

  test("what was refused is not remembered", async () => {
    const wrong = { authorization: `Basic ${Buffer.from(`${keyId}:wrong`).toString("base64")}` };
    expect(await publish(first(), "1", wrong)).toMatchObject({ status: 400 });
    expect(await publish(first(), "{")).toMatchObject({ status: 400 });
    expect(await publish(first(), "1")).toMatchObject({ status: 200, isRepeated: false });
    // An answer is for who may publish.
    expect(await publish(first(), "1", wrong)).toMatchObject({ status: 400 });
    const own = { authorization: `Bearer ${token({ channel, pub: true })}` };
    expect(await publish(last(), "1", own)).toMatchObject({ status: 200, isRepeated: true });
    expect(await delivered()).toEqual([1]);
  });

  test.each([
    ["is empty", ""],
    ["has a space", "a b"],
    ["has other letters than ASCII", "\u00e9"],
    ["has 256 characters", "x".repeat(256)],
  ])("a key that %s is a 400", async (_what, key) => {
    for (const answer of [
      await publish(first(), "1", { "idempotency-key": key }),
      await post(first(), `/api/${appId}/publish`, '{"messages":[]}', { "idempotency-key": key }),
    ]) {
      expect(answer).toMatchObject({
        status: 400,
        body: { message: "Invalid idempotency key", details: expect.stringContaining("255") },
      });
    }
  });

  test("a batch again is answered as the first, refusals too, and delivered once", async () => {
    const messages = [
      { channels: [channel, `/${appId}/meta/statistics`], data: "a" },
      { channel: "/nowhere", data: "b" },
      { channel, data: "c" },
    ];
    const answer = await publishAll(first(), messages);
    expect(answer).toMatchObject({
      status: 200,
      isRepeated: false,
      body: {
        results: [
          { channel, successful: true },
          { successful: false, error: { message: "Cannot publish to a meta channel" } },
          { channel: "/nowhere", successful: false },
          { channel, successful: true },
        ],
      },
    });
    for (const server of servers) {
      expect(await publishAll(server, messages)).toEqual({ ...answer, isRepeated: true });
    }
    expect(await publishAll(first(), [{ channel, data: "d" }])).toMatchObject({ status: 422 });
    expect(await delivered()).toEqual(["a", "c"]);
  });
});
