// Promise: whatever becomes of a browser's storage, a page stays alive and says what is wrong, and what was saved
// stays. When the fault is over, so are its consequences.
//
// Faults are made where they happen: records in IndexedDB are overwritten by a page without a client, and browser
// functions throw because an init script replaced them. Each test ends with something that works, so that a page which
// had merely stopped would fail it.

import assert from "node:assert/strict";
import { test } from "node:test";

import { put, shows, stageFaults, status } from "./faults.mjs";
import { begin, make, openDocument, openTab, settled, until } from "./harness.mjs";

let server, pages, browserWith;

stageFaults((parts) => ({ server, pages, browserWith } = parts));

// Records in IndexedDB.

/** Overwrites records: `harm` is run on each of a store, and gives what is put in its place. */
async function damage(context, store, harm, which = "all") {
  const tab = await context.newPage();
  await tab.goto(pages.url);
  const count = await tab.evaluate(
    async ([name, store, harm, which]) => {
      const result = (request) =>
        new Promise((resolve, reject) => {
          request.onsuccess = () => resolve(request.result);
          request.onerror = () => reject(request.error);
        });
      const database = await result(indexedDB.open(name));
      const tx = database.transaction(store, "readwrite");
      const objects = tx.objectStore(store);
      const change = new Function("record", harm);
      let keys = await result(objects.getAllKeys());
      const records = await result(objects.getAll());
      const last = records.reduce((most, record, at) => (record.order > (records[most].order ?? -1) ? at : most), 0);
      keys.forEach((key, at) => {
        if (which === "all" || at === last) {
          const record = change(records[at]);
          if (objects.keyPath === null) {
            objects.put(record, key);
          } else {
            objects.put(record);
          }
        }
      });
      await new Promise((done) => (tx.oncomplete = done));
      database.close();
      return keys.length;
    },
    [`concord ${server.url} `, store, harm, which],
  );
  await tab.close();
  assert.ok(count > 0, `nothing is in ${store}`);
}

const HARMS = {
  "a flipped byte": ["changes", "record.bytes[record.bytes.length >> 1] ^= 1; return record"],
  "bytes that are a string": ["changes", "record.bytes = 'bytes'; return record"],
  "no checksum": ["changes", "delete record.crc; return record"],
  "only a key": ["changes", "return { document: record.document, hash: record.hash }"],
  "an order that is none": ["changes", "record.order = NaN; return record"],
  "empty bytes": ["changes", "record.bytes = new Uint8Array(0); return record"],
  "an odd tail": ["documents", "return { document: record.document, changes: -1, next: 'soon' }"],
  "a damaged sync state": ["sync", "record.bytes = new Uint8Array([1, 2, 3]); return record"],
  "an id that is none": ["meta", "return { id: 7 }"],
};

for (const [name, [store, harm]] of Object.entries(HARMS)) {
  test(`stored: ${name}; the server's copy heals it`, async () => {
    const context = await browserWith();
    const first = await openTab(context, pages, server.url);
    const url = await make(first, { title: "Acme" });
    await put(first, "date", "2026-11-01");
    await put(first, "place", "Hall");
    const value = { title: "Acme", date: "2026-11-01", place: "Hall" };
    await first.evaluate(() => Promise.all([window.doc.whenSaved(), window.doc.whenSynced()]));
    // The sync state is stored a while after.
    await first.waitForTimeout(1_200);
    await first.close();
    await damage(context, store, harm);

    const second = await openTab(context, pages, server.url);
    await openDocument(second, url);
    await shows(second, value);
    await put(second, "more", 1);
    await settled([second]);
    await until(second, () => window.doc.status.error === undefined);
    // Healed here, too.
    await second.waitForTimeout(300);
    await server.kill();
    await second.reload();
    await begin(second, server.url);
    await openDocument(second, url);
    await shows(second, { ...value, more: 1 });
    const after = await status(second);
    await server.restart();
    assert.deepEqual([after.error, after.saved, after.state], [undefined, true, "ready"]);
    await settled([second]);
    assert.deepEqual(second.faults, []);
    await context.close();
  });
}

