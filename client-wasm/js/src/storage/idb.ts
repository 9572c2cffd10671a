/** IndexedDB as promises: requests, transactions, opening. What its errors mean to a page. */

import { FORMAT_VERSION, isOurs, upgrade } from "./format.js";
import { StorageError } from "./storage.js";

/** How long to wait for a database to open: some browsers never answer at all. Slow disks take seconds. */
export const OPEN_MS = 10_000;
/** How long other tabs may take to let go of a database of an older version. They do so once their writes end. */
export const BLOCKED_MS = 3_000;

/** How to open a database. */
export interface OpenHow {
  readonly openMs: number;
  readonly blockedMs: number;
  /** Whether to make the database if there is none. */
  readonly create: boolean;
}

/** Stands for a record that is there but can't even be read. */
export const UNREADABLE = null;

/**
 * The result of a request that reads. A failed one rejects and leaves its transaction alive. (Requests that
 * write get no handler: when they fail, so does the transaction.)
 */
export function read<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = (event) => {
      event.preventDefault();
      event.stopPropagation();
      reject(request.error ?? new Error("a request failed"));
    };
  });
}

/** A record, `undefined` when there is none, {@link UNREADABLE} when the browser can't read it. */
export function readOne(store: IDBObjectStore, key: IDBValidKey): Promise<unknown> {
  return read<unknown>(store.get(key)).catch(() => UNREADABLE);
}

/**
 * All records in a range. One that the browser can't read (Chromium keeps large values in files of their own,
 * which may be gone) fails the whole request: then they are read one by one, for the sake of the others.
 */
export async function readAll(store: IDBObjectStore, range: IDBKeyRange): Promise<unknown[]> {
  try {
    return await read<unknown[]>(store.getAll(range));
  } catch {
    const keys = await read(store.getAllKeys(range));
    return Promise.all(keys.map((key) => readOne(store, key)));
  }
}

/**
 * Runs `body` in a transaction; resolves with what it returned once all is on disk. If the body fails, nothing
 * is written. Inside, only requests of this transaction may be awaited.
 */
export function runTransaction<T>(tx: IDBTransaction, body: (tx: IDBTransaction) => Promise<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    let result: { readonly value: T } | undefined;
    let failure: unknown;
    tx.oncomplete = () => (result ? resolve(result.value) : reject(failure ?? new Error("ended too early")));
    // Its own error comes first: that the body's reads failed then is only a consequence.
    tx.onabort = () => reject(tx.error ?? failure ?? new Error("aborted"));
    body(tx).then(
      (value) => (result = { value }),
      (error: unknown) => {
        failure = error;
        try {
          tx.abort();
        } catch {
          // It is over already, and one of the events above tells so.
        }
      },
    );
  });
}

/**
 * Opens the database, upgraded to {@link FORMAT_VERSION}. Rejects with a {@link StorageError}: `version`,
 * `blocked`, `quota`, `corrupt`, `unavailable`. The connection closes itself for other tabs' upgrades.
 */
export function openDatabase(factory: IDBFactory, name: string, how: OpenHow): Promise<IDBDatabase> {
  return new Promise((resolve, reject) => {
    let over = false;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const giveUp = (error: StorageError): void => {
      over = true;
      clearTimeout(timer);
      reject(error);
    };
    const expectWithin = (ms: number, error: () => StorageError): void => {
      clearTimeout(timer);
      timer = setTimeout(() => giveUp(error()), ms);
    };
    const silent = (): StorageError => new StorageError("unavailable", "the browser's database doesn't answer");

    let request: IDBOpenDBRequest;
    try {
      request = factory.open(name, FORMAT_VERSION);
    } catch (error) {
      giveUp(explainOpening(error));
      return;
    }
    expectWithin(how.openMs, silent);
    request.onblocked = () => {
      if (over) return;
      expectWithin(how.blockedMs, () => new StorageError("blocked", "another tab holds an older version of the database"));
    };
    let failure: StorageError | undefined;
    request.onupgradeneeded = (event) => {
      if (!over) expectWithin(how.openMs, silent);
      try {
        // Whoever waited was told that it failed: nothing may happen behind their back.
        if (over) throw new StorageError("unavailable", "too late");
        if (!how.create && event.oldVersion === 0) throw new StorageError("closed", "the database was deleted");
        upgrade(request.result, event.oldVersion);
      } catch (error) {
        failure = explainOpening(error);
        request.transaction?.abort();
      }
    };
    request.onerror = (event) => {
      event.preventDefault();
      giveUp(failure ?? explainOpening(request.error));
    };
    request.onsuccess = () => {
      const database = request.result;
      if (over) {
        database.close();
        return;
      }
      if (!isOurs(database)) {
        database.close();
        giveUp(new StorageError("corrupt", `the database ${name} lacks the stores it should have`));
        return;
      }
      over = true;
      clearTimeout(timer);
      database.onversionchange = () => database.close();
      resolve(database);
    };
  });
}

/** What an error of a transaction means. */
export function explain(error: unknown): StorageError {
  if (error instanceof StorageError) return error;
  if (nameOf(error) === "QuotaExceededError") return new StorageError("quota", "no space left", { cause: error });
  return new StorageError("failed", `the browser's database failed: ${describe(error)}`, { cause: error });
}

/** What an error of opening means. */
export function explainOpening(error: unknown): StorageError {
  if (error instanceof StorageError) return error;
  switch (nameOf(error)) {
    case "VersionError":
      return new StorageError("version", "the database was written by a newer version", { cause: error });
    case "QuotaExceededError":
      return new StorageError("quota", "no space for a database", { cause: error });
    default:
      return new StorageError("unavailable", `no database can be opened: ${describe(error)}`, { cause: error });
  }
}

function nameOf(error: unknown): string {
  return typeof error === "object" && error !== null && "name" in error ? String(error.name) : "";
}

function describe(error: unknown): string {
  if (typeof error !== "object" || error === null) return String(error);
  return "message" in error && error.message ? String(error.message) : nameOf(error) || "no reason given";
}
