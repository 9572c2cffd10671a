/**
 * Two connections to one database do random things at the same time, and some of their transactions fail. What
 * must hold: there is an order of the calls that resolved, which keeps the order of each connection's own
 * writes, and in which a simple model gives the same results, the same reads and the same end. Calls that
 * rejected have done nothing. After each batch both connections are closed and the database is read anew, so
 * that nothing passes that was only in memory.
 *
 * The test can't pass by failing everything: it counts how many calls resolved and how many rejected.
 * `CONCORD_TEST_SEED=n` replays, `CONCORD_TEST_LONG=1` runs for longer.
 */

import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { IndexedDbStorage } from "../src/storage/indexeddb.js";
import { StorageError } from "../src/storage/storage.js";
import type { Origin, StoredDocument, TailSize } from "../src/storage/storage.js";
import { change } from "./storage-conformance.js";
import { Lab } from "./storage-faults.js";
import type { Fate } from "./storage-faults.js";

const SEED = Number(process.env["CONCORD_TEST_SEED"] ?? Math.floor(Math.random() * 2 ** 31));
const RUNS = process.env["CONCORD_TEST_LONG"] === "1" ? 5_000 : 150;
const DOCUMENTS = ["a", "b"];

type Call = { readonly connection: 0 | 1; readonly document: string; readonly turns: number } & (
  | { readonly kind: "append"; readonly numbers: readonly number[]; readonly origin: Origin }
  | { readonly kind: "sent"; readonly numbers: readonly number[] }
  | { readonly kind: "sync"; readonly value: number }
  /** `old` picks among the snapshots known before the batch. */
  | { readonly kind: "compact"; readonly length: number; readonly numbers: readonly number[]; readonly old: readonly number[] }
  | { readonly kind: "remove" | "clear" | "load" }
);

/** A document: snapshots with their lengths, numbers of changes in order and of those marked as unsent, sync state. */
interface Doc {
  readonly snapshots: ReadonlyMap<string, number>;
  readonly changes: readonly number[];
  readonly unsent: readonly number[];
  readonly sync: number | undefined;
}
type Model = ReadonlyMap<string, Doc>;

interface Done {
  readonly call: Call;
  /** Names of snapshots that `compact` named. */
  readonly named: readonly string[];
  readonly result: unknown;
}

const numbers = fc.array(fc.integer({ min: 0, max: 6 }), { maxLength: 3 });
const kinds = fc.oneof(
  { weight: 5, arbitrary: fc.record({ kind: fc.constant("append" as const), numbers, origin: fc.constantFrom("own", "others") }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("sent" as const), numbers }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("sync" as const), value: fc.nat(9) }) },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant("compact" as const),
      length: fc.nat(4),
      numbers,
      old: fc.array(fc.nat(3), { maxLength: 2 }),
    }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constantFrom("remove" as const, "clear" as const, "load" as const) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("load" as const) }) },
);
const call: fc.Arbitrary<Call> = fc
  .tuple(fc.constantFrom(0 as const, 1 as const), fc.constantFrom(...DOCUMENTS), fc.nat(3), kinds)
  .map(([connection, document, turns, kind]) => ({ connection, document, turns, ...kind }));
const fate: fc.Arbitrary<Fate> = fc.oneof(
  { weight: 6, arbitrary: fc.constant("ok" as const) },
  { weight: 1, arbitrary: fc.constantFrom("quota at a write" as const, "quota at commit" as const, "unknown at commit" as const) },
);
const batches = fc.array(
  fc.record({ calls: fc.array(call, { minLength: 1, maxLength: 7 }), fates: fc.array(fate, { minLength: 1, maxLength: 5 }) }),
  { minLength: 1, maxLength: 5 },
);

test(`two connections agree with the model, CONCORD_TEST_SEED=${SEED}`, async () => {
  const counts = { resolved: 0, rejected: 0 };
  const property = fc.asyncProperty(batches, async (given) => {
    const lab = new Lab();
    let model: Model = new Map();
    for (const { calls, fates } of given) {
      const connections = [await open(lab), await open(lab)] as const;
      let turn = 0;
      lab.fate = () => fates[turn++ % fates.length] ?? "ok";
      const settled: Promise<Done | undefined>[] = [];
      for (const each of calls) {
        for (let waited = 0; waited < each.turns; waited++) await new Promise((resolve) => setImmediate(resolve));
        const names = [...(model.get(each.document)?.snapshots.keys() ?? [])];
        const named = each.kind === "compact" ? each.old.map((index) => names[index] ?? "no such snapshot") : [];
        settled.push(
          perform(connections[each.connection], each, named).then(
            (result) => ({ call: each, named, result }),
            (error: unknown) => {
              assert.ok(error instanceof StorageError, String(error));
              assert.ok(["quota", "failed"].includes(error.fault), error.fault);
              return undefined;
            },
          ),
        );
      }
      const all = await Promise.all(settled);
      const done = all.filter((each) => each !== undefined);
      counts.resolved += done.length;
      counts.rejected += all.length - done.length;
      await Promise.all(connections.map((connection) => connection.close()));

      lab.fate = () => "ok";
      const after = await open(lab);
      const end = new Map<string, string>();
      for (const name of DOCUMENTS) end.set(name, shape(await after.load(name)));
      const marked = await marks(after);
      assert.deepEqual((await after.list()).sort(), DOCUMENTS.filter((name) => end.get(name) !== "none"));
      await after.close();
      const found = explain(model, done, end, marked);
      assert.ok(found, "some order of the calls explains what was seen");
      model = found;
    }
  });
  await fc.assert(property, { seed: SEED, numRuns: RUNS });
  assert.ok(counts.resolved > RUNS && counts.rejected > RUNS / 10, JSON.stringify(counts));
});

