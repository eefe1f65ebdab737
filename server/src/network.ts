/** Network addresses of clients: whose they are, and what each party holds. */
import { isIPv4, isIPv6 } from "node:net";

/**
 * What one subscriber of a network has: an IPv4 address, also where it is written as an IPv6 one
 * (RFC 4291, section 2.5.5.2), or the 64 bits before the part of an IPv6 address that its owner
 * chooses. Any other text stays as it is.
 */
export function networkOf(address: string): string {
  const [plain = ""] = address.split("%", 1);
  if (isIPv4(plain) || !isIPv6(plain)) return plain;
  // A URL has it in one form: in lower case and short, with all of it in hexadecimal.
  const canonical = new URL(`http://[${plain}]`).hostname.slice(1, -1);
  const mapped = /^::ffff:([\da-f]+):([\da-f]+)$/.exec(canonical);
  if (mapped !== null) {
    const bytes = mapped.slice(1).flatMap((group) => {
      const value = Number.parseInt(group, 16);
      return [value >> 8, value & 255];
    });
    return bytes.join(".");
  }
  const [head = "", tail] = canonical.split("::");
  const groups = head === "" ? [] : head.split(":");
  if (tail !== undefined) {
    const last = tail === "" ? [] : tail.split(":");
    while (groups.length + last.length < 8) groups.push("0");
    groups.push(...last);
  }
  return `${groups.slice(0, 4).join(":")}::/64`;
}

/** There it is a proxy that nobody named, or a test. */
export function isLoopback(address: string): boolean {
  return address === "::1" || /^(?:::ffff:)?127(?:\.\d+){3}$/.test(address);
}

/** IPv4 as people write it, also where it came over IPv6. RFC 4291, section 2.5.5.2 */
export function shownAddress(address: string | undefined): string | undefined {
  return address?.replace(/^::ffff:(?=\d+\.)/, "");
}

/** Loopback is never counted. */
export function countedAddress(address: string | undefined): string | undefined {
  return address === undefined || isLoopback(address) ? undefined : address;
}

/** Counts what each network holds, up to a limit. */
export class NetworkCounter {
  private readonly counts = new Map<string, number>();

  constructor(private readonly limit: number) {}

  /** @returns false at the limit; what is not counted never reaches it */
  add(address: string | undefined): boolean {
    const counted = countedAddress(address);
    if (counted === undefined) return true;
    const network = networkOf(counted);
    const count = this.counts.get(network) ?? 0;
    if (count >= this.limit) return false;
    this.counts.set(network, count + 1);
    return true;
  }

  remove(address: string | undefined): void {
    const counted = countedAddress(address);
    if (counted === undefined) return;
    const network = networkOf(counted);
    const rest = (this.counts.get(network) ?? 1) - 1;
    if (rest > 0) this.counts.set(network, rest);
    else this.counts.delete(network);
  }
}
