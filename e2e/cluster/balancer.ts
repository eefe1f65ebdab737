/**
 * A load balancer that knows nothing of sessions: every HTTP request and every upgrade goes to the
 * next node, whichever connection it came by. Streams pass as they come. Connections that were
 * refused are tried at the next node; what a node was sent already is never sent again.
 */
import { once } from "node:events";
import http from "node:http";
import net from "node:net";
import type { Duplex } from "node:stream";

/** Where requests can go. */
export interface Target {
  readonly port: number;
  /** Whether the balancer may choose it; asked for each request. */
  readonly isInRotation: boolean;
}

/** RFC 9110, section 7.6.1: they concern one connection, and there are two. */
const hopByHop = new Set(["connection", "keep-alive", "proxy-connection", "transfer-encoding"]);

export class Balancer {
  /** The ports that requests and upgrades went to, in their order: `POST /push`, say, and where. */
  readonly sent: { readonly what: string; readonly port: number }[] = [];
  readonly #server: http.Server;
  readonly #targets: readonly Target[];
  readonly #upgraded = new Set<Duplex>();
  #next = 0;

  /** @param port a free one unless told otherwise */
  static async start(targets: readonly Target[], port = 0): Promise<Balancer> {
    const balancer = new Balancer(targets);
    balancer.#server.listen(port, "127.0.0.1");
    await once(balancer.#server, "listening");
    return balancer;
  }

  private constructor(targets: readonly Target[]) {
    this.#targets = targets;
    this.#server = http.createServer({ keepAliveTimeout: 75_000 });
    this.#server.on("request", (request, response) => this.#pass(request, response));
    this.#server.on("upgrade", (request, socket, head) => this.#upgrade(request, socket, head));
  }

  get url(): string {
    const address = this.#server.address();
    if (address === null || typeof address === "string") throw new Error("the balancer is closed");
    return `http://127.0.0.1:${address.port}`;
  }

  get wsUrl(): string {
    return `${this.url.replace("http", "ws")}/push`;
  }

  get pushUrl(): string {
    return `${this.url}/push`;
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    for (const socket of this.#upgraded) socket.destroy();
    this.#server.close();
    await once(this.#server, "close");
  }

  /** All that may be chosen, the next one first. */
  #choose(): readonly Target[] {
    const living = this.#targets.filter(({ isInRotation }) => isInRotation);
    const first = this.#next++ % Math.max(living.length, 1);
    return [...living.slice(first), ...living.slice(0, first)];
  }

  /**
   * Connects to the first that accepts, so that whoever asks it afterwards is sure not to ask twice.
   * @returns undefined when nobody accepts
   */
  async #connect(what: string): Promise<net.Socket | undefined> {
    for (const { port } of this.#choose()) {
      const socket = net.connect({ port, host: "127.0.0.1", noDelay: true, allowHalfOpen: true });
      // It is followed by close, which is what everybody here waits for.
      socket.on("error", () => undefined);
      const isOpen = await new Promise((resolve) => {
        socket.once("connect", () => resolve(true)).once("close", () => resolve(false));
      });
      if (!isOpen) continue;
      this.sent.push({ what, port });
      return socket;
    }
    return undefined;
  }

  async #pass(request: http.IncomingMessage, response: http.ServerResponse): Promise<void> {
    const { method = "GET", url: path = "/" } = request;
    const upstream = await this.#connect(`${method} ${path}`);
    const refuse = (): void => {
      if (response.headersSent) response.destroy();
      else response.writeHead(502).end();
    };
    if (upstream === undefined) return refuse();
    const headers = [...passedOn(request), "Connection", "close"];
    const asked = http.request({ method, path, headers, createConnection: () => upstream });
    // The client has gone, or has everything: either way nobody needs the node's end any more.
    response.on("close", () => asked.destroy());
    if (response.closed) asked.destroy();
    asked.on("error", refuse);
    asked.on("response", (answer) => {
      const { statusCode = 502, statusMessage } = answer;
      response.writeHead(statusCode, statusMessage, passedOn(answer));
      response.flushHeaders();
      answer.on("error", refuse);
      answer.pipe(response);
    });
    request.pipe(asked);
  }

  async #upgrade(request: http.IncomingMessage, client: Duplex, head: Buffer): Promise<void> {
    this.#upgraded.add(client);
    client.on("error", () => undefined);
    client.once("close", () => this.#upgraded.delete(client));
    const { method = "GET", url: path = "/" } = request;
    const node = await this.#connect(`upgrade ${path}`);
    if (node === undefined || client.destroyed) {
      node?.destroy();
      client.end("HTTP/1.1 502 Bad Gateway\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
      return;
    }
    // What the node answers passes as it is, also when it refuses the upgrade.
    const { upgrade = "" } = request.headers;
    const headers = [...passedOn(request), "Connection", "Upgrade", "Upgrade", upgrade];
    const lines = [`${method} ${path} HTTP/1.1`];
    for (let i = 0; i < headers.length; i += 2) lines.push(`${headers[i]}: ${headers[i + 1]}`);
    node.write(`${lines.join("\r\n")}\r\n\r\n`);
    node.write(head);
    // An end in one direction passes as one; the other direction goes on.
    client.pipe(node);
    node.pipe(client);
    client.once("close", () => node.destroy());
    node.once("close", () => {
      // What came before the end is still on its way to the client.
      if (node.readableEnded) client.end();
      else client.destroy();
    });
  }
}

/** The headers, names and values in turn, with the client's address among them. */
function passedOn(message: http.IncomingMessage): string[] {
  const { rawHeaders, socket } = message;
  const isRequest = message.method !== undefined && message.method !== null;
  const passed: string[] = [];
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const [name = "", value = ""] = rawHeaders.slice(i, i + 2);
    if (!hopByHop.has(name.toLowerCase()) && !(isRequest && name.toLowerCase() === "upgrade")) {
      passed.push(name, value);
    }
  }
  if (isRequest) passed.push("X-Forwarded-For", socket.remoteAddress ?? "");
  return passed;
}
