import { Client as AnyClient, type ClientOptions } from "./client.js";
import { node } from "./platform/node.js";

export * from "./shared.js";

export class Client extends AnyClient {
  constructor(url: string, options?: ClientOptions) {
    super(node, url, options);
  }
}
