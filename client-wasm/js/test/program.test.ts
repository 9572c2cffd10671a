/**
 * The promise: a draft behaves like the plain object it looks like, and the value built from patches is what was
 * written.
 *
 * Random programs run on a draft and, statement by statement, on a plain object. After each statement what it
 * returned must be equal, after each change the whole document: as the draft reads, and as the tree that patches
 * made. Some changes throw at their end and must leave nothing. The statements choose their place from the plain
 * object, so none is skipped for want of one; the kinds that ran are counted, and each must have.
 */

import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { anyKey, anyText, anyValue, check, isDeepFrozen, plain } from "./support.js";
import { REPLICAS, written, type TestReplica } from "./support.js";
import { deleteAt, edit, insertAt, splice, updateText } from "../src/value/draft.js";
import { applyPatches, EMPTY } from "../src/value/tree.js";
import { Counter, type Value } from "../src/value/types.js";
import type { ObjectId, Prop, WasmPatch } from "../src/wasm.js";

interface Statement {
  kind: number;
  /** Which way to go down from the root; ends where it can't. */
  way: number[];
  at: number;
  count: number;
  key: string;
  text: string;
  values: unknown[];
}
interface Change {
  statements: Statement[];
  fails: boolean;
}
type Doc = { [key: string]: unknown };

const statement: fc.Arbitrary<Statement> = fc.record({
  kind: fc.nat(99),
  way: fc.array(fc.nat(9), { maxLength: 4 }),
  at: fc.nat(9),
  count: fc.nat(4),
  key: anyKey,
  text: anyText,
  values: fc.array(anyValue, { minLength: 1, maxLength: 3 }),
});
const program: fc.Arbitrary<Change[]> = fc.array(
  fc.record({ statements: fc.array(statement, { maxLength: 12 }), fails: fc.nat(9).map((n) => n === 0) }),
  { maxLength: 5 },
);

const ran = new Map<string, number>();

for (const { kind, maker } of REPLICAS) test(`a draft is what it looks like, and so is the tree: ${kind}`, async () => {
  const newReplica = await maker();
  ran.clear();
  check(
    `programs, ${kind}`,
    fc.property(program, fc.boolean(), (changes, asTheyHappened) => {
      const replica = newReplica();
      let model: Doc = {};
      let tree = EMPTY;
      for (const { statements, fails } of changes) {
        const before = objects(replica, tree);
        const copy = written(model) as Doc;
        const failed = attempt(replica, fails, (draft) => {
          for (const each of statements) {
            step(draft, copy, each);
            assert.deepEqual(plain(draft), plain(copy));
          }
        });
        assert.equal(failed, fails);
        if (!fails) model = copy;
        const patches = replica.patches(asTheyHappened);
        const next = applyPatches(tree, patches);
        assert.deepEqual(plain(next), plain(model));
        assert.ok(isDeepFrozen(next));
        assertKept(before, objects(replica, next), patches);
        if (patches.length === 0) assert.equal(next, tree);
        tree = next;
      }
      replica.free?.();
    }),
  );
  console.log([...ran].map(([name, times]) => `${name} ${times}`).join(", "));
  const all = [...MAP, ...LIST, ...TEXT, ...COUNTER].map((run) => run.name);
  if (process.env["CONCORD_RUNS"] === undefined) assert.deepEqual(all.filter((name) => !ran.has(name)), []);
});

/** Whether it threw, which only the program's own failure may. */
function attempt(replica: TestReplica, fails: boolean, callback: (draft: Doc) => void): boolean {
  const failure = new Error("the program fails here");
  try {
    edit<Doc>(replica, (draft) => {
      callback(draft);
      if (fails) throw failure;
    }, { time: 0 });
    return false;
  } catch (error) {
    if (error !== failure) throw error;
    return true;
  }
}

