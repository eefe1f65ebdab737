import { once } from "node:events";
import net from "node:net";
import { Transform } from "node:stream";
import { setTimeout as delay } from "node:timers/promises";
import { promptMs } from "./waiting.js";

/**
 * A TCP proxy in front of a server, to cut the wires between it and its clients, or to make them
 * slow or silent.
 */
export class TcpProxy {
  /** How many connections clients have tried to open. */
  attempts = 0;
  #bytesPerSecond = Number.POSITIVE_INFINITY;
  readonly #listener: net.Server;
  readonly #wires = new Map<net.Socket, net.Socket>();
  readonly #gates = new Map<net.Socket, Gate>();
  #isCut = false;
  #isStalled = false;
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
      this.attempts += 1;
      if (this.#isCut) {
        client.destroy();
        return;
      }
      const server = net.connect(port, host);
      this.#wires.set(client, server);
      client.on("close", () => {
        this.#wires.delete(client);
        this.#gates.delete(client);
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
      const gate = new Gate();
      if (this.#isStalled) gate.shut();
      this.#gates.set(client, gate);
      client.pipe(this.#throttle(gate)).pipe(server);
      server.pipe(this.#throttle(gate)).pipe(client);
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

  /** Nothing passes any more, in either direction, and nobody is told; nor on new connections. */
  stall(): void {
    this.#isStalled = true;
    for (const gate of this.#gates.values()) gate.shut();
  }

  /** What was held back passes now, and all that comes. */
  flow(): void {
    this.#isStalled = false;
    for (const gate of this.#gates.values()) gate.open();
  }

  /** The connections there are become silent for ever, as when a router forgets them. */
  forget(): void {
    for (const gate of this.#gates.values()) gate.shut();
    this.#gates.clear();
  }

  /** From now on new connections pass so many bytes in a second, each way. */
  slow(bytesPerSecond: number): void {
    this.#bytesPerSecond = bytesPerSecond;
  }

  #throttle(gate: Gate): Transform {
    const bytesPerSecond = this.#bytesPerSecond;
    return new Transform({
      highWaterMark: 1_024,
      transform(chunk: Buffer, _encoding, done) {
        const delayMs = (1_000 * chunk.length) / bytesPerSecond;
        const pass = (): void => gate.pass(() => done(null, chunk));
        if (delayMs < 1) pass();
        else setTimeout(pass, delayMs);
      },
    });
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

/** Lets things pass in order, or holds them back while it is shut. */
class Gate {
  #isShut = false;
  #waiting: (() => void)[] = [];

  pass(go: () => void): void {
    if (this.#isShut) this.#waiting.push(go);
    else go();
  }

  shut(): void {
    this.#isShut = true;
  }

  open(): void {
    this.#isShut = false;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const go of waiting) go();
  }
}
