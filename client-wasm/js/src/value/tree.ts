/**
 * A document as a plain JavaScript value, brought from one version to the next by patches.
 *
 * Always: a value is frozen to the bottom and never changed; what no patch touched keeps its identity (`===`);
 * however many patches a batch has, a container on the way to them is copied once. A batch that does not fit
 * throws and leaves the value it was given as it was.
 *
 * A text holds letters only here. What rich text embeds among them reads as U+FFFC, and patches that lead into
 * it change nothing.
 */

import type { Prop, WasmPatch, WasmValue } from "../wasm.js";
import { PatchError, type PatchErrorCode } from "./errors.js";
import { TextBuilder } from "./text.js";
import { Counter, type Patch, type Value } from "./types.js";

/** The value of a document in which nothing was written. */
export const EMPTY: Root = Object.freeze({});

/** A whole document, frozen. */
export type Root = { readonly [key: string]: Value };

/** What embedded objects read as in a text. */
const EMBEDDED = "\ufffc";

/** What patches led to; no value when they have no meaning for plain values, as old libraries could write them. */
export interface Shown {
  readonly patches: readonly WasmPatch[];
  readonly value: Root | undefined;
}

/** The value after the patches; nothing when they do not fit. */
export function applied(value: Root, patches: readonly WasmPatch[]): Root | undefined {
  try {
    return applyPatches(value, patches);
  } catch (error) {
    if (!(error instanceof PatchError)) {
      throw error;
    }
    return undefined;
  }
}

/** The value after the patches. */
export function applyPatches(value: Root, patches: readonly WasmPatch[]): Root {
  const batch = new Batch(value);
  patches.forEach((patch, index) => batch.apply(patch, index));
  return batch.finish();
}

/** A patch as applications see it. */
export function publicPatch(patch: WasmPatch): Patch {
  const { action, path } = patch;
  switch (action) {
    case "put":
      return { action, path, value: fromWasm(patch.value), conflict: patch.conflict };
    case "insert":
      return { action, path, values: patch.values.map(fromWasm) };
    case "splice":
      return { action, path, value: patch.text };
    case "del":
      return { action, path, length: patch.length };
    case "inc":
      return { action, path, value: patch.by };
    case "conflict":
    case "mark":
      return { action, path };
  }
}

/** A value of the wasm module as applications see it; objects are empty. */
export function fromWasm(value: WasmValue): Value {
  if (value === null || typeof value !== "object" || value instanceof Date || value instanceof Uint8Array) {
    return value;
  }
  if ("string" in value) return value.string;
  if ("counter" in value) return new Counter(value.counter);
  if ("float" in value) return value.float;
  return value.type === "text" ? "" : Object.freeze(value.type === "list" ? [] : {});
}

/** Sets an own property, whatever its name: `__proto__` and the like are data. */
export function setOwn<T>(map: { [key: string]: T }, key: string, value: T): void {
  if (key in map && !Object.hasOwn(map, key)) {
    Object.defineProperty(map, key, { value, writable: true, enumerable: true, configurable: true });
  } else {
    map[key] = value;
  }
}

type Slot = Value | TextBuilder;
type MapBuilder = { [key: string]: Slot };
type ListBuilder = Slot[];
type Container = MapBuilder | ListBuilder;

/** The containers that were copied or made for one batch may be written to, until its end. */
class Batch {
  #root: Slot;
  /** In no order that matters: all are frozen at the end. */
  readonly #owned = new Set<Container>();
  #texts = 0;

  constructor(root: Root) {
    this.#root = root;
  }

  apply(patch: WasmPatch, index: number): void {
    if (patch.action === "conflict" || patch.action === "mark") return;
    const fail = (code: PatchErrorCode): never => {
      throw new PatchError(code, patch.action, patch.path, index);
    };
    const last = patch.path.at(-1);
    if (last === undefined) return fail("nowhere");
    const parents = patch.path.slice(0, -1);
    // Looks before it copies, so that patches that change nothing leave everything its identity.
    const there = this.#look(parents, fail);
    if (there === undefined) return;
    if (typeof there === "string" || there instanceof TextBuilder) {
      const at = typeof last === "number" ? last : fail("prop");
      editText(() => this.#text(parents, fail), there.length, at, patch, fail);
      return;
    }
    if (Array.isArray(there)) {
      const at = typeof last === "number" ? last : fail("prop");
      this.#editList(there, () => this.#own(parents, fail) as ListBuilder, at, patch, fail);
      return;
    }
    if (!isMap(there)) return fail("nowhere");
    const key = typeof last === "string" ? last : fail("prop");
    this.#editMap(there, () => this.#own(parents, fail) as MapBuilder, key, patch, fail);
  }

  finish(): Root {
    for (const container of this.#owned) {
      if (this.#texts > 0) {
        const slots = container as { [key: string]: Slot };
        for (const key of Object.keys(slots)) {
          const slot = slots[key];
          if (slot instanceof TextBuilder) slots[key] = slot.toString();
        }
      }
      Object.freeze(container);
    }
    return this.#root as Root;
  }

  #editMap(there: Container, own: () => MapBuilder, key: string, patch: WasmPatch, fail: Fail): void {
    const known = Object.hasOwn(there, key);
    const slot = known ? (there as MapBuilder)[key] : undefined;
    switch (patch.action) {
      case "put":
        if (!known || !isSame(slot, patch.value)) setOwn(own(), key, this.#make(patch.value));
        return;
      case "del":
        if (!known) return fail("range");
        delete own()[key];
        return;
      case "inc":
        if (!(slot instanceof Counter)) return fail("kind");
        if (patch.by !== 0) setOwn(own(), key, new Counter(slot.value + patch.by));
        return;
      default:
        return fail("kind");
    }
  }

  #editList(there: ListBuilder, own: () => ListBuilder, at: number, patch: WasmPatch, fail: Fail): void {
    const slot = there[at];
    const end = patch.action === "insert" ? there.length : there.length - 1;
    if (!Number.isSafeInteger(at) || at < 0 || at > end) return fail("range");
    switch (patch.action) {
      case "put":
        if (!isSame(slot, patch.value)) own()[at] = this.#make(patch.value);
        return;
      case "insert":
        if (patch.values.length > 0) insertAll(own(), at, patch.values.map((value) => this.#make(value)));
        return;
      case "del":
        if (!isLength(patch.length) || at + patch.length > there.length) return fail("range");
        own().splice(at, patch.length);
        return;
      case "inc":
        if (!(slot instanceof Counter)) return fail("kind");
        if (patch.by !== 0) own()[at] = new Counter(slot.value + patch.by);
        return;
      default:
        return fail("kind");
    }
  }

  /** What a path leads to; nothing when it leads into what a text embeds. */
  #look(path: readonly Prop[], fail: Fail): Slot | undefined {
    let slot = this.#root;
    for (const prop of path) {
      if (typeof slot === "string" || slot instanceof TextBuilder) {
        if (typeof prop !== "number") return fail("prop");
        const unit = slot instanceof TextBuilder ? slot.unitAt(prop) : slot.charCodeAt(prop);
        return unit === EMBEDDED.charCodeAt(0) ? undefined : fail("nowhere");
      }
      slot = child(slot, prop, fail);
    }
    return slot;
  }

  /** The container at a path, as one that may be written to. */
  #own(path: readonly Prop[], fail: Fail): Container {
    let container = this.#copy(this.#root as Container);
    this.#root = container as Slot;
    for (const prop of path) {
      const copy = this.#copy(child(container as Slot, prop, fail) as Container);
      put(container, prop, copy as Slot);
      container = copy;
    }
    return container;
  }

