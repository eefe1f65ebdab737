export type {
  ClientOptions,
  Extension,
  FayeExtension,
  MessagesOptions,
  Pass,
  ProxyOptions,
  PublishOptions,
  ReceivedMessage,
  Signal,
} from "./client.js";
export { Publication } from "./client.js";
export { type ErrorReason, PandapushError } from "./error.js";
export type { ClientEvents, ClientState } from "./events.js";
export type { ConnectionType, Message } from "./message.js";
export { type PresenceEvents, type PresenceMember, PresenceRoom } from "./presence.js";
export { Scheduler, type SchedulerOptions } from "./scheduler.js";
export {
  type MessageListener,
  Subscription,
  type SubscriptionEvents,
  type SubscriptionState,
  type TokenSource,
} from "./subscription.js";
export { VERSION } from "./version.js";
