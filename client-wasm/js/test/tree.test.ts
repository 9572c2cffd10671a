/** The promise: patches turn one frozen value into the next, and what they don't fit they leave alone. */

import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { check, isDeepFrozen } from "./support.js";
import { PatchError, type PatchErrorCode } from "../src/value/errors.js";
import { TextBuilder } from "../src/value/text.js";
import { applyPatches, EMPTY, publicPatch } from "../src/value/tree.js";
import { Counter } from "../src/value/types.js";
import type { Prop, WasmPatch, WasmValue } from "../src/wasm.js";

const at = (...path: Prop[]): { path: Prop[]; object: string } => ({ path, object: "1@a" });
const put = (value: WasmValue, ...path: Prop[]): WasmPatch => ({ ...at(...path), action: "put", value, conflict: false });
const insert = (values: WasmValue[], ...path: Prop[]): WasmPatch => ({ ...at(...path), action: "insert", values });
const splice = (text: string, ...path: Prop[]): WasmPatch => ({ ...at(...path), action: "splice", text });
const del = (length: number, ...path: Prop[]): WasmPatch => ({ ...at(...path), action: "del", length });
const inc = (by: number, ...path: Prop[]): WasmPatch => ({ ...at(...path), action: "inc", by });
const map: WasmValue = { object: "2@a", type: "map" };
const list: WasmValue = { object: "3@a", type: "list" };
const text: WasmValue = { object: "4@a", type: "text" };

/** { title: "hello", id: "x", votes: 1, tags: ["red", 2], deep: { a: { b: {} }, c: {} } } */
const SAMPLE = applyPatches(EMPTY, [
  put(text, "title"),
  splice("hello", "title", 0),
  put({ string: "x" }, "id"),
  put({ counter: 1 }, "votes"),
  put(list, "tags"),
  insert([text, 2], "tags", 0),
  splice("red", "tags", 0, 0),
  put(map, "deep"),
  put(map, "deep", "a"),
  put(map, "deep", "a", "b"),
  put(map, "deep", "c"),
]);

test("every kind of value and patch", () => {
  const expected = { title: "hello", id: "x", votes: new Counter(1), tags: ["red", 2], deep: { a: { b: {} }, c: {} } };
  assert.deepEqual(SAMPLE, expected);
  assert.equal(Object.getPrototypeOf(SAMPLE), Object.prototype);
  assert.ok(isDeepFrozen(SAMPLE));
  const next = applyPatches(SAMPLE, [
    splice("!", "title", 5),
    del(1, "title", 0),
    inc(-3, "votes"),
    put(new Date(5), "tags", 1),
    insert([{ float: 1 }, new Uint8Array([1])], "tags", 1),
    del(1, "tags", 0),
    del(1, "deep", "a"),
    { ...at("id"), action: "conflict" },
    { ...at("title"), action: "mark" },
  ]);
  assert.deepEqual(next, {
    title: "ello!",
    id: "x",
    votes: new Counter(-2),
    tags: [1, new Uint8Array([1]), new Date(5)],
    deep: { c: {} },
  });
  assert.ok(isDeepFrozen(next));
  assert.deepEqual(SAMPLE, expected);
});

test("what was not touched keeps its identity", () => {
  const next = applyPatches(SAMPLE, [put(1, "deep", "a", "new")]);
  assert.notEqual(next, SAMPLE);
  const [before, after] = [SAMPLE["deep"], next["deep"]] as { a: { b: object }; c: object }[];
  assert.notEqual(after, before);
  assert.equal(after?.a.b, before?.a.b);
  assert.equal(after?.c, before?.c);
  assert.equal(next["tags"], SAMPLE["tags"]);
  assert.equal(next["votes"], SAMPLE["votes"]);
  const nothing = [put(2, "tags", 1), put({ string: "x" }, "id"), inc(0, "votes"), splice("", "title", 1), insert([], "tags", 0)];
  for (const patch of nothing) assert.equal(applyPatches(SAMPLE, [patch]), SAMPLE, JSON.stringify(patch));
  assert.equal(applyPatches(SAMPLE, [{ ...at("nowhere", 7), action: "conflict" }]), SAMPLE);
});

