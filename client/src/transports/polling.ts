import { PandapushError } from "../error.js";
import type { Message } from "../message.js";
import type { NetworkOptions, Platform } from "../platform.js";
import {
  type Batch,
  batchesOf,
  type Limits,
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
): Transport {
  const place = placeOf(url);
  const requests = new Set<AbortController>();
  let waiting: Message[] = [];
  let isBusy = false;
  let isClosed = false;

  const close = (): void => {
    isClosed = true;
    for (const request of requests) request.abort();
  };

  async function exchange({ messages, text }: Batch): Promise<void> {
    const request = new AbortController();
    requests.add(request);
    try {
      const settings = { ...options(), signal: request.signal, isLast: false };
      const answer = await post(url, text, settings);
      if (isClosed) return;
      const { status } = answer;
      if (status >= 200 && status < 300) {
        received(parse(answer.text));
      } else if (isBatchRefused(status) && messages.length > 1) {
        // Perhaps only together they are too long for this server.
        limits.messages = 1;
        for (const single of batchesOf(messages, 1)) if (!isClosed) await exchange(single);
      } else if (isFinal(status)) {
        refused(messages, new PandapushError(status, [], `${place} answered HTTP ${status}`));
      } else {
        throw new Error(`HTTP ${status}`);
      }
    } catch (error) {
      if (isClosed) return;
      close();
      lost(new Error(`${place}: ${(error as Error).message}`));
    } finally {
      requests.delete(request);
    }
  }

  async function drain(): Promise<void> {
    isBusy = true;
    while (waiting.length > 0) {
      const batches = batchesOf(waiting, limits.messages);
      waiting = [];
      for (const batch of batches) {
        await exchange(batch);
        if (isClosed) return;
      }
    }
    isBusy = false;
  }

  return {
    type: "long-polling",
    send(messages) {
      const [first] = messages;
      if (first === undefined || first.channel === "/meta/connect") {
        for (const batch of batchesOf(messages)) void exchange(batch);
        return;
      }
      waiting = waiting.concat(messages);
      if (!isBusy) void drain();
    },
    leave(message) {
      const settings = { ...options(), signal: new AbortController().signal, isLast: true };
      post(url, JSON.stringify([message]), settings).catch(() => {
        // Nobody is left to tell.
      });
    },
    close,
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
