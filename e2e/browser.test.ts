import { afterAll, beforeAll } from "vitest";
import { Chromium, fayeInChromium } from "./clients/chromium.js";
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
    fayeInChromium(() => chromium, "same", "websocket", []),
    fayeInChromium(() => chromium, "same", "eventsource", ["websocket"]),
    fayeInChromium(() => chromium, "same", "long-polling", ["websocket", "eventsource"]),
    fayeInChromium(() => chromium, "other", "websocket", []),
    fayeInChromium(() => chromium, "other", "cross-origin-long-polling", ["websocket"]),
    fayeInChromium(() => chromium, "other", "callback-polling", [
      "websocket",
      "cross-origin-long-polling",
    ]),
  ],
  () => deployment,
);
