/** What a client should do after this reply. Bayeux 1.0, "advice". Times in ms. */
export interface Advice {
  readonly reconnect: "retry" | "handshake" | "none";
  /** How long to wait before the next connect or handshake. */
  readonly interval?: number;
  /** How long the next connect may be held. */
  readonly timeout?: number;
}
