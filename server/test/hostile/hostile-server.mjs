/**
 * A server in a process of its own, for tests that measure its memory or expect nothing to escape
 * it. Settings come from the environment; questions and answers travel as process messages:
 * `"measure"` → `{ heapUsed, sessions, sockets, apps }` after a garbage collection.
 */
import { pino } from "pino";
import { readConfig } from "../../dist/config.js";
import { Node } from "../../dist/node.js";
import { startServer } from "../../dist/server.js";

let node;
const { createSession } = Node.prototype;
// The running server does not show its node; the first session does.
Node.prototype.createSession = function remember(...parts) {
  node = this;
  return createSession.apply(this, parts);
};

const tell = (message) => process.send(message);
const log = pino({ level: "warn" }, { write: (line) => tell({ logged: line }) });
for (const event of ["uncaughtException", "unhandledRejection"]) {
  process.on(event, (error) => log.fatal({ err: error }, event));
}

const { config } = readConfig(process.env);
const server = await startServer(config, log, { version: "test", rev: "dev", built: "dev" });

process.on("message", async (question) => {
  if (question === "measure") {
    // Twice: what finalizers let go of in the first goes in the second.
    global.gc();
    await new Promise((resolve) => setImmediate(resolve));
    global.gc();
    tell({
      measured: {
        heapUsed: process.memoryUsage().heapUsed,
        external: process.memoryUsage().external,
        sessions: node?.sessionCount ?? 0,
        sockets: process.getActiveResourcesInfo().filter((kind) => kind === "TCPSocketWrap").length,
        apps: node === undefined ? {} : Object.fromEntries(node.hub.counters()),
      },
    });
  } else if (question === "stop") {
    await server.close();
    process.exit();
  }
});
tell({ port: server.port });
