/**
 * What every kind of `Storage` has to do, as tests to run on each. A kind can't pass by doing nothing: each
 * test reads back what it wrote, where the kind can, through a storage that was opened anew.
 */

import assert from "node:assert/strict";
import { test } from "node:test";
import { StorageError } from "../src/storage/storage.js";
import type { Storage, StorageFault, StoredChange, StoredDocument } from "../src/storage/storage.js";

/** A kind of storage. */
export interface Kind {
  readonly name: string;
  /** An empty store. */
  make(): Promise<Storage>;
  /** The same store, opened once more after `storage` was closed; `storage` itself where nothing is kept. */
  again(storage: Storage): Promise<Storage>;
}

/** A change whose hash and bytes follow from a number. */
export function change(number: number, length = 10): StoredChange {
  const hash = number.toString(16).padStart(64, "0");
  return { hash, bytes: Uint8Array.from({ length }, (_, index) => (number * 7 + index) & 0xff) };
}

/** Bytes that start with these. */
export function bytes(...values: number[]): Uint8Array {
  return Uint8Array.from(values);
}

/** What was loaded, of a document that is there. */
export async function loaded(storage: Storage, document: string): Promise<StoredDocument> {
  const found = await storage.load(document);
  assert.ok(found, `${document} is stored`);
  return found;
}

/** Hashes in the order of loading. */
export async function hashes(storage: Storage, document: string): Promise<string[]> {
  return (await loaded(storage, document)).changes.map(({ hash }) => hash);
}

/** For `assert.rejects`: a storage error with this fault. */
export function fault(expected: StorageFault): (error: unknown) => true {
  return (error) => {
    assert.ok(error instanceof StorageError, `a StorageError, not ${String(error)}`);
    assert.equal(error.fault, expected);
    return true;
  };
}

const NOTHING = { snapshots: [], changes: [] };

