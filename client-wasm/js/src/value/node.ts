/**
 * What stands behind the drafts of one change: a node for each object that was looked at. All reads and writes
 * go through to the replica's open transaction; nodes only remember who they are, so that a draft keeps its
 * identity and says so when its object is gone.
 */

import type { ObjectId, ObjectType, Prop, WasmReplica, WasmValue } from "../wasm.js";
import { ValueError } from "./errors.js";
import { checkCount, checkKey, isSameScalar, prepare, write, type Prepared, type WriteMethod } from "./prepare.js";
import { TextBuilder } from "./text.js";
import { fromWasm, setOwn } from "./tree.js";
import { Counter, type Value } from "./types.js";

/** What drafts need of a replica. */
export type DraftReplica = Pick<
  WasmReplica,
  WriteMethod | "get" | "keys" | "length" | "text" | "splitsPair" | "remove" | "increment" | "updateText"
>;

/** Draft to node, for as long as anybody holds the draft: also of changes that are over. */
const nodes = new WeakMap<object, Node>();

/** The node behind a draft, if it is one. */
export function nodeOf(draft: object): Node | undefined {
  return nodes.get(draft);
}

/** One change's drafts. */
export class Drafts {
  readonly #known = new Map<ObjectId, Node>();
  readonly #proxyFor: (node: Node) => object;
  #replica: DraftReplica | undefined;
  readonly root: Node;

  constructor(replica: DraftReplica, proxyFor: (node: Node) => object) {
    this.#replica = replica;
    this.#proxyFor = proxyFor;
    this.root = this.node("_root", "map", undefined, "");
  }

  /** Throws once the change is over. */
  get replica(): DraftReplica {
    if (this.#replica === undefined) {
      throw new ValueError("closed", [], "this draft's change is over; drafts are for its callback only");
    }
    return this.#replica;
  }

  close(): void {
    this.#replica = undefined;
    this.#known.clear();
  }

  node(id: ObjectId, type: ObjectType, parent: Node | undefined, prop: Prop): Node {
    const known = this.#known.get(id);
    if (known !== undefined) return known;
    const node = new Node(this, id, type, parent, prop);
    if (type !== "text") {
      node.draft = this.#proxyFor(node);
      nodes.set(node.draft, node);
    }
    this.#known.set(id, node);
    return node;
  }

  /** Whoever holds a draft of this object, or of one inside it, is told when they use it. */
  forget(value: WasmValue | undefined): void {
    if (!isObject(value)) return;
    const node = this.#known.get(value.object);
    if (node !== undefined) node.deleted = true;
  }
}

/** An object of the document, for one change. */
export class Node {
  /** What the callback sees of it; a text has none. */
  draft: object | undefined;
  deleted = false;
  readonly depth: number;
  #text: TextBuilder | undefined;
  readonly #counters = new Map<Prop, CounterDraft>();

  constructor(
    readonly drafts: Drafts,
    readonly id: ObjectId,
    readonly type: ObjectType,
    readonly parent: Node | undefined,
    /** Where it was when first looked at; in a list it may have moved. */
    readonly prop: Prop,
  ) {
    this.depth = parent === undefined ? 0 : parent.depth + 1;
  }

  /** The replica, if this object can still be used. An object never changes its parent. */
  get replica(): DraftReplica {
    const { replica } = this.drafts;
    for (let node: Node | undefined = this; node !== undefined; node = node.parent) {
      if (node.deleted) throw new ValueError("deleted", this.path(), "this object was deleted or replaced");
    }
    return replica;
  }

