/**
 * Bundles what `tsc` compiled: for bundlers and Node as ESM and CommonJS, for pages as one
 * minified script with the global `Pandapush`. Prints the script's size beside that of Faye's.
 *
 * The bundles for Node contain what they use of npm. `ws` and others are CommonJS, and a bundler
 * that makes one ESM file of a program leaves their `require` of Node's own modules in it, where
 * there is no `require`; in our bundles these are imports.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { builtinModules, createRequire } from "node:module";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";

const dist = new URL("dist/", import.meta.url);
const file = (name) => fileURLToPath(new URL(name, dist));
/** What `tsc` wrote, beside what is made here. */
const folders = ["./", "transports/", "platform/"];

/** The page's script may have at most this many bytes after gzip. */
const maxBytes = 9 * 1024;

const outputs = [
  { input: "browser.js", name: "pandapush.browser", formats: ["esm", "cjs"] },
  { input: "index.js", name: "pandapush.node", formats: ["esm", "cjs"], isNode: true },
  { input: "platform/proxy.js", name: "pandapush.proxy", formats: ["esm", "cjs"], isNode: true },
  { input: "browser.js", name: "pandapush.min", formats: ["iife"] },
];

if (isFresh()) process.exit();
const { build } = await import("rolldown");
const { esmExternalRequirePlugin } = await import("rolldown/plugins");
const used = new Set();
for (const { input, name, formats, isNode = false } of outputs) {
  for (const format of formats) {
    const extension = format === "cjs" ? "cjs" : "js";
    const isPage = format === "iife";
    const { output } = await build({
      input: file(input),
      ...(isNode && forNode(format, extension)),
      output: {
        file: file(`${name}.${extension}`),
        format,
        sourcemap: true,
        exports: "named",
        // Bundlers use what the comments say of purity; pages do not.
        ...(isPage && {
          name: "Pandapush",
          minify: true,
          comments: false,
          generatedCode: { symbols: false },
        }),
      },
      logLevel: "warn",
    });
    for (const id of Object.keys(output[0].modules)) used.add(packageOf(id));
  }
}
writeLicenses();
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

function forNode(format, extension) {
  // Native helpers and colours, which are used when they happen to be installed.
  const absent = "\0absent";
  const optional = ["bufferutil", "utf-8-validate", "supports-color"];
  return {
    platform: "node",
    plugins: [
      {
        name: "pandapush",
        resolveId(id) {
          if (optional.includes(id)) return absent;
          // A file of its own, so that it is loaded when it is needed.
          if (id === "./proxy.js") return { id: `./pandapush.proxy.${extension}`, external: true };
          return null;
        },
        load: (id) => (id === absent ? 'throw new Error("It is not installed");' : null),
      },
      format === "esm" && esmExternalRequirePlugin({ external: builtinModules }),
    ],
  };
}

/** The folder of the package in node_modules that a module belongs to, or undefined. */
function packageOf(id) {
  return /^.*\/node_modules\/(?:@[^/]+\/)?[^/]+/.exec(id)?.[0];
}

/** What is in the bundles demands that its license goes with it. */
function writeLicenses() {
  const texts = [...used].filter(Boolean).map((folder) => {
    const { name, version, license, author } = JSON.parse(
      readFileSync(path.join(folder, "package.json"), "utf8"),
    );
    const source = readdirSync(folder).find((each) => /^license/i.test(each));
    const text =
      source === undefined
        ? `License: ${license}, by ${author}`
        : readFileSync(path.join(folder, source), "utf8").trim();
    return `${name} ${version}\n\n${text}\n`;
  });
  writeFileSync(file("licenses.txt"), texts.sort().join(`\n${"-".repeat(80)}\n\n`));
}

/** Whether the bundles are newer than all that goes into them. */
function isFresh() {
  const bundle = file("pandapush.min.js");
  if (!existsSync(bundle)) return false;
  const inputs = folders.flatMap((folder) =>
    readdirSync(file(folder))
      .filter((name) => name.endsWith(".js") && !name.startsWith("pandapush."))
      .map((name) => file(`${folder}${name}`)),
  );
  // The versions of what goes into the bundles for Node are in package.json.
  inputs.push(fileURLToPath(import.meta.url), file("../package.json"));
  inputs.push(file("../../protocol/dist/channel.js"));
  const builtAt = statSync(bundle).mtimeMs;
  return inputs.every((input) => statSync(input).mtimeMs <= builtAt);
}
