/** `publish`, `subscribe` and `presence`: what applications do, by hand. */
import type { PresenceInfo } from "@pandapush/protocol";
import { type Command, InvalidArgumentError } from "commander";
import type { Client, PandapushError } from "pandapush-client";
import { Failure, parsePresence, print, program, table } from "./core.js";
import {
  addRemoteOptions,
  openBackEnd,
  parseSeconds,
  type RemoteOptions,
  readChannel,
  readOpenRemote,
  readRemote,
  readText,
  withKey,
} from "./remote.js";

const channelHelp = "such as private/news, or /APP_ID/private/news";

addRemoteOptions(
  program
    .command("publish")
    .description("publish a message to a channel")
    .argument("<channel>", channelHelp)
    .argument("[data]", "JSON; - or nothing: it is read from standard input")
    .option("--text", "the data are text, and no JSON")
    .option("--idempotency-key <name>", "publish once, however often it is sent with this name")
    .addHelpText(
      "after",
      `
Examples:
  pandapush publish public/news '{"text":"hello"}'
  pandapush publish public/news --text "hello"
  echo '{"text":"hello"}' | pandapush publish public/news`,
    ),
).action(
  async (channel: string, data: string | undefined, options: PublishOptions, self: Command) => {
    const isFromInput = data === undefined || data === "-";
    if (isFromInput && options.secretFile === "-") {
      self.error("error: the secret and the data cannot both come from standard input");
    }
    const remote = await readRemote(options, self);
    const { name, isPattern } = readChannel(channel, remote.appId, self);
    if (isPattern) self.error(`error: ${channel} is a pattern; name one of its channels`);
    const text = isFromInput ? await readText("-") : data;
    const value = options.text === true ? text : parseData(text, self);
    const { idempotencyKey } = options;
    const backEnd = await openBackEnd(remote);
    await backEnd.publish(name, value, idempotencyKey === undefined ? {} : { idempotencyKey });
    print({ channel: name, successful: true }, [`Published to ${name}.`]);
  },
);

addRemoteOptions(
  program
    .command("subscribe")
    .description("print what is published to channels, a line of JSON for each message")
    .argument("<channel...>", `${channelHelp}, or a pattern, such as 'private/**'`)
    .option("--count <n>", "end after so many messages", parseCount)
    .option(
      "--timeout <seconds>",
      "end after so long; with --count too few is a failure",
      parseSeconds,
    )
    .option(
      "--presence <json>",
      'who to be on presence channels, such as {"id":"u1"}',
      parsePresence,
    )
    .addHelpText(
      "after",
      `
Public channels need no key. For others the key signs a token, and a new one
whenever the server has to be asked again. The connection comes back by itself;
what becomes of it is told on standard error. Ctrl-C ends it.

Examples:
  pandapush subscribe public/news
  pandapush subscribe 'private/**' meta/statistics
  pandapush subscribe public/news --count 1 --timeout 60 | jq .data.text
  pandapush subscribe presence/lobby --presence '{"id":"u1","name":"Joe"}'

A line: {"at":"2030-01-31T09:30:00.000Z","channel":"/APP_ID/…","data":…}`,
    ),
).action(async (channels: string[], options: SubscribeOptions, self: Command) => {
  const remote = await readOpenRemote(options, self);
  const parsed = channels.map((each) => readChannel(each, remote.appId, self));
  for (const { name, kind } of parsed) {
    if (kind === "presence" && options.presence === undefined) {
      self.error(`error: ${name} needs --presence, who to be there`);
    }
  }
  const isOpen = parsed.every(({ kind }) => kind === "public");
  const appId = remote.appId ?? parsed[0]?.appId ?? "";
  const backEnd = isOpen ? undefined : await openBackEnd(withKey({ ...remote, appId }, self));
  const { Client } = await import("pandapush-client");
  const client = new Client(`${remote.url}/push`);
  tellOfConnection(client);
  const received = await listen(client, options, (hear, refused) => {
    for (const { name, kind } of parsed) {
      const { presence } = options;
      const sign = (): string | undefined =>
        backEnd?.generateToken({ channel: name, sub: true, ...(presence ? { presence } : {}) });
      const subscription =
        kind === "public" ? client.subscribe(name, hear) : client.subscribeTo(name, sign, hear);
      subscription.on("subscribed", () => console.error(`listening to ${name}`));
      subscription.on("resubscribed", () => console.error(`listening to ${name} again`));
      subscription.on("gap", () => console.error(`messages of ${name} may have been missed`));
      subscription.on("refused", (error) => refused(describeRefusal(name, error)));
      // Told by its event.
      subscription.catch(() => undefined);
    }
  });
  if (options.count !== undefined && received < options.count) {
    throw new Failure(`Only ${received} of ${options.count} messages came.`);
  }
});

