/** What the console asks of the server: the admin API, typed by the server's own shapes; and REST publish. */
import type * as shapes from "@pandapush/server/dist/http/admin-shapes.js";
import type { z } from "zod";

export type Info = z.output<typeof shapes.info>;
export type Application = z.output<typeof shapes.application>;
export type CreatedApplication = z.output<typeof shapes.createdApplication>;
export type ApplicationDetail = z.output<typeof shapes.applicationDetail>;
export type AppLimits = z.output<typeof shapes.applicationLimits>;
export type Key = z.output<typeof shapes.key>;
export type CreatedKey = z.output<typeof shapes.createdKey>;
export type RotatedKey = z.output<typeof shapes.rotatedKey>;
export type AuditEntry = z.output<typeof shapes.auditEntry>;
export type NewToken = z.input<typeof shapes.newToken>;

export type LiveChannel = z.output<typeof shapes.liveChannel>;
export type LiveConnection = z.output<typeof shapes.liveConnection>;
export type LiveMembers = z.output<typeof shapes.liveMembers>;
export type Disconnected = z.output<typeof shapes.disconnected>;
export type LiveRefusal = z.output<typeof shapes.liveRefusal>;

/** The purpose of the key with which the server signs the console's own tokens. */
export const consolePurpose = "web console";

const prefix = "/admin/api";

/** How long an answer may take, in ms: then the person is told instead of kept waiting. */
const timeoutMs = 15_000;

/** The server said no, or nothing. The message is for people. */
export class ApiError extends Error {
  override readonly name = "ApiError";

  constructor(
    message: string,
    /** HTTP status; 0: there was no answer. */
    readonly status: number,
    /** By name of the field, what is wrong with it. */
    readonly fields: Readonly<Record<string, string>> = {},
  ) {
    super(message);
  }
}

export interface Page<T> {
  readonly items: readonly T[];
  /** How many there are on all pages. */
  readonly total: number;
  /** What is missing here or counted wrong, and why: not all of the server's nodes could be asked. */
  readonly incomplete: string | undefined;
}

const sessionEnds = new Set<() => void>();

/** @param listener told whenever the server does not know (any more) who asks, whoever asked */
export function onSessionEnd(listener: () => void): () => void {
  sessionEnds.add(listener);
  return () => sessionEnds.delete(listener);
}

type Query = Readonly<Record<string, string | number | undefined>>;

/** @throws ApiError */
export async function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  return read<T>(await request("GET", path, undefined, signal));
}

/** @throws ApiError */
export async function getPage<T>(
  path: string,
  query: Query = {},
  signal?: AbortSignal,
): Promise<Page<T>> {
  const response = await request("GET", `${path}${toQuery(query)}`, undefined, signal);
  const items = await read<T[]>(response);
  const total = Number(response.headers.get("x-total-count") ?? items.length);
  return { items, total, incomplete: incompleteOf(response) };
}

/** @throws ApiError */
export async function post<T>(path: string, body: object = {}): Promise<T> {
  return read<T>(await request("POST", path, body));
}

/** @throws ApiError */
export async function disconnectUser(
  appId: string,
  presenceId: string,
): Promise<Disconnected & Pick<Page<never>, "incomplete">> {
  const path = `/application/${appId}/users/${encodeURIComponent(presenceId)}/disconnect`;
  const response = await request("POST", path, {});
  return { ...(await read<Disconnected>(response)), incomplete: incompleteOf(response) };
}

/** For routes that answer `OK`. @throws ApiError */
export async function send(method: "POST" | "DELETE", path: string): Promise<void> {
  await request(method, path);
}

/** A token of the console's own key, for one channel or pattern of the application. */
export async function signToken(appId: string, token: NewToken): Promise<string> {
  const answer = await post<{ token: string }>(`/application/${appId}/token`, token);
  return answer.token;
}

/**
 * Publishes by REST, as a back end would.
 * @param data JSON text, sent as it is
 * @throws ApiError
 */
export async function publish(channel: string, token: string, data: string): Promise<void> {
  const headers = { Authorization: `Token ${token}`, "Content-Type": "application/json" };
  await ask(`/channel${channel}`, { method: "POST", headers, body: data });
}

async function request(
  method: string,
  path: string,
  body?: object,
  signal?: AbortSignal,
): Promise<Response> {
  // Asks for no window in which the browser would want a password.
  const headers: Record<string, string> = { "X-Requested-With": "fetch" };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const content = body === undefined ? null : JSON.stringify(body);
  try {
    return await ask(`${prefix}${path}`, { method, headers, body: content }, signal);
  } catch (error) {
    if (error instanceof ApiError && error.status === 401) for (const tell of sessionEnds) tell();
    throw error;
  }
}

/** @throws ApiError; what the signal was aborted with */
async function ask(url: string, init: RequestInit, signal?: AbortSignal): Promise<Response> {
  const timeout = AbortSignal.timeout(timeoutMs);
  let response: Response;
  try {
    response = await fetch(url, {
      ...init,
      signal: signal === undefined ? timeout : AbortSignal.any([timeout, signal]),
    });
  } catch (error) {
    if (signal?.aborted === true) throw error;
    throw new ApiError("The server does not answer. Is it running, and is the network up?", 0);
  }
  if (response.ok) return response;
  throw await toError(response);
}

async function read<T>(response: Response): Promise<T> {
  try {
    return (await response.json()) as T;
  } catch {
    throw new ApiError("The answer was no JSON: is something between us and the server?", 0);
  }
}

function incompleteOf({ headers }: Response): string | undefined {
  return headers.get("x-incomplete") ?? undefined;
}

async function toError(response: Response): Promise<ApiError> {
  const { status } = response;
  const text = await response.text();
  try {
    const { message, details, fields } = JSON.parse(text) as Partial<
      z.output<typeof shapes.refusal>
    >;
    const sentence = [message, details].filter((part) => part !== undefined && part !== "");
    return new ApiError(sentence.join(": "), status, fields);
  } catch {
    // A proxy's page, most likely: its status says more than its text.
    return new ApiError(`The server answered ${status} ${response.statusText}`.trim(), status);
  }
}

function toQuery(query: Query): string {
  const entries = Object.entries(query).flatMap(([name, value]) =>
    value === undefined || value === "" ? [] : [[name, String(value)]],
  );
  return entries.length === 0 ? "" : `?${new URLSearchParams(entries)}`;
}
