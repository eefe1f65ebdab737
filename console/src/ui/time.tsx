import { Text, Tooltip } from "@mantine/core";
import { useInterval } from "@mantine/hooks";
import { useState } from "react";

const units: readonly [Intl.RelativeTimeFormatUnit, number][] = [
  ["year", 365 * 86_400_000],
  ["month", 30 * 86_400_000],
  ["day", 86_400_000],
  ["hour", 3_600_000],
  ["minute", 60_000],
  ["second", 1_000],
];
const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
const absolute = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });
const clock = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });

/** Such as “22 Nov 2026, 22:31:05”. */
export function inFull(at: Date | number): string {
  return absolute.format(at);
}

/** Such as “22:31:05”. */
export function timeOfDay(at: Date | number): string {
  return clock.format(at);
}

/** Such as “3 minutes ago” or “in 2 months”. */
export function fromNow(at: Date, now = Date.now()): string {
  const ms = at.getTime() - now;
  const [unit, size] = units.find(([, each]) => Math.abs(ms) >= each * 0.97) ?? ["second", 1_000];
  return Math.abs(ms) < 5_000 ? "just now" : relative.format(Math.round(ms / size), unit);
}

/** A moment as people say it; in full when pointed at. */
export function When({ at, none = "never" }: { at: string | null; none?: string }) {
  const [now, setNow] = useState(() => Date.now());
  useInterval(() => setNow(Date.now()), 10_000, { autoInvoke: true });
  if (at === null) {
    return (
      <Text span size="sm" c="dimmed">
        {none}
      </Text>
    );
  }
  const date = new Date(at);
  return (
    <Tooltip label={inFull(date)}>
      <time dateTime={at} className="time">
        {fromNow(date, now)}
      </time>
    </Tooltip>
  );
}
