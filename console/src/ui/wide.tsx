import type { ReactNode } from "react";

/** A table that scrolls sideways where it is wider than the page, by keyboard, too. */
export function Wide({
  label,
  minWidth,
  children,
}: {
  label: string;
  /** In px. */
  minWidth: number;
  children: ReactNode;
}) {
  return (
    <section aria-label={label} tabIndex={0} className="wide">
      <div style={{ minWidth }}>{children}</div>
    </section>
  );
}
