// What one change is, and what it did: its header, and its JSON Patch for people, with what was there before.

import * as api from "./api.js";
import { button, el } from "./dom.js";
import { patched, read } from "./model.js";
import { pathText } from "./rows.js";
import { textPieces } from "./textdiff.js";
import { counted, cut, moment, number, printable, short } from "./text.js";
import { kindName, lineText, pretty } from "./values.js";

/** Operations that are shown at once. */
const OPERATIONS = 100;
/** Letters of a value, of a message. */
const LETTERS = 300;
/** Letters of "all" of it. */
const ALL = 500_000;
/** Letters of a text beyond which differences are not marked. */
const MARKED = 2_000_000;

/** See above. `go(hash)` when a dep is wanted. */
export class Changes {
  element;
  #id;
  #history;
  #go;
  #request;
  #body;
  #hash;

  constructor(id, history, go) {
    this.#id = id;
    this.#history = history;
    this.#go = go;
    this.#body = el("div", { class: "body", tabIndex: 0, "aria-label": "The change" });
    this.element = el("section", { class: "pane change", "aria-label": "Change" }, this.#body);
  }

  focus() {
    this.#body.focus();
  }

  close() {
    this.#request?.abort();
  }

  /** Shows a change of the document's history. */
  async show(change) {
    if (change.hash === this.#hash) return;
    this.#hash = change.hash;
    this.#request?.abort();
    const request = new AbortController();
    this.#request = request;
    const did = el("div", { class: "did" }, el("p", { class: "hint" }, "reading what it did …"));
    this.#body.replaceChildren(this.#header(change), did);
    this.#body.scrollTop = 0;
    try {
      const deps = [...change.deps].sort().join(".");
      const [{ patch }, before] = await Promise.all([api.change(this.#id, change.hash, request.signal), deps === "" ? {} : this.#history.value(deps, request.signal)]);
      if (!request.signal.aborted) did.replaceChildren(...operations(patch, before));
    } catch (problem) {
      if (problem.name === "AbortError") return;
      this.#hash = undefined;
      did.replaceChildren(el("p", { class: "problem", role: "alert" }, `What it did can't be shown: ${printable(problem.message)}`));
    }
  }

  #header(change) {
    const entry = (name, ...shown) => el("div", {}, el("dt", {}, name), el("dd", {}, ...shown));
    const deps = change.deps.map((hash) => button(short(hash), () => this.#go(hash), { class: "link", title: hash }));
    return el(
      "header",
      {},
      el("h2", {}, `Change ${number(change.place + 1)}`),
      change.message === null || change.message === "" ? null : el("blockquote", {}, longText(change.message, "bdi")),
      el(
        "dl",
        {},
        entry("hash", el("code", {}, change.hash)),
        entry("actor", el("code", {}, change.actor), ` · its ${ordinal(change.seq)}`),
        entry("received", change.receivedAt === null ? "not recorded" : moment(change.receivedAt), change.principal === null ? "" : el("bdi", {}, ` from ${printable(change.principal)}`)),
        entry("author’s clock", change.time === null ? "says nothing" : moment(change.time)),
        entry("ops", `${number(change.ops)}, from ${number(change.startOp)}`),
        entry("made on", deps.length === 0 ? "nothing: it is a beginning" : deps),
      ),
    );
  }
}

function ordinal(seq) {
  const ends = { 1: "st", 2: "nd", 3: "rd" };
  const isTeen = Math.floor((seq % 100) / 10) === 1;
  return `${number(seq)}${isTeen ? "th" : (ends[seq % 10] ?? "th")}`;
}

/** A patch's operations, with what was there before each. */
function operations(patch, before) {
  if (patch.length === 0) return [el("p", { class: "hint" }, "It changed nothing that can be seen: what it did was overwritten, or is the same as before.")];
  const done = [];
  patched(before, patch, (one) => done.push(one));
  const list = el("ol", { class: "patch" });
  const more = button("", () => put());
  let shown = 0;
  const put = () => {
    for (const operation of done.slice(shown, shown + OPERATIONS)) list.append(el("li", {}, one(operation)));
    shown = Math.min(done.length, shown + OPERATIONS);
    more.hidden = shown === done.length;
    more.textContent = `show more (${number(done.length - shown)} left)`;
  };
  put();
  return [el("h3", {}, `What it did`, el("small", {}, ` ${counted(done.length, "place")}`)), list, more];
}

const SIGNS = { add: ["+", "added"], remove: ["−", "removed"], replace: ["~", "changed"] };

function one({ op, steps, isInArray, before, after }) {
  // To put something where something is replaces it, but for arrays.
  const isNew = op === "add" && (isInArray || before === undefined);
  const [sign, name] = isNew ? (isInArray ? ["+", "inserted"] : SIGNS.add) : op === "remove" ? SIGNS.remove : SIGNS.replace;
  const head = el("div", { class: "where" }, el("span", { class: "sign", "aria-hidden": "true" }, sign), el("span", { class: "name" }, name), " ", el("bdi", { class: "path" }, pathOf(steps)));
  return el("div", { class: `operation ${name}` }, head, isNew ? whole(after, "new") : op === "remove" ? whole(before, "old") : change(before, after));
}

function pathOf(steps) {
  const text = printable(pathText(steps));
  return text.length > 400 ? `${cut(text, 200)}…${text.slice(-200)}` : text;
}

/** What was there, and what is. */
function change(before, after) {
  const [old, now] = [read(before ?? null), read(after ?? null)];
  const isText = (kind) => kind === "text" || kind === "string";
  if (isText(old.kind) && old.kind === now.kind && old.value.length + now.value.length < MARKED) {
    return el("div", { class: "text-change" }, textPieces(old.value, now.value).map(piece));
  }
  if (old.kind === "counter" && now.kind === "counter") {
    const by = BigInt(now.value) - BigInt(old.value);
    return el("div", { class: "values" }, whole(before, "old"), el("span", { class: "arrow" }, "→"), whole(after, "new"), el("span", { class: "by" }, ` (${by > 0n ? "+" : ""}${by})`));
  }
  const kinds = old.kind === now.kind ? null : el("span", { class: "by" }, ` (${kindName(old.kind)} → ${kindName(now.kind)})`);
  return el("div", { class: "values" }, whole(before, "old"), el("span", { class: "arrow", "aria-label": "became" }, "→"), whole(after, "new"), kinds);
}

function piece({ kind, text }) {
  if (kind === "skip") return el("span", { class: "skip" }, ` … ${number(Number(text))} letters … `);
  const tag = { old: "del", new: "ins", same: "span" }[kind];
  return longText(text, tag);
}

/** A value, cut if it is long. */
function whole(json, side) {
  const tag = side === "old" ? "del" : "ins";
  const { kind, value } = read(json ?? null);
  if (kind === "text" || kind === "string") return longText(value, tag);
  if (kind !== "object" && kind !== "array") return el(tag, {}, lineText(kind, value));
  const text = pretty(json, LETTERS);
  if (text.length < LETTERS) return el(tag, { class: "json" }, text);
  return expandable(tag, text, () => pretty(json, ALL), "json");
}

function longText(text, tag) {
  if (text.length <= LETTERS) return el(tag, {}, printable(text, true));
  const all = () => printable(cut(text, ALL), true) + (text.length > ALL ? "…" : "");
  return expandable(tag, `${printable(cut(text, LETTERS), true)}…`, all, "", `show all ${number(text.length)} letters`);
}

function expandable(tag, start, all, className, label = "show all") {
  const shown = el(tag, { class: className }, start);
  const more = button(label, () => {
    shown.textContent = all();
    shown.classList.add("all");
    more.remove();
  }, { class: "link" });
  return el("span", {}, shown, more);
}
