// Promise: the parts of the inspector that need no page are right by themselves: what a patch does to a value, which
// rows a tree has, where the change graph's nodes and lines go, what differs between two texts, what an address names.
//
// Values, patches, histories and texts are random, from a seed, beside the cases by hand, and what comes out is held
// against the plainest way to get it: a patch against a copy that is changed in place, pieces of texts against both
// texts, the drawing against the deps.

import assert from "node:assert/strict";
import { test } from "node:test";

const part = (name) => import(new URL(`../../server/src/http/inspect/${name}.js`, import.meta.url));
const { at, differences, parsePointer, patched, pointerOf, read } = await part("model");
const { Opened, movedPlace, openSome, rowOf, rowsOf, stepsOf } = await part("rows");
const { beside, layOut, nodeAt } = await part("lanes");
const { versions } = await part("versions");
const { textPieces } = await part("textdiff");
const { format, idOf, parse } = await part("route");
const { cut, printable } = await part("text");

const SEED = Number(process.env.CONCORD_TEST_SEED ?? Date.now() % 1e9);
console.log(`CONCORD_TEST_SEED=${SEED}`);

/** Random numbers below `most`, from a seed (mulberry32). */
function dice(seed) {
  let state = seed >>> 0;
  return (most) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) % most;
  };
}

function randomValue(roll, depth = 0) {
  switch (roll(depth > 3 ? 4 : 6)) {
    case 0:
      return roll(5);
    case 1:
      return ["", "a", "a/b", "~", "\ud83d\ude00"][roll(5)];
    case 2:
      return roll(2) === 0 ? null : roll(2) === 0;
    case 3:
      return [{ $counter: roll(9) }, { $timestamp: "2026-11-22T04:10:28.000Z" }, { $map: { $counter: 1 } }][roll(3)];
    case 4:
      return Array.from({ length: roll(5) }, () => randomValue(roll, depth + 1));
    default:
      return Object.fromEntries(Array.from({ length: roll(5) }, () => [["a", "b/c", "~1", "", "7", "toString"][roll(6)], randomValue(roll, depth + 1)]));
  }
}

/** An operation that fits, and carries it out on `root` in place. */
function randomOperation(roll, root) {
  let [container, steps] = [root, []];
  for (;;) {
    const inner = Object.keys(container).filter((key) => ["array", "object"].includes(read(container[key]).kind) && !Object.hasOwn(container[key], "$map"));
    if (inner.length === 0 || roll(3) === 0) break;
    const step = inner[roll(inner.length)];
    steps = [...steps, step];
    container = container[step];
  }
  const value = randomValue(roll);
  const copy = structuredClone(value);
  if (Array.isArray(container)) {
    const op = container.length === 0 ? "add" : ["add", "remove", "replace"][roll(3)];
    const step = roll(container.length + (op === "add" ? 1 : 0));
    if (op === "add") container.splice(step, 0, copy);
    else if (op === "remove") container.splice(step, 1);
    else container[step] = copy;
    return { op, path: pointerOf([...steps, step]), value };
  }
  const keys = Object.keys(container);
  const op = keys.length === 0 ? "add" : ["add", "remove", "replace"][roll(3)];
  const key = op === "add" ? ["a", "new/one", "~0"][roll(3)] : keys[roll(keys.length)];
  if (op === "remove") delete container[key];
  else container[key] = copy;
  return { op, path: pointerOf([...steps, key]), value };
}

test("a patch makes of a value what it says, and leaves the value that it was made of as it was", () => {
  const roll = dice(SEED);
  for (let round = 0; round < 500; round += 1) {
    const before = { first: randomValue(roll), list: [randomValue(roll), randomValue(roll)] };
    const kept = structuredClone(before);
    const wanted = structuredClone(before);
    const operations = Array.from({ length: 1 + roll(8) }, () => randomOperation(roll, wanted));
    const told = [];
    const after = patched(before, operations, (one) => told.push(one));
    assert.deepEqual(after, wanted);
    assert.deepEqual(before, kept);
    assert.equal(told.length, operations.length);
    for (const [n, { steps }] of told.entries()) assert.equal(pointerOf(steps), operations[n].path);
  }
});

test("what was before and whether it was in an array is told", () => {
  const told = [];
  const operations = [
    { op: "add", path: "/list/0", value: 0 },
    { op: "replace", path: "/list/1", value: 2 },
    { op: "remove", path: "/name" },
    { op: "add", path: "/rows/0/x", value: 3 },
  ];
  patched({ list: [1], name: "x", rows: [{}] }, operations, (one) => told.push(one));
  assert.deepEqual(
    told.map(({ steps, isInArray, before }) => [steps, isInArray, before]),
    [
      [["list", 0], true, undefined],
      [["list", 1], true, 1],
      [["name"], false, "x"],
      [["rows", 0, "x"], false, undefined],
    ],
  );
});

