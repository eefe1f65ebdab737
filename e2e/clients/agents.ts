/**
 * Agents: each operates one stock JavaScript client on command and reports what it sees.
 *
 * They run beside the client, in Node or in a page. For the page they are sent as the text of the
 * function, so each must stand alone: no imports but types, no names from outside.
 */
import type { Auth, Command, Report } from "./client.js";

/** A Bayeux message as a client's extension sees it. */
export interface BayeuxMessage {
  channel: string;
  clientId?: string;
  connectionType?: string;
  data?: unknown;
  error?: string;
  ext?: { auth?: Auth; presence?: unknown };
  /** CometD's own note on a message that was not answered. */
  failure?: { reason?: string };
  subscription?: unknown;
  successful?: boolean;
}

interface FayeExtension {
  incoming?(message: BayeuxMessage, callback: (message: BayeuxMessage) => void): void;
  outgoing?(message: BayeuxMessage, callback: (message: BayeuxMessage) => void): void;
}

interface FayePromise {
  then(fulfilled: () => void, rejected: (error: { message: string }) => void): unknown;
}

/** The part of `Faye.Client` that every release from 1.1 to 1.4 has. */
export interface FayeClient {
  addExtension(extension: FayeExtension): void;
  disable(transport: string): void;
  disconnect(): unknown;
  publish(channel: string, data: unknown): FayePromise;
  subscribe(channel: string, listener: (data: unknown) => void): FayePromise;
  unsubscribe(channel: string): void;
}

/** What npm `pandapush-client` 1.0.0 offers. */
export interface PandapushClient {
  addExtension(extension: FayeExtension): void;
  subscribe(channel: string, listener: (data: unknown) => void): FayePromise;
  subscribe(channel: string, token: string, listener: (data: unknown) => void): FayePromise;
  subscribe(
    channel: string,
    token: string,
    presence: { id: string },
    listener: (data: unknown) => void,
  ): FayePromise;
  unsubscribe(channel: string): void;
}

/** The part of CometD's client that the agent uses. */
export interface CometdClient {
  addListener(channel: string, listener: (message: BayeuxMessage) => void): unknown;
  disconnect(answered: (message: BayeuxMessage) => void): void;
  handshake(): void;
  publish(
    channel: string,
    data: unknown,
    fields: object,
    answered: (message: BayeuxMessage) => void,
  ): void;
  registerExtension(
    name: string,
    extension: {
      incoming(message: BayeuxMessage): { channel: string };
      outgoing(message: BayeuxMessage): { channel: string };
    },
  ): boolean;
  subscribe(
    channel: string,
    listener: (message: BayeuxMessage) => void,
    fields: object,
    answered: (message: BayeuxMessage) => void,
  ): unknown;
  unsubscribe(handle: unknown, answered: (message: BayeuxMessage) => void): void;
}

type Agent = (command: Command) => void;

/** Credentials travel as Faye's documents advise: an extension puts them into `ext.auth`. */
export function fayeAgent(client: FayeClient, report: (report: Report) => void): Agent {
  const subscribeAuth = new Map<string, Auth>();
  const publishAuth = new Map<string, Auth>();
  const unsubscribes = new Map<string, number>();
  let disconnectCall = 0;

  client.addExtension({
    outgoing(message, callback) {
      if (message.channel === "/meta/connect") {
        report({ kind: "connecting", connectionType: message.connectionType ?? "" });
      }
      const auth =
        message.channel === "/meta/subscribe"
          ? subscribeAuth.get(String(message.subscription))
          : publishAuth.get(message.channel);
      if (auth !== undefined) message.ext = { ...message.ext, auth };
      callback(message);
    },
    incoming(message, callback) {
      if (message.channel === "/meta/subscribe" && message.successful) {
        report({
          kind: "subscribed",
          pattern: String(message.subscription),
          presence: message.ext?.presence,
        });
      } else if (message.channel === "/meta/unsubscribe") {
        const call = unsubscribes.get(String(message.subscription)) ?? 0;
        report({ kind: "answer", call, ...(message.error && { error: message.error }) });
      } else if (message.channel === "/meta/disconnect") {
        report({
          kind: "answer",
          call: disconnectCall,
          ...(message.error && { error: message.error }),
        });
      } else if (message.successful === undefined) {
        report({ kind: "event", channel: message.channel, data: message.data, ext: message.ext });
      }
      callback(message);
    },
  });

  return (command) => {
    const { call } = command;
    const done = () => report({ kind: "answer", call });
    const failed = (error: { message: string }) =>
      report({ kind: "answer", call, error: error.message });
    switch (command.name) {
      case "subscribe":
        if (command.auth) subscribeAuth.set(command.pattern, command.auth);
        else subscribeAuth.delete(command.pattern);
        client
          .subscribe(command.pattern, (data) => report({ kind: "heard", call, data }))
          .then(done, failed);
        return;
      case "unsubscribe":
        unsubscribes.set(command.pattern, call);
        client.unsubscribe(command.pattern);
        return;
      case "publish":
        if (command.auth) publishAuth.set(command.channel, command.auth);
        else publishAuth.delete(command.channel);
        client.publish(command.channel, command.data).then(done, failed);
        return;
      case "disconnect":
        disconnectCall = call;
        client.disconnect();
        return;
    }
  };
}

