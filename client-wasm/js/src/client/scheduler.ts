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
    const wait = Math.max(0, this.#notBefore - this.#clocks.now());
    let due = true;
    const run = (): void => {
      if (due) {
        due = false;
        this.#run();
      }
    };
    if (wait > 0 || !this.#clocks.visible()) {
      this.#clocks.later(run, wait);
    } else {
      this.#clocks.nextFrame(run);
      this.#clocks.later(run, LONGEST_FRAME_MS);
    }
  }

  #run(): void {
    this.#requested = false;
    const begun = this.#clocks.now();
    this.#work();
    const ended = this.#clocks.now();
    this.#notBefore = ended + (ended - begun);
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
