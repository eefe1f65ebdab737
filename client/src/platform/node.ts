import { setMaxListeners } from "node:events";
import http from "node:http";
import https from "node:https";
import WebSocket from "ws";
import type { NetworkOptions, Platform, Socket } from "../platform.js";

export const node: Platform = {
  base: undefined,
  openStream: undefined,

  async openSocket(url, options) {
    const settings = {
      ...tlsOf(options),
      headers: headersFor(url, options),
      agent: await agentOf(url, options),
      perMessageDeflate: options.websocketExtensions !== undefined,
      // A peer that says nothing any more does not keep the process for long.
      closeTimeout: 1_000,
    };
    return new WebSocket(url, settings) as Socket;
  },

  async post(url, body, options) {
    const agent = await agentOf(url, options);
    return new Promise((resolve, reject) => {
      const { request } = url.startsWith("https:") ? https : http;
      const sent = request(
        url,
        {
          ...tlsOf(options),
          method: "POST",
          agent,
          headers: {
            "Content-Type": "application/json",
            "Content-Length": Buffer.byteLength(body),
            ...headersFor(url, options),
          },
          signal: options.signal ?? undefined,
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
      sent.on("error", (error) => {
        // Of all addresses of a host none took the connection; it itself has no message.
        reject(error instanceof AggregateError ? error.errors[0] : error);
      });
      sent.end(body);
    });
  },

  watch: () => () => {},

  shareSignal(signal) {
    // Who waits for many things with one signal needs no warning of a leak.
    if (signal instanceof EventTarget) setMaxListeners(0, signal);
  },
};

/** `user:password@` in a URL is what a browser would ask the user for. */
function headersFor(url: string, { headers }: NetworkOptions): Record<string, string> {
  const { username, password } = new URL(url);
  if (username === "") return { ...headers };
  const credentials = `${decodeURIComponent(username)}:${decodeURIComponent(password)}`;
  return { Authorization: `Basic ${Buffer.from(credentials).toString("base64")}`, ...headers };
}

function tlsOf({ tls, ca }: NetworkOptions): object {
  return { ...tls, ...(ca !== undefined && { ca }) };
}

/** The agent that goes through a proxy, if there is one. */
async function agentOf(url: string, options: NetworkOptions): Promise<http.Agent | undefined> {
  const isSecure = /^(?:https|wss):/.test(url);
  const { env } = process;
  const proxy = typeof options.proxy === "string" ? { origin: options.proxy } : options.proxy;
  const origin =
    proxy?.origin ??
    (isSecure ? (env.https_proxy ?? env.HTTPS_PROXY) : (env.http_proxy ?? env.HTTP_PROXY));
  if (origin === undefined || origin === "") return undefined;
  const { agentFor } = await import("./proxy.js");
  // A WebSocket needs a tunnel even without TLS.
  return agentFor(origin, isSecure || url.startsWith("ws:"), { ...proxy }, tlsOf(options));
}
