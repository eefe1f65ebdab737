/** Loaded when a proxy is set, which few programs have: it brings much code of others along. */
import type { Agent } from "node:http";
import { HttpProxyAgent } from "http-proxy-agent";
import { HttpsProxyAgent } from "https-proxy-agent";
import type { ProxyOptions } from "../client.js";

/**
 * @param isTunnel for a connection that the proxy passes on as it is
 * @param tls of that connection
 */
export function agentFor(
  origin: string,
  isTunnel: boolean,
  proxy: ProxyOptions,
  tls: object,
): Agent {
  const options = { ...tls, ...proxy.tls, headers: { ...proxy.headers } };
  return isTunnel ? new HttpsProxyAgent(origin, options) : new HttpProxyAgent(origin, options);
}
