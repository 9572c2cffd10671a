/** A tab without others: where the web APIs are missing, or the page doesn't want tabs to share. */

import type { AloneReason, Role, Tabs, TabsEvents } from "./tabs.js";

/** A tab that hears of no others. `role("alone")` is called once, from a microtask. */
export function stayAlone(events: TabsEvents, reason: AloneReason = "asked"): Tabs {
  return new Alone(events, reason);
}

class Alone implements Tabs {
  readonly id = "alone";
  readonly role: Role = "alone";
  readonly reason: AloneReason;
  readonly leader = undefined;
  readonly term = 0;
  #closed = false;

  constructor(events: TabsEvents, reason: AloneReason) {
    this.reason = reason;
    queueMicrotask(() => {
      if (!this.#closed) events.role("alone");
    });
  }

  post(): void {}

  close(): void {
    this.#closed = true;
  }
}
