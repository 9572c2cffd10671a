/**
 * A replica in memory, for tests of what stands on top of one: one actor, no history, no peers. It is stricter
 * than it needs to be: whatever the contract of `WasmReplica` forbids throws.
 */

import { isDeepStrictEqual } from "node:util";

import type { Chunk, ObjectId, ObjectType, Prop, WasmPatch, WasmValue } from "../src/wasm.js";
import type { EditableReplica } from "../src/value/draft.js";

type Body =
  | { type: "map"; entries: Map<string, WasmValue> }
  | { type: "list"; items: WasmValue[] }
  | { type: "text"; text: string };
type Parent = { object: ObjectId } | undefined;
interface State {
  bodies: Map<ObjectId, { body: Body; parent: Parent; order: number }>;
  events: Event[];
}
type Step = WasmPatch extends infer P ? (P extends unknown ? Omit<P, "path" | "object"> : never) : never;
interface Event {
  object: ObjectId;
  prop: Prop | undefined;
  step: Step;
  /** The object's path when it happened. */
  then: Prop[] | undefined;
}

/** What was called to edit. */
export interface Call {
  method: string;
  object: ObjectId;
  prop: Prop;
}

export class FakeReplica implements EditableReplica {
  /** Edits since the start, also those rolled back and those that changed nothing. */
  readonly calls: Call[] = [];
  #state: State;
  #saved: State | undefined;
  #made = 0;
  #edits = 0;

  constructor() {
    const root = { body: { type: "map", entries: new Map() } as Body, parent: undefined, order: 0 };
    this.#state = { bodies: new Map([["_root", root]]), events: [] };
  }

  get(object: ObjectId, prop: Prop): WasmValue | undefined {
    const body = this.#body(object);
    let value: WasmValue | undefined;
    if (body.type === "map") value = body.entries.get(prop as string);
    else if (body.type === "list") value = body.items[prop as number];
    if (value instanceof Date) return new Date(value);
    return value instanceof Uint8Array ? value.slice() : read(value);
  }

  keys(object: ObjectId): string[] {
    return [...this.#map(object).keys()].sort();
  }

  length(object: ObjectId): number {
    const body = this.#body(object);
    return body.type === "map" ? body.entries.size : body.type === "list" ? body.items.length : body.text.length;
  }

  text(object: ObjectId): string {
    const body = this.#body(object);
    if (body.type !== "text") throw new Error(`fake: ${object} is a ${body.type}`);
    return body.text;
  }

  splitsPair(object: ObjectId, index: number): boolean {
    const text = this.text(object);
    return /^[\ud800-\udbff][\udc00-\udfff]/.test(text.slice(Math.max(0, index - 1), index + 1)) && index > 0;
  }

  put(object: ObjectId, prop: Prop, value: WasmValue): void {
    if (this.#isThere(object, prop, value)) {
      this.calls.push({ method: "put", object, prop });
      return;
    }
    this.#edit("put", object, prop);
    if (isObject(value)) throw new Error("fake: put of an object");
    const isWhole = typeof value === "number" && Number.isInteger(value);
    if (isWhole && !Number.isSafeInteger(value)) throw new Error("fake: an integer beyond 2^53");
    this.#put(object, prop, value);
  }

  insert(list: ObjectId, index: number, value: WasmValue): void {
    this.#edit("insert", list, index);
    if (isObject(value)) throw new Error("fake: insert of an object");
    this.#insert(list, index, value);
  }

  putObject(object: ObjectId, prop: Prop, type: ObjectType): ObjectId {
    this.#edit("putObject", object, prop);
    const made = this.#make(object, type);
    this.#put(object, prop, { object: made, type });
    return made;
  }

  insertObject(list: ObjectId, index: number, type: ObjectType): ObjectId {
    this.#edit("insertObject", list, index);
    const made = this.#make(list, type);
    this.#insert(list, index, { object: made, type });
    return made;
  }

  remove(object: ObjectId, prop: Prop): void {
    this.#edit("remove", object, prop);
    const body = this.#body(object);
    if (body.type === "map") {
      if (!body.entries.delete(prop as string)) throw new Error(`fake: no key ${prop}`);
    } else if (body.type === "list") {
      this.#items(object, prop as number, 1).splice(prop as number, 1);
    } else throw new Error("fake: remove from a text");
    this.#log(object, prop, { action: "del", length: 1 });
  }

  increment(object: ObjectId, prop: Prop, by: number): void {
    this.#edit("increment", object, prop);
    const value = this.get(object, prop);
    if (value === null || typeof value !== "object" || !("counter" in value)) throw new Error("fake: no counter");
    const next = { counter: value.counter + by };
    const body = this.#body(object);
    if (body.type === "map") body.entries.set(prop as string, next);
    else if (body.type === "list") body.items[prop as number] = next;
    this.#log(object, prop, { action: "inc", by });
  }

  spliceText(text: ObjectId, index: number, remove: number, insert: string): void {
    this.#edit("spliceText", text, index);
    const before = this.text(text);
    if (index < 0 || remove < 0 || index + remove > before.length) throw new Error("fake: splice out of range");
    const after = before.slice(0, index) + insert + before.slice(index + remove);
    const rest = before.slice(0, index) + before.slice(index + remove);
    if (/\p{Surrogate}/u.test(rest)) throw new Error("fake: half a surrogate pair");
    this.#rewrite(text, after, index, remove, insert);
  }

  updateText(text: ObjectId, value: string): void {
    this.#edit("updateText", text, 0);
    const before = this.text(text);
    let head = 0;
    while (head < Math.min(before.length, value.length) && before[head] === value[head]) head += 1;
    let tail = 0;
    const most = Math.min(before.length, value.length) - head;
    while (tail < most && before.at(-1 - tail) === value.at(-1 - tail)) tail += 1;
    this.#rewrite(text, value, head, before.length - head - tail, value.slice(head, value.length - tail));
  }

  commit(_message: string | undefined, _time: number): Chunk | undefined {
    const edited = this.#saved !== undefined;
    this.#saved = undefined;
    return edited ? { hash: String(this.#edits), bytes: new Uint8Array() } : undefined;
  }

  rollback(): void {
    if (this.#saved !== undefined) this.#state = this.#saved;
    this.#saved = undefined;
  }

  /**
   * As Automerge makes them: parents before children, paths as they are in the end, the invisible left out.
   * `asTheyHappened`: in the order of the edits, with the paths of that moment; as good for whoever applies them.
   */
  patches(asTheyHappened = false): WasmPatch[] {
    if (this.#saved !== undefined) throw new Error("fake: a transaction is open");
    const order = (event: Event): number => this.#state.bodies.get(event.object)?.order ?? 0;
    const events = this.#state.events.splice(0);
    if (!asTheyHappened) events.sort((a, b) => order(a) - order(b));
    return events.flatMap(({ object, prop, step, then }) => {
      const path = asTheyHappened ? then : this.#path(object);
      if (path === undefined) return [];
      return [{ ...step, object, path: prop === undefined ? path : [...path, prop] } as WasmPatch];
    });
  }

  #path(object: ObjectId): Prop[] | undefined {
    const parent = this.#state.bodies.get(object)?.parent;
    if (parent === undefined) return [];
    const above = this.#path(parent.object);
    const body = this.#body(parent.object);
    if (above === undefined || body.type === "text") return undefined;
    const places: Iterable<[Prop, WasmValue]> = body.type === "map" ? body.entries : body.items.entries();
    for (const [prop, value] of places) if (isObject(value) && value.object === object) return [...above, prop];
    return undefined;
  }

  /** Automerge leaves out what would change nothing; kinds of number are told apart for that. */
  #isThere(object: ObjectId, prop: Prop, value: WasmValue): boolean {
    const body = this.#body(object);
    const there = body.type === "map" ? body.entries.get(String(prop)) : body.type === "list" && body.items[prop as number];
    return isDeepStrictEqual(there, value);
  }

  #edit(method: string, object: ObjectId, prop: Prop): void {
    this.calls.push({ method, object, prop });
    this.#saved ??= structuredClone(this.#state);
    this.#edits += 1;
  }

  #log(object: ObjectId, prop: Prop | undefined, step: Step): void {
    this.#state.events.push({ object, prop, step, then: this.#path(object) });
  }

  #make(object: ObjectId, type: ObjectType): ObjectId {
    this.#made += 1;
    const bodies = { map: { entries: new Map() }, list: { items: [] }, text: { text: "" } };
    const body = { type, ...bodies[type] } as Body;
    const id = `${this.#made}@fake`;
    this.#state.bodies.set(id, { body, parent: { object }, order: this.#made });
    return id;
  }

