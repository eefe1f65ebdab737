import { Group, Pagination, Text } from "@mantine/core";
import { type ReactNode, useEffect } from "react";
import { type UrlState, useUrlState } from "./url-state.js";

export const pageSize = 25;

/** The server looks no further into what is live. */
export const maxLiveOffset = 10_000;

/** Which page of a list is shown, and how to go to another. */
interface Place {
  readonly page: number;
  readonly go: (page: number) => void;
  /** The last page that can be asked for, however many there are. */
  readonly maxPage?: number;
}

interface ListPlace extends Place {
  readonly search: string;
  readonly window: { search: string | undefined; limit: number; offset: number };
  readonly set: UrlState["set"];
}

/** A list's place in the URL: `?search=&page=`. */
export function useListPlace(maxOffset = 10_000_000): ListPlace {
  const { value, set } = useUrlState();
  const search = value("search");
  const maxPage = Math.floor(maxOffset / pageSize) + 1;
  const page = Math.min(maxPage, Math.max(1, Math.floor(Number(value("page"))) || 1));
  return {
    search,
    page,
    maxPage,
    go: (next) => set({ page: next === 1 ? "" : String(next) }),
    window: { search: search || undefined, limit: pageSize, offset: (page - 1) * pageSize },
    set,
  };
}

/** The way to the other pages of a list. From a page behind the last one it leads to that. */
export function Pages({
  total,
  place: { page, go, maxPage = Number.POSITIVE_INFINITY },
  children,
}: {
  total: number;
  place: Place;
  children: ReactNode;
}) {
  const pages = Math.min(maxPage, Math.max(1, Math.ceil(total / pageSize)));
  useEffect(() => {
    if (page > pages) go(pages);
  });
  return (
    <Group justify="space-between" mt="md">
      <Text size="sm" c="dimmed" role="status">
        {children}
      </Text>
      {pages > 1 && (
        <Pagination
          total={pages}
          value={Math.min(page, pages)}
          onChange={go}
          size="sm"
          getControlProps={(control) => ({ "aria-label": `${control} page` })}
          getItemProps={(each) => ({ "aria-label": `page ${each}` })}
        />
      )}
    </Group>
  );
}
