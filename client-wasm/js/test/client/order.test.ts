/**
 * The promise: whoever listens hears of what happened in the order in which it happened, and of all of it, whatever
 * other listeners do when they hear of it.
 */

import assert from "node:assert/strict";
import { test } from "node:test";

import type { PatchesEvent } from "../../src/client/document.js";
import { Emitter } from "../../src/emitter.js";
import { connect } from "../../src/node.js";

interface Board {
  n: number;
}

/** Errors that would be shown as uncaught, and are the page's own. */
function caught(context: { mock: typeof import("node:test").mock }): Error[] {
  const all: Error[] = [];
  context.mock.method(globalThis, "queueMicrotask", (task: () => void) => {
    try {
      task();
    } catch (error) {
      all.push(error as Error);
    }
  });
  return all;
}

test("a listener that changes the document: the others, of all handles, hear of what it heard of first", async () => {
  const client = await connect({ storage: "memory", tabs: false });
  const one = client.create<Board>({ n: 0 });
  const two = client.open<Board>(one.url);
  const told: string[] = [];
  const shown: number[] = [];
  const tell = (who: string) => (event: PatchesEvent<Board>) => told.push(`${who} ${event.before.n} to ${event.after.n}`);
  one.on("patches", ({ after }) => {
    if (after.n < 3) {
      one.change((draft) => void (draft.n += 1));
      // What was made is there, though nobody was told yet.
      assert.equal(one.value.n, after.n + 1);
    }
  });
  one.on("patches", tell("one"));
  one.subscribe(() => shown.push(one.value.n));
  two.on("patches", tell("two"));
  one.change((draft) => void (draft.n = 1));
  assert.deepEqual(told, ["one 0 to 1", "two 0 to 1", "one 1 to 2", "two 1 to 2", "one 2 to 3", "two 2 to 3"]);
  // Who asks for the value gets the latest.
  assert.deepEqual(shown, [2, 3, 3]);
  await client.close();
});

test("a handle that is opened by a listener is not told of what it shows already", async () => {
  const client = await connect({ storage: "memory", tabs: false });
  const doc = client.create<Board>({ n: 0 });
  const told: PatchesEvent<Board>[] = [];
  const off = doc.on("patches", () => {
    off();
    doc.change((draft) => void (draft.n = 2));
    const late = client.open<Board>(doc.url);
    assert.equal(late.value.n, 2);
    late.on("patches", (event) => told.push(event));
  });
  doc.change((draft) => void (draft.n = 1));
  assert.equal(told.length, 0);
  doc.change((draft) => void (draft.n = 3));
  assert.deepEqual(told.map(({ before, after }) => [before.n, after.n]), [[2, 3]]);
  await client.close();
});

test("a listener that throws keeps nobody from hearing, and the change stands", async (context) => {
  const client = await connect({ storage: "memory", tabs: false });
  const doc = client.create<Board>({ n: 0 });
  const errors = caught(context as never);
  const told: number[] = [];
  doc.on("patches", ({ after }) => {
    if (after.n === 1) {
      doc.change((draft) => void (draft.n = 2));
    }
    throw new Error(`about ${after.n}`);
  });
  doc.on("patches", ({ after }) => told.push(after.n));
  doc.change((draft) => void (draft.n = 1));
  doc.change((draft) => void (draft.n = 3));
  assert.deepEqual(told, [1, 2, 3]);
  assert.deepEqual(errors.map(({ message }) => message), ["about 1", "about 2", "about 3"]);
  assert.deepEqual([doc.value.n, doc.status.error], [3, undefined]);
  await client.close();
});

test("events that a listener brings about come after the one that it hears of", () => {
  const emitter = new Emitter<{ step: (n: number) => void }>();
  const told: string[] = [];
  emitter.on("step", (n) => {
    if (n < 3) emitter.emit("step", n + 1);
  });
  for (const who of ["a", "b"]) emitter.on("step", (n) => told.push(who + n));
  emitter.emit("step", 1);
  assert.deepEqual(told, ["a1", "b1", "a2", "b2", "a3", "b3"]);
});
