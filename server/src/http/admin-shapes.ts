/**
 * What the admin API takes and gives. An answer holds what its shape names and nothing else: a
 * secret gets out only where `secret` is written here.
 */
import { maxChannelLength } from "@pandapush/protocol";
import { z } from "zod";
import type { ActiveChannel, ChannelInfo, Connection } from "../live.js";
import type { Refused } from "../refusals.js";
import type { AppLimits, Application, AuditEntry, Key } from "../storage/store.js";

const maxText = 255;
/** Objects and lists in each other. */
const maxClaimDepth = 32;
/** A time that ends a key or token may be given with a time zone, or as a day in UTC. */
const time = z.union([z.iso.datetime({ offset: true }), z.iso.date()], {
  error: "must be a date such as 2030-12-31 or 2030-12-31T12:00:00Z",
});
/** Described, not checked: what a database holds may be odd, and is shown all the same. */
const answerTime = z.string().meta({ format: "date-time" }).nullable();

/** A future time; null, "" or absent: none. */
const end = z
  .union([z.literal(""), time], { error: "must be a date such as 2030-12-31T12:00:00Z" })
  .refine((value) => value === "" || Date.parse(value) > Date.now(), {
    error: "must lie in the future",
  })
  .nullish();

const word = z
  .string({ error: "must be a text" })
  .max(maxText, { error: `must have at most ${maxText} characters` })
  .regex(/^\P{Cc}*$/u, { error: "must hold no control characters" });
const name = word.refine((value) => value.trim() !== "", { error: "must not be blank" });
const flag = z.boolean({ error: "must be true or false" });

export const page = z.object({
  search: word.optional(),
  limit: z.coerce
    .number({ error: "must be a number from 1 to 1000" })
    .int({ error: "must be a whole number" })
    .min(1, { error: "must be 1 or more" })
    .max(1000, { error: "must be 1000 or less" })
    .optional(),
  offset: z.coerce
    .number({ error: "must be a number" })
    .int({ error: "must be a whole number" })
    .min(0, { error: "must be 0 or more" })
    .optional(),
});
export const auditPage = page.omit({ search: true });

/** What is live is looked at as a whole for each page: there are no pages without end. */
const maxLiveOffset = 10_000;
const livePage = (most: number, usual: number) =>
  z.object({
    limit: z.coerce
      .number({ error: `must be a number from 1 to ${most}` })
      .int({ error: "must be a whole number" })
      .min(1, { error: "must be 1 or more" })
      .max(most, { error: `must be ${most} or less` })
      .default(usual),
    offset: z.coerce
      .number({ error: "must be a number" })
      .int({ error: "must be a whole number" })
      .min(0, { error: "must be 0 or more" })
      .max(maxLiveOffset, { error: `must be ${maxLiveOffset} or less` })
      .default(0),
  });
export const channelsPage = livePage(1000, 100).extend({
  prefix: z
    .string({ error: "must be a text" })
    .max(maxChannelLength, { error: `must have at most ${maxChannelLength} characters` })
    .default("")
    .meta({ description: "What a channel begins with behind /<application id>/" }),
});
export const connectionsPage = livePage(200, 50).extend({ search: word.default("") });
export const refusalsPage = livePage(100, 100);

export const login = z.object({
  username: z.string({ error: "must be a text" }),
  password: z.string({ error: "must be a text" }),
});
export const newApplication = z.object({ name: name.nullish() });
/** As many as any database holds. */
const maxLimit = 1_000_000_000;
const limit = (description: string) =>
  z
    .number({ error: "must be a number, or null for no limit" })
    .int({ error: "must be a whole number" })
    .min(1, { error: "must be 1 or more, or null for no limit" })
    .max(maxLimit, { error: `must be ${maxLimit} or less` })
    .nullable()
    .optional()
    .meta({ description });
export const limitsChange = z.object(
  {
    max_publishes_per_second: limit("At each node; null: no limit"),
    max_connections: limit("Sessions subscribed to something, at each node; null: no limit"),
    max_sessions_per_second: limit("Sessions that begin to be, at each node; null: no limit"),
    max_message_bytes: limit("Of one publication; null: no limit but the server's"),
  },
  { error: "must be an object with limits" },
);
export const applicationChange = z.object({
  name: name.nullish(),
  admins: z
    .array(name, { error: "must be a list of user names" })
    .max(1000, { error: "must have at most 1000 names" })
    .optional(),
  limits: limitsChange.optional(),
});
export const newKey = z.object({ expires: end, purpose: word.nullish() });
export const rotation = z.object({
  overlap_ms: z
    .number({ error: "must be a number of milliseconds" })
    .int({ error: "must be a whole number" })
    .min(0, { error: "must be 0 or more" })
    .max(365 * 86_400_000, { error: "must be a year or less" })
    .default(86_400_000),
});
const presenceId = { error: "must be a text with at least one character, or a number" };
export const newToken = z.object({
  channel: z
    .string({ error: "must be a text" })
    .max(maxChannelLength, { error: `must have at most ${maxChannelLength} characters` }),
  presence: z
    .looseObject(
      { id: z.union([z.string().min(1, presenceId), z.number()], presenceId) },
      { error: "must be an object with an id" },
    )
    .refine((value) => !isDeeper(value, maxClaimDepth), {
      error: `must be nested at most ${maxClaimDepth} deep`,
    })
    .nullish(),
  pub: flag.nullish(),
  sub: flag.nullish(),
  expires: end,
});