/** One statement on both sides. */
function step(draft: Doc, model: Doc, { way, ...rest }: Statement): void {
  const path: Prop[] = [];
  let parent: Doc | undefined;
  let there: unknown = model;
  for (const turn of way) {
    if (typeof there !== "object" || there === null || there instanceof Counter) break;
    if (there instanceof Date || there instanceof Uint8Array) break;
    const keys: Prop[] = Array.isArray(there) ? [...there.keys()] : Object.keys(there);
    const prop = keys[turn % keys.length];
    if (prop === undefined) break;
    path.push(prop);
    parent = there as Doc;
    there = parent[prop];
  }
  const place: Place = { draft, model, path, there, parent, ...rest };
  const choices = kindsFor(there);
  const run = choices[rest.kind % choices.length];
  assert.ok(run !== undefined);
  ran.set(run.name, (ran.get(run.name) ?? 0) + 1);
  run(place);
}

interface Place extends Omit<Statement, "way"> {
  draft: Doc;
  model: Doc;
  path: Prop[];
  /** In the model. */
  there: unknown;
  parent: Doc | undefined;
}
type Run = (place: Place) => void;

function kindsFor(there: unknown): Run[] {
  if (typeof there === "string") return TEXT;
  if (there instanceof Counter) return COUNTER;
  if (Array.isArray(there)) return LIST;
  if (there === null || there instanceof Date || there instanceof Uint8Array) return LEAF;
  return typeof there === "object" ? MAP : LEAF;
}

/** The same statement on the draft and on the plain object, with the same result. */
function both(place: Place, run: (container: Doc & unknown[], values: unknown[]) => unknown): void {
  const draft = follow(place.draft, place.path) as Doc & unknown[];
  const ofDraft = run(draft, place.values);
  const ofModel = run(place.there as Doc & unknown[], place.values.map(written));
  assert.deepEqual(plain(ofDraft), plain(ofModel));
}

function follow(from: unknown, path: readonly Prop[]): unknown {
  return path.reduce((value, prop) => (value as Doc)[prop], from);
}

