/**
 * A fake IndexedDB whose connections can be watched and made to fail. It reaches into fake-indexeddb's
 * transactions: that is where a real browser runs out of space, too.
 */

import { IDBFactory, IDBKeyRange } from "fake-indexeddb";

// The storage code takes it from the window.
globalThis.IDBKeyRange = IDBKeyRange;

/** What becomes of a transaction. */
export type Fate =
  | "ok"
  /** No space at its first write. */
  | "quota at a write"
  /** All requests succeed; then there is no space. */
  | "quota at commit"
  /** The browser gives up, for reasons of its own. */
  | "unknown at commit"
  /** The connection can't begin one. */
  | "cannot begin";

/** What fake-indexeddb has inside. */
interface Inner extends IDBTransaction {
  _start(): void;
  _abort(name: string): void;
  _requests: unknown[];
  _state: string;
}

/** A factory for one test: its databases are its own. */
export class Lab {
  readonly inner = new IDBFactory();
  /** Modes and durabilities of the transactions begun by the code under test. */
  readonly begun: { readonly mode: string; readonly durability: string }[] = [];
  /** Connections that the code under test opened. */
  readonly connections: IDBDatabase[] = [];
  /** Decides for each transaction that writes. */
  fate: () => Fate = () => "ok";
  /** Until it resolves, no write is committed. */
  held: Promise<void> = Promise.resolve();
  /** Called for `open` instead of asking for the version that the code wants. */
  versionFor: (wanted: number | undefined) => number | undefined = (wanted) => wanted;

  readonly factory: IDBFactory = {
    open: (name: string, version?: number) => {
      const request = this.inner.open(name, this.versionFor(version));
      request.addEventListener("success", () => this.#watch(request.result));
      return request;
    },
    deleteDatabase: (name: string) => this.inner.deleteDatabase(name),
    databases: () => this.inner.databases(),
    cmp: (first: unknown, second: unknown) => this.inner.cmp(first, second),
  };

  /** A connection that isn't the code's own, for looking at records and spoiling them. */
  async raw(name: string, version?: number, upgrade?: (database: IDBDatabase) => void): Promise<IDBDatabase> {
    const request = this.inner.open(name, version);
    request.onupgradeneeded = () => upgrade?.(request.result);
    return settled(request);
  }

  /** Runs one raw request in a transaction of its own, to its end. */
  async edit<T>(name: string, store: string, body: (store: IDBObjectStore) => IDBRequest<T>): Promise<T> {
    const database = await this.raw(name);
    const tx = database.transaction(store, "readwrite");
    const result = settled(body(tx.objectStore(store)));
    await new Promise((resolve) => (tx.oncomplete = resolve));
    database.close();
    return result;
  }

  #watch(database: IDBDatabase): void {
    this.connections.push(database);
    const begin = database.transaction.bind(database);
    database.transaction = (stores, mode = "readonly", options) => {
      const fate = mode === "readwrite" ? this.fate() : "ok";
      if (fate === "cannot begin") throw new DOMException("connection is closing", "InvalidStateError");
      const tx = begin(stores, mode, options) as Inner;
      this.begun.push({ mode, durability: options?.durability ?? "default" });
      if (mode === "readwrite") this.#decide(tx, fate);
      return tx;
    };
  }

  #decide(tx: Inner, fate: Fate): void {
    const start = tx._start.bind(tx);
    const { held } = this;
    let free = false;
    void held.then(() => (free = true));
    tx._start = () => {
      const atEnd = tx._requests.length === 0 && tx._state !== "finished";
      if (atEnd && !free) void held.then(() => setImmediate(() => tx._start()));
      else if (atEnd && fate === "quota at commit") tx._abort("QuotaExceededError");
      else if (atEnd && fate === "unknown at commit") tx._abort("UnknownError");
      else start();
    };
    if (fate !== "quota at a write") return;
    const objectStore = tx.objectStore.bind(tx);
    tx.objectStore = (name) => {
      const store = objectStore(name);
      const put = store.put.bind(store);
      store.put = (value, key) => {
        const request = key === undefined ? put(value) : put(value, key);
        request.addEventListener("success", () => {
          if (tx._state !== "finished") tx._abort("QuotaExceededError");
        });
        return request;
      };
      return store;
    };
  }
}

/** A request's result. */
export function settled<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}
