/** Clients that break the rules on purpose: raw bytes over TCP, and what every test asks afterwards. */
import { randomBytes } from "node:crypto";
import { connect, type Socket as TcpSocket } from "node:net";
import { expect } from "vitest";
import { appId, keyId, type Message, Poller, Socket, secret } from "../harness.js";

export interface Address {
  readonly port: number;
}

/** Where a server under attack can be reached, and what it logged at warn or above. */
export interface Target extends Address {
  readonly wsUrl: string;
  readonly pushUrl: string;
  readonly logged: readonly string[];
}

export const basicAuth = `Basic ${Buffer.from(`${keyId}:${secret}`).toString("base64")}`;

export interface HttpResponse {
  readonly status: number;
  readonly head: string;
  readonly body: string;
}

/** A frame as it came from the server. */
export interface ServerFrame {
  readonly opcode: number;
  readonly payload: Buffer;
}

/** One TCP connection that sends exactly the bytes it is told and remembers all it receives. */
export class RawSocket {
  isClosed = false;
  private chunks: Buffer[] = [];
  private length = 0;
  /** So many bytes make the next frame whole: looked at again only then, for frames can be large. */
  private wanted = 0;
  private readonly changed = new Set<() => void>();

  private constructor(readonly tcp: TcpSocket) {
    tcp.on("data", (chunk) => {
      this.chunks.push(chunk);
      this.length += chunk.length;
      this.notify();
    });
    tcp.on("close", () => {
      this.isClosed = true;
      this.notify();
    });
    // A reset is one way to be closed; "close" follows.
    tcp.on("error", () => this.notify());
  }

  /** Bytes that nobody took yet. */
  get received(): Buffer {
    if (this.chunks.length !== 1) this.chunks = [Buffer.concat(this.chunks)];
    return this.chunks[0] as Buffer;
  }

  set received(rest: Buffer) {
    this.chunks = [rest];
    this.length = rest.length;
    this.wanted = 0;
  }

  /** Whether what was received ends in `bytes`; looks at the end only. */
  endsWith(bytes: string): boolean {
    const last = this.chunks.at(-1) ?? Buffer.alloc(0);
    const end = last.length < bytes.length ? this.received : last;
    return end.subarray(-bytes.length).toString("latin1") === bytes;
  }

  static async open({ port }: Address): Promise<RawSocket> {
    const tcp = connect({ port, host: "127.0.0.1" });
    const socket = new RawSocket(tcp);
    await new Promise<void>((resolve, reject) => {
      tcp.once("connect", resolve).once("error", reject);
    });
    return socket;
  }

  /** A completed WebSocket upgrade; further headers as an operator's proxy would add them. */
  static async upgrade(
    server: Address,
    headers: Record<string, string> = {},
    path = "/push",
  ): Promise<RawSocket> {
    const socket = await RawSocket.open(server);
    socket.write(upgradeRequest(headers, path));
    const { status } = await socket.response();
    if (status !== 101) throw new Error(`The upgrade was answered ${status}`);
    return socket;
  }

  write(bytes: string | Buffer): void {
    if (!this.tcp.destroyed) this.tcp.write(bytes);
  }

  /** Sends Bayeux messages as one frame. */
  send(messages: unknown): void {
    this.write(clientFrame(JSON.stringify(messages)));
  }

  /** Takes the next HTTP response out of what was received; a 101 has no body. */
  async response(deadlineMs = 5_000): Promise<HttpResponse> {
    let found: HttpResponse | undefined;
    await this.until(() => {
      const end = this.received.indexOf("\r\n\r\n");
      if (end === -1) return false;
      const head = this.received.subarray(0, end).toString("latin1");
      const length = Number(/^content-length: *(\d+)/im.exec(head)?.[1] ?? 0);
      if (this.received.length < end + 4 + length) return false;
      const body = this.received.subarray(end + 4, end + 4 + length).toString();
      this.received = this.received.subarray(end + 4 + length);
      found = { status: Number(head.split(" ")[1]), head, body };
      return true;
    }, deadlineMs);
    return found as HttpResponse;
  }

  /** Takes the next whole WebSocket frame out of what was received. */
  async frame(deadlineMs = 5_000): Promise<ServerFrame> {
    let found: ServerFrame | undefined;
    await this.until(() => {
      found = this.takeFrame();
      return found !== undefined;
    }, deadlineMs);
    return found as ServerFrame;
  }

