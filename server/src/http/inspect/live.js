// A document as it is now, by the server's events. While the server is away it is asked again and again; while nobody
// looks at the page nothing is asked, as a browser has six connections to a server, and a tab that is forgotten should
// hold none of them.

import { events, get, parseJson, addressOf } from "./api.js";
import { patched } from "./model.js";

/** After an answer that ends the events, milliseconds. */
const AGAIN_MS = 2000;

/** Patches in which positions were moved are told; of those with more operations only that all is new. */
const MOST_OPERATIONS = 2000;

/** See above. `value` and `version` are `undefined` until the first event. */
export class Live {
  value;
  version;
  #id;
  #listener;
  #source;
  #timer;
  #ended = false;

  /** `listener`: `changed({before, operations})`, the operations or `null` if all is new, and `state(state, problem)`. */
  constructor(id, listener) {
    this.#id = id;
    this.#listener = listener;
    document.addEventListener("visibilitychange", this.#look);
    this.#look();
  }

  close() {
    this.#ended = true;
    document.removeEventListener("visibilitychange", this.#look);
    this.#pause();
  }

  #look = () => {
    if (document.visibilityState === "hidden") {
      this.#pause();
    } else if (this.#source === undefined && !this.#ended) {
      this.#begin();
    }
  };

  #pause() {
    clearTimeout(this.#timer);
    this.#source?.close();
    this.#source = undefined;
  }

  #begin() {
    this.#pause();
    const source = new EventSource(events(this.#id, this.version));
    this.#source = source;
    source.onopen = () => this.#listener.state("live");
    source.onerror = () => {
      // Otherwise it tries again by itself.
      if (source.readyState === EventSource.CLOSED) void this.#refused();
      else this.#listener.state("away");
    };
    source.addEventListener("value", (event) => this.#set(event, parseJson(event.data), null));
    source.addEventListener("gone", (event) => this.#set(event, null, null));
    source.addEventListener("patch", (event) => {
      const operations = parseJson(event.data);
      let value;
      const done = [];
      try {
        value = patched(this.value, operations, (one) => done.push(one));
      } catch {
        // It was made of another value than ours.
        this.version = undefined;
        this.#begin();
        return;
      }
      this.#set(event, value, done.length > MOST_OPERATIONS ? null : done);
    });
  }

  #set(event, value, operations) {
    const before = this.value;
    this.value = value;
    this.version = event.lastEventId;
    this.#listener.changed({ before, operations });
  }

  /** Why there are no events can only be learnt by asking for something else. */
  async #refused() {
    this.#pause();
    try {
      await get(addressOf(this.#id, "/changes", { limit: 1 }));
      this.#listener.state("away");
    } catch (problem) {
      this.#listener.state(problem.code === "away" || problem.status >= 500 ? "away" : "gone", problem);
    }
    if (!this.#ended) this.#timer = setTimeout(this.#look, AGAIN_MS);
  }
}
