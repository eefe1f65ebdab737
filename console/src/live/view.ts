import { useCallback, useEffect, useState } from "react";
import { useNavigation, useSearchParams } from "react-router";

/** All of the live console that can be shared by its address. No token, no secret. */
export interface View {
  /** Channels and patterns that are listened to. */
  readonly listen: readonly string[];
  readonly filter: string;
  /** Where one publishes. */
  readonly channel: string;
  /** JSON text. */
  readonly data: string;
  readonly via: "rest" | "client";
  readonly tool: "publish" | "token";
  readonly token: TokenForm;
}

export interface TokenForm {
  readonly channel: string;
  readonly sub: boolean;
  readonly pub: boolean;
  /** JSON text, or "". */
  readonly presence: string;
  readonly lifetime: string;
  /** A key's id; "": the console's own. */
  readonly key: string;
}

/** How long the address waits for what comes next, in ms: nobody wants each letter in it. */
const pauseMs = 300;

/** Of each application whose live console was opened in this tab: what its address was last. */
const kept = new Map<string, string>();

/**
 * The view, and how to change parts of it; the address follows when one pauses. An address that
 * says nothing shows what was last seen here.
 */
export function useView(appId: string, defaults: View): [View, (change: Partial<View>) => void] {
  const [params, setParams] = useSearchParams();
  const [view, setView] = useState(() =>
    read(params.size > 0 ? params : new URLSearchParams(kept.get(appId)), defaults),
  );
  const change = useCallback((part: Partial<View>) => setView((old) => ({ ...old, ...part })), []);
  const wanted = write(view, defaults).toString();
  const isThere = params.toString() === wanted;
  const isLeaving = useNavigation().state !== "idle";
  useEffect(() => {
    kept.set(appId, wanted);
    if (isThere || isLeaving) return;
    const timer = setTimeout(() => setParams(wanted, { replace: true }), pauseMs);
    return () => clearTimeout(timer);
  }, [appId, wanted, isThere, isLeaving, setParams]);
  return [view, change];
}

function read(params: URLSearchParams, defaults: View): View {
  const text = (name: string, otherwise: string): string => params.get(name) ?? otherwise;
  const rights = params.get("rights");
  const { token } = defaults;
  return {
    listen: [...new Set(params.getAll("listen"))],
    filter: text("filter", ""),
    channel: text("channel", defaults.channel),
    data: text("data", defaults.data),
    via: params.get("via") === "client" ? "client" : "rest",
    tool: params.get("tool") === "token" ? "token" : "publish",
    token: {
      channel: text("for", token.channel),
      sub: rights === null ? token.sub : rights.includes("sub"),
      pub: rights === null ? token.pub : rights.includes("pub"),
      presence: text("presence", token.presence),
      lifetime: text("lifetime", token.lifetime),
      key: text("key", token.key),
    },
  };
}

function write(view: View, defaults: View): URLSearchParams {
  const params = new URLSearchParams();
  for (const channel of view.listen) params.append("listen", channel);
  const set = (name: string, value: string, otherwise: string): void => {
    if (value !== otherwise) params.set(name, value);
  };
  const rightsOf = ({ sub, pub }: TokenForm) => [sub && "sub", pub && "pub"].filter(Boolean).join();
  set("filter", view.filter, "");
  set("channel", view.channel, defaults.channel);
  set("data", view.data, defaults.data);
  set("via", view.via, "rest");
  set("tool", view.tool, "publish");
  set("for", view.token.channel, defaults.token.channel);
  set("rights", rightsOf(view.token), rightsOf(defaults.token));
  set("presence", view.token.presence, defaults.token.presence);
  set("lifetime", view.token.lifetime, defaults.token.lifetime);
  set("key", view.token.key, defaults.token.key);
  return params;
}
