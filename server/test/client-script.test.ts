import { afterAll, beforeAll, expect, test } from "vitest";
import { startTestServer, type TestServer } from "./harness.js";

let server: TestServer;
beforeAll(async () => {
  server = await startTestServer();
});
afterAll(() => server.close());

const get = (path: string, headers: Record<string, string> = {}) =>
  fetch(`http://127.0.0.1:${server.port}${path}`, { headers });

test("/client.js is our client for pages, and may be used by pages of other origins", async () => {
  const response = await get("/client.js");
  expect(response.status).toBe(200);
  expect(response.headers.get("content-type")).toBe("text/javascript; charset=utf-8");
  expect(response.headers.get("access-control-allow-origin")).toBe("*");
  const Pandapush = new Function(`${await response.text()}\nreturn Pandapush;`)() as object;
  expect(Pandapush).toMatchObject({ Client: expect.any(Function), VERSION: expect.any(String) });
});

test("browsers keep /client.js and ask each time whether it changed", async () => {
  const first = await get("/client.js");
  const etag = first.headers.get("etag") ?? "";
  expect(etag).toMatch(/^"[\w-]+"$/);
  expect(first.headers.get("cache-control")).toBe("public, no-cache");
  const second = await get("/client.js", { "If-None-Match": etag });
  expect([second.status, await second.text()]).toEqual([304, ""]);
  expect((await get("/client.js", { "If-None-Match": '"other"' })).status).toBe(200);
});

test("the source map is where the script says", async () => {
  const script = await (await get("/client.js")).text();
  const map = /\/\/# sourceMappingURL=(\S+)/.exec(script)?.[1];
  const response = await get(`/${map}`);
  expect(response.status).toBe(200);
  const { sources } = (await response.json()) as { sources: string[] };
  expect(sources.join()).toContain("link");
});
