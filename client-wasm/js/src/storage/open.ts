/** Chooses where documents are kept. */

import { IndexedDbStorage } from "./indexeddb.js";
import type { IndexedDbOptions } from "./indexeddb.js";
import { MemoryStorage } from "./memory.js";
import { StorageError } from "./storage.js";
import type { Storage } from "./storage.js";

/** Which store to open. */
export interface OpenStorageOptions extends IndexedDbOptions {
  /** The database's name; stores of different names know nothing of each other. */
  readonly name: string;
  /**
   * Without it: IndexedDB, or memory where that doesn't work. `"indexeddb"`: that or an error. `"memory"`:
   * nothing is kept.
   */
  readonly kind?: "indexeddb" | "memory" | undefined;
}

/** An open store. */
export interface OpenedStorage {
  readonly storage: Storage;
  /** Why documents are in memory although they were to be kept; to be told to the user. */
  readonly fallback?: StorageError;
}

/** Opens a store. Rejects (with a {@link StorageError}) only when told to use IndexedDB. */
export async function openStorage(options: OpenStorageOptions): Promise<OpenedStorage> {
  if (options.kind === "memory") return { storage: new MemoryStorage() };
  try {
    return { storage: await IndexedDbStorage.open(options.name, options) };
  } catch (error) {
    const fallback =
      error instanceof StorageError ? error : new StorageError("unavailable", "IndexedDB failed", { cause: error });
    if (options.kind === "indexeddb") throw fallback;
    return { storage: new MemoryStorage(), fallback };
  }
}
