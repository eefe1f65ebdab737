import { expect, test } from "vitest";
import { Batch, type Receiver } from "./transport.js";
import { Unconfirmed } from "./unconfirmed.js";

class Recorder implements Receiver {
  readonly calls: (readonly string[])[] = [];

  putBack(messages: readonly string[]): void {
    this.calls.push(messages);
  }
}

const batch = (...messages: string[]): Batch => new Batch(messages, (texts) => texts.join());

test("what was confirmed is not put back; the rest is, in order and in one piece", () => {
  const unconfirmed = new Unconfirmed({ destroyed: false });
  const receiver = new Recorder();
  for (const messages of [["1", "2"], ["3"], ["4", "5"]]) {
    unconfirmed.add(batch(...messages), receiver);
  }
  unconfirmed.confirm();
  unconfirmed.putBackAll();
  expect(receiver.calls).toEqual([["3", "4", "5"]]);
});

test("a write that failed is not confirmed", () => {
  const unconfirmed = new Unconfirmed({ destroyed: false });
  const receiver = new Recorder();
  unconfirmed.add(batch("1"), receiver);
  unconfirmed.add(batch("2"), receiver);
  unconfirmed.confirm(null);
  unconfirmed.confirm(new Error("write EPIPE"));
  unconfirmed.putBackAll();
  expect(receiver.calls).toEqual([["2"]]);
});

test("each receiver gets its own back, and what one took out nobody gets again", () => {
  const unconfirmed = new Unconfirmed({ destroyed: false });
  const [first, second] = [new Recorder(), new Recorder()];
  unconfirmed.add(batch("a1"), first);
  unconfirmed.add(batch("b1"), second);
  unconfirmed.add(batch("a2", "a3"), first);
  unconfirmed.add(batch("b2"), second);
  expect(unconfirmed.take(first)).toEqual(["a1", "a2", "a3"]);
  expect(unconfirmed.take(first)).toEqual([]);
  unconfirmed.putBackAll();
  unconfirmed.putBackAll();
  expect(first.calls).toEqual([]);
  expect(second.calls).toEqual([["b1", "b2"]]);
});

test("with nothing written nothing is put back", () => {
  const unconfirmed = new Unconfirmed({ destroyed: false });
  const receiver = new Recorder();
  unconfirmed.add(batch("1"), receiver);
  unconfirmed.confirm();
  unconfirmed.putBackAll();
  expect(receiver.calls).toEqual([]);
  expect(unconfirmed.take(receiver)).toEqual([]);
});
