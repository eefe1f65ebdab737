/** What the live console hears: subscriptions, and the messages that came by them. */
import type { PresenceRoom, Subscription } from "pandapush-client";
import { jsonOf } from "../ui/json.js";
import type { Feed } from "./feed.js";

/** Older messages are dropped. */
const maxMessages = 500;

/** Characters of all messages together; the newest is kept whatever its size. */
const maxCharacters = 8_000_000;

const showEveryMs = 100;

export interface Heard {
  readonly number: number;
  /** In ms since 1970. */
  readonly at: number;
  readonly channel: string;
  /** JSON in one line, or what the console has to say. */
  readonly text: string;
  readonly isRemark: boolean;
}

export interface Ear {
  readonly channel: string;
  readonly state: "pending" | "subscribed" | "refused";
  readonly problem?: string;
}

export interface ListeningState {
  readonly ears: readonly Ear[];
  /** Newest first. */
  readonly messages: readonly Heard[];
  readonly members: Readonly<Record<string, readonly Member[]>>;
  readonly isPaused: boolean;
  /** Came since the pause began. */
  readonly waiting: number;
  /** When something may have been missed, in ms since 1970. */
  readonly missedAt: number | undefined;
}

export interface Member {
  readonly id: string;
  readonly [claim: string]: unknown;
}

interface Open {
  readonly subscription: Subscription<unknown>;
  readonly room: PresenceRoom<Member> | undefined;
  readonly presenceId: string | undefined;
}

/** One page's listening. */
export class Listening {
  private state: ListeningState = {
    ears: [],
    messages: [],
    members: {},
    isPaused: false,
    waiting: 0,
    missedAt: undefined,
  };
  /** Oldest first; shown together, for a page that is drawn for each message cannot keep up. */
  private incoming: Heard[] = [];
  private incomingCharacters = 0;
  /** Presence channels whose members are to be shown anew. */
  private readonly changedRooms = new Set<string>();
  /** Came during a pause; newest first. */
  private held: Heard[] = [];
  private readonly open = new Map<string, Open>();
  private readonly listeners = new Set<() => void>();
  /** What came last in this turn. */
  private last: { channel: string; data: unknown; by: Set<string> } | undefined;
  private count = 0;
  private countAtPause = 0;
  private timer: ReturnType<typeof setTimeout> | undefined;

  constructor(private readonly feed: Feed) {}

  readonly subscribe = (listener: () => void): (() => void) => {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  };

  readonly snapshot = (): ListeningState => this.state;

  /**
   * Listens to these channels and patterns and no others.
   * @param presenceId who one is on presence channels
   */
  listenTo(channels: readonly string[], presenceId: string): void {
    for (const [channel, { presenceId: old }] of this.open) {
      const isSame = old === undefined || old === presenceId;
      if (!channels.includes(channel) || !isSame) this.close(channel);
    }
    for (const channel of channels) {
      if (!this.open.has(channel)) this.hear(channel, presenceId);
    }
  }

  /** Asks once more for what was refused. */
  retry(): void {
    const refused = this.state.ears.filter(({ state }) => state === "refused");
    for (const { channel } of refused) {
      const { presenceId = "" } = this.open.get(channel) ?? {};
      this.close(channel);
      this.hear(channel, presenceId);
    }
  }

  pause(isPaused: boolean): void {
    this.show();
    this.countAtPause = this.count;
    const messages = isPaused ? this.state.messages : newest(this.held, this.state.messages);
    this.held = [];
    this.change({ isPaused, messages, waiting: 0 });
  }

  clear(): void {
    this.take();
    this.held = [];
    this.countAtPause = this.count;
    this.change({ messages: [], waiting: 0, missedAt: undefined });
  }

  /** The person has seen that something may be missing. */
  forgive(): void {
    this.change({ missedAt: undefined });
  }

  end(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
    for (const channel of [...this.open.keys()]) this.close(channel);
  }

