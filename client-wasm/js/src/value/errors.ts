/** What can be wrong with a value, a position in a text or list, or a patch. */

import type { Prop } from "../wasm.js";

/** Why a {@link ValueError} was thrown. */
export type ValueErrorCode =
  /** `undefined` can't be stored; `delete` removes a key. */
  | "undefined"
  | "function"
  | "symbol"
  | "bigint"
  /** An instance of a class that documents don't know. */
  | "class"
  /** A `Date` that is none. */
  | "date"
  /** A counter, or a step of one, that is not a safe integer. */
  | "counter"
  /** A string or key with half a surrogate pair. */
  | "surrogate"
  /** A string of more than {@link MAX_LENGTH} code units. */
  | "length"
  /** A key that the server refuses. */
  | "key"
  | "cycle"
  /** More than {@link MAX_DEPTH} objects in each other. */
  | "depth"
  /** A draft was assigned; an object has one place in a document. */
  | "reference"
  /** Lists and drafts don't offer this operation. */
  | "unsupported"
  /** The object of this draft was deleted or replaced. */
  | "deleted"
  /** The change that this draft belongs to is over. */
  | "closed"
  /** Changes of one document within each other. */
  | "nested"
  /** The callback of a change returned a promise. */
  | "async"
  /** Nothing, or no text, is where this path leads. */
  | "path";

/** How deep objects may lie in each other, below the root. The server refuses deeper ones for good. */
export const MAX_DEPTH = 250;

/**
 * How long a string may be that is written at once, code units: each is an op, and the server refuses changes of more than
 * a million. Longer texts are written piece by piece.
 */
export const MAX_LENGTH = 900_000;

/** A path as people write it: `tasks[0].title`. */
export function showPath(path: readonly Prop[]): string {
  let shown = "";
  for (const prop of path) {
    if (typeof prop === "number") shown += `[${prop}]`;
    else if (/^[\p{L}_$][\p{L}\p{N}_$]*$/u.test(prop)) shown += shown === "" ? prop : `.${prop}`;
    else shown += `[${JSON.stringify(prop)}]`;
  }
  return shown === "" ? "the document" : shown;
}

/**
 * A value that a document can't hold, or a draft used in a way that can't work. `path` leads to the culprit,
 * from the root of the document.
 *
 * @example
 * try {
 *   handle.change((draft) => { draft.owner = { name: undefined }; });
 * } catch (error) {
 *   error instanceof ValueError && error.code; // "undefined"
 * }
 */
export class ValueError extends TypeError {
  override readonly name = "ValueError";

  constructor(
    readonly code: ValueErrorCode,
    readonly path: readonly Prop[],
    message: string,
  ) {
    super(`${showPath(path)}: ${message}`);
  }
}

/** An index outside of a list or text, or between the halves of a surrogate pair. */
export class PositionError extends RangeError {
  override readonly name = "PositionError";

  constructor(
    readonly path: readonly Prop[],
    readonly index: number,
    message: string,
  ) {
    super(`${showPath(path)}: ${message}`);
  }
}

/** Why a {@link PatchError} was thrown. */
export type PatchErrorCode =
  /** The path has no end, or leads through something that holds nothing. */
  | "nowhere"
  /** A key where an index belongs, or the other way round. */
  | "prop"
  /** An index or a length that goes past the end. */
  | "range"
  /** Not for the kind of value that is there. */
  | "kind";

/** A patch that does not fit the value it was made for: the value is not the document's last one. */
export class PatchError extends Error {
  override readonly name = "PatchError";

  constructor(
    readonly code: PatchErrorCode,
    readonly action: string,
    readonly path: readonly Prop[],
    /** Which patch of the batch. */
    readonly index: number,
  ) {
    super(`patch ${index} (${action} at ${showPath(path)}) does not fit the document: ${code}`);
  }
}
