/**
 * Promise: while a long document is being read elsewhere nothing that happens is lost: neither who asked for it, nor what
 * others sent; and one that could not be read is read in the page, or said to be unread.
 *
 * Whoever reads is a fake: the test decides when it is done and what comes of it. Tabs have storage of their own, so
 * that what one shows came from another.
 */

import assert from "node:assert/strict";
import { test } from "node:test";
import { concat } from "../../src/client/chunks.js";
import { MemoryStorage } from "../../src/storage/memory.js";
import type { Chunk } from "../../src/wasm.js";
import { Browser, FakeLong, filled, settle, unpacked, until } from "./browser.js";

interface Doc {
  n: number;
}

/** A document, a change for each value up to `n`, that no client has. */
function documentOf(browser: Browser, n: number): { readonly id: string; readonly chunks: readonly Chunk[] } {
  const id = browser.newId();
  const replica = browser.replica(id);
  const chunks: Chunk[] = [];
  for (let at = 1; at <= n; at += 1) {
    replica.put("_root", "n", at);
    chunks.push(replica.commit(undefined, 0) as Chunk);
  }
  replica.free();
  return { id, chunks };
}

test("who leads when a long document was read is told that it is wanted", async () => {
  const browser = await Browser.start();
  const long = new FakeLong();
  const maker = await browser.client(false, undefined, new MemoryStorage());
  const reader = await browser.client(false, long, new MemoryStorage());
  const storage = new MemoryStorage();
  await browser.client(false, undefined, storage);
  const made = maker.create<Doc>({ n: 1 });
  const opened = reader.open<Doc>(made.id);
  const filling = await long.next();
  await maker.close();
  browser.group.leads("tab-2");
  await settle();
  filling.resolve(filled(browser, filling));
  await opened.whenReady();
  opened.change((draft) => void (draft.n = 2));
  const stored = async (): Promise<unknown> => {
    const replica = browser.replica(made.id);
    const { changes = [], snapshots = [] } = (await storage.load(made.id)) ?? {};
    for (const { bytes } of [...snapshots, ...changes]) replica.apply(bytes);
    return replica.get("_root", "n");
  };
  for (let tries = 0; tries < 300 && (await stored()) !== 2; tries += 1) await settle();
  assert.equal(await stored(), 2, "the one that leads has it, with what was changed");
  await browser.close();
});

test("a tab that asks while the one that leads is reading is answered", async () => {
  const browser = await Browser.start();
  const { id, chunks } = documentOf(browser, 1);
  const storage = await browser.storage();
  await storage.append(id, chunks, "others", "any");
  await storage.close();
  const long = new FakeLong();
  const leader = await browser.client(false, long);
  leader.open(id);
  const filling = await long.next();
  browser.group.say("tab-0", "tab-9", { t: "want", documents: [{ id, heads: [] }] });
  await settle();
  filling.resolve(filled(browser, filling));
  const answers = (): unknown[] =>
    browser.group.said.filter(({ to }) => to === undefined || to === "tab-9").map(({ body }) => (body as { t: string }).t);
  await until(() => answers().includes("changes"), "it is sent what it lacks");
  assert.ok(answers().includes("server"));
  await browser.close();
});

/** A tab whose storage is empty, while what it opened comes from another tab. */
async function reading(browser: Browser) {
  const long = new FakeLong();
  const maker = await browser.client(false, undefined, new MemoryStorage());
  const reader = await browser.client(false, long, new MemoryStorage());
  const made = maker.create<Doc>({ n: 1 });
  const opened = reader.open<Doc>(made.id);
  return { long, maker, made, opened, filling: await long.next() };
}

for (const [how, outcome] of [
  ["can't be had", undefined],
  ["fails", new Error("it went silent")],
] as const) {
  test(`what another tab sent is read in the page where a worker ${how}, and given to no worker again`, async () => {
    const browser = await Browser.start();
    const { long, filling, opened } = await reading(browser);
    if (outcome === undefined) {
      filling.resolve(undefined);
    } else {
      filling.reject(outcome);
    }
    await until(() => opened.status.state === "ready", "it is read");
    assert.equal(opened.value.n, 1);
    await settle();
    assert.equal(long.fillings.length, 0);
    await browser.close();
  });
}

test("what makes a worker's module trap is not read in the page, whose other documents go on", async () => {
  const browser = await Browser.start();
  const { long, maker, made, filling, opened } = await reading(browser);
  // Meanwhile it comes once more.
  browser.group.say("tab-0", "tab-1", { t: "want", documents: [{ id: made.id, heads: [] }] });
  await settle();
  filling.reject(Object.assign(new Error("unreachable"), { code: "internal" }));
  await until(() => opened.status.error !== undefined, "it is told");
  assert.notEqual(opened.status.state, "ready");
  await settle();
  assert.equal(long.fillings.length, 0, "nor given to a worker again");
  assert.equal(maker.status.role, "leader");
  assert.equal(made.status.state, "ready");
  await browser.close();
});

