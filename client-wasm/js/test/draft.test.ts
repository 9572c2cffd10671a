/** The promise: what a draft can't do it refuses with a typed error that names the place, before it did half of it. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { runInNewContext } from "node:vm";
import { FakeReplica } from "./fake-replica.js";
import { plain, REPLICAS, type TestReplica } from "./support.js";
import { deleteAt, edit, insertAt, makeDraft, splice, updateText } from "../src/value/draft.js";
import { MAX_DEPTH, PositionError, ValueError, type ValueErrorCode } from "../src/value/errors.js";
import { applyPatches, EMPTY } from "../src/value/tree.js";
import { Counter, Float, ImmutableString, type Frozen } from "../src/value/types.js";
import type { Prop, WasmValue } from "../src/wasm.js";

/** Any shape at all, as in an application without types. */
type Loose = Record<string, any>;
const TIME = { time: 0 };
const RATIO = { method: "put", object: "_root", prop: "ratio" };

function sample(): FakeReplica {
  const replica = new FakeReplica();
  fill(replica);
  replica.calls.length = 0;
  return replica;
}

function fill(replica: TestReplica): void {
  edit<Loose>(replica, (draft) => {
    Object.assign(draft, {
      title: "hi 😀!",
      id: new ImmutableString("x"),
      votes: new Counter(1),
      tasks: [{ name: "a" }, { name: "b", tags: ["red"] }],
      numbers: [1, 2, 3],
      when: new Date(5),
      bytes: new Uint8Array([1, 2]),
      ratio: new Float(1),
    });
  }, TIME);
  replica.patches();
}

/** The same promise for the fake, and for the real module behind the bindings. */
function testAll(name: string, run: (made: () => TestReplica) => void): void {
  for (const { kind, maker } of REPLICAS) test(`${name}: ${kind}`, async () => run(await maker()));
}

/** Whether a place holds that scalar, of that kind: what is there already is not written again. */
function holds(replica: TestReplica, key: string, value: WasmValue): boolean {
  replica.put("_root", key, value);
  const same = replica.commit(undefined, 0) === undefined;
  if (!same) replica.patches();
  return same;
}

function typeAt(replica: TestReplica, key: string): unknown {
  const value = replica.get("_root", key);
  return typeof value === "object" && value !== null && "type" in value ? value.type : undefined;
}

/** The statement throws; the same change, when it catches that, has written nothing. */
function refuses(code: ValueErrorCode | "position", path: readonly Prop[], run: (draft: Loose) => void): void {
  const replica = sample();
  const chunk = edit<Loose>(replica, (draft) => {
    try {
      run(draft);
    } catch (error) {
      if (code === "position") assert.ok(error instanceof PositionError && error instanceof RangeError, String(error));
      else assert.ok(error instanceof ValueError && error instanceof TypeError && error.code === code, String(error));
      assert.deepEqual(error.path, path);
      return;
    }
    assert.fail(`nothing thrown: ${code} ${run}`);
  }, TIME);
  assert.deepEqual(replica.calls, []);
  assert.equal(chunk, undefined);
}

