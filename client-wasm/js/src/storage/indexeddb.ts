/**
 * Documents in IndexedDB. The layout of the database and why no crash harms it: `format.ts`. Here: one
 * connection, the queue of writes before it, and its end.
 */

import { CHANGES, DOCUMENTS, DOCUMENT_STORES, META, SNAPSHOTS, SYNC } from "./format.js";
import { decodeChange, decodeId, decodeSnapshot, decodeSync, ID_KEY } from "./format.js";
import { encodeChange, encodeSnapshot, encodeSync, keysOf } from "./format.js";
import { BLOCKED_MS, OPEN_MS, explain, explainOpening } from "./idb.js";
import { openDatabase, read, readAll, readOne, runTransaction } from "./idb.js";
import type { OpenHow } from "./idb.js";
import { askToPersist, estimate } from "./quota.js";
import { StorageError, removed } from "./storage.js";
import type { Contained, Expected, Origin, Storage, StorageEstimate, StoredChange, StoredDocument, TailSize } from "./storage.js";
import { applyEdits, claimId, clear, compact, forgetDamaged, remove, sent, unsent } from "./writes.js";
import type { Edit } from "./writes.js";

/** What {@link IndexedDbStorage.open} may be told, mostly by tests. */
export interface IndexedDbOptions {
  /** Instead of the global `indexedDB`. The global `IDBKeyRange` has to be of the same kind. */
  readonly factory?: IDBFactory | undefined;
  /** Instead of `navigator.storage`. */
  readonly manager?: StorageManager | undefined;
  /** Milliseconds until a database that doesn't answer counts as unavailable; {@link OPEN_MS} by default. */
  readonly openMs?: number | undefined;
  /** Milliseconds that other tabs get for closing an older version; {@link BLOCKED_MS} by default. */
  readonly blockedMs?: number | undefined;
}

/** A write that waits for its transaction. */
interface Waiting {
  /** There when it may share a transaction with its neighbours. */
  readonly edit?: Edit;
  /** Otherwise: runs it alone. Never rejects. */
  readonly alone?: () => Promise<void>;
  /** Of which document it is; none: of all. */
  readonly document: string | undefined;
  /** Nothing: the document was not there. */
  readonly resolve: (size: TailSize | undefined) => void;
  readonly reject: (error: StorageError) => void;
}

/**
 * A {@link Storage} in IndexedDB.
 *
 * Appends and sync states that are called while a transaction runs wait, and are all written by the next one;
 * if that fails, all of them reject. A compaction has a transaction of its own, so that a snapshot for which
 * there is no space doesn't take small changes with it.
 *
 * When another tab needs a newer format, the connection closes once its transaction has ended; from then on
 * every call rejects with `closed`. When the browser closes it, calls under way reject with `closed`, and the
 * next call opens it once more. If that fails, or the browser deleted the database (then it must not be filled
 * with changes that build on deleted ones), the store stays closed, and only loading the page anew helps.
 */
export class IndexedDbStorage implements Storage {
  readonly kind = "indexeddb";
  readonly id: string;
  readonly persisted: Promise<boolean>;

  readonly #reopen: () => Promise<IDBDatabase>;
  readonly #manager: StorageManager | undefined;
  #database: IDBDatabase | undefined;
  #reopening: Promise<IDBDatabase> | undefined;
  /** Why nothing works any more. */
  #ended: StorageError | undefined;
  /** Set by `close`: new calls are refused, waiting writes are still written. */
  #closing: Promise<void> | undefined;
  #queue: Waiting[] = [];
  /** Writes that were called and are not over, each with when it is. */
  readonly #unwritten = new Map<Waiting, Promise<unknown>>();
  #writing: Promise<void> | undefined;

  private constructor(
    database: IDBDatabase,
    id: string,
    reopen: () => Promise<IDBDatabase>,
    manager: StorageManager | undefined,
  ) {
    this.id = id;
    this.#reopen = reopen;
    this.#manager = manager;
    this.persisted = askToPersist(manager);
    this.#adopt(database);
  }

  /**
   * Opens the database `name`; makes or upgrades it if need be. Rejects with a {@link StorageError}:
   * `unavailable`, `blocked`, `quota`, `version`, `corrupt`, `failed`.
   */
  static async open(name: string, options: IndexedDbOptions = {}): Promise<IndexedDbStorage> {
    const factory = options.factory ?? globalFactory();
    const how = { openMs: options.openMs ?? OPEN_MS, blockedMs: options.blockedMs ?? BLOCKED_MS };
    const connect = (more: Pick<OpenHow, "create">): Promise<IDBDatabase> =>
      openDatabase(factory, name, { ...how, ...more });

    const database = await connect({ create: true });
    try {
      const id = await runTransaction(begin(database, [META], "readwrite"), claimId);
      const manager = options.manager ?? (globalThis.navigator as Navigator | undefined)?.storage;
      return new IndexedDbStorage(database, id, () => connect({ create: false }), manager);
    } catch (error) {
      database.close();
      throw explain(error);
    }
  }

