/** Both kinds of storage do the same, and `openStorage` chooses between them and says why. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { crc32 } from "../src/storage/crc32.js";
import { FORMAT_VERSION } from "../src/storage/format.js";
import { IndexedDbStorage } from "../src/storage/indexeddb.js";
import { MemoryStorage } from "../src/storage/memory.js";
import { openStorage } from "../src/storage/open.js";
import type { OpenStorageOptions } from "../src/storage/open.js";
import type { Storage, StorageFault } from "../src/storage/storage.js";
import { bytes, change, conformance, fault } from "./storage-conformance.js";
import { Lab } from "./storage-faults.js";

conformance({
  name: "memory",
  make: async () => new MemoryStorage(),
  again: async (storage) => storage,
});

const labs = new WeakMap<Storage, Lab>();
conformance({
  name: "indexeddb",
  make: () => openIn(new Lab()),
  again: async (storage) => {
    await storage.close();
    const lab = labs.get(storage);
    assert.ok(lab);
    return openIn(lab);
  },
});

async function openIn(lab: Lab): Promise<Storage> {
  const storage = await IndexedDbStorage.open("test", { factory: lab.factory });
  labs.set(storage, lab);
  return storage;
}

test("crc32 is the one of zip", () => {
  assert.equal(crc32(new TextEncoder().encode("123456789")), 0xcbf43926);
  assert.equal(crc32(bytes(2, 3), crc32(bytes(1))), crc32(bytes(1, 2, 3)));
  assert.equal(crc32(bytes()), 0);
});

test("openStorage: IndexedDB where it works", async () => {
  const opened = await openStorage({ name: "test", factory: new Lab().factory });
  assert.equal(opened.storage.kind, "indexeddb");
  assert.equal(opened.fallback, undefined);
  await opened.storage.close();
  assert.equal((await openStorage({ name: "test", kind: "memory" })).storage.kind, "memory");
});

/** A factory whose `open` is this. */
function factoryOf(open: IDBFactory["open"]): IDBFactory {
  return { ...new Lab().factory, open };
}

const fallbacks: [string, StorageFault, () => Promise<Omit<OpenStorageOptions, "name">>][] = [
  ["there is none", "unavailable", async () => ({})],
  [
    "the frame may not have one",
    "unavailable",
    async () => ({
      factory: factoryOf(() => {
        throw new DOMException("denied", "SecurityError");
      }),
    }),
  ],
  ["it never answers", "unavailable", async () => ({ factory: factoryOf(() => ({}) as IDBOpenDBRequest), openMs: 10 })],
  [
    "it is of a newer version",
    "version",
    async () => {
      const lab = new Lab();
      (await lab.raw("test", FORMAT_VERSION + 1, (database) => database.createObjectStore("new things"))).close();
      return { factory: lab.factory };
    },
  ],
  [
    "it isn't ours",
    "corrupt",
    async () => {
      const lab = new Lab();
      (await lab.raw("test", FORMAT_VERSION, (database) => database.createObjectStore("meta"))).close();
      return { factory: lab.factory };
    },
  ],
  [
    "it isn't ours, of an older version",
    "corrupt",
    async () => {
      const lab = new Lab();
      (await lab.raw("test", 1, (database) => database.createObjectStore("meta"))).close();
      return { factory: lab.factory };
    },
  ],
  [
    "there is no space at all",
    "quota",
    async () => {
      const lab = new Lab();
      lab.fate = () => "quota at commit";
      return { factory: lab.factory };
    },
  ],
  [
    "an older tab holds it",
    "blocked",
    async () => {
      const lab = new Lab();
      const old = await lab.raw("test", 1);
      // fake-indexeddb asks again and again whether it is closed, and would keep the test alive for ever.
      setTimeout(() => old.close(), 500);
      return { factory: lab.factory, blockedMs: 20 };
    },
  ],
];

for (const [why, expected, options] of fallbacks) {
  test(`openStorage: memory when ${why}`, async () => {
    const given = { name: "test", ...(await options()) };
    const { storage, fallback } = await openStorage(given);
    assert.equal(storage.kind, "memory");
    assert.ok(fallback);
    fault(expected)(fallback);
    await storage.append("d", [change(1)], "others", "any");
    if (expected !== "blocked") {
      await assert.rejects(openStorage({ ...given, kind: "indexeddb" }), fault(expected));
    }
  });
}

test("openStorage: a database of a newer version stays as it is", async () => {
  const lab = new Lab();
  const made = await lab.raw("test", 7, (database) => database.createObjectStore("new things").put("kept", 1));
  made.close();
  await openStorage({ name: "test", factory: lab.factory });
  assert.deepEqual(await lab.inner.databases(), [{ name: "test", version: 7 }]);
  assert.equal(await lab.edit("test", "new things", (store) => store.get(1)), "kept");
});

test("openStorage: who gave up waiting doesn't upgrade later", async () => {
  const lab = new Lab();
  const old = await lab.raw("test", 1, (database) => database.createObjectStore("old things"));
  const { fallback } = await openStorage({ name: "test", factory: lab.factory, blockedMs: 10 });
  assert.equal(fallback?.fault, "blocked");
  old.close();
  await new Promise((resolve) => setTimeout(resolve, 50));
  assert.deepEqual(await lab.inner.databases(), [{ name: "test", version: 1 }]);
  const again = await lab.raw("test");
  assert.deepEqual([...again.objectStoreNames], ["old things"]);
});

test("openStorage: a database of version 1 is upgraded with all that is in it, and no marks", async () => {
  const lab = new Lab();
  const now = await openStorage({ name: "test", factory: lab.factory, kind: "indexeddb" });
  await now.storage.append("d", [change(1)], "own", "any");
  await now.storage.close();
  const records = await lab.edit("test", "changes", (store) => store.getAll());
  const old = new Lab();
  const version1 = await old.raw("test", 1, (database) => {
    database.createObjectStore("meta").put(now.storage.id, "id");
    database.createObjectStore("documents", { keyPath: "document" });
    const changes = database.createObjectStore("changes", { keyPath: ["document", "hash"] });
    for (const record of records as unknown[]) changes.put(record);
    database.createObjectStore("snapshots", { keyPath: ["document", "name"] });
    database.createObjectStore("sync", { keyPath: "document" });
  });
  version1.close();
  const { storage } = await openStorage({ name: "test", factory: old.factory, kind: "indexeddb" });
  assert.equal(storage.id, now.storage.id);
  assert.deepEqual((await storage.load("d"))?.changes, [change(1)]);
  assert.deepEqual(await storage.unsent(), []);
  await storage.append("d", [change(2)], "own", "any");
  assert.deepEqual(await storage.unsent(), ["d"]);
});
