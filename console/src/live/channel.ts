import { parseChannel } from "@pandapush/protocol";

/** @returns what is wrong with a channel or pattern of this application, for people; undefined: nothing */
export function faultOf(
  channel: string,
  appId: string,
  { allowsPattern, allowsMeta }: { allowsPattern: boolean; allowsMeta: boolean },
): string | undefined {
  const example = `/${appId}/private/news`;
  if (!channel.startsWith(`/${appId}/`)) {
    return `Channels of this application begin with /${appId}/, such as ${example}.`;
  }
  const parsed = parseChannel(channel);
  if (parsed === undefined) {
    return `After the application’s id comes public, private, presence or meta, then parts of letters, digits, - _ ~, such as ${example}.`;
  }
  if (parsed.isPattern && !allowsPattern) {
    return "One publishes to a single channel: * and ** are for listening.";
  }
  if (parsed.kind === "meta" && !allowsMeta) return "Only the server publishes to meta channels.";
  return undefined;
}
