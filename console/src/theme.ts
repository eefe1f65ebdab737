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

export const theme = createTheme({
  primaryColor: "bamboo",
  primaryShade: { light: 6, dark: 4 },
  autoContrast: true,
  colors: { bamboo },
  defaultRadius: "md",
  fontFamily:
    'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, "Noto Color Emoji", sans-serif',
  fontFamilyMonospace: 'ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace',
  headings: { fontWeight: "650" },
  cursorType: "pointer",
});
