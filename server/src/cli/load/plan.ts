/** What the processes of a load test tell each other. */
import type { PackedFigures, Sent } from "./figures.js";

export interface Plan {
  readonly url: string;
  readonly keyId: string;
  readonly keySecret: string;
  readonly transport: "websocket" | "long-polling";
  /** Each user's own channel is this with its number behind it. */
  readonly ownChannels: string;
  readonly sharedChannel: string;
  /** Bytes of a message's data, about. */
  readonly size: number;
  /** How long the users' connections take to be opened, in ms; 0: as fast as it goes. */
  readonly rampMs: number;
  readonly isOwnHeard: boolean;
  readonly isSharedHeard: boolean;
}

/** What one process does of it. */
export interface Share {
  /** Number of its first user. */
  readonly first: number;
  readonly users: number;
  /** Publishes to the own channels of its users, in turn, and how many a second. */
  readonly own: Pushes;
  readonly shared: Pushes;
}

export interface Pushes {
  readonly count: number;
  readonly perSecond: number;
}

/** When the channel between them is closed, a process ends. */
export type ToWorker =
  | { readonly type: "open"; readonly plan: Plan; readonly share: Share }
  | { readonly type: "publish" }
  /** Nothing more is opened or published. */
  | { readonly type: "stop" }
  /** Everything is published; `shared` is what every user was to hear. */
  | { readonly type: "settle"; readonly shared: Sent };

export type FromWorker =
  | { readonly type: "figures"; readonly figures: PackedFigures }
  /** All users have a connection, or failed. */
  | { readonly type: "opened" }
  | { readonly type: "published"; readonly shared: Sent }
  /** What will come has come. */
  | { readonly type: "settled"; readonly expected: number; readonly lost: number };
