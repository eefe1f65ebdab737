import type { Broker, BrokerHandler } from "./broker.js";

/** The broker of a node that stands alone: what it publishes is handled in the same call. */
export function createMemoryBroker(handler: BrokerHandler): Broker {
  let seq = 0;
  let isClosed = false;
  return {
    publish(appId, publication) {
      const position = { epoch: "memory", seq: ++seq };
      if (!isClosed) handler.received(appId, publication, position);
      return position;
    },
    subscribe: () => undefined,
    unsubscribe: () => undefined,
    caughtUp: () => true,
    async close() {
      isClosed = true;
    },
  };
}
