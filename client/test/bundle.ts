import { rolldown } from "rolldown";

/**
 * Bundles a module for pages, as an application would.
 * @param path of the module
 * @param code what it contains, when that is not what is in the file, or there is no file
 * @returns a script with the global `page`, which holds what the module exports
 */
export async function bundleForPages(path: string, code?: string): Promise<string> {
  const bundle = await rolldown({
    input: path,
    platform: "browser",
    resolve: { extensionAlias: { ".js": [".tsx", ".ts", ".js"] } },
    transform: { define: { "process.env.NODE_ENV": '"development"' } },
    plugins: [
      {
        name: "code",
        resolveId: (id) => (id === path ? path : null),
        load: (id) => (id === path && code !== undefined ? code : null),
      },
    ],
  });
  const { output } = await bundle.generate({ format: "iife", name: "page" });
  return output[0].code;
}
