/**
 * What only IndexedDB can get wrong: when a write counts as done, failing transactions, records that a disk
 * spoiled, other tabs, connections that the browser closes. Failures are forced inside fake-indexeddb
 * (`storage-faults.ts`), records are spoiled behind the storage's back, by a connection of the test's own.
 */

import assert from "node:assert/strict";
import { test } from "node:test";
import { forceCloseDatabase } from "fake-indexeddb";
import { FORMAT_VERSION } from "../src/storage/format.js";
import { IndexedDbStorage } from "../src/storage/indexeddb.js";
import { bytes, change, fault, hashes, loaded } from "./storage-conformance.js";
import { Lab } from "./storage-faults.js";

const NOTHING = { snapshots: [], changes: [] };

async function open(lab: Lab): Promise<IndexedDbStorage> {
  return IndexedDbStorage.open("test", { factory: lab.factory });
}

function pause(ms = 20): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

test("a write resolves only after its transaction was committed, and strictly so", async () => {
  const lab = new Lab();
  const storage = await open(lab);
  const began = lab.begun.length;
  let release = (): void => undefined;
  lab.held = new Promise((resolve) => (release = resolve));
  let resolved = 0;
  const writes = [
    storage.append("d", [change(1)], "others", "any"),
    storage.setSyncState("d", bytes(1)),
    storage.compact("d", bytes(1), NOTHING, "any"),
    storage.remove("e"),
  ].map((write) => write.then(() => resolved++));
  await pause();
  assert.equal(resolved, 0, "nothing is committed yet");
  release();
  await Promise.all(writes);
  const writing = lab.begun.slice(began).filter(({ mode }) => mode === "readwrite");
  assert.ok(writing.length >= 3);
  for (const { durability } of writing) assert.equal(durability, "strict");
});

test("appends that wait are written by one transaction", async () => {
  const lab = new Lab();
  const storage = await open(lab);
  const began = lab.begun.length;
  let release = (): void => undefined;
  lab.held = new Promise((resolve) => (release = resolve));
  const first = storage.append("d", [change(0)], "others", "any");
  await pause(5);
  const rest = Array.from({ length: 50 }, (_, index) => storage.append("d", [change(index + 1)], "others", "any"));
  release();
  lab.held = Promise.resolve();
  const sizes = await Promise.all([first, ...rest]);
  assert.equal(lab.begun.length - began, 2);
  assert.deepEqual(
    sizes.map(({ changes }) => changes),
    Array.from({ length: 51 }, (_, index) => index + 1),
  );
});

for (const fate of ["quota at a write", "quota at commit", "unknown at commit"] as const) {
  test(`a transaction that fails (${fate}) stores nothing and rejects all that were in it`, async () => {
    const lab = new Lab();
    const storage = await open(lab);
    await storage.append("d", [change(1)], "others", "any");
    const kept = await storage.compact("d", bytes(9), NOTHING, "any");
    const before = await storage.load("d");
    const expected = fault(fate.startsWith("quota") ? "quota" : "failed");

    lab.fate = () => fate;
    await Promise.all([
      assert.rejects(storage.append("d", [change(2), change(3)], "others", "any"), expected),
      assert.rejects(storage.append("e", [change(2)], "others", "any"), expected),
      assert.rejects(storage.setSyncState("d", bytes(1)), expected),
    ]);
    await assert.rejects(storage.append("f", [change(1)], "own", "any"), expected);
    const contained = { snapshots: [kept], changes: [change(1).hash] };
    await assert.rejects(storage.compact("d", bytes(8), contained, "any"), expected);
    if (fate !== "quota at a write") await assert.rejects(storage.remove("d"), expected);
    assert.deepEqual(await storage.load("d"), before);
    assert.deepEqual(await storage.list(), ["d"]);
    assert.deepEqual(await storage.unsent(), [], "no mark without its change");

    lab.fate = () => "ok";
    assert.equal((await storage.append("d", [change(2)], "others", "any")).changes, 2);
    assert.deepEqual(await hashes(storage, "d"), [change(1).hash, change(2).hash]);
  });
}

test("a snapshot without space doesn't take waiting changes with it", async () => {
  const lab = new Lab();
  const storage = await open(lab);
  const fates = ["ok", "quota at commit", "ok"] as const;
  let turn = 0;
  lab.fate = () => fates[turn++] ?? "ok";
  const writes = [
    storage.append("d", [change(1)], "others", "any"),
    storage.compact("d", bytes(1), { snapshots: [], changes: [change(1).hash] }, "any"),
    storage.append("d", [change(2)], "others", "any"),
  ];
  const [first, second, third] = await Promise.allSettled(writes);
  assert.deepEqual([first?.status, second?.status, third?.status], ["fulfilled", "rejected", "fulfilled"]);
  assert.deepEqual(await hashes(storage, "d"), [change(1).hash, change(2).hash]);
});

