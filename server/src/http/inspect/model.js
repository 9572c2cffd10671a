// Documents as values: what is in them, where, and what a patch does to them. Pure; values are never changed, what a
// patch gives shares with the value before it all that it does not touch.
//
// Values are as `?types=tagged` has them: `{"$counter": 5}` is a counter. What a tag says is a leaf, but for `$map`,
// which is an object that looks like a tag.

const TAGS = { $counter: "counter", $timestamp: "timestamp", $bytes: "bytes", $string: "string", $number: "number" };

/** What a value is: `{kind, value}`, the value without its tag. */
export function read(json) {
  if (json === null) return { kind: "null", value: null };
  if (Array.isArray(json)) return { kind: "array", value: json };
  if (typeof json === "string") return { kind: "text", value: json };
  if (typeof json === "bigint") return { kind: "number", value: json };
  if (typeof json !== "object") return { kind: typeof json, value: json };
  const tag = soleKey(json);
  if (tag === "$map" && isObject(json.$map)) return { kind: "object", value: json.$map };
  if (tag !== null && Object.hasOwn(TAGS, tag) && !isObject(json[tag])) return { kind: TAGS[tag], value: json[tag] };
  return { kind: "object", value: json };
}

const isObject = (json) => typeof json === "object" && json !== null && !Array.isArray(json);

/** The key of an object that has just one. */
function soleKey(object) {
  let sole = null;
  for (const key in object) {
    if (sole !== null) return null;
    sole = key;
  }
  return sole;
}

/** How many values are in a value; `null` where none can be. */
export function sizeOf({ kind, value }) {
  if (kind === "array") return value.length;
  return kind === "object" ? Object.keys(value).length : null;
}

/** What is at a place; `undefined` where nothing is. */
export function at(root, steps) {
  let found = root;
  for (const step of steps) {
    const { kind, value } = read(found ?? null);
    const has = (kind === "object" || kind === "array") && Object.hasOwn(value, step);
    if (!has || (kind === "array" && step === "length")) return undefined;
    found = value[step];
  }
  return found;
}

/** The steps of a JSON Pointer. */
export function parsePointer(pointer) {
  if (pointer === "") return [];
  return pointer.slice(1).split("/").map((step) => step.replaceAll("~1", "/").replaceAll("~0", "~"));
}

/** The JSON Pointer of a place. */
export const pointerOf = (steps) => steps.map((step) => `/${String(step).replaceAll("~", "~0").replaceAll("/", "~1")}`).join("");

/**
 * Carries out a JSON Patch of `add`, `remove` and `replace`; throws on what does not fit. `done`, if given, is told of
 * each operation: `{op, steps, isInArray, before, after}`, steps as they are at that moment.
 */
export function patched(root, operations, done = () => {}) {
  // Containers that were made here, and may be changed in place.
  const own = new Set();
  const owned = (container) => {
    if (own.has(container)) return container;
    const copy = Array.isArray(container) ? container.slice() : { ...container };
    own.add(copy);
    return copy;
  };
  for (const { op, path, value } of operations) {
    const steps = parsePointer(path);
    if (!["add", "remove", "replace"].includes(op)) throw new Error(`the operation ${op} is unknown`);
    const last = steps.pop();
    if (last === undefined) {
      done({ op, steps: [], isInArray: false, before: root, after: value });
      root = op === "remove" ? null : value;
      continue;
    }
    if (typeof root !== "object" || root === null) throw new Error(`nothing is at ${path}`);
    root = owned(root);
    let container = root;
    const place = [];
    for (const step of steps) {
      const inner = Object.hasOwn(container, step) ? container[step] : undefined;
      if (typeof inner !== "object" || inner === null) throw new Error(`nothing is at ${path}`);
      place.push(Array.isArray(container) ? Number(step) : step);
      const copy = owned(inner);
      put(container, step, copy);
      container = copy;
    }
    const isInArray = Array.isArray(container);
    const step = isInArray ? (last === "-" ? container.length : Number(last)) : last;
    const isThere = isInArray ? step < container.length : Object.hasOwn(container, step);
    const fits = op === "add" ? !isInArray || (Number.isInteger(step) && step >= 0 && step <= container.length) : isThere;
    if (!fits) throw new Error(`${op} does not fit at ${path}`);
    const before = isThere && !(op === "add" && isInArray) ? container[step] : undefined;
    if (op === "remove") {
      if (isInArray) container.splice(step, 1);
      else delete container[step];
    } else if (op === "add" && isInArray) {
      container.splice(step, 0, value);
    } else {
      put(container, step, value);
    }
    done({ op, steps: [...place, step], isInArray, before, after: value });
  }
  return root;
}

/** Also under a key that means something else when it is assigned to. */
function put(container, key, value) {
  Object.defineProperty(container, key, { value, writable: true, enumerable: true, configurable: true });
}

/** Where two values differ: the innermost places of the later one, at most `most`. */
export function differences(before, after, most) {
  const found = [];
  const walk = (one, other, steps) => {
    if (one === other || found.length >= most) return;
    const [a, b] = [read(one ?? null), read(other ?? null)];
    if (one === undefined || a.kind !== b.kind || (a.kind !== "object" && a.kind !== "array")) {
      if (one === undefined || a.kind !== b.kind || a.value !== b.value) found.push(steps);
      return;
    }
    const [from, to] = a.kind === "array" ? aligned(a.value, b.value) : [a.value, b.value];
    const isLess = Object.keys(a.value).length > Object.keys(b.value).length;
    const count = found.length;
    for (const key of Object.keys(to)) {
      const was = from instanceof Map ? from.get(Number(key)) : Object.hasOwn(from, key) ? from[key] : undefined;
      walk(was, to[key], [...steps, a.kind === "array" ? Number(key) : key]);
      if (found.length >= most) return;
    }
    // Where something went only that from which it went can be pointed at.
    if (isLess && found.length === count) found.push(steps);
  };
  walk(before, after, []);
  return found;
}

/** Arrays from which or into which things were moved by removing and inserting: what was at the places of the later one. */
function aligned(before, after) {
  if (before.length === after.length) return [before, after];
  const same = (one, other) => one === other || JSON.stringify(one, big) === JSON.stringify(other, big);
  let start = 0;
  const most = Math.min(before.length, after.length);
  while (start < most && same(before[start], after[start])) start += 1;
  let end = 0;
  while (end < most - start && same(before[before.length - 1 - end], after[after.length - 1 - end])) end += 1;
  const was = new Map();
  for (let at = 0; at < after.length; at += 1) {
    if (at < start) was.set(at, before[at]);
    else if (at >= after.length - end) was.set(at, before[at - after.length + before.length]);
    else if (at < before.length - end) was.set(at, before[at]);
  }
  return [was, after];
}

const big = (_, value) => (typeof value === "bigint" ? `${value}n` : value);
