import { Group, Pagination, Text } from "@mantine/core";
import type { ReactNode } from "react";
import { type UrlState, useUrlState } from "./url-state.js";

export const pageSize = 25;

/** A list's place in the URL: `?search=&page=`. */
export function useListPlace(): {
  search: string;
  page: number;
  window: { search: string | undefined; limit: number; offset: number };
  set: UrlState["set"];
} {
  const { value, set } = useUrlState();
  const search = value("search");
  const page = Math.max(1, Math.floor(Number(value("page"))) || 1);
  return {
    search,
    page,
    window: { search: search || undefined, limit: pageSize, offset: (page - 1) * pageSize },
    set,
  };
}

export function Pages({
  total,
  page,
  onChange,
  children,
}: {
  total: number;
  page: number;
  onChange: (page: number) => void;
  children?: ReactNode;
}) {
  const pages = Math.ceil(total / pageSize);
  return (
    <Group justify="space-between" mt="md">
      <Text size="sm" c="dimmed" role="status">
        {children ?? `${total} in all`}
      </Text>
      {pages > 1 && (
        <Pagination
          total={pages}
          value={Math.min(page, pages)}
          onChange={onChange}
          size="sm"
          getControlProps={(control) => ({ "aria-label": `${control} page` })}
          getItemProps={(each) => ({ "aria-label": `page ${each}` })}
        />
      )}
    </Group>
  );
}