addRemoteOptions(
  program
    .command("presence")
    .description("show who is present on a channel")
    .argument("<channel>", "such as presence/lobby, or /APP_ID/presence/lobby")
    .addHelpText(
      "after",
      "\nExamples:\n  pandapush presence presence/lobby\n  pandapush presence presence/lobby --json",
    ),
).action(async (channel: string, options: RemoteOptions, self: Command) => {
  const remote = await readRemote(options, self);
  const { name, kind, isPattern } = readChannel(channel, remote.appId, self);
  if (kind !== "presence" || isPattern) {
    self.error(`error: nobody is present on ${channel}; a presence channel is presence/lobby`);
  }
  const members = await (await openBackEnd(remote)).presence(name);
  const rows = Object.entries(members).map(([id, member]) => [id, JSON.stringify(member)]);
  print(
    { channel: name, members },
    rows.length === 0 ? [`Nobody is present on ${name}.`] : table(["ID", "MEMBER"], rows),
  );
});

interface PublishOptions extends RemoteOptions {
  readonly text?: true;
  readonly idempotencyKey?: string;
}

interface SubscribeOptions extends RemoteOptions {
  readonly count?: number;
  readonly timeout?: number;
  readonly presence?: PresenceInfo;
}

function parseData(text: string, self: Command): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    const fault = (error as SyntaxError).message;
    return self.error(
      `error: the data are no JSON: ${fault}\nText goes with --text; a shell needs quotes around JSON: '{"text":"hello"}'`,
    );
  }
}

function parseCount(text: string): number {
  const count = Number(text);
  if (/^\d{1,9}$/.test(text) && count > 0) return count;
  throw new InvalidArgumentError("It must be a whole number of 1 or more.");
}

/**
 * Prints messages until there are enough, it is late, somebody ends it, or nobody reads them any more.
 *
 * @param subscribe given who hears messages, and who is told that they will not come
 * @returns how many came
 */
async function listen(
  client: Client,
  { count = Number.POSITIVE_INFINITY, timeout }: SubscribeOptions,
  subscribe: (
    hear: (data: unknown, channel: string) => void,
    refused: (failure: Failure) => void,
  ) => void,
): Promise<number> {
  let received = 0;
  let timer: NodeJS.Timeout | undefined;
  const ended = new Promise<void>((resolve, reject) => {
    const end = (): void => resolve();
    process.once("SIGINT", end).once("SIGTERM", end);
    process.stdout.once("error", end);
    if (timeout !== undefined) timer = setTimeout(end, timeout * 1000);
    subscribe((data, channel) => {
      if (received >= count) return;
      received++;
      console.log(JSON.stringify({ at: new Date().toISOString(), channel, data }));
      if (received === count) resolve();
    }, reject);
  });
  try {
    await ended;
  } finally {
    clearTimeout(timer);
    await Promise.race([client.disconnect(), goodbye()]);
  }
  return received;
}

/** A server that does not answer keeps nobody. */
function goodbye(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 1000).unref());
}

/** On standard error; the same reason once. */
function tellOfConnection(client: Client): void {
  let told = "";
  client.on("transport:up", () => {
    if (told !== "") console.error("connected again");
    told = "";
  });
  client.on("failed", ({ message }) => {
    if (message !== told) console.error(`not connected, trying again: ${message}`);
    told = message;
  });
}

function describeRefusal(channel: string, { message, detail }: PandapushError): Failure {
  const help = detail === undefined ? "" : `: ${detail}`;
  return new Failure(`The server refused ${channel}: ${message}${help}`);
}
