import { PandapushError } from "../error.js";
import type { NetworkOptions, Platform, Socket } from "../platform.js";
import {
  batchesOf,
  type Limits,
  type Parcel,
  parse,
  placeOf,
  type Transport,
  type TransportListeners,
} from "./transport.js";

/** RFC 6455, section 7.4.1: the peer does not take messages of this size. */
const tooBig = 1009;

/**
 * Opens a socket.
 * @param signal gives it up, or closes it
 * @throws Error when it does not open, or not within `timeoutMs`
 */
export async function openWebSocket(
  openSocket: NonNullable<Platform["openSocket"]>,
  url: string,
  options: NetworkOptions,
  timeoutMs: number,
  limits: Limits,
  listeners: TransportListeners,
  signal: AbortSignal,
): Promise<Transport> {
  const address = url.replace(/^http/, "ws");
  const socket = await openSocket(address, options);
  return new Promise((resolve, reject) => {
    const fail = (why: string): void => {
      clearTimeout(timer);
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.onerror = () => {};
      socket.close();
      reject(new Error(`${placeOf(address)}: ${why}`));
    };
    const timer = setTimeout(() => fail("it did not open in time"), timeoutMs);
    socket.onclose = ({ code }) => fail(`it did not open (${code})`);
    // A close event follows each error. In pages it is all there is.
    socket.onerror = ({ message }) => {
      if (message) fail(message);
    };
    socket.onopen = () => {
      clearTimeout(timer);
      resolve(transportOf(socket, limits, listeners));
    };
    const close = (): void => fail("it was closed");
    signal.addEventListener("abort", close);
    // While the socket was being made.
    if (signal.aborted) close();
  });
}

function transportOf(
  socket: Socket,
  limits: Limits,
  { received, refused, lost }: TransportListeners,
): Transport {
  const encoder = new TextEncoder();
  let longest: readonly Parcel[] = [];
  let longestBytes = 0;
  socket.onclose = ({ code, reason }) => {
    const error = new Error(`The WebSocket was closed (${code}${reason && `: ${reason}`})`);
    if (code === tooBig && longest.length === 1) {
      refused(longest, new PandapushError(null, [], "The message is too long for the server"));
    } else if (code === tooBig) {
      // Perhaps only together they are too long: they are sent again one by one.
      limits.messages = 1;
    }
    lost(error);
  };
  socket.onmessage = ({ data }) => {
    try {
      received(parse(String(data)));
    } catch (error) {
      lost(error as Error);
    }
  };
  return {
    type: "websocket",
    send(parcels) {
      for (const batch of batchesOf(parcels, limits.messages)) {
        const bytes = encoder.encode(batch.text).length;
        if (bytes >= longestBytes) {
          longest = batch.parcels;
          longestBytes = bytes;
        }
        // A closing one would lose it, and browsers complain of it; its close event follows.
        if (socket.readyState === 1) socket.send(batch.text);
      }
    },
  };
}
