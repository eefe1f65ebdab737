import { once } from "node:events";
import net from "node:net";

/** A wire between clients and a server that can be listened to, and that can go dead. */
export class Wire {
  /** All that clients have sent, as text. */
  sent = "";
  readonly #listener: net.Server;
  readonly #sockets = new Set<net.Socket>();
  #isMute = false;
  #isCut = false;

  static async to(url: string): Promise<Wire> {
    const wire = new Wire(new URL(url));
    wire.#listener.listen(0, "127.0.0.1");
    await once(wire.#listener, "listening");
    return wire;
  }

  private constructor({ hostname, port }: URL) {
    this.#listener = net.createServer((client) => {
      if (this.#isCut) {
        client.destroy();
        return;
      }
      const server = net.connect(Number(port), hostname);
      for (const socket of [client, server]) {
        this.#sockets.add(socket);
        // An error is followed by close.
        socket.on("error", () => {});
        socket.on("close", () => {
          this.#sockets.delete(socket);
          client.destroy();
          server.destroy();
        });
      }
      client.on("data", (bytes) => {
        this.sent += bytes.toString("latin1");
        server.write(bytes);
      });
      server.on("data", (bytes) => {
        if (!this.#isMute) client.write(bytes);
      });
    });
  }

  get port(): number {
    return (this.#listener.address() as net.AddressInfo).port;
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  /** From now on nothing that the server says arrives. */
  mute(): void {
    this.#isMute = true;
  }

  /** Breaks every connection, and new ones too until `mend`. */
  cut(): void {
    this.#isCut = true;
    for (const socket of this.#sockets) socket.destroy();
  }

  mend(): void {
    this.#isCut = false;
    this.#isMute = false;
  }

  async close(): Promise<void> {
    this.cut();
    this.#listener.close();
    await once(this.#listener, "close");
  }
}
