/**
 * Values on their way into a document: looked at in full before the first of them is written, so that a value
 * which is refused leaves nothing behind.
 */

import type { ObjectId, Prop, WasmReplica, WasmValue } from "../wasm.js";
import { MAX_DEPTH, MAX_LENGTH, ValueError } from "./errors.js";
import { Counter, Float, ImmutableString } from "./types.js";

/** A value that can be written. */
export type Prepared =
  | { readonly kind: "scalar"; readonly value: WasmScalar }
  | { readonly kind: "text"; readonly text: string }
  | { readonly kind: "map"; readonly entries: readonly (readonly [string, Prepared])[] }
  | { readonly kind: "list"; readonly items: readonly Prepared[] };

/** A value that is no object of the document. */
export type WasmScalar = Exclude<WasmValue, { readonly object: ObjectId }>;

/** Where a value goes. */
export interface Place {
  readonly object: ObjectId;
  readonly prop: Prop;
  /** Before the element that is there, rather than in place of it. */
  readonly insert: boolean;
}

/** Halves of surrogate pairs that stand alone. */
const LONE_SURROGATE = /\p{Surrogate}/u;

/** A path from the root, for whoever reads an error: found out only then. */
export type Where = () => readonly Prop[];

/**
 * Looks at a value that will be at `place`, `depth` objects below the root. `isDraft` tells objects that are in
 * a document already.
 */
export function prepare(value: unknown, place: Where, depth: number, isDraft: IsDraft): Prepared {
  const path: Prop[] = [];
  return visit(value, { path, where: () => [...place(), ...path], depth, open: new Set(), isDraft });
}

type IsDraft = (value: object) => boolean;

/** Writes what was prepared. */
export function write(replica: Pick<WasmReplica, WriteMethod>, place: Place, value: Prepared): void {
  const { object, prop } = place;
  if (value.kind === "scalar") {
    if (place.insert) replica.insert(object, prop as number, value.value);
    else replica.put(object, prop, value.value);
    return;
  }
  const made = place.insert
    ? replica.insertObject(object, prop as number, value.kind)
    : replica.putObject(object, prop, value.kind);
  if (value.kind === "text") {
    if (value.text !== "") replica.spliceText(made, 0, 0, value.text);
  } else if (value.kind === "map") {
    for (const [key, entry] of value.entries) write(replica, { object: made, prop: key, insert: false }, entry);
  } else {
    value.items.forEach((item, index) => write(replica, { object: made, prop: index, insert: true }, item));
  }
}

/** What {@link write} needs of a replica. */
export type WriteMethod = "put" | "insert" | "putObject" | "insertObject" | "spliceText";

/** Refuses a key that no document may have. */
export function checkKey(key: string, where: Where): void {
  if (key === "__proto__") throw new ValueError("key", where(), "__proto__ can't be a key");
  checkString(key, where);
}

/** Refuses a string that UTF-8 has no bytes for, or that is too long. */
export function checkString(text: string, where: Where): void {
  if (text.length > MAX_LENGTH) throw new ValueError("length", where(), `${text.length} code units in a string; ${MAX_LENGTH} are the most`);
  if (LONE_SURROGATE.test(text)) throw new ValueError("surrogate", where(), "half a surrogate pair in a string");
}

/** Refuses what a counter can't count. */
export function checkCount(count: number, where: Where): void {
  if (Number.isSafeInteger(count)) return;
  throw new ValueError("counter", where(), `counters hold safe integers, not ${count}`);
}

interface Visit {
  /** From the value as a whole to the part being looked at. */
  readonly path: Prop[];
  readonly where: Where;
  /** Of the value as a whole. */
  readonly depth: number;
  /** The objects on the way to it, against cycles. */
  readonly open: Set<object>;
  readonly isDraft: IsDraft;
}

function visit(value: unknown, at: Visit): Prepared {
  switch (typeof value) {
    case "boolean":
      return { kind: "scalar", value };
    case "number":
      return { kind: "scalar", value: number(value) };
    case "string":
      checkString(value, at.where);
      return { kind: "text", text: value };
    case "object":
      return value === null ? { kind: "scalar", value } : visitObject(value, at);
    case "undefined":
      throw new ValueError("undefined", at.where(), "undefined can't be stored; delete the key, or use null");
    default: {
      const kind = typeof value as "function" | "symbol" | "bigint";
      throw new ValueError(kind, at.where(), `a ${kind} can't be stored`);
    }
  }
}

