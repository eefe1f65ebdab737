/** `token`: signs with a key of the database. */
import { type PresenceInfo, parseChannel } from "@pandapush/protocol";
import type { Command } from "commander";
import { signToken } from "../auth/token.js";
import {
  durationHelp,
  Failure,
  parseExpires,
  parsePresence,
  print,
  program,
  withStore,
} from "./core.js";
import { usableKey } from "./keys.js";

program
  .command("token")
  .description("sign a channel token with a key, and print it")
  .argument("<appId>", "the application's id")
  .argument("<keyId>", "the key's id")
  .argument("<channel>", "a channel, or a pattern that ends in /* or /**")
  .option("--pub", "it may publish")
  .option("--sub", "it may subscribe")
  .option("--presence <json>", 'the member it makes, such as {"id":"u1"}', parsePresence)
  .option("--expires <end>", `${durationHelp} (default: PT1H)`, parseExpires)
  .addHelpText(
    "after",
    `
The key is taken from the database. Only the token is printed, for scripts.

Examples:
  pandapush token APP_ID KEY_ID /APP_ID/private/orders --pub
  pandapush token APP_ID KEY_ID '/APP_ID/private/users/**' --sub --expires PT8H
  pandapush token APP_ID KEY_ID /APP_ID/presence/lobby --sub \\
    --presence '{"id":"u1","name":"Joe"}'`,
  )
  .action((appId: string, keyId: string, channel: string, options: TokenOptions, self: Command) => {
    if (options.pub !== true && options.sub !== true) {
      self.error("error: a token needs --pub, --sub or both");
    }
    return printToken(appId, keyId, channel, options);
  });

interface TokenOptions {
  readonly pub?: true;
  readonly sub?: true;
  readonly presence?: PresenceInfo;
  readonly expires?: Date;
}

export function printToken(appId: string, keyId: string, channel: string, options: TokenOptions) {
  return withStore(async (store) => {
    const found = await usableKey(store, appId, keyId);
    // A token may also stand for all kinds of channels at once, which nobody can subscribe to.
    if (channel !== `/${appId}/**` && parseChannel(channel)?.appId !== appId) {
      throw new Failure(
        `${channel} is no channel of this application; one is /${appId}/private/news, a pattern /${appId}/private/*.`,
      );
    }
    const expires = options.expires ?? new Date(Date.now() + 3_600_000);
    const token = signToken(
      found.secret,
      {
        keyId: found.id,
        channel,
        pub: options.pub === true,
        sub: options.sub === true,
        ...(options.presence === undefined ? {} : { presence: options.presence }),
      },
      expires.getTime(),
    );
    // The token alone, so that it can be captured by a script.
    print({ token, expires: expires.toISOString() }, [token]);
  });
}
