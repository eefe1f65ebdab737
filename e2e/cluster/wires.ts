/**
 * The wires between nodes and one Redis host, which can be stalled for each node by itself. All
 * nodes use the same address, because they must know a host by the same name: a node is told
 * apart by the user that it logs in as.
 */
import { once } from "node:events";
import net from "node:net";

const userPattern = /\r\n(node\d+)\r\n/;

export class RedisWires {
  readonly #listener: net.Server;
  readonly #wires = new Set<Wire>();
  readonly #stalled = new Set<string>();

  static async start(redisPort: number): Promise<RedisWires> {
    const wires = new RedisWires(redisPort);
    wires.#listener.listen(0, "127.0.0.1");
    await once(wires.#listener, "listening");
    return wires;
  }

  private constructor(redisPort: number) {
    this.#listener = net.createServer((node) => {
      const wire = new Wire(node, redisPort, (user) => this.#stalled.has(user));
      this.#wires.add(wire);
      node.on("close", () => this.#wires.delete(wire));
    });
  }

  get port(): number {
    const address = this.#listener.address();
    if (address === null || typeof address === "string") throw new Error("the wires are closed");
    return address.port;
  }

  /** Nothing passes between this node and Redis any more, ends of connections included. */
  stall(user: string): void {
    this.#stalled.add(user);
  }

  /** What was held back passes now, and all that comes. */
  flow(user: string): void {
    this.#stalled.delete(user);
    for (const wire of this.#wires) wire.goOn();
  }

  async close(): Promise<void> {
    for (const wire of this.#wires) wire.destroy();
    this.#listener.close();
    await once(this.#listener, "close");
  }
}

class Wire {
  readonly #node: net.Socket;
  readonly #redis: net.Socket;
  readonly #isStalled: (user: string) => boolean;
  /** What the node has said, until it is known who it is. */
  #said = "";
  #user = "";
  #waiting: (() => void)[] = [];

  constructor(node: net.Socket, redisPort: number, isStalled: (user: string) => boolean) {
    this.#node = node;
    this.#redis = net.connect({ port: redisPort, host: "127.0.0.1", noDelay: true });
    this.#isStalled = isStalled;
    node.setNoDelay();
    node.on("data", (chunk: Buffer) => this.#identify(chunk));
    for (const [from, to] of [
      [node, this.#redis],
      [this.#redis, node],
    ] as const) {
      from.on("data", (chunk) => this.#do(() => to.write(chunk)));
      from.on("error", () => undefined);
      from.on("close", () => this.#do(() => to.destroy()));
    }
  }

  goOn(): void {
    if (this.#isStalled(this.#user)) return;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const each of waiting) each();
  }

  destroy(): void {
    this.#node.destroy();
    this.#redis.destroy();
  }

  #identify(chunk: Buffer): void {
    if (this.#user !== "") return;
    this.#said += chunk.toString("latin1");
    this.#user = userPattern.exec(this.#said)?.[1] ?? "";
  }

  #do(work: () => void): void {
    if (this.#isStalled(this.#user)) this.#waiting.push(work);
    else work();
  }
}
