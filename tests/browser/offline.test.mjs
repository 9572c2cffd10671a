// Promise: nothing that a browser said was saved is lost, offline, over reloads, and when the server dies.
//
// Contexts are separate browsers: they share neither storage nor tabs. Pages are reloaded while the network is
// off, so what they show afterwards can only be from their own storage. The server is killed with SIGKILL.

import assert from "node:assert/strict";
import { test } from "node:test";

import { begin, make, openDocument, openTab, sentAll, settled, stage, until } from "./harness.mjs";

let server, pages, browser;

stage((parts) => ({ server, pages, browser } = parts));

test("two browsers edit offline, reload offline, and come back: equal, nothing lost", async () => {
  const contexts = await Promise.all([browser.newContext(), browser.newContext()]);
  const tabs = await Promise.all(contexts.map((context) => openTab(context, pages, server.url)));
  const url = await make(tabs[0], { date: "2026-11-01", agenda: "Opening. Closing.", guests: ["Ada"] });
  await openDocument(tabs[1], url);
  await settled(tabs);

  const edits = [
    { word: "Budget. ", guest: "Grace", date: "2026-11-02" },
    { word: "Hiring. ", guest: "Barbara", date: "2026-11-03" },
  ];
  await server.kill();
  await Promise.all(
    tabs.map(async (tab, n) => {
      const status = await tab.evaluate(async ({ word, guest, date }) => {
        const { splice } = await import("/client/index.js");
        window.doc.change((draft) => {
          splice(draft, ["agenda"], "Opening. ".length, 0, word);
          draft.guests.push(guest);
          draft.date = date;
        });
        await window.doc.whenSaved();
        return window.doc.status;
      }, edits[n]);
      assert.deepEqual([status.saved, status.synced, status.unsynced], [true, false, 1]);
      await tab.reload();
      await begin(tab, server.url);
      await openDocument(tab, url);
      const [value, later] = await tab.evaluate(() => [window.doc.value, window.doc.status]);
      assert.deepEqual(value.guests, ["Ada", edits[n].guest]);
      // More than one where the page was gone before it noted what the server has: never fewer.
      assert.deepEqual([later.saved, later.synced], [true, false]);
      assert.ok(later.unsynced >= 1);
    }),
  );
  await server.restart();
  const value = await settled(tabs);
  assert.deepEqual([...value.guests].sort(), ["Ada", "Barbara", "Grace"]);
  assert.ok(value.agenda === "Opening. Budget. Hiring. Closing." || value.agenda === "Opening. Hiring. Budget. Closing.");
  assert.ok(["2026-11-02", "2026-11-03"].includes(value.date));
  assert.deepEqual(tabs.flatMap((tab) => tab.faults), []);
  await Promise.all(contexts.map((context) => context.close()));
});

test("the server is killed and started again while tabs type: all converge, and `synced` was never wrong", async () => {
  const contexts = await Promise.all([browser.newContext(), browser.newContext()]);
  const tabs = [
    await openTab(contexts[0], pages, server.url),
    await openTab(contexts[0], pages, server.url),
    await openTab(contexts[1], pages, server.url),
  ];
  const url = await make(tabs[0], { notes: ["", "", ""] });
  await openDocument(tabs[1], url);
  await openDocument(tabs[2], url);
  const LETTERS = 150;
  const typing = tabs.map((tab, place) =>
    tab.evaluate(
      async ([place, count]) => {
        const { splice } = await import("/client/index.js");
        window.believed = 0;
        window.doc.on("status", (status) => {
          if (status.synced) {
            window.believed = Math.max(window.believed, window.doc.value.notes[place].length);
          }
        });
        for (let n = 0; n < count; n += 1) {
          window.doc.change((draft) => splice(draft, ["notes", place], draft.notes[place].length, 0, "x"));
          await new Promise((soon) => setTimeout(soon, 10));
        }
        await window.doc.whenSaved();
      },
      [place, LETTERS],
    ),
  );
  for (let round = 0; round < 3; round += 1) {
    await new Promise((soon) => setTimeout(soon, 300));
    await server.kill();
    // With the server dead, what a tab believes can only be what was on the disk.
    const believed = await Promise.all(tabs.map((tab) => tab.evaluate(() => window.believed)));
    await server.restart();
    const stranger = await browser.newContext();
    const reader = await openTab(stranger, pages, server.url);
    await openDocument(reader, url);
    for (const [place, length] of believed.entries()) {
      await until(reader, ([place, length]) => window.doc.value.notes[place].length >= length, [place, length]);
    }
    await stranger.close();
  }
  await Promise.all(typing);
  const value = await settled(tabs);
  assert.deepEqual(value.notes, Array(3).fill("x".repeat(LETTERS)));
  assert.deepEqual(tabs.flatMap((tab) => tab.faults), []);
  await Promise.all(contexts.map((context) => context.close()));
});

