/**
 * Who is there: every tab holds a lock of its own, `<name>:tab:<id>`. The others wait for it, shared, and get it
 * when that tab is gone, however it went; no timer is needed. Cost: n − 1 waiting requests in each of n tabs.
 *
 * A watcher that is stopped keeps the lock it got of a tab that left, and does not give it back before it runs. The
 * tab may be back long before that (back/forward cache), so its own lock is taken and not waited for.
 */

import { Claim } from "./claim.js";
import type { Locks } from "./platform.js";

/** What {@link Presence} tells. */
export interface PresenceEvents {
  /** This tab holds its lock; until then it must say nothing, or others would take it for gone. */
  present(): void;
  /** A watched tab is gone; it is not watched any more. */
  gone(tab: string): void;
  /** Locks don't work. */
  failed(): void;
}

/** This tab's lock, and the watch over those of others; from its making until `leave`. */
export class Presence {
  readonly #locks: Locks;
  readonly #name: string;
  readonly #events: PresenceEvents;
  readonly #own: Claim;
  readonly #others = new Map<string, Claim>();

  constructor(locks: Locks, name: string, id: string, events: PresenceEvents) {
    this.#locks = locks;
    this.#name = name;
    this.#events = events;
    this.#own = new Claim(locks, this.#lock(id), "steal", {
      granted: () => events.present(),
      lost: () => events.failed(),
      failed: () => events.failed(),
    });
  }

  /** From now on `gone` is called when that tab goes. */
  watch(tab: string): void {
    if (this.#others.has(tab)) return;
    const watch = new Claim(this.#locks, this.#lock(tab), "share", {
      granted: () => {
        this.unwatch(tab);
        this.#events.gone(tab);
      },
      lost: () => {},
      failed: () => this.#events.failed(),
    });
    this.#others.set(tab, watch);
  }

  /** Whether it was watched. */
  unwatch(tab: string): boolean {
    this.#others.get(tab)?.release();
    return this.#others.delete(tab);
  }

  /** Gives up everything; no event comes after that. */
  leave(): void {
    for (const watch of this.#others.values()) watch.release();
    this.#others.clear();
    this.#own.release();
  }

  #lock(tab: string): string {
    return `${this.#name}:tab:${tab}`;
  }
}
