import { PandapushError } from "../error.js";
import type { Message } from "../message.js";
import type { NetworkOptions, Platform, Socket } from "../platform.js";
import {
  batchesOf,
  type Limits,
  parse,
  placeOf,
  type Transport,
  type TransportListeners,
} from "./transport.js";

/** RFC 6455, section 7.4.1: the peer does not take messages of this size. */
const tooBig = 1009;

/**
 * Opens a socket.
 * @throws Error when it does not open, or not within `timeoutMs`
 */
export async function openWebSocket(
  openSocket: NonNullable<Platform["openSocket"]>,
  url: string,
  options: NetworkOptions,
  timeoutMs: number,
  limits: Limits,
  listeners: TransportListeners,
): Promise<Transport> {
  const address = url.replace(/^http/, "ws");
  const socket = await openSocket(address, options);
  return new Promise((resolve, reject) => {
    const fail = (why: string): void => {
      clearTimeout(timer);
      silence(socket);
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
  });
}

function transportOf(
  socket: Socket,
  limits: Limits,
  { received, refused, lost }: TransportListeners,
): Transport {
  const encoder = new TextEncoder();
  let longest: readonly Message[] = [];
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
    let messages: Message[];
    try {
      messages = parse(String(data));
    } catch (error) {
      silence(socket);
      lost(error as Error);
      return;
    }
    received(messages);
  };
  // What a closing socket is given is lost, and browsers complain of it; its close event follows.
  const write = (text: string): void => {
    if (socket.readyState === 1) socket.send(text);
  };
  return {
    type: "websocket",
    send(messages) {
      for (const batch of batchesOf(messages, limits.messages)) {
        const bytes = encoder.encode(batch.text).length;
        if (bytes >= longestBytes) {
          longest = batch.messages;
          longestBytes = bytes;
        }
        write(batch.text);
      }
    },
    leave(message) {
      write(JSON.stringify([message]));
    },
    close() {
      silence(socket);
    },
  };
}

function silence(socket: Socket): void {
  socket.onopen = socket.onmessage = socket.onclose = null;
  socket.onerror = () => {};
  socket.close();
}