  /** Takes the first Bayeux message that fits; frames before it are dropped. */
  async message(fits: (message: Message) => boolean): Promise<Message> {
    for (;;) {
      const { opcode, payload } = await this.frame();
      if (opcode === 8) throw new Error(`Closed with ${payload.readUInt16BE(0)}`);
      if (opcode !== 1) continue;
      const found = (JSON.parse(payload.toString()) as Message[]).find(fits);
      if (found !== undefined) return found;
    }
  }

  /** Every whole frame that was received, taken out. */
  takeFrames(): ServerFrame[] {
    const frames: ServerFrame[] = [];
    if (this.length < this.wanted) return frames;
    const { received } = this;
    let offset = 0;
    for (;;) {
      const next = frameAt(received, offset);
      if (next === undefined) break;
      frames.push(next.frame);
      offset = next.end;
    }
    this.received = received.subarray(offset);
    this.wanted = frameEnd(received, offset) - offset;
    return frames;
  }

  /** The close code that the server sent; 1006 when it cut the connection without one. */
  async closeCode(deadlineMs = 5_000): Promise<number> {
    let code: number | undefined;
    await this.until(() => {
      for (const { opcode, payload } of this.takeFrames()) {
        if (opcode === 8) code = payload.length >= 2 ? payload.readUInt16BE(0) : 1005;
      }
      return code !== undefined || this.isClosed;
    }, deadlineMs);
    return code ?? 1006;
  }

  closing(deadlineMs = 5_000): Promise<void> {
    return this.until(() => this.isClosed, deadlineMs);
  }

  cut(): void {
    this.tcp.destroy();
  }

  until(isTrue: () => boolean, deadlineMs = 5_000): Promise<void> {
    return new Promise((resolve, reject) => {
      const look = (): void => {
        if (isTrue()) finish(resolve);
      };
      const finish = (settle: () => void): void => {
        clearTimeout(timer);
        this.changed.delete(look);
        settle();
      };
      const timer = setTimeout(() => {
        const seen = this.received.subarray(0, 500).toString("latin1");
        const state = this.isClosed ? "closed" : "open";
        finish(() =>
          reject(
            new Error(`Not within ${deadlineMs} ms; ${state}, received: ${JSON.stringify(seen)}`),
          ),
        );
      }, deadlineMs);
      this.changed.add(look);
      look();
    });
  }

  private takeFrame(): ServerFrame | undefined {
    const next = frameAt(this.received, 0);
    if (next === undefined) return undefined;
    this.received = this.received.subarray(next.end);
    return next.frame;
  }

  private notify(): void {
    for (const look of [...this.changed]) look();
  }
}

/** Where the frame that begins at `start` ends; unknown ends are one byte behind what is there. */
function frameEnd(bytes: Buffer, start: number): number {
  if (bytes.length < start + 2) return bytes.length + 1;
  const short = bytes.readUInt8(start + 1) & 0x7f;
  const header = short < 126 ? 2 : short === 126 ? 4 : 10;
  if (bytes.length < start + header) return bytes.length + 1;
  const long = (): number =>
    short === 126 ? bytes.readUInt16BE(start + 2) : Number(bytes.readBigUInt64BE(start + 2));
  return start + header + (short < 126 ? short : long());
}

function frameAt(bytes: Buffer, start: number): { frame: ServerFrame; end: number } | undefined {
  const end = frameEnd(bytes, start);
  if (bytes.length < end) return undefined;
  const short = bytes.readUInt8(start + 1) & 0x7f;
  const header = short < 126 ? 2 : short === 126 ? 4 : 10;
  const payload = bytes.subarray(start + header, end);
  return { frame: { opcode: bytes.readUInt8(start) & 0x0f, payload }, end };
}

