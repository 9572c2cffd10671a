/**
 * Where documents are kept in a browser. `IndexedDbStorage` is the real one, `MemoryStorage` the stated
 * fallback, `openStorage` chooses; both run the same conformance tests (`test/storage-conformance.ts`).
 *
 * The life of a document here: `load` once; `append` for every change, from here or elsewhere; `setSyncState` and
 * `sent` when the server confirmed something; `compact` when the {@link TailSize} says that it is worth it.
 */

/** A stored change chunk. */
export interface StoredChange {
  /** The change hash, 64 hex digits. */
  readonly hash: string;
  readonly bytes: Uint8Array;
}

/** What a write takes for granted. */
export type Expected =
  /** Nothing: the document may be new. */
  | "any"
  /** The document is stored. If it is not, it was removed meanwhile: nothing is written, and the call says `removed`. */
  | "stored";

/** Where changes came from that are stored. */
export type Origin =
  /** This browser: the change is marked as unsent until {@link Storage.sent} says otherwise. */
  | "own"
  /** Elsewhere: whoever brought it has it. */
  | "others";

/** A stored document chunk. */
export interface StoredSnapshot {
  /** Names it to {@link Storage.compact}; means nothing else. */
  readonly name: string;
  readonly bytes: Uint8Array;
}

/** What is stored of a document. */
export interface StoredDocument {
  /**
   * Document chunks. Usually one or none; more when several tabs compacted without knowing of each other, and
   * then each may have something that the others lack.
   */
  readonly snapshots: readonly StoredSnapshot[];
  /** Changes beside them, in the order in which they were stored; some may be in a snapshot, too. */
  readonly changes: readonly StoredChange[];
  /**
   * The sync state with the server. None, too, when something is damaged: it would speak of changes that are
   * not there, and the server would not send them again.
   */
  readonly syncState: Uint8Array | undefined;
  /**
   * How many snapshots and changes are there but can't be read; they are left out above. They stay as they are
   * until the same change is appended again, a snapshot is said to contain them, or
   * {@link Storage.forgetDamaged}.
   */
  readonly damaged: number;
}

/** How much is stored of a document, for deciding when to compact. */
export interface TailSize {
  /** Bytes of all snapshots. */
  readonly snapshotBytes: number;
  /** Changes beside the snapshots, and their bytes. */
  readonly changes: number;
  readonly changeBytes: number;
}

/** Stored records whose contents a new snapshot has, so that they can go. */
export interface Contained {
  /** Names of snapshots that the replica was loaded from, or that `compact` gave. */
  readonly snapshots: readonly string[];
  /** Hashes of changes. */
  readonly changes: readonly string[];
}

/** How much this origin stores and may store, as far as the browser tells. */
export interface StorageEstimate {
  readonly usageBytes: number | undefined;
  readonly quotaBytes: number | undefined;
}

/** Why storing failed; the page can be told. */
export type StorageFault =
  /** No space: nothing of this call was stored. Later ones may work. */
  | "quota"
  /** The browser has no such store, or not here (private mode, settings, a broken profile). */
  | "unavailable"
  /** Another tab with an older version of the application holds the database: close it, reload. */
  | "blocked"
  /** A database of that name is there, but it isn't ours. */
  | "corrupt"
  /** The database was written by a newer version of this code; it was left as it is. Reload. */
  | "version"
  /** The store is closed: by `close`, by another tab that needs a newer format, by the browser. */
  | "closed"
  /** The document was removed, by another tab; nothing of this call was stored. What builds on it has no ground. */
  | "removed"
  /** The browser refused for some other reason, see `cause`. Nothing of this call was stored. */
  | "failed";

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
 * A store of documents. All may be called from several tabs at the same time. Of a store that is kept at all,
 * a promise that resolves means: on disk, and still there when the browser crashes. One that rejects (always
 * with a {@link StorageError}): nothing of that call was stored. Nothing is removed before its replacement is
 * there. Writes of one `Storage` happen in the order of the calls; reads see all writes that have resolved, and of
 * the same `Storage` all that were called before. Bytes are copied by the call, and may be changed afterwards.
 */
export interface Storage {
  readonly kind: "indexeddb" | "memory";
  /** A name of this store that stays the same: it tells the server which browser this is. */
  readonly id: string;
  /** Whether the browser promised not to evict this store to gain space. Asked for once; never rejects. */
  readonly persisted: Promise<boolean>;
  /** How full it is; `undefined` where the browser doesn't say. Never rejects. */
  estimate(): Promise<StorageEstimate | undefined>;
  /** `undefined` when nothing at all is stored of this document. */
  load(document: string): Promise<StoredDocument | undefined>;
  /**
   * Adds changes; those that are there already and can be read are left as they are. What is left to compact
   * afterwards. Marks of own changes are stored with them, at once.
   */
  append(document: string, changes: readonly StoredChange[], origin: Origin, expected: Expected): Promise<TailSize>;
  /**
   * Takes the mark from those unsent changes of the document that the server is known to keep, as `isSent` says when
   * the marks are read: it is asked later than the call, and must not throw. How many marks are left. Nothing else
   * takes a mark away but forgetting the document.
   */
  sent(document: string, isSent: (hash: string) => boolean): Promise<number>;
  /** The ids of all documents that have changes marked as unsent. */
  unsent(): Promise<string[]>;
  /** Hashes of the changes beside the snapshots, whoever stored them and whether they can be read or not. */
  tail(document: string): Promise<string[]>;
  /**
   * To be called only after the changes of which it speaks were stored: an `append` may still fail. Does nothing when
   * nothing is stored of the document: it was removed meanwhile.
   */
  setSyncState(document: string, state: Uint8Array): Promise<void>;
  /**
   * At once: adds this snapshot and removes exactly the records that it contains. All else stays, also what
   * another tab stored meanwhile. The new snapshot's name.
   */
  compact(document: string, snapshot: Uint8Array, contained: Contained, expected: Expected): Promise<string>;
  /**
   * Removes records that can't be read: for when the document is known to be whole without them. How many
   * snapshots and changes that were.
   */
  forgetDamaged(document: string): Promise<number>;
  /** Forgets a document. */
  remove(document: string): Promise<void>;
  /** The ids of all stored documents. */
  list(): Promise<string[]>;
  /** Forgets all documents. The {@link id} stays: other tabs have told it to the server. */
  clear(): Promise<void>;
  /** Further calls fail with `closed`; what was begun ends first. */
  close(): Promise<void>;
}

/** For a write that expected a document. */
export function removed(document: string): StorageError {
  return new StorageError("removed", `the document ${document} was removed`);
}

/** 128 random bits as 32 hex digits. */
export function randomName(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
