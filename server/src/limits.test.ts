import type { AppId } from "@pandapush/protocol";
import { expect, test } from "vitest";
import { Refusal } from "./errors.js";
import { AppLimiter } from "./limits.js";
import type { AppLimits } from "./storage/store.js";

const [app, other] = ["app" as AppId, "other" as AppId];
const channel = "/app/public/a";
const none: AppLimits = {
  maxPublishesPerSecond: null,
  maxConnections: null,
  maxSessionsPerSecond: null,
  maxMessageBytes: null,
};

/** A limiter whose clock goes by hand. */
function startLimiter(given: Partial<AppLimits>) {
  const limits = new Map([[app, { ...none, ...given }]]);
  const clock = { ms: 0 };
  const limiter = new AppLimiter(
    (appId) => limits.get(appId),
    () => clock.ms,
  );
  return { limits, limiter, clock };
}

/** How many of so many attempts were not refused, and how the last refusal was. */
function attempts(count: number, act: () => void): { done: number; refusal: Refusal | undefined } {
  let done = 0;
  let refusal: Refusal | undefined;
  for (let i = 0; i < count; i++) {
    try {
      act();
      done++;
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      refusal = error;
    }
  }
  return { done, refusal };
}

test("[LIM-11] as many as are allowed in a second may come at once, then they come evenly", () => {
  const { limiter, clock } = startLimiter({ maxPublishesPerSecond: 5, maxSessionsPerSecond: 5 });
  const publish = () => limiter.countPublish(app, channel);
  const join = () => limiter.countSession(app, channel, 0);
  for (const act of [publish, join]) {
    clock.ms = 0;
    expect(attempts(20, act).done).toBe(5);
    clock.ms = 199;
    expect(attempts(20, act).done).toBe(0);
    clock.ms = 200;
    expect(attempts(20, act).done).toBe(1);
    clock.ms = 60_000;
    expect(attempts(20, act).done).toBe(5);
  }
});

test("[LIM-11] a refusal names the limit, and the second after which it is over", () => {
  const { limiter, clock } = startLimiter({ maxPublishesPerSecond: 1 });
  const { refusal } = attempts(2, () => limiter.countPublish(app, channel));
  expect(refusal).toMatchObject({ code: "publishLimit", http: 429, retryAfterSeconds: 1 });
  expect(refusal?.toBayeux()).toBe(`429:${channel},1,1:Publish limit reached`);
  expect(refusal?.help).toBe(
    "This application may publish once a second at each node (max_publishes_per_second); try again in a second.",
  );
  clock.ms = 1000;
  expect(attempts(1, () => limiter.countPublish(app, channel)).done).toBe(1);
});

test("[LIM-11] a zero, which only a database can hold, refuses everything, and says so for a minute", () => {
  const { limiter } = startLimiter({ maxPublishesPerSecond: 0, maxMessageBytes: 0 });
  const { done, refusal } = attempts(3, () => limiter.countPublish(app, channel));
  expect([done, refusal?.retryAfterSeconds]).toEqual([0, 60]);
  expect(attempts(1, () => limiter.checkSize(app, channel, "1")).done).toBe(0);
});

test("[LIM-11] a limit that changes counts from then on, and one that is removed no more", () => {
  const { limits, limiter, clock } = startLimiter({ maxPublishesPerSecond: 100 });
  const publish = () => limiter.countPublish(app, channel);
  expect(attempts(1, publish).done).toBe(1);
  limits.set(app, { ...none, maxPublishesPerSecond: 2 });
  expect(attempts(10, publish).done).toBe(2);
  limits.set(app, none);
  expect(attempts(1000, publish).done).toBe(1000);
  limits.set(app, { ...none, maxPublishesPerSecond: 10 });
  clock.ms = 1000;
  expect(attempts(100, publish).done).toBe(10);
});

test("[LIM-11] each application has its own, and one that is made again begins anew", () => {
  const { limits, limiter } = startLimiter({ maxPublishesPerSecond: 2 });
  limits.set(other, { ...none, maxPublishesPerSecond: 3 });
  expect(attempts(10, () => limiter.countPublish(app, channel)).done).toBe(2);
  expect(attempts(10, () => limiter.countPublish(other, channel)).done).toBe(3);
  limiter.forget(app);
  expect(attempts(10, () => limiter.countPublish(app, channel)).done).toBe(2);
});

test("[LIM-11] bytes are counted, of what the publisher adds too", () => {
  const { limiter } = startLimiter({ maxMessageBytes: 10 });
  const fits = (data: string, ext?: string) =>
    attempts(1, () => limiter.checkSize(app, channel, data, ext)).done === 1;
  expect(fits('"12345678"')).toBe(true);
  expect(fits('"123456789"')).toBe(false);
  expect(fits('"éééé"')).toBe(true);
  expect(fits('"ééééé"')).toBe(false);
  expect(fits("12345678", "{}")).toBe(true);
  expect(fits("123456789", "{}")).toBe(false);
});
