// One document's page: its parts, and what they tell each other. There is one thing that they all show, the place in
// the history; it changes here, and who wants another one asks `goTo`.

import * as api from "./api.js";
import { Changes } from "./changes.js";
import { button, copy, el } from "./dom.js";
import { Graph } from "./graph.js";
import { History } from "./history.js";
import { Live } from "./live.js";
import { VIEWS, format } from "./route.js";
import { Timeline } from "./timeline.js";
import { Tree } from "./tree.js";
import { counted, printable } from "./text.js";

/** How long a place must be meant before its document is asked for, milliseconds: who slides asks once a pause. */
const SETTLE_MS = 40;
/** Between two looks at a history that grows, milliseconds. */
const GROWTH_MS = 400;

/** See above. `goTo(place)`, `goView(view)`: what the address is to say; `state(state)`: whether it is live. */
export class DocumentPage {
  element;
  #id;
  #history;
  #live;
  #tree;
  #timeline;
  #graph;
  #change;
  #place = null;
  #at;
  #request;
  #timer;
  #growing = null;
  #isLooking = false;
  #isClosed = false;
  #ticksOf = 0;
  #count;
  #notice;
  #past;
  #tabs;
  #say;

  constructor(id, goTo, goView, say) {
    this.#id = id;
    this.#say = say;
    this.#history = new History(id);
    this.#tree = new Tree(id);
    this.#timeline = new Timeline(goTo);
    this.#graph = new Graph(this.#history, (place) => goTo(place >= this.#history.count - 1 ? null : place));
    this.#change = new Changes(id, this.#history, (hash) => void this.#toHash(hash, goTo));
    this.#count = el("span", { class: "count" });
    this.#notice = el("p", { class: "notice", role: "status" }, "reading …");
    this.#past = el("span", { class: "badge past", hidden: true }, "as it was");
    const url = `automerge:${id}`;
    const copyUrl = button("copy URL", () => void copy(url, copyUrl), { title: printable(url) });
    const refusals = el("a", { href: format({ page: "refusals", id }) }, "refusals");
    this.#tabs = el("div", { class: "tabs", role: "group", "aria-label": "Part" }, ...VIEWS.map((view) => button(view, () => goView(view), { "data-view": view })));
    this.element = el(
      "main",
      { class: "document" },
      el("header", { class: "title" }, el("h1", {}, el("code", {}, printable(id))), this.#count, this.#past, copyUrl, refusals),
      this.#notice,
      this.#timeline.element,
      this.#tabs,
      el("div", { class: "parts" }, this.#graph.element, this.#tree.element, this.#change.element),
    );
    this.#live = new Live(id, { changed: (what) => this.#changed(what), state: (state, problem) => this.#state(state, problem) });
    void this.#grow();
  }

  get parts() {
    return { timeline: this.#timeline, tree: this.#tree, graph: this.#graph, change: this.#change };
  }

  step(by) {
    this.#timeline.step(by);
  }

  close() {
    this.#isClosed = true;
    clearTimeout(this.#timer);
    clearTimeout(this.#growing);
    this.#request?.abort();
    this.#graph.close();
    this.#change.close();
    this.#live.close();
  }

  /** Shows the document at a place (or by a change's hash), or now. */
  show(at, view) {
    this.element.dataset.view = view;
    for (const tab of this.#tabs.children) tab.setAttribute("aria-pressed", tab.dataset.view === view);
    if (this.#at === at) return;
    this.#at = at;
    clearTimeout(this.#timer);
    this.#request?.abort();
    const isNow = at === null;
    if (typeof at !== "string") {
      this.#place = at;
      this.#timeline.place = at;
    }
    this.#past.hidden = isNow;
    if (isNow) this.#showLive();
    // What was read before is shown at once; what must be asked for waits until somebody stays.
    this.#timer = setTimeout(() => void this.#showPlace(), this.#history.count === 0 ? 0 : SETTLE_MS);
    const known = typeof at === "string" ? undefined : this.#history.known(at ?? this.#history.count - 1);
    if (known !== undefined) this.#timeline.describe(known);
  }

  #showLive() {
    if (this.#live.value !== undefined) this.#tree.show(this.#live.value);
  }

  async #showPlace() {
    this.#request?.abort();
    const request = new AbortController();
    this.#request = request;
    const { signal } = request;
    try {
      if (this.#history.count === 0 && (await this.#counted(signal)) === 0) return;
      if (typeof this.#at === "string") {
        const { place } = await api.change(this.#id, this.#at, signal);
        this.#place = place;
        this.#timeline.place = place;
      }
      const place = Math.min(this.#place ?? Infinity, this.#history.count - 1);
      this.#timeline.count = this.#history.count;
      const change = await this.#history.change(place, signal);
      if (change === undefined) return;
      this.#graph.show(place, this.#history.count);
      this.#timeline.describe(change);
      const shown = this.#change.show(change);
      if (this.#at !== null) {
        const value = await this.#history.value(change.version, signal);
        if (!signal.aborted) this.#tree.show(value, { version: change.version });
      }
      await shown;
      if (this.#at !== null && !signal.aborted) this.#notice.hidden = true;
    } catch (problem) {
      if (problem.name !== "AbortError" && !this.#isClosed) this.#problem(problem);
    }
  }

  async #toHash(hash, goTo) {
    try {
      const { place } = await api.change(this.#id, hash);
      goTo(place);
    } catch (problem) {
      this.#problem(problem);
    }
  }

  #changed({ before, operations }) {
    this.#history.keep(this.#live.version, this.#live.value);
    this.#notice.hidden = true;
    if (this.#at === null) this.#tree.show(this.#live.value, { operations: before === undefined ? null : operations });
    this.#growSoon();
  }

  #growSoon() {
    if (this.#growing === null && !this.#isClosed) this.#growing = setTimeout(() => void this.#grow(), GROWTH_MS);
  }

  /** More changes came: how many there are, and the last one, if that is shown. */
  async #grow() {
    this.#growing = null;
    if (this.#isLooking) {
      this.#growSoon();
      return;
    }
    this.#isLooking = true;
    try {
      const count = await this.#counted();
      if (this.#isClosed) return;
      this.#timeline.count = count;
      if (this.#at === null) await this.#showPlace();
      else if (typeof this.#place === "number") this.#graph.show(Math.min(this.#place, count - 1), count);
      await this.#times(count);
    } catch (problem) {
      if (problem.name !== "AbortError" && !this.#isClosed) this.#problem(problem);
    } finally {
      this.#isLooking = false;
    }
  }

  async #counted(signal) {
    const count = await this.#history.refresh(signal);
    this.#count.textContent = counted(count, "change");
    return count;
  }

  /** Times below the slider; read anew when the history has grown by a part of itself. */
  async #times(count) {
    if (count < this.#ticksOf * 1.1 && count > 0 && this.#ticksOf > 0) return;
    const read = async (place) => {
      const known = this.#history.known(place);
      const [change] = known === undefined ? (await api.changes(this.#id, { limit: 1, after: place === 0 ? null : place - 1 })).changes : [known];
      const time = change?.receivedAt ?? change?.time ?? null;
      return time === null ? [] : [[place, time]];
    };
    const times = (await Promise.all(Timeline.ticksOf(count).map(read))).flat();
    if (this.#isClosed) return;
    this.#timeline.times = times;
    this.#ticksOf = count;
  }

  #state(state, problem) {
    this.#say(state);
    if (state === "live") {
      // What could not be read while it was away.
      if (this.#notice.classList.contains("problem")) void this.#again();
    } else if (state === "gone") {
      this.#problem(problem);
    }
  }

  async #again() {
    this.#notice.classList.remove("problem");
    this.#notice.hidden = true;
    await this.#grow();
    if (this.#at !== null) await this.#showPlace();
  }

  #problem(problem) {
    const texts = { "no-document": "There is no document with this id here.", "bad-id": "This is no document id.", away: "The server does not answer. It is asked again." };
    this.#notice.textContent = texts[problem.code] ?? `This can’t be shown: ${printable(problem.message)} (${printable(problem.code ?? "internal")})`;
    this.#notice.classList.add("problem");
    this.#notice.hidden = false;
  }
}
