/**
 * React 18 and later: hooks over documents, by `useSyncExternalStore`.
 *
 * Components share one handle for each client and document. It is opened by the first that renders and closed a
 * while after the last is gone; so rendering twice, as strict mode does, or never committing what was rendered,
 * neither opens a document twice nor leaves one open.
 */
import { useCallback, useEffect, useMemo, useRef, useSyncExternalStore } from "react";

import type { Client } from "../client/client.js";
import type { ChangeOptions, DocumentHandle, DocumentStatus } from "../client/document.js";
import type { PeerPresence, Presence, PresenceState } from "../client/presence.js";
import type { Frozen } from "../value/types.js";
import { isShallowEqual, peersStore, type ReadableDocument, select, statusStore } from "./store.js";

/** A handle is kept so long after the last component that used it, for one that comes next. Milliseconds. */
const CLOSE_AFTER_MS = 1_000;
/** A handle that was opened in rendering is kept so long for the component to be committed. Milliseconds. */
const ABANDONED_AFTER_MS = 5_000;

/**
 * A document in a component. A new one whenever anything in it is different.
 *
 * @example
 * function Title({ document }: { document: UsedDocument<{ title: string }> }) {
 *   return document.value?.title ?? "…";
 * }
 */
export interface UsedDocument<T> {
  /** What it reads now; nothing while there is nothing to show. */
  readonly value: Frozen<T> | undefined;
  readonly status: DocumentStatus;
  /** Changes it, as `change` of the handle does. The same function for as long as the document is the same. */
  readonly change: (callback: (draft: T) => void, options?: ChangeOptions) => void;
  /** For the other hooks; nothing in what a server renders. */
  readonly handle: DocumentHandle<T> | undefined;
}

/** What a hook needs of a client. */
type Opener = Pick<Client, "open">;

/**
 * A document by its id or URL, open while any component shows it. Without a client (on a server, or while it is
 * made) it is `loading`. Renders at each change: where that is too often, pass `handle` to {@link useValue}.
 *
 * @example
 * function Board({ client, url }: { client: Client; url: string }) {
 *   const { value, change } = useDocument<{ title: string }>(client, url);
 *   if (value === undefined) return "…";
 *   const clear = () => change((draft) => { draft.title = ""; });
 *   return createElement("button", { onClick: clear }, value.title);
 * }
 */
export function useDocument<T>(client: Opener | undefined, idOrUrl: string): UsedDocument<T> {
  const shared = client === undefined ? NOTHING : sharedOf(client, idOrUrl);
  return useSyncExternalStore(shared.subscribe, shared.getSnapshot, NOTHING.getSnapshot) as UsedDocument<T>;
}

/**
 * The handle of a document that is open while any component uses it, without rendering at its changes.
 *
 * @example
 * function Board({ client, url }: { client: Client; url: string }) {
 *   const handle = useHandle<{ title: string }>(client, url);
 *   const title = useValue(handle, (value) => value.title);
 *   return title ?? "…";
 * }
 */
export function useHandle<T>(client: Opener | undefined, idOrUrl: string): DocumentHandle<T> | undefined {
  const shared = client === undefined ? NOTHING : sharedOf(client, idOrUrl);
  const getHandle = useCallback(() => shared.getSnapshot().handle, [shared]);
  return useSyncExternalStore(shared.subscribe, getHandle, nothing) as DocumentHandle<T> | undefined;
}

/**
 * A document's value, or a part of it, or something made of it: renders only when that is different, one level
 * deep. Nothing while there is no handle.
 *
 * @example
 * const title = useValue(handle, (value) => value.title);
 * const open = useValue(handle, (value) => value.tasks.filter((task) => !task.done));
 */
export function useValue<T>(handle: ReadableDocument<T>): Frozen<T>;
export function useValue<T>(handle: ReadableDocument<T> | undefined): Frozen<T> | undefined;
export function useValue<T, Part>(handle: ReadableDocument<T>, selector: (value: Frozen<T>) => Part): Part;
export function useValue<T, Part>(
  handle: ReadableDocument<T> | undefined,
  selector: (value: Frozen<T>) => Part,
): Part | undefined;
export function useValue<T, Part>(
  handle: ReadableDocument<T> | undefined,
  selector: (value: Frozen<T>) => Frozen<T> | Part = whole,
): Frozen<T> | Part | undefined {
  const last = useRef<Frozen<T> | Part | undefined>(undefined);
  // A selector written in place is another at each rendering; what it made last time still counts.
  const store = useMemo(() => {
    const keepLast = (value: Frozen<T>): Frozen<T> | Part => {
      const part = selector(value);
      return last.current !== undefined && isShallowEqual(last.current, part) ? last.current : part;
    };
    return handle === undefined ? EMPTY : select<T, Frozen<T> | Part>(handle, keepLast);
  }, [handle, selector]);
  const part = useSyncExternalStore<Frozen<T> | Part | undefined>(store.subscribe, store.getSnapshot, store.getSnapshot);
  useEffect(() => {
    last.current = part;
  }, [part]);
  return part;
}

