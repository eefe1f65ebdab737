import type { Stream } from "../platform.js";
import { parse, type Transport, type TransportListeners } from "./transport.js";

/**
 * Events come over a stream, all else goes by `requests`, whose listeners are the same.
 * @param signal gives it up, or closes it
 * @throws undefined when the stream does not open, or not within `timeoutMs`
 */
export function openEventSource(
  stream: Stream,
  requests: Transport,
  timeoutMs: number,
  { received, lost }: TransportListeners,
  signal: AbortSignal,
): Promise<Transport> {
  return new Promise((resolve, reject) => {
    const fail = (): void => {
      clearTimeout(timer);
      stream.onopen = stream.onmessage = stream.onerror = null;
      stream.close();
      reject();
    };
    const timer = setTimeout(fail, timeoutMs);
    signal.addEventListener("abort", fail);
    stream.onerror = fail;
    stream.onmessage = ({ data }) => received(parse(data));
    stream.onopen = () => {
      clearTimeout(timer);
      stream.onerror = () => {
        // The browser would open it again by itself, past our pauses.
        fail();
        lost(new Error("The event stream was lost"));
      };
      resolve({ ...requests, type: "eventsource" });
    };
  });
}
