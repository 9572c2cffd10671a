// A page with a CodeMirror editor for the tests of the bindings.

import { EditorSelection, EditorState, Transaction } from "@codemirror/state";
import { EditorView } from "@codemirror/view";

import { collaborate, fromDocument } from "@concord/client/codemirror";

/** An editor on a text; what it was brought to by the document is in `view.remote`. */
export function edit(handle, path, presence, doc = "") {
  const remote = [];
  const view = new EditorView({
    parent: document.body,
    state: EditorState.create({
      doc,
      extensions: [
        EditorState.allowMultipleSelections.of(true),
        EditorView.updateListener.of((update) => {
          for (const one of update.transactions) {
            if (one.docChanged && one.annotation(fromDocument)) {
              let letters = 0;
              one.changes.iterChanges((from, to, _from, _to, inserted) => {
                letters += to - from + inserted.length;
              });
              remote.push({ letters, inHistory: one.annotation(Transaction.addToHistory), isRemote: one.annotation(Transaction.remote) });
            }
          }
        }),
        collaborate(handle, path, presence === undefined ? {} : { presence }),
      ],
    }),
  });
  view.remote = remote;
  return view;
}

/** Numbers in [0, 1) that a seed decides: mulberry32. */
function random(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

const LETTERS = ["a", "b", " ", "\n", "é", "e\u0301", "日", "😀", "👩‍🚀", "🇩🇪"];

/** Between whole letters. */
function place(state, next) {
  const at = Math.floor(next() * (state.doc.length + 1));
  const unit = state.sliceDoc(at, at + 1).charCodeAt(0);
  return unit >= 0xdc00 && unit <= 0xdfff ? at - 1 : at;
}

function some(next, most) {
  return Array.from({ length: 1 + Math.floor(next() * most) }, () => LETTERS[Math.floor(next() * LETTERS.length)]).join("");
}

/** One random transaction. What it inserted. */
function step(view, next, onlyInserts) {
  const { state } = view;
  const kind = onlyInserts ? next() * 0.6 : next();
  if (kind < 0.35) {
    const at = place(state, next);
    const insert = some(next, 2);
    view.dispatch({ changes: { from: at, insert }, selection: { anchor: at + insert.length }, userEvent: "input.type" });
    return insert;
  }
  if (kind < 0.6) {
    const ranges = Array.from({ length: 3 }, () => EditorSelection.cursor(place(state, next)));
    view.dispatch({ selection: EditorSelection.create(ranges) });
    const insert = some(next, 1);
    const cursors = view.state.selection.ranges.length;
    view.dispatch(view.state.replaceSelection(insert), { userEvent: "input.type" });
    return insert.repeat(cursors);
  }
  const [from, to] = [place(state, next), place(state, next)].sort((one, other) => one - other);
  if (kind < 0.8) {
    const end = place(state, () => Math.min(to, from + 12) / (state.doc.length + 1));
    view.dispatch({ selection: { anchor: from, head: Math.max(from, end) } });
    view.dispatch(view.state.replaceSelection(""), { userEvent: "delete.selection" });
    return "";
  }
  view.dispatch({ selection: { anchor: from } });
  const data = new DataTransfer();
  data.setData("text/plain", some(next, 20).replaceAll("\n", "\r\n"));
  view.contentDOM.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true }));
  return "";
}

/** So many of them, with time for others in between. Everything that was inserted. */
export async function typeAtRandom(view, seed, steps, onlyInserts = false) {
  const next = random(seed);
  let inserted = "";
  for (let n = 0; n < steps; n += 1) {
    inserted += step(view, next, onlyInserts);
    if (next() < 0.5) {
      await new Promise((soon) => setTimeout(soon, next() * 30));
    }
  }
  return inserted;
}
