/** What tests of a cluster ask a node, or the balancer, over HTTP. */
import { appId, keyId, secret } from "../../server/test/harness.js";

export interface Reply {
  readonly status: number;
  readonly text: string;
  readonly ms: number;
}

export async function ask(
  { url }: { readonly url: string },
  method: string,
  path: string,
  user: readonly [name: string, password: string],
  body?: unknown,
): Promise<Reply> {
  const sentAt = performance.now();
  const response = await fetch(`${url}${path}`, {
    method,
    headers: {
      Authorization: `Basic ${Buffer.from(user.join(":")).toString("base64")}`,
      "Content-Type": "application/json",
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  const text = await response.text();
  return { status: response.status, text, ms: performance.now() - sentAt };
}

/** Publishes over REST, whatever is answered; with the cluster's key unless told otherwise. */
export function publish(
  at: { readonly url: string },
  channel: string,
  data: unknown,
  user: readonly [key: string, secret: string] = [keyId, secret],
): Promise<Reply> {
  return ask(at, "POST", `/channel${channel}`, user, data);
}

let channels = 0;

/** A name of its own below `/<app>/<kind>/`. */
export function freshChannel(kind: "public" | "private" | "presence" = "public"): string {
  channels += 1;
  return `/${appId}/${kind}/channel${channels}`;
}
