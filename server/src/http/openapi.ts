import { z } from "zod";
import { refusal } from "./admin-shapes.js";
import type { Route } from "./route.js";

/** OpenAPI 3.1 of these routes: what is served is what is described. */
export function describeApi(routes: readonly Route[], prefix: string, version: string): object {
  const paths: Record<string, Record<string, object>> = {};
  for (const route of routes) {
    const path = `${prefix}${route.path.replace(/:(\w+)/g, "{$1}")}`;
    paths[path] = { ...paths[path], [route.method.toLowerCase()]: describeRoute(route) };
  }
  return {
    openapi: "3.1.0",
    info: { title: "Pandapush administration", version },
    security: [{ basic: [] }, { session: [] }],
    paths,
    components: {
      securitySchemes: {
        basic: { type: "http", scheme: "basic" },
        session: { type: "apiKey", in: "cookie", name: "pandapush_session" },
      },
      schemas: { Refusal: schemaOf(refusal, "output") },
    },
  };
}

function describeRoute(route: Route): object {
  const parameters = [
    ...Array.from(route.path.matchAll(/:(\w+)/g), ([, name]) => ({
      name,
      in: "path",
      required: true,
      schema: { type: "string" },
    })),
    ...queryParameters(route),
  ];
  return {
    summary: route.summary,
    ...(route.isOpen ? { security: [] } : {}),
    ...(parameters.length > 0 ? { parameters } : {}),
    ...(route.body === undefined
      ? {}
      : { requestBody: { content: json(schemaOf(route.body, "input")) } }),
    responses: {
      [route.status ?? 200]: {
        description: "Done",
        ...(route.isPaged === true ? { headers: totalHeader } : {}),
        content:
          route.answer === undefined
            ? { "text/plain": { schema: { const: "OK" } } }
            : json(schemaOf(route.answer, "output")),
      },
      ...Object.fromEntries(refusalsOf(route).map((each) => [each[0], refused(each[1])])),
    },
  };
}

const totalHeader = {
  "X-Total-Count": { description: "How many there are on all pages", schema: { type: "integer" } },
};

function refusalsOf(route: Route): [number, string][] {
  return [
    [401, route.isOpen ? "Wrong user name or password" : "Not logged in"],
    ...(route.method === "GET" ? [] : [[403, "A request of another site"] as [number, string]]),
    ...(route.path.includes(":") ? [[404, "Absent, or not yours"] as [number, string]] : []),
    ...(route.body === undefined && route.query === undefined
      ? []
      : [[422, "Input that names the fields at fault"] as [number, string]]),
  ];
}

function refused(description: string): object {
  return { description, content: json({ $ref: "#/components/schemas/Refusal" }) };
}

function queryParameters({ query }: Route): object[] {
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