test("a patch that does not fit throws, and leaves the value", () => {
  const before = structuredClone({ ...SAMPLE, votes: 0 });
  const refused: [PatchErrorCode, WasmPatch][] = [
    ["nowhere", put(1)],
    ["nowhere", put(1, "none", "a")],
    ["nowhere", put(1, "tags", 2, "a")],
    ["nowhere", put(1, "tags", -1, "a")],
    ["nowhere", put(1, "votes", "value")],
    ["nowhere", put(1, "toString", "name")],
    ["nowhere", put(1, "constructor", "prototype")],
    ["nowhere", put(1, "__proto__", "polluted")],
    ["nowhere", put(1, "title", 0, "a")],
    ["prop", put(1, "tags", "length")],
    ["prop", put(1, "tags", "0", "a")],
    ["prop", put(1, "deep", 0)],
    ["prop", splice("a", "title", "length")],
    ["range", put(1, "tags", 2)],
    ["range", put(1, "tags", 0.5)],
    ["range", put(1, "tags", NaN)],
    ["range", insert([1], "tags", 3)],
    ["range", del(3, "tags", 0)],
    ["range", del(0, "tags", 0)],
    ["range", del(1, "none")],
    ["range", del(1, "hasOwnProperty")],
    ["range", splice("a", "title", 7)],
    ["range", splice("a", "title", -1)],
    ["range", del(7, "title", 0)],
    ["kind", put(1, "title", 0)],
    ["kind", inc(1, "id")],
    ["kind", inc(1, "tags", 1)],
    ["kind", inc(1, "valueOf")],
    ["kind", splice("a", "deep", "x")],
    ["kind", splice("a", "tags", 0)],
    ["kind", insert([1], "deep", "a")],
  ];
  for (const [code, patch] of refused) {
    const batch = [put(9, "tags", 0), splice("x", "title", 0), put(9, "deep", "c", "x"), patch];
    assert.throws(
      () => applyPatches(SAMPLE, batch),
      (error) => error instanceof PatchError && error.code === code && error.index === 3,
      `${code} ${JSON.stringify(patch)}`,
    );
    assert.deepEqual({ ...SAMPLE, votes: 0 }, before);
  }
});

test("keys that JavaScript gives a meaning are data", () => {
  const keys = ["__proto__", "constructor", "toString", "hasOwnProperty", "valueOf", "prototype"];
  let value = applyPatches(EMPTY, keys.map((key) => put(map, key)));
  value = applyPatches(value, keys.map((key) => put(true, key, "polluted")));
  assert.deepEqual(Object.keys(value).sort(), [...keys].sort());
  for (const key of keys) {
    assert.deepEqual(Object.getOwnPropertyDescriptor(value, key)?.value, { polluted: true });
  }
  assert.equal(Object.getPrototypeOf(value), Object.prototype);
  assert.equal(({} as { polluted?: boolean }).polluted, undefined);
  // Also as scalars and texts, deleted again, and when a copy is made for another key.
  value = applyPatches(value, [put(text, "__proto__"), put(null, "constructor"), del(1, "toString")]);
  value = applyPatches(value, [splice("hi", "__proto__", 0), put(1, "other")]);
  assert.equal(Object.getOwnPropertyDescriptor(value, "__proto__")?.value, "hi");
  assert.equal(Object.getPrototypeOf(value), Object.prototype);
  assert.equal(value["constructor"], null);
  assert.ok(!Object.hasOwn(value, "toString"));
  value = applyPatches(value, [del(1, "__proto__")]);
  assert.ok(!Object.hasOwn(value, "__proto__"));
  assert.ok(isDeepFrozen(value));
});

