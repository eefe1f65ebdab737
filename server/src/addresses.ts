/** Network addresses of clients, and what each of them holds. */

/** Counts what each address holds, up to a limit. */
export class AddressCounter {
  private readonly counts = new Map<string, number>();

  constructor(private readonly limit: number) {}

  /** @returns false at the limit; what is not counted never reaches it */
  add(address: string | undefined): boolean {
    const counted = countedAddress(address);
    if (counted === undefined) return true;
    const count = this.counts.get(counted) ?? 0;
    if (count >= this.limit) return false;
    this.counts.set(counted, count + 1);
    return true;
  }

  remove(address: string | undefined): void {
    if (address === undefined) return;
    const rest = (this.counts.get(address) ?? 1) - 1;
    if (rest > 0) this.counts.set(address, rest);
    else this.counts.delete(address);
  }
}

/** Loopback is never counted: there it is a proxy that nobody named, or a test. */
export function countedAddress(address: string | undefined): string | undefined {
  return address === undefined || isLoopback(address) ? undefined : address;
}

function isLoopback(address: string): boolean {
  return address === "::1" || /^(?:::ffff:)?127\./.test(address);
}
