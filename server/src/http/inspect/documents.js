// Which documents there are: a page of them after the other, filtered by how their ids begin.

import * as api from "./api.js";
import { button, el } from "./dom.js";
import { format } from "./route.js";
import { counted, moment, printable, shortMoment } from "./text.js";

/** Documents to a page. */
const PAGE = 50;
/** To one that is looked through: all that the server gives at a time. */
const PAGE_OF_SEARCH = 1000;
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
  #read;
  #current = null;

  constructor() {
    this.#filter = el("input", { type: "search", placeholder: "ids that begin with …", "aria-label": "Filter by the beginning of ids", spellcheck: "false", autocomplete: "off" });
    this.#filter.addEventListener("input", () => {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => void this.load(), TYPING_MS);
    });
    this.#list = el("ul", { class: "documents" });
    this.#says = el("p", { class: "hint", role: "status" });
    this.#more = button("show more", () => void this.#show(false), { hidden: true });
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
    this.#read = found(this.#filter.value.trim().replace(/^automerge:/, ""));
    return this.#show(true);
  }

  async #show(isNew) {
    this.#request?.abort();
    const request = new AbortController();
    this.#request = request;
    const read = this.#read;
    if (isNew) this.#says.textContent = "reading …";
    let page;
    try {
      page = await read(request.signal);
    } catch (problem) {
      if (problem.name === "AbortError") return;
      this.#says.textContent = problem.code === "away" ? "The server does not answer." : printable(problem.message);
      return;
    }
    if (isNew) this.#list.replaceChildren();
    this.#list.append(...page.documents.map((document) => el("li", {}, this.#link(document))));
    this.#more.hidden = page.isEnd;
    const count = this.#list.childElementCount;
    if (count > 0) this.#says.textContent = page.isEnd ? counted(count, "document") : `the first ${count}`;
    else this.#says.textContent = this.#filter.value.trim() === "" ? "There are no documents yet." : "No id begins so.";
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

/**
 * Reads documents whose ids begin so, a page of them at each call: `{documents, isEnd}`. What a call that fails had read
 * is there for the next one.
 */
function found(prefix) {
  const limit = prefix === "" ? PAGE : PAGE_OF_SEARCH;
  const waiting = [];
  let after = null;
  let isEnd = false;
  return async (signal) => {
    // One more tells whether there are more to show.
    while (!isEnd && waiting.length <= PAGE) {
      const { documents, next } = await api.documents({ limit, after }, signal);
      signal.throwIfAborted();
      waiting.push(...documents.filter(({ id }) => id.startsWith(prefix)));
      after = next;
      // They come in the order of their ids: behind the last that fits none does.
      isEnd = next === null || documents.some(({ id }) => id > prefix && !id.startsWith(prefix));
    }
    return { documents: waiting.splice(0, PAGE), isEnd: isEnd && waiting.length === 0 };
  };
}
