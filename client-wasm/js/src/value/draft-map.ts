/** Maps in the callback of a change: a proxy that looks like a plain object. */

import { ValueError } from "./errors.js";
import type { Node } from "./node.js";

/** The draft of a map. */
export function mapDraft(node: Node): object {
  return new Proxy({}, new MapHandler(node));
}

/** What drafts of any kind refuse. */
export class Handler implements ProxyHandler<object> {
  constructor(protected readonly node: Node) {}

  defineProperty(): never {
    throw new ValueError("unsupported", this.node.path(), "properties can't be defined, only assigned");
  }

  setPrototypeOf(): never {
    throw new ValueError("unsupported", this.node.path(), "a document's objects have no other prototype");
  }

  preventExtensions(): never {
    throw new ValueError("unsupported", this.node.path(), "a draft can't be frozen or sealed");
  }

  protected refuseSymbol(): never {
    throw new ValueError("symbol", this.node.path(), "keys are strings");
  }
}

class MapHandler extends Handler {
  get(target: object, key: string | symbol): unknown {
    const value = typeof key === "symbol" ? undefined : this.node.read(key);
    return value === undefined ? Reflect.get(target, key) : value;
  }

  set(_target: object, key: string | symbol, value: unknown): boolean {
    if (typeof key === "symbol") return this.refuseSymbol();
    this.node.assign(key, value);
    return true;
  }

  deleteProperty(_target: object, key: string | symbol): boolean {
    if (typeof key === "string" && this.#has(key)) this.node.remove(key);
    return true;
  }

  has(target: object, key: string | symbol): boolean {
    return (typeof key === "string" && this.#has(key)) || Reflect.has(target, key);
  }

  ownKeys(): string[] {
    return this.node.replica.keys(this.node.id);
  }

  getOwnPropertyDescriptor(_target: object, key: string | symbol): PropertyDescriptor | undefined {
    if (typeof key === "symbol" || !this.#has(key)) return undefined;
    return { value: this.node.read(key), writable: true, enumerable: true, configurable: true };
  }

  #has(key: string): boolean {
    return this.node.replica.get(this.node.id, key) !== undefined;
  }
}
