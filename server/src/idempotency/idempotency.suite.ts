import type { AppId, KeyId } from "@pandapush/protocol";
import { afterEach, expect, test } from "vitest";
import { Refusal } from "../errors.js";
import type { Idempotency, IdempotencyTimes, Named, Outcome } from "./idempotency.js";
import { leaseMs, once, rememberMs } from "./idempotency.js";

/** Two nodes that remember the same. */
export interface Remembering {
  readonly nodes: readonly [Idempotency, Idempotency];
  close(): Promise<void>;
}

let made = 0;
/** A request that no other test has. */
export function freshRequest(fields: Partial<Named> = {}): Named {
  return {
    appId: `app${process.pid}` as AppId,
    keyId: "PSIDkey" as KeyId,
    name: `request-${++made}`,
    channel: `/app${process.pid}/public/news`,
    fingerprint: "the body",
    ...fields,
  };
}

const final = (text: string): Outcome => ({ text, isFinal: true });
/** What must not be done. */
const never = (): Promise<Outcome> => Promise.reject(new Error("it was done again"));

/** What all implementations do. */
export function idempotencySuite(open: (times: IdempotencyTimes) => Promise<Remembering>): void {
  let close: (() => Promise<void>) | undefined;
  afterEach(async () => {
    await close?.();
    close = undefined;
  });

  async function start(times: Partial<IdempotencyTimes> = {}): Promise<Remembering["nodes"]> {
    const opened = await open({ rememberMs, leaseMs, ...times });
    close = () => opened.close();
    return opened.nodes;
  }

  test("a repetition is given the first one's outcome, on every node", async () => {
    const [one, two] = await start();
    const request = freshRequest();
    const text = 'ü € 😀 "\\u0000" \r\n';
    expect(await once(one, request, async () => final(text))).toEqual({ text, isRepeated: false });
    expect(await once(one, request, never)).toEqual({ text, isRepeated: true });
    expect(await once(two, request, never)).toEqual({ text, isRepeated: true });
  });

  test("an empty outcome is one", async () => {
    const [one, two] = await start();
    const request = freshRequest();
    await once(one, request, async () => final(""));
    expect(await once(two, request, never)).toEqual({ text: "", isRepeated: true });
  });

  test("another request of the same name is refused, while the first is under way and after it", async () => {
    const [one, two] = await start();
    const request = freshRequest();
    const another = { ...request, fingerprint: "another body" };
    const refused = expect.objectContaining({ code: "idempotencyConflict" });
    await once(one, request, async () => {
      await expect(once(two, another, never)).rejects.toEqual(refused);
      return final("first");
    });
    await expect(once(one, another, never)).rejects.toEqual(refused);
    await expect(once(two, another, never)).rejects.toEqual(refused);
  });

  test("names of other applications and other keys are others", async () => {
    const [one] = await start();
    const request = freshRequest();
    await once(one, request, async () => final("first"));
    for (const other of [{ appId: "other" as AppId }, { keyId: "PSIDother" as KeyId }]) {
      const told = await once(one, { ...request, ...other }, async () => final("other"));
      expect(told).toEqual({ text: "other", isRepeated: false });
    }
  });

  test("of many that come at once one is done, and all are given its outcome", async () => {
    const nodes = await start();
    const request = freshRequest();
    let done = 0;
    const told = await Promise.all(
      Array.from({ length: 20 }, (_, index) =>
        once(nodes[index % 2] as Idempotency, request, async () => {
          done++;
          await new Promise((resolve) => setImmediate(resolve));
          return final(`done ${done}`);
        }),
      ),
    );
    expect(told.map(({ text }) => text)).toEqual(Array(20).fill("done 1"));
    expect(told.filter(({ isRepeated }) => !isRepeated)).toHaveLength(1);
  });

  test("what failed is not remembered: who waited for it does it", async () => {
    const [one, two] = await start();
    const request = freshRequest();
    let second: Promise<unknown> | undefined;
    const first = once(one, request, async () => {
      second = once(two, request, async () => final("second"));
      // It has been told to wait.
      expect((await two.claim(request)).state).toBe("pending");
      throw new Refusal("brokerUnavailable");
    });
    await expect(first).rejects.toThrow("Broker unavailable");
    expect(await second).toEqual({ text: "second", isRepeated: false });
    expect(await once(one, request, never)).toEqual({ text: "second", isRepeated: true });
  });

  test("who did not come to the end leaves how far they came, also to one who then fails", async () => {
    const [one, two] = await start();
    const request = freshRequest();
    await once(one, request, async (earlier) => {
      expect(earlier).toBeUndefined();
      return { text: "half", isFinal: false };
    });
    const failing = once(two, request, async () => {
      throw new Refusal("unavailable");
    });
    await expect(failing).rejects.toThrow("Service unavailable");
    const told = await once(two, request, async (earlier) => final(`${earlier} and all`));
    expect(told).toEqual({ text: "half and all", isRepeated: false });
    expect(await once(one, request, never)).toEqual({ text: "half and all", isRepeated: true });
  });

  test("it is forgotten after a while", async () => {
    const [one, two] = await start({ rememberMs: 40 });
    const request = freshRequest();
    await once(one, request, async () => final("first"));
    const deadline = Date.now() + 5_000;
    let told: { text: string } = { text: "first" };
    while (told.text === "first" && Date.now() < deadline) {
      told = await once(two, request, async () => final("again"));
    }
    expect(told).toEqual({ text: "again", isRepeated: false });
  });

  test("who never comes to an end holds up nobody for ever, and changes nothing later", async () => {
    const [one, two] = await start({ leaseMs: 1_000 });
    const request = freshRequest();
    const dead = await one.claim(request);
    expect(await once(two, request, async () => final("second"))).toEqual({
      text: "second",
      isRepeated: false,
    });
    if (dead.state === "mine") await dead.settle(final("first"));
    expect(dead.state).toBe("mine");
    expect(await once(one, request, never)).toEqual({ text: "second", isRepeated: true });
  });
}
