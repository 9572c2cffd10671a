import { InOrder } from "./in-order.js";

/**
 * Listeners by event. One that throws keeps no other from being called, and all are called for one event before any is
 * for the next, also when a listener brings that about.
 */
export class Emitter<Events extends { [Name in keyof Events]: (...args: never[]) => void }> {
  readonly #listeners = new Map<keyof Events, Set<Events[keyof Events]>>();
  readonly #order = new InOrder();

  /** Calls `listener` from now on, until the returned function is called. */
  on<Name extends keyof Events>(name: Name, listener: Events[Name]): () => void {
    let all = this.#listeners.get(name);
    if (all === undefined) {
      all = new Set();
      this.#listeners.set(name, all);
    }
    all.add(listener);
    return () => void all.delete(listener);
  }

  emit<Name extends keyof Events>(name: Name, ...args: Parameters<Events[Name]>): void {
    this.#order.run(() => {
      for (const listener of [...(this.#listeners.get(name) ?? [])]) {
        try {
          listener(...(args as never[]));
        } catch (error) {
          report(error);
        }
      }
    });
  }

  has(name: keyof Events): boolean {
    return (this.#listeners.get(name)?.size ?? 0) > 0;
  }

  clear(): void {
    this.#listeners.clear();
  }
}

/** A fault of the page's: shown where uncaught errors are shown, and no fault of ours. */
export function report(error: unknown): void {
  queueMicrotask(() => {
    throw error;
  });
}