  async load(document: string): Promise<StoredDocument | undefined> {
    const [tail, changes, snapshots, sync] = await this.#read((tx) =>
      Promise.all([
        readOne(tx.objectStore(DOCUMENTS), document),
        readAll(tx.objectStore(CHANGES), keysOf(document)),
        readAll(tx.objectStore(SNAPSHOTS), keysOf(document)),
        readOne(tx.objectStore(SYNC), document),
      ]),
      document,
    );
    if (tail === undefined && sync === undefined && changes.length + snapshots.length === 0) return undefined;
    const goodChanges = changes.map(decodeChange).filter((change) => change !== undefined);
    const goodSnapshots = snapshots.map(decodeSnapshot).filter((snapshot) => snapshot !== undefined);
    const damaged = changes.length - goodChanges.length + snapshots.length - goodSnapshots.length;
    return {
      snapshots: goodSnapshots.map(({ name, bytes }) => ({ name, bytes })),
      changes: goodChanges.sort((a, b) => a.order - b.order).map(({ hash, bytes }) => ({ hash, bytes })),
      syncState: damaged === 0 ? decodeSync(sync) : undefined,
      damaged,
    };
  }

  async list(): Promise<string[]> {
    const keys = await this.#read((tx) => read(tx.objectStore(DOCUMENTS).getAllKeys()));
    return keys.filter((key) => typeof key === "string");
  }

  async append(
    document: string,
    changes: readonly StoredChange[],
    origin: Origin,
    expected: Expected,
  ): Promise<TailSize> {
    const records = changes.map(({ hash, bytes }) => encodeChange(document, hash, bytes));
    const size = await this.#edit({ document, changes: records, origin, expected, syncState: undefined });
    if (!size) throw removed(document);
    return size;
  }

  async tail(document: string): Promise<string[]> {
    const keys = await this.#read((tx) => read(tx.objectStore(CHANGES).getAllKeys(keysOf(document))), document);
    return keys.filter((key) => Array.isArray(key)).map((key) => String(key[1]));
  }

  sent(document: string, isSent: (hash: string) => boolean): Promise<number> {
    return this.#alone((tx) => sent(tx, document, isSent), document);
  }

  unsent(): Promise<string[]> {
    return this.#read(unsent);
  }

  async setSyncState(document: string, state: Uint8Array): Promise<void> {
    const syncState = encodeSync(document, state);
    await this.#edit({ document, changes: [], origin: "others", expected: "stored", syncState });
  }

  async compact(document: string, snapshot: Uint8Array, contained: Contained, expected: Expected): Promise<string> {
    const record = encodeSnapshot(document, snapshot);
    const names = { snapshots: [...contained.snapshots], changes: [...contained.changes] };
    await this.#alone((tx) => compact(tx, record, names, expected), document);
    return record.name;
  }

  forgetDamaged(document: string): Promise<number> {
    return this.#alone((tx) => forgetDamaged(tx, document), document);
  }

  remove(document: string): Promise<void> {
    return this.#alone(async (tx) => remove(tx, document), document);
  }

  clear(): Promise<void> {
    return this.#alone(async (tx) => clear(tx));
  }

  estimate(): Promise<StorageEstimate | undefined> {
    return estimate(this.#manager);
  }

  close(): Promise<void> {
    this.#closing ??= (this.#writing ?? Promise.resolve()).then(() => {
      // Transactions that still read end before the connection does; that is how IndexedDB closes.
      this.#end("it was closed");
    });
    return this.#closing;
  }

  #edit(edit: Edit): Promise<TailSize | undefined> {
    const { document } = edit;
    return this.#enqueue((resolve, reject) => ({ edit, document, resolve, reject }));
  }

  #alone<T>(body: (tx: IDBTransaction) => Promise<T>, document?: string): Promise<T> {
    return this.#enqueue<T>((resolve, reject) => {
      const alone = (): Promise<void> => this.#transact("readwrite", body).then(resolve, reject);
      return { alone, document, resolve: () => undefined, reject };
    });
  }

  /** Of a document, or of all, after what was to be written there before. */
  async #read<T>(body: (tx: IDBTransaction) => Promise<T>, document?: string): Promise<T> {
    if (this.#closing) throw closed("it was closed");
    if (this.#ended) throw this.#ended;
    const touches = (waiting: Waiting): boolean =>
      document === undefined || waiting.document === undefined || waiting.document === document;
    const before = [...this.#unwritten].filter(([waiting]) => touches(waiting)).map(([, over]) => over);
    if (before.length > 0) await Promise.all(before);
    return this.#transact("readonly", body);
  }

  #enqueue<T>(waitingOf: (resolve: (result: T) => void, reject: (error: unknown) => void) => Waiting): Promise<T> {
    if (this.#closing) return Promise.reject(closed("it was closed"));
    const { result, resolve, reject } = later<T>();
    const waiting = waitingOf(resolve, reject);
    const over = (): void => void this.#unwritten.delete(waiting);
    this.#unwritten.set(waiting, result.then(over, over));
    this.#queue.push(waiting);
    this.#writing ??= this.#writeAll();
    return result;
  }

  /** Writes what waits until nothing does. Never rejects. */
  async #writeAll(): Promise<void> {
    // What is called in the same turn goes into the same transaction.
    await Promise.resolve();
    for (;;) {
      const end = this.#queue.findIndex(({ edit }) => edit === undefined);
      const group = this.#queue.splice(0, end < 0 ? this.#queue.length : Math.max(end, 1));
      const [first] = group;
      if (!first) break;
      await (first.alone ? first.alone() : this.#writeGroup(group));
    }
    this.#writing = undefined;
  }

  async #writeGroup(group: readonly Waiting[]): Promise<void> {
    const edits = group.map(({ edit }) => edit).filter((edit) => edit !== undefined);
    try {
      const sizes = await this.#transact("readwrite", (tx) => applyEdits(tx, edits));
      group.forEach(({ resolve }, index) => resolve(sizes[index]));
    } catch (error) {
      for (const { reject } of group) reject(explain(error));
    }
  }

  async #transact<T>(mode: "readonly" | "readwrite", body: (tx: IDBTransaction) => Promise<T>): Promise<T> {
    const database = await this.#connection();
    let tx: IDBTransaction;
    try {
      tx = begin(database, DOCUMENT_STORES, mode);
    } catch (error) {
      // The browser closed it and said nothing; or another tab asked for it between two lines of ours.
      this.#lose(database);
      throw this.#ended ?? closed("the browser closed it", error);
    }
    try {
      return await runTransaction(tx, body);
    } catch (error) {
      // Nobody but the browser aborts with this error: it is closing the connection, and its `close` event follows.
      if (nameOf(error) === "AbortError") throw closed("the browser closed it", error);
      throw explain(error);
    }
  }

  async #connection(): Promise<IDBDatabase> {
    if (this.#ended) throw this.#ended;
    if (this.#database) return this.#database;
    this.#reopening ??= this.#openAgain().finally(() => (this.#reopening = undefined));
    return this.#reopening;
  }

  async #openAgain(): Promise<IDBDatabase> {
    try {
      const database = await this.#reopen();
      if (this.#ended) {
        database.close();
        throw this.#ended;
      }
      this.#adopt(database);
      const known = await runTransaction(begin(database, [META], "readonly"), (tx) =>
        readOne(tx.objectStore(META), ID_KEY),
      );
      if (decodeId(known) !== this.id) throw closed("the browser deleted it");
      return database;
    } catch (error) {
      this.#end("the browser closed it", explainOpening(error));
      throw this.#ended ?? explain(error);
    }
  }

  #adopt(database: IDBDatabase): void {
    this.#database = database;
    database.onclose = () => this.#lose(database);
    database.onversionchange = () => this.#end("another tab needs the database for a newer version, or deletes it");
  }

  /** The browser took the connection away; the next call tries once to get another. */
  #lose(database: IDBDatabase): void {
    if (this.#database === database) this.#database = undefined;
  }

  #end(why: string, cause?: unknown): void {
    this.#ended ??= closed(why, cause);
    this.#database?.close();
    this.#database = undefined;
  }
}

