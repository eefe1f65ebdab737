import { afterAll, beforeAll } from "vitest";
import { Chromium, pandapushInChromium } from "./clients/chromium.js";
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
    pandapushInChromium(() => chromium, "same", "websocket", []),
    pandapushInChromium(() => chromium, "same", "eventsource", ["WebSocket"]),
    pandapushInChromium(() => chromium, "same", "long-polling", ["WebSocket", "EventSource"]),
    pandapushInChromium(() => chromium, "other", "websocket", []),
    pandapushInChromium(() => chromium, "other", "cross-origin-long-polling", ["WebSocket"]),
    pandapushInChromium(() => chromium, "other", "callback-polling", [
      "WebSocket",
      "XMLHttpRequest",
    ]),
  ],
  () => deployment,
);
