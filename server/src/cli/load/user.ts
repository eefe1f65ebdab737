/** One user of a load test: a Bayeux session that comes back, with its subscriptions. */
import { type Figures, Heard, nowUs, type Sent } from "./figures.js";
import type { BayeuxMessage, Wire, WireListener } from "./wire.js";

export interface Interest {
  readonly channel: string;
  /** Absent: the channel is public. */
  readonly token?: string;
}

export interface UserParts {
  readonly interests: readonly Interest[];
  readonly ownChannel: string;
  readonly connectionType: "websocket" | "long-polling";
  readonly figures: Figures;
  readonly open: (listener: WireListener) => Wire;
}

/** For whoever waits longer, the connection failed. */
const openMs = 30_000;
const comeBackMs = 1_000;

export class User {
  private readonly heard = new Map<string, Heard>();
  private wire: Wire | undefined;
  private clientId = "";
  private unconfirmed = 0;
  private isConnected = false;
  private hasEnded = false;
  private opened: ((failure?: string) => void) | undefined;
  private timer: NodeJS.Timeout | undefined;

  constructor(private readonly parts: UserParts) {
    for (const { channel } of parts.interests) this.heard.set(channel, new Heard());
  }

  /** @returns whether it is subscribed to everything; if not, it never tries again */
  async open(): Promise<boolean> {
    const { figures } = this.parts;
    const startedUs = nowUs();
    let timer: NodeJS.Timeout | undefined;
    const failure = await new Promise<string | undefined>((resolve) => {
      this.opened = resolve;
      timer = setTimeout(() => resolve("not subscribed within 30 s"), openMs);
      this.connect();
    });
    clearTimeout(timer);
    this.opened = undefined;
    if (failure === undefined) {
      figures.counts.opened++;
      figures.connecting.add((nowUs() - startedUs) / 1000);
      return true;
    }
    figures.error(`connect: ${failure}`);
    figures.counts.unopened++;
    this.end();
    return false;
  }

  /** Of what was published to a channel of its own, and confirmed, what did not come. */
  lost(channel: string, sent: Sent): number {
    return this.heard.get(channel)?.lost(sent) ?? 0;
  }

  /** Says goodbye. */
  end(): void {
    if (this.hasEnded) return;
    this.hasEnded = true;
    clearTimeout(this.timer);
    this.setConnected(false);
    if (this.clientId !== "") this.send({ channel: "/meta/disconnect" });
    this.wire?.close();
  }

  private connect(): void {
    const wire = this.parts.open({
      received: (messages) => {
        if (this.wire !== wire) return;
        for (const message of messages) this.receive(message);
      },
      lost: (reason) => {
        if (this.wire === wire) this.comeBack(reason);
      },
    });
    this.wire = wire;
    if (this.clientId === "") this.handshake();
    else this.hold();
  }

  private handshake(): void {
    this.clientId = "";
    const supportedConnectionTypes = [this.parts.connectionType];
    this.send({ channel: "/meta/handshake", version: "1.0", supportedConnectionTypes });
  }

  private hold(): void {
    this.send({ channel: "/meta/connect", connectionType: this.parts.connectionType });
  }

  private send(message: object): void {
    this.wire?.send(this.clientId === "" ? message : { ...message, clientId: this.clientId });
  }

  private receive(message: BayeuxMessage): void {
    const { channel = "", successful, data, advice } = message;
    if (this.hasEnded) return;
    if (successful === undefined) {
      this.hear(channel, data);
      return;
    }
    switch (channel) {
      case "/meta/handshake":
        if (successful) this.subscribe(message.clientId ?? "");
        else this.fail(message);
        return;
      case "/meta/subscribe":
        if (!successful) this.fail(message);
        else if (--this.unconfirmed === 0) this.opened?.();
        return;
      case "/meta/connect":
        this.setConnected(successful);
        if (successful || advice?.reconnect === "retry") {
          this.later(advice?.interval ?? 0, () => this.hold());
        } else {
          this.parts.figures.counts.newSessions++;
          this.handshake();
        }
    }
  }

  private subscribe(clientId: string): void {
    this.clientId = clientId;
    const { interests } = this.parts;
    this.unconfirmed = interests.length;
    for (const { channel, token } of interests) {
      const ext = token === undefined ? {} : { ext: { auth: { token } } };
      this.send({ channel: "/meta/subscribe", subscription: channel, ...ext });
    }
    this.setConnected(true);
    this.hold();
  }

  private hear(channel: string, { n, at }: NonNullable<BayeuxMessage["data"]> = {}): void {
    const heard = this.heard.get(channel);
    if (heard === undefined || n === undefined || at === undefined) return;
    const { counts, deliveringOwn, deliveringShared } = this.parts.figures;
    if (!heard.add(n)) {
      counts.duplicated++;
      return;
    }
    counts.received++;
    const delivering = channel === this.parts.ownChannel ? deliveringOwn : deliveringShared;
    delivering.add((nowUs() - at) / 1000);
  }

  /** The server refused something. */
  private fail({ channel = "", error = "no reason was given" }: BayeuxMessage): void {
    const text = `${channel.slice("/meta/".length)}: ${error}`;
    if (this.opened !== undefined) this.opened(text);
    else this.parts.figures.error(text);
  }

  private comeBack(reason: string): void {
    if (this.hasEnded) return;
    this.wire?.close();
    if (this.opened !== undefined) {
      this.opened(reason);
      return;
    }
    const { figures } = this.parts;
    if (this.isConnected) figures.counts.reconnects++;
    figures.error(`connection: ${reason}`);
    this.setConnected(false);
    this.later(comeBackMs * (0.5 + Math.random()), () => this.connect());
  }

  private later(ms: number, work: () => void): void {
    if (ms === 0) work();
    else this.timer = setTimeout(work, ms);
  }

  private setConnected(isConnected: boolean): void {
    if (this.isConnected === isConnected) return;
    this.isConnected = isConnected;
    this.parts.figures.counts.connected += isConnected ? 1 : -1;
  }
}
