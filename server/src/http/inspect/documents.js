// Which documents there are: a page of them after the other, filtered by how their ids begin.

import * as api from "./api.js";
import { button, el } from "./dom.js";
import { format } from "./route.js";
import { counted, moment, printable, shortMoment } from "./text.js";

/** Documents to a page. */
const PAGE = 50;
/** Between a letter and the request that it leads to, milliseconds. */
const TYPING_MS = 150;

/** See above. */
export class Documents {
  element;
  #list;
  #more;
  #says;
  #filter;
  #request;
  #timer;
  #next = null;
  #current = null;

  constructor() {
    this.#filter = el("input", { type: "search", placeholder: "ids that begin with …", "aria-label": "Filter by the beginning of ids", spellcheck: "false", autocomplete: "off" });
    this.#filter.addEventListener("input", () => {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => void this.load(), TYPING_MS);
    });
    this.#list = el("ul", { class: "documents" });
    this.#says = el("p", { class: "hint", role: "status" });
    this.#more = button("show more", () => void this.#read(this.#next), { hidden: true });
    const again = button("↻", () => void this.load(), { "aria-label": "Read the list again", title: "read the list again" });
    this.element = el("nav", { class: "pane documents-pane", "aria-label": "Documents" }, el("div", { class: "bar" }, el("h2", {}, "Documents"), again), this.#filter, this.#list, this.#says, this.#more);
  }

  focus() {
    (this.#list.querySelector("a[aria-current]") ?? this.#list.querySelector("a") ?? this.#filter).focus();
  }

  /** Marks the one that is open. */
  set current(id) {
    this.#current = id;
    for (const link of this.#list.querySelectorAll("a")) this.#mark(link);
  }

  /** Reads the list from its beginning. */
  load() {
    return this.#read(null);
  }

  async #read(after) {
    this.#request?.abort();
    const request = new AbortController();
    this.#request = request;
    const prefix = this.#filter.value.trim().replace(/^automerge:/, "");
    if (after === null) this.#says.textContent = "reading …";
    let page;
    try {
      page = await api.documents({ limit: PAGE, after: after ?? justBefore(prefix) }, request.signal);
    } catch (problem) {
      if (problem.name === "AbortError") return;
      this.#says.textContent = problem.code === "away" ? "The server does not answer." : printable(problem.message);
      return;
    }
    const found = page.documents.filter(({ id }) => id.startsWith(prefix));
    if (after === null) this.#list.replaceChildren();
    this.#list.append(...found.map((document) => el("li", {}, this.#link(document))));
    // They come in the order of their ids: behind the last that fits none does.
    const isEnd = page.next === null || (found.length < page.documents.length && found.length > 0) || (found.length === 0 && page.documents.some(({ id }) => id > prefix));
    this.#next = isEnd ? null : page.next;
    this.#more.hidden = isEnd;
    const count = this.#list.childElementCount;
    if (count > 0) this.#says.textContent = isEnd ? counted(count, "document") : `the first ${count}`;
    else this.#says.textContent = prefix === "" ? "There are no documents yet." : "No id begins so.";
  }

  #link({ id, changes, createdAt, code }) {
    const about =
      code === undefined ? [el("span", {}, counted(changes, "change")), el("time", { datetime: createdAt, title: moment(createdAt) }, shortMoment(createdAt, false))] : [el("span", { class: "problem" }, "can’t be read: storage-failed")];
    const link = el("a", { href: format({ page: "document", id }), title: printable(id) }, el("code", {}, printable(id)), el("small", {}, about));
    link.named = id;
    this.#mark(link);
    return link;
  }

  #mark(link) {
    if (link.named === this.#current) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

/** An id before all that begin so, and after as many others as can be said; `null` for the beginning. */
function justBefore(prefix) {
  const last = prefix.codePointAt(prefix.length - 1);
  if (last === undefined || last <= 0x21 || last > 0x7e || prefix.length > 40) return null;
  return `${prefix.slice(0, -1)}${String.fromCodePoint(last - 1)}\u{10fffd}`;
}
