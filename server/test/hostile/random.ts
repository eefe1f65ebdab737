/** Randomness that can be repeated: print the seed, and give it in FUZZ_SEED to see the same again. */
export class Random {
  private state: number;

  constructor(readonly seed: number) {
    this.state = seed >>> 0;
  }

  /** From `FUZZ_SEED`, else new; printed, so that a failure can be repeated. */
  static fromEnvironment(what: string): Random {
    const given = Number(process.env.FUZZ_SEED);
    const seed = Number.isInteger(given) && given > 0 ? given : Date.now() % 1_000_000_007;
    console.log(`${what}: FUZZ_SEED=${seed}`);
    return new Random(seed);
  }

  /** Mulberry32, from 0 up to but without 1. */
  next(): number {
    this.state = (this.state + 0x6d2b79f5) | 0;
    let bits = Math.imul(this.state ^ (this.state >>> 15), 1 | this.state);
    bits = (bits + Math.imul(bits ^ (bits >>> 7), 61 | bits)) ^ bits;
    return ((bits ^ (bits >>> 14)) >>> 0) / 4_294_967_296;
  }

  /** An integer from 0 up to but without `bound`. */
  below(bound: number): number {
    return Math.floor(this.next() * bound);
  }

  isLucky(probability: number): boolean {
    return this.next() < probability;
  }

  pick<T>(items: readonly T[]): T {
    return items[this.below(items.length)] as T;
  }
}
