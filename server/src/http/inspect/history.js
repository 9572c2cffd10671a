// The changes of a document in the order in which the server admitted them, in pages that are read when they are
// wanted, and the version that the document had after each.

import * as api from "./api.js";
import { versions } from "./versions.js";

/** Changes to a page. */
export const PAGE = 200;

/** Pages that are kept, at some 100 kB each. */
const MOST_PAGES = 60;

/** Documents at old versions that are kept. Of large ones one is much. */
const MOST_VALUES = 4;

/** See above. Each change has its `place`, and `version` besides what the server says of it. */
export class History {
  count = 0;
  #id;
  #pages = new Map();
  #values = new Map();

  constructor(id) {
    this.#id = id;
  }

  /** Asks how many there are now; the last page is read anew when it is wanted. */
  async refresh(signal) {
    const { count } = await api.changes(this.#id, { limit: 1, order: "newest" }, signal);
    if (count !== this.count) {
      this.#pages.delete(Math.floor(this.count / PAGE));
      if (count < this.count) this.#pages.clear();
      this.count = count;
    }
    return count;
  }

  /** The change at a place; `undefined` where none is. */
  async change(place, signal) {
    const page = await this.#page(Math.floor(place / PAGE), signal);
    return page[place % PAGE];
  }

  /** The change at a place, if its page was read already. */
  known(place) {
    return this.#pages.get(Math.floor(place / PAGE))?.[place % PAGE];
  }

  /** Those at these places, as far as there are any. */
  async between(first, end, signal) {
    const numbers = [];
    for (let number = Math.floor(first / PAGE); number * PAGE < Math.min(end, this.count); number += 1) {
      numbers.push(number);
    }
    const pages = await Promise.all(numbers.map((number) => this.#page(number, signal)));
    return pages.flat().filter(({ place }) => place >= first && place < end);
  }

  /** The document after the change at a place. */
  async value(version, signal) {
    const known = this.#values.get(version);
    if (known !== undefined) return known;
    const value = await api.value(this.#id, version, signal);
    this.keep(version, value);
    return value;
  }

  /** Remembers a document at a version. */
  keep(version, value) {
    this.#values.delete(version);
    this.#values.set(version, value);
    if (this.#values.size > MOST_VALUES) this.#values.delete(this.#values.keys().next().value);
  }

  async #page(number, signal) {
    const known = this.#pages.get(number);
    if (known !== undefined) {
      this.#pages.delete(number);
      this.#pages.set(number, known);
      return known;
    }
    const first = number * PAGE;
    const version = first === 0 ? "" : api.versionOf(this.#id, first - 1, signal);
    const page = [];
    let next = first === 0 ? null : first - 1;
    do {
      // Long messages end a page early.
      const answer = await api.changes(this.#id, { limit: PAGE - page.length, after: next }, signal);
      page.push(...answer.changes);
      next = answer.next;
    } while (next !== null && page.length < PAGE);
    versions(page, await version);
    const isWhole = page.length === PAGE || first + page.length >= this.count;
    if (isWhole) {
      this.#pages.set(number, page);
      if (this.#pages.size > MOST_PAGES) this.#pages.delete(this.#pages.keys().next().value);
    }
    return page;
  }
}
