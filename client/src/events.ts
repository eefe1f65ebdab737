import type { PandapushError } from "./error.js";

/** `connecting` also while a lost connection is being replaced. */
export type ClientState = "unconnected" | "connecting" | "connected" | "disconnected";

export interface ClientEvents {
  /** Messages flow, for the first time or again. */
  "transport:up": [];
  /** The connection is lost, or was closed. */
  "transport:down": [];
  state: [state: ClientState];
  /**
   * The connection was lost, or an attempt to have one failed: nobody there, a wrong URL (`code` of
   * the error is 404), a certificate that is not trusted… The next attempt follows by itself.
   */
  failed: [error: Error | PandapushError];
  /** The server refused the client altogether. It tries again unless it was told not to. */
  refused: [error: PandapushError];
}
