// Promise: a long document is read in a worker, wherever it comes from: storage, the server, or another tab. The page
// goes on meanwhile, and what it then works with is the whole document, as if it had read it itself.

import assert from "node:assert/strict";
import { test } from "node:test";

import { make, openDocument, openTab, stage, until } from "./harness.mjs";

let server, pages, browser;
stage((parts) => ({ server, pages, browser } = parts));

/** Letters that do not compress, so that a text of them is long in storage, too. */
const letters = (count) => Array.from({ length: count }, () => String.fromCharCode(97 + Math.floor(Math.random() * 26))).join("");
const TEXT = letters(100_000);

/** Nothing went wrong in any page. */
function fine(...tabs) {
  for (const tab of tabs) {
    assert.deepEqual(tab.faults, []);
  }
}

/** A tab that counts the workers which it starts. */
async function tabIn(context, options = {}) {
  let workers = 0;
  const tab = await openTab(context, pages, server.url, options);
  tab.on("worker", () => (workers += 1));
  return { tab, workers: () => workers };
}

/** Types, takes it back, and looks into the history, as only a whole replica can. */
async function worksOn(tab) {
  const seen = await tab.evaluate(async () => {
    const { splice } = await import("/client/index.js");
    const before = window.doc.value.text;
    window.doc.change((draft) => splice(draft, ["text"], before.length, 0, "!"));
    const typed = window.doc.value.text;
    const isUndone = window.doc.undo() && window.doc.value.text === before;
    window.doc.change((draft) => splice(draft, ["text"], before.length, 0, "?"));
    await window.doc.whenSynced();
    const [first] = window.doc.history();
    return { isTyped: typed === `${before}!`, isUndone, hadText: "text" in window.doc.at([first.hash]) };
  });
  assert.deepEqual(seen, { isTyped: true, isUndone: true, hadText: true });
}

test("a long document from the server, from another tab, and from storage", async () => {
  const contexts = [await browser.newContext(), await browser.newContext()];
  const maker = await tabIn(contexts[0]);
  const url = await make(maker.tab, { text: TEXT });
  assert.equal(maker.workers(), 0, "who makes it has it");

  const reader = await tabIn(contexts[1]);
  const readings = await reader.tab.evaluate(async (url) => {
    window.doc = window.client.open(url);
    const readings = [];
    window.doc.on("status", ({ state, reading }) => readings.push({ state, reading }));
    await window.doc.whenReady();
    return readings;
  }, url);
  assert.equal(reader.workers(), 1);
  const [first] = readings.filter(({ reading }) => reading !== undefined);
  assert.ok(first?.state === "loading" && first.reading.done === 0 && first.reading.bytes > 50_000, JSON.stringify(readings));
  assert.equal(readings.at(-1).reading, undefined);
  assert.equal(await reader.tab.evaluate(() => window.doc.value.text), TEXT);
  await worksOn(reader.tab);
  await until(maker.tab, (length) => window.doc.value.text.length === length, TEXT.length + 1);

  // It was not stored yet where another tab of the same browser looks; or it was. Either way it is long.
  const follower = await tabIn(contexts[1]);
  await openDocument(follower.tab, url);
  assert.equal(follower.workers(), 1);
  await worksOn(follower.tab);
  for (const { tab } of [maker, reader, follower]) {
    await until(tab, (expected) => window.doc.value.text === expected, `${TEXT}??`);
  }

  await reader.tab.close();
  await follower.tab.reload();
  await follower.tab.evaluate(async (url) => {
    const { connect } = await import("/client/index.js");
    window.client = await connect({ url });
  }, server.url);
  await openDocument(follower.tab, url);
  assert.equal(follower.workers(), 2, "one more, for what is stored");
  await worksOn(follower.tab);
  await until(maker.tab, (expected) => window.doc.value.text === expected, `${TEXT}???`);
  fine(maker.tab, follower.tab);
  for (const context of contexts) {
    await context.close();
  }
});

test("offline, a long document comes from the tab that has it", async () => {
  const context = await browser.newContext();
  const options = { storage: "memory" };
  const { tab: one } = await tabIn(context, options);
  const { tab: other, workers } = await tabIn(context, options);
  const url = await make(one, { text: TEXT });
  await one.evaluate(() => window.client.setOffline(true));
  await until(other, () => window.client.status.connection === "offline");
  await openDocument(other, url);
  assert.equal(await other.evaluate(() => window.doc.value.text), TEXT);
  assert.equal(workers(), 1);
  fine(one, other);
  await context.close();
});

