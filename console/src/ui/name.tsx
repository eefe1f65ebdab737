/** A name that people gave: two lines of it, all when pointed at; its direction is its own. */
export function Name({ children }: { children: string }) {
  return (
    <bdi className="name" title={children}>
      {children}
    </bdi>
  );
}
