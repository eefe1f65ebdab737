/** What a browser and Node do differently. */
import type { ProxyOptions } from "./client.js";

/** The part of a WebSocket that is used. */
export interface Socket {
  onopen: (() => void) | null;
  onmessage: ((event: { data: unknown }) => void) | null;
  onclose: ((event: { code: number; reason: string }) => void) | null;
  /** Only Node says what it was. */
  onerror: ((event: { message?: string }) => void) | null;
  /** 1: open. */
  readonly readyState: number;
  send(text: string): void;
  close(): void;
}

/** The part of an EventSource that is used. */
export interface Stream {
  onopen: (() => void) | null;
  onmessage: ((event: { data: string }) => void) | null;
  onerror: ((event: unknown) => void) | null;
  close(): void;
}

/** As in `ClientOptions`. Browsers heed the headers only. */
export interface NetworkOptions {
  readonly headers: Readonly<Record<string, string>>;
  readonly proxy: string | ProxyOptions | undefined;
  readonly tls: object | undefined;
  readonly ca: string | undefined;
  readonly websocketExtensions: unknown;
}

export interface PostOptions extends NetworkOptions {
  /** null: the page is being left, and the request must outlive it. */
  readonly signal: AbortSignal | null;
}

export interface Platform {
  /** Where relative URLs begin; undefined where there is no page. */
  readonly base: string | undefined;
  /** undefined where there are no WebSockets. */
  readonly openSocket:
    | ((url: string, options: NetworkOptions) => Socket | Promise<Socket>)
    | undefined;
  /** undefined where there is no EventSource, or the URL is not of the page's own origin. */
  readonly openStream: ((url: string) => Stream | undefined) | undefined;
  /** An application's signal may be listened to many times. */
  readonly shareSignal?: (signal: object | undefined) => void;
  /** Rejects when there is no answer. */
  post(url: string, body: string, options: PostOptions): Promise<{ status: number; text: string }>;
  /**
   * Tells of changes in the world around the client.
   * @returns a function that ends this
   */
  watch(listeners: {
    /** The network came or the page is looked at again: what waits should be tried now. */
    readonly awake: () => void;
    /** The network seems to be gone: what is open should be looked at. */
    readonly doubt: () => void;
    readonly leave: () => void;
  }): () => void;
}
