/**
 * Where documents are kept in a browser. {@link IndexedDbStorage} is the real one, {@link MemoryStorage} the
 * stated fallback; both run the same conformance tests (`test/storage-conformance.ts`).
 */

/** A stored change chunk. */
export interface StoredChange {
  /** The change hash, 64 hex digits. */
  readonly hash: string;
  readonly bytes: Uint8Array;
}

/** What is stored of a document. */
export interface StoredDocument {
  /** A document chunk, or none yet. */
  readonly snapshot: Uint8Array | undefined;
  /** Changes beside it, in the order in which they were stored; some may be in the snapshot, too. */
  readonly changes: readonly StoredChange[];
  /** The sync state with the server. */
  readonly syncState: Uint8Array | undefined;
}

/** How much is stored beside the snapshot, for deciding when to compact. */
export interface TailSize {
  readonly snapshotBytes: number;
  readonly changes: number;
  readonly changeBytes: number;
}

/** Why storing failed; the page can be told. */
export type StorageFault = "quota" | "unavailable" | "corrupt" | "version" | "closed" | "failed";

/** Something that storage could not do. */
export class StorageError extends Error {
  readonly fault: StorageFault;
  constructor(fault: StorageFault, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = "StorageError";
    this.fault = fault;
  }
}

/**
 * A store of documents. All may be called from several tabs at the same time. A promise that resolves means:
 * on disk, and still there when the browser crashes. Nothing is removed before its replacement is there.
 */
export interface Storage {
  readonly kind: "indexeddb" | "memory";
  /** A name of this store that stays the same: it tells the server which browser this is. */
  readonly id: string;
  load(document: string): Promise<StoredDocument | undefined>;
  /** Adds changes; those that are there already are left as they are. What is left to compact afterwards. */
  append(document: string, changes: readonly StoredChange[]): Promise<TailSize>;
  setSyncState(document: string, state: Uint8Array): Promise<void>;
  /** At once: the snapshot becomes this one, and the changes with these hashes, which it contains, go. */
  compact(document: string, snapshot: Uint8Array, contained: readonly string[]): Promise<void>;
  /** Forgets a document. */
  remove(document: string): Promise<void>;
  /** The ids of all stored documents. */
  list(): Promise<string[]>;
  /** Forgets everything. */
  clear(): Promise<void>;
  /** Further calls fail with `closed`; what was begun ends first. */
  close(): Promise<void>;
}
