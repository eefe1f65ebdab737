/**
 * A selection of the conformance suite against two nodes behind the balancer: each way that a
 * client can travel. `npm run test:cluster` runs the whole.
 */
import { afterAll, beforeAll } from "vitest";
import { Chromium, fayeInChromium, pandapushInChromium } from "../clients/chromium.js";
import { cometdInNode, fayeInNode, pandapushInNode } from "../clients/node.js";
import { fayeInRuby } from "../clients/ruby.js";
import { type Deployment, type Shape, startServer } from "../deployment.js";
import { sentences } from "../sentences.suite.js";

export function conformance(shape: Shape): void {
  let deployment: Deployment;
  let chromium: Chromium;
  beforeAll(async () => {
    [deployment, chromium] = await Promise.all([startServer({ shape }), Chromium.launch()]);
  });
  afterAll(async () => {
    await chromium?.close();
    await deployment?.stop();
  });

  sentences(
    [
      fayeInNode("1.4.3", "websocket"),
      fayeInNode("1.4.3", "long-polling"),
      fayeInNode("1.1.3", "long-polling"),
      fayeInRuby("websocket"),
      cometdInNode("websocket"),
      cometdInNode("long-polling", "extended"),
      pandapushInNode("websocket"),
      pandapushInNode("long-polling"),
      fayeInChromium(() => chromium, "same", "eventsource", ["websocket"]),
      pandapushInChromium(() => chromium, "other", "callback-polling", [
        "WebSocket",
        "XMLHttpRequest",
      ]),
    ],
    () => deployment,
  );
}
