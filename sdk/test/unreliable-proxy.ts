import { once } from "node:events";
import http, { type IncomingHttpHeaders } from "node:http";
import type { AddressInfo } from "node:net";
import { buffer } from "node:stream/consumers";

/** What becomes of a request, instead of being passed on. */
export type Fate =
  /** The server does it, and its answer is lost. */
  | "lose"
  /** The server does it, and its answer does not come. */
  | "stall"
  | {
      readonly status: number;
      readonly headers?: Readonly<Record<string, string>>;
      readonly body?: string;
    };

export interface Seen {
  readonly method: string;
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
}

/** Stands in front of a server, as a network and its proxies do. */
export class UnreliableProxy {
  readonly seen: Seen[] = [];
  /** Of the requests to come; then they are passed on. */
  fates: Fate[] = [];
  readonly #server: http.Server;

  private constructor(private readonly target: string) {
    this.#server = http.createServer((request, response) => {
      this.#pass(request, response).catch(() => response.destroy());
    });
  }

  static async start(target: string): Promise<UnreliableProxy> {
    const front = new UnreliableProxy(target);
    front.#server.listen(0, "127.0.0.1");
    await once(front.#server, "listening");
    return front;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** The requests since it was asked last. */
  take(): Seen[] {
    return this.seen.splice(0);
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, "close");
  }

  async #pass(request: http.IncomingMessage, response: http.ServerResponse): Promise<void> {
    const { method = "", url: path = "", headers } = request;
    this.seen.push({ method, path, headers });
    const fate = this.fates.shift();
    const body = await buffer(request);
    if (typeof fate === "object") {
      response.writeHead(fate.status, fate.headers).end(fate.body);
      return;
    }
    // A connection of its own: one that is kept may be closed at this very moment.
    const passed = http.request(`${this.target}${path}`, { method, headers, agent: false });
    passed.end(body);
    const [answer] = (await once(passed, "response")) as [http.IncomingMessage];
    const text = await buffer(answer);
    if (fate === "stall") return;
    if (fate === "lose") request.socket.destroy();
    else response.writeHead(answer.statusCode ?? 502, answer.headers).end(text);
  }
}
