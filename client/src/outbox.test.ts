import { describe, expect, test } from "vitest";
import type { PandapushError } from "./error.js";
import type { Message } from "./message.js";
import { Outbox, type Request } from "./outbox.js";
import { Scheduler } from "./scheduler.js";

/** Requests with the ids 1, 2, …, and what became of them. */
function outboxOf(count: number, options: { attempts?: number; interval?: number } = {}) {
  const outbox = new Outbox();
  const settled: string[] = [];
  const requests = Array.from({ length: count }, (_, index): Request => {
    const message: Message = { channel: "/a", id: String(index + 1) };
    const scheduler = new Scheduler(message, { timeout: 10, interval: 0, ...options });
    const settle = (_reply: unknown, error: PandapushError | undefined) =>
      settled.push(`${message.id} ${error?.reason}`);
    return { message, scheduler, settle };
  });
  for (const request of requests) outbox.add(request);
  return { outbox, requests, settled };
}

const idsOf = (messages: readonly Message[]) => messages.map(({ id }) => id);

describe("an outbox", () => {
  test("gives what it holds in order, once, with the session's id", () => {
    const { outbox } = outboxOf(3);
    expect(outbox.isWaiting).toBe(false);
    const taken = outbox.take("client");
    expect(idsOf(taken)).toEqual(["1", "2", "3"]);
    expect(taken.map(({ clientId }) => clientId)).toEqual(["client", "client", "client"]);
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
    outbox.add({ ...(requests[1] as Request), message: { channel: "/a", id: "4" } });
    outbox.connectionLost(false);
    expect(outbox.isWaiting).toBe(false);
    expect(idsOf(outbox.take("client"))).toEqual(["1", "3", "4"]);
  });

  test("does not send again what was taken back, nor handshakes and connects", () => {
    const { outbox, requests } = outboxOf(3);
    outbox.takeBack(requests[0] as Request);
    expect(idsOf(outbox.take("client"))).toEqual(["2", "3"]);
    outbox.takeBack(requests[1] as Request);
    outbox.sent({ message: { channel: "/meta/connect", id: "c" }, settle: () => {}, dueAt: 0 });
    expect(outbox.isOverdue(1)).toBe(true);
    outbox.connectionLost(false);
    expect(idsOf(outbox.take("client"))).toEqual(["3"]);
  });

  test("lets wait what must, and all that is behind", () => {
    const { outbox } = outboxOf(2, { interval: 60 });
    outbox.take("client");
    outbox.connectionLost(false);
    for (const request of outboxOf(1).requests) outbox.add(request);
    expect(outbox.take("client")).toEqual([]);
  });

  test("puts back in order what the server did not do", () => {
    const { outbox, requests } = outboxOf(3);
    outbox.take("client");
    for (const id of ["3", "1", "2"]) {
      outbox.answered(id);
      outbox.putBack(requests[Number(id) - 1] as Request);
    }
    expect(idsOf(outbox.take("client"))).toEqual(["1", "2", "3"]);
  });

  test("gives up what was sent or tried as often as it may be", () => {
    const sent = outboxOf(2, { attempts: 1 });
    sent.outbox.take("client");
    sent.outbox.answered("1");
    sent.outbox.connectionLost(false);
    sent.outbox.dropUndeliverable("lost");
    expect(sent.settled).toEqual(["2 undelivered"]);
    const tried = outboxOf(2, { attempts: 2 });
    tried.outbox.connectionLost(true);
    tried.outbox.dropUndeliverable("nobody there");
    expect(tried.settled).toEqual([]);
    tried.outbox.connectionLost(true);
    tried.outbox.dropUndeliverable("nobody there");
    expect(tried.settled).toEqual(["1 undelivered", "2 undelivered"]);
  });

  test("puts what a session begins with before all else, and drops what was of the last one", () => {
    const { outbox, requests, settled } = outboxOf(2);
    outbox.add({
      ...(requests[0] as Request),
      message: { channel: "/b", id: "3" },
      isOfSession: true,
    });
    const first = { ...(requests[0] as Request), message: { channel: "/c", id: "4" } };
    outbox.begin(true, () => outbox.add(first));
    expect(idsOf(outbox.take("client"))).toEqual(["4", "1", "2"]);
    expect(settled).toEqual([]);
  });

  test("gives up all at the end", () => {
    const { outbox, requests, settled } = outboxOf(2);
    outbox.take("client");
    outbox.answered("2");
    outbox.putBack(requests[1] as Request);
    outbox.end("over");
    expect(settled).toEqual(["1 disconnected", "2 disconnected"]);
    expect(outbox.isWaiting).toBe(false);
  });
});
