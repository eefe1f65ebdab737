import { Inbox, promptMs } from "../waiting.js";

/** What a client shows to be let in: `ext.auth` of a subscribe or a publish. */
export type Auth = { readonly token: string } | { readonly key: string; readonly secret: string };

/** An order to an agent, the piece of code that sits beside a stock client and operates it. */
export type Command = { readonly call: number } & (
  | { readonly name: "subscribe"; readonly pattern: string; readonly auth?: Auth }
  | { readonly name: "unsubscribe"; readonly pattern: string }
  | {
      readonly name: "publish";
      readonly channel: string;
      readonly data: unknown;
      readonly auth?: Auth;
    }
  | { readonly name: "disconnect" }
);

/** What an agent saw its stock client do. */
export type Report =
  /** A command ended; `error` is the text that the client handed to its caller. */
  | { readonly kind: "answer"; readonly call: number; readonly error?: string }
  /** The listener of the subscribe command `call` was called. */
  | { readonly kind: "heard"; readonly call: number; readonly data: unknown }
  /** An event message arrived, whoever listens to it. */
  | {
      readonly kind: "event";
      readonly channel: string;
      readonly data: unknown;
      readonly ext?: unknown;
    }
  /** A `/meta/subscribe` succeeded, the application's own or one after a new handshake. */
  | { readonly kind: "subscribed"; readonly pattern: string; readonly presence?: unknown }
  /** A `/meta/connect` is about to be sent. */
  | { readonly kind: "connecting"; readonly connectionType: string };

type ReportOf<K extends Report["kind"]> = Extract<Report, { kind: K }>;

/** The way to an agent: a function call, a page, or the standard input of a process. */
export interface Link {
  send(command: Command): void | Promise<void>;
  /** Ends the client without any goodbye. */
  close(): Promise<void>;
}

/** One kind of stock client over one of its transports. */
export interface ClientKind {
  /** Such as `faye 1.4.3`. */
  readonly name: string;
  /** The Bayeux connection type that it is to use in the end. */
  readonly transport: string;
  /** Whether its API has a publish. */
  readonly publishes: boolean;
  /** Longest JSON text that its transport carries to the server, in characters. */
  readonly maxPublishLength: number;
  /**
   * Whether commands must wait for each other. Faye 1.1 throws when what it collects in one turn
   * for a polling transport reaches 2048 characters.
   */
  readonly oneAtATime: boolean;
  /** Connects a new client to the server whose base URL is given; its first command handshakes. */
  open(url: string): Promise<StockClient>;
}

/** One listener of a stock client. */
export class Subscription {
  readonly pattern: string;
  readonly heard: Inbox<unknown>;
  /** One item for each success of a `/meta/subscribe` to the pattern after the first. */
  readonly renewals: Inbox<void>;
  #isConfirmed = false;
  #snapshot: unknown;

  constructor(pattern: string) {
    this.pattern = pattern;
    this.heard = new Inbox(`message for ${pattern}`);
    this.renewals = new Inbox(`renewed subscription to ${pattern}`);
  }

  /** `ext.presence` of the latest subscribe reply, if it had one. */
  get snapshot(): unknown {
    return this.#snapshot;
  }

  /** What the listener was called with next. */
  next(deadlineMs = promptMs): Promise<unknown> {
    return this.heard.next(deadlineMs);
  }

  /** Takes note of a successful subscribe reply. */
  confirm(presence: unknown): void {
    this.#snapshot = presence;
    if (this.#isConfirmed) this.renewals.push();
    this.#isConfirmed = true;
  }
}

/** Four times what the deployment holds a connect. */
const changeMs = 20_000;

/**
 * A stock client as the sentences of the suite see it. It only operates the client's public API
 * and records what happens: it retries nothing and hides nothing.
 */
export class StockClient {
  readonly #link: Link;
  readonly #answers = new Map<number, (report: ReportOf<"answer">) => void>();
  readonly #listeners = new Map<number, Subscription>();
  readonly #connects = new Map<string, Inbox<void>>();
  readonly #events: ReportOf<"event">[] = [];
  #lastCall = 0;

