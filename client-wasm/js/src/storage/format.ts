/**
 * The layout of the IndexedDB database: its version, its stores, its records, and how each is checked.
 *
 * | store       | key                | value                                                          |
 * |-------------|--------------------|----------------------------------------------------------------|
 * | `meta`      | `"id"`             | the store's id, 32 hex digits                                  |
 * | `documents` | `document`         | {@link Tail}: sizes, and the number that the next change gets  |
 * | `changes`   | `[document, hash]` | {@link ChangeRecord}                                           |
 * | `snapshots` | `[document, name]` | {@link SnapshotRecord}; a name ends with `-` and its length    |
 * | `sync`      | `document`         | {@link SyncRecord}                                             |
 * | `unsent`    | `[document, hash]` | {@link UnsentRecord}: its key says it all                      |
 *
 * **Truth and bookkeeping.** Changes and snapshots are the truth; each has a CRC-32 over its key and its
 * bytes, so that a record under the wrong key is noticed, too. A `Tail` follows from them: it is checked for
 * its shape only and counted anew from the records when odd or missing, and in any case by `compact`. Wrong
 * sizes would cost a compaction too early or too late, a wrong number the order in which changes are loaded,
 * which the replica sorts out. Losing a sync record costs a fuller exchange with the server, losing the id one
 * session at the server.
 *
 * **Unsent changes.** A mark says that a change was made in this browser and that the server is not known to keep
 * it; it stays when its change moves into a snapshot. Whichever tab leads opens the marked documents and sends them.
 * A mark too many costs opening a document that the server has; so does the mark of a change that can't be read any
 * more, whenever a tab begins to lead. A mark too few costs nothing while some tab shows the document, and else that
 * it is sent when one does; so a database of version 1, which has no marks, begins with none. (No release wrote such
 * databases; to mark all documents would open every one of them once.)
 *
 * **Crash safety.** Each call of `Storage` writes in one IndexedDB transaction, and resolves after that
 * transaction's `complete` with durability `strict`, which browsers send after their own log is on disk. So a
 * crash leaves either all of a transaction or nothing. What is on disk when it happens
 *
 * - while changes are appended: the changes, their marks and the tail's new sizes, or nothing. Nobody was told;
 * - between the server's word that it keeps a change and taking its mark: a mark too many;
 * - between an append and the sync state that speaks of it: changes of which the server is asked again;
 * - while compacting: the old snapshots and all changes, or the new snapshot and the changes that it doesn't
 *   contain. Both are the whole document; marks are not touched;
 * - while a document is removed: all of it, or nothing;
 * - while the database is made or upgraded: no database or the old one, as an upgrade is one transaction;
 * - between making the database and giving it an id: a database without one, which the next `open` gives it.
 *
 * **Two tabs.** Transactions that write the same stores run one after another, whichever tab they are of, and
 * each reads what it builds on. A write that builds on a stored document is refused when that was removed: what is
 * stored of a document is whole. A compaction removes only what it names, so that a snapshot of another tab
 * stays when this one has not loaded it, and so do changes of which this tab has not heard.
 */

import { crc32 } from "./crc32.js";
import { StorageError, randomName } from "./storage.js";

/** The database's version. Whatever changes the layout raises it and adds a case to {@link upgrade}. */
export const FORMAT_VERSION = 2;

export const META = "meta";
export const DOCUMENTS = "documents";
export const CHANGES = "changes";
export const SNAPSHOTS = "snapshots";
export const SYNC = "sync";
export const UNSENT = "unsent";
/** All stores that have something about a document. */
export const DOCUMENT_STORES = [DOCUMENTS, CHANGES, SNAPSHOTS, SYNC, UNSENT] as const;
/** What a database of version 1 has, if it is ours. */
const STORES_1 = [META, DOCUMENTS, CHANGES, SNAPSHOTS, SYNC] as const;

