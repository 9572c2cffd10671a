// The change graph, drawn: a lane for each actor, a node for each change or run of them, and a line from each change to
// those that were made on it. Of a long history a stretch around what is shown is drawn.

import { button, el, svg } from "./dom.js";
import { beside, layOut, nodeAt } from "./lanes.js";
import { counted, moment, number, printable, cut, short } from "./text.js";

/** Changes that are drawn at a time: each by itself, and in runs. */
const STRETCH = { every: 300, runs: 2000 };
const LANE = 28;
const TOP = 18;
const LEFT = 26;
const GAP = 15;
/** How many colours there are; style.css has them. */
const COLOURS = 8;

/** See above. `go(place)` when a change is selected. */
export class Graph {
  element;
  #history;
  #go;
  #isEvery = null;
  #first = 0;
  #place = null;
  #count = 0;
  #laid = { lanes: [], nodes: [], lines: [] };
  #colours = new Map();
  #request;
  #drawing;
  #elements = [];
  #labels;
  #title;
  #older;
  #newer;
  #scroll;
  #switch;

  constructor(history, go) {
    this.#history = history;
    this.#go = go;
    this.#labels = el("div", { class: "lanes", "aria-hidden": "true" });
    this.#drawing = svg("svg", { role: "listbox", tabindex: "0", "aria-label": "Change graph", "aria-orientation": "horizontal", id: "graph" });
    this.#drawing.addEventListener("keydown", (event) => this.#key(event));
    this.#drawing.addEventListener("click", (event) => {
      const node = event.target.closest?.("[role=option]");
      if (node !== null && node !== undefined) this.#select(Number(node.id.slice("node-".length)));
    });
    this.#scroll = el("div", { class: "scroll" }, this.#drawing);
    this.#title = el("span", { class: "stretch" });
    this.#older = button("older", () => this.#shift(-1));
    this.#newer = button("newer", () => this.#shift(1));
    this.#switch = button("", () => {
      this.#isEvery = !this.#isEvery;
      void this.#load(true);
    });
    const bar = el("div", { class: "bar" }, el("h2", {}, "Graph"), this.#title, this.#older, this.#newer, this.#switch);
    this.element = el("section", { class: "pane graph", "aria-label": "Change graph" }, bar, el("div", { class: "drawing" }, this.#labels, this.#scroll));
  }

  focus() {
    this.#drawing.focus();
  }

  close() {
    this.#request?.abort();
  }

  /** Shows the change at a place, of so many. */
  show(place, count) {
    const isNew = count !== this.#count;
    this.#place = place;
    this.#count = count;
    this.#isEvery ??= count <= STRETCH.every;
    const end = this.#first + this.#stretch;
    const isInside = place >= this.#first && place < end && this.#laid.nodes.length > 0;
    if (!isInside) {
      this.#first = Math.max(0, Math.min(place - Math.floor(this.#stretch / 2), count - this.#stretch));
    }
    if (!isInside || (isNew && end >= count - 1)) void this.#load(false);
    else this.#mark();
  }

  get #stretch() {
    return this.#isEvery ? STRETCH.every : STRETCH.runs;
  }

  #shift(by) {
    const half = Math.floor(this.#stretch / 2);
    this.#first = Math.max(0, Math.min(this.#first + by * half, this.#count - this.#stretch));
    void this.#load(false);
  }

  async #load(isAround) {
    if (isAround) this.#first = Math.max(0, Math.min(this.#place - Math.floor(this.#stretch / 2), this.#count - this.#stretch));
    this.#request?.abort();
    const request = new AbortController();
    this.#request = request;
    let changes;
    try {
      changes = await this.#history.between(this.#first, this.#first + this.#stretch, request.signal);
    } catch (error) {
      // What is wrong with the server is said elsewhere.
      if (error.name !== "AbortError") this.#title.textContent = "the changes can't be read now";
      return;
    }
    if (request.signal.aborted) return;
    this.#laid = layOut(changes, this.#isEvery);
    this.#draw();
  }

  #draw() {
    const { lanes, nodes, lines } = this.#laid;
    for (const { actor } of lanes) this.#colour(actor);
    const centres = [];
    let x = LEFT;
    for (const node of nodes) {
      const half = halfWidth(node);
      centres.push(x + half);
      x += 2 * half + GAP;
    }
    const y = (lane) => TOP + lane * LANE;
    const [width, height] = [x + LEFT, y(lanes.length) - LANE / 2 + 4];
    this.#drawing.setAttribute("width", width);
    this.#drawing.setAttribute("height", height);
    this.#drawing.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const rails = lanes.map((lane, n) => svg("line", { class: "rail", x1: 0, x2: width, y1: y(n), y2: y(n) }));
    const drawn = lines.map(({ from, to, isImplied }) => {
      const end = nodes[to];
      const colour = this.#colour((from === null ? end : nodes[from]).changes[0].actor);
      if (from === null) {
        const x2 = centres[to] - halfWidth(end);
        return svg("path", { class: `line outside ${colour}`, d: `M${Math.max(2, x2 - 18)},${y(end.lane)} H${x2}` });
      }
      const [x1, x2] = [centres[from] + halfWidth(nodes[from]), centres[to] - halfWidth(end)];
      const [y1, y2] = [y(nodes[from].lane), y(end.lane)];
      if (y1 === y2) {
        // Straight lines through somebody else's node would claim what is not so; in one lane there is nobody else.
        return svg("path", { class: `line ${colour}${isImplied ? " implied" : ""}`, d: `M${x1},${y1} H${x2}` });
      }
      const bend = Math.min(40, Math.max(14, (x2 - x1) / 2));
      // Along the lane that it comes from, and over at the end.
      return svg("path", { class: `line across ${colour}${isImplied ? " implied" : ""}`, d: `M${x1},${y1} H${x2 - bend} C${x2 - bend / 2},${y1} ${x2 - bend / 2},${y2} ${x2},${y2}` });
    });
    const shown = nodes.map((node, n) => this.#node(node, n, centres[n], y(node.lane)));
    this.#elements = shown;
    this.#drawing.replaceChildren(svg("g", {}, ...rails), svg("g", {}, ...drawn), svg("g", {}, ...shown));
    this.#labels.replaceChildren(
      ...lanes.map(({ actor, changes }) =>
        el("div", { class: `lane ${this.#colour(actor)}`, title: `${printable(actor)}: ${counted(changes, "change")} here` }, el("i", {}), el("code", {}, short(actor)), el("small", {}, number(changes))),
      ),
    );
    const first = this.#first + 1;
    const last = Math.min(this.#first + this.#stretch, this.#count);
    const merges = nodes.filter(({ isMerge }) => isMerge).length;
    this.#title.textContent = `${number(first)}–${number(last)} of ${number(this.#count)} · ${counted(lanes.length, "actor")} · ${counted(merges, "merge")}`;
    this.#older.disabled = this.#first === 0;
    this.#newer.disabled = last >= this.#count;
    this.#older.hidden = this.#newer.hidden = this.#count <= this.#stretch;
    this.#switch.textContent = this.#isEvery ? "show runs" : "show every change";
    this.#mark();
  }

  #node(node, n, x, y) {
    const { changes, isMerge } = node;
    const [first, last] = [changes[0], changes.at(-1)];
    const colour = this.#colour(first.actor);
    const half = halfWidth(node);
    let shape;
    if (changes.length > 1) shape = svg("rect", { x: x - half, y: y - 9, width: 2 * half, height: 18, rx: 9 });
    else if (isMerge) shape = svg("path", { d: `M${x - 9},${y} L${x},${y - 9} L${x + 9},${y} L${x},${y + 9} Z` });
    else shape = svg("circle", { cx: x, cy: y, r: 6 });
    const which = changes.length === 1 ? `change ${number(first.place + 1)}` : `changes ${number(first.place + 1)} to ${number(last.place + 1)}, ${counted(changes.length, "change")} in a row`;
    const when = last.receivedAt ?? last.time;
    const parts = [which, `by ${short(first.actor)}`, isMerge ? "a merge" : null, when === null ? null : moment(when), last.message ? printable(cut(last.message, 60)) : null];
    const label = parts.filter((part) => part !== null).join(", ");
    const count = changes.length > 1 ? svg("text", { x, y: y + 4, "text-anchor": "middle" }, number(changes.length)) : null;
    return svg("g", { role: "option", id: `node-${n}`, class: `node ${colour}${isMerge ? " merge" : ""}${count === null ? "" : " run"}`, "aria-label": label }, svg("title", {}, label), shape, count);
  }

  /** Says which node is meant, and brings it into sight. */
  #mark() {
    const active = nodeAt(this.#laid.nodes, this.#place);
    for (const [n, element] of this.#elements.entries()) {
      element.classList.toggle("selected", n === active);
      element.classList.toggle("future", this.#laid.nodes[n].changes[0].place > this.#place);
      element.setAttribute("aria-selected", n === active);
    }
    const node = this.#elements[active];
    if (node === undefined) {
      this.#drawing.removeAttribute("aria-activedescendant");
      return;
    }
    this.#drawing.setAttribute("aria-activedescendant", node.id);
    const box = node.getBBox();
    const { scrollLeft, clientWidth } = this.#scroll;
    if (box.x < scrollLeft + 20 || box.x + box.width > scrollLeft + clientWidth - 20) {
      this.#scroll.scrollLeft = box.x + box.width / 2 - clientWidth / 2;
    }
  }

  #select(n) {
    const node = this.#laid.nodes[n];
    if (node !== undefined) this.#go(node.changes.at(-1).place);
  }

  #key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const { nodes } = this.#laid;
    if (nodes.length === 0) return;
    const n = Math.max(0, nodeAt(nodes, this.#place));
    const keys = {
      ArrowRight: () => Math.min(nodes.length - 1, n + 1),
      ArrowLeft: () => Math.max(0, n - 1),
      ArrowUp: () => beside(nodes, n, -1),
      ArrowDown: () => beside(nodes, n, 1),
      Home: () => 0,
      End: () => nodes.length - 1,
    };
    if (!Object.hasOwn(keys, event.key)) return;
    event.preventDefault();
    this.#select(keys[event.key]());
  }

  /** The same for an actor as long as the document is open. */
  #colour(actor) {
    if (!this.#colours.has(actor)) this.#colours.set(actor, `colour-${this.#colours.size % COLOURS}`);
    return this.#colours.get(actor);
  }
}

/** Half of a node's width; runs are as wide as their number is long. */
function halfWidth({ changes, isMerge }) {
  if (changes.length > 1) return 9 + 3.6 * String(changes.length).length + Math.min(30, Math.log2(changes.length) * 2.5);
  return isMerge ? 9 : 6;
}
