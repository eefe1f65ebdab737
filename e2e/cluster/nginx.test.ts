/** The nginx.conf of `examples/cluster`, as it stands there, in front of real nodes. */
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import http from "node:http";
import type net from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { keyAuth, type Message, Poller, Socket } from "../../server/test/harness.js";
import { freePort, ServerProcess } from "../server-process.js";
import { Inbox } from "../waiting.js";
import { Cluster } from "./cluster.js";
import { freshChannel, publish } from "./requests.js";

const given = readFileSync(new URL("../../examples/cluster/nginx.conf", import.meta.url), "utf8");

/** nginx with the example's configuration and other addresses. */
class Nginx {
  readonly wsUrl: string;
  readonly pushUrl: string;
  private constructor(
    readonly url: string,
    private readonly process: ServerProcess,
    private readonly directory: string,
  ) {
    this.wsUrl = `${url.replace("http", "ws")}/push`;
    this.pushUrl = `${url}/push`;
  }

  /** @param backends in place of node1, node2 …; the last one stands for those that are missing */
  static async start(backends: readonly number[]): Promise<Nginx> {
    const directory = mkdtempSync(path.join(tmpdir(), "pandapush-nginx-"));
    const port = await freePort();
    const own = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
      .map((name) => `${name}_temp_path ${directory}/${name};`)
      .join("\n");
    let nodes = 0;
    const config = given
      .replace(/server node(\d):3000/g, (_, n) => {
        nodes += 1;
        return `server 127.0.0.1:${backends[Number(n) - 1] ?? backends.at(-1)}`;
      })
      .replace("listen 80;", `listen 127.0.0.1:${port};`)
      .replace("http {", `http {\naccess_log off;\n${own}`);
    if (nodes !== 3) throw new Error("the example has three nodes");
    const file = path.join(directory, "nginx.conf");
    writeFileSync(file, config);
    // One process, which ends as a whole.
    const globals = `daemon off; master_process off; pid ${directory}/pid; error_log stderr;`;
    const program = process.env.NGINX_PATH ?? "nginx";
    const url = `http://127.0.0.1:${port}`;
    const server = new ServerProcess(
      [program, "-e", "stderr", "-p", directory, "-c", file, "-g", globals],
      { directory, environment: {}, healthUrl: `${url}/live` },
    );
    await server.start();
    return new Nginx(url, server, directory);
  }

  async stop(): Promise<void> {
    await this.process.end("SIGKILL");
    rmSync(this.directory, { recursive: true, force: true });
  }
}

test.each([
  ["a GET", "GET", "/", 3],
  ["a POST, which may have published", "POST", "/push", 1],
  ["a GET of callback polling, which may have published too", "GET", "/push?message=%5B%5D", 1],
])("when a node breaks off over %s", async (_, method, target, attempts) => {
  let asked = 0;
  const breaking = http.createServer((request, response) => {
    if (request.url === "/live") return response.end("{}");
    asked += 1;
    return request.socket.destroy();
  });
  breaking.listen(0, "127.0.0.1");
  await once(breaking, "listening");
  const nginx = await Nginx.start([(breaking.address() as net.AddressInfo).port]);
  try {
    const response = await fetch(`${nginx.url}${target}`, {
      method,
      ...(method === "POST" ? { body: "[]" } : {}),
    });
    expect([response.status, asked]).toEqual([502, attempts]);
  } finally {
    await nginx.stop();
    breaking.close();
  }
});

describe("in front of three nodes", () => {
  let cluster: Cluster;
  let nginx: Nginx;
  beforeAll(async () => {
    cluster = await Cluster.start({ nodes: 3 });
    nginx = await Nginx.start(cluster.nodes.map(({ port }) => port));
  });
  afterAll(async () => {
    await nginx?.stop();
    await cluster?.stop();
  });

  test("REST publishes go to all nodes, WebSockets hear them, and publish themselves", async () => {
    const sockets = await Promise.all([1, 2, 3, 4].map(() => Socket.connect(nginx)));
    const channel = freshChannel();
    for (const socket of sockets) {
      expect((await socket.subscribe(channel)).successful).toBe(true);
    }
    for (let n = 0; n < 6; n++) expect((await publish(nginx, channel, n)).status).toBe(200);
    expect((await sockets[0]?.publish(channel, 6))?.successful).toBe(true);
    for (const socket of sockets) {
      for (let n = 0; n <= 6; n++) expect((await socket.event(channel)).data).toBe(n);
      socket.close();
      expect((await socket.closing()).code).toBe(1005);
    }
  });

  test("a node that is gone is left out, and comes back", async () => {
    const [node] = cluster.nodes;
    await node?.end("SIGTERM");
    for (let n = 0; n < 9; n++) {
      expect((await publish(nginx, freshChannel(), n)).status).toBe(200);
    }
    await node?.start();
    const sockets = await Promise.all([1, 2, 3].map(() => Socket.connect(nginx)));
    for (const socket of sockets) socket.close();
  });
});