  /** The text at a path, as one that may be written to. */
  #text(path: readonly Prop[], fail: Fail): TextBuilder {
    const prop = path.at(-1);
    if (prop === undefined) return fail("nowhere");
    const parent = this.#own(path.slice(0, -1), fail);
    const slot = child(parent as Slot, prop, fail);
    if (slot instanceof TextBuilder) return slot;
    const text = new TextBuilder(slot as string);
    put(parent, prop, text);
    this.#texts += 1;
    return text;
  }

  #copy(container: Container): Container {
    if (this.#owned.has(container)) return container;
    const copy: Container = Array.isArray(container) ? container.slice() : { ...container };
    this.#owned.add(copy);
    return copy;
  }

  /** A new value; if it is an object, later patches may fill it. */
  #make(value: WasmValue): Slot {
    if (value !== null && typeof value === "object" && "object" in value && value.type !== "text") {
      const made: Container = value.type === "list" ? [] : {};
      this.#owned.add(made);
      return made as Slot;
    }
    return fromWasm(value);
  }
}

type Fail = (code: PatchErrorCode) => never;

function child(slot: Slot, prop: Prop, fail: Fail): Slot {
  if (Array.isArray(slot)) {
    if (typeof prop !== "number") return fail("prop");
    const element = (slot as ListBuilder)[prop];
    return element === undefined ? fail("nowhere") : element;
  }
  if (!isMap(slot)) return fail("nowhere");
  if (typeof prop !== "string") return fail("prop");
  const value = Object.hasOwn(slot, prop) ? slot[prop] : undefined;
  return value === undefined ? fail("nowhere") : value;
}

function put(container: Container, prop: Prop, slot: Slot): void {
  if (Array.isArray(container)) container[prop as number] = slot;
  else setOwn(container, prop as string, slot);
}

/** How many arguments a call may have without filling the stack. */
const MAX_ARGUMENTS = 1000;

function insertAll(list: ListBuilder, at: number, values: readonly Slot[]): void {
  if (values.length <= MAX_ARGUMENTS) {
    list.splice(at, 0, ...values);
    return;
  }
  const tail = list.splice(at);
  for (const value of values) list.push(value);
  for (const value of tail) list.push(value);
}

function editText(own: () => TextBuilder, length: number, at: number, patch: WasmPatch, fail: Fail): void {
  if (!Number.isSafeInteger(at) || at < 0 || at > length) return fail("range");
  switch (patch.action) {
    case "splice":
      if (patch.text !== "") own().splice(at, 0, patch.text);
      return;
    case "insert":
      if (patch.values.length > 0) own().splice(at, 0, patch.values.map(letters).join(""));
      return;
    case "del":
      if (!isLength(patch.length) || at + patch.length > length) return fail("range");
      own().splice(at, patch.length, "");
      return;
    default:
      return fail("kind");
  }
}

function letters(value: WasmValue): string {
  return value !== null && typeof value === "object" && "string" in value ? value.string : EMBEDDED;
}

function isLength(length: number): boolean {
  return Number.isSafeInteger(length) && length > 0;
}

function isMap(slot: Slot | undefined): slot is MapBuilder & Slot {
  return (
    typeof slot === "object" &&
    slot !== null &&
    !(slot instanceof Counter || slot instanceof Date || slot instanceof Uint8Array || slot instanceof TextBuilder)
  );
}

/** Whether a put of this changes nothing that can be seen. */
function isSame(slot: Slot | undefined, value: WasmValue): boolean {
  if (value === null || typeof value !== "object") return Object.is(slot, value);
  if ("string" in value) return slot === value.string;
  return "float" in value && Object.is(slot, value.float);
}
