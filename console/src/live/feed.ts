/** The console's own connection to an application, through the client that we give to everybody. */
import { Client, type ClientState } from "pandapush-client";
import { signToken } from "../api.js";

/** What `/<app>/meta/statistics` carries. META-1 */
export interface Statistics {
  readonly connections: number;
  readonly subscriptions: number;
  readonly channels: number;
  readonly published: number;
  readonly delivered: number;
  readonly publishedPerSecond: number;
  readonly deliveredPerSecond: number;
}

export interface Sample extends Statistics {
  /** When it came, in ms since 1970. */
  readonly at: number;
}

/** `lost`: there was one, and it is sought again; `closed`: for good. */
export type Connection = "connecting" | "connected" | "lost" | "closed";

export interface FeedState {
  /** Oldest first. */
  readonly samples: readonly Sample[];
  readonly connection: Connection;
  /** Why there is no connection, as far as it is known. */
  readonly problem: string | undefined;
  /** Why no statistics come. */
  readonly error: Error | undefined;
}

/** Half an hour of an event each five seconds. */
const maxSamples = 360;

/** One application's live connection and numbers, as long as somebody looks at its pages. */
export class Feed {
  readonly client = new Client(`${window.location.origin}/push`);
  private state: FeedState = {
    samples: [],
    connection: "connecting",
    problem: undefined,
    error: undefined,
  };
  private readonly listeners = new Set<() => void>();

  private static readonly open = new Set<Feed>();

  /** The session is over: nothing more is heard. */
  static closeAll(): void {
    for (const feed of Feed.open) feed.close();
  }

  constructor(readonly appId: string) {
    Feed.open.add(this);
    const channel = `/${appId}/meta/statistics`;
    this.client
      .on("state", (state) => this.follow(state))
      .on("failed", ({ message }) => this.change({ problem: message }));
    const subscription = this.client.subscribeTo<Statistics>(
      channel,
      () => this.token(channel, { sub: true }),
      (statistics) => {
        const samples = [...this.state.samples, { ...statistics, at: Date.now() }];
        this.change({ samples: samples.slice(-maxSamples), error: undefined });
      },
    );
    subscription.on("refused", (error) => this.change({ error }));
    subscription.on("subscribed", () => this.change({ error: undefined }));
    // Told by the event.
    subscription.catch(() => undefined);
  }

  /** For the client's token functions: a fresh one whenever the server has to be asked. */
  token(
    channel: string,
    rights: { sub?: boolean; pub?: boolean; presence?: { id: string } },
  ): Promise<string> {
    return signToken(this.appId, { channel, ...rights });
  }

  readonly subscribe = (listener: () => void): (() => void) => {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  };

  readonly snapshot = (): FeedState => this.state;

  close(): void {
    Feed.open.delete(this);
    this.client.disconnect();
  }

  private follow(state: ClientState): void {
    if (state === "connected") this.change({ connection: "connected", problem: undefined });
    else if (state === "disconnected") this.change({ connection: "closed" });
    else if (this.state.connection === "connected") this.change({ connection: "lost" });
  }

  private change(change: Partial<FeedState>): void {
    this.state = { ...this.state, ...change };
    for (const listener of this.listeners) listener();
  }
}
