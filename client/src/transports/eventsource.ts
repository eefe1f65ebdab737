import type { Stream } from "../platform.js";
import { parse, type Transport, type TransportListeners } from "./transport.js";

/**
 * Events come over a stream, all else goes by `requests`, whose listeners are the same.
 * @throws Error when the stream does not open, or not within `timeoutMs`
 */
export function openEventSource(
  stream: Stream,
  requests: Transport,
  timeoutMs: number,
  { received, lost }: TransportListeners,
): Promise<Transport> {
  const silence = (): void => {
    stream.onopen = stream.onmessage = stream.onerror = null;
    stream.close();
  };
  return new Promise((resolve, reject) => {
    const fail = (): void => {
      clearTimeout(timer);
      silence();
      reject(new Error("The event stream did not open"));
    };
    const timer = setTimeout(fail, timeoutMs);
    stream.onerror = fail;
    stream.onmessage = ({ data }) => received(parse(data));
    stream.onopen = () => {
      clearTimeout(timer);
      stream.onerror = () => {
        // The browser would open it again by itself, past our pauses.
        silence();
        lost(new Error("The event stream was lost"));
      };
      resolve({
        ...requests,
        type: "eventsource",
        close() {
          silence();
          requests.close();
        },
      });
    };
  });
}
