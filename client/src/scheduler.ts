import type { Message } from "./message.js";

/** Times in seconds, but for `deadline`: ms since 1970. */
export interface SchedulerOptions {
  /** How long to wait for the reply. */
  readonly timeout: number;
  /** How long to wait after a failure before the message is sent again. */
  readonly interval: number;
  /** How often the message may be sent at most. */
  readonly attempts?: number | undefined;
  readonly deadline?: number | undefined;
}

/**
 * Decides for one message whether and when it is sent again. The option `scheduler` takes a class
 * of this shape; one is made for each message.
 */
export class Scheduler {
  attempts = 0;

  constructor(
    readonly message: Message,
    readonly options: SchedulerOptions,
  ) {}

  /** In seconds. */
  getTimeout(): number {
    return this.options.timeout;
  }

  /** In seconds. */
  getInterval(): number {
    return this.options.interval;
  }

  isDeliverable(): boolean {
    const { attempts = Number.POSITIVE_INFINITY, deadline = Number.POSITIVE_INFINITY } =
      this.options;
    return this.attempts < attempts && Date.now() <= deadline;
  }

  send(): void {
    this.attempts += 1;
  }

  succeed(): void {}

  fail(): void {}

  abort(): void {}
}
