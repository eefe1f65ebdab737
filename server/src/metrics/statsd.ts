/** Sends metrics to a statsd server: UDP, several lines in a packet, and never in anybody's way. */
import { createSocket, type Socket } from "node:dgram";
import { lookup } from "node:dns/promises";
import type { StatsdMetric } from "./table.js";

export interface StatsdOptions {
  readonly host: string;
  readonly port: number;
  /** In front of every name, with a dot between. */
  readonly prefix: string;
}

/** What fits into an Ethernet frame on any way. */
const maxPacketBytes = 1_432;
/** How long an address that DNS gave is used: servers move. */
const addressMs = 60_000;

export class Statsd {
  private lines: string[] = [];
  private length = 0;
  private target: { readonly address: string; readonly socket: Socket } | undefined;
  private lookingUp: Promise<void> | undefined;
  private lookedUpAt = Number.NEGATIVE_INFINITY;
  private readonly underWay = new Set<Promise<void>>();
  /** What was said last of why nothing can be sent. */
  private complaint: string | undefined;

  /** @param report told of what keeps lines from being sent, each reason once */
  constructor(
    private readonly options: StatsdOptions,
    private readonly report: (reason: string) => void,
  ) {
    this.lookUp();
  }

  /** Leaves with the next full packet or `flush`. Dropped while the server's address is not known. */
  add(name: string, value: number, type: StatsdMetric["type"]): void {
    // Names, prefixes and numbers are ASCII: characters are bytes.
    const line = `${this.options.prefix}.${name}:${value}|${type}`;
    if (this.length + line.length > maxPacketBytes) this.flush();
    this.lines.push(line);
    this.length += line.length + 1;
  }

  flush(): void {
    if (performance.now() - this.lookedUpAt > addressMs) this.lookUp();
    if (this.lines.length === 0) return;
    const packet = this.lines.join("\n");
    this.lines = [];
    this.length = 0;
    if (this.target === undefined) return;
    const { address, socket } = this.target;
    const sent = new Promise<void>((resolve) => {
      socket.send(packet, this.options.port, address, (error) => {
        if (error === null) this.complaint = undefined;
        else this.complain(error);
        resolve();
      });
    });
    this.underWay.add(sent);
    void sent.then(() => this.underWay.delete(sent));
  }

  /** What was added is sent before, if it can be. */
  async close(): Promise<void> {
    this.flush();
    await Promise.all(this.underWay);
    await this.lookingUp;
    this.target?.socket.close();
    // What somebody adds all the same is dropped.
    this.target = undefined;
  }

  private lookUp(): void {
    this.lookedUpAt = performance.now();
    this.lookingUp ??= this.findTarget().finally(() => {
      this.lookingUp = undefined;
    });
  }

  /** While it is not found the last address is used. */
  private async findTarget(): Promise<void> {
    try {
      const { address, family } = await lookup(this.options.host);
      if (this.target?.address === address) return;
      const socket = createSocket(family === 6 ? "udp6" : "udp4");
      socket.unref();
      socket.on("error", (error) => this.complain(error));
      const before = this.target?.socket;
      this.target = { address, socket };
      await Promise.all(this.underWay);
      before?.close();
    } catch (error) {
      this.complain(error as Error);
    }
  }

  private complain({ message }: Error): void {
    if (message === this.complaint) return;
    this.complaint = message;
    this.report(message);
  }
}
