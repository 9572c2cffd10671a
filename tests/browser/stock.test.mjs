// Promise: a page of stock automerge-repo and one of Concord's edit one document together, each by its own means, and
// see the same: text, maps, lists, counters, dates, bytes; and each other's presence.
//
// The stock page is what npm has (2.5.6), bundled as an application would be. Values are compared in both directions,
// after edits that were made one after the other and after edits that were made at the same time, offline.

import assert from "node:assert/strict";
import { test } from "node:test";

import { openDocument, openTab, PATIENCE_MS, stage, until } from "./harness.mjs";
import { bundle } from "./stock.mjs";

let server, pages, browser;

stage(
  (parts) => ({ server, pages, browser } = parts),
  async () => ({ "/stock.js": await bundle() }),
);

/** A page with a stock repository: `window.repo`. */
async function stockTab(context) {
  const tab = await context.newPage();
  tab.faults = [];
  tab.on("pageerror", (error) => tab.faults.push(error));
  await tab.goto(pages.url);
  await tab.evaluate(async (url) => {
    window.stock = await import("/stock.js");
    window.adapter = new stock.WebSocketClientAdapter(url, 200);
    window.repo = new stock.Repo({ network: [adapter] });
    await window.repo.networkSubsystem.whenReady();
  }, server.url);
  return tab;
}

/** What a stock page shows, in plain data: counters as numbers, immutable strings as strings. */
const stockValue = (tab) =>
  tab.evaluate(() => {
    const plain = (value) => {
      if (value instanceof stock.Counter) return value.value;
      if (value instanceof Uint8Array) return [...value];
      if (value instanceof Date) return value.toISOString();
      if (stock.A.isImmutableString?.(value) || value instanceof stock.RawString) return value.toString();
      if (Array.isArray(value)) return value.map(plain);
      if (typeof value === "object" && value !== null)
        return Object.fromEntries(Object.keys(value).sort().map((key) => [key, plain(value[key])]));
      return value;
    };
    const doc = window.handle.doc();
    return { value: plain(doc), heads: stock.A.getHeads(doc).sort().join() };
  });

const concordValue = (tab) =>
  tab.evaluate(() => {
    const plain = (value) => {
      if (value instanceof Uint8Array) return [...value];
      if (value instanceof Date) return value.toISOString();
      if (Array.isArray(value)) return value.map(plain);
      if (typeof value === "object" && value !== null) {
        const given = JSON.parse(JSON.stringify(value));
        if (typeof given !== "object") return given;
        return Object.fromEntries(Object.keys(value).sort().map((key) => [key, plain(value[key])]));
      }
      return value;
    };
    return { value: plain(window.doc.value), heads: window.doc.heads.join() };
  });

/** Waits until both show the same; that. */
async function same(stock, concord) {
  const deadline = Date.now() + PATIENCE_MS;
  for (;;) {
    const [theirs, ours] = await Promise.all([stockValue(stock), concordValue(concord)]);
    if (theirs.heads === ours.heads) {
      assert.deepEqual(ours.value, theirs.value);
      return ours.value;
    }
    assert.ok(Date.now() < deadline, `not the same:\n${JSON.stringify(theirs)}\n${JSON.stringify(ours)}`);
    await new Promise((soon) => setTimeout(soon, 30));
  }
}

const CONCORD_EDITS = [
  (draft, { splice }) => splice(draft, ["text"], draft.text.length, 0, " é😀 of Concord"),
  (draft) => void (draft.map.ours = { deep: [1, "two", null, true, 2.5, new Date(86_400_000)] }),
  (draft) => draft.list.unshift("ours"),
  (draft) => draft.list.splice(1, 1, { name: "replaced" }),
  (draft) => draft.count.increment(7),
  (draft) => void delete draft.map.first,
  (draft) => void (draft.bytes = new Uint8Array([1, 2, 255])),
];

const STOCK_EDITS = [
  (draft, { A }) => A.splice(draft, ["text"], 0, 1, "Stock 😀 "),
  (draft) => void (draft.map.theirs = { deep: [1, "two", null, false, 2.5, new Date(172_800_000)] }),
  (draft) => draft.list.push("theirs"),
  (draft) => draft.list.splice(0, 1),
  (draft) => draft.count.increment(5),
  (draft) => void (draft.counters = { n: 1 }),
  (draft, { A }) => A.updateText(draft, ["text"], draft.text.replace("of", "by")),
];

const editConcord = (tab, edit) =>
  tab.evaluate(async (edit) => {
    const concord = await import("/client/index.js");
    window.doc.change((draft) => void (0, eval)(`(${edit})`)(draft, concord));
  }, String(edit));

const editStock = (tab, edit) =>
  tab.evaluate((edit) => window.handle.change((draft) => void (0, eval)(`(${edit})`)(draft, window.stock)), String(edit));

