import { once } from "node:events";
import http from "node:http";
import type { AddressInfo } from "node:net";
import type { Message } from "pandapush-client";
import { type WebSocket, WebSocketServer } from "ws";
import { Inbox } from "../../e2e/waiting.js";

/**
 * What the server replies to a message: another reply than the usual one, several messages in one
 * batch, `undefined` for the usual one, or `null` for none.
 */
export type Answer = (message: Message, usual: Message) => Message | Message[] | undefined | null;

/** A Bayeux server that does what a test says, such as what Pandapush does not do. */
export class FakeServer {
  /** In order of arrival. */
  readonly received = new Inbox<Message>("message at the server");
  /** All of them, too. */
  readonly log: Message[] = [];
  readonly #http: http.Server;
  readonly #sockets = new Set<WebSocket>();
  #sessions = 0;

  /** @param answer is asked first */
  static async start(answer: Answer = () => undefined): Promise<FakeServer> {
    const server = new FakeServer(answer);
    server.#http.listen(0, "127.0.0.1");
    await once(server.#http, "listening");
    return server;
  }

  private constructor(private readonly answer: Answer) {
    this.#http = http.createServer((request, response) => {
      let text = "";
      request.on("data", (part) => {
        text += part;
      });
      request.on("end", () => {
        const replies = this.#take(text);
        // A connect that is held.
        if (replies !== undefined) response.end(JSON.stringify(replies));
      });
    });
    new WebSocketServer({ server: this.#http }).on("connection", (socket) => {
      this.#sockets.add(socket);
      socket.on("message", (text) => {
        const replies = this.#take(String(text));
        if (replies !== undefined) socket.send(JSON.stringify(replies));
      });
    });
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#http.address() as AddressInfo).port}/push`;
  }

  /** What has come: channels, and of what a subscribe or unsubscribe was. */
  get names(): readonly string[] {
    return this.log.map(({ channel, subscription }) =>
      subscription === undefined ? channel : `${channel} of ${subscription}`,
    );
  }

  /** To each WebSocket. */
  push(...messages: Message[]): void {
    for (const socket of this.#sockets) socket.send(JSON.stringify(messages));
  }

  /** Breaks every connection; new ones are welcome. */
  cut(): void {
    for (const socket of this.#sockets) socket.terminate();
    this.#sockets.clear();
    this.#http.closeAllConnections();
  }

  /** Reads nothing any more from those who are connected, and so never agrees to an end. */
  deafen(): void {
    for (const socket of this.#sockets) socket.pause();
  }

  async stop(): Promise<void> {
    this.cut();
    this.#http.close();
    await once(this.#http, "close");
  }

  #take(text: string): Message[] | undefined {
    const messages = JSON.parse(text) as Message[];
    const replies = messages.map((message) => {
      this.log.push(message);
      this.received.push(message);
      const { channel, id, clientId, subscription } = message;
      const usual = { channel, id, clientId, subscription, successful: true } as Message;
      if (channel === "/meta/handshake") {
        usual.clientId = `session${++this.#sessions}`;
        usual.supportedConnectionTypes = ["websocket", "long-polling"];
      }
      const isHeld = channel === "/meta/connect" && message.advice?.timeout !== 0;
      const reply = this.answer(message, usual);
      return reply === undefined ? (isHeld ? null : usual) : reply;
    });
    const given = replies.filter((reply) => reply !== null).flat();
    return given.length > 0 || messages.length === 0 ? given : undefined;
  }
}
