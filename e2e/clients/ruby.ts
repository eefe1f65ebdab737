import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { type ClientKind, type Report, StockClient } from "./client.js";

const script = fileURLToPath(new URL("../ruby/client.rb", import.meta.url));

/** Faye's Ruby client, in a process of its own that speaks commands and reports as JSON lines. */
export function fayeInRuby(transport: "websocket" | "long-polling"): ClientKind {
  return {
    name: "faye in Ruby",
    transport,
    publishes: true,
    maxPublishLength: 100_000,
    oneAtATime: false,
    open: (url) =>
      StockClient.open((report) => {
        const child = spawn("ruby", [script, `${url}/push`, transport], {
          stdio: ["pipe", "pipe", "inherit"],
        });
        const exited = once(child, "exit");
        createInterface({ input: child.stdout }).on("line", (line) => {
          report(JSON.parse(line) as Report);
        });
        return {
          send: (command) => {
            child.stdin.write(`${JSON.stringify(command)}\n`);
          },
          close: async () => {
            child.kill("SIGKILL");
            await exited;
          },
        };
      }),
  };
}
