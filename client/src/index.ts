import { Client as AnyClient, type ClientOptions } from "./client.js";
import { node } from "./platform/node.js";

export * from "./shared.js";

export class Client extends AnyClient {
  /**
   * @param url such as `https://push.example.com/push`
   * @throws TypeError when it leads to no server
   */
  constructor(url: string, options?: ClientOptions) {
    super(node, url, options);
  }
}
