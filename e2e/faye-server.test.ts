/** Our client gets on with npm `faye`'s server as Faye's own client does. */
import { afterAll, beforeAll } from "vitest";
import { Chromium, fayeInChromium, pandapush2InChromium } from "./clients/chromium.js";
import { fayeInNode, pandapushInNode } from "./clients/node.js";
import { type Deployment, startFayeServer } from "./deployment.js";
import { sentences } from "./sentences.suite.js";

let deployment: Deployment;
let chromium: Chromium;
beforeAll(async () => {
  [deployment, chromium] = await Promise.all([startFayeServer(), Chromium.launch()]);
});
afterAll(async () => {
  await chromium?.close();
  await deployment?.stop();
});

sentences(
  [
    fayeInNode("1.4.3", "websocket"),
    fayeInNode("1.4.3", "long-polling"),
    pandapushInNode("websocket"),
    pandapushInNode("long-polling"),
    fayeInChromium(() => chromium, "other", "websocket", []),
    pandapush2InChromium(() => chromium, "same", "websocket", []),
    pandapush2InChromium(() => chromium, "same", "eventsource", ["websocket"]),
    pandapush2InChromium(() => chromium, "other", "websocket", []),
    pandapush2InChromium(() => chromium, "other", "long-polling", ["websocket"]),
  ],
  () => deployment,
  { isFaye: true },
);
