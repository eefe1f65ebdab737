import { z } from "zod";
import { refusal } from "./admin-shapes.js";
import type { Route } from "./route.js";

/** Routes below a prefix, for admins who are logged in or for back ends with a key. */
export interface DescribedApi {
  readonly prefix: string;
  readonly routes: readonly Route<never>[];
  readonly by: "admin" | "key";
}

const security = { admin: [{ basic: [] }, { session: [] }], key: [{ key: [] }] };

/** OpenAPI 3.1 of these routes: what is served is what is described. */
export function describeApis(apis: readonly DescribedApi[], version: string): object {
  const paths: Record<string, Record<string, object>> = {};
  for (const { prefix, routes, by } of apis) {
    for (const route of routes) {
      const { method, rest = "rest" } = route;
      const path = `${prefix}${route.path}`.replace(/:(\w+)/g, "{$1}").replace("*", `{${rest}}`);
      paths[path] = { ...paths[path], [method.toLowerCase()]: describeRoute(route, path, by) };
    }
  }
  return {
    openapi: "3.1.0",
    info: { title: "Pandapush", version },
    security: security.admin,
    paths,
    components: {
      securitySchemes: {
        basic: { type: "http", scheme: "basic", description: "An admin's name and password" },
        session: { type: "apiKey", in: "cookie", name: "pandapush_session" },
        key: { type: "http", scheme: "basic", description: "A key's id and its secret" },
      },
      schemas: { Refusal: schemaOf(refusal, "output") },
    },
  };
}

function describeRoute(route: Route<never>, path: string, by: DescribedApi["by"]): object {
  const parameters = [
    ...Array.from(path.matchAll(/{(\w+)}/g), ([, name]) => ({
      name,
      in: "path",
      required: true,
      schema: { type: "string" },
    })),
    ...queryParameters(route),
  ];
  return {
    summary: route.summary,
    ...(route.isOpen ? { security: [] } : by === "key" ? { security: security.key } : {}),
    ...(parameters.length > 0 ? { parameters } : {}),
    ...(route.body === undefined
      ? {}
      : { requestBody: { content: json(schemaOf(route.body, "input")) } }),
    responses: {
      [route.status ?? 200]: {
        description: "Done",
        ...headersOf(route),
        content:
          route.answer === undefined
            ? { "text/plain": { schema: { const: "OK" } } }
            : json(schemaOf(route.answer, "output")),
      },
      ...Object.fromEntries(refusalsOf(route, by).map((each) => [each[0], refused(each[1])])),
    },
  };
}

function headersOf({ isPaged, isGathered }: Route<never>): object {
  const headers = {
    ...(isPaged === true ? totalHeader : {}),
    ...(isGathered === true ? incompleteHeader : {}),
  };
  return Object.keys(headers).length > 0 ? { headers } : {};
}

const totalHeader = {
  "X-Total-Count": { description: "How many there are on all pages", schema: { type: "integer" } },
};
const incompleteHeader = {
  "X-Incomplete": {
    description: "What is missing in the answer, such as: 1 of 3 nodes did not answer",
    schema: { type: "string" },
  },
};

function refusalsOf(route: Route<never>, by: DescribedApi["by"]): [number, string][] {
  const strangers: [number, string][] =
    by === "key"
      ? [
          [401, "No key"],
          [403, "A key that is none of the application's, or counts no longer"],
        ]
      : [
          [401, route.isOpen ? "Wrong user name or password" : "Not logged in"],
          ...(route.method === "GET"
            ? []
            : [[403, "A request of another site"] as [number, string]]),
        ];
  return [
    ...(route.path.includes("*") ? [[400, "A name that is no channel"] as [number, string]] : []),
    ...strangers,
    ...(route.path.includes(":") ? [[404, "Absent, or not yours"] as [number, string]] : []),
    ...(route.body === undefined && route.query === undefined
      ? []
      : [[422, "Input that names the fields at fault"] as [number, string]]),
  ];
}

function refused(description: string): object {
  return { description, content: json({ $ref: "#/components/schemas/Refusal" }) };
}

function queryParameters({ query }: Route<never>): object[] {
  if (query === undefined) return [];
  const { properties = {} } = schemaOf(query, "output") as { properties?: object };
  return Object.entries(properties).map(([name, schema]) => ({ name, in: "query", schema }));
}

function json(schema: object): object {
  return { "application/json": { schema } };
}

function schemaOf(schema: z.ZodType, io: "input" | "output"): object {
  const { $schema: _, ...described } = z.toJSONSchema(schema, { io, unrepresentable: "any" });
  return described;
}
