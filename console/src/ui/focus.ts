/** Where the focus goes when what has it leaves the page: nobody is sent back to the beginning. */

const focusable = 'a[href], button, input, select, textarea, [tabindex], [contenteditable="true"]';

/** What could have the focus before something on the page or in its dialog, the nearest first. */
const before = new WeakMap<Element, readonly HTMLElement[]>();

let last: Element | undefined;

/** From now on; a removed button, row or dialog hands the focus to what was before it. */
export function keepFocus(): void {
  document.addEventListener("focusin", ({ target }) => {
    if (!(target instanceof HTMLElement)) return;
    last = target;
    const scope = target.closest('[role="dialog"], main') ?? document.body;
    const all = [...scope.querySelectorAll<HTMLElement>(focusable)];
    before.set(target, all.slice(0, Math.max(0, all.indexOf(target))).reverse());
  });
  document.addEventListener("focusout", ({ target }) => {
    // Whoever clicked beside it wants it nowhere; what leaves the page is gone by then.
    queueMicrotask(() => {
      if (target === last && last?.isConnected === true && isNowhere()) last = undefined;
    });
  });
  new MutationObserver(() => {
    if (isNowhere() && last?.isConnected === false) focusNear(last);
  }).observe(document.body, { childList: true, subtree: true });
}

/** Gives it the focus; else, if it is gone, what was before it; else the page's heading. */
export function focusNear(element: Element): void {
  last = undefined;
  for (const each of [element, ...(before.get(element) ?? [])]) {
    if (!(each instanceof HTMLElement) || !each.isConnected) continue;
    each.focus();
    if (document.activeElement === each) return;
  }
  focusHeading();
}

function isNowhere(): boolean {
  return document.activeElement === null || document.activeElement === document.body;
}

/** Where one begins to read. */
export function focusHeading(): void {
  document.querySelector<HTMLElement>("main h1")?.focus();
}
