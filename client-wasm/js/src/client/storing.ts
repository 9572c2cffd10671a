/**
 * What of the documents goes into this browser's storage, and when: own changes at once, others' by the tab that
 * leads, all as one snapshot now and then. What could not be stored is tried again.
 */
import { type Expected, type Storage, StorageError, type TailSize } from "../storage/storage.js";
import type { ChangeHash, Chunk } from "../wasm.js";
import { asError } from "./chunks.js";
import { type Arrived, type LiveDocument, sameHeads } from "./live.js";

/** What {@link Storing} needs of its client. */
export interface StoringHost {
  /** Whether the document is in use and its replica may be asked: not deleted, dropped or failed. */
  isUsable(live: LiveDocument): boolean;
  /** Whether this tab stores what others changed. */
  keepsOthers(): boolean;
  /** Something about the document may be different. */
  looked(live: LiveDocument, error?: Error): void;
  /** All of it may be stored. */
  saved(live: LiveDocument): void;
  /** Storage has changes that are not here; of each it is told once while this tab leads. */
  lacks(live: LiveDocument): void;
  /** It was removed from storage, by another tab, and what was to be stored with it. */
  removed(live: LiveDocument): void;
}

/** So much beside a snapshot is compacted: changes, and bytes where they are more than the snapshot. */
const COMPACT_CHANGES = 500;
const COMPACT_BYTES = 64 * 1024;
/** What could not be stored is tried again so much later, milliseconds. */
const SAVE_AGAIN_AFTER_MS = 5_000;
/** The sync state is stored so long after it was different, milliseconds; losing it costs little. */
const SYNC_STATE_AFTER_MS = 1_000;

/** See the module's comment. */
export class Storing {
  readonly #storage: Storage;
  readonly #host: StoringHost;
  readonly #syncStates = new Map<LiveDocument, ReturnType<typeof setTimeout>>();
  /** Sync states whose time came while something was not stored of which they speak. */
  readonly #late = new WeakSet<LiveDocument>();
  /** Marked changes that are not here, though storage was read for them: maybe they can't be read. */
  readonly #lacking = new WeakMap<LiveDocument, Set<ChangeHash>>();
  /** One attempt more for each document, however much of it could not be stored. */
  readonly #retries = new Map<LiveDocument, ReturnType<typeof setTimeout>>();
  /** Compactions that wait for one that is under way: what comes until they begin is in them. */
  readonly #next = new Map<LiveDocument, Promise<boolean>>();
  #stopped = false;

  constructor(storage: Storage, host: StoringHost) {
    this.#storage = storage;
    this.#host = host;
  }

  /** Hands over to storage what is not there yet, and begins nothing more. Storage ends what was begun. */
  finish(documents: Iterable<LiveDocument>): void {
    this.#stopped = true;
    for (const timer of [...this.#syncStates.values(), ...this.#retries.values()]) {
      clearTimeout(timer);
    }
    for (const live of documents) {
      if (live.unsaved.size > 0 && live.state !== "deleted") {
        const chunks = this.#toSave(live);
        this.#storage.append(live.id, chunks, "own", expected(live)).catch((error: unknown) => this.#host.looked(live, asError(error)));
      }
    }
  }

  /** Stores own changes; those that could not be stored are tried again with the next. */
  save(live: LiveDocument): void {
    if (live.saving || live.unsaved.size === 0 || live.state === "deleted") {
      return;
    }
    live.saving = true;
    const chunks = this.#toSave(live);
    this.#storage.append(live.id, chunks, "own", expected(live)).then(
      (tail) => {
        live.saving = false;
        const hashes = chunks.map((chunk) => chunk.hash);
        live.stored(hashes);
        if (live.isSynced(hashes)) {
          // Their marks came later than the server's word.
          live.marked = true;
          this.#takeMarks(live);
        }
        if (this.#storage.kind !== "memory") {
          for (const { hash } of chunks) {
            live.unsaved.delete(hash);
          }
          this.save(live);
        }
        this.#host.looked(live);
        this.#maybeCompact(live, tail);
        this.#ended(live);
      },
      (error: unknown) => {
        live.saving = false;
        this.#failed(live, error);
      },
    );
  }

