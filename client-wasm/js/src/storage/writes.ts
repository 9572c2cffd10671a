/** What each kind of write does inside its transaction. Knows records, not connections. */

import {
  CHANGES,
  DOCUMENTS,
  DOCUMENT_STORES,
  ID_KEY,
  META,
  SNAPSHOTS,
  SYNC,
  UNSENT,
  bytesOf,
  countTail,
  decodeChange,
  decodeId,
  decodeSnapshot,
  decodeSync,
  decodeTail,
  hashOf,
  keysOf,
  orderAfter,
} from "./format.js";
import type { ChangeRecord, SnapshotRecord, SyncRecord, Tail, UnsentRecord } from "./format.js";
import { read, readAll, readOne } from "./idb.js";
import { randomName, removed } from "./storage.js";
import type { Contained, Expected, Origin, TailSize } from "./storage.js";

/** An append, a new sync state, or both; may share a transaction with others. */
export interface Edit {
  readonly document: string;
  readonly changes: readonly Omit<ChangeRecord, "order">[];
  readonly origin: Origin;
  readonly expected: Expected;
  readonly syncState: SyncRecord | undefined;
}

/** What is known of a document while edits are applied to it. */
interface View {
  tail: Tail;
  /** Whether anything is stored of it. */
  isThere: boolean;
  /** Records by hash: of those hashes that are to be written, at least. */
  readonly records: Map<string, unknown>;
}

/** Writes edits in their order. What is left to compact after each; nothing of one that expected what is not there. */
export async function applyEdits(tx: IDBTransaction, edits: readonly Edit[]): Promise<(TailSize | undefined)[]> {
  const wanted = new Map<string, Set<string>>();
  for (const { document, changes } of edits) {
    const hashes = wanted.get(document) ?? new Set();
    for (const { hash } of changes) hashes.add(hash);
    wanted.set(document, hashes);
  }
  const views = new Map<string, View>();
  await Promise.all(
    Array.from(wanted, async ([document, hashes]) => views.set(document, await readView(tx, document, hashes))),
  );

  const sizes = edits.map(({ document, changes, origin, expected, syncState }): TailSize | undefined => {
    const view = views.get(document);
    if (!view || (expected === "stored" && !view.isThere)) return undefined;
    view.isThere = true;
    for (const change of changes) putChange(tx, view, change);
    if (origin === "own") for (const change of changes) mark(tx, change);
    if (syncState) tx.objectStore(SYNC).put(syncState);
    return sizeOf(view.tail);
  });
  for (const { tail, isThere } of views.values()) if (isThere) tx.objectStore(DOCUMENTS).put(tail);
  return sizes;
}

/** Adds a snapshot and removes what it contains. Counts the tail anew. */
export async function compact(
  tx: IDBTransaction,
  snapshot: SnapshotRecord,
  contained: Contained,
  expected: Expected,
): Promise<void> {
  const { document } = snapshot;
  const [records, keys] = await readForCount(tx, document);
  if (expected === "stored" && records.length + keys.length === 0) throw removed(document);
  const changes = new Set(contained.changes);
  const snapshots = new Set(contained.snapshots);
  for (const hash of changes) tx.objectStore(CHANGES).delete([document, hash]);
  for (const name of snapshots) tx.objectStore(SNAPSHOTS).delete([document, name]);
  tx.objectStore(SNAPSHOTS).add(snapshot);
  const tail = countTail(
    document,
    records.filter((record) => !changes.has(hashOf(record) ?? "")),
    [...keys.filter((key) => !(Array.isArray(key) && snapshots.has(String(key[1])))), [document, snapshot.name]],
  );
  tx.objectStore(DOCUMENTS).put(tail);
}

/** Removes records that can't be read. How many snapshots and changes that were. */
export async function forgetDamaged(tx: IDBTransaction, document: string): Promise<number> {
  const removed = await Promise.all([
    removeUnless(tx.objectStore(CHANGES), document, (record) => decodeChange(record) !== undefined),
    removeUnless(tx.objectStore(SNAPSHOTS), document, (record) => decodeSnapshot(record) !== undefined),
  ]);
  const sync = await readOne(tx.objectStore(SYNC), document);
  if (!decodeSync(sync)) tx.objectStore(SYNC).delete(document);
  const [records, keys] = await readForCount(tx, document);
  const known = await readOne(tx.objectStore(DOCUMENTS), document);
  if (known !== undefined || records.length > 0 || keys.length > 0) {
    tx.objectStore(DOCUMENTS).put(countTail(document, records, keys));
  }
  return removed.reduce((sum, count) => sum + count, 0);
}