const byName = (a: string, b: string): number => (a < b ? -1 : 1);
const MAP: Run[] = [
  function set(place) {
    both(place, (map, values) => void (map[place.key] = values[0]));
  },
  function replace(place) {
    const keys = Object.keys(place.there as Doc);
    const key = keys[place.at % keys.length] ?? place.key;
    both(place, (map, values) => void (map[key] = values[0]));
  },
  function remove(place) {
    const keys = Object.keys(place.there as Doc);
    const key = keys[place.at % keys.length] ?? place.key;
    both(place, (map) => [delete map[key], key in map, Object.hasOwn(map, key)]);
  },
  function assign(place) {
    both(place, (map, values) => void Object.assign(map, { x: 1, [place.key]: values[0] }));
  },
  function same(place) {
    const keys = Object.keys(place.there as Doc);
    both(place, (map) => keys.forEach((key) => (map[key] = map[key])));
  },
  function look(place) {
    both(place, (map) => [Object.keys(map).sort(byName), { ...map }, place.key in map, map[place.key] === undefined]);
    both(place, (map) => Object.entries(map).sort(([a], [b]) => byName(a, b)));
    both(place, (map) => JSON.parse(JSON.stringify(map)));
    both(place, (map) => Object.getOwnPropertyDescriptor(map, place.key)?.enumerable);
  },
];
const LIST: Run[] = [
  function setIndex(place) {
    both(place, (list, values) => void (list[place.at % (list.length + 1)] = values[0]));
  },
  function push(place) {
    both(place, (list, values) => list.push(...values));
  },
  function pop(place) {
    both(place, (list) => list.pop());
  },
  function shift(place) {
    both(place, (list) => list.shift());
  },
  function unshift(place) {
    both(place, (list, values) => list.unshift(...values));
  },
  function spliceList(place) {
    both(place, (list, values) => list.splice(place.at - 3, place.count, ...values));
    both(place, (list) => list.splice(place.at + 2));
  },
  function insertAndDelete(place) {
    const list = place.there as unknown[];
    const at = place.at % (list.length + 1);
    insertAt(follow(place.draft, place.path) as unknown[], at, ...place.values);
    list.splice(at, 0, ...place.values.map(written));
    const count = Math.min(place.count, list.length - at);
    deleteAt(follow(place.draft, place.path) as unknown[], at, count);
    list.splice(at, count);
  },
  function shrink(place) {
    both(place, (list) => (list.length = Math.min(list.length, place.at)));
  },
  function lookList(place) {
    both(place, (list) => [list.length, list.at(-1), list.slice(1), list.concat([1]), list.map((each) => each)]);
    both(place, (list) => [[...list], list.filter(Boolean), list.find(Boolean), Object.keys(list), 1 in list]);
    // Dates and bytes are read anew each time; drafts and counters keep their identity.
    const mine = (each: unknown): boolean => !(each instanceof Date || each instanceof Uint8Array);
    both(place, (list) => [list.includes(null), ...list.map((each) => mine(each) && list.indexOf(each))]);
    both(place, (list) => [Array.isArray(list), JSON.parse(JSON.stringify(list)), list.every((each) => each !== null)]);
  },
];
const TEXT: Run[] = [
  function spliceText(place) {
    // A scalar string reads the same, but can't be edited.
    if (typeof place.there !== "string" || !isText(place)) return;
    const letters = [...place.there];
    const at = letters.slice(0, place.at).join("").length;
    const end = letters.slice(0, place.at + place.count).join("").length;
    splice(place.draft, place.path, at, end - at, place.text);
    setModel(place, place.there.slice(0, at) + place.text + place.there.slice(end));
  },
  function update(place) {
    if (!isText(place)) return;
    updateText(place.draft, place.path, place.text);
    setModel(place, place.text);
  },
  function read(place) {
    assert.equal(follow(place.draft, place.path), place.there);
  },
];
const COUNTER: Run[] = [
  function count(place) {
    const counter = follow(place.draft, place.path) as Counter;
    const sum = (place.there as Counter).value + place.at - place.count;
    assert.equal(counter.increment(place.at) - place.count, counter.decrement(place.count));
    assert.equal(Number(counter), sum);
    setModel(place, new Counter(sum));
  },
];
const LEAF: Run[] = [
  function leaf(place) {
    assert.deepEqual(follow(place.draft, place.path), place.there);
  },
];

function isText({ draft, path }: Place): boolean {
  try {
    splice(draft, path, 0, 0);
    return true;
  } catch {
    return false;
  }
}

function setModel({ parent, path }: Place, value: unknown): void {
  const prop = path.at(-1);
  if (parent !== undefined && prop !== undefined) parent[prop] = value;
}

interface Shown {
  container: Value;
  parent: ObjectId | undefined;
}

/** What the tree has for each object. */
function objects(replica: TestReplica, tree: Value): Map<ObjectId, Shown> {
  const found = new Map<ObjectId, Shown>();
  const visit = (id: ObjectId, value: Value, parent: ObjectId | undefined): void => {
    found.set(id, { container: value, parent });
    if (typeof value !== "object" || value === null) return;
    for (const [key, entry] of Object.entries(value)) {
      const there = replica.get(id, Array.isArray(value) ? Number(key) : key);
      if (typeof there === "object" && there !== null && "object" in there) visit(there.object, entry as Value, id);
    }
  };
  visit("_root", tree, undefined);
  return found;
}

/** What no patch led to or through is still the same. */
function assertKept(before: Map<ObjectId, Shown>, after: Map<ObjectId, Shown>, patches: readonly WasmPatch[]): void {
  const touched = new Set<ObjectId | undefined>();
  for (const { object } of patches) {
    for (let id: ObjectId | undefined = object; id !== undefined; id = after.get(id)?.parent) {
      touched.add(id);
    }
  }
  for (const [id, { container }] of after) {
    const old = before.get(id);
    if (!touched.has(id) && old !== undefined) assert.equal(container, old.container, `${id} lost its identity`);
  }
}