/** What may be found where a change record should be. */
const spoiled: [string, (record: Record<string, unknown>) => unknown][] = [
  ["a flipped bit", (record) => ({ ...record, bytes: change(1).bytes.map((byte, index) => (index === 4 ? byte ^ 1 : byte)) })],
  ["missing bytes", (record) => ({ ...record, bytes: change(1).bytes.slice(1) })],
  ["no bytes", ({ document, hash }) => ({ document, hash })],
  ["bytes of another type", (record) => ({ ...record, bytes: "bytes" })],
  ["a buffer", (record) => ({ ...record, bytes: new ArrayBuffer(10) })],
  ["another change's record", (record) => ({ ...record, hash: change(1).hash, document: "d", bytes: change(2).bytes })],
  ["an odd checksum", (record) => ({ ...record, crc: null })],
  ["an odd order", (record) => ({ ...record, order: -1.5 })],
  ["an endless order", (record) => ({ ...record, order: Infinity })],
];

for (const [what, spoil] of spoiled) {
  test(`damaged change: ${what} is left out, kept, and healed by the same change`, async () => {
    const lab = new Lab();
    const storage = await open(lab);
    await storage.append("d", [change(0), change(1), change(2)], "others", "any");
    await storage.setSyncState("d", bytes(1));
    const key = ["d", change(1).hash];
    const record = (await lab.edit("test", "changes", (store) => store.get(key))) as Record<string, unknown>;
    const odd = spoil(record);
    await lab.edit("test", "changes", (store) => store.put(odd));

    const found = await loaded(storage, "d");
    assert.deepEqual(found.changes, [change(0), change(2)]);
    assert.equal(found.damaged, 1);
    assert.equal(found.syncState, undefined, "it would speak of the damaged change");
    assert.deepEqual(await lab.edit("test", "changes", (store) => store.get(key)), odd);

    assert.equal((await storage.append("d", [change(1)], "others", "any")).changes, 3);
    const healed = await loaded(storage, "d");
    assert.equal(healed.damaged, 0);
    assert.deepEqual(healed.changes, [change(0), change(2), change(1)]);
    assert.deepEqual(healed.syncState, bytes(1));
  });
}

test("damaged snapshot: stays when it isn't named; forgotten when told to", async () => {
  const lab = new Lab();
  const storage = await open(lab);
  await storage.append("d", [change(1), change(2)], "others", "any");
  const name = await storage.compact("d", bytes(1, 2, 3), NOTHING, "any");
  await lab.edit("test", "snapshots", (store) => store.put({ document: "d", name, bytes: bytes(1, 2, 4), crc: 1 }));
  await lab.edit("test", "changes", (store) => store.put({ document: "d", hash: change(2).hash }));
  await lab.edit("test", "changes", (store) => store.put({ document: "d", hash: "?", bytes: 4 }));
  const found = await loaded(storage, "d");
  assert.deepEqual([found.snapshots, found.damaged], [[], 3]);

  const fresh = await storage.compact("d", bytes(5), { snapshots: [], changes: [change(1).hash, change(2).hash] }, "any");
  const compacted = await loaded(storage, "d");
  assert.deepEqual(compacted.snapshots, [{ name: fresh, bytes: bytes(5) }]);
  assert.deepEqual(compacted.damaged, 2, "the named one was replaced");
  assert.equal(await storage.forgetDamaged("d"), 2);
  assert.equal((await loaded(storage, "d")).damaged, 0);
  assert.deepEqual(await storage.append("d", [], "others", "any"), { snapshotBytes: 1, changes: 0, changeBytes: 0 });
});

test("damaged bookkeeping is counted anew, a damaged sync state is none", async () => {
  const lab = new Lab();
  const storage = await open(lab);
  await storage.append("d", [change(1), change(2)], "others", "any");
  const odd = [{ document: "d" }, { document: "d", changes: "2", next: {} }, { document: "d", next: NaN }];
  for (const [index, tail] of odd.entries()) {
    await lab.edit("test", "documents", (store) => store.put(tail));
    await lab.edit("test", "sync", (store) => store.put({ document: "d", bytes: [1] }));
    assert.equal((await loaded(storage, "d")).syncState, undefined);
    assert.equal((await loaded(storage, "d")).damaged, 0);
    const size = await storage.append("d", [change(index + 3)], "others", "any");
    assert.deepEqual(size, { snapshotBytes: 0, changes: index + 3, changeBytes: (index + 3) * 10 });
  }
  await lab.edit("test", "documents", (store) => store.delete("d"));
  await lab.edit("test", "documents", (store) => store.put({ document: 5 }));
  assert.equal((await loaded(storage, "d")).changes.length, 5);
  assert.deepEqual((await storage.append("d", [change(2)], "others", "any")).changes, 5);
  assert.deepEqual(await hashes(storage, "d"), [1, 2, 3, 4, 5].map((number) => change(number).hash));
  assert.deepEqual(await storage.list(), ["d"]);
});

