/** As much of a browser as a login needs: it keeps cookies, follows redirects and sends forms. */
export interface Visit {
  readonly url: string;
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
}

interface Cookie {
  readonly name: string;
  readonly value: string;
  readonly path: string;
}

export class HttpBrowser {
  static #count = 0;
  /** Every answer that it got, redirects too. */
  readonly visits: Visit[] = [];
  /** By host name: browsers, too, give a host's cookies to all of its ports. */
  readonly #cookies = new Map<string, Cookie[]>();
  /** On a machine of its own, so that one's failures are not counted for another. */
  readonly #address = `192.0.2.${++HttpBrowser.#count}`;

  /** @param origins where what is asked of an origin really is, as a proxy would know it */
  constructor(private readonly origins: Readonly<Record<string, string>> = {}) {}

  /** Goes there and wherever it is sent on to; `until` gives the URL to stop before. */
  async open(
    url: string,
    { until, ...init }: RequestInit & { until?: (url: string) => boolean } = {},
  ): Promise<Visit> {
    const visit = await this.send(url, init);
    // The one thing that it does of a page's script.
    if (visit.text.includes("document.forms[0].submit()")) return this.submit(visit, {}, until);
    const isRedirect = visit.status >= 300 && visit.status <= 399;
    const [, refresh] = /^0; url=(.*)$/.exec(visit.headers.get("refresh") ?? "") ?? [];
    const location = isRedirect ? visit.headers.get("location") : (refresh ?? null);
    if (location === null) return visit;
    const next = new URL(location, url).href;
    const stop = until === undefined ? {} : { until };
    return until?.(next) === true ? visit : this.open(next, stop);
  }

  /** One request, with the cookies of its place. */
  async send(url: string, init: RequestInit = {}): Promise<Visit> {
    const { origin, hostname, pathname, search } = new URL(url);
    const headers = new Headers(init.headers);
    headers.set("x-forwarded-for", this.#address);
    if (origin.startsWith("https:")) headers.set("x-forwarded-proto", "https");
    const cookie = this.cookies(url).map(({ name, value }) => `${name}=${value}`);
    if (cookie.length > 0) headers.set("cookie", cookie.join("; "));
    const response = await fetch(`${this.origins[origin] ?? origin}${pathname}${search}`, {
      ...init,
      headers,
      redirect: "manual",
    });
    for (const line of response.headers.getSetCookie()) this.#keep(hostname, line);
    const { status, headers: given } = response;
    const visit = { url, status, headers: given, text: await response.text() };
    this.visits.push(visit);
    return visit;
  }

  /** Sends the page's form, filled in; `until` as for `open`. */
  submit(
    page: Visit,
    fields: Readonly<Record<string, string>>,
    until?: (url: string) => boolean,
  ): Promise<Visit> {
    const [, action = ""] = /<form[^>]* action="([^"]*)"/.exec(page.text) ?? [];
    const hidden = [...page.text.matchAll(/<input type="hidden" name="(\w+)" value="([^"]*)"/g)];
    const body = new URLSearchParams([
      ...hidden.map(([, name = "", value = ""]) => [name, value]),
      ...Object.entries(fields),
    ]);
    return this.open(new URL(action, page.url).href, {
      method: "POST",
      body,
      ...(until === undefined ? {} : { until }),
    });
  }

  /** Follows the link with this text. */
  click(page: Visit, text: string): Promise<Visit> {
    return this.open(new URL(linkOf(page, text), page.url).href);
  }

  /** Which cookies go along to a URL. */
  cookies(url: string): readonly Cookie[] {
    const { hostname, pathname } = new URL(url);
    const all = this.#cookies.get(hostname) ?? [];
    return all.filter(({ path }) => `${pathname}/`.startsWith(path.replace(/\/?$/, "/")));
  }

  #keep(hostname: string, line: string): void {
    const [pair = "", ...attributes] = line.split(/\s*;\s*/);
    const [, name = "", value = ""] = /^([^=]+)=(.*)$/.exec(pair) ?? [];
    const attribute = (wanted: string): string | undefined =>
      attributes.find((text) => text.toLowerCase().startsWith(`${wanted}=`))?.split("=")[1];
    const path = attribute("path") ?? "/";
    const others = (this.#cookies.get(hostname) ?? []).filter(
      (cookie) => cookie.name !== name || cookie.path !== path,
    );
    const expires = Date.parse(attribute("expires") ?? "");
    const isOver = attribute("max-age") === "0" || expires <= Date.now();
    this.#cookies.set(hostname, isOver ? others : [...others, { name, value, path }]);
  }
}

/** Where the link with this text leads. */
export function linkOf({ text: html, url }: Visit, text: string): string {
  const links = [...html.matchAll(/<a[^>]* href="([^"]*)"[^>]*>([^<]*)<\/a>/g)];
  const [, href] = links.find(([, , label]) => label === text) ?? [];
  if (href === undefined) throw new Error(`${url} has no link "${text}":\n${html}`);
  return href.replaceAll("&amp;", "&");
}