  /** Own changes, with those that they may build on: without these they could not be read. */
  #toSave(live: LiveDocument): readonly Chunk[] {
    return [...(this.#host.isUsable(live) ? live.borrowed() : []), ...live.unsaved.values()];
  }

  /** Stores changes of others: by the leader, who hears of all. */
  keep(live: LiveDocument, arrived: Arrived | undefined): void {
    if (arrived === undefined || live.state === "deleted") {
      return;
    }
    const storage = this.#storage;
    const kept = async (): Promise<void> => {
      try {
        if (arrived.isSnapshot || arrived.chunks.length > COMPACT_CHANGES) {
          await this.#compact(live);
          return;
        }
        const tail = await storage.append(live.id, arrived.chunks, "others", expected(live));
        live.stored(arrived.chunks.map((chunk) => chunk.hash));
        this.#maybeCompact(live, tail);
      } catch (error) {
        live.unkept = true;
        throw error;
      }
    };
    this.#keeping(live, kept).catch((error: unknown) => this.#failed(live, error));
  }

  /**
   * Stores something of a document that is not to be dropped before that is over, well or not: a store that fails, as
   * a full disk does, keeps nothing here but own changes.
   */
  async #keeping<T>(live: LiveDocument, work: () => Promise<T>): Promise<T> {
    live.keeping += 1;
    try {
      return await work();
    } finally {
      live.keeping -= 1;
      this.#ended(live);
    }
  }

