import type { IncomingMessage } from "node:http";
import { ownText } from "@pandapush/protocol";
import proxyAddr from "proxy-addr";

/** Reads a client's network address: the nearest one that is no trusted proxy. */
export function addressReader(
  trustProxy: readonly string[],
): (request: IncomingMessage) => string | undefined {
  const trust = proxyAddr.compile([...trustProxy]);
  return (request) => {
    // A socket that is gone already has no address.
    const { remoteAddress } = request.socket;
    if (remoteAddress === undefined) return undefined;
    const address = proxyAddr(request, trust);
    // Any other is a part of a header, and may be kept for as long as a session lives.
    return address === remoteAddress ? remoteAddress : ownText(address);
  };
}
