import { setImmediate as nextTurn } from "node:timers/promises";
import { expect, test } from "vitest";
import { Turns } from "./turns.js";

/** Keeps the event loop. */
function workFor(ms: number): void {
  const end = performance.now() + ms;
  while (performance.now() < end);
}

test("what a turn has time for is done at once, and its result is handed on as it is", async () => {
  const turns = new Turns();
  expect(turns.do({}, () => 1)).toBe(1);
  await expect(turns.do({}, () => Promise.resolve(2))).resolves.toBe(2);
  expect(() =>
    turns.do({}, () => {
      throw new Error("three");
    }),
  ).toThrow("three");
});

test("what it has no time for is done in later turns, in order, with others between", async () => {
  const turns = new Turns();
  const done: string[] = [];
  const results = ["a", "b", "c", "d"].map((name) =>
    turns.do({}, () => {
      workFor(6);
      done.push(name);
      return name;
    }),
  );
  expect(done).toEqual(["a"]);
  for (let turn = 0; turn < 3; turn++) {
    // As a read of another connection would come between.
    done.push("other");
    await nextTurn();
  }
  expect(done).toEqual(["a", "other", "b", "other", "c", "other", "d"]);
  expect(await Promise.all(results)).toEqual(["a", "b", "c", "d"]);
});

test("what one connection sent in one go waits in its order, and lets others in between", async () => {
  const turns = new Turns();
  const done: string[] = [];
  const [flooder, other] = [{}, {}];
  const send = (owner: object, name: string) =>
    turns.do(owner, () => {
      workFor(6);
      done.push(name);
    });
  for (let n = 1; n <= 5; n++) send(flooder, `flood ${n}`);
  send(other, "other 1");
  send(other, "other 2");
  while (done.length < 7) await nextTurn();
  expect(done).toEqual([
    ...["flood 1", "flood 2", "other 1", "flood 3", "other 2"],
    ...["flood 4", "flood 5"],
  ]);
});

test("errors of what was put off reach whoever asked for it", async () => {
  const turns = new Turns();
  turns.do({}, () => workFor(6));
  const fails = (): never => {
    throw new Error("late");
  };
  await expect(turns.do({}, fails)).rejects.toThrow("late");
  await expect(turns.do({}, () => Promise.reject(new Error("later")))).rejects.toThrow("later");
});

test("work that is put off again goes on behind the others that wait", async () => {
  const turns = new Turns();
  const done: string[] = [];
  const begin = (name: string): void => {
    let left = 3;
    const work = {
      goOn(): void {
        while (left > 0 && turns.hasTime()) {
          workFor(6);
          done.push(name);
          left--;
        }
        if (left > 0) turns.putOff(work);
      },
    };
    work.goOn();
  };
  begin("a");
  begin("b");
  while (done.length < 6) await nextTurn();
  expect(done).toEqual(["a", "a", "b", "a", "b", "b"]);
});
