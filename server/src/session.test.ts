import { setTimeout as delay } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import {
  type Encoder,
  type EndReason,
  type Outcome,
  Session,
  type SessionLimits,
} from "./session.js";
import {
  Batch,
  type CloseReason,
  type PushConnection,
  type Receiver,
  type TransportKind,
} from "./transports/transport.js";
import { Unconfirmed } from "./transports/unconfirmed.js";

const encoder: Encoder = {
  event: ({ id }) => id,
  subscriptionEnded: () => "ended",
  join: (messages) => messages.join(" "),
};

const limits: SessionLimits = { expiryMs: 60_000, outboxMessages: 100, outboxBytes: 1_000 };

/** A connection whose kernel takes what it is told to take. */
class Wire implements PushConnection {
  readonly kind: TransportKind = "websocket";
  readonly written: string[] = [];
  readonly closed: CloseReason[] = [];
  isCut = false;
  private readonly unconfirmed = new Unconfirmed(null);

  deliver(batch: Batch, receiver: Receiver): void {
    this.written.push(...batch.messages);
    this.unconfirmed.add(batch, receiver);
  }

  handOver(batches: readonly Batch[], receiver: Receiver): void {
    for (const batch of batches) this.deliver(batch, receiver);
  }

  /** The kernel took the oldest `count` writes. */
  takes(count: number): this {
    for (let i = 0; i < count; i++) this.unconfirmed.confirm();
    return this;
  }

  flushed(): Promise<void> {
    return Promise.resolve();
  }

  release(receiver: Receiver): readonly string[] {
    const messages = this.unconfirmed.take(receiver);
    this.isCut ||= messages.length > 0;
    return messages;
  }

  close(reason: CloseReason): void {
    this.closed.push(reason);
  }

  /** As a transport does when its socket is gone. */
  dies(session: Session): void {
    session.forget(this);
    session.detach(this);
    this.unconfirmed.putBackAll();
  }
}

interface Tested {
  readonly session: Session;
  readonly ends: EndReason[];
}

function start(changes: Partial<SessionLimits> = {}): Tested {
  const ends: EndReason[] = [];
  const session = new Session(
    "client",
    encoder,
    undefined,
    { ...limits, ...changes },
    {
      subscribe: () => ({ isNew: true }),
      unsubscribe: () => undefined,
      ended: (_, why) => ends.push(why),
    },
  );
  return { session, ends };
}

const deliver = (session: Session, ...messages: string[]): void =>
  session.deliver(new Batch(messages, encoder.join));

interface Answered {
  /** One entry for each answer; a held connect must have exactly one. */
  readonly answers: (readonly string[])[];
  lost(): void;
}

function hold(session: Session, holdMs = 60_000, source: object = {}): Answered {
  const answers: (readonly string[])[] = [];
  let onLost = (): void => undefined;
  session.hold(
    {
      source,
      answer: (events, _sent, outcome) => {
        answers.push(events);
        onLost = () => outcome(false);
      },
      refuse: (error) => {
        throw error;
      },
    },
    holdMs,
  );
  return { answers, lost: () => onLost() };
}

describe("an answer that is on its way by another node", () => {
  /** As an owner does it: whether the answer arrived is known when `settle` was called. */
  function holdElsewhere(session: Session): (hasArrived: boolean) => void {
    let settle: (hasArrived: boolean) => void = () => undefined;
    const told = new Promise<boolean>((resolve) => {
      settle = resolve;
    });
    const answer = (_: readonly string[], __: number | undefined, outcome: Outcome): void =>
      session.confirmBefore(told.then(outcome));
    session.hold({ source: {}, answer, refuse: () => undefined }, 60_000);
    return settle;
  }

  test.each([
    [false, ["1", "2", "3"]],
    [true, ["3"]],
  ])(
    "a connection pushes when it is known whether it arrived (%s), and comes in order",
    async (hasArrived, expected) => {
      const { session } = start();
      const settle = holdElsewhere(session);
      deliver(session, "1", "2");
      const wire = new Wire();
      session.attach(wire);
      deliver(session, "3");
      expect(wire.written).toEqual([]);
      settle(hasArrived);
      await expect.poll(() => wire.written).toEqual(expected);
      deliver(session, "4");
      expect(wire.written).toEqual([...expected, "4"]);
    },
  );

  test("[CON-7] who connects meanwhile is not forgotten, however long it takes", async () => {
    const { session, ends } = start({ expiryMs: 300 });
    const settle = holdElsewhere(session);
    deliver(session, "1");
    const begin = performance.now();
    let last = hold(session, 0);
    while (performance.now() - begin < 900) {
      await delay(20);
      last = hold(session, 0);
    }
    expect(ends).toEqual([]);
    settle(false);
    await expect.poll(() => last.answers).toHaveLength(1);
    session.end("disconnect");
  });

  test("a connection that is lost meanwhile pushes nothing, and one that is not is closed with the session", async () => {
    const { session } = start();
    const settle = holdElsewhere(session);
    deliver(session, "1");
    const [lost, wire] = [new Wire(), new Wire()];
    session.attach(lost);
    lost.dies(session);
    session.attach(wire);
    session.end("expiry");
    expect([lost.closed, wire.closed]).toEqual([[], ["normal"]]);
    settle(false);
    await session.settled();
    expect([...lost.written, ...wire.written]).toEqual([]);
  });
});

