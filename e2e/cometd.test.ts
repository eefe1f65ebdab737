import { afterAll, beforeAll } from "vitest";
import { Chromium, cometdInChromium } from "./clients/chromium.js";
import { cometdInNode } from "./clients/node.js";
import { type Deployment, startServer } from "./deployment.js";
import { sentences } from "./sentences.suite.js";

let deployment: Deployment;
let chromium: Chromium;
beforeAll(async () => {
  [deployment, chromium] = await Promise.all([startServer(), Chromium.launch()]);
});
afterAll(async () => {
  await chromium?.close();
  await deployment?.stop();
});

sentences(
  [
    cometdInNode("websocket"),
    cometdInNode("long-polling"),
    cometdInNode("websocket", "extended"),
    cometdInNode("long-polling", "extended"),
    cometdInChromium(() => chromium, "websocket"),
    cometdInChromium(() => chromium, "long-polling"),
    cometdInChromium(() => chromium, "callback-polling"),
  ],
  () => deployment,
);
