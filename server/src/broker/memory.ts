import type { Broker, PublicationHandler } from "./broker.js";

/** The broker of a node that stands alone: what it publishes is handled in the same call. */
export function createMemoryBroker(handle: PublicationHandler): Broker {
  return {
    publish: handle,
    subscribe: () => undefined,
    unsubscribe: () => undefined,
    close: async () => undefined,
  };
}
