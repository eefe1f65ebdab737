/** That the balancer is as good as a real one: what the cluster's tests find is the cluster's. */
import { once } from "node:events";
import http from "node:http";
import net from "node:net";
import { afterEach, expect, test } from "vitest";
import { Inbox } from "../waiting.js";
import { Balancer } from "./balancer.js";

const cleanUp: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const each of cleanUp.splice(0).reverse()) await each();
});

interface Backend {
  readonly port: number;
  isInRotation: boolean;
}

/** Servers that each do as they are told, behind a balancer. */
async function balanced(
  count: number,
  handle: (
    index: number,
    request: http.IncomingMessage,
    response: http.ServerResponse,
    server: http.Server,
  ) => void,
  onUpgrade?: (index: number, socket: net.Socket) => void,
): Promise<{ balancer: Balancer; backends: Backend[]; servers: http.Server[] }> {
  const servers: http.Server[] = [];
  const backends: Backend[] = [];
  for (let index = 0; index < count; index++) {
    const server = http.createServer((request, response) =>
      handle(index, request, response, server),
    );
    server.on("upgrade", (_, socket) => onUpgrade?.(index, socket as net.Socket));
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    cleanUp.push(async () => {
      server.closeAllConnections();
      server.close();
    });
    servers.push(server);
    backends.push({ port: (server.address() as net.AddressInfo).port, isInRotation: true });
  }
  const balancer = await Balancer.start(backends);
  cleanUp.push(() => balancer.close());
  return { balancer, backends, servers };
}

async function get(url: string, agent?: http.Agent): Promise<string> {
  const [response] = (await once(
    http.get(url, { ...(agent === undefined ? {} : { agent }) }),
    "response",
  )) as [http.IncomingMessage];
  let text = "";
  for await (const chunk of response) text += chunk;
  return `${response.statusCode} ${text}`;
}

test("requests of one connection go to one node after the other, and past those out of rotation", async () => {
  const { balancer, backends } = await balanced(3, (index, _, response) => {
    response.end(String(index));
  });
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  cleanUp.push(async () => agent.destroy());
  const answers = async (count: number): Promise<string[]> => {
    const texts: string[] = [];
    while (texts.length < count) texts.push(await get(balancer.url, agent));
    return texts;
  };
  expect(await answers(6)).toEqual(["200 0", "200 1", "200 2", "200 0", "200 1", "200 2"]);
  const [, second] = backends;
  if (second) second.isInRotation = false;
  expect(new Set(await answers(4))).toEqual(new Set(["200 0", "200 2"]));
});

test("a refused connection is tried at the next node; without any the answer is 502", async () => {
  const { balancer, servers } = await balanced(2, (index, _, response) => {
    response.end(String(index));
  });
  servers[0]?.close();
  servers[0]?.closeAllConnections();
  for (let n = 0; n < 3; n++) expect(await get(balancer.url)).toBe("200 1");
  servers[1]?.close();
  servers[1]?.closeAllConnections();
  expect(await get(balancer.url)).toBe("502 ");
});

test("what a node was sent is sent to no other when it dies over it", async () => {
  const asked: number[] = [];
  const { balancer } = await balanced(2, (index, request) => {
    asked.push(index);
    request.socket.destroy();
  });
  const response = await fetch(balancer.url, { method: "POST", body: "once" });
  expect([response.status, asked]).toEqual([502, [0]]);
});

test("bodies, headers and the client's address pass; streams pass as they come", async () => {
  const pieces: http.ServerResponse[] = [];
  const { balancer } = await balanced(1, async (_, request, response) => {
    if (request.url === "/stream") {
      response.writeHead(200, { "Content-Type": "text/event-stream" });
      response.flushHeaders();
      pieces.push(response);
      return;
    }
    let body = "";
    for await (const chunk of request) body += chunk;
    response.setHeader("Set-Cookie", ["a=1", "b=2"]);
    response.end(`${request.method} ${body} ${request.headers["x-forwarded-for"]}`);
  });
  const posted = await fetch(balancer.url, { method: "POST", body: "text" });
  expect(await posted.text()).toBe("POST text 127.0.0.1");
  expect(posted.headers.getSetCookie()).toEqual(["a=1", "b=2"]);
  expect(posted.headers.get("content-length")).toBe("19");

  const stream = await fetch(`${balancer.url}/stream`);
  const reader = stream.body?.getReader();
  for (const piece of ["data: one\n\n", "data: two\n\n"]) {
    pieces[0]?.write(piece);
    expect(Buffer.from((await reader?.read())?.value ?? "").toString()).toBe(piece);
  }
  pieces[0]?.end();
  expect((await reader?.read())?.done).toBe(true);
});

test("a node learns that its client has gone, whether it has begun to answer or not", async () => {
  const opened = new Inbox<string>("request");
  const closed = new Inbox<string>("end of a response");
  const { balancer } = await balanced(1, (_, request, response) => {
    if (request.url === "/begun") response.write("begun");
    response.on("close", () => closed.push(request.url ?? ""));
    opened.push(request.url ?? "");
  });
  for (const path of ["/begun", "/held"]) {
    const request = http.get(`${balancer.url}${path}`).on("error", () => undefined);
    await opened.next();
    request.destroy();
    expect(await closed.next()).toBe(path);
  }
});

test("of an upgraded connection each direction ends by itself", async () => {
  const atNode = new Inbox<net.Socket>("upgrade");
  const { balancer } = await balanced(
    1,
    () => undefined,
    (_, socket) => {
      socket.write(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: raw\r\nConnection: Upgrade\r\n\r\n",
      );
      atNode.push(socket);
    },
  );
  const open = async (): Promise<[net.Socket, net.Socket]> => {
    const headers = { Connection: "Upgrade", Upgrade: "raw" };
    const request = http.get(balancer.url, {
      headers,
      createConnection: () =>
        net.connect({
          port: Number(new URL(balancer.url).port),
          host: "127.0.0.1",
          allowHalfOpen: true,
        }),
    });
    const [, socket] = (await once(request, "upgrade")) as [unknown, net.Socket];
    return [socket, await atNode.next()];
  };
  const heard = async (socket: net.Socket): Promise<string> => {
    let text = "";
    for await (const chunk of socket.iterator({ destroyOnReturn: false })) text += chunk;
    return text;
  };
  const [client, node] = await open();
  client.end("the client's last word");
  expect(await heard(node)).toBe("the client's last word");
  node.end("the node's last word");
  expect(await heard(client)).toBe("the node's last word");

  // Broken off, not ended: the other side learns of it too.
  for (const which of [0, 1] as const) {
    const ends = await open();
    const other = ends[1 - which] as net.Socket;
    other.on("error", () => undefined);
    other.resume();
    const closed = once(other, "close");
    ends[which].destroy();
    other.on("end", () => other.end());
    await closed;
  }
});