test("a patch that does not fit is no patch", () => {
  for (const operation of [
    { op: "replace", path: "/none", value: 1 },
    { op: "remove", path: "/list/2" },
    { op: "add", path: "/list/3", value: 1 },
    { op: "add", path: "/list/x", value: 1 },
    { op: "add", path: "/none/0", value: 1 },
    { op: "add", path: "/toString/x", value: 1 },
    { op: "add", path: "/__proto__/x", value: 1 },
    { op: "move", path: "/list/0" },
  ]) {
    assert.throws(() => patched({ list: [1, 2] }, [operation]), undefined, JSON.stringify(operation));
  }
});

test("keys that mean something to JavaScript are keys", () => {
  const value = patched({}, [
    { op: "add", path: "/constructor", value: 1 },
    { op: "add", path: "/__proto__", value: { evil: true } },
  ]);
  assert.deepEqual(Object.keys(value), ["constructor", "__proto__"]);
  assert.equal({}.evil, undefined);
  assert.equal(value.evil, undefined);
  assert.equal(at(value, ["hasOwnProperty"]), undefined);
  assert.deepEqual(at(value, ["__proto__", "evil"]), true);
});

test("pointers are steps, whatever is in them", () => {
  for (const steps of [[], [""], ["a/b", "~", "~1"], ["", "", "0"]]) {
    assert.deepEqual(parsePointer(pointerOf(steps)), steps);
  }
});

test("what differs is found where it is, and nothing where nothing does", () => {
  const roll = dice(SEED + 1);
  for (let round = 0; round < 300; round += 1) {
    const before = { some: randomValue(roll) };
    assert.deepEqual(differences(before, structuredClone(before), 50), []);
    const after = structuredClone(before);
    randomOperation(roll, after);
    let isSame = true;
    try {
      assert.deepStrictEqual(after, before);
    } catch {
      isSame = false;
    }
    const found = differences(before, after, 50);
    assert.equal(found.length === 0, isSame, `${JSON.stringify(before)} ${JSON.stringify(after)}`);
    for (const steps of found) assert.notEqual(at(after, steps), undefined);
  }
  const meetings = Array.from({ length: 20_000 }, (_, n) => ({ id: n, date: "2026-11-21" }));
  const more = meetings.toSpliced(100, 0, { id: "new", date: "now" });
  assert.deepEqual(differences({ meetings }, { meetings: more }, 50), [["meetings", 100]]);
});

test("rows are what is open, in order, and places lead to rows and back", () => {
  const roll = dice(SEED + 2);
  for (let round = 0; round < 300; round += 1) {
    const json = { some: randomValue(roll), other: randomValue(roll) };
    const opened = new Opened();
    openSome(json, opened, 40);
    const rows = rowsOf(json, opened);
    for (const [n, row] of rows.entries()) {
      const steps = stepsOf(rows, n);
      assert.equal(rowOf(rows, steps), n);
      assert.equal(steps.length, row.depth);
      assert.deepEqual(at(json, steps), row.json);
      if (row.isOpen) assert.equal(rows.filter(({ parent }) => parent === n).length, row.size);
    }
  }
});

test("a first look opens something, and not all of a large document", () => {
  const opened = new Opened();
  const json = { meetings: Array.from({ length: 20_000 }, (_, n) => ({ n })), name: "Acme", own: { a: 1 } };
  openSome(json, opened, 60);
  const shown = rowsOf(json, opened);
  assert.deepEqual(shown.map(({ key }) => key), [null, "meetings", "name", "own", "a"]);
  opened.set(["meetings"], true);
  const start = performance.now();
  assert.equal(rowsOf(json, opened).length, 20_005);
  assert.ok(performance.now() - start < 500);
  assert.equal(rowsOf(json, opened, 1000).length, 1000);
});

test("what is open stays open where it goes when positions move", () => {
  const opened = new Opened();
  for (const steps of [["list"], ["list", 1], ["list", 1, "a"], ["list", 3]]) opened.set(steps, true);
  opened.moved(["list", 1], 1);
  assert.deepEqual([1, 2, 4].map((n) => opened.isOpen(["list", n])), [false, true, true]);
  assert.ok(opened.isOpen(["list", 2, "a"]));
  opened.moved(["list", 2], -1);
  assert.deepEqual([1, 2, 3].map((n) => opened.isOpen(["list", n])), [false, false, true]);
  assert.deepEqual(movedPlace(["list", 5, "x"], ["list", 5], 1), ["list", 6, "x"]);
  assert.deepEqual(movedPlace(["list", 4, "x"], ["list", 5], 1), ["list", 4, "x"]);
  assert.deepEqual(movedPlace(["other", 5], ["list", 5], 1), ["other", 5]);
  assert.equal(movedPlace(["list", 5, "x"], ["list", 5], -1), null);
});

