// Promise: a document that was closed, and is opened again, is all there and goes on, and the tab's other documents
// do not notice: the connection stays, unless something is lacking that only a new session brings.
//
// What is lacking is made to be so: by a change that comes while the document is closed, and by a storage that kept
// nothing. Connections are counted where the browser makes them.

import assert from "node:assert/strict";
import { afterEach, test } from "node:test";

import { begin, make, openDocument, openTab, settled, stage, until } from "./harness.mjs";

let server, pages, browser;

stage((parts) => ({ server, pages, browser } = parts));

afterEach(() => Promise.all(browser.contexts().map((context) => context.close())));

/** A tab that has a document open, which another made; `tab.connections` is how many it made. */
async function reading(options = {}, init = () => {}) {
  const writer = await openTab(await browser.newContext(), pages, server.url);
  const url = await make(writer, { title: "Acme", list: [] });
  await writer.evaluate(() => {
    for (let n = 0; n < 20; n += 1) {
      window.doc.change((draft) => draft.list.push(n));
    }
  });
  const context = await browser.newContext();
  await context.addInitScript(init);
  const reader = await context.newPage();
  reader.faults = [];
  reader.connections = 0;
  reader.on("pageerror", (error) => reader.faults.push(error));
  reader.on("websocket", () => (reader.connections += 1));
  await reader.goto(pages.url);
  await begin(reader, server.url, options);
  await openDocument(reader, url);
  await settled([writer, reader]);
  assert.equal(reader.connections, 1);
  return { writer, reader, url };
}

/** Closes it, so that it is dropped. */
async function close(reader) {
  await until(reader, () => window.doc.status.synced && window.doc.status.saved);
  await reader.evaluate(() => window.doc.close());
}

/** Both see what either changes, and know that the server has it. */
async function goesOn(writer, reader) {
  await reader.evaluate(() => window.doc.change((draft) => draft.list.push("reader")));
  await writer.evaluate(() => window.doc.change((draft) => draft.list.push("writer")));
  await settled([writer, reader]);
  assert.deepEqual([...writer.faults, ...reader.faults], []);
}

for (const storage of ["indexeddb", "memory"]) {
  test(`closed and opened again with ${storage}: all of it, synced, on the same connection`, async () => {
    const { writer, reader, url } = await reading({ storage });
    for (let round = 0; round < 3; round += 1) {
      await close(reader);
      await openDocument(reader, url);
      await until(reader, () => window.doc.status.synced);
      const { list } = await settled([writer, reader]);
      assert.equal(list.length, 20 + 2 * round);
      await goesOn(writer, reader);
    }
    // Nothing is new to the server, which says nothing; that must not be taken for the connection's end.
    await close(reader);
    await openDocument(reader, url);
    await reader.waitForTimeout(12_000);
    assert.equal(reader.connections, 1);
  });
}

test("changed by another while it was closed: that comes, too", async () => {
  const { writer, reader, url } = await reading();
  await close(reader);
  await writer.evaluate(() => window.doc.change((draft) => void (draft.title = "Acme & Sons")));
  await until(writer, () => window.doc.status.synced);
  // It was sent, and nobody took it.
  await reader.waitForTimeout(500);
  await openDocument(reader, url);
  await settled([writer, reader]);
  await goesOn(writer, reader);
  assert.equal(reader.connections, 2);
});

test("storage kept nothing of it: all of it comes again", async () => {
  const { writer, reader, url } = await reading({}, () => {
    // Before the document is there; its own changes are none.
    const really = IDBObjectStore.prototype.put;
    IDBObjectStore.prototype.put = function (...given) {
      if (window.client !== undefined) {
        throw new DOMException("full (the test's)", "QuotaExceededError");
      }
      return really.apply(this, given);
    };
    IDBObjectStore.prototype.add = IDBObjectStore.prototype.put;
  });
  await close(reader);
  await reader.evaluate(() => {
    window.told = [];
    window.client.on("status", ({ connection }) => window.told.push(connection));
  });
  await openDocument(reader, url);
  const { list } = await settled([writer, reader]);
  assert.equal(list.length, 20);
  assert.equal(reader.connections, 2);
  assert.deepEqual(await reader.evaluate(() => window.told), ["connecting", "open"], "it was never offline");
});
