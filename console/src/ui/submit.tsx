import { Button, type ButtonProps, Loader } from "@mantine/core";

/**
 * A form's button. While it cannot be pressed it says so and keeps the focus: a disabled one would
 * lose it to the beginning of the page.
 */
export function Submit({
  isBusy,
  isReady = true,
  leftSection,
  ...props
}: ButtonProps & { readonly isBusy: boolean; readonly isReady?: boolean }) {
  const isOff = isBusy || !isReady;
  return (
    <Button
      type="submit"
      aria-disabled={isOff}
      aria-busy={isBusy}
      data-disabled={isOff}
      onClick={(event) => {
        if (isOff) event.preventDefault();
      }}
      leftSection={isBusy ? <Loader size={14} color="currentColor" aria-hidden /> : leftSection}
      {...props}
    />
  );
}
