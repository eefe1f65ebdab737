/** What the console does, as code to paste. Secrets stand there by name only. */
import { pretty } from "../ui/json.js";

export interface PublishExample {
  readonly origin: string;
  readonly channel: string;
  /** JSON text. */
  readonly data: string;
  /** As `id:secret`; absent: to be filled in. */
  readonly key?: { readonly id: string; readonly secret: string } | undefined;
}

export function curl({ origin, channel, data, key }: PublishExample): string {
  const user = key === undefined ? "KEY_ID:KEY_SECRET" : `${key.id}:${key.secret}`;
  return [
    // On a line of its own: secrets may be 256 characters long.
    `PANDAPUSH_KEY=${quoteForShell(user)}`,
    `curl ${origin}/channel${channel} \\`,
    '  -u "$PANDAPUSH_KEY" \\',
    '  -H "Content-Type: application/json" \\',
    `  -d ${quoteForShell(compact(data))}`,
  ].join("\n");
}

export function ruby({ origin, channel, data }: PublishExample): string {
  return `require "httparty"

HTTParty.post(
  "${origin}/channel${channel}",
  basic_auth: { username: ENV["PANDAPUSH_KEY_ID"], password: ENV["PANDAPUSH_KEY_SECRET"] },
  headers: { "Content-Type" => "application/json" },
  body: ${quoteForRuby(compact(data))}
)`;
}

export function javascript({ origin, channel, data }: PublishExample): string {
  return `const key = \`\${process.env.PANDAPUSH_KEY_ID}:\${process.env.PANDAPUSH_KEY_SECRET}\`;

const response = await fetch("${origin}/channel${channel}", {
  method: "POST",
  headers: {
    Authorization: \`Basic \${Buffer.from(key).toString("base64")}\`,
    "Content-Type": "application/json",
  },
  body: JSON.stringify(${indented(data)}),
});
if (!response.ok) throw new Error(await response.text());`;
}

/** Needs a token wherever the channel is not public. */
export function page({
  origin,
  channel,
  token,
}: {
  origin: string;
  channel: string;
  token?: string;
}): string {
  const isPublic = /^\/[^/]+\/public\//.test(channel);
  const given = token ?? "TOKEN, signed by your server for whoever is signed in there";
  const call = isPublic
    ? `client.subscribe("${channel}", (message) => console.log(message))`
    : `const token = "${given}";
client.subscribeTo("${channel}", token, (message) => console.log(message))`;
  return `<script src="${origin}/client.js"></script>
<script>
  const client = new Pandapush.Client("${origin}/push");
  ${call.replaceAll("\n", "\n  ")}
    .catch((error) => console.error(error.message));
</script>`;
}

/** Without line breaks where it is JSON; else as it is. */
function compact(data: string): string {
  return parsed(data) ?? data;
}

/** In several lines where that is readable: code must be whole. */
function indented(data: string): string {
  const json = parsed(data);
  if (json === undefined) return data;
  const { text, isShortened } = pretty(json);
  return isShortened ? json : text.replaceAll("\n", "\n  ");
}

function parsed(data: string): string | undefined {
  try {
    return JSON.stringify(JSON.parse(data));
  } catch {
    return undefined;
  }
}

function quoteForShell(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

function quoteForRuby(text: string): string {
  return `'${text.replaceAll("\\", "\\\\").replaceAll("'", "\\'")}'`;
}