const channelName = z.string({ error: "must be a text" });
export const publishing = z.object(
  {
    messages: z.array(
      z
        .object(
          {
            channel: channelName.optional(),
            channels: z.array(channelName, { error: "must be a list of channels" }).optional(),
            data: z
              .custom<unknown>((value) => value !== undefined, {
                error: "must be there; null is a value too",
              })
              .meta({ description: "Any JSON value; subscribers get its text" }),
          },
          { error: "must be an object with channel, or channels, and data" },
        )
        .superRefine(({ channel, channels }, context) => {
          const refuse = (field: string, message: string) =>
            context.addIssue({ code: "custom", path: [field], message });
          if (channel === undefined && channels === undefined) {
            refuse("channel", "must be there, or channels");
          }
          if (channel !== undefined && channels !== undefined) {
            refuse("channels", "must not be there beside channel");
          }
        }),
      { error: "must be a list of messages" },
    ),
  },
  { error: "must be a JSON object" },
);

export const user = z.object({ username: z.string() });
export const info = z.object({
  username: z.string(),
  environments: z.array(z.object({ name: z.string(), url: z.string() })),
  environment: z.string(),
  version: z.string(),
});
export const application = z.object({
  id: z.string(),
  name: z.string().nullable(),
  created_by: z.string().nullable(),
  created_at: answerTime,
  updated_at: answerTime,
});
export const createdApplication = application.omit({ updated_at: true });
export const key = z.object({
  id: z.string(),
  application_id: z.string(),
  created_by: z.string().nullable(),
  expires: answerTime,
  purpose: z.string().nullable(),
  created_at: answerTime,
  updated_at: answerTime,
  last_used: answerTime,
  use_count: z.number(),
  status: z.enum(["active", "expiring", "expired", "revoked"]),
  revoked_at: answerTime,
  revoked_by: z.string().nullable(),
  previous_secret_until: answerTime.meta({ description: "When the last former secret ends" }),
  previous_secrets_until: z.array(z.string().meta({ format: "date-time" })).meta({
    description: "When each of the former secrets that count ends, the first to end first",
  }),
});
export const createdKey = z.object({
  application_id: z.string(),
  created_by: z.string().nullable(),
  expires: answerTime,
  purpose: z.string().nullable(),
  created_at: answerTime,
  id: z.string(),
  secret: z.string(),
});
export const rotatedKey = key.extend({ secret: z.string() });
const answerLimit = z.number().nullable().meta({ description: "null: no limit of its own" });
export const applicationLimits = z.object({
  max_publishes_per_second: answerLimit,
  max_connections: answerLimit,
  max_sessions_per_second: answerLimit,
  max_message_bytes: answerLimit,
});
export const applicationDetail = application.extend({
  keys: z.array(key),
  admins: z.array(z.string()),
  limits: applicationLimits,
});
export const id = z.object({ id: z.string() });
export const token = z.object({ token: z.string() });
export const auditEntry = z.object({
  id: z.number(),
  at: answerTime,
  user: z.string().nullable(),
  action: z.string(),
  application_id: z.string().nullable(),
  application_name: z.string().nullable().meta({ description: "At that time" }),
  details: z.record(z.string(), z.json()),
});
export const liveChannel = z.object({
  channel: z.string(),
  subscribers: z.number(),
  members: z.number().optional(),
});
export const liveChannelDetail = liveChannel.extend({ listeners: z.number() });
export const liveMembers = z.object({
  channel: z.string(),
  members: z.record(z.string(), z.json()),
});
export const liveConnection = z.object({
  id: z.string(),
  transport: z
    .enum(["websocket", "eventsource", "long-polling", "callback-polling", "none"])
    .meta({ description: "none: its socket or stream is lost, and its session waits for it" }),
  since: z.string().meta({ format: "date-time" }),
  user_agent: z.string().nullable(),
  address: z.string().nullable(),
  subscriptions: z.array(z.string()).meta({ description: "The first 100" }),
  subscription_count: z.number(),
  presence: z.array(z.string()).meta({ description: "The first 10 ids" }),
});
export const disconnected = z.object({
  disconnected: z.number().meta({ description: "How many sessions" }),
});
export const liveRefusal = z.object({
  first_at: z.string().meta({ format: "date-time" }),
  last_at: z.string().meta({ format: "date-time" }),
  count: z.number(),
  action: z.enum(["subscribe", "publish", "rest_publish", "rest"]),
  channel: z.string().nullable(),
  message: z.string(),
  details: z.string(),
  key_id: z.string().nullable(),
});
export const refusal = z.object({
  code: z.number().nullable(),
  params: z.array(z.string()),
  message: z.string(),
  details: z.string(),
  fields: z.record(z.string(), z.string()).optional(),
});

