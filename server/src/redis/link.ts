/** Keeps a connection to a Redis host, for as long as this process wants one. */
import { type Connection, HostUnavailable } from "./connection.js";

/** Wait between two attempts to connect: doubles from the first to the second, less a random part. */
const retryMs = { first: 50, longest: 1_000 };
/** A connection that ended sooner counts as a failed attempt. */
const steadyMs = 5_000;

/** Keeps one connection open: whenever it has ended, another is opened. */
export class Link {
  /** The one that can be used, if there is one. */
  connection: Connection | undefined;
  /** Why there is none; undefined before the first attempt. */
  reason: Error | undefined;
  readonly tried: Promise<void>;
  private opening: Connection | undefined;
  private isClosed = false;
  private afterTrying: () => void = noop;
  private goOn: () => void = noop;
  private unavailableError: HostUnavailable | undefined;

  constructor(
    private readonly connect: () => Connection,
    /** Done before it is used. */
    private readonly prepare: (connection: Connection) => Promise<void>,
    private readonly onUp: (connection: Connection) => void,
    private readonly onDown: (reason: Error) => void,
  ) {
    this.tried = new Promise((resolve) => {
      this.afterTrying = resolve;
    });
    void this.keepOpen();
  }

  /** For what cannot be sent now; one object for all, for they may be many. */
  unavailable(host: string): HostUnavailable {
    this.unavailableError ??= new HostUnavailable(host, this.reason ?? new Error("not connected"));
    return this.unavailableError;
  }

  close(): void {
    this.isClosed = true;
    (this.connection ?? this.opening)?.fail(new Error("closed"));
    this.goOn();
  }

  private async keepOpen(): Promise<void> {
    let failures = 0;
    while (!this.isClosed) {
      const openedAt = performance.now();
      const reason = await this.use(this.connect());
      if (performance.now() - openedAt > steadyMs) failures = 0;
      this.connection = undefined;
      this.reason = reason;
      this.unavailableError = undefined;
      this.afterTrying();
      if (this.isClosed) return;
      this.onDown(reason);
      await this.pause(Math.min(retryMs.first * 2 ** failures++, retryMs.longest));
    }
  }

  /** @returns why it ended */
  private async use(connection: Connection): Promise<Error> {
    this.opening = connection;
    try {
      await connection.open();
      await this.prepare(connection);
    } catch (error) {
      connection.fail(error as Error);
      return connection.ended;
    }
    this.connection = connection;
    this.reason = undefined;
    this.onUp(connection);
    this.afterTrying();
    return connection.ended;
  }

  /** At least half of `ms`: nodes that lost a host together do not return together. */
  private pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms * (0.5 + Math.random() / 2));
      this.goOn = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}

function noop(): void {}
