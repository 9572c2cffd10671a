/**
 * Promise: whatever becomes of a worker, the documents after it are read: in a worker again where one may be had, and
 * none waits for ever.
 *
 * Workers are fakes that do what the test says; time is the test's.
 */

import assert from "node:assert/strict";
import { test } from "node:test";
import { LongLoader } from "../../src/long/loader.js";
import type { Content } from "../../src/long/protocol.js";

class FakeWorker {
  onmessage: ((event: { readonly data: unknown }) => void) | undefined;
  onmessageerror: (() => void) | undefined;
  onerror: ((event: { readonly message: string; preventDefault(): void }) => void) | undefined;
  isOver = false;
  readonly #begins: (worker: FakeWorker) => void;
  readonly #works: (worker: FakeWorker) => void;

  constructor(begins: (worker: FakeWorker) => void, works: (worker: FakeWorker) => void = () => {}) {
    this.#begins = begins;
    this.#works = works;
    setImmediate(() => this.#begins(this));
  }

  postMessage(): void {
    setImmediate(() => this.#works(this));
  }

  terminate(): void {
    this.isOver = true;
  }
}

const here = (worker: FakeWorker): void => worker.onmessage?.({ data: { t: "here" } });
const fails = (worker: FakeWorker): void => worker.onerror?.({ message: "not found", preventDefault: () => {} });
const content: Content = { from: "message", message: new Uint8Array(20_000) };

function loader(start: () => FakeWorker): { readonly long: LongLoader; fill(): Promise<unknown> } {
  // An empty module: nothing here comes as far as making an instance of it.
  const module = new WebAssembly.Module(new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0]));
  const long = new LongLoader(module, start as unknown as () => Worker);
  return { long, fill: () => long.fill("a", content, () => {}) };
}

test("a worker that can't be fetched is tried again with the next document; three in a row are all", async () => {
  const { long, fill } = loader(() => new FakeWorker(fails));
  for (const isTaken of [true, true, false]) {
    assert.equal(await fill(), undefined);
    assert.equal(long.takes(content), isTaken);
  }
});

test("where workers can't be made none is tried again", async () => {
  const { long, fill } = loader(() => {
    throw new Error("not allowed");
  });
  assert.equal(await fill(), undefined);
  assert.equal(long.takes(content), false);
});

test("a worker that says what can't be read is over", async () => {
  const worker = new FakeWorker(here, (it) => it.onmessageerror?.());
  await assert.rejects(loader(() => worker).fill(), /can't be read/);
  assert.ok(worker.isOver);
});

test("nobody starts a worker for what is not wanted any more when it is its turn", async () => {
  const workers: FakeWorker[] = [];
  const { long, fill } = loader(() => {
    const worker = new FakeWorker(here, (it) => it.onmessage?.({ data: { t: "failed", code: "bad-chunk", message: "bad" } }));
    workers.push(worker);
    return worker;
  });
  let isWanted = true;
  const before = assert.rejects(fill(), /bad/);
  const changes = long.changes("a", content, [], () => {}, () => isWanted);
  isWanted = false;
  await before;
  assert.equal(await changes, undefined);
  assert.equal(workers.length, 1);
});

test("a worker that goes silent is given up, and the next document read", async (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  const worker = new FakeWorker(here);
  const { fill } = loader(() => worker);
  const filling = assert.rejects(fill(), /silent/);
  for (let turn = 0; turn < 10; turn += 1) await new Promise((soon) => setImmediate(soon));
  context.mock.timers.tick(3 * 60_000 + 1);
  await filling;
  assert.ok(worker.isOver);
});