/** A random history: each change on some of the heads that its actor has seen. */
function randomHistory(roll, count, actors) {
  const changes = [];
  const seen = Array.from({ length: actors }, () => new Set());
  for (let place = 0; place < count; place += 1) {
    const actor = roll(actors);
    if (roll(4) === 0) for (const other of seen[roll(actors)]) seen[actor].add(other);
    const deps = [...seen[actor]].filter((hash) => ![...seen[actor]].some((other) => changes[Number(other.slice(1))].past.has(hash)));
    const past = new Set(deps.flatMap((hash) => [hash, ...changes[Number(hash.slice(1))].past]));
    const heads = deps.length;
    // Authors name what they made last, too, though it is in the past of another dep.
    const own = changes.findLast((change) => change.actor === `actor${actor}`);
    if (own !== undefined && !deps.includes(own.hash)) deps.push(own.hash);
    const change = { place, hash: `h${place}`, actor: `actor${actor}`, seq: (own?.seq ?? 0) + 1, deps, past, heads };
    seen[actor].add(change.hash);
    changes.push(change);
  }
  return changes;
}

test("each change is in one node, every dep is a line or within a run, and lines go to the right", () => {
  const roll = dice(SEED + 3);
  for (let round = 0; round < 100; round += 1) {
    const changes = randomHistory(roll, 1 + roll(60), 1 + roll(5));
    const first = round % 2 === 0 ? 0 : roll(changes.length);
    const drawn = changes.slice(first);
    for (const isEvery of [true, false]) {
      const { lanes, nodes, lines } = layOut(drawn, isEvery);
      assert.equal(nodes.reduce((sum, node) => sum + node.changes.length, 0), drawn.length);
      if (isEvery) assert.ok(nodes.every(({ changes: own }) => own.length === 1));
      const nodeOf = new Map(nodes.flatMap((node, n) => node.changes.map(({ hash }) => [hash, n])));
      for (const { hash, place, actor, deps } of drawn) {
        const here = nodeOf.get(hash);
        assert.equal(nodeAt(nodes, place), here);
        assert.equal(lanes[nodes[here].lane].actor, actor);
        for (const dep of deps) {
          const from = nodeOf.get(dep) ?? null;
          const isWithin = from === here && nodes[here].changes.findIndex((one) => one.hash === hash) === nodes[here].changes.findIndex((one) => one.hash === dep) + 1;
          assert.ok(isWithin || lines.some((line) => line.from === from && line.to === here), `${dep} → ${hash}`);
          // Nobody else builds on the middle of a run.
          if (from !== null && from !== here) assert.equal(nodes[from].changes.at(-1).hash, dep);
        }
      }
      for (const { from, to } of lines) assert.ok(from === null || nodes[from].column < nodes[to].column);
      if (first > 0) continue;
      for (const { changes: own, isMerge } of nodes) assert.equal(isMerge, own[0].heads > 1);
      assert.equal(lines.filter(({ isImplied }) => isImplied).length, drawn.filter(({ deps, heads }) => deps.length > heads).length);
    }
  }
});

test("a quarter of a million keystrokes in a row are one node", () => {
  const changes = Array.from({ length: 260_000 }, (_, place) => ({ place, hash: `h${place}`, actor: "a", seq: place + 1, deps: place === 0 ? [] : [`h${place - 1}`] }));
  const { nodes, lines } = layOut(changes, false);
  assert.deepEqual([nodes.length, lines.length, nodeAt(nodes, 123_456)], [1, 0, 0]);
});

test("a run ends where somebody else goes on", () => {
  const changes = [
    { place: 0, hash: "a", actor: "one", seq: 1, deps: [] },
    { place: 1, hash: "b", actor: "one", seq: 2, deps: ["a"] },
    { place: 2, hash: "c", actor: "two", seq: 1, deps: ["b"] },
    { place: 3, hash: "d", actor: "one", seq: 3, deps: ["b", "c"] },
  ];
  const { nodes, lines } = layOut(changes, false);
  assert.deepEqual(
    nodes.map(({ lane, changes: own, isMerge }) => [lane, own.map(({ hash }) => hash).join(""), isMerge]),
    [
      [0, "ab", false],
      [1, "c", false],
      [0, "d", false],
    ],
  );
  assert.deepEqual(lines, [
    { from: 0, to: 1, isImplied: false },
    { from: 0, to: 2, isImplied: true },
    { from: 1, to: 2, isImplied: false },
  ]);
  const [, , third] = changes;
  assert.deepEqual(layOut([...changes.slice(0, 2), third], false).nodes.length, 2);
});

