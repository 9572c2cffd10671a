// The edits a test can ask for. An op is {op, path, ...}; `path` leads from the document's root.

import * as A from "@automerge/automerge"

export const valueAt = (doc, path) => path.reduce((value, key) => value[key], doc)

const ops = {
  /** Sets a map key or a list element. */
  put(doc, { path, value }) {
    valueAt(doc, path.slice(0, -1))[path.at(-1)] = value
  },
  /** Deletes a map key. */
  delete(doc, { path }) {
    delete valueAt(doc, path.slice(0, -1))[path.at(-1)]
  },
  /** Replaces `remove` list elements from `index` on by `values`. */
  list(doc, { path, index, remove = 0, values = [] }) {
    valueAt(doc, path).splice(index, remove, ...values)
  },
  push(doc, { path, values }) {
    valueAt(doc, path).push(...values)
  },
  /** Replaces `remove` UTF-16 units of a text from `index` on by `text`. */
  text(doc, { path, index, remove = 0, text = "" }) {
    A.splice(doc, path, index, remove, text)
  },
  /** Makes a counter. */
  counter(doc, { path, value = 0 }) {
    valueAt(doc, path.slice(0, -1))[path.at(-1)] = new A.Counter(value)
  },
  increment(doc, { path, by = 1 }) {
    valueAt(doc, path).increment(by)
  },
  mark(doc, { path, start, end, name, value, expand = "both" }) {
    A.mark(doc, path, { start, end, expand }, name, value)
  },
  unmark(doc, { path, start, end, name, expand = "both" }) {
    A.unmark(doc, path, { start, end, expand }, name)
  },
  /** A long text, many small values and one big one, all in one change: a large first upload. */
  bulk(doc, { path, pattern, times, values, bytes }) {
    valueAt(doc, path.slice(0, -1))[path.at(-1)] = {
      text: pattern.repeat(times),
      values: Array.from({ length: values }, (_, index) => ({ index, done: index % 3 === 0 })),
      bytes: noise(bytes),
    }
  },
}

/** Bytes that do not compress: xorshift32. */
function noise(length) {
  let state = 0x9e3779b9
  return Uint8Array.from({ length }, () => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return state & 0xff
  })
}

export function applyOp(doc, op) {
  if (!(op.op in ops)) throw new Error(`no op ${op.op}`)
  ops[op.op](doc, op)
}
