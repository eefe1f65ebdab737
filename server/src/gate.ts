/** Lets only so many do something at once; the others wait for their turn. */
export class Gate {
  private running = 0;
  private readonly waiting: (() => void)[] = [];

  /** @param maxWaiting how many may wait */
  constructor(
    private readonly max: number,
    private readonly maxWaiting = Number.POSITIVE_INFINITY,
  ) {}

  /** @throws GateFull when too many wait already */
  async do<T>(work: () => Promise<T>): Promise<T> {
    if (this.running < this.max) this.running++;
    else if (this.waiting.length >= this.maxWaiting) throw new GateFull();
    else await new Promise<void>((resolve) => this.waiting.push(resolve));
    try {
      return await work();
    } finally {
      const next = this.waiting.shift();
      // Whoever is next takes this place.
      if (next === undefined) this.running--;
      else next();
    }
  }
}

export class GateFull extends Error {
  override readonly name = "GateFull";
}
