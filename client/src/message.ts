/** A Bayeux message as extensions see it: a request, a reply or an event. */
export interface Message {
  channel: string;
  id?: string;
  clientId?: string;
  connectionType?: string;
  version?: string;
  supportedConnectionTypes?: readonly string[];
  subscription?: unknown;
  data?: unknown;
  ext?: Record<string, unknown>;
  advice?: { reconnect?: string; interval?: number; timeout?: number };
  successful?: boolean;
  error?: string;
  [field: string]: unknown;
}

/** The names by which clients and servers agree on how to talk. */
export type ConnectionType = "websocket" | "eventsource" | "long-polling";