describe("in front of one node, by all three names", () => {
  let cluster: Cluster;
  let nginx: Nginx;
  beforeAll(async () => {
    cluster = await Cluster.start({
      nodes: 1,
      redisHosts: 0,
      environment: { MAX_MESSAGE_BYTES: "2000000", BAYEUX_TIMEOUT_MS: "5000" },
    });
    nginx = await Nginx.start(cluster.nodes.map(({ port }) => port));
  });
  afterAll(async () => {
    await nginx?.stop();
    await cluster?.stop();
  });

  test("a held poll is answered by the next publication, and when its time is over", async () => {
    const poller = await Poller.connect(nginx);
    const channel = freshChannel();
    await poller.poll({ advice: { timeout: 0 } });
    await poller.subscribe(channel);
    const held = poller.poll();
    expect((await publish(nginx, channel, "held")).status).toBe(200);
    expect((await held).map(({ data }) => data)).toContain("held");
    expect(await poller.poll()).toMatchObject([{ channel: "/meta/connect", successful: true }]);
  });

  test("a poll that its client gives up is given up at the node: what comes then is not lost", async () => {
    const poller = await Poller.connect(nginx);
    const channel = freshChannel();
    await poller.poll({ advice: { timeout: 0 } });
    await poller.subscribe(channel);
    const giveUp = new AbortController();
    const held = poller.poll({}, giveUp);
    // Held means that it is the one that is answered.
    await publish(nginx, channel, "first");
    expect((await held).map(({ data }) => data)).toContain("first");
    const second = poller.poll({}, giveUp);
    giveUp.abort();
    await expect(second).rejects.toThrow();
    await publish(nginx, channel, "second");
    const after = await poller.poll();
    expect(after.map(({ data }) => data)).toContain("second");
  });

  test("an event stream passes message by message", async () => {
    const poller = await Poller.connect(nginx);
    const channel = freshChannel();
    const leave = new AbortController();
    const response = await fetch(`${nginx.pushUrl}/${poller.clientId}`, {
      headers: { Accept: "text/event-stream" },
      signal: leave.signal,
    });
    expect(response.headers.get("content-type")).toBe("text/event-stream");
    const messages = new Inbox<Message>("message of the stream");
    const reading = readStream(response, (each) => messages.push(each));
    await poller.subscribe(channel);
    for (const data of ["one", "two", "three"]) {
      await publish(nginx, channel, data);
      expect((await messages.upTo((message) => message.channel === channel)).at(-1)?.data).toBe(
        data,
      );
    }
    leave.abort();
    await reading;
  });

  test("callback polling publishes once", async () => {
    const socket = await Socket.connect(nginx);
    const poller = await Poller.connect(nginx);
    const channel = freshChannel();
    await socket.subscribe(channel);
    const { clientId } = poller;
    const message = JSON.stringify([{ channel, clientId, id: "1", data: "jsonp", ext: keyAuth }]);
    const query = new URLSearchParams({ message, jsonp: "call" });
    const response = await fetch(`${nginx.pushUrl}?${query}`);
    expect(await response.text()).toMatch(/^\/\*\*\/call\(\[.*"successful":true/);
    expect((await socket.event(channel)).data).toBe("jsonp");
    socket.close();
  });

  test("large bodies are Pandapush's to judge", async () => {
    expect((await publish(nginx, freshChannel(), "x".repeat(1_500_000))).status).toBe(200);
    const refused = await publish(nginx, freshChannel(), "x".repeat(2_500_000));
    expect(refused.status).toBe(413);
    expect(JSON.parse(refused.text)).toMatchObject({ details: expect.stringContaining("2000000") });
  });
});

async function readStream(response: Response, take: (message: Message) => void): Promise<void> {
  let text = "";
  try {
    for await (const chunk of response.body?.pipeThrough(new TextDecoderStream()) ?? []) {
      text += chunk;
      for (;;) {
        const [, data] = /^data: ?(.*)\r?\n/m.exec(text) ?? [];
        if (data === undefined) break;
        text = text.slice(text.indexOf(data) + data.length);
        for (const message of JSON.parse(data) as Message[]) take(message);
      }
    }
  } catch {
    // It is read until it is cancelled.
  }
}