  /** @param dial opens the link; it gets the function that takes the agent's reports. */
  static async open(
    dial: (report: (report: Report) => void) => Link | Promise<Link>,
  ): Promise<StockClient> {
    const early: Report[] = [];
    let client: StockClient | undefined;
    const link = await dial((report) => {
      if (client === undefined) early.push(report);
      else client.#receive(report);
    });
    client = new StockClient(link);
    for (const report of early) client.#receive(report);
    return client;
  }

  private constructor(link: Link) {
    this.#link = link;
  }

  /** Rejects with the server's error text when the subscription is refused. */
  async subscribe(pattern: string, auth?: Auth): Promise<Subscription> {
    const subscription = new Subscription(pattern);
    const call = this.#nextCall();
    this.#listeners.set(call, subscription);
    try {
      await this.#ask({ name: "subscribe", call, pattern, ...(auth && { auth }) });
    } catch (refusal) {
      this.#listeners.delete(call);
      throw refusal;
    }
    return subscription;
  }

  /** Removes every listener of the pattern; resolves on the server's reply. */
  unsubscribe(pattern: string): Promise<void> {
    return this.#ask({ name: "unsubscribe", call: this.#nextCall(), pattern });
  }

  /** Rejects with the server's error text when the publication is refused. */
  publish(channel: string, data: unknown, auth?: Auth): Promise<void> {
    const call = this.#nextCall();
    return this.#ask({ name: "publish", call, channel, data, ...(auth && { auth }) });
  }

  disconnect(): Promise<void> {
    return this.#ask({ name: "disconnect", call: this.#nextCall() });
  }

  /**
   * Resolves when a `/meta/connect` went out that names the transport. A client whose socket opens
   * late first holds a poll, or two when the machine is busy.
   */
  uses(transport: string): Promise<void> {
    return this.#connectsOver(transport).next(changeMs);
  }

  /** The data of each event that arrived on the channel so far, whoever listened to it. */
  arrived(channel: string): unknown[] {
    return this.#events.filter((event) => event.channel === channel).map((event) => event.data);
  }

  /** The `ext` of each of those events. */
  arrivedExt(channel: string): unknown[] {
    return this.#events.filter((event) => event.channel === channel).map((event) => event.ext);
  }

  close(): Promise<void> {
    return this.#link.close();
  }

  #nextCall(): number {
    this.#lastCall += 1;
    return this.#lastCall;
  }

  #connectsOver(transport: string): Inbox<void> {
    let inbox = this.#connects.get(transport);
    if (inbox === undefined) {
      inbox = new Inbox(`/meta/connect over ${transport}`);
      this.#connects.set(transport, inbox);
    }
    return inbox;
  }

  #ask(command: Command): Promise<void> {
    const late = new Error(`no answer to ${command.name} within ${promptMs} ms`);
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#answers.delete(command.call);
        reject(late);
      }, promptMs);
      this.#answers.set(command.call, ({ error }) => {
        clearTimeout(timer);
        this.#answers.delete(command.call);
        if (error === undefined) resolve();
        else reject(new Error(error));
      });
      Promise.resolve(this.#link.send(command)).catch(reject);
    });
  }

  #receive(report: Report): void {
    switch (report.kind) {
      case "answer":
        this.#answers.get(report.call)?.(report);
        return;
      case "heard":
        this.#listeners.get(report.call)?.heard.push(report.data);
        return;
      case "event":
        this.#events.push(report);
        return;
      case "subscribed":
        for (const subscription of this.#listeners.values()) {
          if (subscription.pattern === report.pattern) subscription.confirm(report.presence);
        }
        return;
      case "connecting":
        this.#connectsOver(report.connectionType).push();
        return;
    }
  }
}
