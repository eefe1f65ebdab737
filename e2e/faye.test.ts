import { afterAll, beforeAll } from "vitest";
import { fayeInNode, fayeReleases } from "./clients/node.js";
import { type Deployment, startServer } from "./deployment.js";
import { sentences } from "./sentences.suite.js";

let deployment: Deployment;
beforeAll(async () => {
  deployment = await startServer();
});
afterAll(() => deployment?.stop());

sentences(
  fayeReleases.flatMap((release) => [
    fayeInNode(release, "websocket"),
    fayeInNode(release, "long-polling"),
  ]),
  () => deployment,
);
