/**
 * When what was received is applied: once for each animation frame at most, and never oftener than applying
 * takes, since applying one change costs a pass over the objects it touches.
 */

/** The clocks that a {@link Scheduler} runs on. */
export interface Clocks {
  /** Milliseconds, monotonic. */
  now(): number;
  /** Before the next picture is painted; not called at all while the page is hidden. */
  nextFrame(then: () => void): void;
  /** After so many milliseconds, at least. */
  later(then: () => void, ms: number): void;
  /** Whether anybody sees the page. */
  visible(): boolean;
}

/** A frame that never comes, because the page was hidden meanwhile, is waited for so long. Milliseconds. */
const LONGEST_FRAME_MS = 100;

/** Runs `work` some time after {@link Scheduler.request}, once for all requests until then. */
export class Scheduler {
  readonly #work: () => void;
  readonly #clocks: Clocks;
  #requested = false;
  #working = false;
  /** No sooner than this, by `now`. */
  #notBefore = 0;

  constructor(work: () => void, clocks: Clocks = browserClocks()) {
    this.#work = work;
    this.#clocks = clocks;
  }

  request(): void {
    if (this.#requested) {
      return;
    }
    this.#requested = true;
    // When to run after that is known when the work is done.
    if (!this.#working) {
      this.#wait();
    }
  }

  /** First as long as the work took, and then for a frame if somebody is to see it. */
  #wait(): void {
    const wait = this.#notBefore - this.#clocks.now();
    if (wait > 0) {
      this.#clocks.later(() => (this.#clocks.visible() ? this.#wait() : this.#run()), wait);
      return;
    }
    if (!this.#clocks.visible()) {
      this.#clocks.later(() => this.#run(), 0);
      return;
    }
    let due = true;
    const run = (): void => {
      if (due) {
        due = false;
        this.#run();
      }
    };
    this.#clocks.nextFrame(run);
    this.#clocks.later(run, LONGEST_FRAME_MS);
  }

  #run(): void {
    this.#requested = false;
    this.#working = true;
    const begun = this.#clocks.now();
    try {
      this.#work();
    } finally {
      this.#working = false;
      const ended = this.#clocks.now();
      this.#notBefore = ended + (ended - begun);
      if (this.#requested) {
        this.#wait();
      }
    }
  }
}

/** The clocks of the page, or of Node. */
export function browserClocks(): Clocks {
  const hasFrames = typeof requestAnimationFrame === "function";
  return {
    now: () => performance.now(),
    nextFrame: (then) => void (hasFrames ? requestAnimationFrame(then) : setTimeout(then, 0)),
    later: (then, ms) => void setTimeout(then, ms),
    visible: () => typeof document === "undefined" || document.visibilityState === "visible",
  };
}
