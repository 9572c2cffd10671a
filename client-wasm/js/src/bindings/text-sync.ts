/** What editors need to follow a text of a document: pure, and of no editor. */
import type { TextEdit } from "../client/document.js";
import type { Patch } from "../value/types.js";
import type { Prop } from "../wasm.js";

/** @internal The text at a path, if there is one. */
export function readText(value: unknown, path: readonly Prop[] | undefined): string | undefined {
  let at = value;
  for (const prop of path ?? []) {
    if (typeof at !== "object" || at === null || !Object.hasOwn(at, prop)) {
      return undefined;
    }
    at = (at as { readonly [prop: Prop]: unknown })[prop];
  }
  return path !== undefined && typeof at === "string" ? at : undefined;
}

/** @internal Whether two paths are the same. */
export function isPath(one: readonly unknown[], other: readonly Prop[]): boolean {
  return one.length === other.length && other.every((prop, depth) => one[depth] === prop);
}

/**
 * @internal Where what was at `path` is after a patch elsewhere: the same array if it has not moved, nothing if
 * what it was in was deleted from a list.
 */
export function movedPath(path: readonly Prop[], patch: Patch): readonly Prop[] | undefined {
  const depth = patch.path.length - 1;
  const index = path[depth];
  const at = patch.path[depth];
  if (typeof index !== "number" || typeof at !== "number" || at > index || !isPath(patch.path.slice(0, -1), path.slice(0, depth))) {
    return path;
  }
  const to = (place: number): readonly Prop[] => path.map((prop, at) => (at === depth ? place : prop));
  if (patch.action === "insert") {
    return to(index + patch.values.length);
  }
  if (patch.action === "del") {
    return index < at + patch.length ? undefined : to(index - patch.length);
  }
  return path;
}

/** @internal The one edit that makes a text into another; it keeps what both begin and end with. */
export function minimalEdit(from: string, to: string): { from: number; to: number; insert: string } | undefined {
  if (from === to) {
    return undefined;
  }
  const most = Math.min(from.length, to.length);
  let start = 0;
  while (start < most && from.charCodeAt(start) === to.charCodeAt(start)) {
    start += 1;
  }
  let end = 0;
  while (end < most - start && from.charCodeAt(from.length - 1 - end) === to.charCodeAt(to.length - 1 - end)) {
    end += 1;
  }
  return { from: start, to: from.length - end, insert: to.slice(start, to.length - end) };
}

/**
 * @internal The same edit, or one that cuts through no surrogate pair and leaves no half of one: documents have
 * none. Half a letter reads as U+FFFD.
 */
export function wholePairs(text: string, edit: TextEdit): TextEdit {
  let { index, insert } = edit;
  let end = index + edit.remove;
  if (splitsPair(text, index)) {
    insert = text.charAt(index - 1) + insert;
    index -= 1;
  }
  if (splitsPair(text, end)) {
    insert += text.charAt(end);
    end += 1;
  }
  const whole = insert.replace(/\p{Surrogate}/gu, "\ufffd");
  return whole === edit.insert && index === edit.index ? edit : { index, remove: end - index, insert: whole };
}

function splitsPair(text: string, at: number): boolean {
  return (text.codePointAt(at - 1) ?? 0) > 0xffff && at > 0 && at < text.length;
}
