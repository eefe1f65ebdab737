const fur = "var(--panda-fur)";

/** The face on every page. */
export function Panda({ size = 28 }: { size?: number }) {
  return (
    <svg width={size} height={size} viewBox="0 0 32 32" aria-hidden="true">
      <g style={{ fill: fur }}>
        <circle cx="7" cy="8" r="5" />
        <circle cx="25" cy="8" r="5" />
      </g>
      <circle cx="16" cy="17" r="12" fill="#fff" style={{ stroke: fur }} strokeWidth="1.5" />
      <g style={{ fill: fur }}>
        <ellipse cx="10.8" cy="16" rx="3" ry="4" transform="rotate(18 10.8 16)" />
        <ellipse cx="21.2" cy="16" rx="3" ry="4" transform="rotate(-18 21.2 16)" />
        <ellipse cx="16" cy="22" rx="2" ry="1.4" />
      </g>
      <g fill="#fff">
        <circle cx="11.4" cy="15.6" r="1.1" />
        <circle cx="20.6" cy="15.6" r="1.1" />
      </g>
    </svg>
  );
}