/** Where `meta` has the id. */
export const ID_KEY = "id";

/** Bytes, changes, orders: half of what a number can count, so that sums stay exact. */
const MAX_COUNT = 2 ** 52;

/** Bookkeeping of a document. */
export interface Tail {
  readonly document: string;
  readonly snapshotBytes: number;
  readonly changes: number;
  readonly changeBytes: number;
  /** {@link ChangeRecord.order} of the next change. */
  readonly next: number;
}

/** Bytes with their checksum, see {@link checksum}. */
interface Checked {
  readonly bytes: Uint8Array;
  readonly crc: number;
}

/** A change. */
export interface ChangeRecord extends Checked {
  readonly document: string;
  readonly hash: string;
  /** Changes are loaded by this, ascending. */
  readonly order: number;
}

/** A snapshot. */
export interface SnapshotRecord extends Checked {
  readonly document: string;
  readonly name: string;
}

/** A sync state. */
export interface SyncRecord extends Checked {
  readonly document: string;
}

/** A mark: the server is not known to keep this change, which was made here. */
export interface UnsentRecord {
  readonly document: string;
  readonly hash: string;
}

/**
 * Brings a database from `version`, 0 when it is new, to {@link FORMAT_VERSION}, inside the upgrade's
 * transaction. Throws a {@link StorageError} for a version that never was.
 */
export function upgrade(database: IDBDatabase, version: number): void {
  for (let from = version; from < FORMAT_VERSION; from++) {
    switch (from) {
      case 0:
        database.createObjectStore(META);
        database.createObjectStore(DOCUMENTS, { keyPath: "document" });
        database.createObjectStore(CHANGES, { keyPath: ["document", "hash"] });
        database.createObjectStore(SNAPSHOTS, { keyPath: ["document", "name"] });
        database.createObjectStore(SYNC, { keyPath: "document" });
        break;
      case 1:
        if (!hasStores(database, STORES_1)) throw new StorageError("corrupt", "it lacks the stores of version 1");
        database.createObjectStore(UNSENT, { keyPath: ["document", "hash"] });
        break;
      default:
        throw new StorageError("version", `a database of version ${from}, which never was`);
    }
  }
}

/** Whether the database has the stores that this code uses. */
export function isOurs(database: IDBDatabase): boolean {
  return hasStores(database, [META, ...DOCUMENT_STORES]);
}

function hasStores(database: IDBDatabase, stores: readonly string[]): boolean {
  return stores.every((store) => database.objectStoreNames.contains(store));
}

/** All keys of a document in `changes`, `snapshots` and `unsent`: arrays sort after all strings. */
export function keysOf(document: string): IDBKeyRange {
  return IDBKeyRange.bound([document], [document, []]);
}

/** A change as it is stored, but for its order. The bytes are a copy that has a buffer of its own. */
export function encodeChange(document: string, hash: string, bytes: Uint8Array): Omit<ChangeRecord, "order"> {
  return { document, hash, ...check(bytes, document, hash) };
}

/** A snapshot as it is stored, under a new name. */
export function encodeSnapshot(document: string, bytes: Uint8Array): SnapshotRecord {
  const name = `${randomName()}-${bytes.length}`;
  return { document, name, ...check(bytes, document, name) };
}

/** A sync state as it is stored. */
export function encodeSync(document: string, bytes: Uint8Array): SyncRecord {
  return { document, ...check(bytes, document, SYNC) };
}

/** A change as it was stored, or nothing when the record is damaged. */
export function decodeChange(value: unknown): ChangeRecord | undefined {
  if (!isFields(value)) return undefined;
  const { document, hash, order } = value;
  if (typeof document !== "string" || typeof hash !== "string" || !isCount(order)) return undefined;
  const checked = decodeChecked(value, document, hash);
  return checked && { document, hash, order, ...checked };
}