  private hear(channel: string, presenceId: string): void {
    const isRoom = isPresenceRoom(channel);
    const presence = isRoom ? { id: presenceId } : undefined;
    const token = () => this.feed.token(channel, { sub: true, ...(presence && { presence }) });
    const { client } = this.feed;
    const subscription = client.subscribeTo<unknown>(channel, token);
    subscription.withChannel((name, data) => this.add(channel, name, data));
    subscription
      .on("subscribed", () => this.mark({ channel, state: "subscribed" }))
      .on("resubscribed", () => this.mark({ channel, state: "subscribed" }))
      .on("gap", () => {
        this.remark(channel, "the connection was lost; messages may be missing here");
        this.change({ missedAt: Date.now() });
      })
      .on("refused", (error) => {
        const problem = [error.message, error.detail].filter(Boolean).join(". ");
        this.mark({ channel, state: "refused", problem });
        this.remark(channel, `refused: ${problem}`);
      });
    // Told by the event, but for a token that the server would not sign.
    subscription.catch((error: Error) =>
      this.mark({ channel, state: "refused", problem: error.message }),
    );
    const room = isRoom ? client.presence<Member>(channel, token) : undefined;
    if (room !== undefined) {
      const show = (): void => {
        this.changedRooms.add(channel);
        this.schedule();
      };
      room.on("sync", show).on("join", show).on("leave", show);
    }
    this.open.set(channel, { subscription, room, presenceId: isRoom ? presenceId : undefined });
    this.change({ ears: [...this.state.ears, { channel, state: "pending" }] });
  }

  private close(channel: string): void {
    const each = this.open.get(channel);
    each?.subscription.cancel();
    each?.room?.cancel();
    this.open.delete(channel);
    this.forgetMembers(channel);
    this.change({ ears: this.state.ears.filter((ear) => ear.channel !== channel) });
  }

  private forgetMembers(channel: string): void {
    const { [channel]: _, ...members } = this.state.members;
    this.change({ members });
  }

  private mark(ear: Ear): void {
    // Nobody is known to be there any more.
    if (ear.state === "refused") this.forgetMembers(ear.channel);
    this.change({ ears: this.state.ears.map((old) => (old.channel === ear.channel ? ear : old)) });
  }

  /** @param by what one listens to; a message that comes by several is one message */
  private add(by: string, channel: string, data: unknown): void {
    const last = this.last;
    // The client tells all who listen of a message before it goes on.
    if (last?.channel === channel && Object.is(last.data, data) && !last.by.has(by)) {
      last.by.add(by);
      return;
    }
    if (last === undefined) {
      setTimeout(() => {
        this.last = undefined;
      });
    }
    this.last = { channel, data, by: new Set([by]) };
    this.append({ channel, text: jsonOf(data), isRemark: false });
  }

  private remark(channel: string, text: string): void {
    this.append({ channel, text, isRemark: true });
  }

  private append(heard: Omit<Heard, "number" | "at">): void {
    this.keep({ ...heard, number: ++this.count, at: Date.now() });
    // Only the newest are shown: a flood need not be kept until then.
    const isMuch =
      this.incoming.length > 2 * maxMessages || this.incomingCharacters > 2 * maxCharacters;
    if (isMuch) for (const each of newest(this.take(), []).reverse()) this.keep(each);
    this.schedule();
  }

  private keep(heard: Heard): void {
    this.incoming.push(heard);
    this.incomingCharacters += heard.text.length;
  }

  /** @returns newest first */
  private take(): Heard[] {
    const taken = this.incoming.reverse();
    this.incoming = [];
    this.incomingCharacters = 0;
    return taken;
  }

  private schedule(): void {
    this.timer ??= setTimeout(() => this.show(), showEveryMs);
  }

  private show(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
    const rooms = [...this.changedRooms].flatMap((channel) => {
      const room = this.open.get(channel)?.room;
      return room === undefined ? [] : [[channel, [...room.members.values()]] as const];
    });
    this.changedRooms.clear();
    if (rooms.length > 0) {
      this.change({ members: { ...this.state.members, ...Object.fromEntries(rooms) } });
    }
    const incoming = this.take();
    if (this.state.isPaused) {
      this.held = newest(incoming, this.held);
      this.change({ waiting: this.count - this.countAtPause });
    } else if (incoming.length > 0) {
      this.change({ messages: newest(incoming, this.state.messages) });
    }
  }

  private change(change: Partial<ListeningState>): void {
    this.state = { ...this.state, ...change };
    for (const listener of this.listeners) listener();
  }
}

/** Those that are kept, newest first. */
function newest(first: readonly Heard[], then: readonly Heard[]): Heard[] {
  const kept: Heard[] = [];
  let characters = 0;
  for (const each of [...first, ...then]) {
    characters += each.text.length;
    if (kept.length > 0 && (kept.length === maxMessages || characters > maxCharacters)) break;
    kept.push(each);
  }
  return kept;
}

/** One joins it, under a presence id; a pattern of rooms one only hears. */
export function isPresenceRoom(channel: string): boolean {
  return /^\/[^/]+\/presence\//.test(channel) && !channel.endsWith("*");
}
