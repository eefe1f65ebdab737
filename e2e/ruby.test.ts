import { afterAll, beforeAll } from "vitest";
import { fayeInRuby } from "./clients/ruby.js";
import { type Deployment, startServer } from "./deployment.js";
import { sentences } from "./sentences.suite.js";

let deployment: Deployment;
beforeAll(async () => {
  deployment = await startServer();
});
afterAll(() => deployment?.stop());

sentences([fayeInRuby("websocket"), fayeInRuby("long-polling")], () => deployment);