test("up and down lead to the nearest node of the next actor", () => {
  const changes = [
    { place: 0, hash: "a", actor: "one", seq: 1, deps: [] },
    { place: 1, hash: "b", actor: "two", seq: 1, deps: ["a"] },
    { place: 2, hash: "c", actor: "one", seq: 2, deps: ["a"] },
    { place: 3, hash: "d", actor: "three", seq: 1, deps: ["b", "c"] },
  ];
  const { nodes } = layOut(changes, true);
  assert.equal(beside(nodes, 2, 1), 1);
  assert.equal(beside(nodes, 3, -1), 1);
  assert.equal(beside(nodes, 0, -1), 0);
});

test("versions are the heads of all that was admitted, from any place on", () => {
  const roll = dice(SEED + 4);
  for (let round = 0; round < 50; round += 1) {
    const changes = randomHistory(roll, 40, 4);
    const wanted = changes.map(({ place }) => {
      const until = changes.slice(0, place + 1);
      return until.filter(({ hash }) => !until.some(({ past }) => past.has(hash))).map(({ hash }) => hash).sort().join(".");
    });
    versions(changes, "");
    assert.deepEqual(changes.map(({ version }) => version), wanted);
    const rest = changes.slice(25);
    versions(rest, wanted[24]);
    assert.deepEqual(rest.map(({ version }) => version), wanted.slice(25));
  }
});

test("pieces of a text are both texts again, and words stay whole", () => {
  const roll = dice(SEED + 5);
  const words = ["the ", "year", " ", "next", "😀", "e\u0301", "\n", "Budget ", "👩‍👩‍👧", "."];
  const text = () => Array.from({ length: roll(30) }, () => words[roll(words.length)]).join("");
  for (let round = 0; round < 500; round += 1) {
    const before = text();
    const at = roll(before.length + 1);
    const after = roll(2) === 0 ? text() : before.slice(0, at) + text() + before.slice(Math.min(before.length, at + roll(9)));
    const pieces = textPieces(before, after);
    const only = (kind) => pieces.filter((piece) => ["same", kind].includes(piece.kind)).map((piece) => piece.text).join("");
    if (pieces.some(({ kind }) => kind === "skip")) continue;
    assert.equal(only("old"), before);
    assert.equal(only("new"), after);
  }
  const pieces = textPieces("Budget for the year", "Budget for the next year and the one after").map(({ kind, text: shown }) => `${kind[0]}${shown}`);
  assert.deepEqual(pieces, ["sBudget for the ", "nnext ", "syear", "n and the one after"]);
  const long = textPieces(`${"x ".repeat(50_000)}old`, `${"x ".repeat(50_000)}new`);
  assert.deepEqual(long.map(({ kind }) => kind), ["skip", "same", "old", "new"]);
  assert.deepEqual(textPieces("😀", "😁").map(({ text: shown }) => shown), ["😀", "😁"]);
});

test("addresses name what they were made of, and others name what can be shown", () => {
  for (const route of [
    { page: "documents", id: null, at: null, view: null },
    { page: "document", id: "a/b ?#%ü", at: null, view: "value" },
    { page: "document", id: "4NM", at: 17, view: "graph" },
    { page: "document", id: "4NM", at: "ab".repeat(32), view: "change" },
    { page: "refusals", id: null, at: null, view: null },
    { page: "refusals", id: "4NM", at: null, view: null },
  ]) {
    assert.deepEqual(parse(format(route)), route);
  }
  assert.equal(parse("#/d/%").id, "%");
  assert.equal(parse("#/d/x?at=-1").at, null);
  assert.equal(parse("#/d/").page, "documents");
  assert.equal(parse("#/../x").page, "documents");
});

test("an id is found in what people paste", () => {
  for (const text of ["4NM", " automerge:4NM\n", "automerge:4NM#heads", "http://localhost:4010/v1/documents/4NM/value/x", "http://x/inspect/#/d/4NM?at=3"]) {
    assert.equal(idOf(text), "4NM", text);
  }
});

test("what can't be seen is written out, and what is a character stays one", () => {
  assert.equal(printable("a\u202eb\u0000\u200b\ud800c\n"), "a\\u{202e}b\\u{0}\\u{200b}\\u{d800}c⏎");
  assert.equal(printable("a\n\tb\r", true), "a\n\tb\\u{d}");
  assert.equal(printable("👩‍👩‍👧 שלום"), "👩‍👩‍👧 שלום");
  assert.equal(cut("😀😀", 3), "😀");
  assert.equal(cut("abc", 3), "abc");
});