  #put(object: ObjectId, prop: Prop, value: WasmValue): void {
    const body = this.#body(object);
    if (body.type === "map") this.#map(object).set(String(prop), value);
    else this.#items(object, prop as number, 1)[prop as number] = value;
    if (typeof prop !== (body.type === "map" ? "string" : "number")) throw new Error("fake: wrong kind of prop");
    this.#log(object, prop, { action: "put", value: read(value), conflict: false });
  }

  #insert(list: ObjectId, index: number, value: WasmValue): void {
    this.#items(list, index, 0).splice(index, 0, value);
    this.#log(list, index, { action: "insert", values: [read(value)] });
  }

  #rewrite(id: ObjectId, text: string, index: number, remove: number, insert: string): void {
    const body = this.#body(id);
    if (body.type === "text") body.text = text;
    if (remove > 0) this.#log(id, index, { action: "del", length: remove });
    if (insert !== "") this.#log(id, index, { action: "splice", text: insert });
  }

  #body(object: ObjectId): Body {
    const found = this.#state.bodies.get(object);
    if (found === undefined) throw new Error(`fake: no object ${object}`);
    return found.body;
  }

  #map(object: ObjectId): Map<string, WasmValue> {
    const body = this.#body(object);
    if (body.type !== "map") throw new Error(`fake: ${object} is a ${body.type}`);
    return body.entries;
  }

  #items(object: ObjectId, index: number, count: number): WasmValue[] {
    const body = this.#body(object);
    if (body.type !== "list") throw new Error(`fake: ${object} is a ${body.type}`);
    const fits = Number.isInteger(index) && index >= 0 && index + count <= body.items.length;
    if (!fits) throw new Error(`fake: index ${index}`);
    return body.items;
  }
}

/** Kinds of number are not told apart by whoever reads. */
function read<V extends WasmValue | undefined>(value: V): V | number {
  return typeof value === "object" && value !== null && "float" in value ? value.float : value;
}

function isObject(value: WasmValue | undefined): value is Extract<WasmValue, { object: ObjectId }> {
  return typeof value === "object" && value !== null && "object" in value;
}