export function upgradeRequest(headers: Record<string, string> = {}, path = "/push"): string {
  const all = {
    Host: "localhost",
    Upgrade: "websocket",
    Connection: "Upgrade",
    "Sec-WebSocket-Key": randomBytes(16).toString("base64"),
    "Sec-WebSocket-Version": "13",
    ...headers,
  };
  const lines = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`);
  return `GET ${path} HTTP/1.1\r\n${lines.join("")}\r\n`;
}

export interface FrameOptions {
  readonly opcode?: number;
  readonly isFinal?: boolean;
  readonly isMasked?: boolean;
  /** The three reserved bits, 0 to 7. */
  readonly reserved?: number;
  /** What the header says, whatever the payload has. */
  readonly declaredLength?: number | bigint;
}

/** A frame as a client sends it; by default a correct, masked text frame. RFC 6455, section 5.2 */
export function clientFrame(payload: string | Buffer, options: FrameOptions = {}): Buffer {
  const { opcode = 1, isFinal = true, isMasked = true, reserved = 0 } = options;
  const body = Buffer.from(payload);
  const length = BigInt(options.declaredLength ?? body.length);
  const maskBit = isMasked ? 0x80 : 0;
  const first = (isFinal ? 0x80 : 0) | (reserved << 4) | opcode;
  let header: Buffer;
  if (length < 126n) {
    header = Buffer.from([first, maskBit | Number(length)]);
  } else if (length < 65_536n) {
    header = Buffer.from([first, maskBit | 126, 0, 0]);
    header.writeUInt16BE(Number(length), 2);
  } else {
    header = Buffer.alloc(10);
    header[0] = first;
    header[1] = maskBit | 127;
    header.writeBigUInt64BE(length, 2);
  }
  if (!isMasked) return Buffer.concat([header, body]);
  const mask = Buffer.from([0x12, 0x34, 0x56, 0x78]);
  const masked = Buffer.from(body.map((byte, index) => byte ^ (mask[index & 3] ?? 0)));
  return Buffer.concat([header, mask, masked]);
}

interface LogLine {
  readonly level: number;
  readonly msg: string;
  readonly err?: { readonly message?: string; readonly stack?: string };
}

const linesSeen = new WeakMap<readonly string[], number>();

/**
 * What the server logged as its own fault since the last call, each fault once and in one line; a
 * refused or malformed message is none.
 */
export function newErrorsOf({ logged }: Pick<Target, "logged">): string[] {
  const lines = logged.slice(linesSeen.get(logged) ?? 0);
  linesSeen.set(logged, logged.length);
  const faults = lines
    .map((line) => JSON.parse(line) as LogLine)
    .filter(({ level }) => level >= 50)
    .map(({ msg, err }) => {
      const places = (err?.stack ?? "").split("\n").filter((line) => line.includes("/src/"));
      return `${msg}: ${err?.message} ${places.slice(0, 3).join(" ").replace(/ +/g, " ")}`;
    });
  return [...new Set(faults)];
}

/**
 * The server still serves: what REST and a poller publish reaches subscribers over WebSocket and
 * long-polling; and nothing that happened before was logged as the server's own fault.
 */
export async function expectServes(server: Target): Promise<void> {
  expect(newErrorsOf(server)).toEqual([]);
  const channel = `/${appId}/public/still-serves`;
  const socket = await Socket.connect(server);
  const poller = await Poller.connect(server);
  expect((await socket.subscribe(channel)).successful).toBe(true);
  expect((await poller.subscribe(channel)).successful).toBe(true);
  const response = await fetch(`http://127.0.0.1:${server.port}/channel${channel}`, {
    method: "POST",
    headers: { Authorization: basicAuth, "Content-Type": "application/json" },
    body: '"by REST"',
  });
  expect([response.status, await response.text()]).toEqual([200, "OK"]);
  expect((await poller.publish(channel, "by Bayeux")).successful).toBe(true);
  expect((await socket.event(channel)).data).toBe("by REST");
  expect((await socket.event(channel)).data).toBe("by Bayeux");
  const polled: unknown[] = [];
  while (polled.length < 2) {
    const [, ...events] = await poller.poll();
    polled.push(...events.map(({ data }) => data));
  }
  expect(polled).toEqual(["by REST", "by Bayeux"]);
  await poller.ask({ channel: "/meta/disconnect" });
  await socket.ask({ channel: "/meta/disconnect" });
  await socket.closing();
  expect(newErrorsOf(server)).toEqual([]);
}

/** Runs `work` for each item, at most `width` at a time. */
export async function eachInParallel<T>(
  items: readonly T[],
  width: number,
  work: (item: T, index: number) => Promise<void>,
): Promise<void> {
  let next = 0;
  const run = async (): Promise<void> => {
    for (let index = next++; index < items.length; index = next++) {
      await work(items[index] as T, index);
    }
  };
  await Promise.all(Array.from({ length: width }, run));
}
