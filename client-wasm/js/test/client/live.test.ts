/**
 * Promise: a document counts as synced as soon as the server is known to keep all of it, and not before, however its
 * changes came.
 *
 * The replica is the real one, and so is the server's: another replica, whose messages are given over by the test.
 */

import assert from "node:assert/strict";
import { test } from "node:test";
import { decode } from "cborg";
import { LiveDocument } from "../../src/client/live.js";
import { Presence } from "../../src/client/presence.js";
import type { Chunk, WasmReplica } from "../../src/wasm.js";
import { loadWasm } from "../real-replica.js";

const wasm = await loadWasm();

function write(replica: WasmReplica, key: string): Chunk {
  replica.put("_root", key, 1);
  return replica.commit(undefined, 0) as Chunk;
}

/** What one has to say to the other, if it has. */
function said(replica: WasmReplica): Uint8Array | undefined {
  const frame = replica.nextFrame("one", "other");
  return frame && (decode(frame) as { readonly data: Uint8Array }).data;
}

test("what another tab brought is synced when the server sends it, and names it, too", () => {
  const live = new LiveDocument(wasm, wasm.documentId(new Uint8Array(16)), new Presence(() => {}));
  const server = new wasm.Replica(live.id);
  live.loaded = true;
  live.changed(write(live.replica, "ours"), true);
  const theirs = write(server, "theirs");
  server.connect();
  live.replica.connect();
  live.inSession = true;
  // Each says what it has; then each sends what the other lacks.
  const answers = [said(live.replica), said(server)] as const;
  server.receive(answers[0] as Uint8Array);
  live.replica.receive(answers[1] as Uint8Array);
  server.receive(said(live.replica) as Uint8Array);
  server.applyPending(1e6);
  const message = said(server) as Uint8Array;
  live.receive(theirs.bytes, [theirs.hash]);
  assert.ok(live.apply().fromTabs !== undefined);
  assert.equal(live.unsynced, 2);
  live.replica.receive(message);
  assert.ok(live.replica.hasPending(), "it brings what is here already");
  live.apply();
  live.learn({ synced: live.replica.syncedHeads(), unavailable: false, readOnly: false });
  assert.deepEqual(live.synced, live.replica.heads());
  assert.equal(live.unsynced, 0);
});
