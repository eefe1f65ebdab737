/** What the server itself counts of the application: its statistics, as it publishes them (META-1). */
import type { Client } from "pandapush-client";

export interface ServerFigures {
  /** Sessions with a subscription in the application, this one among them. */
  readonly connections: number;
  /** Since the start of the server. */
  readonly published: number;
  readonly delivered: number;
}

/** They come every five seconds, unless configured otherwise. */
const patienceMs = 15_000;

export class ServerStatistics {
  private last: ServerFigures | undefined;
  private heard = 0;
  private readonly waiting = new Set<() => void>();
  private fault: string | undefined;

  constructor(
    private readonly client: Client,
    channel: string,
    token: () => string,
  ) {
    const subscription = client.subscribeTo<ServerFigures>(channel, token, (figures) => {
      // The messages by which they come count as deliveries: those before this one.
      this.last = { ...figures, delivered: figures.delivered - this.heard++ };
      this.wake();
    });
    subscription.catch(({ message }: Error) => {
      this.fault = message;
      this.wake();
    });
  }

  /** Those that came last; undefined: none, for 15 s. @throws Error when the server refuses them */
  async latest(): Promise<ServerFigures | undefined> {
    if (this.last === undefined) await this.next();
    return this.last;
  }

  /** The next that come; undefined: none for 15 s. @throws Error when the server refuses them */
  async next(): Promise<ServerFigures | undefined> {
    const before = this.heard;
    if (this.fault === undefined) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, patienceMs);
        this.waiting.add(() => {
          clearTimeout(timer);
          resolve();
        });
      });
    }
    if (this.fault !== undefined) throw new Error(this.fault);
    return this.heard > before ? this.last : undefined;
  }

  async close(): Promise<void> {
    await Promise.race([
      this.client.disconnect(),
      new Promise((resolve) => setTimeout(resolve, 1000).unref()),
    ]);
  }

  private wake(): void {
    for (const each of this.waiting) each();
    this.waiting.clear();
  }
}
