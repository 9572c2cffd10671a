// A slider through all versions of a document, in the order in which the server admitted its changes. At its end the
// document is shown as it is now, and stays so while more comes.

import { button, el } from "./dom.js";
import { counted, moment, number, ofOneDay, printable, cut, short, shortMoment } from "./text.js";

/** Places whose times are written below the slider. */
const TICKS = 5;

/** See above. `go(place)`: somebody wants to see that place; `null` is now. */
export class Timeline {
  element;
  #go;
  #slider;
  #ticks;
  #says;
  #now;
  #back;
  #on;
  #count = 0;
  #place = null;

  constructor(go) {
    this.#go = go;
    this.#slider = el("input", { type: "range", min: 0, max: 0, step: 1, "aria-label": "Version" });
    this.#slider.addEventListener("input", () => this.#moved(Number(this.#slider.value)));
    this.#slider.addEventListener("keydown", (event) => {
      const by = { PageUp: 10, PageDown: -10 }[event.key];
      if (by === undefined) return;
      event.preventDefault();
      this.step(by);
    });
    this.#ticks = el("div", { class: "ticks", "aria-hidden": "true" });
    this.#says = el("p", { class: "says", "aria-live": "off" });
    this.#back = button("‹", () => this.step(-1), { "aria-label": "One change back", title: "one change back ( , )" });
    this.#on = button("›", () => this.step(1), { "aria-label": "One change on", title: "one change on ( . )" });
    this.#now = button("now", () => this.#go(null), { class: "now", title: "back to now, live ( n )" });
    this.element = el(
      "section",
      { class: "timeline", "aria-label": "Timeline" },
      el("div", { class: "controls" }, this.#back, el("div", { class: "slide" }, this.#slider, this.#ticks), this.#on, this.#now),
      this.#says,
    );
  }

  focus() {
    this.#slider.focus();
  }

  /** So many changes on, or back. */
  step(by) {
    if (this.#count === 0) return;
    const from = this.#place ?? this.#count - 1;
    this.#moved(Math.min(this.#count - 1, Math.max(0, from + by)));
  }

  /** There are so many changes now. */
  set count(count) {
    this.#count = count;
    this.#slider.max = String(Math.max(0, count - 1));
    this.#set();
  }

  /** Which place is shown; `null` is now. */
  set place(place) {
    this.#place = place;
    this.#set();
  }

  /** What is known of the change at that place. */
  describe(change) {
    const place = this.#place ?? this.#count - 1;
    const which = `change ${number(place + 1)} of ${number(this.#count)}`;
    if (change === undefined) {
      this.#says.replaceChildren(el("strong", {}, which));
      return;
    }
    const time = change.receivedAt ?? change.time;
    const when = time === null ? "at an unknown time" : moment(time);
    const message = change.message === null || change.message === "" ? null : el("bdi", { class: "message" }, `“${printable(cut(change.message, 80))}${change.message.length > 80 ? "…" : ""}”`);
    this.#says.replaceChildren(
      el("strong", {}, which),
      el("span", {}, when),
      el("span", {}, "by ", el("code", {}, short(change.actor))),
      el("span", {}, counted(change.ops, "op")),
      message ?? "",
    );
    this.#slider.setAttribute("aria-valuetext", `${which}, ${when}, by ${short(change.actor)}, ${counted(change.ops, "op")}`);
  }

  /** Writes times below the slider: `[place, time]`. */
  set times(times) {
    const isOneDay = ofOneDay(times.map(([, time]) => time));
    const last = Math.max(1, this.#count - 1);
    this.#ticks.replaceChildren(
      ...times.map(([place, time]) => {
        const tick = el("span", {}, shortMoment(time, isOneDay));
        tick.style.left = `${(100 * place) / last}%`;
        return tick;
      }),
    );
  }

  /** The places whose times are wanted. */
  static ticksOf(count) {
    if (count < 2) return [];
    const most = Math.min(TICKS, count) - 1;
    return Array.from({ length: most + 1 }, (_, n) => Math.round(((count - 1) * n) / most));
  }

  #moved(place) {
    this.#go(place >= this.#count - 1 ? null : place);
  }

  #set() {
    const place = this.#place ?? Math.max(0, this.#count - 1);
    if (Number(this.#slider.value) !== place) this.#slider.value = String(place);
    this.#slider.disabled = this.#count < 2;
    this.#back.disabled = place <= 0;
    this.#on.disabled = place >= this.#count - 1;
    this.#now.disabled = this.#place === null;
    this.element.classList.toggle("past", this.#place !== null);
  }
}
