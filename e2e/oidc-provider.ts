/** An OpenID provider: npm `oidc-provider` with the least of pages, and users of the test's. */
import { generateKeyPairSync, randomBytes } from "node:crypto";
import { once } from "node:events";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { text } from "node:stream/consumers";
import Provider, { type Configuration } from "oidc-provider";

export interface ProviderOptions {
  readonly redirectUris: readonly string[];
  readonly afterLogoutUris?: readonly string[];
  /** What it says of its users, beside `sub`, which is what they log in as. */
  readonly users: Readonly<Record<string, Readonly<Record<string, unknown>>>>;
  /** Whether a client can send a browser there to log out. */
  readonly hasLogout?: boolean;
  readonly clientAuthentication?: "client_secret_basic" | "client_secret_post";
}

export class TestProvider {
  readonly clientId = `client-${randomBytes(4).toString("hex")}`;
  readonly clientSecret = randomBytes(24).toString("base64url");
  #server: Server | undefined;

  private constructor(
    readonly url: string,
    private readonly port: number,
  ) {}

  /** It has an address at once, and answers there when it is up. */
  static async create(options: ProviderOptions): Promise<TestProvider> {
    const server = createServer().listen(0, "127.0.0.1");
    await once(server, "listening");
    const { port } = server.address() as AddressInfo;
    server.close();
    await once(server, "close");
    // Another site than the server's, whose pages are of 127.0.0.1.
    const made = new TestProvider(`http://localhost:${port}`, port);
    made.#prepare(options);
    return made;
  }

  static async start(options: ProviderOptions): Promise<TestProvider> {
    const provider = await TestProvider.create(options);
    await provider.up();
    return provider;
  }

  async up(): Promise<void> {
    this.#server = createServer(this.#handle).listen(this.port, "127.0.0.1");
    await once(this.#server, "listening");
  }

  async down(): Promise<void> {
    const server = this.#server;
    if (server === undefined) return;
    this.#server = undefined;
    server.close();
    server.closeAllConnections();
    await once(server, "close");
  }

  #handle: (request: IncomingMessage, response: ServerResponse) => void = () => undefined;

  #prepare(options: ProviderOptions): void {
    const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
    const { users, hasLogout = true } = options;
    const configuration: Configuration = {
      clients: [
        {
          client_id: this.clientId,
          client_secret: this.clientSecret,
          redirect_uris: [...options.redirectUris],
          post_logout_redirect_uris: [...(options.afterLogoutUris ?? [])],
          token_endpoint_auth_method: options.clientAuthentication ?? "client_secret_basic",
        },
      ],
      clientAuthMethods: [options.clientAuthentication ?? "client_secret_basic"],
      claims: {
        openid: ["sub"],
        email: ["email", "email_verified"],
        profile: ["preferred_username"],
      },
      cookies: { keys: [randomBytes(16).toString("hex")] },
      jwks: { keys: [{ ...privateKey.export({ format: "jwk" }), alg: "RS256", use: "sig" }] },
      pkce: { required: () => true },
      ttl: { AuthorizationCode: 60, AccessToken: 600, IdToken: 3600, Session: 3600, Grant: 3600 },
      features: {
        devInteractions: { enabled: false },
        rpInitiatedLogout: {
          enabled: hasLogout,
          logoutSource: (ctx, form) => {
            ctx.body = page("Log out?", form.replace("</form>", logoutButton));
          },
          postLogoutSuccessSource: (ctx) => {
            ctx.body = page("Logged out", "");
          },
        },
      },
      findAccount: (_ctx, id) => ({
        accountId: id,
        claims: () => ({ sub: id, ...users[id] }),
      }),
      // Nobody is asked whether they consent.
      loadExistingGrant: async ({ oidc }) => {
        const { provider, client, session } = oidc;
        const ids = { clientId: client?.clientId ?? "", accountId: session?.accountId ?? "" };
        const grant = new provider.Grant(ids);
        grant.addOIDCScope("openid profile email");
        await grant.save();
        return grant;
      },
      interactions: { url: (_ctx, { uid }) => `/interaction/${uid}` },
    };
    const provider = new Provider(this.url, configuration);
    const respond = provider.callback();
    this.#handle = (request, response) => {
      const { url = "", method } = request;
      if (!url.startsWith("/interaction/")) return respond(request, response);
      if (method === "GET" && !url.endsWith("/cancel")) {
        response.setHeader("content-type", "text/html");
        return response.end(page("Log in", loginForm(url)));
      }
      return void finish(provider, request, response);
    };
  }
}

async function finish(
  provider: Provider,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const login = new URLSearchParams(await text(request)).get("login");
  const result =
    login === null
      ? { error: "access_denied", error_description: "<b>Not</b> your day" }
      : { login: { accountId: login } };
  await provider.interactionFinished(request, response, result, {
    mergeWithLastSubmission: false,
  });
}

const logoutButton = `<button name="logout" value="yes">Log out</button></form>`;

function loginForm(url: string): string {
  return `<form method="post" action="${url}">
    <label>User <input name="login" autofocus></label> <button>Log in</button>
  </form><a href="${url}/cancel">Cancel</a>`;
}

function page(title: string, body: string): string {
  return `<!doctype html><title>${title}</title><h1>${title}</h1>${body}`;
}
