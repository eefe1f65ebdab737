/**
 * A name that people gave: two lines of it, all when pointed at; its direction is its own.
 * @param width in rem, as much as it takes of a table that has other columns
 */
export function Name({ children, width }: { children: string; width?: number }) {
  return (
    <bdi
      className="name"
      title={children}
      style={width === undefined ? {} : { maxWidth: `${width}rem` }}
    >
      {children}
    </bdi>
  );
}
