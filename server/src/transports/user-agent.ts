import type { IncomingMessage } from "node:http";
import { ownText } from "@pandapush/protocol";

/** What a session keeps of a longer one, in characters. */
const maxLength = 256;
/** Clients of one kind are many: those seen lately share one text. */
const maxKnown = 1_000;

const known = new Map<string, string>();

/** What the client's program calls itself, cut to 256 characters. */
export function userAgentOf({ headers }: IncomingMessage): string | undefined {
  const given = headers["user-agent"];
  if (given === undefined || given === "") return undefined;
  const text = given.length > maxLength ? given.slice(0, maxLength) : given;
  const shared = known.get(text);
  if (shared !== undefined) return shared;
  const own = ownText(text);
  if (known.size >= maxKnown) known.clear();
  known.set(own, own);
  return own;
}