function open(lab: Lab): Promise<IndexedDbStorage> {
  return IndexedDbStorage.open("test", { factory: lab.factory });
}

function perform(storage: IndexedDbStorage, call: Call, named: readonly string[]): Promise<unknown> {
  switch (call.kind) {
    case "append":
      return storage.append(call.document, call.numbers.map((number) => change(number, number + 1)), call.origin, "any");
    case "sent": {
      const hashes = call.numbers.map((number) => change(number).hash);
      return storage.sent(call.document, (hash) => hashes.includes(hash));
    }
    case "sync":
      return storage.setSyncState(call.document, Uint8Array.of(call.value));
    case "compact": {
      const changes = call.numbers.map((number) => change(number).hash);
      return storage.compact(call.document, new Uint8Array(call.length), { snapshots: named, changes }, "any");
    }
    case "remove":
      return storage.remove(call.document);
    case "clear":
      return storage.clear();
    case "load":
      return storage.load(call.document).then(shape);
  }
}

/** Looks for an order that explains all results; the model at its end. */
function explain(start: Model, done: readonly Done[], end: ReadonlyMap<string, string>, marked: string): Model | undefined {
  const reads = done.filter(({ call }) => call.kind === "load");
  const queues = [0, 1].map((side) => done.filter(({ call }) => call.kind !== "load" && call.connection === side));
  const search = (model: Model, at: readonly [number, number], unread: readonly Done[]): Model | undefined => {
    // A read may see any state on the way; those that see this one are explained.
    const left = unread.filter(({ call, result }) => result !== modelShape(model.get(call.document)));
    const next = [queues[0]?.[at[0]], queues[1]?.[at[1]]] as const;
    if (!next[0] && !next[1]) {
      const same = DOCUMENTS.every((name) => end.get(name) === modelShape(model.get(name)));
      return same && marked === modelMarks(model) && left.length === 0 ? model : undefined;
    }
    for (const side of [0, 1] as const) {
      const step = next[side];
      const after = step && apply(model, step);
      if (!after) continue;
      const found = search(after, side === 0 ? [at[0] + 1, at[1]] : [at[0], at[1] + 1], left);
      if (found) return found;
    }
    return undefined;
  };
  return search(start, [0, 0], reads);
}

const EMPTY: Doc = { snapshots: new Map(), changes: [], unsent: [], sync: undefined };

/** The model after a call, or nothing when the call gave another result than the model does. */
function apply(model: Model, { call, named, result }: Done): Model | undefined {
  const { document } = call;
  const doc = model.get(document) ?? EMPTY;
  const become = (next: Doc): Model => new Map(model).set(document, next);
  switch (call.kind) {
    case "append": {
      const changes = [...new Set([...doc.changes, ...call.numbers])];
      const size: TailSize = {
        snapshotBytes: [...doc.snapshots.values()].reduce((sum, length) => sum + length, 0),
        changes: changes.length,
        changeBytes: changes.reduce((sum, number) => sum + number + 1, 0),
      };
      return JSON.stringify(size) === JSON.stringify(result)
        ? become({ ...doc, changes, unsent: call.origin === "own" ? [...new Set([...doc.unsent, ...call.numbers])] : doc.unsent })
        : undefined;
    }
    case "sent": {
      const unsent = doc.unsent.filter((number) => !call.numbers.includes(number));
      if (unsent.length !== result) return undefined;
      return model.has(document) ? become({ ...doc, unsent }) : model;
    }
    case "sync":
      return model.has(document) ? become({ ...doc, sync: call.value }) : model;
    case "compact": {
      const snapshots = new Map(doc.snapshots);
      for (const name of named) snapshots.delete(name);
      snapshots.set(String(result), call.length);
      return become({ ...doc, snapshots, changes: doc.changes.filter((number) => !call.numbers.includes(number)) });
    }
    case "remove": {
      const rest = new Map(model);
      rest.delete(document);
      return rest;
    }
    case "clear":
      return new Map();
    case "load":
      return model;
  }
}

function shape(found: StoredDocument | undefined): string {
  if (!found) return "none";
  assert.equal(found.damaged, 0);
  const snapshots = new Map(found.snapshots.map(({ name, bytes }) => [name, bytes.length]));
  const changes = found.changes.map(({ hash, bytes }) => {
    const number = Number.parseInt(hash, 16);
    assert.deepEqual(bytes, change(number, number + 1).bytes);
    return number;
  });
  return modelShape({ snapshots, changes, unsent: [], sync: found.syncState?.[0] });
}

function modelShape(doc: Doc | undefined): string {
  if (!doc) return "none";
  return JSON.stringify([[...doc.snapshots].sort(), doc.changes, doc.sync ?? null]);
}

/** All marks, by document. */
async function marks(storage: IndexedDbStorage): Promise<string> {
  const found: [string, number[]][] = [];
  for (const document of await storage.unsent()) {
    const numbers: number[] = [];
    await storage.sent(document, (hash) => numbers.push(Number.parseInt(hash, 16)) < 0);
    found.push([document, numbers.sort()]);
  }
  return JSON.stringify(found);
}

function modelMarks(model: Model): string {
  const marked = [...model].filter(([, { unsent }]) => unsent.length > 0);
  return JSON.stringify(marked.map(([document, { unsent }]) => [document, [...unsent].sort()]).sort());
}
