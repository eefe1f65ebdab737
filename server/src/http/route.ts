/** One route of an API: what it takes, gives and does, for the router and the description. */
import type { AppId } from "@pandapush/protocol";
import type { FastifyReply, FastifyRequest } from "fastify";
import type { z } from "zod";
import type { AdminUser } from "../auth/admin.js";
import { InvalidInput, Refusal } from "../errors.js";

export type Method = "GET" | "POST" | "DELETE";

interface Context<Query, Body> {
  readonly request: FastifyRequest;
  readonly reply: FastifyReply;
  /** Parameters of the path. */
  readonly params: Readonly<Record<string, string>>;
  readonly query: Query;
  readonly body: Body;
}

interface Definition<Query extends z.ZodType, Body extends z.ZodType, Answer extends z.ZodType> {
  readonly method: Method;
  /** Below the API's prefix; parameters as `:id`, and `*` for all the rest. */
  readonly path: string;
  /** What `*` stands for. */
  readonly rest?: string;
  readonly summary: string;
  /** Absent: 200. */
  readonly status?: number;
  readonly query?: Query;
  readonly body?: Body;
  /** Absent: the text `OK`. */
  readonly answer?: Answer;
  /** The answer has the header `X-Total-Count`: how many there are on all pages. */
  readonly isPaged?: true;
  /** Several nodes are asked; what is missing in the answer is said in the header `X-Incomplete`. */
  readonly isGathered?: true;
}

/** A route with its types checked and put away, for whoever the API's users are. */
export interface Route<User = AdminUser | undefined>
  extends Definition<z.ZodType, z.ZodType, z.ZodType> {
  readonly isOpen: boolean;
  run(user: User, request: FastifyRequest, reply: FastifyReply): Promise<unknown>;
}

/** An answer that is JSON already, and of the route's shape. */
export class JsonText {
  constructor(readonly text: string) {}
}

type Handle<Query extends z.ZodType, Body extends z.ZodType, Answer extends z.ZodType, User> = (
  user: User,
  context: Context<z.output<Query>, z.output<Body>>,
) => Promise<z.input<Answer> | JsonText>;

type Nothing = z.ZodUndefined;

/** A route for users who are logged in. */
export function route<
  Query extends z.ZodType = Nothing,
  Body extends z.ZodType = Nothing,
  Answer extends z.ZodType = z.ZodVoid,
>(
  definition: Definition<Query, Body, Answer>,
  handle: Handle<Query, Body, Answer, AdminUser>,
): Route {
  return make(definition, false, (user, context) => {
    if (user === undefined) throw new Refusal("notLoggedIn");
    return handle(user, context);
  });
}

/** A route for everybody. */
export function openRoute<
  Query extends z.ZodType = Nothing,
  Body extends z.ZodType = Nothing,
  Answer extends z.ZodType = z.ZodVoid,
>(
  definition: Definition<Query, Body, Answer>,
  handle: Handle<Query, Body, Answer, AdminUser | undefined>,
): Route {
  return make(definition, true, handle);
}

/** A route for what several APIs offer, each below a path of its own; see `below`. */
export function appRoute<
  Query extends z.ZodType = Nothing,
  Body extends z.ZodType = Nothing,
  Answer extends z.ZodType = z.ZodVoid,
  User extends AppUser = AppUser,
>(
  definition: Definition<Query, Body, Answer>,
  handle: Handle<Query, Body, Answer, User>,
): Route<User> {
  return make(definition, false, handle);
}

/** Whoever may ask about an application. */
export interface AppUser {
  readonly appId: AppId;
  /** Absent: a back end, with a key. */
  readonly admin?: AdminUser;
}

/** The same route below `path`, for those whom `identify` finds to be users of the application. */
export function below(
  path: string,
  inner: Route<AppUser>,
  identify: (user: AdminUser, params: Readonly<Record<string, string>>) => Promise<AppUser>,
): Route {
  return {
    ...inner,
    path: path + inner.path,
    async run(user, request, reply) {
      if (user === undefined) throw new Refusal("notLoggedIn");
      const params = request.params as Record<string, string>;
      return inner.run(await identify(user, params), request, reply);
    },
  };
}

function make<Query extends z.ZodType, Body extends z.ZodType, Answer extends z.ZodType, User>(
  definition: Definition<Query, Body, Answer>,
  isOpen: boolean,
  handle: Handle<Query, Body, Answer, User>,
): Route<User> {
  const { query, body, answer, status = 200 } = definition;
  return {
    ...definition,
    isOpen,
    async run(user, request, reply) {
      const context = {
        request,
        reply,
        params: request.params as Record<string, string>,
        query: (query && check(query, request.query)) as z.output<Query>,
        body: (body &&
          check(body, request.body === undefined ? {} : request.body)) as z.output<Body>,
      };
      const given = await handle(user, context);
      reply.code(status);
      if (answer === undefined) return reply.type("text/plain; charset=utf-8").send("OK");
      const text = given instanceof JsonText ? given.text : JSON.stringify(answer.parse(given));
      return reply.type("application/json; charset=utf-8").send(text);
    },
  };
}

/** @throws InvalidInput */
function check<T extends z.ZodType>(schema: T, input: unknown): z.output<T> {
  const { success, data, error } = schema.safeParse(input);
  if (success) return data;
  const fields: Record<string, string> = {};
  for (const { path, message } of error.issues) {
    if (path.length === 0) fields.body ??= "must be a JSON object";
    else fields[path.join(".")] ??= message;
  }
  throw new InvalidInput(fields);
}
