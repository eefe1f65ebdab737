/**
 * Which nodes live. Each keeps a lease on every Redis host, and renews it all the time.
 *
 * A node is dead when its lease has run out on all hosts that can be reached; nobody is declared
 * dead until a host has been back for one lease period. Whoever is declared dead is fenced: the
 * scripts refuse what it writes afterwards, so that it cannot come back as the one it was.
 */
import type { MaybePromise } from "../maybe-promise.js";

/** What a node knows of itself and the others. */
export interface Membership {
  /** This node's own id: another one after it was declared dead. `[a-z0-9]` */
  readonly id: string;
  /** All that live and do not leave, this one included; sorted. */
  readonly nodes: readonly string[];
  /**
   * Whether the node lives, as far as known; a node that leaves lives until it has left. One that
   * started a moment ago may not be known yet.
   * @throws Refusal `brokerUnavailable` when that cannot be known: no host can be reached
   */
  isAlive(nodeId: string): MaybePromise<boolean>;
  /**
   * To be waited for before anything is done in the name of this node: when it stood still for
   * longer than its lease, the others may have declared it dead, and it has to find out first.
   * Nothing to wait for, nearly always. Does not wait for hosts that are down.
   */
  verified(): MaybePromise<void>;
}

/** Told of what changes. */
export interface MembershipHandler {
  /** Another node was declared dead, by whichever node; told once for each. */
  died(nodeId: string): void;
  /** This node was declared dead: whatever it held is lost. It has another id already. */
  lost(): void;
}
