import { Modal, type ModalProps } from "@mantine/core";
import { type ReactNode, useLayoutEffect, useState } from "react";
import { focusNear } from "./focus.js";

interface Props extends Pick<ModalProps, "size" | "closeOnEscape" | "closeOnClickOutside"> {
  readonly title: ReactNode;
  /** Absent: it cannot be closed but by what is in it. */
  readonly onClose?: () => void;
  readonly children: ReactNode;
}

/**
 * What had the focus before the dialog, the nearest first: one that follows another was opened
 * from that, and then from what opened that.
 */
let openers: readonly HTMLElement[] = [];

/** A window over the page. Mounted: open; unmounted, the focus is where it was before. */
export function Dialog({ onClose, children, ...props }: Props) {
  const [from] = useState(findOpeners);
  useLayoutEffect(() => {
    openers = from;
    return () => {
      const there = from.find(({ isConnected }) => isConnected) ?? from.at(-1);
      if (there !== undefined) focusNear(there);
    };
  }, [from]);
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
function findOpeners(): readonly HTMLElement[] {
  const { activeElement } = document;
  const label = activeElement?.closest('[role="menu"]')?.getAttribute("aria-labelledby");
  const opener = label ? document.getElementById(label) : activeElement;
  if (!(opener instanceof HTMLElement)) return [];
  return opener.closest('[role="dialog"]') === null ? [opener] : [opener, ...openers];
}
