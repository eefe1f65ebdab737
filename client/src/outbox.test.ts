import { describe, expect, test } from "vitest";
import { Outbox, type Request } from "./outbox.js";
import { Scheduler } from "./scheduler.js";
import type { Parcel } from "./transports/transport.js";

/** Requests with the ids 1, 2, …, and what became of them. */
function outboxOf(count: number, options: { attempts?: number; interval?: number } = {}) {
  const outbox = new Outbox();
  const settled: string[] = [];
  const requests = Array.from({ length: count }, (_, index): Request => {
    const message = { channel: "/a", id: String(index + 1) };
    const scheduler = new Scheduler(message, { timeout: 10, interval: 0, ...options });
    const settle = (_reply: unknown, error: Error | undefined) =>
      settled.push(`${message.id} ${error?.message}`);
    return { ...message, json: JSON.stringify(message), scheduler, settle };
  });
  for (const request of requests) outbox.add(request);
  return { outbox, requests, settled };
}

const idsOf = (parcels: readonly Parcel[]) => parcels.map(({ id }) => id);

describe("an outbox", () => {
  test("gives what it holds in order, once, with the session's id", () => {
    const { outbox } = outboxOf(3);
    expect(outbox.isWaiting).toBe(false);
    const taken = outbox.take('"client"');
    expect(idsOf(taken)).toEqual(["1", "2", "3"]);
    expect(taken.map(({ text }) => JSON.parse(text))).toEqual(
      ["1", "2", "3"].map((id) => ({ clientId: '"client"', channel: "/a", id })),
    );
    expect(outbox.isWaiting).toBe(true);
    expect(outbox.take("client")).toEqual([]);
  });

  test("knows the request of a reply, once", () => {
    const { outbox, requests } = outboxOf(2);
    outbox.take("client");
    expect(outbox.answered("2")).toBe(requests[1]);
    expect(outbox.answered("2")).toBeUndefined();
    expect(outbox.answered("3")).toBeUndefined();
    expect(outbox.isWaiting).toBe(true);
  });

  test("sends again, first, what was under way when the connection was lost", () => {
    const { outbox, requests } = outboxOf(3);
    outbox.take("client");
    outbox.answered("2");
    outbox.add({ ...(requests[1] as Request), id: "4" });
    outbox.connectionLost(false);
    expect(outbox.isWaiting).toBe(false);
    expect(idsOf(outbox.take("client"))).toEqual(["1", "3", "4"]);
  });

  test("does not send again what was taken back, nor handshakes and connects", () => {
    const { outbox, requests } = outboxOf(3);
    const takeBack = (index: number) => Object.assign(requests[index] ?? {}, { isTakenBack: true });
    takeBack(0);
    outbox.dropUndeliverable(() => new Error("taken back"));
    expect(idsOf(outbox.take("client"))).toEqual(["2", "3"]);
    takeBack(1);
    const connect = { channel: "/meta/connect", id: "c", json: "{}", settle: () => {}, dueAt: 0 };
    outbox.send(connect, "client");
    expect(outbox.isOverdue(1)).toBe(true);
    outbox.connectionLost(false);
    outbox.dropUndeliverable(() => new Error("taken back"));
    expect(idsOf(outbox.take("client"))).toEqual(["3"]);
  });

  test("lets wait what must, and all that is behind", () => {
    const { outbox } = outboxOf(2, { interval: 60 });
    outbox.take("client");
    outbox.connectionLost(false);
    for (const request of outboxOf(1).requests) outbox.add(request);
    expect(outbox.take("client")).toEqual([]);
  });

  test("gives up what was sent or tried as often as it may be", () => {
    const sent = outboxOf(2, { attempts: 1 });
    sent.outbox.take("client");
    sent.outbox.answered("1");
    sent.outbox.connectionLost(false);
    sent.outbox.dropUndeliverable(() => new Error("lost"));
    expect(sent.settled).toEqual(["2 lost"]);
    const tried = outboxOf(2, { attempts: 2 });
    tried.outbox.connectionLost(true);
    tried.outbox.dropUndeliverable(() => new Error("nobody there"));
    expect(tried.settled).toEqual([]);
    tried.outbox.connectionLost(true);
    tried.outbox.dropUndeliverable(() => new Error("nobody there"));
    expect(tried.settled).toEqual(["1 nobody there", "2 nobody there"]);
  });

  test("puts what a session begins with before all else, and drops what was of the last one", () => {
    const { outbox, requests, settled } = outboxOf(2);
    outbox.add({ ...(requests[0] as Request), id: "3", isOfSession: true });
    outbox.begin(() => outbox.add({ ...(requests[0] as Request), id: "4" }));
    expect(idsOf(outbox.take("client"))).toEqual(["4", "1", "2"]);
    expect(settled).toEqual([]);
  });

  test("gives up all at the end, but what was of the session", () => {
    const { outbox, requests, settled } = outboxOf(2);
    outbox.take("client");
    outbox.answered("2");
    outbox.add(requests[1] as Request);
    outbox.add({ ...(requests[0] as Request), id: "3", isOfSession: true });
    outbox.end(new Error("over"));
    expect(settled).toEqual(["1 over", "2 over"]);
    expect(outbox.isWaiting).toBe(false);
  });
});
