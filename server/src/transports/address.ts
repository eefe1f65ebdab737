import type { IncomingMessage } from "node:http";
import proxyAddr from "proxy-addr";

/**
 * Reads the network address that per-address limits count: the nearest one that is no trusted
 * proxy. Loopback is never counted: there it is a proxy that nobody named, or a test.
 */
export function addressReader(
  trustProxy: readonly string[],
): (request: IncomingMessage) => string | undefined {
  const trust = proxyAddr.compile([...trustProxy]);
  return (request) => {
    // A socket that is gone already has no address.
    if (request.socket.remoteAddress === undefined) return undefined;
    const address = proxyAddr(request, trust);
    return isLoopback(address) ? undefined : address;
  };
}

function isLoopback(address: string): boolean {
  return address === "::1" || /^(?:::ffff:)?127\./.test(address);
}

/** Counts what each address holds, up to a limit. */
export class AddressCounter {
  private readonly counts = new Map<string, number>();

  constructor(private readonly limit: number) {}

  /** @returns false at the limit; an undefined address is never counted */
  add(address: string | undefined): boolean {
    if (address === undefined) return true;
    const count = this.counts.get(address) ?? 0;
    if (count >= this.limit) return false;
    this.counts.set(address, count + 1);
    return true;
  }

  remove(address: string | undefined): void {
    if (address === undefined) return;
    const rest = (this.counts.get(address) ?? 1) - 1;
    if (rest > 0) this.counts.set(address, rest);
    else this.counts.delete(address);
  }
}
