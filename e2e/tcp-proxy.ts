import { once } from "node:events";
import net from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { promptMs } from "./waiting.js";

/** A TCP proxy in front of a server, to cut the wires between it and its clients. */
export class TcpProxy {
  readonly #listener: net.Server;
  readonly #wires = new Map<net.Socket, net.Socket>();
  #isCut = false;
  #lastByteAt = Date.now();

  /** Listens on a free port and forwards to the host and port of `url`. */
  static async start(url: string): Promise<TcpProxy> {
    const { hostname, port } = new URL(url);
    const proxy = new TcpProxy(hostname, Number(port));
    proxy.#listener.listen(0, "127.0.0.1");
    await once(proxy.#listener, "listening");
    return proxy;
  }

  private constructor(host: string, port: number) {
    this.#listener = net.createServer((client) => {
      if (this.#isCut) {
        client.destroy();
        return;
      }
      const server = net.connect(port, host);
      this.#wires.set(client, server);
      client.on("close", () => {
        this.#wires.delete(client);
        server.end();
        server.resume();
      });
      server.on("close", () => client.destroy());
      // An error is followed by close, which is all that matters to a wire.
      client.on("error", () => client.destroy());
      server.on("error", () => server.destroy());
      const note = () => {
        this.#lastByteAt = Date.now();
      };
      client.on("data", note);
      server.on("data", note);
      client.pipe(server);
      server.pipe(client);
    });
  }

  get url(): string {
    const address = this.#listener.address();
    if (address === null || typeof address === "string") throw new Error("the proxy is closed");
    return `http://127.0.0.1:${address.port}`;
  }

  /** Resolves when nothing has passed for a while: what the client wants to say is said. */
  async idle(quietMs = 200): Promise<void> {
    const deadline = Date.now() + promptMs;
    for (;;) {
      const quietFor = Date.now() - this.#lastByteAt;
      if (quietFor >= quietMs) return;
      if (Date.now() > deadline) throw new Error(`the wires were busy for ${promptMs} ms`);
      await delay(quietMs - quietFor);
    }
  }

  /**
   * Breaks every connection and refuses new ones. Resolves when the server has closed its ends:
   * from then on it knows that nothing it writes there arrives.
   */
  async cut(): Promise<void> {
    this.#isCut = true;
    const closed: Promise<unknown>[] = [];
    for (const [client, server] of this.#wires) {
      if (!server.closed) {
        closed.push(once(server, "close", { signal: AbortSignal.timeout(promptMs) }));
      }
      client.destroy();
    }
    await Promise.all(closed);
  }

  /** Lets new connections through again. */
  mend(): void {
    this.#isCut = false;
  }

  async close(): Promise<void> {
    for (const [client, server] of this.#wires) {
      client.destroy();
      server.destroy();
    }
    this.#listener.close();
    await once(this.#listener, "close");
  }
}
