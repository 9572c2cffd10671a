/**
 * Changing a document in a callback. The callback gets a draft: proxies that look like the document's value and
 * read and write the replica's open transaction. When it returns, all of it becomes one change; when it throws,
 * nothing has happened.
 */

import type { Chunk, Prop, WasmReplica } from "../wasm.js";
import { LIST_METHODS, listDraft } from "./draft-list.js";
import { mapDraft } from "./draft-map.js";
import { PositionError, ValueError } from "./errors.js";
import { Drafts, nodeOf, type DraftReplica, type Node } from "./node.js";
import { checkString } from "./prepare.js";

/** What {@link edit} needs of a replica. */
export type EditableReplica = DraftReplica & Pick<WasmReplica, "commit" | "rollback">;

/** What a change says about itself. */
export interface EditOptions {
  /** Kept in the history. */
  readonly message?: string | undefined;
  /** Unix milliseconds. */
  readonly time: number;
}

/** A draft, and how to end it. */
export interface OpenDraft<T> {
  readonly draft: T;
  /** From then on all that was read from the draft throws when used. */
  readonly revoke: () => void;
}

/** Replicas with a callback running. */
const editing = new WeakSet<object>();

/** The draft of a whole document. The caller commits or rolls back, and revokes. */
export function makeDraft<T>(replica: DraftReplica): OpenDraft<T> {
  const drafts = new Drafts(replica, (node) => (node.type === "list" ? listDraft(node) : mapDraft(node)));
  return { draft: drafts.root.draft as T, revoke: () => drafts.close() };
}

/**
 * Runs a callback on a draft and makes one change of what it did; nothing when it did nothing. When the callback
 * throws, or returns a promise, the document is as before.
 */
export function edit<T>(
  replica: EditableReplica,
  callback: (draft: T) => unknown,
  options: EditOptions,
): Chunk | undefined {
  if (editing.has(replica)) throw new ValueError("nested", [], "this document is being changed already");
  editing.add(replica);
  const { draft, revoke } = makeDraft<T>(replica);
  try {
    refusePromise(callback(draft));
    revoke();
    return replica.commit(options.message, options.time);
  } catch (error) {
    revoke();
    try {
      replica.rollback();
    } catch (second) {
      throw new AggregateError([error, second], "a change failed, and could not be taken back");
    }
    throw error;
  } finally {
    editing.delete(replica);
  }
}

/**
 * Removes `remove` code units of a text at `index` and inserts `insert` there. `path` leads to the text, from
 * the draft.
 *
 * @example
 * handle.change((draft) => splice(draft, ["title"], 0, 5, "Hello"));
 */
export function splice(draft: object, path: readonly Prop[], index: number, remove: number, insert = ""): void {
  const text = textAt(draft, path);
  const { length } = text;
  const check = (position: number, least: number): void => {
    if (!Number.isSafeInteger(position) || position < least || position > length) {
      throw new PositionError(text.path(), position, `${position} is not in this text of ${length} code units`);
    }
    if (text.splitsPair(position)) {
      throw new PositionError(text.path(), position, `${position} is between the halves of a surrogate pair`);
    }
  };
  check(index, 0);
  check(index + remove, index);
  checkString(insert, () => text.path());
  if (remove === 0 && insert === "") return;
  text.spliceText(index, remove, insert);
}

/**
 * Makes a text read so, with the fewest edits: what others edit at the same time is kept. For text fields, of
 * which only the new text is known.
 *
 * @example
 * handle.change((draft) => updateText(draft, ["title"], input.value));
 */
export function updateText(draft: object, path: readonly Prop[], value: string): void {
  const text = textAt(draft, path);
  checkString(value, () => text.path());
  if (text.text() === value) return;
  text.rewritten();
  text.replica.updateText(text.id, value);
}

/**
 * Inserts elements into the draft of a list.
 *
 * @example
 * handle.change((draft) => insertAt(draft.tasks, 0, { title: "first", done: false }));
 */
export function insertAt<T>(list: readonly T[], index: number, ...values: T[]): void {
  LIST_METHODS.insertAt.call(list, index, ...values);
}

/**
 * Deletes elements of the draft of a list.
 *
 * @example
 * handle.change((draft) => deleteAt(draft.tasks, 0, 2));
 */
export function deleteAt(list: readonly unknown[], index: number, count = 1): void {
  LIST_METHODS.deleteAt.call(list, index, count);
}

function textAt(draft: object, path: readonly Prop[]): Node {
  let node = nodeOf(draft);
  if (node === undefined) throw new ValueError("path", path, "this is not the draft of a change");
  for (const prop of path) {
    const next: Node | undefined = node.child(prop);
    if (next === undefined) throw new ValueError("path", node.path(prop), "there is no text here");
    node = next;
  }
  if (node.type !== "text") throw new ValueError("path", node.path(), `this is a ${node.type}, not a text`);
  return node;
}

function refusePromise(result: unknown): void {
  if (typeof result !== "object" || result === null) return;
  const then: unknown = (result as { then?: unknown }).then;
  if (typeof then !== "function") return;
  // What it does from now on fails, because the drafts are closed; nobody is there to hear of that.
  then.call(result, undefined, () => undefined);
  throw new ValueError("async", [], "the callback of a change can't be async: wait first, then change");
}