test("what rich text embeds is one letter, and its inside is not shown", () => {
  let value = applyPatches(EMPTY, [put(text, "t"), splice("ab", "t", 0), insert([map], "t", 1)]);
  assert.equal(value["t"], "a\ufffcb");
  assert.equal(applyPatches(value, [put("heading" as never, "t", 1, "type"), put(1, "t", 1, "attrs", "x")]), value);
  value = applyPatches(value, [splice("c", "t", 0), put(1, "t", 2, "type"), del(1, "t", 2)]);
  assert.equal(value["t"], "cab");
});

test("public patches", () => {
  assert.deepEqual(
    [put(map, "m"), insert([text, list, { counter: 2 }], "l", 0), splice("a", "t", 0), inc(2, "c")].map(publicPatch),
    [
      { action: "put", path: ["m"], value: {}, conflict: false },
      { action: "insert", path: ["l", 0], values: ["", [], new Counter(2)] },
      { action: "splice", path: ["t", 0], value: "a" },
      { action: "inc", path: ["c"], value: 2 },
    ],
  );
});

test("a text builder is a string", () => {
  const edit = fc.tuple(fc.double({ min: 0, max: 1, noNaN: true }), fc.double({ min: 0, max: 1, noNaN: true }), fc.nat(3));
  check(
    "text builder",
    fc.property(fc.nat(40_000), fc.array(edit), (length, edits) => {
      let text = letters(length);
      const builder = new TextBuilder(text);
      edits.forEach(([from, share, size], round) => {
        const index = Math.floor(from * text.length);
        const remove = Math.floor(share ** 4 * (text.length - index));
        const added = letters([0, 1, 100, 20_000][size] ?? 0);
        builder.splice(index, remove, added);
        text = text.slice(0, index) + added + text.slice(index + remove);
        assert.equal(builder.length, text.length);
        if (text.length > 0) assert.equal(builder.unitAt(text.length >> 1), text.charCodeAt(text.length >> 1));
        if (round % 3 === 0) assert.equal(builder.toString(), text);
      });
      assert.equal(builder.toString(), text);
    }),
    60,
  );
});

let lettersMade = 0;
function letters(count: number): string {
  return Array.from({ length: count }, () => String.fromCharCode(97 + (lettersMade++ % 1009))).join("");
}

test("a batch costs what it touches once, not each time", () => {
  const LETTERS = 200_000;
  const long = applyPatches(EMPTY, [put(text, "t"), splice(letters(LETTERS), "t", 0)]);
  const edits = Array.from({ length: 1000 }, (_, n) => [splice("x", "t", (n * 7919) % LETTERS), del(1, "t", (n * 104_729) % LETTERS)]);
  timed("1,000 splices and deletions in 200,000 letters", 100, () => applyPatches(long, edits.flat()));
  // Copied for each patch, this would take minutes.
  const keys = applyPatches(EMPTY, Array.from({ length: 20_000 }, (_, n) => put(n, `key${n}`)));
  timed("5,000 puts in 20,000 keys", 1000, () => applyPatches(keys, Array.from({ length: 5000 }, (_, n) => put(-1, `key${n}`))));
  const items = applyPatches(EMPTY, [put(list, "l"), insert(Array.from({ length: 200_000 }, () => 1), "l", 0)]);
  timed("5,000 puts in 200,000 elements", 1000, () => applyPatches(items, Array.from({ length: 5000 }, (_, n) => put(-1, "l", n))));
});

function timed(what: string, mostMs: number, run: () => unknown): void {
  const best = Math.min(...Array.from({ length: 3 }, () => {
    const start = performance.now();
    run();
    return performance.now() - start;
  }));
  console.log(`${what}: ${best.toFixed(1)} ms`);
  assert.ok(best < mostMs, `${what}: ${best.toFixed(1)} ms, more than ${mostMs}`);
}