test("values that documents can't hold are refused with their place, before anything is written", () => {
  class Point {
    x = 1;
  }
  const cycle: Loose = { a: [{}] };
  cycle["a"][0].b = cycle;
  let deep: unknown = 1;
  for (let level = 0; level < 5000; level += 1) deep = { d: deep };
  refuses("undefined", ["x"], (d) => (d["x"] = undefined));
  refuses("length", ["x", "b"], (d) => (d["x"] = { b: "x".repeat(900_001) }));
  refuses("undefined", ["x", "b", 1, "c"], (d) => (d["x"] = { a: 1, b: [1, { c: undefined }] }));
  refuses("undefined", ["tasks", 2, 1], (d) => d["tasks"].push([1, , 2]));
  refuses("undefined", ["tasks", 1, "name"], (d) => (d["tasks"][1].name = undefined));
  refuses("function", ["x"], (d) => (d["x"] = () => 1));
  refuses("symbol", ["x", 0], (d) => (d["x"] = [Symbol("s")]));
  refuses("symbol", ["x"], (d) => (d["x"] = { [Symbol("s")]: 1 }));
  refuses("symbol", [], (d) => ((d as Record<symbol, number>)[Symbol("s")] = 1));
  refuses("bigint", ["numbers", 4], (d) => d["numbers"].push(1, 2n));
  refuses("class", ["x"], (d) => (d["x"] = new Point()));
  refuses("class", ["x", "m"], (d) => (d["x"] = { a: 1, m: new Map() }));
  refuses("class", ["x"], (d) => (d["x"] = /r/));
  refuses("class", ["x"], (d) => (d["x"] = new Uint16Array(1)));
  refuses("date", ["x"], (d) => (d["x"] = new Date(NaN)));
  refuses("counter", ["x"], (d) => (d["x"] = new Counter(0.5)));
  refuses("counter", ["votes"], (d) => d["votes"].increment(0.5));
  refuses("counter", ["votes"], (d) => d["votes"].increment(Number.MAX_SAFE_INTEGER));
  refuses("surrogate", ["x"], (d) => (d["x"] = "a\ud83d"));
  refuses("surrogate", ["x"], (d) => (d["x"] = new ImmutableString("\ude00b")));
  refuses("surrogate", ["\ud83d"], (d) => (d["\ud83d"] = 1));
  refuses("surrogate", ["title"], (d) => splice(d, ["title"], 0, 0, "\ud83d"));
  refuses("surrogate", ["title"], (d) => updateText(d, ["title"], "\ud83d"));
  refuses("key", ["__proto__"], (d) => (d["__proto__"] = { a: 1 }));
  refuses("key", ["x", "__proto__"], (d) => (d["x"] = JSON.parse('{"__proto__": 1}')));
  refuses("cycle", ["x", "a", 0, "b"], (d) => (d["x"] = cycle));
  refuses("depth", ["x", ..."ddddddd"], (d) => (d["x"] = deep));
  refuses("reference", ["x"], (d) => (d["x"] = d["tasks"]));
  refuses("reference", ["numbers"], (d) => (d["numbers"] = d["tasks"]));
  refuses("reference", ["tasks", 0], (d) => (d["tasks"][0] = d["tasks"][1]));
  refuses("reference", ["numbers", 3, "a"], (d) => d["numbers"].push({ a: d["tasks"][0] }));
  refuses("reference", ["tasks", 0], (d) => (d["tasks"] = d["tasks"].filter(Boolean)));
});

test("operations that drafts don't offer", () => {
  refuses("unsupported", ["numbers"], (d) => d["numbers"].sort());
  refuses("unsupported", ["numbers"], (d) => d["numbers"].reverse());
  refuses("unsupported", ["numbers"], (d) => d["numbers"].fill(0));
  refuses("unsupported", ["numbers"], (d) => d["numbers"].copyWithin(0, 1));
  refuses("unsupported", ["numbers"], (d) => delete d["numbers"][0]);
  refuses("unsupported", ["tasks", 0], (d) => Object.freeze(d["tasks"][0]));
  refuses("unsupported", [], (d) => Object.defineProperty(d, "x", { value: 1 }));
  refuses("unsupported", [], (d) => Object.setPrototypeOf(d, null));
  refuses("key", ["numbers", "name"], (d) => (d["numbers"].name = 1));
  refuses("key", ["numbers", "-1"], (d) => (d["numbers"][-1] = 1));
  refuses("position", ["numbers", 4], (d) => (d["numbers"][4] = 1));
  refuses("position", ["numbers"], (d) => (d["numbers"].length = 4));
  refuses("position", ["numbers"], (d) => (d["numbers"].length = 0.5));
  refuses("position", ["numbers", 4], (d) => insertAt(d["numbers"], 4, 1));
  refuses("position", ["numbers", 2], (d) => deleteAt(d["numbers"], 2, 2));
  refuses("position", ["title"], (d) => splice(d, ["title"], 4, 0, "x"));
  refuses("position", ["title"], (d) => splice(d, ["title"], 2, 2));
  refuses("position", ["title"], (d) => splice(d, ["title"], 7, 0, "x"));
  refuses("position", ["title"], (d) => splice(d, ["title"], 6, 1));
  refuses("position", ["title"], (d) => splice(d, ["title"], 1, -1));
  refuses("path", ["id"], (d) => splice(d, ["id"], 0, 1));
  refuses("path", ["none"], (d) => splice(d, ["none", "a"], 0, 1));
  refuses("path", ["tasks"], (d) => splice(d, ["tasks"], 0, 1));
  refuses("path", ["tasks", "0"], (d) => splice(d, ["tasks", "0", "name"], 0, 1));
  refuses("path", ["title", 0], (d) => splice(d, ["title", 0], 0, 1));
  refuses("path", ["title"], () => updateText({}, ["title"], ""));
});