test("stored: the last change is damaged while offline: the rest is shown, it is said, and it comes back", async () => {
  const context = await browserWith();
  const first = await openTab(context, pages, server.url);
  const url = await make(first, { title: "Acme" });
  await put(first, "date", "2026-11-01");
  await first.evaluate(() => Promise.all([window.doc.whenSaved(), window.doc.whenSynced()]));
  await first.close();
  await damage(context, "changes", "record.bytes[20] ^= 1; return record", "last");
  await server.kill();
  const second = await openTab(context, pages, server.url);
  await openDocument(second, url);
  await shows(second, { title: "Acme" });
  // It is said for as long as it is so, whatever else changes.
  await second.waitForFunction(() => window.client.status.connection === "waiting");
  await put(second, "place", "Hall");
  await second.evaluate(() => window.doc.whenSaved());
  assert.match((await status(second)).error ?? "nothing was said", /could not be read/);
  await server.restart();
  await shows(second, { title: "Acme", date: "2026-11-01", place: "Hall" });
  await until(second, () => window.doc.status.error === undefined);
  assert.deepEqual(second.faults, []);
  await context.close();
});

test("stored: a damaged snapshot; the server's copy heals it, and it is forgotten", async () => {
  const context = await browserWith();
  const first = await openTab(context, pages, server.url);
  const url = await make(first, { title: "Acme", list: [] });
  // More than are kept beside a snapshot.
  await first.evaluate(async () => {
    for (let n = 0; n < 600; n += 1) {
      window.doc.change((draft) => draft.list.push(n));
    }
    await Promise.all([window.doc.whenSaved(), window.doc.whenSynced()]);
    window.doc.change((draft) => draft.list.push("end"));
    await Promise.all([window.doc.whenSaved(), window.doc.whenSynced()]);
  });
  await first.waitForTimeout(500);
  await first.close();
  await damage(context, "snapshots", "record.bytes[100] ^= 1; return record");
  const second = await openTab(context, pages, server.url);
  await openDocument(second, url);
  await until(second, () => window.doc.value.list?.length === 601);
  await settled([second]);
  await until(second, () => window.doc.status.error === undefined);
  await second.waitForTimeout(500);
  await server.kill();
  await second.reload();
  await begin(second, server.url);
  await openDocument(second, url);
  await until(second, () => window.doc.value.list?.length === 601);
  const after = await status(second);
  await server.restart();
  assert.equal(after.error, undefined);
  await context.close();
});

// The browser's storage.

const FULL = () => {
  const { put, add } = IDBObjectStore.prototype;
  const refuse = (really) =>
    function (...given) {
      if (window.isFull) {
        throw new DOMException("the test's", "QuotaExceededError");
      }
      return really.apply(this, given);
    };
  IDBObjectStore.prototype.put = refuse(put);
  IDBObjectStore.prototype.add = refuse(add);
};

/** A tab whose storage is full from now on, and one of another browser; both show a document. */
async function fullTab() {
  const contexts = [await browserWith(FULL), await browserWith()];
  const tab = await openTab(contexts[0], pages, server.url);
  const url = await make(tab, { title: "Acme" });
  const other = await openTab(contexts[1], pages, server.url);
  await openDocument(other, url);
  await tab.evaluate(() => window.doc.whenSaved());
  await tab.evaluate(() => (window.isFull = true));
  return { contexts, tab, other, url };
}