describe("a held connect", () => {
  test("is answered with what comes, and with what waited", () => {
    const { session } = start();
    const first = hold(session);
    expect(first.answers).toEqual([]);
    deliver(session, "1", "2");
    expect(first.answers).toEqual([["1", "2"]]);
    deliver(session, "3");
    deliver(session, "4");
    expect(hold(session).answers).toEqual([["3", "4"]]);
  });

  test("is answered without events after its time, and at once when that is nothing", async () => {
    const { session } = start();
    expect(hold(session, 0).answers).toEqual([[]]);
    const answered = hold(session, 10);
    await expect.poll(() => answered.answers, { timeout: 2_000 }).toEqual([[]]);
  });

  test("is answered when a newer one supersedes it, when another connection dies, and at the end", () => {
    const { session } = start();
    const first = hold(session);
    const second = hold(session);
    expect([first.answers, second.answers]).toEqual([[[]], []]);
    const wire = new Wire();
    session.attach(wire);
    wire.dies(session);
    expect(second.answers).toEqual([[]]);
    const third = hold(session);
    session.end("disconnect");
    expect(third.answers).toEqual([[]]);
    expect(hold(session).answers).toEqual([[]]);
  });

  test("waits aside while a connection pushes", () => {
    const { session } = start();
    const wire = new Wire();
    session.attach(wire);
    const held = hold(session);
    deliver(session, "1");
    expect([wire.written, held.answers]).toEqual([["1"], []]);
  });

  test("whose request is gone takes nothing with it", () => {
    const { session } = start();
    const source = {};
    const gone = hold(session, 60_000, source);
    session.forget(source);
    deliver(session, "1");
    expect(gone.answers).toEqual([]);
    expect(hold(session).answers).toEqual([["1"]]);
  });

  test("whose answer did not arrive puts it back in front of what came later, once", () => {
    const { session } = start();
    const first = hold(session);
    deliver(session, "1", "2");
    deliver(session, "3");
    first.lost();
    expect(hold(session).answers).toEqual([["1", "2", "3"]]);
    expect(hold(session, 0).answers).toEqual([[]]);
  });

  test("whose answer was lost gives it to the connect that is held meanwhile", () => {
    const { session } = start();
    const first = hold(session);
    deliver(session, "1");
    const second = hold(session);
    first.lost();
    expect(second.answers).toEqual([["1"]]);
  });

  test("whose answer was lost gives it to the connection that pushes meanwhile, and a dead session drops it", () => {
    const { session } = start();
    const first = hold(session);
    deliver(session, "1");
    const wire = new Wire();
    session.attach(wire);
    first.lost();
    expect(wire.written).toEqual(["1"]);
    session.end("disconnect");
    first.lost();
    expect(wire.written).toEqual(["1"]);
  });
});

