import { once } from "node:events";
import http from "node:http";
import { buffer } from "node:stream/consumers";
import { gunzipSync } from "node:zlib";
import { afterAll, beforeAll, expect, test } from "vitest";
import { startTestServer, type TestServer } from "./harness.js";

let server: TestServer;
beforeAll(async () => {
  server = await startTestServer();
});
afterAll(() => server.close());

const get = (path: string, headers: Record<string, string> = {}) =>
  fetch(`http://127.0.0.1:${server.port}${path}`, { headers });

/** As it comes over the wire: `fetch` would unpack it. */
async function raw(path: string, accepted: string, headers: http.OutgoingHttpHeaders = {}) {
  const request = http.get({
    port: server.port,
    path,
    headers: { ...headers, "Accept-Encoding": accepted },
  });
  const [response] = (await once(request, "response")) as [http.IncomingMessage];
  return { status: response.statusCode, headers: response.headers, body: await buffer(response) };
}

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
  for (const known of [etag, `W/${etag}`, `"other", ${etag}`]) {
    const second = await get("/client.js", { "If-None-Match": known });
    expect([second.status, await second.text()]).toEqual([304, ""]);
    expect(second.headers.get("etag")).toBe(etag);
    expect(second.headers.get("vary")).toBe("Accept-Encoding");
  }
  expect((await get("/client.js", { "If-None-Match": '"other"' })).status).toBe(200);
});

test.each(["/client.js", "/pandapush.min.js.map"])(
  "%s is compressed for who takes gzip, under a tag of its own",
  async (path) => {
    const plain = await raw(path, "identity");
    expect(plain.headers["content-encoding"]).toBeUndefined();
    for (const accepted of ["gzip", "br;q=1.0, GZIP;q=0.5", "deflate, gzip ;q=0.01"]) {
      const gzipped = await raw(path, accepted);
      expect(gzipped.headers).toMatchObject({
        "content-encoding": "gzip",
        "content-length": String(gzipped.body.length),
        "content-type": plain.headers["content-type"],
        vary: "Accept-Encoding",
      });
      expect(gunzipSync(gzipped.body)).toEqual(plain.body);
      expect(gzipped.headers.etag).not.toBe(plain.headers.etag);
      const known = { "If-None-Match": gzipped.headers.etag };
      expect((await raw(path, accepted, known)).status).toBe(304);
      expect((await raw(path, "identity", known)).status).toBe(200);
    }
    for (const accepted of ["", "br", "gzip;q=0", "gzip; q=0.000", "gzipped"]) {
      const { headers, body } = await raw(path, accepted);
      expect([headers["content-encoding"], headers.vary]).toEqual([undefined, "Accept-Encoding"]);
      expect(body).toEqual(plain.body);
    }
  },
);

test("/client.js is as small as the README of the client says", async () => {
  expect((await raw("/client.js", "gzip")).body.length).toBeLessThanOrEqual(9_216);
});

test("the source map is where the script says", async () => {
  const script = await (await get("/client.js")).text();
  const map = /\/\/# sourceMappingURL=(\S+)/.exec(script)?.[1];
  const response = await get(`/${map}`);
  expect(response.status).toBe(200);
  const { sources } = (await response.json()) as { sources: string[] };
  expect(sources.join()).toContain("link");
});
