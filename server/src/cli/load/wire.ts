/** How a user of a load test reaches the server: as little work for as many as possible. */
import { Agent as HttpAgent, request as httpRequest } from "node:http";
import { Agent as HttpsAgent, request as httpsRequest } from "node:https";
import { WebSocket } from "ws";

export interface BayeuxMessage {
  readonly channel?: string;
  readonly clientId?: string;
  readonly successful?: boolean;
  readonly error?: string;
  readonly data?: { readonly n?: number; readonly at?: number };
  readonly advice?: { readonly reconnect?: string; readonly interval?: number };
}

export interface WireListener {
  received(messages: readonly BayeuxMessage[]): void;
  /** It is of no more use. Not told after `close`. */
  lost(reason: string): void;
}

export interface Wire {
  send(message: object): void;
  /** Harmless twice. */
  close(): void;
}

const openMs = 20_000;
/** A held connect is answered long before. */
const pollMs = 90_000;
const publishMs = 10_000;

/** What is sent before it is open waits for that. */
export class WebSocketWire implements Wire {
  private readonly socket: WebSocket;
  private waiting: object[] | undefined = [];
  private isClosed = false;

  constructor(url: string, listener: WireListener) {
    this.socket = new WebSocket(url.replace(/^http/, "ws"), {
      perMessageDeflate: false,
      handshakeTimeout: openMs,
      skipUTF8Validation: true,
    });
    let reason = "the connection was closed";
    this.socket.on("open", () => {
      const waiting = this.waiting ?? [];
      this.waiting = undefined;
      for (const message of waiting) this.send(message);
    });
    this.socket.on("message", (data: Buffer) => listener.received(parse(data.toString())));
    this.socket.on("error", (error) => {
      reason = describe(error);
    });
    this.socket.on("close", (code) => {
      if (this.isClosed) return;
      this.isClosed = true;
      listener.lost(code === 1006 ? reason : `the server closed the connection (${code})`);
    });
  }

  send(message: object): void {
    if (this.waiting !== undefined) this.waiting.push(message);
    else this.socket.send(JSON.stringify([message]), ignore);
  }

  close(): void {
    this.isClosed = true;
    this.socket.close();
  }
}

export class PollingWire implements Wire {
  private isClosed = false;

  constructor(
    private readonly url: string,
    private readonly http: HttpConnections,
    private readonly listener: WireListener,
  ) {}

  send(message: object): void {
    const body = JSON.stringify([message]);
    const headers = { "content-type": "application/json" };
    this.http.post(this.url, headers, body, pollMs).then(
      ({ status, text }) => {
        if (this.isClosed) return;
        if (status === 200 || text.startsWith("[")) this.listener.received(parse(text));
        else this.fail(`the server answered ${status}`);
      },
      (error: Error) => this.fail(describe(error)),
    );
  }

  close(): void {
    this.isClosed = true;
  }

  private fail(reason: string): void {
    if (this.isClosed) return;
    this.isClosed = true;
    this.listener.lost(reason);
  }
}

export interface HttpAnswer {
  readonly status: number;
  readonly text: string;
}

/** Connections that are used again and again. */
export class HttpConnections {
  private readonly http: HttpAgent;
  private readonly https: HttpsAgent;

  /** @param most how many there are at once; what is sent beyond waits */
  constructor(most: number) {
    const options = { keepAlive: true, maxSockets: most };
    this.http = new HttpAgent(options);
    this.https = new HttpsAgent(options);
  }

  /** @throws Error saying why there is no answer */
  post(
    url: string,
    headers: Readonly<Record<string, string>>,
    body: string,
    timeoutMs = publishMs,
  ): Promise<HttpAnswer> {
    return new Promise((resolve, reject) => {
      const isHttps = url.startsWith("https:");
      const options = {
        method: "POST",
        agent: isHttps ? this.https : this.http,
        headers: { ...headers, "content-length": Buffer.byteLength(body) },
      };
      const request = (isHttps ? httpsRequest : httpRequest)(url, options, (response) => {
        let text = "";
        response.setEncoding("utf8");
        response.on("data", (chunk: string) => {
          text += chunk;
        });
        response.on("end", () => {
          clearTimeout(timer);
          resolve({ status: response.statusCode ?? 0, text });
        });
        response.on("error", reject);
      });
      const timer = setTimeout(
        () => request.destroy(new Error(`no answer within ${timeoutMs / 1000} s`)),
        timeoutMs,
      );
      request.on("error", (error) => {
        clearTimeout(timer);
        reject(error);
      });
      request.end(body);
    });
  }

  close(): void {
    this.http.destroy();
    this.https.destroy();
  }
}

/** Without ports and the like, so that equal reasons are counted together. */
export function describe(error: Error): string {
  const { code } = error as NodeJS.ErrnoException;
  if (code === "EMFILE") return "EMFILE: this process may not open more files";
  return code ?? error.message;
}

function parse(text: string): readonly BayeuxMessage[] {
  try {
    const value: unknown = JSON.parse(text);
    return Array.isArray(value) ? (value as BayeuxMessage[]) : [value as BayeuxMessage];
  } catch {
    return [];
  }
}

function ignore(): void {
  // That it is lost is told by its close.
}
