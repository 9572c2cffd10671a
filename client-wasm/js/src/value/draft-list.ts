/**
 * Lists in the callback of a change: a proxy that is an array to `Array.isArray`. What only reads is the
 * array's own, on top of the proxy; what writes is here, as the fewest operations.
 */

import { Handler } from "./draft-map.js";
import { PositionError, ValueError } from "./errors.js";
import { nodeOf, type Node } from "./node.js";

/** The draft of a list. */
export function listDraft(node: Node): object {
  return new Proxy([], new ListHandler(node));
}

/** What writes to a list; used by its methods and by {@link ../draft}. */
export const LIST_METHODS = {
  push(this: object, ...values: unknown[]): number {
    const list = listOf(this);
    const { length } = list;
    list.insert(length, list.prepareAll(length, values));
    return length + values.length;
  },

  pop(this: object): unknown {
    const list = listOf(this);
    return removeAt(list, list.length - 1);
  },

  shift(this: object): unknown {
    return removeAt(listOf(this), 0);
  },

  unshift(this: object, ...values: unknown[]): number {
    const list = listOf(this);
    list.insert(0, list.prepareAll(0, values));
    return list.length;
  },

  /** Gives copies of what it removed: the objects themselves are gone. */
  splice(this: object, ...parameters: [start?: number, remove?: number, ...values: unknown[]]): unknown[] {
    const list = listOf(this);
    const { length } = list;
    const [start, remove, ...values] = parameters;
    const from = within(start, length);
    const most = length - from;
    let count = 0;
    if (parameters.length === 1) count = most;
    else if (parameters.length > 1) count = Math.min(Math.max(whole(remove), 0), most);
    const prepared = list.prepareAll(from, values);
    const removed: unknown[] = [];
    for (let left = count; left > 0; left -= 1) removed.push(removeAt(list, from));
    list.insert(from, prepared);
    return removed;
  },

  insertAt(this: object, index: number, ...values: unknown[]): void {
    const list = listOf(this);
    checkIndex(list, index, list.length);
    list.insert(index, list.prepareAll(index, values));
  },

  deleteAt(this: object, index: number, count = 1): void {
    const list = listOf(this);
    if (!Number.isSafeInteger(count) || count < 0) {
      throw new PositionError(list.path(), count, `can't delete ${count} elements`);
    }
    checkIndex(list, index, list.length - count);
    for (let left = count; left > 0; left -= 1) list.remove(index);
  },

  reverse: refuse("reverse"),
  sort: refuse("sort"),
  copyWithin: refuse("copyWithin"),
  fill: refuse("fill"),
};

class ListHandler extends Handler {
  get(target: object, key: string | symbol): unknown {
    const index = indexOf(key);
    if (index !== undefined) return this.node.read(index);
    if (key === "length") return this.node.length;
    return Object.hasOwn(LIST_METHODS, key) ? Reflect.get(LIST_METHODS, key) : Reflect.get(target, key);
  }

  set(_target: object, key: string | symbol, value: unknown): boolean {
    if (typeof key === "symbol") return this.refuseSymbol();
    const index = indexOf(key);
    if (key === "length") {
      this.#shrink(value);
    } else if (index === undefined) {
      throw new ValueError("key", this.node.path(key), "a list has no keys");
    } else {
      const { length } = this.node;
      checkIndex(this.node, index, length);
      if (index === length) this.node.insert(index, this.node.prepareAll(index, [value]));
      else this.node.assign(index, value);
    }
    return true;
  }

  deleteProperty(_target: object, key: string | symbol): boolean {
    if (!this.has([], key)) return true;
    throw new ValueError("unsupported", this.node.path(), "lists have no holes; use splice or deleteAt");
  }

  has(target: object, key: string | symbol): boolean {
    const index = indexOf(key);
    return index === undefined ? key in LIST_METHODS || Reflect.has(target, key) : index < this.node.length;
  }

  ownKeys(): string[] {
    return [...Array.from({ length: this.node.length }, (_, index) => String(index)), "length"];
  }

  getOwnPropertyDescriptor(_target: object, key: string | symbol): PropertyDescriptor | undefined {
    // The target's `length` can't be reconfigured, so neither can ours.
    if (key === "length") return { value: this.node.length, writable: true, enumerable: false, configurable: false };
    const index = indexOf(key);
    if (index === undefined || index >= this.node.length) return undefined;
    return { value: this.node.read(index), writable: true, enumerable: true, configurable: true };
  }

  #shrink(value: unknown): void {
    const { length } = this.node;
    if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 0 || value > length) {
      throw new PositionError(this.node.path(), Number(value), `a list of ${length} can't have a length of ${String(value)}`);
    }
    for (let last = length - 1; last >= value; last -= 1) this.node.remove(last);
  }
}

function listOf(draft: object): Node {
  const node = nodeOf(draft);
  if (node?.type !== "list") throw new ValueError("unsupported", [], "not the draft of a list");
  return node;
}

function removeAt(list: Node, index: number): unknown {
  if (index < 0 || index >= list.length) return undefined;
  const removed = list.copy(index);
  list.remove(index);
  return removed;
}

function checkIndex(list: Node, index: number, last: number): void {
  if (!Number.isSafeInteger(index) || index < 0 || index > last) {
    throw new PositionError(list.path(index), index, `not in this list of ${list.length}`);
  }
}

/** A key as an index, if it is one as arrays spell them. */
function indexOf(key: string | symbol): number | undefined {
  return typeof key === "string" && /^(?:0|[1-9]\d{0,14})$/.test(key) ? Number(key) : undefined;
}

/** As `Array.prototype.splice` reads its numbers. */
function whole(value: unknown): number {
  return Math.trunc(Number(value)) || 0;
}

function within(start: unknown, length: number): number {
  const index = whole(start);
  return index < 0 ? Math.max(length + index, 0) : Math.min(index, length);
}

function refuse(name: string): (this: object) => never {
  return function (this: object): never {
    const hint = "it would write each element anew; sort or reverse a copy to show it, or splice what has to move";
    throw new ValueError("unsupported", nodeOf(this)?.path() ?? [], `${name} is not for documents: ${hint}`);
  };
}
