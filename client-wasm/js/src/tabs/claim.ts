/** A lock that one waits for or holds: the Web Locks API with a release, and without unhandled rejections. */

import type { Locks } from "./platform.js";

/** How a lock is asked for. */
export type ClaimKind =
  /** Waits its turn. */
  | "wait"
  /** Waits until nobody holds it exclusively. */
  | "share"
  /** Now, or not at all. */
  | "try"
  /** Now; all who hold it lose it. */
  | "steal";

/** What becomes of a claim. At most one of the last three is called, and nothing after `release`. */
export interface ClaimEvents {
  /** The lock is held from now on. */
  granted(): void;
  /** Somebody else holds it (kind `"try"` only). */
  refused?(): void;
  /** It was held, and somebody stole it. */
  lost(): void;
  /** It can't be had. */
  failed(): void;
}

/** Asks for a lock; it is held, once granted, until released or stolen. */
export class Claim {
  #over = false;
  readonly #waiting = new AbortController();
  #free: (() => void) | undefined;

  constructor(locks: Locks, name: string, kind: ClaimKind, events: ClaimEvents) {
    const options: LockOptions =
      kind === "steal"
        ? { steal: true }
        : kind === "try"
          ? { ifAvailable: true }
          : { mode: kind === "share" ? "shared" : "exclusive", signal: this.#waiting.signal };
    const granted = (lock: unknown): Promise<void> | void => {
      // Released while the grant was on its way: returning gives it back.
      if (this.#over) return;
      if (lock === null) {
        this.#over = true;
        events.refused?.();
        return;
      }
      const held = new Promise<void>((free) => {
        this.#free = free;
      });
      events.granted();
      return held;
    };
    const ended = (): void => {
      if (this.#over) return;
      this.#over = true;
      if (this.#free === undefined) events.failed();
      else events.lost();
    };
    try {
      // Resolves only when given back, so that is nothing to tell of.
      locks.request(name, options, granted).catch(ended);
    } catch {
      // Not from inside the constructor: the owner has no claim to release yet.
      queueMicrotask(ended);
    }
  }

  /** Whether it was released, refused, lost or failed. */
  get over(): boolean {
    return this.#over;
  }

  /** Gives the lock back, or stops waiting for it. */
  release(): void {
    if (this.#over) return;
    this.#over = true;
    if (this.#free === undefined) this.#waiting.abort();
    else this.#free();
  }
}
