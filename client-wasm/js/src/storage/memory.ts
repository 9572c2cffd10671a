/** Documents in memory: the fallback where there is no IndexedDB, and what tests use. Gone with the page. */

import { StorageError, randomName, removed } from "./storage.js";
import type { Contained, Expected, Origin, Storage, StorageEstimate, StoredChange, StoredDocument, TailSize } from "./storage.js";

interface Kept {
  readonly snapshots: Map<string, Uint8Array>;
  readonly changes: Map<string, Uint8Array>;
  readonly unsent: Set<string>;
  syncState: Uint8Array | undefined;
}

/** A {@link Storage} of one tab, without a promise that anything stays. Its {@link id} is new each time. */
export class MemoryStorage implements Storage {
  readonly kind = "memory";
  readonly id = randomName();
  readonly persisted = Promise.resolve(false);
  readonly #documents = new Map<string, Kept>();
  #closed = false;

  async load(document: string): Promise<StoredDocument | undefined> {
    this.#check();
    const kept = this.#documents.get(document);
    return (
      kept && {
        snapshots: Array.from(kept.snapshots, ([name, bytes]) => ({ name, bytes: bytes.slice() })),
        changes: Array.from(kept.changes, ([hash, bytes]) => ({ hash, bytes: bytes.slice() })),
        syncState: kept.syncState?.slice(),
        damaged: 0,
      }
    );
  }

  async append(document: string, changes: readonly StoredChange[], origin: Origin, expected: Expected): Promise<TailSize> {
    const kept = this.#keep(document, expected);
    for (const { hash, bytes } of changes) {
      if (!kept.changes.has(hash)) kept.changes.set(hash, bytes.slice());
      if (origin === "own") kept.unsent.add(hash);
    }
    return {
      snapshotBytes: sumOfLengths(kept.snapshots),
      changes: kept.changes.size,
      changeBytes: sumOfLengths(kept.changes),
    };
  }

  async tail(document: string): Promise<string[]> {
    this.#check();
    return [...(this.#documents.get(document)?.changes.keys() ?? [])];
  }

  async sent(document: string, isSent: (hash: string) => boolean): Promise<number> {
    this.#check();
    const unsent = this.#documents.get(document)?.unsent ?? new Set();
    for (const hash of [...unsent].filter(isSent)) unsent.delete(hash);
    return unsent.size;
  }

  async unsent(): Promise<string[]> {
    this.#check();
    return [...this.#documents].filter(([, { unsent }]) => unsent.size > 0).map(([document]) => document).sort();
  }

  async setSyncState(document: string, state: Uint8Array): Promise<void> {
    this.#check();
    const kept = this.#documents.get(document);
    if (kept) kept.syncState = state.slice();
  }

  async compact(document: string, snapshot: Uint8Array, contained: Contained, expected: Expected): Promise<string> {
    const kept = this.#keep(document, expected);
    const name = randomName();
    for (const hash of contained.changes) kept.changes.delete(hash);
    for (const old of contained.snapshots) kept.snapshots.delete(old);
    kept.snapshots.set(name, snapshot.slice());
    return name;
  }

  async forgetDamaged(): Promise<number> {
    this.#check();
    return 0;
  }

  async remove(document: string): Promise<void> {
    this.#check();
    this.#documents.delete(document);
  }

  async list(): Promise<string[]> {
    this.#check();
    return [...this.#documents.keys()].sort();
  }

  async clear(): Promise<void> {
    this.#check();
    this.#documents.clear();
  }

  async estimate(): Promise<StorageEstimate | undefined> {
    return undefined;
  }

  async close(): Promise<void> {
    this.#closed = true;
  }

  #keep(document: string, expected: Expected): Kept {
    this.#check();
    const there = this.#documents.get(document);
    if (!there && expected === "stored") throw removed(document);
    const kept = there ?? nothing();
    this.#documents.set(document, kept);
    return kept;
  }

  #check(): void {
    if (this.#closed) throw new StorageError("closed", "the store is closed: it was closed");
  }
}

function nothing(): Kept {
  return { snapshots: new Map(), changes: new Map(), unsent: new Set(), syncState: undefined };
}

/** Bytes in all values. A pass per append: tails are kept short. */
function sumOfLengths(values: ReadonlyMap<string, Uint8Array>): number {
  let sum = 0;
  for (const { length } of values.values()) sum += length;
  return sum;
}
