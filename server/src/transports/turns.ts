/** How long clients' messages keep the event loop in one go, give or take one batch. */
const sliceMs = 5;

/** What a client sent, begun or not, that goes on in a later turn. */
interface Work {
  goOn(): void;
}

/**
 * What clients send in one go is not done in one go: a single read can bring thousands of messages,
 * and everybody else would wait for them. What a turn of the event loop has no time for is put off,
 * and goes on in the order in which it was.
 */
export class Turns {
  private endsAt = 0;
  /** The end of the turn will be noticed. */
  private isScheduled = false;
  private readonly waiting: Work[] = [];
  /** What stands behind work that waits, of the same owner. */
  private readonly behind = new Map<object, Work[]>();

  /** Whether the turn has time for another batch. */
  hasTime(): boolean {
    const now = performance.now();
    if (now < this.endsAt) return true;
    if (this.isScheduled) return false;
    // The time that was given before is over, perhaps since long: only from here on it matters when
    // this turn ends. To notice the end of every turn would cost more.
    this.endsAt = now + sliceMs;
    this.isScheduled = true;
    setImmediate(this.end);
    return true;
  }

  /** For a turn that has no time. */
  putOff(work: Work): void {
    this.waiting.push(work);
  }

  /**
   * Does `work` in this turn, if it has time, else in a later one.
   * @param owner the connection that sent it: one after the other of those that wait has its turn,
   *   and what one of them sent is done in its order
   */
  do<T>(owner: object, work: () => T | Promise<T>): T | Promise<T> {
    const behind = this.behind.get(owner);
    if (behind === undefined && this.hasTime()) return work();
    return new Promise((resolve, reject) => {
      const goOn = (): void => {
        try {
          resolve(work());
        } catch (error) {
          reject(error);
        }
        this.next(owner);
      };
      if (behind !== undefined) {
        behind.push({ goOn });
        return;
      }
      this.behind.set(owner, []);
      this.putOff({ goOn });
    });
  }

  /** The owner's next work waits behind that of the others. */
  private next(owner: object): void {
    const work = this.behind.get(owner)?.shift();
    if (work === undefined) this.behind.delete(owner);
    else this.putOff(work);
  }

  private readonly end = (): void => {
    this.isScheduled = this.waiting.length > 0;
    if (!this.isScheduled) return;
    setImmediate(this.end);
    this.endsAt = performance.now() + sliceMs;
    while (this.waiting.length > 0 && performance.now() < this.endsAt) this.waiting.shift()?.goOn();
    // What comes now gets as much time as what had to wait.
    this.endsAt = performance.now() + sliceMs;
  };
}