testAll("what changes nothing writes nothing", (made) => {
  const replica = made();
  fill(replica);
  const calls = replica instanceof FakeReplica ? replica.calls : undefined;
  calls?.splice(0);
  const chunk = edit<Loose>(replica, (d) => {
    Object.assign(d, { ...d });
    Object.assign(d, { title: "hi 😀!", id: "x", ratio: 1, when: new Date(5), bytes: new Uint8Array([1, 2]) });
    Object.assign(d, { id: new ImmutableString("x"), ratio: new Float(1), votes: new Counter(1) });
    d["numbers"][1] = 2;
    d["numbers"].length = 3;
    d["numbers"].splice(1, 0);
    d["votes"].increment(0);
    splice(d, ["title"], 1, 0);
    updateText(d, ["title"], "hi 😀!");
    delete d["none"];
  }, TIME);
  assert.equal(chunk, undefined);
  // Drafts can't see that a whole number is a float already: that is left to the replica.
  assert.deepEqual(calls ?? [RATIO], [RATIO]);
});

testAll("each kind of value is written as what it is", (made) => {
  const replica = made();
  edit<Loose>(replica, (d) => {
    Object.assign(d, { text: "t", scalar: new ImmutableString("s"), int: 1 });
    Object.assign(d, { float: new Float(1), half: new Float(0.5) });
    Object.assign(d, { zero: -0, big: 2 ** 53, nan: NaN, counter: new Counter(2), nested: { list: [[]] } });
    Object.assign(d, runInNewContext("({ frame: { date: new Date(1), bytes: new Uint8Array([1]) } })"));
    d["buffer"] = Buffer.from([1, 2, 3]);
  }, TIME);
  const got = Object.fromEntries(replica.keys("_root").map((key) => [key, replica.get("_root", key)]));
  assert.deepEqual({ ...got, frame: 0, nested: 0, text: 0 }, {
    big: 2 ** 53, buffer: new Uint8Array([1, 2, 3]), counter: { counter: 2 }, float: 1, frame: 0,
    half: 0.5, int: 1, nan: NaN, nested: 0, scalar: { string: "s" }, text: 0, zero: -0,
  });
  assert.ok(holds(replica, "int", 1) && holds(replica, "float", { float: 1 }));
  assert.ok(holds(replica, "big", { float: 2 ** 53 }) && holds(replica, "zero", { float: -0 }));
  // And it would notice.
  assert.ok(!holds(replica, "float", 1));
  edit<Loose>(replica, (d) => {
    // What is in a value twice is no cycle, and two objects from then on.
    const twice = { a: 1 };
    d["twice"] = [twice, { twice }, twice];
    d["twice"][0].a = 2;
    assert.deepEqual(plain(d["twice"]), [{ a: 2 }, { twice: { a: 1 } }, { a: 1 }]);
    assert.equal(typeAt(replica, "text"), "text");
    assert.deepEqual(plain(d["frame"]), { date: new Date(1), bytes: new Uint8Array([1]) });
    d["counter"] = 5;
    d["scalar"] += "!";
    assert.equal(d["counter"], 5);
  }, TIME);
  assert.equal(replica.get("_root", "counter"), 5);
  assert.equal(typeAt(replica, "scalar"), "text");
});

testAll("as deep as the server takes it, and no deeper", (made) => {
  const nest = (levels: number): Loose => (levels === 1 ? {} : { d: nest(levels - 1) });
  const replica = made();
  edit<Loose>(replica, (d) => (d["d"] = nest(MAX_DEPTH)), TIME);
  edit<Loose>(replica, (d) => {
    let bottom = d;
    while (bottom["d"] !== undefined) bottom = bottom["d"];
    bottom["x"] = 1;
    assert.throws(() => (bottom["d"] = {}), { code: "depth" });
  }, TIME);
  assert.throws(() => edit<Loose>(replica, (d) => (d["e"] = nest(MAX_DEPTH + 1)), TIME), { code: "depth" });
});

