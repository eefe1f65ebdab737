/**
 * Bundles what `tsc` compiled: for bundlers and Node as ESM and CommonJS, for pages as one
 * minified script with the global `Pandapush`. Prints the script's size beside that of Faye's.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";

const dist = new URL("dist/", import.meta.url);
const file = (name) => fileURLToPath(new URL(name, dist));
const external = ["ws", "http-proxy-agent", "https-proxy-agent", /^node:/];

/** What `tsc` wrote, beside what is made here. */
const folders = ["./", "transports/", "platform/"];

/** The page's script may have at most this many bytes after gzip. */
const maxBytes = 9 * 1024;

const outputs = [
  { input: "browser.js", output: { file: file("pandapush.browser.js"), format: "esm" } },
  { input: "browser.js", output: { file: file("pandapush.browser.cjs"), format: "cjs" } },
  { input: "index.js", output: { file: file("pandapush.node.js"), format: "esm" }, external },
  { input: "index.js", output: { file: file("pandapush.node.cjs"), format: "cjs" }, external },
  {
    input: "browser.js",
    output: { file: file("pandapush.min.js"), format: "iife", name: "Pandapush", minify: true },
  },
];

if (isFresh()) process.exit();
const { build } = await import("rolldown");
for (const { input, output, external: outside } of outputs) {
  await build({
    input: file(input),
    ...(outside && { external: outside }),
    output: { ...output, sourcemap: true, exports: "named" },
    logLevel: "warn",
  });
}
// For CommonJS consumers the same types under names that say CommonJS.
for (const folder of folders) {
  mkdirSync(file(`cjs/${folder}`), { recursive: true });
  for (const name of readdirSync(file(folder)).filter((each) => each.endsWith(".d.ts"))) {
    const types = readFileSync(file(`${folder}${name}`), "utf8");
    const renamed = types.replace(/(["']\.{1,2}\/[^"']+)\.js(["'])/g, "$1.cjs$2");
    writeFileSync(file(`cjs/${folder}${name.replace(/\.ts$/, ".cts")}`), renamed);
  }
}

const gzipped = (path) => gzipSync(readFileSync(path), { level: 9 }).length;
const faye = createRequire(import.meta.url).resolve("faye/client/faye-browser-min.js");
const bytes = gzipped(file("pandapush.min.js"));
console.log(
  `pandapush.min.js: ${bytes} bytes after gzip (at most ${maxBytes}; Faye: ${gzipped(faye)})`,
);
if (bytes > maxBytes) process.exitCode = 1;

/** Whether the bundles are newer than all that goes into them. */
function isFresh() {
  const bundle = file("pandapush.min.js");
  if (!existsSync(bundle)) return false;
  const inputs = folders.flatMap((folder) =>
    readdirSync(file(folder))
      .filter((name) => name.endsWith(".js") && !name.startsWith("pandapush."))
      .map((name) => file(`${folder}${name}`)),
  );
  inputs.push(fileURLToPath(import.meta.url), file("../../protocol/dist/channel.js"));
  const builtAt = statSync(bundle).mtimeMs;
  return inputs.every((input) => statSync(input).mtimeMs <= builtAt);
}
