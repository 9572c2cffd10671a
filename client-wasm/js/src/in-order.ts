/** Steps one after the other: one that begins while another is under way comes after it, not within. */
export class InOrder {
  readonly #waiting: (() => void)[] = [];
  #isBusy = false;

  /** Runs a step, now or, within another one, after those that came before. */
  run(step: () => void): void {
    this.#waiting.push(step);
    if (this.#isBusy) {
      return;
    }
    this.#isBusy = true;
    try {
      for (let next = this.#waiting.shift(); next !== undefined; next = this.#waiting.shift()) {
        next();
      }
    } finally {
      this.#isBusy = false;
    }
  }
}