test("what waited in a replica that another takes the place of is asked for", async () => {
  const browser = await Browser.start();
  const { id, chunks } = documentOf(browser, 3);
  const long = new FakeLong(250);
  const reader = await browser.client(false, long, new MemoryStorage());
  const opened = reader.open<Doc>(id);
  const wants = (): number => browser.group.said.filter(({ body }) => (body as { t: string }).t === "want").length;
  const changes = (of: readonly Chunk[]): object => {
    const bytes = concat(of.map((chunk) => chunk.bytes));
    return { t: "changes", id, bytes, heads: [of.at(-1)?.hash] };
  };
  await settle();
  const before = wants();
  browser.group.say("tab-0", "tab-8", changes(chunks.slice(2)));
  await until(() => wants() === before + 1, "it is early, and what is below it asked for");
  // More than the replica, which is empty still, is to read by itself.
  const made = browser.replica(id);
  made.apply(concat(chunks.slice(0, 2).map((chunk) => chunk.bytes)));
  const [snapshot, heads] = [made.save(), made.heads()];
  made.free();
  browser.group.say("tab-0", "tab-9", { t: "changes", id, bytes: concat([snapshot, ...chunks.slice(0, 2).map((chunk) => chunk.bytes)]), heads });
  const filling = await long.next();
  const meanwhile = wants();
  filling.resolve(filled(browser, filling));
  await until(() => opened.value.n === 2, "it is read");
  await until(() => wants() === meanwhile + 2, "once as it arrived, once for what it lacks");
  browser.group.say("tab-0", "tab-8", changes(chunks.slice(2)));
  await until(() => opened.value.n === 3, "who has it answered");
  await browser.close();
});

/** A tab that has a document out of its storage, where all but the last `less` of its changes then are a snapshot. */
async function withSnapshot(browser: Browser, changes: number, less: number) {
  const { id, chunks } = documentOf(browser, changes);
  const storage = new MemoryStorage();
  await storage.append(id, chunks, "others", "any");
  const long = new FakeLong(1);
  const client = await browser.client(false, long, storage);
  const opened = client.open<Doc>(id);
  const first = await long.next();
  first.resolve(filled(browser, first));
  await opened.whenReady();
  const most = chunks.slice(0, changes - less);
  const replica = browser.replica(id);
  replica.apply(concat(most.map((chunk) => chunk.bytes)));
  await storage.compact(id, replica.save(), { snapshots: [], changes: most.map((chunk) => chunk.hash) }, "any");
  replica.free();
  return { long, opened };
}

test("of a long snapshot in storage only what is not here is taken", async () => {
  const browser = await Browser.start();
  const { long, opened } = await withSnapshot(browser, 40, 1);
  let patches = 0;
  opened.on("patches", () => (patches += 1));
  let applied = 0;
  browser.onApply = (bytes) => (applied += bytes);
  browser.group.missed("tab-0");
  const second = await long.nextUnpacking();
  const read = unpacked(browser, second);
  applied = 0;
  second.resolve(read);
  await settle();
  assert.equal(applied, 0);
  assert.equal(patches, 0);
  await browser.close();
});

test("a document that could not be read from storage is not synced until it was", async () => {
  const browser = await Browser.start();
  const { id, chunks } = documentOf(browser, 3);
  const storage = new MemoryStorage();
  await storage.append(id, chunks, "own", "any");
  const { load } = storage;
  storage.load = () => Promise.reject(new Error("the disk"));
  const client = await browser.client(false, undefined, storage);
  const opened = client.open<Doc>(id);
  await until(() => opened.status.error !== undefined, "it is told");
  assert.equal(opened.status.synced, false);
  storage.load = load;
  await until(() => opened.value.n === 3, "it is read again");
  assert.equal(opened.status.error, undefined);
  opened.close();
  await browser.close();
});

test("what is stored is read in the page when the worker failed", async () => {
  const browser = await Browser.start();
  const { id, chunks } = documentOf(browser, 3);
  const storage = new MemoryStorage();
  await storage.append(id, chunks, "own", "any");
  const long = new FakeLong();
  const client = await browser.client(false, long, storage);
  const opened = client.open<Doc>(id);
  (await long.next()).reject(new Error("it went silent"));
  await opened.whenReady();
  assert.equal(opened.value.n, 3);
  assert.equal(opened.status.error, undefined);
  await browser.close();
});

test("a page is told that reading is over, also if nothing comes of it", async () => {
  const browser = await Browser.start();
  const { long, opened } = await withSnapshot(browser, 3, 0);
  browser.group.missed("tab-0");
  const second = await long.nextUnpacking();
  second.progress(1, 2);
  assert.deepEqual(opened.status.reading, { done: 1, bytes: 2 });
  second.resolve(unpacked(browser, second));
  await settle();
  assert.equal(opened.status.reading, undefined);
  await browser.close();
});
