/** Clients that look alike whatever they travel by, and plain HTTP for what must be seen exactly. */
import { type IncomingHttpHeaders, type RequestOptions, request } from "node:http";
import { connect } from "node:net";
import { appId, type Message, Poller, Socket, token } from "../harness.js";

/** A client with a session whose events can be waited for. */
export interface Peer {
  readonly clientId: string;
  ask(message: object): Promise<Message>;
  subscribe(subscription: string | readonly string[], ext?: object): Promise<Message>;
  publish(channel: string, data: unknown, ext?: object): Promise<Message>;
  /** The next message that is no reply to this client. */
  event(channel?: string): Promise<Message>;
  /** Ends the session as a client does that leaves in order. */
  disconnect(): Promise<void>;
}

class SocketPeer implements Peer {
  constructor(readonly socket: Socket) {}

  get clientId(): string {
    return this.socket.clientId;
  }

  ask(message: object): Promise<Message> {
    return this.socket.ask(message);
  }

  subscribe(subscription: string | readonly string[], ext?: object): Promise<Message> {
    return this.socket.subscribe(subscription, ext);
  }

  publish(channel: string, data: unknown, ext?: object): Promise<Message> {
    return this.socket.publish(channel, data, ext);
  }

  event(channel?: string): Promise<Message> {
    return this.socket.next((message) => isEvent(message, channel));
  }

  async disconnect(): Promise<void> {
    await this.socket.ask({ channel: "/meta/disconnect" });
    await this.socket.closing();
  }
}

class PollingPeer implements Peer {
  private readonly received: Message[] = [];

  constructor(readonly poller: Poller) {}

  get clientId(): string {
    return this.poller.clientId;
  }

  ask(message: object): Promise<Message> {
    return this.poller.ask(message);
  }

  subscribe(subscription: string | readonly string[], ext?: object): Promise<Message> {
    return this.poller.subscribe(subscription, ext);
  }

  publish(channel: string, data: unknown, ext?: object): Promise<Message> {
    return this.poller.publish(channel, data, ext);
  }

  async event(channel?: string): Promise<Message> {
    const signal = AbortSignal.timeout(5_000);
    for (;;) {
      const index = this.received.findIndex((message) => isEvent(message, channel));
      const [found] = index === -1 ? [] : this.received.splice(index, 1);
      if (found !== undefined) return found;
      this.received.push(...(await this.poller.poll({}, { signal })));
    }
  }

  async disconnect(): Promise<void> {
    await this.poller.ask({ channel: "/meta/disconnect" });
  }
}

/** Replies to this client have an id; what the server says by itself has another or none. */
function isEvent(message: Message, channel: string | undefined): boolean {
  const isReply = message.successful !== undefined && message.id !== undefined;
  const isConnectReply = message.channel === "/meta/connect";
  return !isReply && !isConnectReply && (channel === undefined || message.channel === channel);
}

type Server = { readonly wsUrl: string; readonly pushUrl: string };

export const transports: readonly [string, (server: Server) => Promise<Peer>][] = [
  ["WebSocket", async (server) => new SocketPeer(await Socket.connect(server))],
  ["long-polling", async (server) => new PollingPeer(await Poller.connect(server))],
];

/** Everything that comes before the event on `marker`, which is left out. */
export async function eventsBefore(peer: Pick<Peer, "event">, marker: string): Promise<Message[]> {
  const events: Message[] = [];
  for (;;) {
    const event = await peer.event();
    if (event.channel === marker) return events;
    events.push(event);
  }
}

let channels = 0;
/** A channel that no other test uses. */
export function freshChannel(kind = "public"): string {
  return `/${appId}/${kind}/c${++channels}`;
}

/** `ext` of a presence subscription. */
export function member(channel: string, presence: unknown): object {
  return { auth: { token: token({ channel, sub: true, pub: true, presence }) } };
}

export interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

/** One HTTP request with exactly these headers; `path` begins behind the host. */
export function http(
  server: { readonly url: string },
  path: string,
  { body, ...options }: RequestOptions & { readonly body?: string | Buffer } = {},
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const sent = request(`${server.url}${path}`, { agent: false, ...options }, (response) => {
      const chunks: Buffer[] = [];
      response.on("data", (chunk: Buffer) => chunks.push(chunk));
      response.on("error", reject);
      response.on("end", () =>
        resolve({
          status: response.statusCode ?? 0,
          headers: response.headers,
          body: Buffer.concat(chunks).toString(),
        }),
      );
    });
    sent.on("error", reject);
    sent.setTimeout(10_000, () => sent.destroy(new Error(`${path} was not answered`)));
    sent.end(body);
  });
}

/** Posts text as JSON and reads the array that comes back. */
export async function postText(
  server: { readonly url: string },
  body: string,
  path = "/push",
): Promise<Message[]> {
  const headers = { "Content-Type": "application/json" };
  const answer = await http(server, path, { method: "POST", headers, body });
  if (answer.status !== 200) throw new Error(`${answer.status} ${answer.body}`);
  return JSON.parse(answer.body) as Message[];
}

/** Writes bytes to a new connection and gathers what comes back as text, until `enough` of it. */
export function raw(
  server: { readonly port: number },
  bytes: string | Buffer,
  enough: (text: string) => boolean = () => false,
): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = "";
    const socket = connect(server.port, "127.0.0.1", () => socket.write(bytes));
    const timer = setTimeout(() => {
      socket.destroy(new Error(`The answer did not end within 5 s: ${text}`));
    }, 5_000);
    socket.on("data", (chunk: Buffer) => {
      text += chunk.toString("latin1");
      if (enough(text)) socket.destroy();
    });
    socket.on("error", reject);
    socket.on("close", () => {
      clearTimeout(timer);
      resolve(text);
    });
  });
}

/** The upgrade request of RFC 6455, section 1.3. */
export function upgradeRequest(path: string, headers: readonly string[] = []): string {
  return [
    `GET ${path} HTTP/1.1`,
    "Host: localhost",
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version: 13",
    ...headers,
    "\r\n",
  ].join("\r\n");
}

export const headEnds = (text: string): boolean => text.includes("\r\n\r\n");