/** Removes the marks of changes that are sent. How many are left. */
export async function sent(tx: IDBTransaction, document: string, isSent: (hash: string) => boolean): Promise<number> {
  const store = tx.objectStore(UNSENT);
  const range = keysOf(document);
  const keys = await read(store.getAllKeys(range));
  const done = keys.filter((key) => Array.isArray(key) && isSent(String(key[1])));
  if (done.length === keys.length) store.delete(range);
  else for (const key of done) store.delete(key);
  return keys.length - done.length;
}

/** The documents that have marks: one step for each, however many marks it has. */
export function unsent(tx: IDBTransaction): Promise<string[]> {
  const found: string[] = [];
  const request = tx.objectStore(UNSENT).openKeyCursor();
  return new Promise((resolve, reject) => {
    request.onerror = () => reject(request.error ?? new Error("a request failed"));
    request.onsuccess = () => {
      const cursor = request.result;
      const document: unknown = Array.isArray(cursor?.key) ? cursor.key[0] : undefined;
      if (typeof document !== "string") {
        resolve(found);
        return;
      }
      found.push(document);
      cursor?.continue(keysOf(document).upper as IDBValidKey);
    };
  });
}

/** Removes all of a document. */
export function remove(tx: IDBTransaction, document: string): void {
  tx.objectStore(DOCUMENTS).delete(document);
  tx.objectStore(CHANGES).delete(keysOf(document));
  tx.objectStore(SNAPSHOTS).delete(keysOf(document));
  tx.objectStore(SYNC).delete(document);
  tx.objectStore(UNSENT).delete(keysOf(document));
}

/** Removes all documents. */
export function clear(tx: IDBTransaction): void {
  for (const store of DOCUMENT_STORES) tx.objectStore(store).clear();
}

/** The store's id; makes one if there is none. Of two tabs at once, the second reads what the first wrote. */
export async function claimId(tx: IDBTransaction): Promise<string> {
  const known = decodeId(await readOne(tx.objectStore(META), ID_KEY));
  if (known !== undefined) return known;
  const id = randomName();
  tx.objectStore(META).put(id, ID_KEY);
  return id;
}

function mark(tx: IDBTransaction, { document, hash }: UnsentRecord): void {
  const record: UnsentRecord = { document, hash };
  tx.objectStore(UNSENT).put(record);
}

/** Leaves a readable record of the same hash as it is; replaces a damaged one. */
function putChange(tx: IDBTransaction, view: View, change: Omit<ChangeRecord, "order">): void {
  const old = view.records.get(change.hash);
  if (decodeChange(old)) return;
  const { tail } = view;
  const record: ChangeRecord = { ...change, order: tail.next };
  tx.objectStore(CHANGES).put(record);
  view.records.set(change.hash, record);
  view.tail = {
    ...tail,
    changes: tail.changes + (old === undefined ? 1 : 0),
    changeBytes: Math.max(0, tail.changeBytes - bytesOf(old)) + record.bytes.length,
    next: orderAfter(tail.next),
  };
}

/** Reads a document's tail, counted if need be, and the records of these hashes, in the cheaper of two ways. */
async function readView(tx: IDBTransaction, document: string, hashes: ReadonlySet<string>): Promise<View> {
  const tail = decodeTail(await readOne(tx.objectStore(DOCUMENTS), document));
  const records = new Map<string, unknown>();
  if (tail && hashes.size <= tail.changes) {
    const store = tx.objectStore(CHANGES);
    const found = await Promise.all(
      Array.from(hashes, async (hash) => [hash, await readOne(store, [document, hash])] as const),
    );
    for (const [hash, record] of found) records.set(hash, record);
    return { tail, isThere: true, records };
  }
  const [all, keys] = await readForCount(tx, document);
  for (const record of all) {
    const hash = hashOf(record);
    if (hash !== undefined) records.set(hash, record);
  }
  const isThere = tail !== undefined || all.length + keys.length > 0;
  return { tail: tail ?? countTail(document, all, keys), isThere, records };
}

function readForCount(tx: IDBTransaction, document: string): Promise<[unknown[], IDBValidKey[]]> {
  const range = keysOf(document);
  return Promise.all([
    readAll(tx.objectStore(CHANGES), range),
    read(tx.objectStore(SNAPSHOTS).getAllKeys(range)),
  ]);
}

async function removeUnless(
  store: IDBObjectStore,
  document: string,
  good: (record: unknown) => boolean,
): Promise<number> {
  const keys = await read(store.getAllKeys(keysOf(document)));
  const records = await Promise.all(keys.map((key) => readOne(store, key)));
  const bad = keys.filter((_, index) => !good(records[index]));
  for (const key of bad) store.delete(key);
  return bad.length;
}

function sizeOf({ snapshotBytes, changes, changeBytes }: Tail): TailSize {
  return { snapshotBytes, changes, changeBytes };
}
