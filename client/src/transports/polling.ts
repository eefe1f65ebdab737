import { PandapushError } from "../error.js";
import type { NetworkOptions, Platform } from "../platform.js";
import {
  type Batch,
  batchesOf,
  type Limits,
  type Parcel,
  parse,
  placeOf,
  type Transport,
  type TransportListeners,
} from "./transport.js";

/**
 * Long-polling: a request for each batch. Connects, which the server holds, have requests of their
 * own; all else goes one request after the other, so that it arrives in order.
 */
export function openPolling(
  post: Platform["post"],
  url: string,
  options: () => NetworkOptions,
  limits: Limits,
  { received, refused, lost }: TransportListeners,
  signal: AbortSignal,
): Transport {
  const place = placeOf(url);
  let waiting: readonly Parcel[] = [];
  let isBusy = false;

  async function exchange({ parcels, text }: Batch): Promise<void> {
    try {
      const answer = await post(url, text, { ...options(), signal });
      if (signal.aborted) return;
      const { status } = answer;
      if (status >= 200 && status < 300) {
        received(parse(answer.text));
      } else if (isBatchRefused(status) && parcels.length > 1) {
        // Perhaps only together they are too long for this server.
        limits.messages = 1;
        for (const single of batchesOf(parcels, 1)) if (!signal.aborted) await exchange(single);
      } else if (isFinal(status)) {
        refused(parcels, new PandapushError(status, [], `${place} answered HTTP ${status}`));
      } else {
        throw new Error(`HTTP ${status}`);
      }
    } catch (error) {
      if (!signal.aborted) lost(new Error(`${place}: ${(error as Error).message}`));
    }
  }

  async function drain(): Promise<void> {
    isBusy = true;
    while (waiting.length > 0) {
      const batches = batchesOf(waiting, limits.messages);
      waiting = [];
      for (const batch of batches) {
        await exchange(batch);
        if (signal.aborted) return;
      }
    }
    isBusy = false;
  }

  return {
    type: "long-polling",
    send(parcels) {
      const [first] = parcels;
      if (first === undefined || first.channel === "/meta/connect") {
        for (const batch of batchesOf(parcels)) void exchange(batch);
        return;
      }
      waiting = waiting.concat(parcels);
      if (!isBusy) void drain();
    },
  };
}

/** What Pandapush and proxies say of a batch that is too long, by its messages or its bytes. */
function isBatchRefused(status: number): boolean {
  return status === 400 || status === 413;
}

/** A request that will be refused again; what a proxy says while a server is away is not. */
function isFinal(status: number): boolean {
  return status >= 400 && status < 500 && status !== 408 && status !== 429;
}
