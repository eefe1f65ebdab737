/** A name that people gave: two lines of it, all when pointed at; its direction is its own. */
export function Name({ children, isNarrow = false }: { children: string; isNarrow?: boolean }) {
  return (
    <bdi className={isNarrow ? "name narrow" : "name"} title={children}>
      {children}
    </bdi>
  );
}