/** A snapshot as it was stored, or nothing when the record is damaged. */
export function decodeSnapshot(value: unknown): SnapshotRecord | undefined {
  if (!isFields(value)) return undefined;
  const { document, name } = value;
  if (typeof document !== "string" || typeof name !== "string") return undefined;
  const checked = decodeChecked(value, document, name);
  return checked && { document, name, ...checked };
}

/** A sync state as it was stored, or nothing when the record is damaged. */
export function decodeSync(value: unknown): Uint8Array | undefined {
  if (!isFields(value) || typeof value["document"] !== "string") return undefined;
  return decodeChecked(value, value["document"], SYNC)?.bytes;
}

/** A tail as it was stored, or nothing when it has to be counted anew. */
export function decodeTail(value: unknown): Tail | undefined {
  if (!isFields(value)) return undefined;
  const { document, snapshotBytes, changes, changeBytes, next } = value;
  if (typeof document !== "string") return undefined;
  if (!isCount(snapshotBytes) || !isCount(changes) || !isCount(changeBytes) || !isCount(next)) return undefined;
  return { document, snapshotBytes, changes, changeBytes, next };
}

/** The id as it was stored, or nothing when it is damaged. */
export function decodeId(value: unknown): string | undefined {
  return typeof value === "string" && /^[0-9a-f]{32}$/.test(value) ? value : undefined;
}

/** Bytes of a snapshot by its key alone, so that counting doesn't read it. 0 when the key is odd. */
export function snapshotBytes(key: IDBValidKey): number {
  const name = Array.isArray(key) ? key[1] : undefined;
  const length = typeof name === "string" ? Number(name.slice(name.lastIndexOf("-") + 1)) : 0;
  return isCount(length) ? length : 0;
}

/** Counts a document's records, damaged ones included, for whose bytes the best guess is taken. */
export function countTail(document: string, changes: readonly unknown[], snapshotKeys: readonly IDBValidKey[]): Tail {
  let next = 0;
  let changeBytes = 0;
  for (const record of changes) {
    changeBytes += bytesOf(record);
    if (isFields(record) && isCount(record["order"])) next = Math.max(next, orderAfter(record["order"]));
  }
  const bytes = snapshotKeys.reduce((sum: number, key) => sum + snapshotBytes(key), 0);
  return { document, snapshotBytes: bytes, changes: changes.length, changeBytes, next };
}

/**
 * The order that follows. It never leaves what {@link decodeChange} takes, whatever odd number was found on
 * disk: a change that is stored can be read, if only in an odd order.
 */
export function orderAfter(order: number): number {
  return Math.min(order + 1, MAX_COUNT);
}

/** Bytes in a record of any state. */
export function bytesOf(record: unknown): number {
  return isFields(record) && record["bytes"] instanceof Uint8Array ? record["bytes"].length : 0;
}

/** The hash by which a change record of any state is stored, if it is one. */
export function hashOf(record: unknown): string | undefined {
  return isFields(record) && typeof record["hash"] === "string" ? record["hash"] : undefined;
}

/** A copy: structured clone of a view would store all of the buffer below, which may be a wasm memory. */
function check(bytes: Uint8Array, document: string, name: string): Checked {
  const copy = bytes.slice();
  return { bytes: copy, crc: checksum(copy, document, name) };
}

function checksum(bytes: Uint8Array, document: string, name: string): number {
  return crc32(bytes, crc32(new TextEncoder().encode(`${document}/${name}/`)));
}

function decodeChecked(value: Fields, document: string, name: string): Checked | undefined {
  const { bytes, crc } = value;
  if (!(bytes instanceof Uint8Array) || typeof crc !== "number") return undefined;
  return crc === checksum(bytes, document, name) ? { bytes, crc } : undefined;
}

type Fields = { readonly [field: string]: unknown };

function isFields(value: unknown): value is Fields {
  return typeof value === "object" && value !== null;
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0 && (value as number) <= MAX_COUNT;
}
