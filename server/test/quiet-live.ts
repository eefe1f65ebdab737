import type { Live } from "../src/live.js";

/** Applications where nothing goes on, with one user each, who can be disconnected. */
export const quietLive: Live = {
  channels: async () => ({ items: [], total: 0 }),
  channel: async ({ name }) => ({
    channel: name,
    subscribers: 0,
    listeners: 0,
    members: undefined,
  }),
  members: async () => "{}",
  connections: async () => ({ items: [], total: 0 }),
  disconnect: async () => ({ count: 1 }),
  disconnectUser: async () => ({ count: 1 }),
  refusals: async () => ({ items: [], total: 0 }),
};
