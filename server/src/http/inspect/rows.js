// A value as the rows of a tree, of which only those are made that are in opened parts. Pure.

import { pointerOf, read } from "./model.js";

/** Most rows: browsers draw nothing that is higher than some tens of millions of pixels. */
export const MOST_ROWS = 400_000;

/** Which places are open. Those below a closed one are remembered; positions move with what is at them. */
export class Opened {
  #root = { isOpen: true, below: new Map() };

  isOpen(steps) {
    return this.#find(steps)?.isOpen ?? false;
  }

  get root() {
    return this.#root;
  }

  set(steps, isOpen) {
    let node = this.#root;
    for (const step of steps) {
      let inner = node.below.get(step);
      if (inner === undefined) {
        inner = { isOpen: false, below: new Map() };
        node.below.set(step, inner);
      }
      node = inner;
    }
    node.isOpen = isOpen;
  }

  /** Something was put before (`by` 1) or taken from (-1) a position in an array. */
  moved(steps, by) {
    const position = steps.at(-1);
    const array = this.#find(steps.slice(0, -1));
    if (array === undefined || array.below.size === 0) return;
    const below = new Map();
    for (const [at, node] of array.below) {
      if (by < 0 && at === position) continue;
      below.set(at >= position ? at + by : at, node);
    }
    array.below = below;
  }

  #find(steps) {
    let node = this.#root;
    for (const step of steps) {
      node = node?.below.get(step);
    }
    return node;
  }
}

/** A place after something was put before or taken from a position; `null` if it was that. */
export function movedPlace(place, steps, by) {
  const depth = steps.length - 1;
  const at = place[depth];
  if (place.length < steps.length || steps.slice(0, -1).some((step, n) => step !== place[n]) || at < steps[depth]) return place;
  if (by < 0 && at === steps[depth]) return null;
  return place.map((step, n) => (n === depth ? step + by : step));
}

/**
 * The rows of a value: `{key, depth, json, kind, value, parent, position, siblings, isOpen}`; `isOpen` is `null` where
 * nothing can be opened; `parent` is a row's number.
 */
export function rowsOf(json, opened, most = MOST_ROWS) {
  const rows = [];
  const add = (key, inner, node, depth, parent, position, siblings) => {
    const { kind, value } = read(inner);
    const keys = kind === "object" ? Object.keys(value) : null;
    const size = kind === "array" ? value.length : (keys?.length ?? 0);
    const isOpen = size === 0 ? null : (node?.isOpen ?? false);
    const here = rows.length;
    rows.push({ key, depth, json: inner, kind, value, size, parent, position, siblings, isOpen });
    if (isOpen !== true) return;
    for (let n = 0; n < size && rows.length < most; n += 1) {
      const step = keys === null ? n : keys[n];
      add(step, value[step], node.below.get(step), depth + 1, here, n + 1, size);
    }
  };
  add(null, json, opened.root, 0, -1, 1, 1);
  return rows;
}

/** The place of a row. */
export function stepsOf(rows, number) {
  const steps = [];
  for (let row = rows[number]; row.parent >= 0; row = rows[row.parent]) {
    steps.push(row.key);
  }
  return steps.reverse();
}

/** The row of a place, or of the innermost one around it that is shown. */
export function rowOf(rows, steps) {
  let number = 0;
  for (const [depth, step] of steps.entries()) {
    const row = rows[number];
    if (row.isOpen !== true) return number;
    const inner = row.kind === "array" ? child(rows, number, (other) => other.position === step + 1) : child(rows, number, (other) => other.key === step);
    if (inner === undefined || rows[inner].depth !== depth + 1) return number;
    number = inner;
  }
  return number;
}

function child(rows, number, is) {
  const depth = rows[number].depth;
  for (let n = number + 1; n < rows.length && rows[n].depth > depth; n += 1) {
    if (rows[n].depth === depth + 1 && is(rows[n])) return n;
  }
  return undefined;
}

/** Opens from the top what fits into so many rows, so that a first look shows something. */
export function openSome(json, opened, rows) {
  let left = rows;
  let level = [{ steps: [], json }];
  while (level.length > 0) {
    const next = [];
    for (const { steps, json: inner } of level) {
      const { kind, value } = read(inner);
      if (kind !== "object" && kind !== "array") continue;
      const keys = kind === "array" ? value.keys() : Object.keys(value);
      const size = kind === "array" ? value.length : keys.length;
      if (size > left && steps.length > 0) continue;
      left -= size;
      opened.set(steps, true);
      if (left <= 0) return;
      for (const step of keys) {
        next.push({ steps: [...steps, step], json: value[step] });
      }
    }
    level = next;
  }
}

/** A place for people: `companies › acme › 3`. */
export const pathText = (steps) => (steps.length === 0 ? "the document" : pointerOf(steps));