  /** Something is stored, or could not be. */
  #ended(live: LiveDocument): void {
    if (!isBusy(live) && this.#late.delete(live)) {
      this.keepSyncState(live);
    }
    this.#host.saved(live);
  }

  /** Stores everything: this tab leads from now on, and who led before may not have stored what it passed on. */
  takeOver(live: LiveDocument): void {
    this.#lacking.delete(live);
    live.unkept = true;
    this.#keepAll(live);
  }

  /** Tries again later, once for all that failed until then. */
  #retry(live: LiveDocument): void {
    if (!this.#stopped && !this.#retries.has(live)) {
      const again = (): void => {
        this.#retries.delete(live);
        this.save(live);
        this.#keepAll(live);
      };
      this.#retries.set(live, setTimeout(again, SAVE_AGAIN_AFTER_MS));
    }
  }

  /** Stores everything, after something could not be stored. */
  #keepAll(live: LiveDocument): void {
    if (this.#stopped || !live.unkept || !this.#host.isUsable(live)) {
      return;
    }
    const kept = async (): Promise<void> => {
      if (await this.#compact(live)) {
        live.unkept = false;
        this.#host.looked(live);
        this.keepSyncState(live);
      }
    };
    this.#keeping(live, kept).catch((error: unknown) => this.#failed(live, error));
  }

  /** It could not be stored: it is tried again, unless the document is gone, with all that it would build on. */
  #failed(live: LiveDocument, error: unknown): void {
    if (error instanceof StorageError && error.fault === "removed") {
      this.#host.removed(live);
      return;
    }
    this.#host.looked(live, asError(error));
    this.#retry(live);
  }

  /** What could not be read from storage is here again: it is stored anew, and the damaged records go. */
  heal(live: LiveDocument): void {
    if (live.damage === undefined || live.synced.length === 0 || !sameHeads(live.synced, live.replica.heads())) {
      return;
    }
    live.damage = undefined;
    const healed = async (): Promise<void> => {
      // Without what is damaged the stored sync state counts again, and it speaks of all that was here.
      if (await this.#compact(live)) {
        await this.#storage.forgetDamaged(live.id);
      }
    };
    this.#keeping(live, healed).catch((error: unknown) => this.#host.looked(live, asError(error)));
  }

  #maybeCompact(live: LiveDocument, tail: TailSize): void {
    const isLong = tail.changes > COMPACT_CHANGES || tail.changeBytes > Math.max(COMPACT_BYTES, tail.snapshotBytes);
    if (isLong && live.compacting === undefined && this.#host.keepsOthers()) {
      this.#compact(live).catch((error: unknown) => this.#failed(live, error));
    }
  }

  /**
   * Stores all as one snapshot, in place of what is known to be stored; after one that is under way, once for all who
   * ask until that is over. Whether it did: not what was deleted or failed meanwhile.
   */
  #compact(live: LiveDocument): Promise<boolean> {
    if (live.compacting === undefined) {
      return this.#compactNow(live);
    }
    let next = this.#next.get(live);
    if (next === undefined) {
      next = this.#keeping(live, async () => {
        while (live.compacting !== undefined) {
          await live.compacting;
        }
        this.#next.delete(live);
        return this.#compactNow(live);
      });
      this.#next.set(live, next);
    }
    return next;
  }

  #compactNow(live: LiveDocument): Promise<boolean> {
    return this.#keeping(live, async () => {
      const stored = this.#replace(live);
      live.compacting = stored.then(
        () => undefined,
        () => undefined,
      );
      try {
        return await stored;
      } finally {
        live.compacting = undefined;
      }
    });
  }

  async #replace(live: LiveDocument): Promise<boolean> {
    if (!this.#host.isUsable(live)) {
      return false;
    }
    // Other tabs store their own changes, some of them after the snapshot that has these: each would be beside it for
    // ever, and the tail be too long at every append.
    const ground = expected(live);
    const tail = await this.#storage.tail(live.id);
    if (tail.length > 0) {
      live.stored(tail);
    }
    if (!this.#host.isUsable(live)) {
      return false;
    }
    const { snapshot, contained } = live.compacted();
    live.storedAs(await this.#storage.compact(live.id, snapshot, contained, ground), contained);
    return true;
  }

  /** The server told something about what it keeps: stores that, some time soon. */
  keepSyncState(live: LiveDocument): void {
    if (!this.#syncStates.has(live)) {
      const store = (): void => {
        this.#syncStates.delete(live);
        if (isBusy(live)) {
          // Nobody says again what is known now.
          this.#late.add(live);
        } else {
          this.#storeSyncState(live);
        }
        this.#takeMarks(live);
      };
      this.#syncStates.set(live, setTimeout(store, SYNC_STATE_AFTER_MS));
    }
  }

  /**
   * Before a document is dropped storage is told of all changes that the server has them, since afterwards nobody can say
   * any more which they are. Whether nothing is on its way into storage; if something is, `saved` tells when it is not.
   */
  settle(live: LiveDocument): boolean {
    if (live.keeping > 0) {
      return false;
    }
    if (this.#syncStates.has(live)) {
      clearTimeout(this.#syncStates.get(live));
      this.#syncStates.delete(live);
      this.#storeSyncState(live);
    }
    if (live.marked && live.unsynced === 0 && this.#host.keepsOthers()) {
      this.#storeSyncState(live);
      this.#takeMarks(live);
    }
    return !live.settling;
  }

  #storeSyncState(live: LiveDocument): void {
    // It speaks of all changes that are here, and none of them would come again.
    if (this.#host.isUsable(live) && !live.isEmpty && !live.unkept && !isBusy(live)) {
      this.#storage.setSyncState(live.id, live.replica.syncState()).catch((error: unknown) => this.#host.looked(live, asError(error)));
    }
  }

  /** Changes that the server keeps are not unsent. What it says of later ones, and those that fail, are for later. */
  #takeMarks(live: LiveDocument): void {
    if (!live.marked || live.settling || this.#stopped || !this.#host.isUsable(live)) {
      return;
    }
    live.settling = true;
    live.marked = false;
    const lacking = this.#lacking.get(live) ?? new Set();
    this.#lacking.set(live, lacking);
    const before = lacking.size;
    const isSent = (hash: ChangeHash): boolean => {
      if (!this.#host.isUsable(live)) {
        return false;
      }
      if (!live.replica.has(hash)) {
        lacking.add(hash);
      }
      return live.isSent(hash);
    };
    this.#storage
      .sent(live.id, isSent)
      .catch((error: unknown) => this.#host.looked(live, asError(error)))
      .finally(() => {
        live.settling = false;
        if (live.marked && live.unsynced === 0) {
          this.#takeMarks(live);
        }
        live.marked ||= live.unsynced > 0;
        if (lacking.size > before) {
          this.#host.lacks(live);
        }
        this.#host.saved(live);
      });
  }
}

function expected(live: LiveDocument): Expected {
  return live.isStored ? "stored" : "any";
}

/** Whether something of it is not in storage yet. */
function isBusy(live: LiveDocument): boolean {
  return live.keeping > 0 || live.unsaved.size > 0;
}