/** Registers the tests. */
export function conformance(kind: Kind): void {
  const check = (name: string, body: (storage: Storage) => Promise<void>): void => {
    test(`${kind.name}: ${name}`, async () => {
      const storage = await kind.make();
      await body(storage);
      await storage.close();
    });
  };

  check("nothing is stored at first", async (storage) => {
    assert.equal(await storage.load("a"), undefined);
    assert.deepEqual(await storage.list(), []);
    assert.match(storage.id, /^[0-9a-f]{32}$/);
    assert.equal(typeof (await storage.persisted), "boolean");
  });

  check("changes come back in their order, each once", async (storage) => {
    const [a, b, c] = [change(9), change(3), change(5, 0)];
    assert.deepEqual(await storage.append("d", [a, b], "others", "any"), { snapshotBytes: 0, changes: 2, changeBytes: 20 });
    const other = { hash: a.hash, bytes: bytes(1) };
    assert.deepEqual(await storage.append("d", [other, c, c], "others", "any"), { snapshotBytes: 0, changes: 3, changeBytes: 20 });
    const opened = await kind.again(storage);
    assert.deepEqual(await opened.load("d"), {
      snapshots: [],
      changes: [a, b, c],
      syncState: undefined,
      damaged: 0,
    });
    await opened.close();
  });

  check("an append of nothing makes the document", async (storage) => {
    assert.deepEqual(await storage.append("d", [], "others", "any"), { snapshotBytes: 0, changes: 0, changeBytes: 0 });
    assert.deepEqual(await storage.list(), ["d"]);
    assert.deepEqual((await loaded(storage, "d")).changes, []);
  });

  check("many appends at once keep their order", async (storage) => {
    const numbers = Array.from({ length: 100 }, (_, index) => (index * 37) % 101);
    const sizes = await Promise.all(numbers.map((number) => storage.append("d", [change(number)], "others", "any")));
    assert.deepEqual(
      sizes.map(({ changes }) => changes),
      numbers.map((_, index) => index + 1),
    );
    assert.deepEqual(
      await hashes(storage, "d"),
      numbers.map((number) => change(number).hash),
    );
  });

  check("a sync state replaces the one before; there is none without a document", async (storage) => {
    await storage.setSyncState("d", bytes(0));
    assert.deepEqual(await storage.list(), []);
    assert.equal(await storage.load("d"), undefined);
    await storage.append("d", [], "others", "any");
    await storage.setSyncState("d", bytes(1, 2));
    await storage.setSyncState("d", bytes(3));
    const opened = await kind.again(storage);
    assert.deepEqual((await loaded(opened, "d")).syncState, bytes(3));
    assert.deepEqual(await opened.list(), ["d"]);
    await opened.close();
  });

  check("compacting removes what is named, and only that", async (storage) => {
    await storage.append("d", [change(1), change(2), change(3)], "others", "any");
    await storage.append("e", [change(1)], "others", "any");
    await storage.setSyncState("d", bytes(7));
    const name = await storage.compact("d", bytes(1, 2, 3), {
      snapshots: [],
      changes: [change(1).hash, change(3).hash, change(99).hash],
    }, "any");
    const opened = await kind.again(storage);
    assert.deepEqual(await opened.load("d"), {
      snapshots: [{ name, bytes: bytes(1, 2, 3) }],
      changes: [change(2)],
      syncState: bytes(7),
      damaged: 0,
    });
    assert.deepEqual(await hashes(opened, "e"), [change(1).hash]);
    assert.deepEqual(await opened.append("d", [change(4, 4)], "others", "any"), { snapshotBytes: 3, changes: 2, changeBytes: 14 });
    await opened.close();
  });

  check("a snapshot stays until it is named", async (storage) => {
    const first = await storage.compact("d", bytes(1), NOTHING, "any");
    const second = await storage.compact("d", bytes(2, 2), NOTHING, "any");
    assert.deepEqual(await storage.append("d", [], "others", "any"), { snapshotBytes: 3, changes: 0, changeBytes: 0 });
    const third = await storage.compact("d", bytes(3), { snapshots: [first], changes: [] }, "any");
    const names = (await loaded(storage, "d")).snapshots.map(({ name }) => name);
    assert.deepEqual(names.sort(), [second, third].sort());
    assert.deepEqual(await storage.append("d", [], "others", "any"), { snapshotBytes: 3, changes: 0, changeBytes: 0 });
  });

  check("a change that was compacted away can be stored again", async (storage) => {
    await storage.append("d", [change(1)], "others", "any");
    await storage.compact("d", bytes(1), { snapshots: [], changes: [change(1).hash] }, "any");
    assert.equal((await storage.append("d", [change(1)], "others", "any")).changes, 1);
    assert.deepEqual(await hashes(storage, "d"), [change(1).hash]);
  });

  check("removing one document leaves the others", async (storage) => {
    for (const document of ["a", "ab", "b"]) {
      await storage.append(document, [change(1)], "others", "any");
      await storage.compact(document, bytes(1), NOTHING, "any");
      await storage.setSyncState(document, bytes(1));
    }
    await storage.remove("a");
    await storage.remove("never there");
    const opened = await kind.again(storage);
    assert.equal(await opened.load("a"), undefined);
    assert.deepEqual(await opened.list(), ["ab", "b"]);
    const rest = await loaded(opened, "ab");
    assert.deepEqual([rest.snapshots.length, rest.changes.length, rest.syncState], [1, 1, bytes(1)]);
    await opened.close();
  });

  check("clearing forgets all documents but not the id", async (storage) => {
    const { id } = storage;
    await storage.append("a", [change(1)], "others", "any");
    await storage.compact("b", bytes(1), NOTHING, "any");
    await storage.append("c", [], "others", "any");
    await storage.setSyncState("c", bytes(1));
    await storage.clear();
    const opened = await kind.again(storage);
    assert.deepEqual(await opened.list(), []);
    for (const document of ["a", "b", "c"]) assert.equal(await opened.load(document), undefined);
    assert.equal(opened.id, id);
    await opened.close();
  });

  check("the tail is what is beside the snapshots", async (storage) => {
    await storage.append("d", [change(2), change(1)], "own", "any");
    await storage.append("da", [change(3)], "own", "any");
    assert.deepEqual((await storage.tail("d")).sort(), [change(1).hash, change(2).hash]);
    await storage.compact("d", bytes(1), { snapshots: [], changes: [change(1).hash] }, "any");
    assert.deepEqual(await storage.tail("d"), [change(2).hash]);
    assert.deepEqual(await storage.tail("never there"), []);
  });

  check("own changes are unsent until they are said to be sent, also those that were there already", async (storage) => {
    await storage.append("a", [change(1)], "others", "any");
    await storage.append("a", [change(1), change(2), change(3)], "own", "any");
    await storage.append("b", [change(1)], "others", "any");
    await storage.append("ab", [change(1)], "own", "any");
    const opened = await kind.again(storage);
    assert.deepEqual(await opened.unsent(), ["a", "ab"]);
    const asked: string[] = [];
    const isSent = (hash: string): boolean => asked.push(hash) > 0 && hash !== change(2).hash;
    assert.equal(await opened.sent("a", isSent), 1);
    assert.deepEqual(asked, [1, 2, 3].map((number) => change(number).hash));
    assert.deepEqual(await opened.unsent(), ["a", "ab"]);
    assert.equal(await opened.sent("a", () => true), 0);
    assert.equal(await opened.sent("never there", () => true), 0);
    assert.deepEqual(await opened.unsent(), ["ab"]);
    assert.deepEqual(await hashes(opened, "a"), [1, 2, 3].map((number) => change(number).hash));
    await opened.close();
  });

  check("unsent changes stay so when they are compacted, and are forgotten with their document", async (storage) => {
    for (const document of ["a", "b", "c"]) await storage.append(document, [change(1)], "own", "any");
    await storage.compact("a", bytes(1), { snapshots: [], changes: [change(1).hash] }, "any");
    await storage.setSyncState("a", bytes(1));
    await storage.forgetDamaged("a");
    await storage.remove("b");
    const opened = await kind.again(storage);
    assert.deepEqual(await opened.unsent(), ["a", "c"]);
    const asked: string[] = [];
    assert.equal(await opened.sent("a", (hash) => asked.push(hash) < 0), 1);
    assert.deepEqual(asked, [change(1).hash]);
    await opened.clear();
    assert.deepEqual(await opened.unsent(), []);
    await opened.close();
  });

  check("what builds on a document that was removed is not stored; what was called with it is", async (storage) => {
    const gone = fault("removed");
    await storage.append("a", [change(1)], "own", "any");
    const calls = [
      storage.append("a", [change(2)], "own", "stored"),
      storage.remove("a"),
      storage.append("b", [change(1)], "own", "any"),
      assert.rejects(storage.append("a", [change(3)], "own", "stored"), gone),
      storage.append("b", [change(2)], "own", "stored"),
      storage.setSyncState("a", bytes(1)),
      assert.rejects(storage.compact("a", bytes(1), NOTHING, "stored"), gone),
    ];
    await Promise.all(calls);
    const opened = await kind.again(storage);
    assert.deepEqual(await opened.list(), ["b"]);
    assert.deepEqual(await opened.unsent(), ["b"]);
    assert.equal(await opened.load("a"), undefined);
    assert.deepEqual(await hashes(opened, "b"), [change(1).hash, change(2).hash]);
    await opened.append("a", [change(4)], "own", "any");
    await opened.append("a", [change(5)], "own", "stored");
    await opened.compact("a", bytes(1), { snapshots: [], changes: [change(4).hash, change(5).hash] }, "stored");
    await opened.append("a", [change(6)], "own", "stored");
    assert.deepEqual(await hashes(opened, "a"), [change(6).hash]);
    await opened.close();
  });

  check("reads see the writes that were called before them, and wait for them", async (storage) => {
    // Of different kinds, so that they are different transactions.
    const writes = [
      storage.append("a", [change(1)], "own", "any"),
      storage.remove("a"),
      storage.append("a", [change(2)], "own", "any"),
      storage.compact("b", bytes(1), NOTHING, "any"),
      storage.append("c", [change(1)], "own", "any"),
    ];
    const reads = [storage.tail("a"), storage.list(), storage.unsent(), storage.load("b").then((found) => found?.snapshots.length)];
    assert.deepEqual(await Promise.all(reads), [[change(2).hash], ["a", "b", "c"], ["a", "c"], 1]);
    await Promise.all(writes);
    const removing = storage.clear();
    assert.equal(await storage.load("a"), undefined);
    await removing;
  });

  check("bytes are copied on the way in and on the way out", async (storage) => {
    const memory = new Uint8Array(1000).fill(5);
    const view = memory.subarray(10, 13);
    const done = [
      storage.append("d", [{ hash: change(1).hash, bytes: view }], "others", "any"),
      storage.setSyncState("d", view),
      storage.compact("d", view, NOTHING, "any"),
    ];
    memory.fill(6);
    await Promise.all(done);
    const first = await loaded(storage, "d");
    first.changes[0]?.bytes.fill(7);
    first.snapshots[0]?.bytes.fill(7);
    first.syncState?.fill(7);
    const second = await loaded(storage, "d");
    assert.deepEqual(second.changes[0]?.bytes, bytes(5, 5, 5));
    assert.equal(second.changes[0]?.bytes.buffer.byteLength, 3, "not the whole memory");
    assert.deepEqual(second.snapshots[0]?.bytes, bytes(5, 5, 5));
    assert.deepEqual(second.syncState, bytes(5, 5, 5));
  });

  check("nothing is damaged, so nothing is forgotten", async (storage) => {
    await storage.append("d", [change(1)], "others", "any");
    assert.equal(await storage.forgetDamaged("d"), 0);
    assert.equal(await storage.forgetDamaged("never there"), 0);
    assert.deepEqual(await storage.list(), ["d"]);
    assert.deepEqual(await hashes(storage, "d"), [change(1).hash]);
  });

  check("what was begun before closing ends, what comes later is refused", async (storage) => {
    const begun = [
      storage.append("d", [change(1)], "others", "any"),
      storage.compact("d", bytes(1), NOTHING, "any").then(() => undefined),
      storage.append("d", [change(2)], "others", "any"),
    ];
    const closing = storage.close();
    const late = [
      storage.append("d", [], "others", "any"),
      storage.setSyncState("d", bytes()),
      storage.compact("d", bytes(), NOTHING, "any"),
      storage.load("d"),
      storage.list(),
      storage.remove("d"),
      storage.clear(),
      storage.forgetDamaged("d"),
      storage.sent("d", () => true),
      storage.unsent(),
      storage.tail("d"),
    ];
    await Promise.all(late.map((call) => assert.rejects(call, fault("closed"))));
    await Promise.all([...begun, closing, storage.close()]);
    const opened = await kind.again(storage);
    if (opened !== storage) assert.deepEqual(await hashes(opened, "d"), [change(1).hash, change(2).hash]);
    await opened.close();
  });
}
