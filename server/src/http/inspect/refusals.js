// What the server refused last, of all documents or of one; asked again while somebody looks.

import * as api from "./api.js";
import { el } from "./dom.js";
import { format } from "./route.js";
import { ago, counted, cut, moment, number, printable, short } from "./text.js";

/** Between two questions, milliseconds. */
const AGAIN_MS = 3000;

/** See above. */
export class Refusals {
  element;
  #id;
  #list;
  #says;
  #filter;
  #timer;
  #request;
  #seen = "";

  /** `id`: of one document, or `null` for all. `choose(id)` when another filter is wanted. */
  constructor(id, choose) {
    this.#id = id;
    this.#filter = el("input", { type: "search", value: id ?? "", placeholder: "of all documents: an id filters", "aria-label": "Only refusals of this document", spellcheck: "false", autocomplete: "off" });
    this.#filter.addEventListener("change", () => choose(this.#filter.value.trim() === "" ? null : this.#filter.value));
    this.#list = el("ol", { class: "refusals", tabIndex: 0, "aria-label": "Refusals, the last one first" });
    this.#says = el("p", { class: "hint", role: "status" }, "reading …");
    this.element = el("section", { class: "pane refusals-pane", "aria-label": "Refusals" }, el("div", { class: "bar" }, el("h2", {}, "Refused"), this.#filter), this.#says, this.#list);
    document.addEventListener("visibilitychange", this.#look);
    void this.#read();
  }

  focus() {
    this.#list.focus();
  }

  close() {
    clearTimeout(this.#timer);
    this.#request?.abort();
    document.removeEventListener("visibilitychange", this.#look);
  }

  #look = () => {
    clearTimeout(this.#timer);
    if (document.visibilityState === "visible") void this.#read();
  };

  async #read() {
    this.#request?.abort();
    const request = new AbortController();
    this.#request = request;
    try {
      const { refusals } = await api.refusals(this.#id, request.signal);
      this.#show(refusals);
    } catch (problem) {
      if (problem.name === "AbortError") return;
      this.#says.textContent = problem.code === "away" ? "The server does not answer; it is asked again." : printable(problem.message);
      this.#seen = "";
    }
    clearTimeout(this.#timer);
    if (document.visibilityState === "visible") this.#timer = setTimeout(() => void this.#read(), AGAIN_MS);
  }

  #show(refusals) {
    const now = Date.now();
    const what = this.#id === null ? "since the server was started" : "of this document since the server was started";
    this.#says.textContent = refusals.length === 0 ? `Nothing was refused ${what}.` : `${counted(refusals.length, "entry").replace("entrys", "entries")}; the server remembers the last ones, and counts what is refused again.`;
    // What is the same stays, with whatever somebody has selected in it.
    const seen = JSON.stringify(refusals);
    if (seen === this.#seen) {
      for (const time of this.#list.querySelectorAll("time")) time.textContent = ago(time.dateTime, now);
      return;
    }
    this.#seen = seen;
    this.#list.replaceChildren(...refusals.map((refusal) => entry(refusal, now)));
  }
}

function entry(refusal, now) {
  const { code, reason, times, lastAt, firstAt, document: id, hash, peer, principal, address } = refusal;
  const again = times > 1 ? el("span", { class: "badge", title: `first ${moment(firstAt)}` }, `${number(times)} times`) : null;
  const fact = (name, ...shown) => el("div", {}, el("dt", {}, name), el("dd", {}, ...shown));
  return el(
    "li",
    {},
    el("div", { class: "bar" }, el("code", { class: "code" }, printable(code)), again, el("time", { datetime: lastAt, title: moment(lastAt) }, ago(lastAt, now))),
    el("p", { class: "reason" }, el("bdi", {}, printable(cut(reason, 600)))),
    el(
      "dl",
      {},
      id === null ? null : fact("document", el("a", { href: format({ page: "document", id }) }, el("code", {}, printable(id)))),
      hash === null ? null : fact("change", el("code", { title: hash }, short(hash))),
      fact("from", el("code", {}, printable(address)), principal === "anonymous" ? null : el("bdi", {}, ` as ${printable(cut(principal, 80))}`)),
      peer === null ? null : fact("peer", el("bdi", { title: printable(peer) }, printable(cut(peer, 60)))),
    ),
  );
}
