/** Which network addresses are one party's, as far as logins are concerned. */
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
