// Keys that do something wherever one is; what a part's own keys are that part knows.

import { button, el } from "./dom.js";

/** What the help says, also of the parts' own keys. */
const HELP = [
  ["/", "open a document by its id"],
  ["1 2 3 4 5", "to the documents, timeline, tree, graph, change"],
  [", .", "one change back, on"],
  ["n", "back to now"],
  ["?", "these keys"],
  ["tree: ↑ ↓ Home End", "through the rows; letters go to a key"],
  ["tree: → ← Enter", "open, close, into and out of"],
  ["timeline: ← →, Page ↑ ↓", "one, ten changes"],
  ["graph: ← → ↑ ↓", "along the history, to other actors"],
];

/** Listens for keys; `does`: by key, what it does. */
export function listen(does) {
  const help = dialog();
  document.body.append(help);
  document.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || event.defaultPrevented || help.open) return;
    const isField = event.target instanceof HTMLInputElement && event.target.type !== "range";
    if (isField) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    const action = event.key === "?" ? () => help.showModal() : Object.hasOwn(does, event.key) ? does[event.key] : undefined;
    if (action === undefined) return;
    event.preventDefault();
    action();
  });
  return () => help.showModal();
}

function dialog() {
  const rows = HELP.map(([keys, what]) => el("div", {}, el("dt", {}, el("kbd", {}, keys)), el("dd", {}, what)));
  const help = el("dialog", { class: "help", "aria-label": "Keys" }, el("h2", {}, "Keys"), el("dl", {}, rows));
  help.append(button("close", () => help.close()));
  return help;
}