test("no bookkeeping, however odd, makes a change that is stored unreadable", async () => {
  const lab = new Lab();
  const storage = await open(lab);
  const tail = { document: "d", snapshotBytes: 0, changes: 0, changeBytes: 0, next: 2 ** 52 - 1 };
  await lab.edit("test", "documents", (store) => store.put(tail));
  for (const number of [1, 2, 3]) await storage.append("d", [change(number)], "others", "any");
  await lab.edit("test", "documents", (store) => store.delete("d"));
  await storage.append("d", [change(4), change(5)], "others", "any");
  const found = await loaded(storage, "d");
  assert.deepEqual([found.changes.length, found.damaged], [5, 0]);
});

test("a record that the browser can't read doesn't hide the others", async (context) => {
  const lab = new Lab();
  const storage = await open(lab);
  await storage.append("d", [change(1), change(2), change(3)], "others", "any");
  const name = await storage.compact("d", bytes(1), NOTHING, "any");
  const connection = lab.connections[0];
  assert.ok(connection);
  const begin = connection.transaction.bind(connection);
  context.mock.method(connection, "transaction", (...given: Parameters<IDBDatabase["transaction"]>) => {
    const tx = begin(...given);
    const changes = tx.objectStore("changes");
    if (given[1] === "readwrite") return tx;
    const get = changes.get.bind(changes);
    Object.assign(changes, {
      getAll: () => failingRequest(get(["d", change(1).hash])),
      get: (key: IDBValidKey) => {
        const request = get(key);
        return Array.isArray(key) && key[1] === change(2).hash ? failingRequest(request) : request;
      },
    });
    return tx;
  });
  const found = await loaded(storage, "d");
  assert.deepEqual(found.changes, [change(1), change(3)]);
  assert.deepEqual(found.snapshots, [{ name, bytes: bytes(1) }]);
  assert.equal(found.damaged, 1);
});

/** A request that does what another does, and then says that it couldn't. */
function failingRequest(request: IDBRequest): IDBRequest {
  const error = new DOMException("Failed to read large IndexedDB value", "DataError");
  const fake = { onsuccess: null, onerror: null, error } as unknown as IDBRequest;
  request.onsuccess = () => fake.onerror?.(new Event("error"));
  return fake;
}

test("two tabs that open at once have one id, and keep it", async () => {
  const lab = new Lab();
  const tabs = await Promise.all([open(lab), open(lab), open(lab)]);
  const ids = new Set(tabs.map(({ id }) => id));
  assert.equal(ids.size, 1);
  await Promise.all(tabs.map((tab) => tab.close()));
  assert.ok(ids.has((await open(lab)).id));
  await lab.edit("test", "meta", (store) => store.put({ odd: 1 }, "id"));
  const fresh = (await open(lab)).id;
  assert.ok(!ids.has(fresh));
  assert.equal((await open(lab)).id, fresh);
});

test("compacting in one tab leaves what another stored meanwhile", async () => {
  const lab = new Lab();
  const [one, two] = [await open(lab), await open(lab)];
  await one.append("d", [change(1)], "others", "any");
  const [, first, , second] = await Promise.all([
    two.append("d", [change(2)], "others", "any"),
    one.compact("d", bytes(1), { snapshots: [], changes: [change(1).hash] }, "any"),
    two.append("d", [change(3)], "others", "any"),
    two.compact("d", bytes(2), { snapshots: [], changes: [change(1).hash, change(2).hash] }, "any"),
  ]);
  const found = await loaded(one, "d");
  assert.deepEqual(found.changes, [change(3)]);
  const names = found.snapshots.map(({ name }) => name);
  assert.deepEqual(names.sort(), [first, second].sort(), "neither has what the other has");
});