export const published = z.object({
  results: z.array(
    z.discriminatedUnion("successful", [
      z.object({ channel: z.string(), successful: z.literal(true) }),
      z.object({ channel: z.string(), successful: z.literal(false), error: refusal }),
    ]),
  ),
});

/** Without recursion, which has an end of its own. */
function isDeeper(value: object, depth: number): boolean {
  let level = [value];
  for (let deep = 1; level.length > 0; deep++) {
    if (deep > depth) return true;
    level = level.flatMap((each) => Object.values(each).filter(isObject));
  }
  return false;
}

function isObject(value: unknown): value is object {
  return typeof value === "object" && value !== null;
}

/** A key that ends within this is shown as expiring. */
const expiringMs = 14 * 86_400_000;

export function toApplication(app: Application): z.input<typeof application> {
  return {
    id: app.id,
    name: app.name,
    created_by: app.createdBy,
    created_at: iso(app.createdAt),
    updated_at: iso(app.updatedAt),
  };
}

export function toLimits(limits: AppLimits): z.input<typeof applicationLimits> {
  return {
    max_publishes_per_second: limits.maxPublishesPerSecond,
    max_connections: limits.maxConnections,
    max_sessions_per_second: limits.maxSessionsPerSecond,
    max_message_bytes: limits.maxMessageBytes,
  };
}

/** Without its secrets. */
export function toKey(each: Key): z.input<typeof key> {
  const ends = each.previous.map(({ until }) => until).filter((until) => !isOver(until));
  ends.sort((one, other) => +one - +other);
  return {
    id: each.id,
    application_id: each.appId,
    created_by: each.createdBy,
    expires: iso(each.expires),
    purpose: each.purpose,
    created_at: iso(each.createdAt),
    updated_at: iso(each.updatedAt),
    last_used: iso(each.lastUsed),
    use_count: each.useCount,
    status: statusOf(each),
    revoked_at: iso(each.revokedAt),
    revoked_by: each.revokedBy,
    previous_secret_until: iso(ends.at(-1) ?? null),
    previous_secrets_until: ends.map((end) => end.toISOString()),
  };
}

export function toAuditEntry(entry: AuditEntry): z.input<typeof auditEntry> {
  return {
    id: entry.id,
    at: iso(entry.at),
    user: entry.user,
    action: entry.action,
    application_id: entry.appId,
    application_name: entry.appName,
    details: entry.details as Record<string, z.core.util.JSONType>,
  };
}

export function toLiveChannel({
  channel,
  subscribers,
  members,
}: ActiveChannel): z.input<typeof liveChannel> {
  return { channel, subscribers, ...(members === undefined ? {} : { members }) };
}

export function toLiveChannelDetail(info: ChannelInfo): z.input<typeof liveChannelDetail> {
  return { ...toLiveChannel(info), listeners: info.listeners };
}

export function toLiveConnection(each: Connection): z.input<typeof liveConnection> {
  return {
    id: each.id,
    transport: each.transport ?? "none",
    since: new Date(each.since).toISOString(),
    user_agent: each.userAgent ?? null,
    address: each.address ?? null,
    subscriptions: [...each.subscriptions],
    subscription_count: each.subscriptionCount,
    presence: [...each.presence],
  };
}

export function toLiveRefusal(each: Refused): z.input<typeof liveRefusal> {
  return {
    first_at: new Date(each.firstAt).toISOString(),
    last_at: new Date(each.lastAt).toISOString(),
    count: each.count,
    action: each.action,
    channel: each.channel,
    message: each.message,
    details: each.details,
    key_id: each.keyId,
  };
}

/** @param value what `end` let through */
export function toEnd(value: string | null | undefined): Date | null {
  return value === undefined || value === null || value === "" ? null : new Date(value);
}

function statusOf({ revokedAt, expires }: Key): z.input<typeof key>["status"] {
  if (revokedAt !== null) return "revoked";
  if (isOver(expires)) return "expired";
  const isExpiring = expires !== null && expires.getTime() - Date.now() < expiringMs;
  return isExpiring ? "expiring" : "active";
}

export function isOver(time: Date | null): boolean {
  return time !== null && time.getTime() <= Date.now();
}

function iso(date: Date | null): string | null {
  return date?.toISOString() ?? null;
}
