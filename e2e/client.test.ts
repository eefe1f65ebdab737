import { afterAll, beforeAll } from "vitest";
import { Chromium, pandapush2InChromium } from "./clients/chromium.js";
import { pandapushInNode } from "./clients/node.js";
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
    pandapushInNode("websocket"),
    pandapushInNode("long-polling"),
    pandapush2InChromium(() => chromium, "same", "websocket", []),
    pandapush2InChromium(() => chromium, "same", "eventsource", ["websocket"]),
    pandapush2InChromium(() => chromium, "same", "long-polling", ["websocket", "eventsource"]),
    pandapush2InChromium(() => chromium, "other", "websocket", []),
    pandapush2InChromium(() => chromium, "other", "long-polling", ["websocket"]),
  ],
  () => deployment,
);
