/** How publications stand in Redis' messages, and under which topics they are said. */
import type { AppId, Channel, Pattern } from "@pandapush/protocol";
import type { RedisHost } from "../redis/hosts.js";
import type { Position, Publication } from "../session.js";

const maxVersionLength = 20;
const version = "1";

/**
 * A line of words, then the texts of data and ext as they are:
 *
 *     1 <epoch> <number> <id> <channel> <length of data> [membership]
 *     <data><ext>
 *
 * The script writes the first three. Lengths are in UTF-16 units. Readers skip words behind those
 * that they know: what a later release adds there is no new version.
 */
export function encode({ id, channel, data, ext = "", isMembership }: Publication): string {
  const words = isMembership === true ? " membership" : "";
  return `${id} ${channel} ${data.length}${words}\n${data}${ext}`;
}

export interface Said {
  readonly appId: AppId;
  readonly publication: Publication;
  readonly position: Position;
}

/** @returns the version when it is not ours, or when the message is none at all */
export function decode(message: string): Said | string {
  const end = message.indexOf("\n");
  const words = message.slice(0, end === -1 ? maxVersionLength : end).split(" ");
  const [given = "", epoch = "", number, id, channel, length, ...others] = words;
  const dataEnd = end + 1 + Number(length);
  if (given !== version || id === undefined || channel === undefined || !(dataEnd > end)) {
    return given.slice(0, maxVersionLength);
  }
  const ext = message.slice(dataEnd);
  return {
    appId: channel.slice(1, channel.indexOf("/", 1)) as AppId,
    publication: {
      id,
      channel: channel as Channel,
      data: message.slice(end + 1, dataEnd),
      ext: ext === "" ? undefined : ext,
      isMembership: others.includes("membership"),
    },
    position: { epoch, seq: Number(number) },
  };
}

/** `<epoch> <number>` */
export function readPosition(text: string): Position {
  const [epoch = "", number] = text.split(" ");
  return { epoch, seq: Number(number) };
}

/** `/app/public/news` → `<prefix>{app}/public/news` */
export function topicOf(host: RedisHost, appId: AppId, name: Channel | Pattern): string {
  return host.key(appId, name.slice(appId.length + 1));
}

export function readTopic(topic: string): [AppId, Channel | Pattern] {
  const [appId = "", rest = ""] = topic.slice(topic.indexOf("{") + 1).split("}");
  return [appId as AppId, `/${appId}${rest}` as Channel | Pattern];
}
