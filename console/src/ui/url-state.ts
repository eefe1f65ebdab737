import { useCallback } from "react";
import { useSearchParams } from "react-router";

export interface UrlState {
  /** "": it is not in the URL. */
  value(name: string): string;
  values(name: string): string[];
  /** What is "" or [] leaves the URL. Whoever goes back does not meet each letter typed. */
  set(changes: Readonly<Record<string, string | readonly string[]>>): void;
}

/** What the URL keeps of a page, so that the page can be shared, and found again after a reload. */
export function useUrlState(): UrlState {
  const [params, setParams] = useSearchParams();
  const set = useCallback<UrlState["set"]>(
    (changes) => {
      setParams(
        (old) => {
          const next = new URLSearchParams(old);
          for (const [name, value] of Object.entries(changes)) {
            next.delete(name);
            for (const each of typeof value === "string" ? [value] : value) {
              if (each !== "") next.append(name, each);
            }
          }
          return next;
        },
        { replace: true },
      );
    },
    [setParams],
  );
  return {
    value: (name) => params.get(name) ?? "",
    values: (name) => params.getAll(name),
    set,
  };
}
