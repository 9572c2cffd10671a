/**
 * The store contract, `subscribe` and `getSnapshot`, over documents: for libraries that take it, and for the other
 * bindings. Snapshots are the client's own frozen values, so they are the same object until something is different.
 *
 * The bindings import nothing but types from the client: whatever page uses them has the client already.
 */
import type { DocumentHandle, DocumentStatus } from "../client/document.js";
import type { PeerPresence, Presence } from "../client/presence.js";
import type { Frozen } from "../value/types.js";

/**
 * Something to show that may become another.
 *
 * @example
 * const store: Store<string> = select(board, (value) => value.title);
 * const stop = store.subscribe(() => { document.title = store.getSnapshot(); });
 */
export interface Store<T> {
  /** Calls `listener` when the snapshot may be another; what it returns ends that. */
  subscribe(listener: () => void): () => void;
  /** What is to be shown now: the same one as last time, unless it is different. */
  getSnapshot(): T;
}

/**
 * What a store needs of a handle.
 *
 * @example
 * function titleOf(board: ReadableDocument<{ title: string }>): string {
 *   return board.value.title;
 * }
 */
export type ReadableDocument<T> = Pick<DocumentHandle<T>, "value" | "subscribe">;

/**
 * The whole value of a document.
 *
 * @example
 * const store = valueStore(board);
 * store.subscribe(() => render(store.getSnapshot()));
 */
export function valueStore<T>(handle: ReadableDocument<T>): Store<Frozen<T>> {
  return {
    subscribe: (listener) => handle.subscribe(listener),
    getSnapshot: () => handle.value,
  };
}

/**
 * A part of a document, or something that is made of it. Listeners are called only when it is different: by
 * `isEqual`, which compares one level deep unless it is given, so that a selector may make a new array each time.
 *
 * @example
 * const open = select(board, (value) => value.tasks.filter((task) => !task.done));
 * open.subscribe(() => render(open.getSnapshot()));
 */
export function select<T, Part>(
  handle: ReadableDocument<T>,
  selector: (value: Frozen<T>) => Part,
  isEqual: (one: Part, other: Part) => boolean = isShallowEqual,
): Store<Part> {
  let last: { readonly of: Frozen<T>; readonly part: Part } | undefined;
  const getSnapshot = (): Part => {
    const { value } = handle;
    if (last?.of !== value) {
      const part = selector(value);
      last = { of: value, part: last !== undefined && isEqual(last.part, part) ? last.part : part };
    }
    return last.part;
  };
  return {
    getSnapshot,
    subscribe: (listener) => {
      let shown = getSnapshot();
      return handle.subscribe(() => {
        const next = getSnapshot();
        if (!Object.is(next, shown)) {
          shown = next;
          listener();
        }
      });
    },
  };
}

/**
 * A document's status.
 *
 * @example
 * const store = statusStore(board);
 * store.subscribe(() => { dot.hidden = store.getSnapshot().synced; });
 */
export function statusStore(handle: Pick<DocumentHandle<unknown>, "status" | "on">): Store<DocumentStatus> {
  return {
    subscribe: (listener) => handle.on("status", () => listener()),
    getSnapshot: () => handle.status,
  };
}

/**
 * The others who have a document open.
 *
 * @example
 * const store = peersStore(board);
 * store.subscribe(() => { count.textContent = String(store.getSnapshot().length); });
 */
export function peersStore(handle: { readonly presence: Pick<Presence, "peers" | "on"> }): Store<readonly PeerPresence[]> {
  return {
    subscribe: (listener) => handle.presence.on("change", () => listener()),
    getSnapshot: () => handle.presence.peers,
  };
}

/**
 * Whether two values are the same, or arrays or plain objects with the same in them.
 *
 * @example
 * isShallowEqual([1, 2], [1, 2]); // true
 * isShallowEqual([[]], [[]]); // false
 */
export function isShallowEqual(one: unknown, other: unknown): boolean {
  if (Object.is(one, other)) {
    return true;
  }
  if (!isContainer(one) || !isContainer(other) || Array.isArray(one) !== Array.isArray(other)) {
    return false;
  }
  const keys = Object.keys(one);
  return (
    keys.length === Object.keys(other).length &&
    keys.every((key) => Object.hasOwn(other, key) && Object.is(one[key], other[key]))
  );
}

/** Dates, byte strings and counters are compared by identity: what is in them can't be seen from outside. */
function isContainer(value: unknown): value is { readonly [key: string]: unknown } {
  if (typeof value !== "object" || value === null) {
    return false;
  }
  const prototype: unknown = Object.getPrototypeOf(value);
  return Array.isArray(value) || prototype === Object.prototype || prototype === null;
}