for (const maker of ["stock", "concord"]) {
  test(`a document that ${maker} made is edited by both: one after the other, and offline`, async () => {
    const stock = await stockTab(await browser.newContext());
    const concord = await openTab(await browser.newContext(), pages, server.url);
    let url;
    if (maker === "stock") {
      url = await stock.evaluate(() => {
        const { Counter, RawString } = window.stock;
        window.handle = window.repo.create({
          text: "A text",
          map: { first: 1 },
          list: ["a", "b"],
          count: new Counter(3),
          raw: new RawString("whole"),
        });
        return window.handle.url;
      });
      await openDocument(concord, url);
    } else {
      url = await concord.evaluate(async () => {
        const { Counter, ImmutableString } = await import("/client/index.js");
        window.doc = window.client.create({
          text: "A text",
          map: { first: 1 },
          list: ["a", "b"],
          count: new Counter(3),
          raw: new ImmutableString("whole"),
        });
        await window.doc.whenSynced();
        return window.doc.url;
      });
      await stock.evaluate(async (url) => {
        window.handle = await window.repo.find(url);
      }, url);
    }
    const first = await same(stock, concord);
    assert.deepEqual(first, { count: 3, list: ["a", "b"], map: { first: 1 }, raw: "whole", text: "A text" });
    for (let n = 0; n < CONCORD_EDITS.length; n += 1) {
      await editConcord(concord, CONCORD_EDITS[n]);
      await same(stock, concord);
      await editStock(stock, STOCK_EDITS[n]);
      await same(stock, concord);
    }
    // The same at once, while neither hears of the other.
    await server.kill();
    for (const edit of CONCORD_EDITS) {
      await editConcord(concord, edit);
    }
    for (const edit of STOCK_EDITS) {
      await editStock(stock, edit);
    }
    await server.restart();
    const last = await same(stock, concord);
    assert.equal(last.count, 3 + 2 * (7 + 5));
    assert.ok(last.text.includes("Concord") && last.text.includes("Stock"));
    await concord.evaluate(() => window.doc.whenSynced());
    assert.deepEqual([...stock.faults, ...concord.faults], []);
    await Promise.all([stock, concord].map((tab) => tab.context().close()));
  });
}

test("presence is seen both ways, also by a tab that does not lead", async () => {
  const stock = await stockTab(await browser.newContext());
  const context = await browser.newContext();
  const leader = await openTab(context, pages, server.url);
  const follower = await openTab(context, pages, server.url);
  const url = await leader.evaluate(async () => {
    window.doc = window.client.create({ text: "" });
    await window.doc.whenSynced();
    return window.doc.url;
  });
  await openDocument(follower, url);
  await stock.evaluate(async (url) => {
    window.handle = await window.repo.find(url);
    window.heard = [];
    window.handle.on("ephemeral-message", ({ message }) => window.heard.push(message));
    window.presence = new window.stock.Presence({ handle: window.handle });
    window.presence.start({ initialState: { name: "Stock", at: 1 } });
  }, url);
  await leader.evaluate(() => window.doc.presence.set({ name: "Leader", at: 2 }));
  await follower.evaluate(() => window.doc.presence.set({ name: "Follower", at: 3 }));

  const names = (tab) => tab.evaluate(() => window.doc.presence.peers.map((peer) => peer.state.name).sort());
  const untilNames = (tab, names) =>
    until(tab, (names) => window.doc.presence.peers.map((peer) => peer.state.name).sort().join() === names, names.join());
  const stockNames = (expected) =>
    until(
      stock,
      (expected) => Object.values(window.presence.getPeerStates().value).map((peer) => peer.value.name).sort().join() === expected,
      expected.join(),
    );
  await untilNames(leader, ["Follower", "Stock"]);
  await untilNames(follower, ["Leader", "Stock"]);
  await stockNames(["Follower", "Leader"]);

  // Each field by itself.
  await stock.evaluate(() => window.presence.broadcast("at", { line: 9 }));
  await until(follower, () => window.doc.presence.peers.some((peer) => peer.state.name === "Stock" && peer.state.at.line === 9));
  await follower.evaluate(() => window.doc.presence.set({ at: { line: 4 } }));
  await until(stock, () =>
    Object.values(window.presence.getPeerStates().value).some((peer) => peer.value.name === "Follower" && peer.value.at.line === 4),
  );

  // Who leaves is gone at once.
  await stock.evaluate(() => window.presence.stop());
  await untilNames(leader, ["Follower"]);
  await follower.evaluate(() => window.doc.presence.stop());
  await untilNames(leader, []);
  assert.deepEqual(await names(leader), []);
  assert.deepEqual([...stock.faults, ...leader.faults, ...follower.faults], []);
  await Promise.all([stock.context().close(), context.close()]);
});
