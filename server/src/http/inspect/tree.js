// A document as a tree: only the rows that are in sight are in the page, however many there are. Keys as the ARIA tree
// pattern has them; the tree has the focus, and says which row is meant.

import { button, copy, el } from "./dom.js";
import { addressOfValue } from "./api.js";
import { at, differences, pointerOf, read } from "./model.js";
import { Opened, movedPlace, openSome, pathText, rowOf, rowsOf, stepsOf } from "./rows.js";
import { keyText, kindName, line } from "./values.js";
import { number, printable } from "./text.js";

/** Pixels; style.css has the same. */
const ROW = 26;
/** Rows beyond the edges that are there already when one scrolls. */
const BEYOND = 8;
/** How long what changed is marked, milliseconds. */
const MARK_MS = 2500;
/** Places that are marked at a time. */
const MOST_MARKS = 100;
/** Rows that are open at first. */
const FIRST_ROWS = 60;
/** Between two letters of one word, milliseconds. */
const TYPING_MS = 700;
/** What a word begins with; anything else may be a key of the page's. */
const LETTER = /^[\p{L}_$]$/u;
/** Letters of a whole value. */
const WHOLE = 200_000;

/** See above. {@link show} is given the value; the rest is done by the keys and pointer of who looks. */
export class Tree {
  element;
  #id;
  #json;
  #version = null;
  #opened = new Opened();
  #rows = [];
  #selected = [];
  #marks = [];
  #elements = new Map();
  #frame = 0;
  #timer;
  #typed = { text: "", at: 0 };
  #tree;
  #sizer;
  #detail;
  #path;
  #whole;
  #link;