describe("connections", () => {
  test("a new one begins with all that waited", () => {
    const { session } = start();
    deliver(session, "1");
    deliver(session, "2", "3");
    const wire = new Wire();
    session.attach(wire);
    deliver(session, "4");
    expect(wire.written).toEqual(["1", "2", "3", "4"]);
    session.attach(wire);
    expect(wire.written).toEqual(["1", "2", "3", "4"]);
  });

  test("what a dead one had not written goes in front of what came since", () => {
    const { session } = start();
    const wire = new Wire();
    session.attach(wire);
    for (const message of ["1", "2", "3"]) deliver(session, message);
    wire.takes(1).dies(session);
    deliver(session, "4");
    expect(hold(session).answers).toEqual([["2", "3", "4"]]);
  });

  test("moving from a stuck one takes along what it had not written, and cuts it", () => {
    const { session } = start();
    const [stuck, next] = [new Wire(), new Wire()];
    session.attach(stuck);
    for (const message of ["1", "2", "3"]) deliver(session, message);
    stuck.takes(1);
    session.attach(next);
    deliver(session, "4");
    expect([next.written, stuck.isCut]).toEqual([["2", "3", "4"], true]);
    // Its late end concerns nobody any more. [T7]
    stuck.dies(session);
    deliver(session, "5");
    expect(next.written).toEqual(["2", "3", "4", "5"]);
  });

  test("moving from one that had written all leaves it open", () => {
    const { session } = start();
    const [first, next] = [new Wire(), new Wire()];
    session.attach(first);
    deliver(session, "1");
    first.takes(1);
    session.attach(next);
    expect([next.written, first.isCut, first.closed]).toEqual([[], false, []]);
  });

  test("a draining one keeps what it still may write until another way opens", () => {
    const { session } = start();
    const [slow, next] = [new Wire(), new Wire()];
    session.attach(slow);
    for (const message of ["1", "2", "3"]) deliver(session, message);
    session.detach(slow, true);
    deliver(session, "4");
    slow.takes(2);
    session.attach(next);
    expect([next.written, slow.isCut]).toEqual([["3", "4"], true]);
  });

  test("a draining one is asked by a connect too, and only once", () => {
    const { session } = start();
    const slow = new Wire();
    session.attach(slow);
    deliver(session, "1");
    session.detach(slow, true);
    deliver(session, "2");
    expect(hold(session).answers).toEqual([["1", "2"]]);
    slow.dies(session);
    expect(hold(session, 0).answers).toEqual([[]]);
  });

  test("a draining one that dies by itself puts back what it could not write", () => {
    const { session } = start();
    const slow = new Wire();
    session.attach(slow);
    for (const message of ["1", "2"]) deliver(session, message);
    session.detach(slow, true);
    deliver(session, "3");
    slow.takes(1).dies(session);
    expect(hold(session).answers).toEqual([["2", "3"]]);
  });
});

describe("the end", () => {
  test("comes once, closes the connection, and nothing is kept after it", () => {
    const { session, ends } = start();
    const wire = new Wire();
    session.attach(wire);
    session.end("disconnect");
    session.end("expiry");
    deliver(session, "1");
    session.putBack(["2"]);
    expect([ends, wire.closed, wire.written]).toEqual([["disconnect"], ["normal"], []]);
    const late = new Wire();
    session.attach(late);
    expect([late.written, session.connection]).toEqual([[], undefined]);
  });

  test("comes by itself when no connect comes in time; each connect defers it", async () => {
    const { session, ends } = start({ expiryMs: 600 });
    const begin = performance.now();
    for (let i = 0; i < 2; i++) {
      const { answers } = hold(session, 350);
      await expect.poll(() => answers, { timeout: 2_000, interval: 5 }).toEqual([[]]);
    }
    expect([ends, performance.now() - begin > 600]).toEqual([[], true]);
    await expect.poll(() => ends, { timeout: 2_000 }).toEqual(["expiry"]);
  });

  test.each([
    { what: "too many messages", changes: { outboxMessages: 3 }, text: "1" },
    { what: "too many bytes", changes: { outboxBytes: 3 }, text: "1" },
    { what: "one message that is too large", changes: { outboxBytes: 5 }, text: "123456" },
  ])("comes when $what wait", ({ changes, text }) => {
    const { session, ends } = start(changes);
    if (text === "1") {
      for (let i = 0; i < 3; i++) deliver(session, text);
      expect(ends).toEqual([]);
    }
    deliver(session, text);
    expect(ends).toEqual(["overflow"]);
  });

  test("what is put back counts against the limit as well", () => {
    const { session, ends } = start({ outboxMessages: 3 });
    const wire = new Wire();
    session.attach(wire);
    for (const message of ["1", "2", "3", "4"]) deliver(session, message);
    expect(ends).toEqual([]);
    wire.dies(session);
    expect(ends).toEqual(["overflow"]);
  });

  test("a held connect takes a turn's messages even when they are more than may wait", () => {
    const { session, ends } = start({ outboxMessages: 3 });
    const { answers } = hold(session);
    deliver(session, "1", "2", "3", "4");
    expect([answers, ends]).toEqual([[["1", "2", "3", "4"]], []]);
  });
});
