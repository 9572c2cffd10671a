/**
 * Promise: a client keeps no document that nobody shows and that is kept elsewhere, and tells its tabs nothing twice.
 * What one tab removes is removed in all, and what storage has of a document is whole.
 *
 * Clients of the real module and the real storage (IndexedDB is a fake), without a server. Tabs are made up: the first
 * leads, and messages take a turn of the event loop. Replicas are counted as they are made and freed, so that a
 * document which is kept can't hide.
 */

import assert from "node:assert/strict";
import { test } from "node:test";
import { MemoryStorage } from "../../src/storage/memory.js";
import { Browser, type Message, settle, until } from "./browser.js";

for (const isAlone of [true, false]) {
  test(`without a server a document is freed when its handle is closed and it is saved${isAlone ? "; alone" : ""}`, async () => {
    const browser = await Browser.start();
    const client = await browser.client(isAlone);
    for (let n = 0; n < 10; n += 1) {
      const made = client.create({ n });
      made.close();
    }
    const kept = client.create({ n: 10 });
    await until(() => browser.replicas === 1, "only the one that is shown is kept");
    assert.equal((await client.list()).length, 11);
    assert.equal(kept.value.n, 10);
    await browser.close();
  });
}

test("a follower's documents are freed in all tabs, also one that is closed before it is loaded", async () => {
  const browser = await Browser.start();
  const leader = await browser.client();
  const follower = await browser.client();
  const made = leader.create({ n: 1 });
  await made.whenSaved();
  made.close();
  await until(() => browser.replicas === 0, "nobody shows it");
  const hasty = follower.open(made.id);
  hasty.close();
  const patient = follower.open(made.id);
  await patient.whenReady();
  await until(() => browser.replicas === 2, "both tabs have it");
  patient.close();
  await until(() => browser.replicas === 0, "nobody shows it any more");
  follower.open(made.id).close();
  await settle();
  await until(() => browser.replicas === 0, "it was closed before it was loaded");
  await browser.close();
});

for (const fate of ["ok", "quota at a write"] as const) {
  test(`what came from elsewhere is stored though its handle is closed at once, and then freed: ${fate}`, async () => {
    const browser = await Browser.start();
    const client = await browser.client();
    const stranger = browser.group.join({ role() {}, leader() {}, message() {}, gone() {}, missed() {} });
    const id = browser.newId();
    const source = browser.replica(id);
    source.put("_root", "n", 7);
    source.commit(undefined, 0);
    browser.lab.fate = () => fate;
    const opened = client.open(id);
    await settle();
    stranger.post({ t: "changes", id, bytes: source.save(), heads: source.heads() });
    await opened.whenReady();
    source.free();
    opened.close();
    await until(() => browser.replicas === 0, "it is kept though nobody shows it");
    browser.lab.fate = () => "ok";
    assert.equal(await stored(browser, id), fate === "ok" ? 7 : undefined);
    await browser.close();
  });
}

test("what is saved can be read, though the tab that made what it builds on could not store that", async () => {
  const browser = await Browser.start();
  const leader = await browser.client(false, undefined, new MemoryStorage());
  const follower = await browser.client();
  const made = leader.create<{ n: number; mine?: number }>({ n: 0 });
  const opened = await follower.open<{ n: number }>(made.id).whenReady();
  made.change((draft) => void (draft.mine = 1));
  await until(() => opened.heads.join() === made.heads.join(), "it comes");
  opened.change((draft) => void (draft.n = 7));
  await opened.whenSaved();
  assert.equal(await stored(browser, made.id), 7);
  await browser.close();
});

test("who waits on a closed handle gets a promise, which is rejected", async () => {
  const browser = await Browser.start();
  const made = (await browser.client()).create({ n: 0 });
  made.close();
  for (const wait of [() => made.whenReady(), () => made.whenSaved(), () => made.whenSynced()]) {
    await assert.rejects(wait().catch((error: unknown) => Promise.reject(error)), /the handle was closed/);
  }
  await browser.close();
});

test("a listener closes what it hears of: it is freed, and nothing more is asked of it", async () => {
  const browser = await Browser.start();
  const leader = await browser.client();
  const follower = await browser.client();
  const made = leader.create({ n: 0 });
  const opened = await follower.open<{ n: number }>(made.id).whenReady();
  opened.subscribe(() => opened.close());
  made.change((draft) => void (draft.n = 1));
  await until(() => browser.replicas === 1, "only the leader's is kept");
  // What would be thrown is thrown where nobody catches it.
  await settle();
  await browser.close();
});

