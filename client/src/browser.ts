import { Client as AnyClient, type ClientOptions } from "./client.js";
import { browser } from "./platform/browser.js";

export * from "./shared.js";

export class Client extends AnyClient {
  /**
   * @param url may be relative to the page
   * @throws TypeError when it leads to no server
   */
  constructor(url?: string, options?: ClientOptions) {
    super(browser, url, options);
  }
}
