import type { Platform, Socket, Stream } from "../platform.js";

// The browser's own types demand an event of every listener that is called.
export const browser: Platform = {
  base: globalThis.location?.href,

  openSocket:
    typeof WebSocket === "undefined" ? undefined : (url) => new WebSocket(url) as unknown as Socket,

  openStream:
    typeof EventSource === "undefined"
      ? undefined
      : (url) =>
          // Faye's server sends no CORS headers with a stream.
          new URL(url).origin === globalThis.location?.origin
            ? (new EventSource(url) as unknown as Stream)
            : undefined,

  async post(url, body, { headers, signal }) {
    const response = await fetch(url, {
      method: "POST",
      headers: { "Content-Type": "application/json", ...headers },
      body,
      signal,
      keepalive: signal === null,
      credentials: "include",
      cache: "no-store",
    });
    return { status: response.status, text: await response.text() };
  },

  watch({ awake, doubt, leave }) {
    const look = (): void => {
      if (document.visibilityState === "visible") awake();
    };
    const targets: readonly [EventTarget | undefined, string, () => void][] = [
      [globalThis.window, "online", awake],
      [globalThis.window, "offline", doubt],
      // Not "beforeunload": who is asked may stay, and links to downloads and mail leave nothing.
      [globalThis.window, "pagehide", leave],
      [globalThis.document, "visibilitychange", look],
    ];
    const watching = new AbortController();
    for (const [target, event, listener] of targets) {
      target?.addEventListener(event, listener, { signal: watching.signal });
    }
    return () => watching.abort();
  },
};