  /** Where it is now; where it was, if it is gone. */
  path(...more: readonly Prop[]): readonly Prop[] {
    return this.parent === undefined ? more : this.parent.path(this.#place(this.parent), ...more);
  }

  /** What the callback sees at a key or index. */
  read(prop: Prop): unknown {
    const value = this.replica.get(this.id, prop);
    if (value === undefined) return undefined;
    if (isObject(value)) {
      const node = this.drafts.node(value.object, value.type, this, prop);
      return node.draft ?? node.text();
    }
    if (value !== null && typeof value === "object" && "counter" in value) return this.#counter(prop);
    return fromWasm(value);
  }

  /** The object at a key or index, a text too. */
  child(prop: Prop): Node | undefined {
    if (typeof prop !== (this.type === "map" ? "string" : "number")) return undefined;
    const value = this.type === "text" ? undefined : this.replica.get(this.id, prop);
    return isObject(value) ? this.drafts.node(value.object, value.type, this, prop) : undefined;
  }

  /** Puts a value at a key or over an element. */
  assign(prop: Prop, value: unknown): void {
    const { replica } = this;
    const there = replica.get(this.id, prop);
    // `draft.a = draft.a`, as `Object.assign` and the like do, asks for nothing.
    if (isObject(there) && typeof value === "object" && value !== null) {
      const node = nodes.get(value);
      if (node !== undefined && node.drafts === this.drafts && node.id === there.object) return;
    }
    if (typeof prop === "string") checkKey(prop, () => this.path(prop));
    const prepared = this.prepare(prop, value);
    if (there !== undefined && this.#isSame(prop, there, prepared)) return;
    write(replica, { object: this.id, prop, insert: false }, prepared);
    this.drafts.forget(there);
    this.#moved(prop);
  }

  /** Looks at values that will be at an index and after it. */
  prepareAll(index: number, values: readonly unknown[]): Prepared[] {
    return values.map((value, offset) => this.prepare(index + offset, value));
  }

  prepare(prop: Prop, value: unknown): Prepared {
    return prepare(value, () => this.path(prop), this.depth + 1, (object) => nodes.has(object));
  }

  /** Inserts into a list. */
  insert(index: number, values: readonly Prepared[]): void {
    const { replica } = this;
    if (values.length > 0) this.#moved();
    values.forEach((value, offset) => {
      write(replica, { object: this.id, prop: index + offset, insert: true }, value);
    });
  }

  /** Removes a key, or an element of a list. */
  remove(prop: Prop): void {
    const { replica } = this;
    const there = replica.get(this.id, prop);
    replica.remove(this.id, prop);
    this.drafts.forget(there);
    this.#moved(this.type === "list" ? undefined : prop);
  }

  /** A copy of what is there, of which nothing is in the document. */
  copy(prop: Prop): unknown {
    const { replica } = this;
    const value = replica.get(this.id, prop);
    return value === undefined ? undefined : copy(replica, value);
  }

  /** A text as a string. Costs a pass over the text the first time. */
  text(): string {
    const { replica } = this;
    this.#text ??= new TextBuilder(replica.text(this.id));
    return this.#text.toString();
  }

  /** Code units of a text, keys or elements. */
  get length(): number {
    return this.#text?.length ?? this.replica.length(this.id);
  }

  /** Whether a position in a text is between the halves of a surrogate pair. */
  splitsPair(index: number): boolean {
    return this.#text?.splitsPair(index) ?? this.replica.splitsPair(this.id, index);
  }

  /** Edits a text, without reading it. */
  spliceText(index: number, remove: number, insert: string): void {
    this.replica.spliceText(this.id, index, remove, insert);
    this.#text?.splice(index, remove, insert);
  }

  /** The text is no longer what it was when looked into. */
  rewritten(): void {
    this.#text = undefined;
  }

  #counter(prop: Prop): CounterDraft {
    let counter = this.#counters.get(prop);
    if (counter === undefined) {
      counter = new CounterDraft(this, prop);
      this.#counters.set(prop, counter);
    }
    return counter;
  }

  /** Counters that were handed out are bound to their place: one, or all of a list. */
  #moved(prop?: Prop): void {
    for (const [place, counter] of this.#counters) {
      if (prop !== undefined && place !== prop) continue;
      counter.stale = true;
      this.#counters.delete(place);
    }
  }

  #isSame(prop: Prop, there: WasmValue, value: Prepared): boolean {
    if (value.kind === "scalar") return !isObject(there) && isSameScalar(there, value.value);
    if (value.kind !== "text") return false;
    if (isObject(there)) return there.type === "text" && this.read(prop) === value.text;
    return isSameScalar(there, { string: value.text });
  }

  #place(parent: Node): Prop {
    const { replica } = this.drafts;
    const isHere = (prop: Prop): boolean => {
      const value = replica.get(parent.id, prop);
      return isObject(value) && value.object === this.id;
    };
    if (parent.type === "map" || isHere(this.prop)) return this.prop;
    for (let index = replica.length(parent.id) - 1; index >= 0; index -= 1) if (isHere(index)) return index;
    return this.prop;
  }
}

/** A counter in the callback of a change. Its value is that of the document, at any time. */
class CounterDraft extends Counter {
  readonly #node: Node;
  readonly #prop: Prop;
  /** Something else is in its place. */
  stale = false;

  constructor(node: Node, prop: Prop) {
    super();
    this.#node = node;
    this.#prop = prop;
    Object.defineProperty(this, "stale", { enumerable: false });
    Object.defineProperty(this, "value", { get: () => this.#read(), enumerable: true });
  }

  override increment(by = 1): number {
    const before = this.#read();
    const where = (): readonly Prop[] => this.#node.path(this.#prop);
    checkCount(by, where);
    checkCount(before + by, where);
    if (by !== 0) this.#node.replica.increment(this.#node.id, this.#prop, by);
    return before + by;
  }

  #read(): number {
    const value = this.#node.replica.get(this.#node.id, this.#prop);
    if (this.stale || value === null || typeof value !== "object" || !("counter" in value)) {
      throw new ValueError("deleted", this.#node.path(this.#prop), "this counter was replaced, or has moved");
    }
    return value.counter;
  }
}

type WasmObject = Extract<WasmValue, { readonly object: ObjectId }>;

function isObject(value: WasmValue | undefined): value is WasmObject {
  return typeof value === "object" && value !== null && "object" in value;
}

function copy(replica: DraftReplica, value: WasmValue): Value {
  if (!isObject(value)) return fromWasm(value);
  const id = value.object;
  const at = (prop: Prop): Value => copy(replica, replica.get(id, prop) ?? null);
  if (value.type === "text") return replica.text(id);
  if (value.type === "list") return Array.from({ length: replica.length(id) }, (_, index) => at(index));
  const map: { [key: string]: Value } = {};
  for (const key of replica.keys(id)) setOwn(map, key, at(key));
  return map;
}
