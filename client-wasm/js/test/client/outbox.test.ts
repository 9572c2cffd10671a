/**
 * Promise: all documents with something to send are brought, a few at a time; one that the server does not take is
 * let go after a few attempts and takes nothing else with it; another leader tries it anew.
 *
 * The host is made up: it says what is unsent and writes down what was brought, so nothing is brought unseen.
 */

import assert from "node:assert/strict";
import { test } from "node:test";
import { Outbox } from "../../src/client/outbox.js";

class Host {
  unsentNow: string[] = [];
  connected = true;
  readonly brought: string[] = [];
  readonly givenUp: string[] = [];

  async unsent(): Promise<string[]> {
    return [...this.unsentNow];
  }

  isConnected(): boolean {
    return this.connected;
  }

  bring(id: string): void {
    this.brought.push(id);
  }

  giveUp(id: string): void {
    this.givenUp.push(id);
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

test("one that ends the connection each time is given up, and the others are sent", async () => {
  const host = new Host();
  host.unsentNow = many(8);
  const outbox = new Outbox(host);
  for (let connection = 0; connection < 5; connection += 1) {
    await outbox.look();
    for (const id of [...host.brought]) {
      if (id !== "d1" && host.unsentNow.includes(id)) {
        host.unsentNow = host.unsentNow.filter((other) => other !== id);
        outbox.left(id, true);
      }
    }
    outbox.refused();
  }
  assert.deepEqual(host.givenUp, ["d1"]);
  assert.deepEqual(host.unsentNow, ["d1"]);
});