test("a callback that throws, waits or changes the same document again leaves nothing", async () => {
  const replica = sample();
  const before = plain(makeDraft<Loose>(replica).draft);
  const failure = new Error("mine");
  const write = (d: Loose): void => {
    d["title"] = "other";
    d["numbers"].push(4);
    d["votes"].increment();
  };
  assert.throws(() => edit<Loose>(replica, (d) => { write(d); throw failure; }, TIME), failure);
  assert.throws(() => edit<Loose>(replica, async (d) => write(d), TIME), { code: "async" });
  let late: unknown;
  const wait = async (d: Loose): Promise<void> => {
    write(d);
    await Promise.resolve();
    try {
      d["late"] = 1;
    } catch (error) {
      late = error;
    }
  };
  assert.throws(() => edit<Loose>(replica, wait, TIME), { code: "async" });
  await new Promise((done) => setTimeout(done, 1));
  assert.ok(late instanceof ValueError && late.code === "closed");
  const nested = (d: Loose): unknown => [write(d), edit<Loose>(replica, write, TIME)];
  assert.throws(() => edit<Loose>(replica, nested, TIME), { code: "nested" });
  assert.deepEqual(plain(makeDraft<Loose>(replica).draft), before);
  assert.deepEqual(replica.patches(), []);
  // And it goes on: the inner change that was refused did not end the outer one's turn.
  edit<Loose>(replica, (d) => {
    assert.throws(() => edit<Loose>(replica, write, TIME), { code: "nested" });
    d["title"] = "new";
  }, TIME);
  assert.equal(makeDraft<Loose>(replica).draft["title"], "new");
  assert.ok(edit<Loose>(replica, write, TIME) !== undefined);
});

test("drafts are over with their change", () => {
  const replica = sample();
  let kept: Loose[] = [];
  let counter = new Counter();
  edit<Loose>(replica, (d) => {
    kept = [d, d["tasks"], d["tasks"][0]];
    counter = d["votes"];
  }, TIME);
  const uses = [
    (d: Loose) => d["a"],
    (d: Loose) => (d[0] = 1),
    (d: Loose) => 0 in d,
    (d: Loose) => Object.keys(d),
    (d: Loose) => delete d[0],
    (d: Loose) => JSON.stringify(d),
    (d: Loose) => ({ ...d }),
  ];
  for (const draft of kept.slice(0, 3)) {
    for (const use of uses) {
      // A list takes this for a property of arrays, which it has not.
      if (use !== uses[0] || !Array.isArray(draft)) assert.throws(() => use(draft), { code: "closed" });
    }
  }
  assert.throws(() => kept[1]?.["push"](1), { code: "closed" });
  assert.throws(() => counter.increment(), { code: "closed" });
  assert.throws(() => counter.value, { code: "closed" });
  assert.throws(() => edit<Loose>(replica, (d) => (d["x"] = kept[2]), TIME), { code: "reference" });
  assert.throws(() => new Counter().increment(), TypeError);
});

test("drafts keep their identity, and say so when their object is gone", () => {
  edit<Loose>(sample(), (d) => {
    assert.equal(d["tasks"], d["tasks"]);
    assert.equal(d["tasks"][1], d["tasks"].at(-1));
    assert.equal(d["votes"], d["votes"]);
    const [list, , second, tags] = [d["tasks"], d["tasks"][0], d["tasks"][1], d["tasks"][1].tags];
    list.unshift({ name: "new" });
    assert.equal(list[2], second);
    assert.throws(() => (second.x = undefined), { path: ["tasks", 2, "x"] });
    const removed = list.pop();
    assert.deepEqual(removed, { name: "b", tags: ["red"] });
    for (const gone of [second, tags]) {
      assert.throws(() => gone.length, { code: "deleted" });
      assert.throws(() => (gone[0] = 1), { code: "deleted" });
    }
    assert.throws(() => splice(second, ["name"], 0, 1), { code: "deleted" });
    list.push(removed);
    assert.deepEqual(plain(list[2]), { name: "b", tags: ["red"] });
    const first = list[0];
    d["tasks"] = [];
    assert.throws(() => first.name, { code: "deleted" });
    assert.throws(() => list.push(1), { code: "deleted" });
    const { votes } = d;
    d["votes"] = new Counter(7);
    assert.throws(() => votes.increment(), { code: "deleted" });
    assert.equal(d["votes"].increment(), 8);
    // A counter that was read knows its place only: it must not count for another that came there.
    d["counters"] = [new Counter(1), new Counter(2), new Counter(3)];
    const middle = d["counters"][1];
    d["counters"].shift();
    assert.throws(() => middle.increment(), { code: "deleted" });
    const first3 = d["counters"][0];
    d["counters"].unshift(new Counter(1));
    assert.throws(() => first3.increment(), { code: "deleted" });
    assert.deepEqual(plain(d["counters"]), [{ counter: 1 }, { counter: 2 }, { counter: 3 }]);
    assert.equal(d["counters"][0].increment(), 2);
    assert.throws(() => (d["counters"][0].value = 1), TypeError);
  }, TIME);
});

