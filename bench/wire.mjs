import net from "node:net";

const HOST = "127.0.0.1";
const REPLY_DEADLINE_MS = 20_000;
const CLOSE_DEADLINE_MS = 2000;

/**
 * Stands before the time of publishing inside the data of every benchmark message. Each delivered
 * message holds it once, however many messages a server puts into one frame. It begins with a byte
 * that comes nowhere else, which makes the search three times as fast.
 */
export const DELIVERY_MARKER = "~bench~";
const ACKNOWLEDGEMENT_MARKER = '"successful":true';
const REFUSAL_MARKER = '"successful":false';
/** Stands in each event whose data are an object, and in no reply. */
export const EVENT_MARKER = '"data":{"';
/** What is asked one after the other has this id; replies come in the order of the requests. */
const ASKED_ID = "asked";
const CLOSING_REPLY = "/meta/disconnect";
const TIME_DIGITS = 16;
const ID_DIGITS = 8;

/**
 * A fixed key that is not zero: RFC 6455 section 5.3 wants masked frames, and libraries skip the
 * work of unmasking when the key is zero, which would be kinder to a server than any browser is.
 */
const MASK = Buffer.from([0x37, 0xfa, 0x21, 0x3d]);

/** Node reads a socket and calls back at once, so all sockets of a process can share one buffer. */
const readBuffer = Buffer.allocUnsafe(256 * 1024);

/** Microseconds on the clock that all processes of this machine share. */
export const nowUs = () => Number(process.hrtime.bigint() / 1000n);

/**
 * One masked WebSocket frame.
 * @param {string} text
 * @param {number} opcode 1 text, 8 close, 10 pong
 */
function encodeFrame(text, opcode = 1) {
  const payload = Buffer.from(text);
  const short = payload.length < 126;
  const header = Buffer.alloc(short ? 6 : 8);
  header[0] = 0x80 | opcode;
  header[1] = 0x80 | (short ? payload.length : 126);
  if (!short) header.writeUInt16BE(payload.length, 2);
  MASK.copy(header, short ? 2 : 4);
  for (let i = 0; i < payload.length; i++) payload[i] ^= MASK[i & 3];
  return Buffer.concat([header, payload]);
}

const PONG = encodeFrame("", 10);
const CLOSE = encodeFrame("", 8);

/** Counts a marker in a stream of chunks without decoding it; a marker may straddle two chunks. */
export class MarkerCounter {
  #marker;
  #bytes;
  #tail = null;

  /** @param {string} marker */
  constructor(marker) {
    this.#marker = Buffer.from(marker);
    this.#bytes = new Set(this.#marker);
  }

  /**
   * @param {Buffer} chunk valid only during this call
   * @param {((text: Buffer, end: number) => void) | null} onFound where each marker ends
   */
  count(chunk, onFound = null) {
    const marker = this.#marker;
    const text = this.#tail === null ? chunk : Buffer.concat([this.#tail, chunk]);
    let found = 0;
    let at = text.indexOf(marker);
    while (at !== -1) {
      found += 1;
      at += marker.length;
      if (onFound !== null) onFound(text, at);
      at = text.indexOf(marker, at);
    }
    this.#tail = this.#bytes.has(text[text.length - 1]) ? this.#unfinished(text) : null;
    return found;
  }

  /** @param {Buffer} text */
  #unfinished(text) {
    const longest = Math.min(this.#marker.length - 1, text.length);
    for (let length = longest; length > 0; length--) {
      const tail = text.subarray(text.length - length);
      if (tail.equals(this.#marker.subarray(0, length))) return Buffer.from(tail);
    }
    return null;
  }
}

/** A WebSocket by hand: text is looked at only while a session is being opened. */
class RawSocket {
  /** @type {((chunk: Buffer) => void) | null} takes the bytes once the session is open */
  onChunk = null;
  isClosed = false;
  #socket;
  #text = "";
  #waiting = null;
  #onClose = [];

  /** @param {number} port */
  constructor(port) {
    const onread = {
      buffer: readBuffer,
      callback: (length, buffer) => {
        this.#read(buffer.subarray(0, length));
        return true;
      },
    };
    this.#socket = net.connect({ port, host: HOST, noDelay: true, onread });
    this.#socket.on("error", (error) => this.#waiting?.reject(error));
    this.#socket.on("close", () => {
      this.isClosed = true;
      this.#waiting?.reject(new Error(`the server closed the socket after: ${this.#text}`));
      for (const resolve of this.#onClose) resolve();
    });
  }

  /** @param {Buffer} chunk */
  #read(chunk) {
    // A server's ping comes while nothing else does, so it begins a chunk. A pong too many is legal.
    if (chunk[0] === 0x89) this.write(PONG);
    if (this.onChunk !== null) {
      this.onChunk(chunk);
      return;
    }
    this.#text += chunk.latin1Slice();
    this.#waiting?.check();
  }