test("another tab needs a newer version: writes under way end, then it is closed", async () => {
  const lab = new Lab();
  const storage = await open(lab);
  let release = (): void => undefined;
  lab.held = new Promise((resolve) => (release = resolve));
  const write = storage.append("d", [change(1)], "others", "any");
  await pause(5);
  const waiting = storage.append("d", [change(2)], "others", "any");
  const upgraded = lab.raw("test", FORMAT_VERSION + 1);
  await pause(5);
  await assert.rejects(storage.load("d"), fault("closed"));
  release();
  await Promise.all([write, assert.rejects(waiting, fault("closed"))]);
  (await upgraded).close();
  await assert.rejects(storage.append("d", [change(3)], "others", "any"), fault("closed"));
  await storage.close();
  const found = await lab.edit("test", "changes", (store) => store.getAllKeys());
  assert.deepEqual(found, [["d", change(1).hash]]);
});

test("the browser closes the connection: it is opened once more", async () => {
  const lab = new Lab();
  const storage = await open(lab);
  const { id } = storage;
  await storage.append("d", [change(1)], "others", "any");
  for (let round = 0; round < 2; round++) {
    forceClose(lab);
    await Promise.all([storage.append("d", [change(2)], "others", "any"), storage.load("d"), storage.list()]);
  }
  assert.equal(lab.connections.length, 3);
  assert.deepEqual(await hashes(storage, "d"), [change(1).hash, change(2).hash]);
  assert.equal(storage.id, id);
});

test("the browser closes the connection and says nothing: one call fails, the next works", async () => {
  const lab = new Lab();
  const storage = await open(lab);
  lab.fate = () => "cannot begin";
  await assert.rejects(storage.append("d", [change(1)], "others", "any"), fault("closed"));
  lab.fate = () => "ok";
  await storage.append("d", [change(1)], "others", "any");
});

test("a transaction that the browser aborts by closing gives closed", async () => {
  const lab = new Lab();
  const storage = await open(lab);
  let release = (): void => undefined;
  lab.held = new Promise((resolve) => (release = resolve));
  lab.fate = () => "ok";
  const write = storage.append("d", [change(1)], "others", "any");
  await pause(5);
  abortAll(lab);
  await assert.rejects(write, fault("closed"));
  release();
  assert.equal(await storage.load("d"), undefined);
});

test("the database was deleted underneath: closed for good, and not made anew", async () => {
  const lab = new Lab();
  const storage = await open(lab);
  await storage.append("d", [change(1)], "others", "any");
  forceClose(lab);
  await new Promise((resolve) => (lab.inner.deleteDatabase("test").onsuccess = resolve));
  for (let round = 0; round < 2; round++) await assert.rejects(storage.append("d", [change(2)], "others", "any"), fault("closed"));
  assert.deepEqual(await lab.inner.databases(), []);

  const other = await open(lab);
  await assert.rejects(storage.load("d"), fault("closed"));
  assert.equal(await other.load("d"), undefined);
});

test("the database was made anew underneath: closed, as its changes are not ours", async () => {
  const lab = new Lab();
  const storage = await open(lab);
  forceClose(lab);
  await new Promise((resolve) => (lab.inner.deleteDatabase("test").onsuccess = resolve));
  await (await open(lab)).close();
  await assert.rejects(storage.append("d", [change(2)], "others", "any"), fault("closed"));
  assert.deepEqual(await lab.edit("test", "changes", (store) => store.getAllKeys()), []);
});

test("persistence is asked for once; the estimate has units", async () => {
  let asked = 0;
  const manager = {
    persisted: async () => false,
    persist: async () => ++asked === 1,
    estimate: async () => ({ usage: 5, quota: 10 }),
  } as StorageManager;
  const lab = new Lab();
  const one = await IndexedDbStorage.open("test", { factory: lab.factory, manager });
  const two = await IndexedDbStorage.open("test", { factory: lab.factory, manager });
  assert.deepEqual([await one.persisted, await two.persisted, asked], [true, true, 1]);
  assert.deepEqual(await one.estimate(), { usageBytes: 5, quotaBytes: 10 });

  const refuse = async (): Promise<never> => Promise.reject(new TypeError("opaque origin"));
  const broken = { persisted: refuse, persist: refuse, estimate: refuse } as unknown as StorageManager;
  const three = await IndexedDbStorage.open("test", { factory: lab.factory, manager: broken });
  assert.equal(await three.persisted, false);
  assert.equal(await three.estimate(), undefined);
});

function forceClose(lab: Lab): void {
  const database = lab.connections.at(-1);
  assert.ok(database);
  forceCloseDatabase(database as unknown as Parameters<typeof forceCloseDatabase>[0]);
}

/** What a browser does first when it closes a connection by force. */
function abortAll(lab: Lab): void {
  for (const database of lab.connections) {
    const { transactions } = (database as unknown as Inner)._rawDatabase;
    for (const tx of transactions) if (tx._state !== "finished") tx._abort("AbortError");
  }
}

interface Inner {
  _rawDatabase: { transactions: { _state: string; _abort(name: string): void }[] };
}