/**
 * `strict`: `complete` is sent after the browser's own log is on disk. Browsers that don't know the option do
 * as they always do.
 */
function begin(database: IDBDatabase, stores: readonly string[], mode: "readonly" | "readwrite"): IDBTransaction {
  return database.transaction(stores as string[], mode, { durability: "strict" });
}

function globalFactory(): IDBFactory {
  let factory: IDBFactory | undefined;
  try {
    // In a sandboxed frame, merely looking at it throws.
    factory = globalThis.indexedDB as IDBFactory | undefined;
  } catch (error) {
    throw explainOpening(error);
  }
  if (!factory) throw new StorageError("unavailable", "this browser has no IndexedDB");
  return factory;
}

interface Later<T> {
  readonly result: Promise<T>;
  readonly resolve: (result: T) => void;
  readonly reject: (error: unknown) => void;
}

function later<T>(): Later<T> {
  let ends: Omit<Later<T>, "result"> | undefined;
  const result = new Promise<T>((resolve, reject) => (ends = { resolve, reject }));
  return { result, ...(ends as unknown as Omit<Later<T>, "result">) };
}

function closed(why: string, cause?: unknown): StorageError {
  return new StorageError("closed", `the store is closed: ${why}`, cause === undefined ? undefined : { cause });
}

function nameOf(error: unknown): string {
  return error instanceof Error || error instanceof DOMException ? error.name : "";
}
