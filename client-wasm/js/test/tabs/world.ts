/**
 * A browser made up for tests: tabs with tasks that arrive late, locks, channels and timers in virtual time, all
 * of one seed. A tab that is stopped runs nothing; what waits for it runs, in order per sender, when it goes on.
 */

import type { Channel, Locks, PageEvent, Platform } from "../../src/tabs/platform.js";

/** Milliseconds that a message takes at most. */
export const MESSAGE_MS = 20;
/** Milliseconds that the grant of a lock takes at most. */
const GRANT_MS = 10;
/** Milliseconds until a tab learns at most that its lock was stolen: longer than a message, so that both ways
 * by which a leader learns of it are needed. */
const LOSS_MS = 300;
/** Tasks of all tabs in one call of `run`. */
const MAX_TASKS_PER_RUN = 20_000;

/** A small generator of random numbers (mulberry32). */
export function randomOf(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** The seed of this run: `CONCORD_TEST_SEED`, or a new one. */
export function testSeed(): number {
  const given = process.env["CONCORD_TEST_SEED"];
  return given === undefined ? Math.floor(Math.random() * 2 ** 32) : Number(given);
}

interface Task {
  readonly at: number;
  readonly order: number;
  readonly run: () => void;
}

/** Virtual time, and what all tabs share. */
export class World {
  now = 1_700_000_000_000;
  readonly random: () => number;
  readonly manager = new LockTable(this);
  readonly channels = new Set<FakeChannel>();
  /** Called after every task. */
  inspect: () => void = () => {};
  #tasks: Task[] = [];
  #order = 0;
  #names = 0;

  constructor(seed: number) {
    this.random = randomOf(seed);
  }

  upTo(ms: number): number {
    return this.random() * ms;
  }

  name(): string {
    this.#names += 1;
    // Random first characters, so that ids don't sort by age.
    return `${Math.floor(this.random() * 1e6).toString(36)}-${this.#names}`;
  }

  at(time: number, run: () => void): Task {
    const task = { at: Math.max(time, this.now), order: this.#order++, run };
    let low = 0;
    let high = this.#tasks.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#tasks[middle]?.at ?? 0) <= task.at) low = middle + 1;
      else high = middle;
    }
    this.#tasks.splice(low, 0, task);
    return task;
  }

  cancel(task: Task): void {
    const index = this.#tasks.indexOf(task);
    if (index >= 0) this.#tasks.splice(index, 1);
  }

  async run(ms: number): Promise<void> {
    const until = this.now + ms;
    // Every step has its budget, so that a storm of messages fails instead of running for ever.
    let left = MAX_TASKS_PER_RUN;
    await settle();
    for (;;) {
      const next = this.#tasks[0];
      if (next === undefined || next.at > until) break;
      if ((left -= 1) < 0) throw new Error("a storm of tasks");
      this.#tasks.shift();
      this.now = next.at;
      next.run();
      await settle();
      this.inspect();
    }
    this.now = until;
  }
}

/** Lets all microtasks run. */
function settle(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** One tab of the world. */
export class FakeTab {
  readonly world: World;
  readonly platform: Platform;
  state: "running" | "stopped" | "dead" = "running";
  runningSince: number;
  shown = true;
  visibleSince: number;
  /** Timers of a hidden tab run at multiples of this many milliseconds. */
  throttleMs = 1;
  readonly reported: unknown[] = [];
  timers = 0;
  readonly #lanes = new Map<string, (() => void)[]>();
  /** One entry for each task that was due while this tab was stopped. */
  #waiting: string[] = [];
  #pageHandlers = new Set<(event: PageEvent) => void>();

  constructor(world: World) {
    this.world = world;
    this.runningSince = world.now;
    this.visibleSince = world.now;
    this.platform = {
      locks: { request: (name, options, callback) => world.manager.request(this, name, options, callback) },
      openChannel: (name, receive) => new FakeChannel(this, name, receive),
      setTimer: (ms, call) => this.#setTimer(ms, call),
      now: () => Math.floor(world.now),
      random: () => world.random(),
      newId: () => world.name(),
      visible: () => this.shown,
      onPage: (handler) => {
        this.#pageHandlers.add(handler);
        return () => this.#pageHandlers.delete(handler);
      },
      report: (error) => this.reported.push(error),
    };
  }

  /** Runs something in this tab, later, after all that was posted on that lane before. */
  post(lane: string, delay: number, run: () => void): void {
    const tasks = this.#lanes.get(lane) ?? [];
    this.#lanes.set(lane, tasks);
    tasks.push(run);
    this.#turn(lane, delay);
  }

  /** Later the oldest task of that lane runs, whichever that is by then. */
  #turn(lane: string, delay: number): void {
    this.world.at(this.world.now + delay, () => {
      if (this.state === "running") this.#lanes.get(lane)?.shift()?.();
      else if (this.state === "stopped") this.#waiting.push(lane);
    });
  }

  page(event: PageEvent): void {
    for (const handler of this.#pageHandlers) handler(event);
  }

  show(shown: boolean): void {
    this.shown = shown;
    this.visibleSince = this.world.now;
    this.page("visibility");
  }

  stop(): void {
    this.state = "stopped";
  }

  go(): void {
    this.state = "running";
    this.runningSince = this.world.now;
    this.visibleSince = this.world.now;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const lane of waiting) this.#turn(lane, this.world.upTo(lane === "locks" ? LOSS_MS : MESSAGE_MS));
  }

  /** Ends without a word. */
  crash(): void {
    this.state = "dead";
    this.#waiting = [];
    this.world.manager.dies(this);
    for (const channel of this.world.channels) if (channel.tab === this) channel.close();
  }

  #setTimer(ms: number, call: () => void): () => void {
    let cancelled = false;
    this.timers += 1;
    const due = this.world.now + ms;
    const late = this.shown ? due + this.world.upTo(2) : Math.ceil(due / this.throttleMs) * this.throttleMs;
    const done = (): void => {
      if (cancelled) return;
      cancelled = true;
      this.timers -= 1;
    };
    const task = this.world.at(late, () => {
      this.post(`timer ${this.world.random()}`, 0, () => {
        if (cancelled) return;
        done();
        call();
      });
    });
    return () => {
      this.world.cancel(task);
      done();
    };
  }
}

