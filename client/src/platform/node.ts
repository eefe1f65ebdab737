import http from "node:http";
import https from "node:https";
import { HttpProxyAgent } from "http-proxy-agent";
import { HttpsProxyAgent } from "https-proxy-agent";
import WebSocket from "ws";
import type { NetworkOptions, Platform, Socket } from "../platform.js";

export const node: Platform = {
  base: undefined,
  openStream: undefined,

  openSocket: (url, options) =>
    new WebSocket(url, {
      ...options.tls,
      headers: headersFor(url, options),
      agent: agentFor(url, options),
      perMessageDeflate: options.compress,
    }) as Socket,

  post: (url, body, options) =>
    new Promise((resolve, reject) => {
      const { request } = url.startsWith("https:") ? https : http;
      const sent = request(
        url,
        {
          ...options.tls,
          method: "POST",
          agent: agentFor(url, options),
          headers: {
            "Content-Type": "application/json",
            "Content-Length": Buffer.byteLength(body),
            ...headersFor(url, options),
          },
          signal: options.signal,
        },
        (response) => {
          let text = "";
          response.setEncoding("utf8");
          response.on("data", (part: string) => {
            text += part;
          });
          response.on("end", () => resolve({ status: response.statusCode ?? 0, text }));
          response.on("error", reject);
          response.on("aborted", () => reject(new Error("The answer ended too early")));
        },
      );
      sent.on("error", reject);
      sent.end(body);
    }),

  watch: () => () => {},
};

/** `user:password@` in a URL is what a browser would ask the user for. */
function headersFor(url: string, { headers }: NetworkOptions): Record<string, string> {
  const { username, password } = new URL(url);
  if (username === "") return { ...headers };
  const credentials = `${decodeURIComponent(username)}:${decodeURIComponent(password)}`;
  return { Authorization: `Basic ${Buffer.from(credentials).toString("base64")}`, ...headers };
}

function agentFor(url: string, { proxy, tls }: NetworkOptions): http.Agent | undefined {
  const isSecure = /^(?:https|wss):/.test(url);
  const { env } = process;
  const origin =
    proxy.origin ??
    (isSecure ? (env.https_proxy ?? env.HTTPS_PROXY) : (env.http_proxy ?? env.HTTP_PROXY));
  if (origin === undefined || origin === "") return undefined;
  const options = { ...tls, ...proxy.tls, headers: { ...proxy.headers } };
  // A WebSocket needs a tunnel even without TLS.
  return isSecure || url.startsWith("ws:")
    ? new HttpsProxyAgent(origin, options)
    : new HttpProxyAgent(origin, options);
}
