import { createTheme, type MantineColorsTuple } from "@mantine/core";

/** From light to dark; the seventh has the contrast that white text needs. */
const bamboo: MantineColorsTuple = [
  "#e9f8ef",
  "#d3efdf",
  "#a6dfbf",
  "#75ce9c",
  "#4fbf80",
  "#2f9f63",
  "#14743f",
  "#0f6335",
  "#0a4f2a",
  "#063a1e",
];

/** For what failed and what cannot be taken back; the third and fifth are read on dark ground. */
const alarm: MantineColorsTuple = [
  "#fdecea",
  "#fbd5d2",
  "#ffb4ab",
  "#ff9d94",
  "#ff8a80",
  "#e5534b",
  "#b3261e",
  "#96201a",
  "#7a1a15",
  "#5e1410",
];

export const theme = createTheme({
  primaryColor: "bamboo",
  primaryShade: 6,
  colors: { bamboo, alarm },
  defaultRadius: "md",
  fontFamily:
    'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, "Noto Color Emoji", sans-serif',
  fontFamilyMonospace: 'ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace',
  headings: { fontWeight: "650" },
  cursorType: "pointer",
});