/** A channel of a tab. */
export class FakeChannel implements Channel {
  readonly tab: FakeTab;
  readonly name: string;
  readonly #receive: (message: unknown) => void;
  open = true;
  posted = 0;

  constructor(tab: FakeTab, name: string, receive: (message: unknown) => void) {
    this.tab = tab;
    this.name = name;
    this.#receive = receive;
    tab.world.channels.add(this);
  }

  post(message: unknown): void {
    this.posted += 1;
    for (const other of this.tab.world.channels) {
      if (other === this || other.name !== this.name) continue;
      const copy: unknown = structuredClone(message);
      other.tab.post(`from ${tabNumber(this.tab)}`, this.tab.world.upTo(MESSAGE_MS), () => {
        if (other.open) other.#receive(copy);
      });
    }
  }

  close(): void {
    this.open = false;
    this.tab.world.channels.delete(this);
  }
}

const numbers = new WeakMap<FakeTab, number>();
let lastNumber = 0;
function tabNumber(tab: FakeTab): number {
  let number = numbers.get(tab);
  if (number === undefined) {
    number = lastNumber += 1;
    numbers.set(tab, number);
  }
  return number;
}

interface Entry {
  readonly tab: FakeTab;
  readonly exclusive: boolean;
  readonly callback: (lock: unknown) => Promise<void> | void;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
  held: boolean;
}

interface Lock {
  held: Entry[];
  queue: Entry[];
}

/** The lock manager of the browser. */
export class LockTable {
  readonly #world: World;
  readonly #locks = new Map<string, Lock>();
  /** Called when a lock is granted, before its tab knows. */
  granted: (name: string, to: FakeTab) => void = () => {};
  /** Called when a lock is stolen, before either tab knows. */
  stolen: (name: string, by: FakeTab, from: FakeTab) => void = () => {};

  constructor(world: World) {
    this.#world = world;
  }

  /** Tabs that hold it. */
  holders(name: string): FakeTab[] {
    return (this.#locks.get(name)?.held ?? []).map((entry) => entry.tab);
  }

  /** Everything held or waited for by a tab. */
  countOf(tab: FakeTab): number {
    let count = 0;
    for (const { held, queue } of this.#locks.values()) {
      for (const entry of [...held, ...queue]) if (entry.tab === tab) count += 1;
    }
    return count;
  }

  request: (tab: FakeTab, ...args: Parameters<Locks["request"]>) => Promise<unknown> = (tab, name, options, callback) =>
    new Promise<void>((resolve, reject) => {
      let lock = this.#locks.get(name);
      if (lock === undefined) this.#locks.set(name, (lock = { held: [], queue: [] }));
      const { held, queue } = lock;
      const entry: Entry = { tab, exclusive: options.mode !== "shared", callback, resolve, reject, held: false };
      if (options.steal === true) {
        for (const robbed of held.splice(0)) {
          this.stolen(name, tab, robbed.tab);
          robbed.held = false;
          robbed.tab.post("locks", this.#world.upTo(LOSS_MS), () => robbed.reject(abortError()));
        }
        queue.unshift(entry);
      } else if (options.ifAvailable === true && (queue.length > 0 || !fits(lock, entry))) {
        tab.post("locks", this.#world.upTo(GRANT_MS), () => void Promise.resolve(callback(null)).then(resolve, reject));
        return;
      } else {
        queue.push(entry);
      }
      options.signal?.addEventListener("abort", () => {
        const index = queue.indexOf(entry);
        if (index < 0) return;
        queue.splice(index, 1);
        reject(abortError());
        this.#grant(name);
      });
      this.#grant(name);
    });

  dies(tab: FakeTab): void {
    for (const [name, lock] of this.#locks) {
      for (const entry of lock.held) if (entry.tab === tab) entry.held = false;
      lock.held = lock.held.filter((entry) => entry.tab !== tab);
      const stay = lock.queue.filter((entry) => entry.tab !== tab);
      lock.queue.splice(0, lock.queue.length, ...stay);
      this.#grant(name);
    }
  }

  #grant(name: string): void {
    const lock = this.#locks.get(name);
    for (;;) {
      const next = lock?.queue[0];
      if (lock === undefined || next === undefined || !fits(lock, next)) return;
      lock.queue.shift();
      lock.held.push(next);
      next.held = true;
      this.granted(name, next.tab);
      next.tab.post("locks", this.#world.upTo(GRANT_MS), () => {
        const release = (): void => {
          if (!next.held) return;
          next.held = false;
          lock.held.splice(lock.held.indexOf(next), 1);
          next.resolve();
          this.#grant(name);
        };
        void Promise.resolve(next.callback({ name })).then(release, release);
      });
    }
  }
}

function fits(lock: Lock, entry: Entry): boolean {
  return lock.held.every((other) => !other.exclusive && !entry.exclusive);
}

function abortError(): DOMException {
  return new DOMException("taken", "AbortError");
}
