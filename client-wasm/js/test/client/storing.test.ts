/**
 * Promise: storage is compacted when it is long, and then it is short: what one tab stored and another one compacts
 * is not compacted again and again; nothing is freed, or forgotten, before what replaces it is stored; what can't be
 * stored or read now is not asked for again and again; and a change counts as unsent until the server keeps it.
 *
 * Replicas, documents and storage are the real ones (IndexedDB is a fake); calls are counted. A document's replica is
 * freed as soon as `Storing` allows that, so that whatever uses it later throws; where seconds pass, time is the test's.
 */

import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { LiveDocument } from "../../src/client/live.js";
import { Presence } from "../../src/client/presence.js";
import { Storing } from "../../src/client/storing.js";
import { IndexedDbStorage } from "../../src/storage/indexeddb.js";
import { MemoryStorage } from "../../src/storage/memory.js";
import { type Storage, StorageError } from "../../src/storage/storage.js";
import type { Heads, Wasm } from "../../src/wasm.js";
import { loadWasm } from "../real-replica.js";
import { Lab } from "../storage-faults.js";

/** One tab's part: a document, which is dropped as soon as it may be once nobody shows it, and what stores it. */
class Tab {
  readonly live: LiveDocument;
  readonly storage: Storage;
  readonly storing: Storing;
  compactions = 0;
  lacked = 0;
  isShown = true;
  isDropped = false;

  constructor(wasm: Wasm, id: string, storage: Storage, leads: boolean) {
    this.live = new LiveDocument(wasm, id, new Presence(() => {}));
    this.live.loaded = true;
    this.storage = storage;
    const compact = storage.compact.bind(storage);
    storage.compact = (...given) => {
      this.compactions += 1;
      return compact(...given);
    };
    this.storing = new Storing(storage, {
      isUsable: () => !this.isDropped,
      keepsOthers: () => leads,
      looked: (_, error) => assert.ok(error === undefined || (error as StorageError).fault === "quota"),
      saved: () => this.maybeDrop(),
      lacks: () => void (this.lacked += 1),
      removed: () => assert.fail("nobody removes it"),
    });
  }

  close(): void {
    this.isShown = false;
    this.maybeDrop();
  }

  maybeDrop(): void {
    const { live, storing } = this;
    if (!this.isShown && !this.isDropped && live.unsaved.size === 0 && storing.settle(live)) {
      this.isDropped = true;
      live.replica.free();
    }
  }

  change(value: number): Uint8Array {
    const { live, storing } = this;
    live.replica.put("_root", "n", value);
    const chunk = live.replica.commit(undefined, 0);
    assert.ok(chunk);
    live.changed(chunk, false);
    storing.save(live);
    return chunk.bytes;
  }

  /** Until all is stored. */
  async rest(): Promise<void> {
    while (this.live.saving || this.live.keeping > 0 || this.live.compacting !== undefined || this.live.settling) {
      await new Promise((soon) => setTimeout(soon, 1));
    }
  }
}

async function until(is: () => boolean, what: string): Promise<void> {
  for (let waited = 0; !is(); waited += 1) {
    assert.ok(waited < 2_000, what);
    await new Promise((soon) => setTimeout(soon, 1));
  }
}

async function twoTabs(): Promise<{ readonly leader: Tab; readonly follower: Tab }> {
  const wasm = await loadWasm();
  const lab = new Lab();
  const open = (): Promise<IndexedDbStorage> => IndexedDbStorage.open("test", { factory: lab.factory });
  const id = wasm.documentId(new Uint8Array(16));
  return { leader: new Tab(wasm, id, await open(), true), follower: new Tab(wasm, id, await open(), false) };
}

for (const order of ["before", "after"] as const) {
  test(`a follower's burst that is stored ${order} the leader's snapshot of it is compacted once`, async () => {
    const { leader, follower } = await twoTabs();
    const bytes = Array.from({ length: 600 }, (_, n) => follower.change(n));
    const keep = async (): Promise<void> => {
      for (const each of bytes) leader.live.receive(each, []);
      leader.storing.keep(leader.live, leader.live.apply().fromTabs);
      await leader.rest();
    };
    const parts = order === "before" ? [() => follower.rest(), keep] : [keep, () => follower.rest()];
    for (const part of parts) await part();

    for (let n = 0; n < 5; n += 1) {
      leader.change(1_000 + n);
      await leader.rest();
    }
    assert.ok(leader.compactions <= 2, `${leader.compactions} compactions`);
    const stored = await leader.storage.load(leader.live.id);
    assert.ok(stored !== undefined && stored.changes.length <= 5, `${stored?.changes.length} changes beside the snapshot`);
    const reader = (await twoTabs()).leader.live;
    reader.restore(stored, undefined);
    assert.deepEqual(reader.replica.heads(), leader.live.replica.heads());
  });
}

test("what comes in many parts is compacted as it begins to come, and once more for all the rest", async () => {
  const { leader, follower } = await twoTabs();
  for (let part = 0; part < 6; part += 1) {
    for (let n = 0; n < 600; n += 1) leader.live.receive(follower.change(n), []);
    while (leader.live.hasIncoming) leader.storing.keep(leader.live, leader.live.apply().fromTabs);
    // So that the first is under way.
    await new Promise((soon) => setImmediate(soon));
  }
  await leader.rest();
  assert.equal(leader.compactions, 2);
  const stored = await leader.storage.load(leader.live.id);
  assert.ok(stored !== undefined);
  const reader = (await twoTabs()).leader.live;
  reader.restore(stored, undefined);
  assert.deepEqual(reader.replica.heads(), leader.live.replica.heads());
});

