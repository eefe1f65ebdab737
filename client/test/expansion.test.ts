import { expandBayeux } from "@pandapush/protocol";
import { describe, expect, test } from "vitest";

describe("the subscriptions that hear a channel", () => {
  test.each([
    ["/a", ["/**", "/a", "/*"]],
    ["/a/b", ["/**", "/a/b", "/a/*", "/a/**"]],
    ["/a/b/c", ["/**", "/a/b/c", "/a/b/*", "/a/**", "/a/b/**"]],
    ["/a/b/c/d", ["/**", "/a/b/c/d", "/a/b/c/*", "/a/**", "/a/b/**", "/a/b/c/**"]],
  ])("%s: come in the order in which Faye calls them", (name, expected) => {
    expect(expandBayeux(name)).toEqual(expected);
  });
});
