import { createRequire } from "node:module";
import { AckExtension, CometD, TimeStampExtension, TimeSyncExtension } from "cometd";
import { adapt } from "cometd-nodejs-client";
import { Client } from "pandapush-client";
import { cometdAgent, type FayeClient, fayeAgent } from "./agents.js";
import { type ClientKind, StockClient } from "./client.js";

const require = createRequire(import.meta.url);

export const fayeReleases = ["1.4.3", "1.4.0", "1.2.4", "1.1.3"] as const;

interface FayeModule {
  readonly Client: new (url: string, options: { readonly retry: number }) => FayeClient;
}

/** Faye's JavaScript client in Node. */
export function fayeInNode(
  release: (typeof fayeReleases)[number],
  transport: "websocket" | "long-polling",
): ClientKind {
  const isOld = release === "1.1.3";
  return {
    name: `faye ${release} in Node`,
    transport,
    publishes: true,
    maxPublishLength: isOld && transport === "long-polling" ? 1_500 : 100_000,
    oneAtATime: isOld,
    open: (url) =>
      StockClient.open((report) => {
        const faye = require(`faye-${release}`) as FayeModule;
        const client = new faye.Client(`${url}/push`, { retry: 1 });
        if (transport !== "websocket") client.disable("websocket");
        const operate = fayeAgent(client, report);
        return {
          send: operate,
          close: async () => {
            client.disconnect();
          },
        };
      }),
  };
}

/** Our own client in Node, driven as a Faye client, which it also is. */
export function pandapushInNode(transport: "websocket" | "long-polling"): ClientKind {
  return {
    name: "pandapush-client 2 in Node",
    transport,
    publishes: true,
    maxPublishLength: 100_000,
    oneAtATime: false,
    open: (url) =>
      StockClient.open((report) => {
        const client = new Client(`${url}/push`);
        if (transport !== "websocket") client.disable("websocket");
        const operate = fayeAgent(client as FayeClient, report);
        return {
          send: operate,
          close: async () => {
            client.disconnect();
          },
        };
      }),
  };
}

/**
 * CometD's JavaScript client in Node, through the adapter of its authors; with the extensions that
 * its applications like to register, or without.
 */
export function cometdInNode(
  transport: "websocket" | "long-polling",
  extensions: "plain" | "extended" = "plain",
): ClientKind {
  return {
    name: `cometd 9 ${extensions === "extended" ? "with extensions " : ""}in Node`,
    transport,
    publishes: true,
    maxPublishLength: 7_000,
    oneAtATime: false,
    open: (url) =>
      StockClient.open((report) => {
        adapt();
        const client = new CometD();
        for (const type of client.getTransportTypes()) {
          if (type !== transport) client.unregisterTransport(type);
        }
        client.configure({ url: `${url}/push`, logLevel: "warn" });
        if (extensions === "extended") {
          client.registerExtension("ack", new AckExtension());
          client.registerExtension("timestamp", new TimeStampExtension());
          client.registerExtension("timesync", new TimeSyncExtension());
        }
        const operate = cometdAgent(client, report);
        return {
          send: operate,
          close: async () => {
            client.disconnect();
          },
        };
      }),
  };
}