/**
 * A document's status.
 *
 * @example
 * const { synced } = useStatus(handle);
 */
export function useStatus(handle: Pick<DocumentHandle<unknown>, "status" | "on"> | undefined): DocumentStatus {
  const store = useMemo(() => (handle === undefined ? { ...EMPTY, getSnapshot: () => LOADING } : statusStore(handle)), [handle]);
  return useSyncExternalStore(store.subscribe, store.getSnapshot, () => LOADING);
}

/**
 * Who else has the document open, and how to tell them of oneself.
 *
 * @example
 * const { peers, set } = usePresence(handle);
 * useEffect(() => set({ name: "Ada" }), [set]);
 */
export function usePresence(handle: { readonly presence: Pick<Presence, "peers" | "on" | "set"> } | undefined): {
  readonly peers: readonly PeerPresence[];
  readonly set: (state: PresenceState) => void;
} {
  const store = useMemo(() => (handle === undefined ? { ...EMPTY, getSnapshot: () => NOBODY } : peersStore(handle)), [handle]);
  const peers = useSyncExternalStore(store.subscribe, store.getSnapshot, () => NOBODY);
  return useMemo(() => ({ peers, set: (state) => handle?.presence.set(state) }), [handle, peers]);
}

const nothing = (): undefined => undefined;
const whole = <T>(value: T): T => value;
const EMPTY = { subscribe: () => () => {}, getSnapshot: nothing };
const NOBODY: readonly PeerPresence[] = Object.freeze([]);
const LOADING: DocumentStatus = Object.freeze({
  state: "loading",
  saved: true,
  unsaved: 0,
  synced: true,
  unsynced: 0,
  readOnly: false,
  reading: undefined,
  canUndo: false,
  canRedo: false,
  error: undefined,
});

/** What a server renders, and a page while it takes that over. */
const NOTHING = {
  subscribe: EMPTY.subscribe,
  getSnapshot: (): UsedDocument<unknown> => NOT_YET,
};
const NOT_YET: UsedDocument<unknown> = Object.freeze({
  value: undefined,
  status: LOADING,
  change: () => {
    throw new Error("the document is loading");
  },
  handle: undefined,
});

/** The documents that components use, by client and id. One that is not used stays only as long as it is open. */
const shared = new WeakMap<Opener, Map<string, SharedDocument>>();

function sharedOf(client: Opener, idOrUrl: string): SharedDocument {
  const id = idOrUrl.replace(/^automerge:/, "");
  let all = shared.get(client);
  if (all === undefined) {
    all = new Map();
    shared.set(client, all);
  }
  let one = all.get(id);
  if (one === undefined) {
    const those = all;
    one = new SharedDocument(() => client.open<unknown>(id), () => those.delete(id));
    all.set(id, one);
  }
  return one;
}

/** One document's handle for all components that use it. Opens it when it is looked at, as often as need be. */
class SharedDocument {
  readonly #open: () => DocumentHandle<unknown>;
  readonly #forget: () => void;
  readonly #listeners = new Set<() => void>();
  #handle: DocumentHandle<unknown> | undefined;
  #snapshot: UsedDocument<unknown> = NOT_YET;
  #closing: ReturnType<typeof setTimeout> | undefined;

  constructor(open: () => DocumentHandle<unknown>, forget: () => void) {
    this.#open = open;
    this.#forget = forget;
  }

  readonly subscribe = (listener: () => void): (() => void) => {
    // Of its own, so that one that is given twice counts twice.
    const one = (): void => listener();
    clearTimeout(this.#closing);
    this.#listeners.add(one);
    this.#opened();
    return () => {
      this.#listeners.delete(one);
      this.#closeAfter(CLOSE_AFTER_MS);
    };
  };

  readonly getSnapshot = (): UsedDocument<unknown> => {
    this.#opened();
    return this.#snapshot;
  };

  #opened(): void {
    if (this.#handle !== undefined) {
      return;
    }
    const handle = this.#open();
    this.#handle = handle;
    const change: UsedDocument<unknown>["change"] = (callback, options) => handle.change(callback, options);
    const look = (): void => {
      const { status, value } = handle;
      // What was shown of a document that was taken from us stays, with a status that says so.
      const isShown = status.state === "ready" || this.#snapshot.value !== undefined;
      const snapshot = { value: isShown ? value : undefined, status, change, handle };
      if (!isShallowEqual(snapshot, this.#snapshot)) {
        this.#snapshot = Object.freeze(snapshot);
        for (const listener of [...this.#listeners]) {
          listener();
        }
      }
    };
    this.#snapshot = NOT_YET;
    look();
    handle.subscribe(look);
    handle.on("status", look);
    this.#closeAfter(ABANDONED_AFTER_MS);
  }

  #closeAfter(ms: number): void {
    clearTimeout(this.#closing);
    if (this.#listeners.size > 0) {
      return;
    }
    this.#closing = setTimeout(() => {
      this.#handle?.close();
      this.#handle = undefined;
      this.#forget();
    }, ms);
  }
}
