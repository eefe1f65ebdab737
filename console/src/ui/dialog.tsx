import { Modal, type ModalProps } from "@mantine/core";
import { type ReactNode, useEffect, useState } from "react";

interface Props extends Pick<ModalProps, "size" | "closeOnEscape" | "closeOnClickOutside"> {
  readonly title: ReactNode;
  /** Absent: it cannot be closed but by what is in it. */
  readonly onClose?: () => void;
  readonly children: ReactNode;
}

/** A window over the page. Mounted: open; unmounted, the focus is where it was before. */
export function Dialog({ onClose, children, ...props }: Props) {
  const [opener] = useState(openerOf);
  useEffect(() => () => opener?.focus(), [opener]);
  return (
    <Modal
      opened
      onClose={onClose ?? (() => undefined)}
      withCloseButton={onClose !== undefined}
      closeOnEscape={onClose !== undefined}
      closeOnClickOutside={onClose !== undefined}
      closeButtonProps={{ "aria-label": "Close" }}
      returnFocus={false}
      centered
      {...props}
    >
      {children}
    </Modal>
  );
}

/** What has the focus; for an item of a menu that closes, the menu's button. */
function openerOf(): HTMLElement | null {
  const { activeElement } = document;
  const label = activeElement?.closest('[role="menu"]')?.getAttribute("aria-labelledby");
  const opener = label ? document.getElementById(label) : activeElement;
  return opener instanceof HTMLElement ? opener : null;
}
