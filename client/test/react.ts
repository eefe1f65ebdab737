/**
 * As much of React as examples/react needs: its types, and hooks for one component that renders no
 * elements. React itself is no dependency of this project.
 */

export type Dispatch<S> = (next: S | ((last: S) => S)) => void;

declare global {
  namespace JSX {
    interface Element {
      readonly type: string;
    }
    interface IntrinsicElements {
      readonly [name: string]: { readonly [attribute: string]: unknown };
    }
  }
}

interface Slot {
  value?: unknown;
  dependencies?: readonly unknown[] | undefined;
  cleanUp?: (() => void) | undefined;
  effect?: (() => undefined | (() => void)) | undefined;
}

let current: Root<unknown> | undefined;

/** Renders a function that uses hooks, again whenever its state changes. */
export class Root<T> {
  result: T | undefined;
  readonly #slots: Slot[] = [];
  #index = 0;

  constructor(
    private readonly component: () => T,
    private readonly onRender: (result: T) => void = () => {},
  ) {
    this.render();
  }

  render(): void {
    this.#index = 0;
    current = this as Root<unknown>;
    this.result = this.component();
    current = undefined;
    for (const slot of this.#slots) {
      const { effect } = slot;
      if (effect === undefined) continue;
      slot.effect = undefined;
      slot.cleanUp?.();
      slot.cleanUp = effect() ?? undefined;
    }
    this.onRender(this.result);
  }

  unmount(): void {
    for (const slot of this.#slots) slot.cleanUp?.();
  }

  next(): Slot {
    const slot = this.#slots[this.#index] ?? {};
    this.#slots[this.#index] = slot;
    this.#index += 1;
    return slot;
  }
}

function slotOf(): { slot: Slot; root: Root<unknown> } {
  if (current === undefined) throw new Error("a hook is called outside of a component");
  return { slot: current.next(), root: current };
}

export function useState<S>(initial: S | (() => S)): [S, Dispatch<S>];
export function useState<S = undefined>(): [S | undefined, Dispatch<S | undefined>];
export function useState(initial?: unknown): [unknown, Dispatch<unknown>] {
  const { slot, root } = slotOf();
  if (!("value" in slot)) slot.value = typeof initial === "function" ? initial() : initial;
  const set: Dispatch<unknown> = (next) => {
    const value = typeof next === "function" ? next(slot.value) : next;
    if (Object.is(value, slot.value)) return;
    slot.value = value;
    root.render();
  };
  return [slot.value, set];
}

export function useRef<T>(initial: T): { current: T } {
  const { slot } = slotOf();
  slot.value ??= { current: initial };
  return slot.value as { current: T };
}

export function useEffect(effect: () => unknown, dependencies?: readonly unknown[]) {
  const { slot } = slotOf();
  const last = slot.dependencies;
  const isSame = last?.every((value, index) => Object.is(value, dependencies?.[index]));
  if (isSame !== true) slot.effect = effect as Slot["effect"];
  slot.dependencies = dependencies;
}

export function useSyncExternalStore<S>(
  subscribe: (changed: () => void) => () => void,
  getSnapshot: () => S,
  _getServerSnapshot?: () => S,
): S {
  const { root } = slotOf();
  useEffect(() => subscribe(() => root.render()), []);
  return getSnapshot();
}