testAll("texts, also in lists", (made) => {
  const replica = made();
  fill(replica);
  const calls = replica instanceof FakeReplica ? replica.calls : undefined;
  calls?.splice(0);
  edit<Loose>(replica, (d) => {
    splice(d, ["title"], 0, 2, "hello");
    splice(d, ["title"], 6, 2, "🎉");
    assert.equal(d["title"], "hello 🎉!");
    splice(d["tasks"], [1, "tags", 0], 3, 0, "dish");
    updateText(d, ["tasks", 0, "name"], "abc");
    splice(d["tasks"][0], ["name"], 3, 0, "d");
    updateText(d, ["title"], "hello");
    splice(d, ["title"], 5, 0, "!");
    d["id"] = "plain";
    splice(d, ["id"], 0, 1, "P");
  }, TIME);
  const puts = calls?.filter(({ method }) => method.startsWith("put")).map(({ prop }) => prop);
  assert.deepEqual(puts ?? ["id"], ["id"]);
  const value = plain(makeDraft<Loose>(replica).draft) as Loose;
  assert.deepEqual([value["title"], value["id"], value["tasks"]], [
    "hello!", "Plain", [{ name: "abcd" }, { name: "b", tags: ["reddish"] }],
  ]);
});

test("many edits of a long text in one change", () => {
  const replica = new FakeReplica();
  edit<Loose>(replica, (d) => (d["t"] = "é".repeat(200_000)), TIME);
  const { draft, revoke } = makeDraft<Loose>(replica);
  const start = performance.now();
  for (let n = 0; n < 300; n += 1) splice(draft, ["t"], n * 600, 1, "xy");
  console.log(`300 splices in a draft: ${(performance.now() - start).toFixed(1)} ms, the fake's included`);
  assert.equal(draft["t"], replica.text("1@fake"));
  revoke();
});

test("prototypes stay clean, and names from them are data", () => {
  const replica = new FakeReplica();
  edit<Loose>(replica, (d) => {
    assert.equal(typeof d["toString"], "function");
    assert.equal(d.constructor, Object);
    assert.ok(d.hasOwnProperty("a") === false && !Object.hasOwn(d, "toString"));
    d["constructor"] = { prototype: { polluted: 1 } };
    d["toString"] = "mine";
    d["hasOwnProperty"] = 5;
    assert.equal(d["toString"], "mine");
    delete d["toString"];
    assert.equal(typeof d["toString"], "function");
  }, TIME);
  assert.equal(({} as Loose)["polluted"], undefined);
  const tree = applyPatches(EMPTY, replica.patches());
  assert.deepEqual(Object.keys(tree).sort(), ["constructor", "hasOwnProperty"]);
  // What others sent is shown, and can be deleted.
  replica.put("_root", "__proto__", 1);
  edit<Loose>(replica, (d) => {
    assert.ok(Object.keys(d).includes("__proto__"));
    assert.equal(d["__proto__"], 1);
    delete d["__proto__"];
    assert.equal(d["__proto__"], Object.prototype);
  }, TIME);
});

test("the types say what can be read", () => {
  const value = { n: 1, list: [{ s: "x" }], c: new Counter(1) } satisfies Frozen<{
    n: number;
    list: { s: string }[];
    c: Counter;
  }>;
  const frozen: Frozen<{ s: ImmutableString; f: Float; d: Date; tuple: [number, string[]] }> = {
    s: "x",
    f: 1,
    d: new Date(),
    tuple: [1, ["a"]],
  };
  // @ts-expect-error frozen values can't be assigned to
  frozen.tuple[1][0] = "b";
  assert.equal(value.list[0]?.s, "x");
});

testAll("the empty key is a key", (made) => {
  const replica = made();
  edit<Loose>(replica, (d) => (d[""] = { "": [{ "": "x" }] }), TIME);
  const before = applyPatches(EMPTY, replica.patches());
  assert.deepEqual(plain(before), { "": { "": [{ "": "x" }] } });
  edit<Loose>(replica, (d) => {
    splice(d, ["", "", 0, ""], 1, 0, "y");
    assert.equal(d[""][""][0][""], "xy");
    delete d[""][""];
  }, TIME);
  assert.deepEqual(plain(applyPatches(before, replica.patches())), { "": {} });
});
