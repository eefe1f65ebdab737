/**
 * The image without an engine for images: the steps of the Dockerfile that put its last stage
 * together, done in an empty folder, and the server started from that. What the build stage does is
 * what this checkout has been through.
 */
import { execFile } from "node:child_process";
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import { basename, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { parse } from "yaml";
import { ServerProcess } from "./server-process.js";

const checkout = fileURLToPath(new URL("..", import.meta.url));
const workdir = "/usr/src/app";
const run = promisify(execFile);

interface Step {
  readonly name: string;
  readonly rest: string;
}

/** By the names of stages; the last one is called "". */
function stagesOf(dockerfile: string): Map<string, Step[]> {
  const stages = new Map<string, Step[]>();
  let steps: Step[] = [];
  const lines = dockerfile
    .replace(/^\s*#.*\n/gm, "")
    .replace(/\\\n\s*/g, " ")
    .split("\n");
  for (const line of lines) {
    const [, name = "", rest = ""] = /^([A-Z]+)\s+(.*)$/.exec(line) ?? [];
    if (name === "") continue;
    if (name === "FROM") {
      steps = [];
      stages.set(/ AS (\w+)$/.exec(rest)?.[1] ?? "", steps);
    } else steps.push({ name, rest });
  }
  return stages;
}

/** Does what COPY does from a folder to a folder. */
function copy(rest: string, from: string, to: string): void {
  const paths = rest.split(" ").filter((word) => !word.startsWith("--"));
  const target = paths.pop() ?? "";
  for (const path of paths) {
    const source = join(from, path.startsWith("/") ? relative(workdir, path) : path);
    const isInto = target.endsWith("/");
    cpSync(source, join(to, target, isInto ? basename(path) : ""), {
      recursive: true,
      verbatimSymlinks: true,
    });
  }
}

const stages = stagesOf(readFileSync(join(checkout, "Dockerfile"), "utf8"));
const stepsOf = (stage: string): Step[] => {
  const steps = stages.get(stage);
  if (steps === undefined) throw new Error(`the Dockerfile has no stage ${stage}`);
  return steps;
};

let root: string;
let port: number;
let server: ServerProcess;
let environment: NodeJS.ProcessEnv;

beforeAll(async () => {
  root = mkdtempSync(join(tmpdir(), "pandapush-image-"));
  const packages = join(root, "packages");
  const image = join(root, "image");
  for (const { name, rest } of stepsOf("manifests")) {
    if (name === "COPY") copy(rest, checkout, packages);
  }
  for (const { name, rest } of stepsOf("packages")) {
    if (name === "RUN") await run("sh", ["-c", rest], { cwd: packages });
  }
  const variables = [...stepsOf("base"), ...stepsOf("")].filter(({ name }) => name === "ENV");
  environment = Object.fromEntries(variables.map(({ rest }) => rest.split(/=(.*)/).slice(0, 2)));
  for (const { name, rest } of stepsOf("")) {
    const from = /^--from=(\w+)/.exec(rest)?.[1];
    if (name === "COPY") copy(rest, from === "packages" ? packages : checkout, image);
  }
  const free = net.createServer().listen(0);
  port = (free.address() as net.AddressInfo).port;
  free.close();
  environment = {
    ...environment,
    PORT: String(port),
    PATH: `${join(image, "node_modules/.bin")}:${process.env.PATH}`,
    AUTH_METHOD: "basic",
    ADMIN_USERNAME: "admin",
    ADMIN_PASSWORD: "password",
  };
  server = new ServerProcess(JSON.parse(stepsOf("").at(-1)?.rest ?? "[]") as string[], {
    directory: image,
    environment,
    healthUrl: `http://127.0.0.1:${port}/live`,
  });
}, 300_000);
afterAll(async () => {
  await server?.end("SIGKILL");
  rmSync(root, { recursive: true, force: true });
});

const inImage = (command: string) =>
  run("sh", ["-c", command], {
    cwd: join(root, "image"),
    env: { ...process.env, ...environment },
  });

describe("the image", () => {
  it("listens where `docker run -p 3000:80` looks, as somebody who is not root", () => {
    const [base, last] = [stepsOf("base"), stepsOf("")];
    expect(base).toContainEqual({ name: "ENV", rest: "PORT=80" });
    expect(base).toContainEqual({ name: "EXPOSE", rest: "80" });
    expect(last).toContainEqual({ name: "USER", rest: "1000:1000" });
    expect(last).toContainEqual({ name: "VOLUME", rest: `${workdir}/localdata` });
  });

  it("has the knex command, which makes the database where the server looks for it", async () => {
    const { stdout } = await inImage("knex --knexfile server/knexfile.js migrate:latest");
    expect(stdout).toMatch(/Batch 1 run: \d+ migrations/);
    expect(existsSync(join(root, "image/localdata/db.sqlite"))).toBe(true);
  });

  it("has the pandapush command", async () => {
    const { stdout } = await inImage("pandapush app add 'My shop' --json");
    expect(JSON.parse(stdout)).toMatchObject({ name: "My shop" });
  });

  it("serves clients and the console, and says that it is well", async () => {
    await server.start();
    for (const path of ["/live", "/ready", "/push/client.js", "/client.js", "/admin/"]) {
      const authorization = `Basic ${Buffer.from("admin:password").toString("base64")}`;
      const answer = await fetch(`http://127.0.0.1:${port}${path}`, { headers: { authorization } });
      expect([path, answer.status]).toEqual([path, 200]);
    }
    const health = stepsOf("").find(({ name }) => name === "HEALTHCHECK");
    const [, check = "[]"] = /CMD (\[.*\])$/.exec(health?.rest ?? "") ?? [];
    const [program = "", ...args] = JSON.parse(check) as string[];
    const env = { ...process.env, ...environment };
    await run(program, args, { env });
    await server.end("SIGTERM");
    await expect(run(program, args, { env })).rejects.toMatchObject({ code: 1 });
  });
});

describe("compose.yaml", () => {
  interface Service {
    readonly build: { readonly target: string };
    readonly command: readonly string[];
    readonly volumes: readonly string[];
    readonly ports?: readonly string[];
    readonly environment?: Readonly<Record<string, string>>;
  }
  const { services } = parse(readFileSync(join(checkout, "compose.yaml"), "utf8"), {
    merge: true,
  }) as { services: Readonly<Record<string, Service>> };

  it("has the services of 2.2, each with the checkout and packages of its own system", () => {
    expect(Object.keys(services)).toEqual(["web", "webpack"]);
    for (const { build, volumes } of Object.values(services)) {
      expect(stages.has(build.target)).toBe(true);
      expect(volumes).toEqual([`.:${workdir}`, `node_modules:${workdir}/node_modules`]);
    }
    expect(services.web?.ports).toEqual(["127.0.0.1:3000:80"]);
    expect(services.web?.environment?.VIRTUAL_HOST).toBe("pandapush.docker");
  });

  it("starts what there is", () => {
    for (const { command } of Object.values(services)) {
      const [, script = ""] = command;
      expect(existsSync(join(checkout, script))).toBe(true);
    }
  });
});
