export {
  AuthenticationError,
  ConnectionError,
  PandapushError,
  type Refused,
  RequestError,
  ServerError,
  TimeoutError,
} from "./errors.js";
export {
  type ActiveChannel,
  type BatchMessage,
  type BatchResult,
  type ChannelState,
  type Connection,
  type Members,
  type Page,
  Pandapush,
  type PandapushOptions,
  type PublishOptions,
  type Refusal,
} from "./pandapush.js";
export type { CallOptions } from "./requests.js";
export type { TokenOptions } from "./token.js";
