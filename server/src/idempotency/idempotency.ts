/** Requests that are sent again are done once: REST-13. */
import { createHash } from "node:crypto";
import type { AppId, KeyId } from "@pandapush/protocol";
import { Refusal } from "../errors.js";
import type { MaybePromise } from "../maybe-promise.js";

/** How long an answer is remembered. */
export const rememberMs = 5 * 60_000;
/** How long a request may be under way before another may be done in its place: its node is dead. */
export const leaseMs = 30_000;
/** How long a repetition waits for the first one's answer. */
const waitMs = 10_000;

/** What names a request, and what tells it from others of that name. */
export interface Named {
  readonly appId: AppId;
  /** Names of different keys have nothing to do with each other. */
  readonly keyId: KeyId;
  /** What its sender calls it. */
  readonly name: string;
  /** The (first) channel that it publishes to: its record stands where the channel does. */
  readonly channel: string;
  /** Of all that it asks for; see `fingerprint`. */
  readonly fingerprint: string;
}

export interface Outcome {
  readonly text: string;
  /** Whether a repetition is answered with it; else it goes on from there. */
  readonly isFinal: boolean;
}

/** How a request stands. */
export type Claim =
  | { readonly state: "done"; readonly text: string }
  /** Somebody else is at it. */
  | {
      readonly state: "pending";
      /** Resolves when it is worth to look again. */
      readonly changed: Promise<unknown>;
    }
  /** Another request had this name. */
  | { readonly state: "different" }
  | {
      readonly state: "mine";
      /** How far somebody came who did not come to the end. */
      readonly earlier?: string;
      /**
       * Ends the claim; without an outcome it is as if it had never been.
       * Never fails: whoever did the work is not to suffer from it.
       */
      settle(outcome: Outcome | undefined): MaybePromise<void>;
    };

/** Remembers requests and their outcomes for a while. */
export interface Idempotency {
  /**
   * Of all who claim the same request at once, on whatever node, one gets it.
   * @throws Refusal brokerUnavailable
   */
  claim(request: Named): MaybePromise<Claim>;
}

export interface IdempotencyTimes {
  readonly rememberMs: number;
  readonly leaseMs: number;
}

/**
 * Does `work` unless it was done; who comes while it is under way waits for its outcome. What
 * fails is not remembered: the next one does it.
 *
 * @param work gets the text of an outcome that was not final
 * @throws Refusal idempotencyConflict, unavailable when waiting takes too long, brokerUnavailable;
 * and what `work` throws
 */
export async function once(
  idempotency: Idempotency,
  request: Named,
  work: (earlier: string | undefined) => Promise<Outcome>,
): Promise<{ readonly text: string; readonly isRepeated: boolean }> {
  const deadline = performance.now() + waitMs;
  for (;;) {
    const claim = await idempotency.claim(request);
    switch (claim.state) {
      case "different":
        throw new Refusal("idempotencyConflict");
      case "done":
        return { text: claim.text, isRepeated: true };
      case "pending":
        await waitFor(claim.changed, deadline);
        break;
      case "mine": {
        let outcome: Outcome | undefined;
        try {
          outcome = await work(claim.earlier);
        } finally {
          await claim.settle(outcome);
        }
        return { text: outcome.text, isRepeated: false };
      }
    }
  }
}

/** @throws Refusal unavailable */
async function waitFor(changed: Promise<unknown>, deadline: number): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_resolve, reject) => {
    const detail = "The first request with this Idempotency-Key is still under way.";
    const refusal = new Refusal("unavailable", [], detail);
    timer = setTimeout(reject, deadline - performance.now(), refusal);
  });
  try {
    await Promise.race([changed, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** The same for the same texts only, and short. */
export function fingerprint(...texts: readonly string[]): string {
  const hash = createHash("sha256");
  // Each behind its length, so that no two lists run into the same text.
  for (const text of texts) hash.update(`${text.length}:`).update(text);
  return hash.digest("base64url").slice(0, 22);
}

/** What `Idempotency-Key` may be: 1 to 255 characters of visible ASCII. */
const namePattern = /^[!-~]{1,255}$/;

/**
 * @param header `Idempotency-Key` of a request
 * @throws Refusal invalidIdempotencyKey
 */
export function readName(header: string | readonly string[] | undefined): string | undefined {
  if (header === undefined) return undefined;
  if (typeof header !== "string" || !namePattern.test(header)) {
    throw new Refusal("invalidIdempotencyKey");
  }
  return header;
}
