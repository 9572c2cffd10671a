/**
 * Promise: storage is compacted when it is long, and then it is short: what one tab stored and another one compacts
 * is not compacted again and again; and a change counts as unsent until the server keeps it.
 *
 * Replicas, documents and storage are the real ones (IndexedDB is a fake); calls of `compact` are counted.
 */

import assert from "node:assert/strict";
import { test } from "node:test";
import { LiveDocument } from "../../src/client/live.js";
import { Presence } from "../../src/client/presence.js";
import { Storing } from "../../src/client/storing.js";
import { IndexedDbStorage } from "../../src/storage/indexeddb.js";
import type { Wasm } from "../../src/wasm.js";
import { loadWasm } from "../real-replica.js";
import { Lab } from "../storage-faults.js";

/** One tab's part: a document, which is dropped as soon as it may be once nobody shows it, and what stores it. */
class Tab {
  readonly live: LiveDocument;
  readonly storage: IndexedDbStorage;
  readonly storing: Storing;
  compactions = 0;
  isShown = true;
  isDropped = false;

  constructor(wasm: Wasm, id: string, storage: IndexedDbStorage, leads: boolean) {
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
      looked: (_, error) => assert.equal(error, undefined),
      saved: () => this.maybeDrop(),
      lacks: () => {},
      removed: () => assert.fail("nobody removes it"),
    });
  }

  close(): void {
    this.isShown = false;
    this.maybeDrop();
  }

  maybeDrop(): void {
    const { live, storing } = this;
    if (!this.isShown && !this.isDropped && live.unsaved.size === 0 && storing.isSettled(live)) {
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
  assert.equal(storing.isSettled(live), false, "the marks of what is synced are being taken away");
  await leader.rest();
  storing.heal(live);
  leader.close();
  await until(() => leader.isDropped, "it is dropped in the end");
  await new Promise((soon) => setTimeout(soon, 20));
  assert.deepEqual(steps, ["stored", "forgotten"]);
});
