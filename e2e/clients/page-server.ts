import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import { createRequire } from "node:module";
import path from "node:path";

const require = createRequire(import.meta.url);
const cometd = path.dirname(require.resolve("cometd"));

/**
 * The web site of somebody who uses Pandapush from another origin: an empty page at `/`, and the
 * modules of npm `cometd` at `/cometd/`.
 */
export class PageServer {
  readonly #server: Server;

  static async start(): Promise<PageServer> {
    const site = new PageServer();
    site.#server.listen(0, "127.0.0.1");
    await once(site.#server, "listening");
    return site;
  }

  private constructor() {
    this.#server = createServer(async (request, response) => {
      const module = /^\/cometd\/(\w+\.js)$/.exec(request.url ?? "")?.[1];
      if (module === undefined) {
        response.setHeader("Content-Type", "text/html; charset=utf-8");
        response.end("<!doctype html><title>Somebody's page</title>");
        return;
      }
      response.setHeader("Content-Type", "text/javascript; charset=utf-8");
      response.end(await readFile(path.join(cometd, module)));
    });
  }

  get url(): string {
    const address = this.#server.address();
    if (address === null || typeof address === "string") throw new Error("the site is closed");
    return `http://127.0.0.1:${address.port}`;
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, "close");
  }
}
