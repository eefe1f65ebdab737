import { expect, test } from "vitest";
import { NetworkCounter, networkOf } from "./network.js";

test.each([
  ["192.0.2.1", "192.0.2.1"],
  ["::ffff:192.0.2.1", "192.0.2.1"],
  ["::FFFF:c000:201", "192.0.2.1"],
  ["0:0:0:0:0:ffff:192.0.2.1", "192.0.2.1"],
  ["2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"],
  ["2001:0DB8:1:2::", "2001:db8:1:2::/64"],
  ["2001:db8::7", "2001:db8:0:0::/64"],
  ["::7", "0:0:0:0::/64"],
  ["fe80::1%eth0", "fe80:0:0:0::/64"],
  ["this machine", "this machine"],
])("%s is of the network %s", (address, network) => {
  expect(networkOf(address)).toBe(network);
});

test("a network holds as much as may be, by whichever of its addresses", () => {
  const counter = new NetworkCounter(2);
  expect(counter.add("2001:db8:1:2::1")).toBe(true);
  expect(counter.add("2001:db8:1:2::2")).toBe(true);
  expect(counter.add("2001:db8:1:2::3")).toBe(false);
  expect(counter.add("2001:db8:1:3::3")).toBe(true);
  counter.remove("2001:db8:1:2::1");
  expect(counter.add("2001:db8:1:2::3")).toBe(true);
  expect(counter.add("192.0.2.1")).toBe(true);
  expect(counter.add("::ffff:192.0.2.1")).toBe(true);
  expect(counter.add("192.0.2.1")).toBe(false);
});

test("loopback is not counted", () => {
  const counter = new NetworkCounter(1);
  for (const address of ["127.0.0.1", "::ffff:127.0.0.1", "::1", undefined, "127.0.0.1"]) {
    expect(counter.add(address)).toBe(true);
  }
});
