import type { AppId, KeyId } from "@pandapush/protocol";
import { expect, test } from "vitest";
import { firstScreen, shellWord } from "./first-steps.js";

const url = "http://localhost:3000";
const steps = { appId: "app" as AppId, keyId: "key" as KeyId };

test.each([
  ["PSID1:a_Z.0~-", "PSID1:a_Z.0~-"],
  ["key:two words", "'key:two words'"],
  ['key:$HOME`id`"\\', "'key:$HOME`id`\"\\'"],
  ["key:it's", "'key:it'\\''s'"],
  ["~key:secret", "'~key:secret'"],
  ["", "''"],
])("%j is the word %s of a command line", (text, word) => {
  expect(shellWord(text)).toBe(word);
});

test("the first screen quotes credentials that a shell would read otherwise", () => {
  expect(firstScreen(url, "1", { ...steps, secret: "plain" })).toContain("curl -u key:plain -H");
  expect(firstScreen(url, "1", { ...steps, secret: "a b" })).toContain("curl -u 'key:a b' -H");
});

test("the first screen has placeholders that a shell takes as words", () => {
  expect(firstScreen(url, "1", undefined)).not.toMatch(/[<>]/);
  expect(firstScreen(url, "1", { ...steps, secret: "s" })).not.toMatch(/[<>]/);
});

test("the first screen shows the admin's password when it was made just now, else how to get one", () => {
  const made = { username: "admin", isConfigured: false, password: "abcd-efgh" };
  expect(firstScreen(url, "1", undefined, made)).toMatch(/admin {2}password {2}abcd-efgh\n/);
  const known = { username: "zoe", isConfigured: false };
  expect(firstScreen(url, "1", undefined, known)).toMatch(/zoe .*admin reset-password/);
  expect(firstScreen(url, "1", undefined, { ...known, isConfigured: true })).toMatch(
    /zoe .*ADMIN_PASSWORD/,
  );
  expect(firstScreen(url, "1", undefined, known)).toContain(`Console:  ${url}/admin\n`);
  expect(firstScreen(url, "1", undefined, { provider: "Okta" })).toMatch(/sign in with Okta/);
  expect(firstScreen(url, "1", undefined)).not.toMatch(/Admin|Console/);
});
