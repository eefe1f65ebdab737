/** Tokens for more than any channel: old ones were made so, and stay within their key's application. */
import type { AppId } from "@pandapush/protocol";
import { afterAll, beforeAll, expect, test } from "vitest";
import { appId, Socket, startTestServer, type TestServer, token } from "../harness.js";

const other = "otherapp" as AppId;

let server: TestServer;
beforeAll(async () => {
  server = await startTestServer();
  await server.store.addApplication({ id: other, name: "other", createdBy: "admin" });
  await server.keys.changed();
});
afterAll(() => server.close());

test.each(["/**", `/${appId}/**`])(
  "[CH-6] [AUTH-17] a token for %s opens its key's application, and no other",
  async (channel) => {
    const socket = await Socket.connect(server);
    const ext = { auth: { token: token({ channel, sub: true, pub: true }) } };
    for (const own of [`/${appId}/private/x`, `/${appId}/private/**`]) {
      expect((await socket.subscribe(own, ext)).successful).toBe(true);
    }
    expect((await socket.publish(`/${appId}/private/x`, 1, ext)).successful).toBe(true);
    for (const theirs of [`/${other}/private/x`, `/${other}/private/**`]) {
      expect((await socket.subscribe(theirs, ext)).error).toBe("Could not find key");
    }
    expect((await socket.publish(`/${other}/private/x`, 1, ext)).error).toBe("Could not find key");
    // It is a permission; as a subscription it remains what CH-3 says.
    expect((await socket.subscribe(channel, ext)).error).toBe("Invalid channel name");
    socket.close();
  },
);

test.each(["/*", `/${appId}/*`, `/${other}/**`, "/", "**", `${appId}/**`])(
  "[CH-6] a token for %s opens no private channel",
  async (channel) => {
    const socket = await Socket.connect(server);
    const ext = { auth: { token: token({ channel, sub: true, pub: true }) } };
    const own = `/${appId}/private/x`;
    expect((await socket.subscribe(own, ext)).error).toBe("Token does not match channel");
    expect((await socket.publish(own, 1, ext)).error).toBe("Token does not match channel");
    socket.close();
  },
);
