/**
 * The promise: whoever asks is served, but once for each frame at most, and never oftener than serving takes.
 *
 * The clocks are made up: time passes by the work itself and from one timer or frame to the next. Requests come
 * at every millisecond, so what ran could have run far oftener.
 */

import assert from "node:assert/strict";
import { test } from "node:test";
import { type Clocks, Scheduler } from "../../src/client/scheduler.js";

const FRAME_MS = 16;

class FakeClocks implements Clocks {
  time = 0;
  shown = true;
  /** Whether frames come at all. */
  painting = true;
  #timers: { at: number; then: () => void }[] = [];
  #frames: (() => void)[] = [];

  now(): number {
    return this.time;
  }

  nextFrame(then: () => void): void {
    this.#frames.push(then);
  }

  later(then: () => void, ms: number): void {
    this.#timers.push({ at: this.time + ms, then });
  }

  visible(): boolean {
    return this.shown;
  }

  /** Lets so many milliseconds pass, one by one; the work may make some of them longer. */
  pass(ms: number, each: () => void = () => {}): void {
    for (const end = this.time + ms; this.time < end; ) {
      const before = this.time;
      each();
      for (const timer of this.#timers.filter(({ at }) => at <= this.time)) {
        this.#timers.splice(this.#timers.indexOf(timer), 1);
        timer.then();
      }
      const painted = Math.floor(this.time / FRAME_MS) > Math.floor((before - 1) / FRAME_MS);
      if (painted && this.painting && this.shown) for (const then of this.#frames.splice(0)) then();
      this.time += 1;
    }
  }
}

/** A scheduler whose work takes so long, and when it ran. */
function scheduled(costMs: number) {
  const clocks = new FakeClocks();
  const runs: { begun: number; ended: number }[] = [];
  const scheduler = new Scheduler(() => {
    const begun = clocks.time;
    clocks.time += costMs;
    runs.push({ begun, ended: clocks.time });
  }, clocks);
  return { clocks, runs, scheduler };
}

test("once for all requests, and not at once", () => {
  const { clocks, runs, scheduler } = scheduled(0);
  for (let n = 0; n < 5; n += 1) scheduler.request();
  assert.equal(runs.length, 0);
  clocks.pass(500);
  assert.equal(runs.length, 1);
  scheduler.request();
  clocks.pass(500);
  assert.equal(runs.length, 2);
});

for (const costMs of [0, 1, 3, 10, 40, 90]) {
  for (const shown of [true, false]) {
    test(`work of ${costMs} ms, ${shown ? "visible" : "hidden"}: neither too often nor too seldom`, () => {
      const { clocks, runs, scheduler } = scheduled(costMs);
      clocks.shown = shown;
      clocks.pass(4_000, () => scheduler.request());
      const frameOf = (time: number): number => Math.floor(time / FRAME_MS);
      runs.forEach(({ begun }, index) => {
        const before = runs[index - 1];
        if (before === undefined) return;
        assert.ok(begun - before.ended >= costMs, `at ${begun}, after ${costMs} ms until ${before.ended}`);
        if (shown) assert.ok(frameOf(begun) > frameOf(before.begun), `at ${before.begun} and ${begun}: one frame`);
        const most = 2 * costMs + (shown ? FRAME_MS + 2 : 3);
        assert.ok(begun - before.begun <= most, `nothing from ${before.begun} to ${begun}`);
      });
      assert.ok(runs.length > 15);
    });
  }
}

test("a frame that never comes is not waited for for ever", () => {
  const { clocks, runs, scheduler } = scheduled(1);
  clocks.painting = false;
  scheduler.request();
  clocks.pass(90);
  assert.equal(runs.length, 0);
  clocks.pass(20);
  assert.equal(runs.length, 1);
  // Nor does it run once more when it comes after all.
  clocks.painting = true;
  clocks.pass(500);
  assert.equal(runs.length, 1);
});

test("hidden pages get no frames, and need none", () => {
  const { clocks, runs, scheduler } = scheduled(5);
  clocks.shown = false;
  scheduler.request();
  clocks.pass(3);
  assert.equal(runs.length, 1);
});

test("work that asks for more, and work that fails", () => {
  const clocks = new FakeClocks();
  const begun: number[] = [];
  const scheduler = new Scheduler(() => {
    begun.push(clocks.time);
    if (begun.length < 4) scheduler.request();
    clocks.time += 40;
    if (begun.length === 2) throw new Error("mine");
  }, clocks);
  scheduler.request();
  assert.throws(() => clocks.pass(1_000), /mine/);
  clocks.pass(1_000);
  assert.equal(begun.length, 4);
  begun.slice(1).forEach((time, index) => assert.ok(time - (begun[index] ?? 0) >= 80, `${begun}`));
  scheduler.request();
  clocks.pass(1_000);
  assert.equal(begun.length, 5);
});