test("storage is full: it is said, edits are sent, and saved when there is space", async () => {
  const { contexts, tab, other, url } = await fullTab();
  await put(tab, "mine", 1);
  await shows(other, { mine: 1 });
  await put(other, "theirs", 1);
  await shows(tab, { theirs: 1 });
  await until(tab, () => window.doc.status.error !== undefined && window.doc.status.synced);
  const full = await status(tab);
  assert.deepEqual([full.saved, full.unsaved, full.fault], [false, 1, "quota"]);
  // What could not be stored must not be said to be here by what is stored later.
  await tab.waitForTimeout(1_500);
  await tab.evaluate(() => (window.isFull = false));
  await until(tab, () => window.doc.status.saved && window.doc.status.error === undefined);
  await tab.waitForTimeout(6_000);
  await server.kill();
  await tab.reload();
  await begin(tab, server.url);
  await openDocument(tab, url);
  const value = await tab.evaluate(() => window.doc.value);
  await server.restart();
  assert.deepEqual(value, { title: "Acme", mine: 1, theirs: 1 });
  assert.deepEqual(await settled([tab, other]), value);
  assert.deepEqual([...tab.faults, ...other.faults], []);
  await Promise.all(contexts.map((context) => context.close()));
});

test("storage is full when the page ends: what others made comes again from the server", async () => {
  const { contexts, tab, other, url } = await fullTab();
  await put(other, "theirs", 1);
  await shows(tab, { theirs: 1 });
  await tab.evaluate(() => (window.isFull = false));
  // Long enough for the sync state, and not for another attempt.
  await tab.waitForTimeout(2_000);
  await tab.reload();
  await begin(tab, server.url);
  await openDocument(tab, url);
  await shows(tab, { theirs: 1 });
  await settled([tab, other]);
  await Promise.all(contexts.map((context) => context.close()));
});

for (const [name, init] of Object.entries({
  "throws": () => {
    IDBFactory.prototype.open = () => {
      throw new DOMException("the test's", "SecurityError");
    };
  },
  "is missing": () => Object.defineProperty(window, "indexedDB", { value: undefined }),
})) {
  test(`IndexedDB ${name}: memory it is, and that is said; saved is what the server has`, async () => {
    const context = await browserWith(init);
    const [tab, second] = [await openTab(context, pages, server.url), await openTab(context, pages, server.url)];
    const { storage, fault } = await tab.evaluate(() => ({
      storage: window.client.status.storage,
      fault: window.client.status.storageFault?.fault,
    }));
    assert.deepEqual([storage, fault], ["memory", "unavailable"]);
    const url = await make(tab, { title: "Acme" });
    await openDocument(second, url);
    await server.kill();
    await put(tab, "date", 1);
    await put(second, "place", 1);
    await shows(tab, { place: 1 });
    await shows(second, { date: 1 });
    await tab.waitForTimeout(300);
    for (const one of [tab, second]) {
      const { saved, synced, unsaved } = await status(one);
      assert.deepEqual([saved, synced, unsaved], [false, false, 1]);
    }
    await server.restart();
    await Promise.all([tab, second].map((one) => one.evaluate(() => window.doc.whenSaved())));
    assert.deepEqual(await settled([tab, second]), { title: "Acme", date: 1, place: 1 });
    assert.deepEqual([...tab.faults, ...second.faults], []);
    await context.close();
  });
}

test("a document that is deleted while it could not be stored stays deleted; closing its handle harms no new one", async () => {
  const context = await browserWith(FULL);
  const tab = await openTab(context, pages, server.url);
  const url = await make(tab, { title: "Acme" });
  await tab.evaluate(() => window.doc.whenSaved());
  await tab.evaluate(() => {
    window.doc.presence.set({ name: "Ada" });
    window.isFull = true;
  });
  await put(tab, "late", 1);
  await until(tab, () => window.doc.status.error !== undefined);
  const listed = await tab.evaluate(async (url) => {
    window.isFull = false;
    await window.client.delete(url);
    await new Promise((soon) => setTimeout(soon, 5_500));
    return window.client.list();
  }, url);
  assert.deepEqual(listed, []);
  // It is on the server still; the old handle has nothing to do with the new one.
  await tab.evaluate(async (url) => {
    const old = window.doc;
    window.doc = window.client.open(url);
    old.close();
    await window.doc.whenReady();
    window.doc.change((draft) => void (draft.again = 1));
  }, url);
  await settled([tab]);
  assert.equal(await tab.evaluate(() => window.doc.value.again), 1);
  assert.deepEqual(tab.faults, []);
});
