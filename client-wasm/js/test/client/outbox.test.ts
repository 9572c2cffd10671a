/**
 * Promise: all documents with something to send are brought, a few at a time; one that the server does not take is
 * let go after a few attempts and takes nothing else with it, whether it is one of these or one that is shown; another
 * leader tries it anew.
 *
 * The host is made up: it says what is unsent and writes down what was brought, so nothing is brought unseen. Where a
 * server refuses something it ends the connection before anything is acknowledged, so that order helps nobody.
 */

import assert from "node:assert/strict";
import { test } from "node:test";
import { Outbox } from "../../src/client/outbox.js";

class Host {
  unsentNow: string[] = [];
  connected = true;
  readonly brought: string[] = [];
  /** Documents that are here, shown or not. */
  readonly here = new Set<string>();
  shown = new Set<string>();

  async unsent(): Promise<string[]> {
    return [...this.unsentNow];
  }

  isConnected(): boolean {
    return this.connected;
  }

  bring(id: string): void {
    this.brought.push(id);
    this.here.add(id);
  }

  hidden(): string[] {
    return [...this.here].filter((id) => !this.shown.has(id));
  }

  sendsShown(): boolean {
    return this.unsentNow.some((id) => this.shown.has(id));
  }

  letGo(id: string): void {
    if (!this.shown.has(id)) {
      this.here.delete(id);
    }
  }
}

/** A host whose server refuses documents: with one of them here it takes nothing. */
class Refused {
  readonly host = new Host();
  readonly outbox = new Outbox(this.host);
  readonly bad: ReadonlySet<string>;
  ends = 0;

  constructor(unsent: string[], ...bad: string[]) {
    this.host.unsentNow = unsent;
    this.bad = new Set(bad);
  }

  /** One connection: it ends by a refusal, or is open for long. */
  async connect(): Promise<void> {
    const { host, outbox, bad } = this;
    await outbox.look();
    for (;;) {
      const sending = new Set([...host.here, ...host.shown]);
      if ([...sending].some((id) => bad.has(id))) {
        this.ends += 1;
        outbox.ended("refused-changes");
        return;
      }
      const sent = host.unsentNow.find((id) => sending.has(id));
      if (sent === undefined) {
        break;
      }
      host.unsentNow = host.unsentNow.filter((id) => id !== sent);
      host.here.delete(sent);
      outbox.left(sent, true);
    }
    outbox.proven();
    for (let turn = 0; turn < 5; turn += 1) await null;
  }

  async connectOften(times: number): Promise<void> {
    for (let n = 0; n < times; n += 1) await this.connect();
  }
}

const many = (count: number): string[] => Array.from({ length: count }, (_, index) => `d${index}`);

test("a thousand documents are brought, never more than four at a time, each once", async () => {
  const host = new Host();
  host.unsentNow = many(1_000);
  const outbox = new Outbox(host);
  await outbox.look();
  assert.equal(host.brought.length, 4);
  await outbox.look();
  assert.equal(host.brought.length, 4, "those that are under way are not brought again");
  for (let sent = 0; sent < 1_000; sent += 1) {
    assert.ok(host.brought.length <= sent + 4);
    outbox.left(host.brought[sent] ?? "", true);
  }
  assert.deepEqual(host.brought, many(1_000));
});

test("one that was deleted is not brought, and the next is", async () => {
  const host = new Host();
  host.unsentNow = many(6);
  const outbox = new Outbox(host);
  await outbox.look();
  outbox.forget("d4");
  outbox.forget("d1");
  assert.deepEqual(host.brought, ["d0", "d1", "d2", "d3", "d5"]);
});

test("without a connection nothing is brought, and when there is one again all that is left", async () => {
  const host = new Host();
  host.unsentNow = many(6);
  const outbox = new Outbox(host);
  host.connected = false;
  await outbox.look();
  assert.deepEqual(host.brought, []);
  host.connected = true;
  await outbox.look();
  host.connected = false;
  outbox.left("d0", true);
  assert.deepEqual(host.brought, many(4));
  host.connected = true;
  host.unsentNow = many(6).slice(1);
  await outbox.look();
  assert.deepEqual(host.brought, many(5));
});

test("a document of which the server takes nothing is not brought again and again, until another tab leads", async () => {
  const host = new Host();
  host.unsentNow = ["read-only"];
  const outbox = new Outbox(host);
  for (let round = 0; round < 10; round += 1) {
    await outbox.look();
    outbox.left("read-only", false);
  }
  assert.equal(host.brought.length, 3);
  outbox.stop();
  await outbox.look();
  assert.equal(host.brought.length, 4);
});

test("one that was sent counts as new when there is more of it", async () => {
  const host = new Host();
  host.unsentNow = ["d"];
  const outbox = new Outbox(host);
  for (let round = 0; round < 10; round += 1) {
    await outbox.look();
    outbox.left("d", true);
  }
  assert.equal(host.brought.length, 10);
});

test("one that ends the connection each time is given up, and all others are sent", async () => {
  const all = new Refused(many(8), "d1");
  await all.connectOften(12);
  assert.deepEqual(all.host.unsentNow, ["d1"]);
  assert.ok(!all.host.here.has("d1"));
  const { ends } = all;
  await all.connectOften(20);
  assert.equal(all.ends, ends, "it ends no more connections");
  all.outbox.stop();
  await all.connect();
  assert.equal(all.ends, ends + 1, "another leader tries it");
});

test("also one that was closed while it was being sent", async () => {
  const all = new Refused(many(8), "d5");
  all.host.here.add("d5");
  await all.connectOften(30);
  assert.deepEqual(all.host.unsentNow, ["d5"]);
  assert.ok(all.ends <= 7, `no others were blamed before it: ${all.ends} ends`);
});

test("one that is shown and ends the connection each time takes no others with it", async () => {
  const all = new Refused(many(6), "d5");
  all.host.shown.add("d5");
  await all.connectOften(20);
  assert.equal(all.host.brought.length, 4, "the others wait");
  all.host.shown.clear();
  await all.connectOften(20);
  assert.deepEqual(all.host.unsentNow, ["d5"]);
});

test("the only other one is not blamed for one that is shown", async () => {
  const all = new Refused(many(2), "d1");
  all.host.shown.add("d1");
  // It was changed since the connection began.
  all.host.unsent = async () => ["d0"];
  await all.connectOften(20);
  // Another connection shows nothing bad, and is not open for long.
  all.host.shown.clear();
  all.host.unsentNow = ["d0"];
  await all.outbox.look();
  assert.ok(all.host.here.has("d0"));
});

test("who was blamed for something else has another chance in a good connection; who is to blame, one", async () => {
  // Nothing of the one that is shown is unsent: what it has of the server's can't be read here.
  const all = new Refused(many(3), "shown", "d1");
  all.host.shown.add("shown");
  await all.connectOften(20);
  assert.deepEqual(all.host.unsentNow, many(3));
  all.host.shown.clear();
  await all.connectOften(20);
  assert.deepEqual(all.host.unsentNow, ["d1"]);
  const { ends } = all;
  await all.connectOften(20);
  assert.equal(all.ends, ends);
});

test("ends that nothing sent was the reason of count for nothing", async () => {
  const host = new Host();
  host.unsentNow = ["d"];
  const outbox = new Outbox(host);
  for (const code of ["network", "shutting-down", "timeout", "overloaded"]) {
    await outbox.look();
    outbox.ended(code);
  }
  assert.deepEqual([...host.here], ["d"]);
});
