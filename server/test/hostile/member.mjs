/**
 * One membership in a process of its own, to be frozen. Says `{ id }` for each id that it has, and
 * answers `"verify"` with `{ verified: <its id when it may act> }`.
 */
import { createMembership } from "../../dist/cluster/membership.js";
import { RedisHosts } from "../../dist/redis/hosts.js";

const [port, prefix, leaseMs, renewMs] = process.argv.slice(2);
const host = { host: "127.0.0.1", port: Number(port), isTls: false, database: 0 };
const hosts = new RedisHosts({ hosts: [host], prefix }, () => undefined);
const membership = createMembership(
  hosts,
  {
    died: () => undefined,
    lost: () => process.send({ id: membership.id }),
    clean: async () => undefined,
  },
  { leaseMs: Number(leaseMs), renewMs: Number(renewMs) },
  () => undefined,
);
process.on("message", async () => {
  await membership.verified();
  process.send({ verified: membership.id });
});
await hosts.tried();
await membership.start();
process.send({ id: membership.id });
