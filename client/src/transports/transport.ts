import type { PandapushError } from "../error.js";
import type { ConnectionType, Message } from "../message.js";

/** A message as it travels. */
export interface Parcel {
  readonly id: string;
  readonly channel: string;
  /** The message as JSON. */
  readonly text: string;
}

/**
 * One way to a server. It is used until it is lost, or closed with the signal that it was opened
 * with, and never again.
 */
export interface Transport {
  readonly type: ConnectionType;
  /** Sends messages in order, in as few batches as servers take; none asks for a sign of life. */
  send(parcels: readonly Parcel[]): void;
}

export interface TransportListeners {
  /** What the server sent, parsed; an empty batch is a sign of life. */
  readonly received: (messages: readonly Message[]) => void;
  /** The server will not take these, however often they come; everything else goes on. */
  readonly refused: (parcels: readonly Parcel[], error: PandapushError) => void;
  /** It cannot be used any more. */
  readonly lost: (error: Error) => void;
}

export interface Batch {
  readonly parcels: readonly Parcel[];
  readonly text: string;
}

/** What the server takes, as far as it is known. */
export interface Limits {
  /** How many messages a batch may have. */
  messages: number;
}

/** Well below what servers accept at least: Pandapush 256 KiB and 1000 messages, by default. */
const maxBatchLength = 65_536;
export const maxBatchMessages = 100;

/** A single message may be longer than a batch of several. */
export function batchesOf(parcels: readonly Parcel[], maxMessages = maxBatchMessages): Batch[] {
  const batches: Batch[] = [];
  let part: Parcel[] = [];
  let length = 0;
  const finish = (): void => {
    batches.push({ parcels: part, text: `[${part.map(({ text }) => text).join()}]` });
    part = [];
    length = 0;
  };
  for (const parcel of parcels) {
    const isFull = length + parcel.text.length > maxBatchLength || part.length >= maxMessages;
    if (isFull && part.length > 0) finish();
    part.push(parcel);
    length += parcel.text.length;
  }
  if (part.length > 0 || parcels.length === 0) finish();
  return batches;
}

/** @throws Error when the text is no batch */
export function parse(text: string): Message[] {
  const value: unknown = JSON.parse(text);
  const list: unknown[] = Array.isArray(value) ? value : [value];
  return list.filter((item): item is Message => isObject(item)).map(tidy);
}

/** A URL as errors may show it, without the password that it may have. */
export function placeOf(url: string): string {
  const { origin, pathname } = new URL(url);
  return origin + pathname;
}

/** Longer times of a server's advice are taken for this, in ms: timers cannot count much further. */
const maxAdviceMs = 3_600_000;

/** Whatever a server sends, these fields are of their types, or not there. */
function tidy(message: Message): Message {
  const { error, advice, ext, successful, supportedConnectionTypes } = message;
  if (error !== undefined) message.error = String(error);
  if (successful !== undefined) message.successful = successful === true;
  if (!isObject(ext)) delete message.ext;
  if (!Array.isArray(supportedConnectionTypes)) delete message.supportedConnectionTypes;
  if (!isObject(advice)) {
    delete message.advice;
    return message;
  }
  for (const name of ["interval", "timeout"] as const) {
    const ms = advice[name];
    if (typeof ms !== "number") delete advice[name];
    else advice[name] = Math.min(Math.max(0, ms), maxAdviceMs);
  }
  return message;
}

function isObject(value: unknown): value is object {
  return typeof value === "object" && value !== null;
}
