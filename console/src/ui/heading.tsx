import { Group, Text, Title } from "@mantine/core";
import { useDocumentTitle } from "@mantine/hooks";
import { type ReactNode, useEffect } from "react";
import { useLocation } from "react-router";
import { focusHeading } from "./focus.js";
import { Name } from "./name.js";
import { isolate } from "./text.js";

/** The page's name, what it is about, and what one can do here. */
export function Heading({
  title,
  about,
  children,
}: {
  title: string;
  about?: ReactNode;
  children?: ReactNode;
}) {
  useDocumentTitle(`${isolate(title)} · Pandapush`);
  // "default": the address with which the console was opened, which browsers begin to read themselves.
  const isFirst = useLocation().key === "default";
  useEffect(() => {
    if (!isFirst && document.activeElement === document.body) focusHeading();
  }, [isFirst]);
  return (
    <Group justify="space-between" align="flex-end" mb="lg" gap="sm">
      <div style={{ minWidth: 0, flex: "0 1 auto" }}>
        <Title order={1} size="h2" tabIndex={-1}>
          <Name>{title}</Name>
        </Title>
        {about !== undefined && (
          <Text c="dimmed" size="sm" component="div">
            {about}
          </Text>
        )}
      </div>
      {children !== undefined && <Group gap="sm">{children}</Group>}
    </Group>
  );
}