test("what is known of the server is told once, and to each tab that asks", async () => {
  const browser = await Browser.start();
  const leader = await browser.client();
  const made = leader.create({ n: 0 });
  await made.whenSaved();
  const news = (): Message[] => browser.group.said.filter(({ body }) => (body as { t: string }).t === "server");
  for (const tab of ["tab-1", "tab-2"]) {
    const follower = await browser.client();
    await follower.open(made.id).whenReady();
    await settle();
    assert.ok(news().some(({ to }) => to === undefined || to === tab), `${tab} was told`);
  }
  assert.deepEqual(news().map(({ to }) => to), [undefined, "tab-2"]);
  await browser.close();
});

/** What storage has, by a client that has nothing else. */
async function stored(browser: Browser, id: string): Promise<unknown> {
  const storage = await browser.storage();
  const found = await storage.load(id);
  await storage.close();
  if (found === undefined) {
    return undefined;
  }
  const replica = browser.replica(id);
  for (const { bytes } of [...found.snapshots, ...found.changes]) replica.apply(bytes);
  const value = replica.get("_root", "n");
  replica.free();
  return value ?? "not whole";
}

test("a document that is opened right after it was deleted is not the deleted one", async () => {
  const browser = await Browser.start();
  const client = await browser.client(true);
  const made = client.create({ n: 1 });
  await made.whenSaved();
  // Something that is written for long, so that the removal waits.
  for (let n = 0; n < 20; n += 1) client.create({ n });
  const deleted = client.delete(made.id);
  const opened = client.open<{ n?: number }>(made.id);
  await deleted;
  await settle();
  assert.equal(made.status.state, "deleted");
  assert.deepEqual(opened.value, {});
  assert.notEqual(opened.status.state, "ready");
  await browser.close();
});

test("a tab that edits a document while another deletes it is told; nothing of it is stored", async () => {
  const browser = await Browser.start();
  const [one, other] = [await browser.client(), await browser.client()];
  const made = one.create({ n: 1 });
  await made.whenSaved();
  const opened = await other.open<{ n: number }>(made.id).whenReady();
  let release = (): void => {};
  browser.group.held = new Promise((resolve) => (release = resolve));
  await one.delete(made.id);
  opened.change((draft) => void (draft.n = 2));
  await until(() => opened.status.state === "deleted", "storage tells, before the other tab's message comes");
  assert.equal(await stored(browser, made.id), undefined);
  release();
  await settle();
  assert.deepEqual(await one.list(), []);
  await browser.close();
});

test("all is cleared while another tab creates: each document is either whole in storage or deleted", async () => {
  const browser = await Browser.start();
  const [one, other] = [await browser.client(), await browser.client()];
  const handles = [other.create({ n: 0 })];
  await handles[0]?.whenSaved();
  const clearing = one.clear();
  for (let n = 1; n < 30; n += 1) {
    handles.push(other.create({ n }));
    if (n % 3 === 0) await new Promise((soon) => setImmediate(soon));
  }
  await clearing;
  const allSaved = (): Promise<unknown> => Promise.allSettled(handles.map(async (handle) => handle.whenSaved()));
  await allSaved();
  await settle();
  for (const handle of handles) {
    if (handle.status.state !== "deleted") handle.change((draft) => void (draft.n += 100));
  }
  await allSaved();
  for (const [n, handle] of handles.entries()) {
    const isDeleted = handle.status.state === "deleted";
    assert.equal(await stored(browser, handle.id), isDeleted ? undefined : n + 100, `document ${n}`);
  }
  assert.equal(handles[0]?.status.state, "deleted");
  assert.equal(handles.at(-1)?.status.state, "ready");
  await browser.close();
});

test("what another tab cleared is deleted here, also when nobody edits it", async () => {
  const browser = await Browser.start();
  const [one, other] = [await browser.client(), await browser.client()];
  const made = other.create({ n: 1 });
  await made.whenSaved();
  made.change((draft) => void (draft.n = 2));
  await one.clear();
  await until(() => made.status.state === "deleted", "it is told");
  assert.deepEqual(await other.list(), []);
  await browser.close();
});

test("a trap of another module, in the callback of a change, is the callback's: nothing is changed, and nothing failed", async () => {
  const browser = await Browser.start();
  const client = await browser.client();
  const doc = client.create<{ n: number }>({ n: 1 });
  const trap = new WebAssembly.RuntimeError("unreachable (the page's)");
  assert.throws(
    () =>
      doc.change((draft) => {
        draft.n = 2;
        throw trap;
      }),
    trap,
  );
  assert.equal(doc.status.state, "ready");
  doc.change((draft) => void (draft.n += 2));
  assert.equal(doc.value.n, 3);
  await browser.close();
});
