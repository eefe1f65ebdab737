/** What operators see is what real clients did to a real server. */
import { createSocket, type Socket as UdpSocket } from "node:dgram";
import { once } from "node:events";
import { get, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import type { AppId, KeyId } from "@pandapush/protocol";
import { afterEach, describe, expect, test, vi } from "vitest";
import { type Metric, table } from "../src/metrics/table.js";
import { askMetrics, metricsToken, Scrape } from "./exposition.js";
import {
  appId,
  keyAuth,
  keyId,
  Poller,
  Socket,
  secret,
  startTestServer,
  type TestServer,
} from "./harness.js";
import { http, postText } from "./protocol/peers.js";
import { TestRedis } from "./redis.js";

const cleanUp: (() => unknown)[] = [];
afterEach(async () => {
  for (const each of cleanUp.splice(0).reverse()) await each();
});

const soon = { timeout: 10_000, interval: 20 };
const basic = `Basic ${Buffer.from(`${keyId}:${secret}`).toString("base64")}`;
const news = `/${appId}/public/news`;

async function start(environment: Record<string, string> = {}): Promise<TestServer> {
  const server = await startTestServer({ METRICS_TOKEN: metricsToken, ...environment });
  cleanUp.push(() => server.close());
  return server;
}

async function connect(server: TestServer): Promise<Socket> {
  const socket = await Socket.connect(server);
  cleanUp.push(() => socket.close());
  return socket;
}

function post(server: TestServer, channel: string, body: string, authorization = basic) {
  const headers = { authorization, "content-type": "application/json" };
  return http(server, `/channel${channel}`, { method: "POST", headers, body });
}

/** The stream of a client that has a session. */
async function openStream(server: TestServer, clientId: string): Promise<IncomingMessage> {
  const headers = { accept: "text/event-stream" };
  const request = get(`${server.pushUrl}/${clientId}`, { headers, agent: false });
  const [response] = (await once(request, "response")) as [IncomingMessage];
  response.resume();
  cleanUp.push(() => request.destroy());
  return response;
}

/** Scrapes until it is as it should be: what ends is noticed by the server in its own time. */
async function until(server: TestServer, look: (scrape: Scrape) => void): Promise<void> {
  await vi.waitFor(async () => look(await Scrape.of(server)), soon);
}

describe("a scrape", () => {
  test("has each metric of the table, with its type, help and labels, and no other", async () => {
    const server = await start();
    const socket = await connect(server);
    await socket.subscribe(news);
    await post(server, news, "1");
    await socket.event(news);
    const { families } = await Scrape.of(server);
    const metrics = Object.values<Metric>(table);
    expect([...families.keys()].sort()).toEqual(metrics.map(({ name }) => name).sort());
    for (const { name, type, help, labels = {} } of metrics) {
      const family = families.get(name);
      expect(family).toMatchObject({ type, help });
      for (const series of family?.series ?? []) {
        const { le: _le, ...own } = series.labels;
        expect(Object.keys(own).sort(), name).toEqual(Object.keys(labels).sort());
      }
    }
  });

  test("counts connections of each transport, sessions, subscriptions and channels", async () => {
    const server = await start();
    await Socket.open(server).then((unbound) => cleanUp.push(() => unbound.close()));
    const socket = await connect(server);
    await socket.subscribe([news, `/${appId}/public/**`]);
    await socket.subscribe(news);
    const poller = await Poller.connect(server);
    const leave = new AbortController();
    cleanUp.push(() => leave.abort());
    poller.poll({}, { signal: leave.signal }).catch(() => undefined);
    await poller.subscribe(news);
    const scripted = await Poller.connect(server);
    const message = encodeURIComponent(
      JSON.stringify({
        channel: "/meta/connect",
        clientId: scripted.clientId,
        connectionType: "callback-polling",
        advice: { timeout: 0 },
      }),
    );
    await http(server, `/push?jsonp=f&message=${message}`);
    const streaming = await Poller.connect(server);
    await openStream(server, streaming.clientId);

    await until(server, (scrape) => {
      const transports = ["websocket", "long-polling", "callback-polling", "eventsource"];
      const name = "pandapush_connections";
      expect(transports.map((transport) => scrape.value(name, { transport }))).toEqual([
        2, 1, 1, 1,
      ]);
      expect(scrape.value("pandapush_sessions")).toBe(4);
      expect(scrape.value("pandapush_sessions_begun_total")).toBe(4);
      expect(scrape.value("pandapush_subscriptions")).toBe(3);
      expect(scrape.value("pandapush_subscribed_total")).toBe(3);
      expect(scrape.value("pandapush_channels")).toBe(2);
      expect(scrape.value("pandapush_app_connections", { app: appId })).toBe(2);
      expect(scrape.value("pandapush_app_subscriptions", { app: appId })).toBe(3);
      expect(scrape.value("pandapush_app_channels", { app: appId })).toBe(2);
      expect(scrape.value("pandapush_build_info", { version: "test", rev: "dev" })).toBe(1);
      expect(scrape.value("process_resident_memory_bytes")).toBeGreaterThan(1e6);
    });

    await poller.ask({ channel: "/meta/unsubscribe", subscription: news });
    await socket.ask({ channel: "/meta/disconnect" });
    await until(server, (scrape) => {
      expect(scrape.value("pandapush_sessions")).toBe(3);
      expect(scrape.value("pandapush_sessions_ended_total", { reason: "disconnect" })).toBe(1);
      expect(scrape.value("pandapush_unsubscribed_total")).toBe(3);
      expect(scrape.value("pandapush_subscriptions")).toBe(0);
    });
  });

  test("counts publications, what is delivered of them, and how many are delivered together", async () => {
    const server = await start();
    const [one, two] = [await connect(server), await connect(server)];
    await one.subscribe(news);
    await two.subscribe(`/${appId}/public/*`);
    await one.publish(news, "by socket");
    await post(server, news, '"by REST"');
    await post(server, `/${appId}/public/a/b`, '"nobody hears it"');
    for (const socket of [one, two]) {
      await socket.event(news);
      await socket.event(news);
    }
    const scrape = await Scrape.of(server);
    expect(scrape.value("pandapush_published_total")).toBe(3);
    expect(scrape.value("pandapush_delivered_total")).toBe(4);
    expect(scrape.value("pandapush_app_published_total", { app: appId })).toBe(3);
    expect(scrape.value("pandapush_app_delivered_total", { app: appId })).toBe(4);
    expect(scrape.value("pandapush_fanout_batch_publications_sum")).toBe(2);
    expect(scrape.value("pandapush_broker_up")).toBe(1);
    expect(scrape.value("pandapush_cluster_nodes")).toBe(1);
  });

  test("counts refusals by what was asked and why", async () => {
    const server = await start();
    const socket = await connect(server);
    await socket.subscribe(`/${appId}/private/a`);
    await socket.subscribe("/nobody/public/a");
    await socket.publish(`/${appId}/private/a`, 1, {});
    await socket.ask({ channel: "/meta/nonsense" });
    await postText(server, '[{"channel":"/meta/connect","clientId":"gone","connectionType":"x"}]');
    await http(server, "/push", { method: "POST", body: "message=nonsense" });
    await post(server, `/${appId}/private/a`, "1", "Bearer nonsense");
    const publishing = { messages: [{ channel: `/${appId}/public/*`, data: 1 }] };
    const headers = { authorization: basic, "content-type": "application/json" };
    const body = JSON.stringify(publishing);
    await http(server, `/api/${appId}/publish`, { method: "POST", headers, body });
    await http(server, "/nowhere");
    const scrape = await Scrape.of(server);
    const refused = (action: string, reason: string) =>
      scrape.value("pandapush_refusals_total", { action, reason });
    expect({
      noAuth: refused("subscribe", "noAuth"),
      unknownApplication: refused("subscribe", "unknownApplication"),
      publish: refused("publish", "noAuth"),
      other: refused("other-meta", "forbiddenChannel"),
      connect: refused("connect", "connectionTypes"),
      batch: refused("batch", "badRequest"),
      token: refused("http", "invalidToken"),
      pattern: refused("http", "invalidChannel"),
      notFound: refused("http", "notFound"),
    }).toEqual({
      noAuth: 1,
      unknownApplication: 1,
      publish: 1,
      other: 1,
      connect: 1,
      batch: 1,
      token: 1,
      pattern: 1,
      notFound: 1,
    });
  });

  test("counts answers of each API by status, and how long they took", async () => {
    const server = await start();
    await post(server, news, "1");
    await post(server, news, "2");
    await post(server, news, "{");
    await http(server, `/api/${appId}/channels`, { headers: { authorization: basic } });
    await http(server, "/admin/api/nothing");
    await http(server, "/live");
    await until(server, (scrape) => {
      const count = (api: string, status: string) =>
        scrape.value("pandapush_http_responses_total", { api, status });
      expect(count("publish", "200")).toBe(2);
      expect(count("publish", "400")).toBe(1);
      expect(count("backend", "200")).toBe(1);
      expect(count("admin", "401")).toBe(1);
      expect(count("other", "200")).toBeGreaterThanOrEqual(1);
      const name = "pandapush_http_response_duration_seconds";
      expect(scrape.value(`${name}_count`, { api: "publish" })).toBe(3);
      expect(scrape.value(`${name}_sum`, { api: "publish" })).toBeGreaterThan(0);
    });
  });

  test("shows what waits for clients that are away, and for whom most does", async () => {
    const server = await start();
    const [much, little] = [await Poller.connect(server), await Poller.connect(server)];
    await much.subscribe([news, `/${appId}/public/large`]);
    await little.subscribe(news);
    await post(server, news, '"little"');
    await post(server, `/${appId}/public/large`, JSON.stringify("x".repeat(5_000)));
    await until(server, (scrape) => {
      const [all, largest] = [
        scrape.value("pandapush_outbox_bytes"),
        scrape.value("pandapush_outbox_largest_bytes"),
      ];
      expect(largest).toBeGreaterThan(5_000);
      expect(all).toBeGreaterThan(largest);
      expect(all).toBeLessThan(largest * 1.2);
    });
    await much.poll({ advice: { timeout: 0 } });
    await little.poll({ advice: { timeout: 0 } });
    await until(server, (scrape) => expect(scrape.value("pandapush_outbox_bytes")).toBe(0));
  });

  test("counts clients that read too slowly, and sessions for which too much waited", async () => {
    const server = await start({ MAX_SOCKET_BUFFER_BYTES: "4096", MAX_OUTBOX_MESSAGES: "3" });
    const slow = await connect(server);
    await slow.subscribe(news);
    const away = await Poller.connect(server);
    await away.subscribe(`/${appId}/public/quiet`);
    slow.pause();
    const text = JSON.stringify("x".repeat(200_000));
    await vi.waitFor(async () => {
      await post(server, news, text);
      const scrape = await Scrape.of(server);
      const labels = { transport: "websocket" };
      expect(scrape.value("pandapush_slow_consumers_total", labels)).toBe(1);
    }, soon);
    for (let n = 0; n < 4; n++) await post(server, `/${appId}/public/quiet`, "1");
    await until(server, (scrape) => {
      const labels = { reason: "overflow" };
      expect(scrape.value("pandapush_sessions_ended_total", labels)).toBeGreaterThanOrEqual(1);
    });
  });

  test("shows how long the event loop was held up", async () => {
    const server = await start();
    const lag = "pandapush_event_loop_lag_seconds";
    await until(server, (scrape) => expect(scrape.value(`${lag}_count`)).toBeGreaterThan(0));
    const before = await Scrape.of(server);
    const end = performance.now() + 500;
    while (performance.now() < end);
    await until(server, (scrape) => {
      const isLate = (each: Scrape) =>
        each.value(`${lag}_count`) - each.value(`${lag}_bucket`, { le: "0.25" });
      expect(isLate(scrape)).toBeGreaterThan(isLate(before));
    });
  });

  test("says which checks of /ready are not passed", async () => {
    const server = await start();
    const scrape = await Scrape.of(server);
    const name = "pandapush_ready";
    expect(scrape.labelsOf(name, "check")).toEqual(["database", "drain", "keys", "redis"]);
    expect(scrape.value(name)).toBe(4);
  });

  test("names the largest applications only, and nothing that is secret or without bounds", async () => {
    const server = await start({ METRICS_APPLICATIONS: "2" });
    const ids = ["one", "two", "three", "four"];
    const clients: Socket[] = [];
    for (const [index, id] of ids.entries()) {
      const application = id as AppId;
      await server.store.addApplication({ id: application, name: null, createdBy: "test" });
      const fields = { secret, createdBy: "test", purpose: null, expires: null };
      await server.store.addKey({ id: `PSID${id}` as KeyId, appId: application, ...fields });
      await server.keys.changed();
      const auth = { auth: { key: `PSID${id}`, secret } };
      for (let n = 0; n <= index; n++) {
        const socket = await connect(server);
        clients.push(socket);
        await socket.subscribe(`/${id}/private/confidential`, auth);
      }
      await clients.at(-1)?.publish(`/${id}/private/confidential`, "words", auth);
      await clients.at(-1)?.event();
    }
    const scrape = await Scrape.of(server);
    const connections = "pandapush_app_connections";
    expect(scrape.labelsOf(connections, "app")).toEqual(["four", "other", "three"]);
    expect(scrape.value(connections, { app: "four" })).toBe(4);
    expect(scrape.value(connections, { app: "other" })).toBe(3);
    expect(scrape.value("pandapush_app_published_total")).toBe(4);
    expect(scrape.value("pandapush_app_published_total", { app: "other" })).toBe(2);
    for (const word of ["confidential", "words", secret, metricsToken, "PSID"]) {
      expect(scrape.text).not.toContain(word);
    }
    for (const { clientId } of clients) expect(scrape.text).not.toContain(clientId);
  });

  test("that comes while another is made gets the same", async () => {
    const server = await start();
    const all = await Promise.all(Array.from({ length: 20 }, () => Scrape.of(server)));
    for (const scrape of all) expect(scrape.value("pandapush_sessions")).toBe(0);
  });
});

describe("who gets the metrics", () => {
  const on = (port: number | undefined) => ({ url: `http://127.0.0.1:${port}` });

  test("without a token and a port of their own nobody does", async () => {
    const server = await start({ METRICS_TOKEN: "" });
    expect(server.metricsPort).toBeUndefined();
    expect(await askMetrics(server)).toMatchObject({
      status: 404,
      body: expect.stringMatching(/METRICS_TOKEN.*METRICS_PORT/),
    });
  });

  test("with a token whoever sends it, on the public port", async () => {
    const server = await start();
    expect(await askMetrics(server)).toMatchObject({ status: 200 });
    const wrong = [`${metricsToken}x`, metricsToken.slice(1), "", "x".repeat(8_000)];
    for (const token of wrong) {
      const { status, headers, body } = await askMetrics(server, token);
      expect(status).toBe(401);
      expect(headers["www-authenticate"]).toBe('Bearer realm="metrics"');
      expect(body).toContain("METRICS_TOKEN");
      expect(body).not.toContain("pandapush_");
    }
    for (const path of ["/metrics", `/metrics?token=${metricsToken}`]) {
      expect((await http(server, path)).status).toBe(401);
    }
    const headers = { authorization: `Basic ${metricsToken}` };
    expect((await http(server, "/metrics", { headers })).status).toBe(401);
    expect(server.logged.join()).not.toContain(metricsToken);
  });

  test("with a port of their own whoever reaches it, and nobody on the public one", async () => {
    const server = await start({ METRICS_PORT: "0", METRICS_TOKEN: "" });
    expect((await http(on(server.metricsPort), "/metrics")).status).toBe(200);
    expect(await askMetrics(server)).toMatchObject({
      status: 404,
      body: expect.stringContaining("METRICS_PORT"),
    });
    for (const path of ["/", "/live", "/admin", "/push", `/channel${news}`]) {
      const { status, body } = await http(on(server.metricsPort), path);
      expect(status, path).toBe(404);
      expect(body).toContain("/metrics");
    }
  });

  test("with both whoever sends the token to that port", async () => {
    const server = await start({ METRICS_PORT: "0" });
    expect((await askMetrics(server)).status).toBe(404);
    expect((await http(on(server.metricsPort), "/metrics")).status).toBe(401);
    expect((await askMetrics(on(server.metricsPort))).status).toBe(200);
  });

  test("a server that cannot have the port does not start, and listens no more", async () => {
    const listening = () =>
      process.getActiveResourcesInfo().filter((name) => name === "TCPServerWrap").length;
    // Those of other tests.
    await vi.waitFor(() => expect(listening()).toBe(0), soon);
    const one = await startTestServer({ METRICS_PORT: "0" });
    expect(listening()).toBe(2);
    const second = startTestServer({ METRICS_PORT: String(one.metricsPort) });
    await expect(second).rejects.toMatchObject({ code: "EADDRINUSE", port: one.metricsPort });
    await vi.waitFor(() => expect(listening()).toBe(2), soon);
    await one.close();
    await vi.waitFor(() => expect(listening()).toBe(0), soon);
  });
});

/** Listens as statsd does. */
class StatsdServer {
  readonly packets: string[] = [];

  private constructor(private readonly socket: UdpSocket) {
    socket.on("message", (packet) => this.packets.push(packet.toString()));
    cleanUp.push(() => socket.close());
  }

  static async listen(): Promise<StatsdServer> {
    const socket = createSocket("udp4");
    socket.bind(0, "127.0.0.1");
    await once(socket, "listening");
    return new StatsdServer(socket);
  }

  get variables(): Record<string, string> {
    const { port } = this.socket.address() as AddressInfo;
    return { STATSD_HOST: "127.0.0.1", STATSD_PORT: String(port), STATSD_INTERVAL_MS: "50" };
  }

  get lines(): string[] {
    return this.packets.flatMap((packet) => packet.split("\n"));
  }

  /** What was sent under this name and type: the sum of counts, the last of gauges. */
  value(name: string, type: "c" | "g"): number | undefined {
    const values = this.lines
      .map((line) => /^(.+):(\d+)\|(\w+)$/.exec(line))
      .filter((match) => match?.[1] === name && match[3] === type)
      .map((match) => Number(match?.[2]));
    if (values.length === 0) return undefined;
    return type === "g" ? values.at(-1) : values.reduce((sum, each) => sum + each);
  }
}

describe("statsd", () => {
  test("gets each name of 2.2, once for each time it happened", async () => {
    const statsd = await StatsdServer.listen();
    const server = await start(statsd.variables);
    const [socket, other] = [await connect(server), await connect(server)];
    const poller = await Poller.connect(server);
    await poller.poll({ advice: { timeout: 0 } });
    await socket.subscribe([news, `/${appId}/meta/statistics`], keyAuth);
    await socket.subscribe(news);
    await other.subscribe(news);
    await other.ask({ channel: "/meta/unsubscribe", subscription: news });
    await socket.publish(news, 1);
    await post(server, news, "2");
    await post(server, news, "{");
    const value = (name: string, type: "c" | "g" = "c") => statsd.value(`pandapush.${name}`, type);
    await vi.waitFor(() => {
      expect({
        handshake: value("handshake"),
        subscribe: value("subscribe"),
        unsubscribe: value("unsubscribe"),
        publish: value("publish"),
        appSubscribe: value(`apps.${appId}.subscribe`),
        appUnsubscribe: value(`apps.${appId}.unsubscribe`),
        appPublish: value(`apps.${appId}.publish`),
        ok: value("responses.all.200"),
        bad: value("responses.all.400"),
        ws: value("connections.ws", "g"),
        http: value("connections.http", "g"),
      }).toEqual({
        handshake: 3,
        subscribe: 3,
        unsubscribe: 1,
        publish: 2,
        appSubscribe: 2,
        appUnsubscribe: 1,
        appPublish: 2,
        ok: 1,
        bad: 1,
        ws: 2,
        http: 1,
      });
    }, soon);
    await socket.ask({ channel: "/meta/disconnect" });
    await vi.waitFor(() => {
      expect([value("close"), value("disconnect")]).toEqual([1, 1]);
      expect(value("unsubscribe")).toBe(3);
      expect(value("connections.ws", "g")).toBe(1);
    }, soon);
    const durations = statsd.lines.filter((line) =>
      /^pandapush\.duration\.all:\d+\|ms$/.test(line),
    );
    expect(durations).toHaveLength(2);
    const names = Object.values<Metric>(table).flatMap(({ statsd: own = [] }) => own);
    const isKnown = (line: string): boolean =>
      names.some(({ name, type }) =>
        new RegExp(`^pandapush\\.${name.replace(/<[^>]+>/g, "[\\w-]+")}:\\d+\\|${type}$`).test(
          line,
        ),
      );
    expect(statsd.lines.filter((line) => !isKnown(line))).toEqual([]);
    for (const { name } of names) {
      const start = `pandapush.${name.replace("<application id>", appId).replace("<status>", "200")}:`;
      expect(
        statsd.lines.some((line) => line.startsWith(start)),
        name,
      ).toBe(true);
    }
  });

  test("gets packets that fit into a frame, under the prefix, and the last when the server ends", async () => {
    const statsd = await StatsdServer.listen();
    const server = await startTestServer({
      ...statsd.variables,
      STATSD_PREFIX: "shop.push",
      STATSD_INTERVAL_MS: "3600000",
    });
    const socket = await Socket.connect(server);
    for (let n = 0; n < 100; n++) await post(server, news, "1");
    // What fills a packet does not wait.
    await vi.waitFor(() => expect(statsd.packets.length).toBeGreaterThan(0), soon);
    await server.close();
    socket.close();
    await vi.waitFor(() => {
      expect(statsd.value("shop.push.publish", "c")).toBe(100);
      expect(statsd.value("shop.push.close", "c")).toBe(1);
      expect(statsd.lines.filter((line) => line.endsWith("|ms"))).toHaveLength(100);
    }, soon);
    for (const packet of statsd.packets) expect(packet.length).toBeLessThanOrEqual(1_432);
  });

  test("that is not there is reported once, and disturbs nobody", async () => {
    const server = await start({ STATSD_HOST: "statsd.invalid", STATSD_INTERVAL_MS: "10" });
    const complaints = () => server.logged.filter((line) => line.includes("statsd"));
    await vi.waitFor(() => expect(complaints()).toHaveLength(1), { ...soon, timeout: 30_000 });
    const socket = await connect(server);
    await socket.subscribe(news);
    for (let n = 0; n < 200; n++) await post(server, news, "1");
    await socket.event(news);
    expect(complaints()).toHaveLength(1);
  });
});

describe("in a cluster", () => {
  test("shows the nodes, and how the Redis hosts are and answer", async () => {
    const redis = await TestRedis.start();
    cleanUp.push(() => redis.stop());
    const variables = { REDIS_HOSTS: redis.address, REDIS_PREFIX: "metrics:" };
    const [one, two] = [await start(variables), await start(variables)];
    const host = { host: redis.address };
    const [here, there] = [await connect(one), await connect(two)];
    await here.subscribe(news);
    await there.subscribe(news);
    await here.publish(news, "hello");
    await there.event(news);
    await here.event(news);
    await until(one, (scrape) => {
      expect(scrape.value("pandapush_cluster_nodes")).toBe(2);
      expect(scrape.value("pandapush_broker_up", host)).toBe(1);
      expect(scrape.value("pandapush_ready", { check: "redis" })).toBe(1);
      const took = "pandapush_broker_publish_duration_seconds";
      expect(scrape.value(`${took}_count`, host)).toBe(1);
      expect(scrape.value(`${took}_sum`, host)).toBeGreaterThan(0);
      expect(scrape.value("pandapush_published_total")).toBe(1);
    });
    const other = await Scrape.of(two);
    expect(other.value("pandapush_published_total")).toBe(0);
    expect(other.value("pandapush_delivered_total")).toBe(1);

    await redis.kill();
    await until(one, (scrape) => {
      expect(scrape.value("pandapush_broker_up", host)).toBe(0);
      expect(scrape.value("pandapush_ready", { check: "redis" })).toBe(0);
    });
    expect((await post(one, news, "1")).status).toBe(503);
    await redis.restart();
    await until(one, (scrape) => {
      expect(scrape.value("pandapush_broker_up", host)).toBe(1);
      expect(scrape.value("pandapush_broker_missed_total")).toBeGreaterThanOrEqual(1);
      const refusal = { action: "http", reason: "brokerUnavailable" };
      expect(scrape.value("pandapush_refusals_total", refusal)).toBe(1);
    });
  }, 60_000);

  test("a session that goes to another node begins and ends nothing in statsd", async () => {
    const statsd = await StatsdServer.listen();
    const redis = await TestRedis.start();
    cleanUp.push(() => redis.stop());
    const variables = { REDIS_HOSTS: redis.address, REDIS_PREFIX: "metrics:" };
    const [one, two] = [
      await start({ ...variables, ...statsd.variables, STATSD_PREFIX: "one" }),
      await start({ ...variables, ...statsd.variables, STATSD_PREFIX: "two" }),
    ];
    const born = await Poller.connect(one);
    await born.subscribe(news);
    const socket = await Socket.open(two);
    cleanUp.push(() => socket.close());
    socket.clientId = born.clientId;
    socket.sendConnect();
    await until(two, (scrape) => expect(scrape.value("pandapush_sessions")).toBe(1));
    await until(one, (scrape) => {
      expect(scrape.value("pandapush_sessions")).toBe(0);
      expect(scrape.value("pandapush_sessions_ended_total", { reason: "moved" })).toBe(1);
    });
    await socket.ask({ channel: "/meta/disconnect" });
    await vi.waitFor(() => {
      const values = (prefix: string) =>
        ["handshake", "close", "subscribe", "unsubscribe"].map((name) =>
          statsd.value(`${prefix}.${name}`, "c"),
        );
      expect(values("one")).toEqual([1, undefined, 1, undefined]);
      expect(values("two")).toEqual([undefined, 1, undefined, 1]);
    }, soon);
  }, 60_000);
});
