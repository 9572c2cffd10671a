// The edits a test can ask for. An op is {op, path, ...}; `path` leads from the document's root.

import * as A from "@automerge/automerge"

const at = (doc, path) => path.reduce((value, key) => value[key], doc)

const ops = {
  /** Sets a map key or a list element. */
  put(doc, { path, value }) {
    at(doc, path.slice(0, -1))[path.at(-1)] = value
  },
  /** Deletes a map key. */
  delete(doc, { path }) {
    delete at(doc, path.slice(0, -1))[path.at(-1)]
  },
  /** Replaces `remove` list elements from `index` on by `values`. */
  list(doc, { path, index, remove = 0, values = [] }) {
    at(doc, path).splice(index, remove, ...values)
  },
  push(doc, { path, values }) {
    at(doc, path).push(...values)
  },
  /** Replaces `remove` UTF-16 units of a text from `index` on by `text`. */
  text(doc, { path, index, remove = 0, text = "" }) {
    A.splice(doc, path, index, remove, text)
  },
  /** Makes a counter. */
  counter(doc, { path, value = 0 }) {
    at(doc, path.slice(0, -1))[path.at(-1)] = new A.Counter(value)
  },
  increment(doc, { path, by = 1 }) {
    at(doc, path).increment(by)
  },
  mark(doc, { path, start, end, name, value, expand = "both" }) {
    A.mark(doc, path, { start, end, expand }, name, value)
  },
  unmark(doc, { path, start, end, name, expand = "both" }) {
    A.unmark(doc, path, { start, end, expand }, name)
  },
  /** A long text and many values in one go: a large first upload. */
  bulk(doc, { path, text, values }) {
    at(doc, path.slice(0, -1))[path.at(-1)] = {
      text: text.pattern.repeat(text.times),
      values: Array.from({ length: values }, (_, index) => ({ index, name: `value ${index}`, done: index % 3 === 0 })),
    }
  },
}

export function applyOp(doc, op) {
  if (!(op.op in ops)) throw new Error(`no op ${op.op}`)
  ops[op.op](doc, op)
}
