/** The values of documents, as applications see them. */

import type { Prop } from "../wasm.js";

/**
 * A number that adds up what everyone adds to it. In a document's value it is frozen; in the callback of a
 * change it has `increment` and `decrement`.
 *
 * @example
 * handle.change((draft) => { draft.votes = new Counter(1); });
 * handle.change((draft) => { draft.votes.increment(2); });
 * handle.value.votes.value; // 3
 */
export class Counter {
  readonly value: number;

  constructor(value = 0) {
    this.value = value;
    if (new.target === Counter) Object.freeze(this);
  }

  /** Adds to it and gives what it is then. Only in the callback of a change. */
  increment(_by = 1): number {
    throw new TypeError("a counter can be incremented in the callback of a change only");
  }

  /** Takes from it and gives what it is then. Only in the callback of a change. */
  decrement(by = 1): number {
    return this.increment(-by);
  }

  /** So that counters compare and add like numbers. */
  valueOf(): number {
    return this.value;
  }

  toJSON(): number {
    return this.value;
  }

  toString(): string {
    return String(this.value);
  }
}

/**
 * Writes a string that can only be replaced as a whole, such as an id or a state. Plain strings become texts,
 * which merge letter by letter. Both read as plain strings.
 *
 * @example
 * handle.change((draft) => { draft.state = new ImmutableString("open"); });
 * handle.value.state; // "open"
 */
export class ImmutableString {
  /** Tells it from classes that look alike, for {@link Frozen}. */
  protected declare readonly kind: "string";

  constructor(readonly val: string) {
    Object.freeze(this);
  }

  toString(): string {
    return this.val;
  }

  toJSON(): string {
    return this.val;
  }
}

/**
 * Writes a float where the number is whole, for readers of the document that tell the two apart. It reads as a
 * number.
 *
 * @example
 * handle.change((draft) => { draft.ratio = new Float(1); });
 * handle.value.ratio; // 1
 */
export class Float {
  /** Tells it from classes that look alike, for {@link Frozen}. */
  protected declare readonly kind: "float";

  constructor(readonly value: number) {
    Object.freeze(this);
  }

  valueOf(): number {
    return this.value;
  }

  toJSON(): number {
    return this.value;
  }
}

/**
 * A document's value: plain objects and arrays, frozen to the bottom. JavaScript can't freeze what is inside of
 * a `Date` or `Uint8Array`: they are the document's own, and must not be changed.
 *
 * @example
 * type Tasks = Frozen<{ tasks: { title: string; done: boolean }[] }>;
 */
export type Frozen<T> = T extends ImmutableString
  ? string
  : T extends Float
    ? number
    : T extends Counter | Date | Uint8Array | Callable
      ? T
      : T extends object
        ? { readonly [K in keyof T]: Frozen<T[K]> }
        : T;

/** The same under the name that other libraries use. */
export type DeepReadonly<T> = Frozen<T>;

type Callable = (...parameters: never) => unknown;

/** Any value of a document. */
export type Value =
  | null
  | boolean
  | number
  | string
  | Date
  | Uint8Array
  | Counter
  | readonly Value[]
  | { readonly [key: string]: Value };

/**
 * One step from a document's last value to the next, near to the patches of `@automerge/automerge`. Steps hold
 * in the order given. `path` starts at the root. New objects come empty (`{}`, `[]`, `""`); what is in them
 * follows.
 *
 * @example
 * handle.on("patches", ({ patches }) => {
 *   for (const patch of patches) {
 *     if (patch.action === "splice") console.log(patch.path, patch.value);
 *   }
 * });
 */
export type Patch = PutPatch | InsertPatch | SplicePatch | DelPatch | IncPatch | ConflictPatch | MarkPatch;

/** A key or element has a new value. */
export interface PutPatch {
  readonly action: "put";
  readonly path: readonly Prop[];
  readonly value: Value;
  /** Whether others wrote there at the same time. */
  readonly conflict: boolean;
}

/** New elements in a list. `path` ends with the index of the first. */
export interface InsertPatch {
  readonly action: "insert";
  readonly path: readonly Prop[];
  readonly values: readonly Value[];
}

/** New letters in a text. `path` ends with their position, in UTF-16 code units. */
export interface SplicePatch {
  readonly action: "splice";
  readonly path: readonly Prop[];
  readonly value: string;
}

/** A key is gone, or `length` elements or code units from the index on. */
export interface DelPatch {
  readonly action: "del";
  readonly path: readonly Prop[];
  readonly length: number;
}

/** A counter grew by `value`. */
export interface IncPatch {
  readonly action: "inc";
  readonly path: readonly Prop[];
  readonly value: number;
}

/** The value stays, but there are others now that were written at the same time. */
export interface ConflictPatch {
  readonly action: "conflict";
  readonly path: readonly Prop[];
}

/** The formatting of a text changed; texts read as plain strings, so their value stays. */
export interface MarkPatch {
  readonly action: "mark";
  readonly path: readonly Prop[];
}
