/** What goes on in an application: for its admins below `/admin/api`, for back ends below `/api`. */
import { type AppId, type Channel, type ParsedChannel, parseChannel } from "@pandapush/protocol";
import type { FastifyReply } from "fastify";
import { z } from "zod";
import { Refusal } from "../errors.js";
import type { Gathered, Listed, Live } from "../live.js";
import type { Store } from "../storage/store.js";
import * as shapes from "./admin-shapes.js";
import { type AppUser, appRoute, JsonText, type Route } from "./route.js";

export interface LiveParts {
  readonly live: Live;
  /** For the audit. */
  readonly store: Pick<Store, "addAudit">;
}

export function liveRoutes(parts: LiveParts): Route<AppUser>[] {
  return [...lookRoutes(parts.live), ...disconnectRoutes(parts)];
}

function lookRoutes(live: Live): Route<AppUser>[] {
  return [
    appRoute(
      {
        method: "GET",
        path: "/channels",
        summary: "What somebody is subscribed to, patterns too, the busiest first",
        query: shapes.channelsPage,
        answer: z.array(shapes.liveChannel),
        isPaged: true,
        isGathered: true,
      },
      async ({ appId }, { query, reply }) => {
        const { items } = tellList(reply, await live.channels(appId, query));
        return items.map(shapes.toLiveChannel);
      },
    ),
    appRoute(
      {
        method: "GET",
        path: "/channels/*",
        rest: "channel",
        summary:
          "How many are subscribed to a channel or pattern, named without /<application id>/, and how many hear it, by patterns too",
        answer: shapes.liveChannelDetail,
        isGathered: true,
      },
      async ({ appId }, { params, reply }) => {
        const channel = readChannel(appId, params["*"]);
        return shapes.toLiveChannelDetail(tell(reply, await live.channel(channel)));
      },
    ),
    appRoute(
      {
        method: "GET",
        path: "/presence/*",
        rest: "room",
        summary:
          "Who is on a presence channel, named without /<application id>/presence/, by their ids",
        answer: shapes.liveMembers,
      },
      async ({ appId }, { params }) => {
        const channel = readChannel(appId, `presence/${params["*"] ?? ""}`);
        if (channel.isPattern) {
          const detail = "Nobody is present on a pattern; name one of its channels.";
          throw new Refusal("invalidChannelName", [], detail);
        }
        const members = await live.members(appId, channel.name as Channel);
        return new JsonText(`{"channel":"${channel.name}","members":${members}}`);
      },
    ),
    appRoute(
      {
        method: "GET",
        path: "/connections",
        summary: "Sessions with a subscription in the application, the newest first",
        query: shapes.connectionsPage,
        answer: z.array(shapes.liveConnection),
        isPaged: true,
        isGathered: true,
      },
      async ({ appId }, { query, reply }) => {
        const { items } = tellList(reply, await live.connections(appId, query));
        return items.map(shapes.toLiveConnection);
      },
    ),
    appRoute(
      {
        method: "GET",
        path: "/refusals",
        summary: "What was refused lately, the last first; equal refusals are counted",
        query: shapes.refusalsPage,
        answer: z.array(shapes.liveRefusal),
        isPaged: true,
        isGathered: true,
      },
      async ({ appId }, { query, reply }) => {
        const { items } = tellList(reply, await live.refusals(appId, query));
        return items.map(shapes.toLiveRefusal);
      },
    ),
  ];
}

function disconnectRoutes({ live, store }: LiveParts): Route<AppUser>[] {
  /** What an admin ends is written down; a back end does it all the time. */
  const note = async (user: AppUser, action: string, details: object): Promise<void> => {
    const { appId, admin } = user;
    if (admin === undefined) return;
    await store.addAudit({ user: admin.name, action, appId, details: { ...details } });
  };
  return [
    appRoute(
      {
        method: "POST",
        path: "/connections/:connectionId/disconnect",
        summary: "End all that a session is subscribed to in the application; its client is told",
        answer: shapes.disconnected,
      },
      async (user, { params }) => {
        const { connectionId = "" } = params;
        const { count, incomplete } = await live.disconnect(user.appId, connectionId);
        if (count === 0 && incomplete !== undefined) {
          const detail = `The connection was not found, but ${incomplete}; try again in a moment.`;
          throw new Refusal("unavailable", [], detail);
        }
        if (count === 0) {
          const detail = "The application has no connection with this id; it may have ended.";
          throw new Refusal("noSuchResource", [], detail);
        }
        await note(user, "connection.disconnect", { connection: connectionId });
        return { disconnected: count };
      },
    ),
    appRoute(
      {
        method: "POST",
        path: "/users/:presenceId/disconnect",
        summary: "The same for all sessions that are present as this user, 0 of them too",
        answer: shapes.disconnected,
        isGathered: true,
      },
      async (user, { params, reply }) => {
        const { presenceId = "" } = params;
        const { count } = tell(reply, await live.disconnectUser(user.appId, presenceId));
        if (count > 0) {
          await note(user, "user.disconnect", { user: presenceId, connections: count });
        }
        return { disconnected: count };
      },
    ),
  ];
}

/** Says in a header what is missing. */
function tell<T extends Gathered>(reply: FastifyReply, answer: T): T {
  if (answer.incomplete !== undefined) reply.header("x-incomplete", answer.incomplete);
  return answer;
}

function tellList<T>(reply: FastifyReply, list: Listed<T>): Listed<T> {
  reply.header("x-total-count", list.total);
  return tell(reply, list);
}

/** @throws Refusal invalidChannelName */
function readChannel(appId: AppId, rest = ""): ParsedChannel {
  const channel = parseChannel(`/${appId}/${rest}`);
  if (channel === undefined) throw new Refusal("invalidChannelName");
  return channel;
}