test("what is changed right before a client is closed is stored", async () => {
  const context = await browser.newContext();
  const tab = await openTab(context, pages, server.url);
  const url = await make(tab, { n: 0 });
  await tab.evaluate(async () => {
    window.client.setOffline(true);
    for (let n = 1; n <= 20; n += 1) {
      window.doc.change((draft) => {
        draft.n = n;
      });
    }
    await window.client.close();
  });
  await server.kill();
  await tab.reload();
  await begin(tab, server.url);
  await openDocument(tab, url);
  assert.equal(await tab.evaluate(() => window.doc.value.n), 20);
  await server.restart();
  await settled([tab]);
  assert.deepEqual(tab.faults, []);
  await context.close();
});

test("what was changed offline is sent by a tab that does not open the document", async () => {
  const context = await browser.newContext();
  const tab = await openTab(context, pages, server.url);
  const url = await make(tab, { n: 0 });
  const created = await tab.evaluate(async () => {
    window.client.setOffline(true);
    window.doc.change((draft) => void (draft.n = 1));
    const made = window.client.create({ n: 2 });
    await Promise.all([window.doc.whenSaved(), made.whenSaved()]);
    return made.url;
  });
  await tab.close();
  const other = await openTab(context, pages, server.url);
  const reader = await openTab(await browser.newContext(), pages, server.url);
  for (const [each, n] of [[url, 1], [created, 2]]) {
    await openDocument(reader, each);
    await until(reader, (n) => window.doc.value.n === n, n);
  }
  // What is sent is not sent again by who comes next.
  await sentAll(other, server);
  assert.deepEqual([...tab.faults, ...other.faults, ...reader.faults], []);
  await Promise.all([context.close(), reader.context().close()]);
});

test("a document that the server refuses keeps none of the others from being sent, and is kept here", async () => {
  const context = await browser.newContext();
  const tab = await openTab(context, pages, server.url);
  const [bad, ...good] = await tab.evaluate(async () => {
    window.client.setOffline(true);
    const made = Array.from({ length: 6 }, () => window.client.create({ n: 1 }));
    // The first to be sent; it ends the connection.
    made.sort((one, other) => (one.id < other.id ? -1 : 1));
    // Longer than a server takes the message of a change.
    made[0].change((draft) => void (draft.n = -1), { message: "x".repeat(100_000) });
    await Promise.all(made.map((handle) => handle.whenSaved()));
    return made.map(({ url }) => url);
  });
  await tab.close();
  const refused = await server.metric("concord_refused_total");
  const other = await openTab(context, pages, server.url);
  const reader = await openTab(await browser.newContext(), pages, server.url);
  for (const url of good) {
    await openDocument(reader, url);
    await until(reader, () => window.doc.value.n === 1);
  }
  assert.ok((await server.metric("concord_refused_total")) > refused, "the bad one was sent, too");
  await openDocument(other, bad);
  const { value, synced } = await other.evaluate(() => ({ value: window.doc.value, synced: window.doc.status.synced }));
  assert.deepEqual({ value, synced }, { value: { n: -1 }, synced: false });
  assert.deepEqual([...tab.faults, ...other.faults, ...reader.faults], []);
  await Promise.all([context.close(), reader.context().close()]);
});
