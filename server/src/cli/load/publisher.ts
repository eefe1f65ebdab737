/** Publishes over REST at a steady rate, as a back end does. */
import { type Figures, nowUs, type Sent } from "./figures.js";
import type { Plan, Pushes } from "./plan.js";
import { describe, type HttpConnections } from "./wire.js";

const tickMs = 5;
/** What waits for an answer; beyond, the rate is not kept. */
const maxUnanswered = 64;

/** What was published to one channel, so far. */
export class Numbers implements Sent {
  sent = 0;
  readonly failed: number[] = [];
}

export class Publisher {
  private isStopped = false;

  constructor(
    private readonly plan: Plan,
    private readonly http: HttpConnections,
    private readonly figures: Figures,
  ) {}

  /**
   * Resolves when all are answered.
   * @param target where the next one goes
   */
  run(
    { count, perSecond }: Pushes,
    target: (index: number) => { readonly channel: string; readonly numbers: Numbers },
  ): Promise<void> {
    const startedAt = performance.now();
    let sent = 0;
    let unanswered = 0;
    return new Promise((resolve) => {
      const step = (): void => {
        const due = Math.floor(((performance.now() - startedAt) / 1000) * perSecond);
        while (!this.isStopped && sent < Math.min(count, due) && unanswered < maxUnanswered) {
          const { channel, numbers } = target(sent++);
          unanswered++;
          void this.publish(channel, numbers).finally(() => {
            unanswered--;
          });
        }
        if ((sent >= count || this.isStopped) && unanswered === 0) {
          clearInterval(timer);
          resolve();
        }
      };
      const timer = setInterval(step, tickMs);
      step();
    });
  }

  /** No more are sent. */
  stop(): void {
    this.isStopped = true;
  }

  private async publish(channel: string, numbers: Numbers): Promise<void> {
    const { url, keyId, keySecret, size } = this.plan;
    const { counts, publishing } = this.figures;
    const n = numbers.sent++;
    const at = nowUs();
    const start = `{"n":${n},"at":${at},"pad":"`;
    const body = `${start.padEnd(size - 2, "x")}"}`;
    const basic = Buffer.from(`${keyId}:${keySecret}`).toString("base64");
    const headers = { "content-type": "application/json", authorization: `Basic ${basic}` };
    let fault: string;
    try {
      const { status, text } = await this.http.post(`${url}/channel${channel}`, headers, body);
      if (status === 200) {
        counts.published++;
        publishing.add((nowUs() - at) / 1000);
        return;
      }
      fault = `${status} ${messageIn(text)}`;
    } catch (error) {
      fault = describe(error as Error);
    }
    counts.unpublished++;
    numbers.failed.push(n);
    this.figures.error(`publish: ${fault}`);
  }
}

function messageIn(text: string): string {
  try {
    return String((JSON.parse(text) as { message?: unknown }).message ?? "");
  } catch {
    return text.slice(0, 100);
  }
}
