/**
 * Channel names and patterns: the only code that knows what `*` and `**` mean, for delivery
 * (`expand`) and for permission (`covers`) alike.
 *
 * A channel is `/<appId>/<kind>/<segment>…`; a pattern ends in `*` (one more segment) or `**`
 * (one or more segments). Segments are letters, digits, `-`, `_` and `~`.
 */

declare const brand: unique symbol;
type Branded<T extends string> = string & { readonly [brand]: T };

/** An application's id, the first segment of its channels. */
export type AppId = Branded<"AppId">;
/** A concrete channel name, such as `/app/public/news`. Never a pattern. */
export type Channel = Branded<"Channel">;
/** A name that ends in `/*` or `/**`. */
export type Pattern = Branded<"Pattern">;

export const channelKinds = ["public", "private", "presence", "meta"] as const;
export type ChannelKind = (typeof channelKinds)[number];

export type ParsedChannel = { readonly appId: AppId; readonly kind: ChannelKind } & (
  | { readonly isPattern: false; readonly name: Channel }
  | { readonly isPattern: true; readonly name: Pattern }
);

/** Longest accepted channel name, in characters, and most segments; documented in protocol.md CH-5. */
export const maxChannelLength = 512;
export const maxChannelSegments = 32;

const grammar =
  /^\/([A-Za-z0-9_~-]+)\/(public|private|presence|meta)(?:\/[A-Za-z0-9_~-]+)*(\/\*\*?)?$/;

/**
 * Reads a channel name or pattern.
 *
 * `/app/public` alone is a channel, as it was in Pandapush 2.2.
 * @returns undefined when the text is neither, or is longer than the limits.
 */
export function parseChannel(text: string): ParsedChannel | undefined {
  if (text.length > maxChannelLength) return undefined;
  const match = grammar.exec(text);
  if (match === null || countSegments(text) > maxChannelSegments) return undefined;
  const appId = match[1] as AppId;
  const kind = match[2] as ChannelKind;
  return match[3] === undefined
    ? { appId, kind, isPattern: false, name: text as Channel }
    : { appId, kind, isPattern: true, name: text as Pattern };
}

/** Bayeux 1.0, "Channels": wider than ours; decides between 405 and a refusal by name. */
const bayeuxName = /^(?:\/[A-Za-z0-9\-_!~()$@]+)+$/;
const bayeuxPattern = /^(?:\/[A-Za-z0-9\-_!~()$@]+)*\/\*{1,2}$/;

export function isBayeuxName(text: string): boolean {
  return bayeuxName.test(text);
}

export function isBayeuxPattern(text: string): boolean {
  return bayeuxPattern.test(text);
}

/**
 * Everything a subscriber may have subscribed to in order to hear `channel`: the channel itself,
 * its parent's `*`, and every ancestor's `**` that lies within the application and kind.
 *
 * `/a/public/b/c` → `/a/public/b/c`, `/a/public/b/*`, `/a/public/b/**`, `/a/public/**`
 */
export function expand(channel: Channel): readonly (Channel | Pattern)[] {
  const result: (Channel | Pattern)[] = [channel];
  // The first two segments are the application and the kind; patterns never reach above them.
  const kindEnd = channel.indexOf("/", channel.indexOf("/", 1) + 1);
  if (kindEnd === -1) return result;
  let slash = channel.lastIndexOf("/");
  result.push(`${channel.slice(0, slash)}/*` as Pattern);
  while (slash >= kindEnd) {
    result.push(`${channel.slice(0, slash)}/**` as Pattern);
    slash = channel.lastIndexOf("/", slash - 1);
  }
  return result;
}

/**
 * The same for the names of any Bayeux server, whose patterns begin at the root, in the order in
 * which Faye's client calls its listeners. Bayeux 1.0, "Channel Globbing"
 *
 * `/a/b/c` → `/**`, `/a/b/c`, `/a/b/*`, `/a/**`, `/a/b/**`
 */
export function expandBayeux(name: string): string[] {
  const result = ["/**", name, `${name.slice(0, name.lastIndexOf("/"))}/*`];
  for (let slash = name.indexOf("/", 1); slash !== -1; slash = name.indexOf("/", slash + 1)) {
    result.push(`${name.slice(0, slash)}/**`);
  }
  return result;
}

/**
 * Whether a permission for `granted` includes `requested`; both may be patterns.
 *
 * `/x/*` covers itself and its direct children; `/x/**` covers itself, `/x/*`, and everything
 * below `/x`, but neither `/x` nor `/xyz`.
 */
export function covers(granted: string, requested: string): boolean {
  if (granted === requested) return true;
  if (granted.endsWith("/**")) return requested.startsWith(granted.slice(0, -2));
  if (!granted.endsWith("/*")) return false;
  const parent = granted.slice(0, -1);
  const child = requested.slice(parent.length);
  return requested.startsWith(parent) && child !== "**" && child.length > 0 && !child.includes("/");
}

function countSegments(text: string): number {
  let count = 0;
  for (let i = 0; i < text.length; i++) if (text.charCodeAt(i) === 47) count++;
  return count;
}