function visitObject(value: object, at: Visit): Prepared {
  if (at.isDraft(value)) {
    throw new ValueError("reference", at.where(), "Cannot create a reference to an existing document object");
  }
  const scalar = scalarObject(value, at.where);
  if (scalar !== undefined) return { kind: "scalar", value: scalar };
  if (at.open.has(value)) throw new ValueError("cycle", at.where(), "the value contains itself");
  if (at.depth + at.path.length > MAX_DEPTH) {
    throw new ValueError("depth", at.where().slice(0, 8), `more than ${MAX_DEPTH} objects in each other`);
  }
  at.open.add(value);
  const prepared = Array.isArray(value) ? visitList(value, at) : visitMap(value, at);
  at.open.delete(value);
  return prepared;
}

function visitList(list: readonly unknown[], at: Visit): Prepared {
  const items: Prepared[] = [];
  for (let index = 0; index < list.length; index += 1) {
    at.path.push(index);
    items.push(visit(list[index], at));
    at.path.pop();
  }
  return { kind: "list", items };
}

function visitMap(map: object, at: Visit): Prepared {
  // Prototypes of other realms (frames, test runners) are not ours, but have none themselves.
  const prototype: unknown = Object.getPrototypeOf(map);
  if (prototype !== null && Object.getPrototypeOf(prototype) !== null) {
    const name = (map.constructor as { name?: unknown } | undefined)?.name;
    throw new ValueError("class", at.where(), `an instance of ${String(name ?? "a class")} can't be stored`);
  }
  const entries: [string, Prepared][] = [];
  for (const key of Reflect.ownKeys(map)) {
    if (!Object.prototype.propertyIsEnumerable.call(map, key)) continue;
    if (typeof key === "symbol") throw new ValueError("symbol", at.where(), "keys are strings");
    at.path.push(key);
    checkKey(key, at.where);
    entries.push([key, visit((map as { [key: string]: unknown })[key], at)]);
    at.path.pop();
  }
  return { kind: "map", entries };
}

/** An object that is a scalar in a document. */
function scalarObject(value: object, where: Where): WasmScalar | undefined {
  if (value instanceof Counter) {
    checkCount(value.value, where);
    return { counter: value.value };
  }
  if (value instanceof Float) return Number.isInteger(value.value) ? { float: value.value } : number(value.value);
  if (value instanceof ImmutableString) {
    checkString(value.val, where);
    return { string: value.val };
  }
  const tag = Object.prototype.toString.call(value);
  if (tag === "[object Date]") {
    const time = (value as Date).getTime();
    if (Number.isNaN(time)) throw new ValueError("date", where(), "the date is invalid");
    return new Date(time);
  }
  if (ArrayBuffer.isView(value) && tag === "[object Uint8Array]") return new Uint8Array(value as Uint8Array);
  return undefined;
}

/** Beyond 2^53 numbers are no integers any more, and integers have no -0. */
function number(value: number): WasmScalar {
  const whole = Number.isInteger(value) || !Number.isFinite(value);
  return whole && (!Number.isSafeInteger(value) || Object.is(value, -0)) ? { float: value } : value;
}

/** Whether writing this over what is there would change nothing that can be read. */
export function isSameScalar(there: WasmValue, value: WasmScalar): boolean {
  const a = bare(there);
  const b = bare(value);
  if (a === null || b === null || typeof a !== "object" || typeof b !== "object") {
    // A number over a float that it equals leaves the float.
    return Object.is(isFloat(a) ? a.float : a, b);
  }
  if (a instanceof Date) return b instanceof Date && a.getTime() === b.getTime();
  if (a instanceof Uint8Array) return b instanceof Uint8Array && isSameBytes(a, b);
  if (b instanceof Date || b instanceof Uint8Array) return false;
  if ("float" in b) return isFloat(a) && a.float === b.float;
  if ("counter" in b) return "counter" in a && a.counter === b.counter;
  return "string" in a && "string" in b && a.string === b.string;
}

/** Floats that no integer looks like need not say so. */
function bare(value: WasmValue): WasmValue {
  if (!isFloat(value)) return value;
  return Number.isSafeInteger(value.float) && !Object.is(value.float, -0) ? value : value.float;
}

function isFloat(value: WasmValue): value is { readonly float: number } {
  return value !== null && typeof value === "object" && "float" in value;
}

function isSameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, index) => byte === b[index]);
}