test("what was damaged is forgotten only when all of the document is stored, also if nobody shows it any more", async () => {
  const { leader } = await twoTabs();
  const { live, storage, storing } = leader;
  leader.change(1);
  await leader.rest();
  const steps: string[] = [];
  const { compact, forgetDamaged } = storage;
  storage.compact = async (...given) => {
    const name = await compact.apply(storage, given);
    steps.push("stored");
    return name;
  };
  storage.forgetDamaged = async (...given) => {
    steps.push("forgotten");
    return forgetDamaged.apply(storage, given);
  };
  live.damage = new Error("1 stored change could not be read");
  live.learn({ synced: live.replica.heads(), unavailable: false, readOnly: false });
  assert.equal(storing.settle(live), false, "the marks of what is synced are being taken away");
  await leader.rest();
  storing.heal(live);
  leader.close();
  await until(() => leader.isDropped, "it is dropped in the end");
  await new Promise((soon) => setTimeout(soon, 20));
  assert.deepEqual(steps, ["stored", "forgotten"]);
});

/** A tab that leads, with a store in memory whose calls are counted, and time that passes only in `tick`. */
async function timed(context: TestContext) {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  const storage = new MemoryStorage();
  const wasm = await loadWasm();
  const tab = new Tab(wasm, wasm.documentId(new Uint8Array(16)), storage, true);
  const tick = async (seconds: number): Promise<void> => {
    for (let tenths = 0; tenths < 10 * seconds; tenths += 1) {
      context.mock.timers.tick(100);
      for (let turn = 0; turn < 20; turn += 1) await null;
    }
  };
  return { tab, tick, sent: context.mock.method(storage, "sent"), states: context.mock.method(storage, "setSyncState") };
}

test("a sync state that can't be stored yet costs nothing until something was stored, and is stored then", async (context) => {
  const { tab, tick, sent, states } = await timed(context);
  const { storage, live, storing } = tab;
  Object.assign(storage, { kind: "indexeddb" });
  const append = context.mock.method(storage, "append", () => Promise.reject(new StorageError("quota", "the disk is full")));
  tab.change(1);
  storing.keepSyncState(live);
  await tick(60);
  assert.ok(append.mock.callCount() > 5, "it is tried again");
  assert.ok(sent.mock.callCount() <= 1, `marks were looked at ${sent.mock.callCount()} times`);
  assert.equal(states.mock.callCount(), 0, "it speaks of what is not stored");
  append.mock.restore();
  await tick(10);
  assert.equal(live.unsaved.size, 0);
  assert.equal(states.mock.callCount(), 1);
});

test("a marked change that can't be read is looked for once in each leadership, and once more for each new one", async (context) => {
  const { tab, tick } = await timed(context);
  const { storage, live, storing } = tab;
  const spoilt = (letter: string) => storage.append(live.id, [{ hash: letter.repeat(64), bytes: new Uint8Array(8) }], "own", "any");
  const type = async (): Promise<void> => {
    for (let n = 0; n < 10; n += 1) {
      tab.change(n);
      storing.keepSyncState(live);
      await tick(2);
    }
  };
  for (const letter of ["a", "b"]) {
    await spoilt(letter);
    await type();
  }
  assert.equal(tab.lacked, 2);
  storing.takeOver(live);
  await type();
  assert.equal(tab.lacked, 3);
});

test("a document that is dropped before its sync state was stored has it stored then", async (context) => {
  const { tab, tick, states } = await timed(context);
  Object.assign(tab.storage, { kind: "indexeddb" });
  tab.change(1);
  await tick(2);
  tab.live.marked = false;
  tab.storing.keepSyncState(tab.live);
  tab.close();
  assert.ok(tab.isDropped);
  await tick(2);
  assert.equal(states.mock.callCount(), 1);
});

for (const order of ["stored first", "kept by the server first"] as const) {
  test(`a change counts as unsent until the server keeps it: ${order}`, async () => {
    const { leader } = await twoTabs();
    const { live, storage, storing } = leader;
    const serverKeeps = (synced: Heads): void => {
      live.learn({ synced, unavailable: false, readOnly: false });
      // As the client asks, which needs no answer while something is not stored at all.
      if (live.unsaved.size === 0) {
        storing.settle(live);
      }
    };
    leader.change(1);
    await leader.rest();
    const first = live.replica.heads();
    assert.deepEqual(await storage.unsent(), [live.id], "offline");

    leader.change(2);
    if (order === "stored first") {
      await leader.rest();
    }
    serverKeeps(first);
    storing.keepSyncState(live);
    // Marks are looked at with the sync state, a second later.
    await new Promise((later) => setTimeout(later, 1_100));
    await leader.rest();
    assert.deepEqual(await storage.unsent(), [live.id], "only the first is kept");

    leader.change(3);
    if (order === "stored first") {
      await leader.rest();
    }
    serverKeeps(live.replica.heads());
    await leader.rest();
    assert.deepEqual(await storage.unsent(), []);

    // A snapshot of it is no word of the server's.
    leader.change(4);
    await leader.rest();
    storing.takeOver(live);
    await leader.rest();
    assert.deepEqual(await storage.unsent(), [live.id], "compacted");
  });
}