/** `pandapush-client` takes tokens itself; it can neither publish nor disconnect. */
export function pandapushAgent(client: PandapushClient, report: (report: Report) => void): Agent {
  const unsubscribes = new Map<string, number>();

  client.addExtension({
    outgoing(message, callback) {
      if (message.channel === "/meta/connect") {
        report({ kind: "connecting", connectionType: message.connectionType ?? "" });
      }
      callback(message);
    },
    incoming(message, callback) {
      if (message.channel === "/meta/subscribe" && message.successful) {
        report({
          kind: "subscribed",
          pattern: String(message.subscription),
          presence: message.ext?.presence,
        });
      } else if (message.channel === "/meta/unsubscribe") {
        const call = unsubscribes.get(String(message.subscription)) ?? 0;
        report({ kind: "answer", call, ...(message.error && { error: message.error }) });
      } else if (message.successful === undefined) {
        report({ kind: "event", channel: message.channel, data: message.data, ext: message.ext });
      }
      callback(message);
    },
  });

  return (command) => {
    const { call } = command;
    const done = () => report({ kind: "answer", call });
    const failed = (error: { message: string }) =>
      report({ kind: "answer", call, error: error.message });
    if (command.name === "subscribe") {
      const listener = (data: unknown) => report({ kind: "heard", call, data });
      const subscription =
        command.auth && "token" in command.auth
          ? client.subscribe(command.pattern, command.auth.token, listener)
          : client.subscribe(command.pattern, listener);
      subscription.then(done, failed);
    } else if (command.name === "unsubscribe") {
      unsubscribes.set(command.pattern, call);
      client.unsubscribe(command.pattern);
    } else {
      failed({ message: `pandapush-client cannot ${command.name}` });
    }
  };
}

/**
 * CometD forgets its subscriptions when it handshakes again; applications subscribe in their
 * `/meta/handshake` listener, and so does the agent.
 */
export function cometdAgent(client: CometdClient, report: (report: Report) => void): Agent {
  interface Wanted {
    readonly pattern: string;
    readonly auth: Auth | undefined;
    readonly call: number;
    handle: unknown;
  }
  const wanted = new Set<Wanted>();
  let handshakes = 0;

  const subscribe = (item: Wanted, answered: (message: BayeuxMessage) => void) => {
    item.handle = client.subscribe(
      item.pattern,
      (message) => report({ kind: "heard", call: item.call, data: message.data }),
      item.auth ? { ext: { auth: item.auth } } : {},
      answered,
    );
  };

  client.registerExtension("conformance", {
    outgoing(message) {
      if (message.channel === "/meta/connect") {
        report({ kind: "connecting", connectionType: message.connectionType ?? "" });
      }
      return message;
    },
    incoming(message) {
      if (message.channel === "/meta/subscribe" && message.successful) {
        report({
          kind: "subscribed",
          pattern: String(message.subscription),
          presence: message.ext?.presence,
        });
      } else if (message.successful === undefined) {
        report({ kind: "event", channel: message.channel, data: message.data, ext: message.ext });
      }
      return message;
    },
  });

  client.addListener("/meta/handshake", (message) => {
    if (!message.successful) return;
    handshakes += 1;
    if (handshakes === 1) return;
    for (const item of wanted) subscribe(item, () => undefined);
  });

  client.handshake();

  return (command) => {
    const { call } = command;
    const answered = (message: BayeuxMessage) =>
      report(
        message.successful
          ? { kind: "answer", call }
          : {
              kind: "answer",
              call,
              error: message.error ?? `no reply: ${message.failure?.reason}`,
            },
      );
    switch (command.name) {
      case "subscribe": {
        const item: Wanted = {
          pattern: command.pattern,
          auth: command.auth,
          call,
          handle: undefined,
        };
        subscribe(item, (message) => {
          if (message.successful) wanted.add(item);
          answered(message);
        });
        return;
      }
      case "unsubscribe": {
        const items = [...wanted].filter((item) => item.pattern === command.pattern);
        for (const item of items) wanted.delete(item);
        const last = items.pop();
        for (const item of items) client.unsubscribe(item.handle, () => undefined);
        client.unsubscribe(last?.handle, answered);
        return;
      }
      case "publish":
        client.publish(
          command.channel,
          command.data,
          command.auth ? { ext: { auth: command.auth } } : {},
          answered,
        );
        return;
      case "disconnect":
        client.disconnect((message) => {
          // When its next connect is told first that the session is over, CometD stops waiting.
          const isOver = message.failure?.reason === "abort";
          if (isOver) report({ kind: "answer", call });
          else answered(message);
        });
        return;
    }
  };
}
