export type {
  ClientEvents,
  ClientOptions,
  Extension,
  FayeExtension,
  MessagesOptions,
  Pass,
  PublishOptions,
  ReceivedMessage,
} from "./client.js";
export { Publication } from "./client.js";
export { type ErrorReason, PandapushError } from "./error.js";
export type { ClientState } from "./link.js";
export type { ConnectionType, Message } from "./message.js";
export type { ProxyOptions } from "./platform.js";
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
