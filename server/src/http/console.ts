/** `/admin` and below: the console's build for whoever is logged in, the sign-in page for others. */
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, extname, join } from "node:path";
import { promisify } from "node:util";
import { gzip } from "node:zlib";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import type { AdminAuth, AdminRequest } from "../auth/admin.js";
import { Refusal } from "../errors.js";
import {
  closedPage,
  notBuiltPage,
  type Page,
  passwordPage,
  providerPage,
  readReturn,
  safetyHeaders,
  sendPage,
} from "./admin-page.js";
import { type StaticFile, sendFile, staticFile } from "./static-file.js";

export interface ConsoleParts {
  /** Absent: nobody can log in. */
  readonly auth: AdminAuth | undefined;
  /** What people call the provider where they log in; absent: they have a password. */
  readonly provider: string | undefined;
  readonly describe: (request: FastifyRequest) => AdminRequest;
  /** Of the console's build; absent: that of the package `@pandapush/console`. */
  readonly directory: string | undefined;
}

/** The component library writes styles of its own into the page. Scripts come from here only. */
const consolePolicy = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self' 'unsafe-inline'",
  "connect-src 'self'",
  "img-src 'self' data:",
  "font-src 'self'",
  "manifest-src 'self'",
  "base-uri 'none'",
  "form-action 'self'",
  "frame-ancestors 'none'",
].join("; ");

const types: ReadonlyMap<string, string> = new Map([
  [".css", "text/css; charset=utf-8"],
  [".html", "text/html; charset=utf-8"],
  [".ico", "image/x-icon"],
  [".js", "text/javascript; charset=utf-8"],
  [".json", "application/json; charset=utf-8"],
  [".map", "application/json; charset=utf-8"],
  [".png", "image/png"],
  [".svg", "image/svg+xml"],
  [".webp", "image/webp"],
  [".woff2", "font/woff2"],
]);

export function routeConsole(app: FastifyInstance, parts: ConsoleParts): void {
  app.register(async (scope) => {
    scope.addHook("onRequest", async (_request, reply) => {
      reply.headers(safetyHeaders);
    });
    routeBuild(scope, parts);
    const others = scope.supportedMethods.filter((method) => method !== "GET" && method !== "HEAD");
    scope.route({
      method: others,
      url: "/admin/*",
      handler: () => {
        throw new Refusal("notFound");
      },
    });
  });
}

function routeBuild(app: FastifyInstance, parts: ConsoleParts): void {
  const { auth, provider, describe } = parts;
  const build = new ConsoleBuild(parts.directory ?? builtDirectory());

  const serve = (send: (request: FastifyRequest, reply: FastifyReply) => Promise<FastifyReply>) => {
    return async (request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> => {
      if (auth === undefined) return sendPage(reply, 403, closedPage);
      const signIn = (fault?: Refusal): Page =>
        provider === undefined
          ? passwordPage(fault)
          : providerPage(provider, readReturn(request.url));
      try {
        const user = await auth.identify(describe(request));
        // No `WWW-Authenticate`: for it a browser would open a window of its own.
        if (user === undefined) return sendPage(reply, 401, signIn());
      } catch (error) {
        if (!(error instanceof Refusal)) throw error;
        return sendPage(reply, error, signIn(error));
      }
      return send(request, reply);
    };
  };

  const index = serve(async (request, reply) => {
    const file = await build.index();
    if (file === undefined) return sendPage(reply, 503, notBuiltPage);
    return sendFile(request, reply, file);
  });
  app.get("/admin", index);
  app.get("/admin/*", index);
  app.get(
    "/admin/assets/:name",
    serve(async (request, reply) => {
      const { name } = request.params as { name: string };
      const file = await build.asset(name);
      if (file === undefined) throw new Refusal("noSuchResource");
      return sendFile(request, reply, file);
    }),
  );
}

/** What `npm run build` left for browsers. It may come, and change, while the server is up. */
class ConsoleBuild {
  private readonly assets = new Map<string, Promise<StaticFile | undefined>>();

  constructor(private readonly directory: string) {}

  async index(): Promise<StaticFile | undefined> {
    const content = await readIfThere(join(this.directory, "index.html"));
    return (
      content &&
      staticFile(content, {
        "content-type": typeOf(".html"),
        "content-security-policy": consolePolicy,
        "cache-control": "private, no-cache",
      })
    );
  }

  /** Each is read and compressed once: there are as many as the build has. */
  asset(name: string): Promise<StaticFile | undefined> {
    if (!/^[\w-][\w.-]{0,254}$/.test(name)) return Promise.resolve(undefined);
    const known = this.assets.get(name);
    if (known !== undefined) return known;
    const reading = this.readAsset(name);
    this.assets.set(name, reading);
    const forget = (): unknown => this.assets.delete(name);
    reading.then((file) => file ?? forget(), forget);
    return reading;
  }

  private async readAsset(name: string): Promise<StaticFile | undefined> {
    const content = await readIfThere(join(this.directory, "assets", name));
    if (content === undefined) return undefined;
    const headers = {
      "content-type": typeOf(extname(name)),
      // Its name changes with its content.
      "cache-control": "private, max-age=31536000, immutable",
    };
    return staticFile(content, headers, await promisify(gzip)(content));
  }
}

function builtDirectory(): string {
  const manifest = createRequire(import.meta.url).resolve("@pandapush/console/package.json");
  return join(dirname(manifest), "dist");
}

function typeOf(extension: string): string {
  return types.get(extension) ?? "application/octet-stream";
}

async function readIfThere(path: string): Promise<Buffer | undefined> {
  try {
    return await readFile(path);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ENOTDIR" || code === "EISDIR") return undefined;
    throw error;
  }
}