  constructor(id) {
    this.#id = id;
    this.#sizer = el("div", { role: "none", class: "sizer" });
    this.#tree = el("div", { role: "tree", class: "rows", tabIndex: 0, "aria-label": "The document's values", id: "tree" }, this.#sizer);
    this.#tree.addEventListener("scroll", () => this.#soon(), { passive: true });
    this.#tree.addEventListener("keydown", (event) => this.#key(event));
    this.#tree.addEventListener("click", (event) => this.#click(event));
    new ResizeObserver(() => this.#soon()).observe(this.#tree);
    this.#path = el("bdi", { class: "path" });
    this.#link = el("a", { target: "_blank", rel: "noopener" }, "open JSON");
    this.#whole = el("pre", { class: "whole", tabIndex: 0, "aria-label": "The selected value" });
    const copyPath = button("copy path", () => void copy(pointerOf(this.#selected), copyPath));
    this.#detail = el("div", { class: "selected-value" }, el("div", { class: "bar" }, this.#path, copyPath, this.#link), this.#whole);
    this.element = el("section", { class: "pane tree", "aria-label": "Value" }, this.#tree, this.#detail);
  }

  focus() {
    this.#tree.focus();
  }

  /**
   * Shows a value. `version`: `null` for the one of now. `operations`: what led to it from the value that is shown;
   * without them what differs is looked for.
   */
  show(json, { version = null, operations = null } = {}) {
    const before = this.#json;
    const isFirst = before === undefined;
    if (json === before && version === this.#version) return;
    this.#json = json;
    this.#version = version;
    const now = performance.now();
    if (isFirst) {
      openSome(json, this.#opened, FIRST_ROWS);
    } else if (operations === null) {
      for (const steps of differences(before, json, MOST_MARKS)) this.#marks.push({ steps, from: now });
    } else {
      for (const operation of operations) this.#follow(operation, now);
    }
    this.#marks = this.#marks.slice(-MOST_MARKS);
    this.#flatten();
  }

  /** What an operation did to the places that are remembered. */
  #follow({ op, steps, isInArray }, now) {
    const by = isInArray ? { add: 1, remove: -1 }[op] : undefined;
    if (by !== undefined) {
      this.#opened.moved(steps, by);
      this.#selected = movedPlace(this.#selected, steps, by) ?? steps.slice(0, -1);
      this.#marks = this.#marks.map((mark) => ({ ...mark, steps: movedPlace(mark.steps, steps, by) ?? steps.slice(0, -1) }));
    }
    this.#marks.push({ steps: op === "remove" ? steps.slice(0, -1) : steps, from: now });
    if (this.#marks.length > 2 * MOST_MARKS) this.#marks = this.#marks.slice(-MOST_MARKS);
  }

  #flatten() {
    this.#rows = rowsOf(this.#json, this.#opened);
    this.#sizer.style.height = `${this.#rows.length * ROW}px`;
    this.#soon();
    this.#showSelected();
  }

  #soon() {
    if (this.#frame === 0) this.#frame = requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    this.#frame = 0;
    if (this.#json === undefined) return;
    const rows = this.#rows;
    const first = Math.max(0, Math.floor(this.#tree.scrollTop / ROW) - BEYOND);
    const end = Math.min(rows.length, Math.ceil((this.#tree.scrollTop + this.#tree.clientHeight) / ROW) + BEYOND);
    const active = rowOf(rows, this.#selected);
    const marked = this.#marked();
    const wanted = new Set([active]);
    for (let n = first; n < end; n += 1) wanted.add(n);
    for (const [n, element] of this.#elements) {
      if (!wanted.has(n)) {
        element.remove();
        this.#elements.delete(n);
      }
    }
    for (const n of wanted) {
      let element = this.#elements.get(n);
      if (element === undefined) {
        element = el("div", { role: "treeitem", class: "row", id: `row-${n}` });
        element.style.top = `${n * ROW}px`;
        this.#elements.set(n, element);
        this.#sizer.append(element);
      }
      this.#fill(element, rows[n], n === active, marked.get(n));
    }
    this.#tree.setAttribute("aria-activedescendant", `row-${active}`);
  }

  #fill(element, row, isActive, mark) {
    const { key, depth, json, kind, isOpen, position, siblings } = row;
    if (element.shown?.json !== json || element.shown.key !== key || element.shown.isOpen !== isOpen || element.shown.depth !== depth) {
      const twisty = el("span", { class: "twisty", "aria-hidden": "true" }, isOpen === null ? "" : isOpen ? "▾" : "▸");
      const name = key === null ? el("span", { class: "key root" }, "document") : el("bdi", { class: typeof key === "number" ? "key position" : key === "" ? "key empty" : "key" }, keyText(key));
      const shown = line(json, { inside: isOpen !== true });
      element.replaceChildren(twisty, name, shown, el("span", { class: "kind" }, kindName(kind)));
      element.style.setProperty("--depth", Math.min(depth, 40));
      element.setAttribute("title", depth > 40 ? `level ${depth}` : "");
      element.shown = { json, key, isOpen, depth };
    }
    element.setAttribute("aria-level", depth + 1);
    element.setAttribute("aria-posinset", position);
    element.setAttribute("aria-setsize", siblings);
    if (isOpen === null) element.removeAttribute("aria-expanded");
    else element.setAttribute("aria-expanded", isOpen);
    element.setAttribute("aria-selected", isActive);
    element.classList.toggle("changed", mark !== undefined);
    if (mark !== undefined && element.markedFrom !== mark) {
      // A row that comes into sight again goes on where it was.
      element.style.animationDelay = `${mark - performance.now()}ms`;
      element.markedFrom = mark;
    }
  }

  /** Which rows to mark, and since when. */
  #marked() {
    const now = performance.now();
    this.#marks = this.#marks.filter(({ from }) => now - from < MARK_MS);
    const marked = new Map();
    for (const { steps, from } of this.#marks) {
      const n = rowOf(this.#rows, steps);
      marked.set(n, Math.max(from, marked.get(n) ?? 0));
    }
    clearTimeout(this.#timer);
    if (this.#marks.length > 0) {
      const next = Math.min(...this.#marks.map(({ from }) => from)) + MARK_MS - now;
      this.#timer = setTimeout(() => this.#soon(), Math.max(16, next));
    }
    return marked;
  }

  #showSelected() {
    const json = at(this.#json, this.#selected);
    const pointer = pointerOf(this.#selected);
    this.#path.textContent = printable(pathText(this.#selected));
    const address = String(addressOfValue(this.#id, pointer, { at: this.#version }));
    if (this.#link.href !== address) this.#link.href = address;
    if (this.#whole.json === json && this.#whole.pointer === pointer) return;
    this.#whole.json = json;
    this.#whole.pointer = pointer;
    const { kind, value } = read(json ?? null);
    const isLong = (kind === "text" || kind === "string" || kind === "bytes") && value.length > 60;
    this.#whole.hidden = !isLong;
    if (isLong) this.#whole.textContent = value.length > WHOLE ? `${printable(value.slice(0, WHOLE), true)}… (${number(value.length)} letters)` : printable(value, true);
    else this.#whole.textContent = "";
  }

  #select(n) {
    this.#selected = stepsOf(this.#rows, n);
    const top = n * ROW;
    if (top < this.#tree.scrollTop) this.#tree.scrollTop = top;
    else if (top + ROW > this.#tree.scrollTop + this.#tree.clientHeight) this.#tree.scrollTop = top + ROW - this.#tree.clientHeight;
    this.#soon();
    this.#showSelected();
  }

  #open(n, isOpen) {
    this.#opened.set(stepsOf(this.#rows, n), isOpen);
    this.#flatten();
  }

  #click(event) {
    const element = event.target.closest?.("[role=treeitem]");
    if (element === null || element === undefined) return;
    const n = Number(element.id.slice("row-".length));
    const row = this.#rows[n];
    if (row === undefined) return;
    this.#select(n);
    if (row.isOpen !== null && (event.target.closest(".twisty") !== null || event.detail === 2)) this.#open(n, !row.isOpen);
  }

  #key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey || this.#rows.length === 0) return;
    const n = rowOf(this.#rows, this.#selected);
    const row = this.#rows[n];
    const page = Math.max(1, Math.floor(this.#tree.clientHeight / ROW) - 1);
    const last = this.#rows.length - 1;
    const keys = {
      ArrowDown: () => this.#select(Math.min(last, n + 1)),
      ArrowUp: () => this.#select(Math.max(0, n - 1)),
      PageDown: () => this.#select(Math.min(last, n + page)),
      PageUp: () => this.#select(Math.max(0, n - page)),
      Home: () => this.#select(0),
      End: () => this.#select(last),
      ArrowRight: () => (row.isOpen === false ? this.#open(n, true) : row.isOpen === true && this.#select(n + 1)),
      ArrowLeft: () => (row.isOpen === true ? this.#open(n, false) : row.parent >= 0 && this.#select(row.parent)),
      Enter: () => row.isOpen !== null && this.#open(n, !row.isOpen),
      "*": () => this.#openSiblings(n),
    };
    keys[" "] = keys.Enter;
    const isWord = performance.now() - this.#typed.at < TYPING_MS && this.#typed.text !== "";
    if (Object.hasOwn(keys, event.key) && !(event.key === " " && isWord)) {
      this.#typed.text = "";
      keys[event.key]();
    } else if (isWord ? event.key.length === 1 : LETTER.test(event.key)) this.#type(event.key, n, isWord);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  /** All beside a row, as far as there is a point in that. */
  #openSiblings(n) {
    const { parent } = this.#rows[n];
    const siblings = [];
    for (let other = Math.max(0, parent); other < this.#rows.length && siblings.length < 1000; other += 1) {
      if (this.#rows[other].parent === parent && this.#rows[other].isOpen === false) siblings.push(stepsOf(this.#rows, other));
    }
    for (const steps of siblings) this.#opened.set(steps, true);
    this.#flatten();
  }

  /** To the next row whose key begins with what was typed. */
  #type(letter, n, isWord) {
    const text = (isWord ? this.#typed.text : "") + letter.toLowerCase();
    this.#typed = { text, at: performance.now() };
    const from = isWord ? n : n + 1;
    for (let step = 0; step < this.#rows.length; step += 1) {
      const other = (from + step) % this.#rows.length;
      if (String(this.#rows[other].key ?? "").toLowerCase().startsWith(text)) {
        this.#select(other);
        return;
      }
    }
  }
}

