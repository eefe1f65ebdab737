/** Bundles what `tsc` compiled, with what it uses of protocol/, as ESM and as CommonJS. */
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { build } from "rolldown";

const dist = new URL("dist/", import.meta.url);
const file = (name) => fileURLToPath(new URL(name, dist));

for (const [format, extension] of [
  ["esm", "js"],
  ["cjs", "cjs"],
]) {
  await build({
    input: file("index.js"),
    platform: "node",
    output: {
      file: file(`pandapush.node.${extension}`),
      format,
      sourcemap: true,
      exports: "named",
    },
    logLevel: "warn",
  });
}
// For CommonJS consumers the same types under names that say CommonJS.
mkdirSync(file("cjs"), { recursive: true });
for (const name of readdirSync(dist).filter((each) => each.endsWith(".d.ts"))) {
  const types = readFileSync(file(name), "utf8");
  const renamed = types.replace(/(["']\.\/[^"']+)\.js(["'])/g, "$1.cjs$2");
  writeFileSync(file(`cjs/${name.replace(/\.ts$/, ".cts")}`), renamed);
}
