/**
 * React hooks for Pandapush: copy this file into your program. The client is made once, outside of
 * components: `const client = new Client("https://push.example.com/push")`.
 */
import type { Client, ClientState, PandapushError, TokenSource } from "pandapush-client";
import { useCallback, useEffect, useRef, useState, useSyncExternalStore } from "react";

export interface SubscriptionOptions {
  /** For channels that are not public; a new function in each render is fine. */
  readonly token?: TokenSource;
  /** Something may have been missed: load what is shown again. */
  readonly onGap?: () => void;
}

/**
 * Calls `listener` with the messages of a channel while the component is shown.
 * @returns why the server refuses, if it does
 */
export function useSubscription<T>(
  client: Client,
  channel: string,
  listener: (data: T, channel: string) => void,
  options: SubscriptionOptions = {},
): PandapushError | undefined {
  // What was given last is used, and does not make a new subscription.
  const latest = useRef({ listener, options });
  useEffect(() => {
    latest.current = { listener, options };
  });
  const [error, setError] = useState<PandapushError>();
  const isPublic = options.token === undefined;

  useEffect(() => {
    const hear = (data: T, from: string): void => latest.current.listener(data, from);
    const subscription = isPublic
      ? client.subscribe<T>(channel, hear)
      : client.subscribeTo<T>(channel, () => giveToken(latest.current.options.token), hear);
    subscription
      .on("subscribed", () => setError(undefined))
      .on("resubscribed", () => setError(undefined))
      .on("refused", setError)
      .on("gap", () => latest.current.options.onGap?.());
    return () => subscription.cancel();
  }, [client, channel, isPublic]);

  return error;
}

export interface Presence<T> {
  /** By presence id; this client is among them. */
  readonly members: ReadonlyMap<string, T>;
  /** Why the server refuses, if it does; `members` are those of before. */
  readonly error: PandapushError | undefined;
}

/** Who is present on a channel while the component is shown. */
export function usePresence<T = { id: string }>(
  client: Client,
  channel: string,
  token: TokenSource,
): Presence<T> {
  const latest = useRef(token);
  useEffect(() => {
    latest.current = token;
  });
  const [presence, setPresence] = useState<Presence<T>>(nobody);

  useEffect(() => {
    const room = client.presence<T>(channel, () => giveToken(latest.current));
    const show = (error?: PandapushError): void =>
      setPresence({ members: new Map(room.members), error });
    room
      .on("sync", () => show())
      .on("join", () => show())
      .on("leave", () => show())
      .on("refused", show);
    return () => {
      room.cancel();
      // Nobody of this room is in the next one.
      setPresence(nobody);
    };
  }, [client, channel]);

  return presence;
}

/** `connected`, `connecting`, … */
export function useConnectionState(client: Client): ClientState {
  const subscribe = useCallback(
    (changed: () => void) => {
      client.on("state", changed);
      return () => client.off("state", changed);
    },
    [client],
  );
  return useSyncExternalStore(
    subscribe,
    () => client.state,
    () => "unconnected" as const,
  );
}

const nobody = { members: new Map<string, never>(), error: undefined };

function giveToken(token: TokenSource) {
  return typeof token === "function" ? token() : token;
}
