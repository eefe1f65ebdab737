export * from "./advice.js";
export * from "./channel.js";
export * from "./claims.js";
export * from "./error-codes.js";
export * from "./json.js";
export * from "./message.js";