  /** @param {Buffer | string} bytes */
  write(bytes) {
    this.#socket.write(bytes);
  }

  /**
   * Waits until what came since the last wait satisfies the test, and gives the test's result.
   * @template T
   * @param {(text: string) => T | undefined} test
   * @returns {Promise<T>}
   */
  expect(test) {
    return new Promise((resolve, reject) => {
      const settle = (then, value) => {
        clearTimeout(timer);
        this.#waiting = null;
        then(value);
      };
      const timer = setTimeout(
        () => settle(reject, new Error(`no answer in time, only: ${this.#text}`)),
        REPLY_DEADLINE_MS,
      );
      const check = () => {
        const value = test(this.#text);
        if (value === undefined) return;
        this.#text = "";
        settle(resolve, value);
      };
      this.#waiting = { check, reject: (error) => settle(reject, error) };
      check();
    });
  }

  destroy() {
    this.#socket.destroy();
  }

  /** Answers the server's close, and leaves without it when it does not come. */
  async closed(deadlineMs) {
    if (!this.isClosed) {
      this.onChunk = (chunk) => {
        if (chunk.includes(CLOSING_REPLY)) this.#socket.end(CLOSE);
      };
      const timer = setTimeout(() => this.#socket.destroy(), deadlineMs);
      await new Promise((resolve) => this.#onClose.push(resolve));
      clearTimeout(timer);
    }
  }
}

const successes = (wanted) => (text) => {
  if (text.includes('"successful":false')) throw new Error(`the server refused: ${text}`);
  return text.split(ACKNOWLEDGEMENT_MARKER).length > wanted ? text : undefined;
};

/**
 * One Bayeux session on a WebSocket of its own, opened the way CometD does it: handshake on the
 * socket, a connect that is answered at once, the subscribe, and then a connect that is held.
 */
export class Session {
  socket;
  clientId = "";

  /** @param {number} port */
  constructor(port) {
    this.socket = new RawSocket(port);
  }

  /**
   * @param {number} port
   * @param {{ subscription: string | string[], token?: string } | null} interest
   */
  static async open(port, interest) {
    const session = new Session(port);
    const { socket } = session;
    await session.#upgrade(port);
    session.send({
      channel: "/meta/handshake",
      version: "1.0",
      supportedConnectionTypes: ["websocket", "long-polling"],
      id: "1",
    });
    const reply = await socket.expect(successes(1));
    session.clientId = /"clientId":"([^"]+)"/.exec(reply)?.[1] ?? "";
    if (session.clientId === "") throw new Error(`no clientId: ${reply}`);
    session.#connect("2", { timeout: 0 });
    if (interest !== null) session.#subscribe(interest);
    await socket.expect(successes(interest === null ? 1 : 2));
    session.#connect("4");
    return session;
  }

  /**
   * A session that began elsewhere comes to this socket, and is bound to it when this resolves.
   * @param {number} port
   * @param {string} clientId
   */
  static async resume(port, clientId) {
    const session = new Session(port);
    session.clientId = clientId;
    await session.#upgrade(port);
    session.#connect("1", { timeout: 0 });
    await session.socket.expect(successes(1));
    return session;
  }

  async #upgrade(port) {
    const { socket } = this;
    socket.write(
      `GET /push HTTP/1.1\r\nHost: ${HOST}:${port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    const answer = await socket.expect((text) => (text.includes("\r\n\r\n") ? text : undefined));
    if (!answer.startsWith("HTTP/1.1 101")) throw new Error(`no upgrade: ${answer}`);
  }

  #connect(id, advice) {
    const { clientId } = this;
    this.send({ channel: "/meta/connect", clientId, connectionType: "websocket", id, advice });
  }

  #subscribe({ subscription, token }) {
    const ext = token === undefined ? undefined : { auth: { token } };
    this.send({
      channel: "/meta/subscribe",
      clientId: this.clientId,
      subscription,
      id: "3",
      ext,
    });
  }

  /** @param {object} message */
  send(message) {
    this.socket.write(encodeFrame(JSON.stringify([message])));
  }

  /** A clean end, so that no server carries the sessions of one turn into the next. */
  async close() {
    if (!this.socket.isClosed) {
      this.send({ channel: "/meta/disconnect", clientId: this.clientId, id: "5" });
    }
    await this.socket.closed(CLOSE_DEADLINE_MS);
  }
}

/** A session that asks for this and that, and counts the events that it hears meanwhile. */
export class Member {
  heard = 0;
  firstUs = 0;
  lastUs = 0;
  /** @type {() => void} after each chunk that has events */
  onEvents = () => {};
  #session;
  #asked = [];
  #replies = new MarkerCounter(`"id":"${ASKED_ID}"`);
  #events = new MarkerCounter(EVENT_MARKER);

  /** @param {number} port */
  static async open(port) {
    const member = new Member();
    member.#session = await Session.open(port, null);
    member.#session.socket.onChunk = (chunk) => member.#read(chunk);
    return member;
  }

  #read(chunk) {
    const refusal = chunk.includes('"successful":false') ? chunk.latin1Slice() : undefined;
    const replies = this.#replies.count(chunk);
    for (const { resolve, reject } of this.#asked.splice(0, replies)) {
      if (refusal === undefined) resolve();
      else reject(new Error(`the server refused: ${refusal}`));
    }
    const events = this.#events.count(chunk);
    if (events === 0) return;
    this.lastUs = nowUs();
    if (this.heard === 0) this.firstUs = this.lastUs;
    this.heard += events;
    this.onEvents();
  }

  /**
   * @param {object} message without clientId and id
   * @returns {Promise<void>} when it was granted
   */
  ask(message) {
    const { clientId } = this.#session;
    return new Promise((resolve, reject) => {
      this.#asked.push({ resolve, reject });
      this.#session.send({ ...message, clientId, id: ASKED_ID });
    });
  }

  forget() {
    this.heard = 0;
  }

  close() {
    return this.#session.close();
  }
}

/** A publish that is encoded once; its time and id are written into the masked bytes. */
class PublishFrame {
  #frame;
  #payloadStart;
  #timeAt;
  #idAt;

  constructor(channel, clientId, auth, dataBytes) {
    const time = "0".repeat(TIME_DIGITS);
    const bare = `{"at":"${DELIVERY_MARKER}${time}","pad":""}`;
    const pad = "x".repeat(Math.max(0, dataBytes - bare.length));
    const data = bare.replace('"pad":""', `"pad":"${pad}"`);
    const id = "0".repeat(ID_DIGITS);
    const text =
      `[{"channel":"${channel}","data":${data},"clientId":"${clientId}",` +
      `"id":"${id}","ext":{"auth":${JSON.stringify(auth)}}}]`;
    this.#frame = encodeFrame(text);
    this.#payloadStart = this.#frame.length - text.length;
    this.#timeAt = text.indexOf(DELIVERY_MARKER) + DELIVERY_MARKER.length;
    this.#idAt = text.indexOf('"id":"') + '"id":"'.length;
  }

  #writeDigits(at, digits, number) {
    let rest = number;
    for (let i = at + digits - 1; i >= at; i--) {
      this.#frame[this.#payloadStart + i] = (48 + (rest % 10)) ^ MASK[i & 3];
      rest = Math.floor(rest / 10);
    }
  }

  /** The bytes are good until the next call. */
  at(timeUs, id) {
    this.#writeDigits(this.#timeAt, TIME_DIGITS, timeUs);
    this.#writeDigits(this.#idAt, ID_DIGITS, id);
    return this.#frame;
  }
}

/** Reads the time that a publisher wrote; undefined when the chunk ends before it does. */
export function readTimeUs(text, at) {
  if (at + TIME_DIGITS > text.length) return undefined;
  let time = 0;
  for (let i = at; i < at + TIME_DIGITS; i++) time = time * 10 + text[i] - 48;
  return time;
}

/**
 * Publishes over one WebSocket, keeping a fixed number of publishes unanswered; or one at a time, at
 * a fixed pace.
 */
export class Publisher {
  /** How many of its publishes were refused, where they may be. */
  refused = 0;
  #session;
  #frames;
  #inFlight;
  #everyMs;
  #mayBeRefused;
  #next = 0;
  #outstanding = 0;
  #until = 0;
  #done = null;
  #acknowledgements = new MarkerCounter(ACKNOWLEDGEMENT_MARKER);
  #refusals = new MarkerCounter(REFUSAL_MARKER);

  /**
   * @param {number} port
   * @param {object} plan
   * @param {string[]} plan.channels
   * @param {object} plan.auth
   * @param {number} plan.dataBytes
   * @param {number} plan.inFlight
   * @param {number} [plan.everyMs] the pace, instead of what is in flight
   * @param {boolean} [plan.mayBeRefused] a refusal is an answer as good as another
   */
  static async open(port, plan) {
    const publisher = new Publisher();
    const session = await Session.open(port, null);
    publisher.#session = session;
    publisher.#inFlight = plan.inFlight;
    publisher.#everyMs = plan.everyMs;
    publisher.#mayBeRefused = plan.mayBeRefused ?? false;
    publisher.#frames = plan.channels.map(
      (channel) => new PublishFrame(channel, session.clientId, plan.auth, plan.dataBytes),
    );
    session.socket.onChunk = (chunk) => publisher.#read(chunk);
    return publisher;
  }

  #read(chunk) {
    const refused = this.#refusals.count(chunk);
    if (this.#done !== null && refused > 0 && !this.#mayBeRefused) {
      this.#done.reject(new Error(`the server refused a publish: ${chunk.latin1Slice()}`));
      return;
    }
    this.refused += refused;
    const answered = this.#acknowledgements.count(chunk) + refused;
    // A turn is shorter than the hold, so the held connect's reply is never among them.
    this.#outstanding -= answered;
    if (this.#done === null) return;
    if (nowUs() >= this.#until) {
      if (this.#outstanding === 0) this.#done.resolve();
    } else if (this.#everyMs === undefined) this.#publish(answered);
  }

  #publish(count) {
    if (count === 0) return;
    const timeUs = nowUs();
    // Copies: a frame is rewritten for its next use, perhaps before the kernel has taken this one.
    const frames = [];
    for (let i = 0; i < count; i++) {
      const frame = this.#frames[this.#next % this.#frames.length];
      frames.push(Buffer.from(frame.at(timeUs, this.#next)));
      this.#next += 1;
    }
    this.#outstanding += count;
    this.#session.socket.write(count === 1 ? frames[0] : Buffer.concat(frames));
  }

  #keepPace() {
    if (nowUs() < this.#until) this.#publish(1);
    else if (this.#outstanding === 0) this.#done?.resolve();
  }

  /**
   * Publishes for a time, then waits for the last answer.
   * @param {number} durationMs
   * @returns {Promise<number>} how many were published
   */
  async run(durationMs) {
    const before = this.#next;
    this.#until = nowUs() + durationMs * 1000;
    const deadline = setTimeout(
      () => this.#done?.reject(new Error(`${this.#outstanding} publishes got no reply`)),
      durationMs + REPLY_DEADLINE_MS,
    );
    let pace;
    await new Promise((resolve, reject) => {
      this.#done = { resolve, reject };
      if (this.#everyMs === undefined) this.#publish(this.#inFlight);
      else pace = setInterval(() => this.#keepPace(), this.#everyMs);
    }).finally(() => {
      clearTimeout(deadline);
      clearInterval(pace);
      this.#done = null;
    });
    return this.#next - before;
  }

  close() {
    return this.#session.close();
  }
}

/** One keep-alive HTTP connection that repeats one prebuilt request, one at a time. */
export class Requester {
  #socket;
  #request;
  #text = "";
  #until = 0;
  #sentUs = 0;
  #onAnswer = () => {};
  #onSent = () => {};
  #done = null;

  /**
   * @param {number} port
   * @param {{ path: string, headers: Record<string, string>, body: string }} request
   */
  constructor(port, { path, headers, body }) {
    const lines = Object.entries({ ...headers, "Content-Length": String(body.length) });
    this.#request = Buffer.from(
      `POST ${path} HTTP/1.1\r\nHost: ${HOST}:${port}\r\nConnection: keep-alive\r\n` +
        `${lines.map(([name, value]) => `${name}: ${value}\r\n`).join("")}\r\n${body}`,
    );
    const onread = {
      buffer: readBuffer,
      callback: (length, buffer) => {
        this.#read(buffer.latin1Slice(0, length));
        return true;
      },
    };
    this.#socket = net.connect({ port, host: HOST, noDelay: true, onread });
    this.#socket.on("error", (error) => this.#done?.reject(error));
    this.#socket.on("close", () => this.#done?.reject(new Error("the server closed")));
  }

  #read(text) {
    this.#text += text;
    const head = this.#text.indexOf("\r\n\r\n");
    if (head === -1) return;
    const length = /\r\ncontent-length: *(\d+)/i.exec(this.#text)?.[1];
    if (!this.#text.startsWith("HTTP/1.1 200") || length === undefined) {
      this.#done?.reject(new Error(`unexpected answer: ${this.#text}`));
      return;
    }
    if (this.#text.length < head + 4 + Number(length)) return;
    const answer = this.#text;
    this.#text = "";
    const now = nowUs();
    this.#onAnswer(now - this.#sentUs, answer);
    if (now < this.#until) this.#send(now);
    else this.#done?.resolve();
  }

  #send(now) {
    this.#sentUs = now;
    this.#socket.write(this.#request);
    this.#onSent();
  }

  /**
   * @param {number} durationMs
   * @param {(latencyUs: number, answer: string) => void} onAnswer
   * @param {() => void} [onSent]
   * @returns {Promise<void>}
   */
  run(durationMs, onAnswer, onSent = () => {}) {
    this.#onAnswer = onAnswer;
    this.#onSent = onSent;
    return new Promise((resolve, reject) => {
      this.#done = { resolve, reject };
      const now = nowUs();
      this.#until = now + durationMs * 1000;
      this.#send(now);
    });
  }

  close() {
    this.#done = null;
    this.#socket.destroy();
  }
}
