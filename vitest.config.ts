import { defineConfig } from "vitest/config";

const protocol = new URL("./protocol/src/index.ts", import.meta.url).pathname;
const alias = { "@pandapush/protocol": protocol };

export default defineConfig({
  test: {
    // Servers, clients and browsers are processes of their own: more workers only make them wait.
    maxWorkers: 2,
    projects: [
      {
        resolve: { alias },
        test: {
          name: "unit",
          include: ["protocol/src/**/*.test.ts", "server/src/**/*.test.ts"],
        },
      },
      {
        resolve: { alias },
        test: { name: "server", include: ["server/test/**/*.test.ts"], testTimeout: 20_000 },
      },
      {
        resolve: { alias },
        test: {
          name: "client",
          include: ["client/src/**/*.test.ts", "client/test/**/*.test.ts"],
          testTimeout: 20_000,
          hookTimeout: 20_000,
        },
      },
      {
        resolve: { alias },
        test: {
          name: "sdk",
          include: ["sdk/test/**/*.test.ts"],
          testTimeout: 30_000,
          hookTimeout: 30_000,
        },
      },
      {
        resolve: { alias },
        test: {
          name: "e2e",
          include: ["e2e/**/*.test.ts"],
          testTimeout: 60_000,
          hookTimeout: 60_000,
        },
      },
    ],
  },
});