test("what others change while a long document is being read is in it", async () => {
  const contexts = [await browser.newContext(), await browser.newContext()];
  const maker = await tabIn(contexts[0]);
  const url = await make(maker.tab, { text: TEXT, count: 0 });
  const reader = await tabIn(contexts[1]);
  await reader.tab.evaluate((url) => {
    window.doc = window.client.open(url);
    window.reading = new Promise((begun) => window.doc.on("status", ({ reading }) => reading && begun()));
  }, url);
  await reader.tab.evaluate(() => window.reading);
  assert.notEqual(await reader.tab.evaluate(() => window.doc.status.reading), undefined, "it is still being read");
  await maker.tab.evaluate(() => {
    for (let count = 1; count <= 50; count += 1) {
      window.doc.change((draft) => (draft.count = count));
    }
  });
  await until(reader.tab, () => window.doc.value.count === 50);
  await worksOn(reader.tab);
  // The connection goes while it is being read: what was read is used in the next session.
  const again = await tabIn(await browser.newContext());
  await again.tab.evaluate((url) => {
    window.doc = window.client.open(url);
    window.doc.on("status", ({ reading }) => reading && window.client.setOffline(true));
  }, url);
  await until(again.tab, () => window.doc.status.state === "ready");
  await again.tab.evaluate(() => window.client.setOffline(false));
  await worksOn(again.tab);
  await until(maker.tab, () => window.doc.value.text.endsWith("??"));
  fine(maker.tab, reader.tab, again.tab);
});

test("who has an old copy and lacks most of a long document goes on with it meanwhile", async () => {
  const contexts = [await browser.newContext(), await browser.newContext()];
  const maker = await tabIn(contexts[0]);
  const url = await make(maker.tab, { text: "", notes: [] });
  const reader = await tabIn(contexts[1]);
  await openDocument(reader.tab, url);
  const follower = await tabIn(contexts[1]);
  await openDocument(follower.tab, url);
  await reader.tab.evaluate(async () => {
    const { splice } = await import("/client/index.js");
    await window.doc.whenSynced();
    window.client.setOffline(true);
    window.doc.change((draft) => splice(draft, ["text"], 0, 0, "mine"));
    await window.doc.whenSaved();
  });
  const NOTES = 1_500;
  await maker.tab.evaluate(async (notes) => {
    for (let n = 0; n < notes; n += 1) {
      window.doc.change((draft) => draft.notes.push(crypto.getRandomValues(new Uint8Array(400))));
    }
    await window.doc.whenSynced();
  }, NOTES);
  await server.kill("SIGTERM");
  await server.restart();
  const seen = await reader.tab.evaluate(async (notes) => {
    const { splice } = await import("/client/index.js");
    const seen = { readings: [], states: new Set(), counts: new Set(), unsynced: 0, typed: 0 };
    const back = new Promise((done) =>
      window.doc.on("status", ({ state, reading, unsynced }) => {
        seen.states.add(state);
        seen.counts.add(window.doc.value.notes.length);
        seen.unsynced = Math.max(seen.unsynced, unsynced);
        if (reading !== undefined) {
          seen.readings.push(reading);
          if (seen.typed < 3) {
            seen.typed += 1;
            window.doc.change((draft) => splice(draft, ["text"], 0, 0, "."));
          }
        }
        if (window.doc.value.notes.length === notes && reading === undefined) done();
      }),
    );
    window.client.setOffline(false);
    await back;
    await window.doc.whenSynced();
    return { ...seen, states: [...seen.states], counts: [...seen.counts] };
  }, NOTES);
  assert.equal(reader.workers(), 1);
  assert.deepEqual(seen.states, ["ready"]);
  assert.ok(seen.counts.length > 3, `it came part by part: ${seen.counts}`);
  assert.equal(seen.typed, 3);
  assert.ok(seen.unsynced <= 4, `${seen.unsynced} changes are said to be ours`);
  for (const { tab } of [maker, reader, follower]) {
    await until(tab, (notes) => window.doc.value.text === "...mine" && window.doc.value.notes.length === notes, NOTES);
  }
  const values = await Promise.all([maker, reader, follower].map(({ tab }) => tab.evaluate(() => JSON.stringify(window.doc.value))));
  assert.equal(new Set(values).size, 1);
  assert.equal(follower.workers(), 0);
  // What was changed here before can still be taken back.
  assert.ok(await reader.tab.evaluate(() => window.doc.undo()));
  await until(maker.tab, () => window.doc.value.text === "mine");
  assert.ok(await reader.tab.evaluate(() => window.doc.undo()));
  await maker.tab.evaluate(() => window.doc.change((draft) => (draft.notes = [])));
  for (const { tab } of [maker, reader, follower]) {
    await until(tab, () => window.doc.value.text === "" && window.doc.value.notes.length === 0);
  }
  fine(maker.tab, reader.tab, follower.tab);
  for (const context of contexts) {
    await context.close();
  }
});

test("without workers a long document is read in the page", async () => {
  const contexts = [await browser.newContext(), await browser.newContext()];
  const maker = await tabIn(contexts[0]);
  const url = await make(maker.tab, { text: TEXT });
  let aborted = 0;
  await contexts[1].route("**/client/worker.js", (route) => {
    aborted += 1;
    return route.abort();
  });
  const reader = await tabIn(contexts[1]);
  await openDocument(reader.tab, url);
  await worksOn(reader.tab);
  assert.equal(aborted, 1);
  fine(maker.tab, reader.tab);
  for (const context of contexts) {
    await context.close();
  }
});
