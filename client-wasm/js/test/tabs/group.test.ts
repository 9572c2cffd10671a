/** Single promises of `joinTabs` that the simulation doesn't reach: failing APIs, rubbish, the outbox, the end. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { joinTabs, MAX_OUTBOX, MAX_SHORT_LEADS } from "../../src/tabs/group.js";
import type { Platform } from "../../src/tabs/platform.js";
import { FakeTab, LockTable, World } from "./world.js";

function join(world: World, change: Partial<Platform> = {}) {
  const fake = new FakeTab(world);
  const log: unknown[] = [];
  const tabs = joinTabs(
    "group",
    {
      role: (role) => log.push(role),
      leader: () => {},
      message: (message) => log.push({ message }),
      gone: (tab) => log.push({ gone: tab }),
      missed: () => log.push("missed"),
    },
    { ...fake.platform, ...change },
  );
  return { fake, log, tabs };
}

test("APIs that throw or reject leave the tab alone, with a reason", async () => {
  const fail = (): never => {
    throw new DOMException("no", "SecurityError");
  };
  const world = new World(1);
  const members = [
    { ...join(world, { locks: { request: fail } }), reason: "locks" },
    { ...join(world, { locks: { request: async () => fail() } }), reason: "locks" },
    { ...join(world, { openChannel: fail }), reason: "channel" },
    { ...join(world, { openChannel: () => ({ post: fail, close() {} }) }), reason: "channel" },
  ];
  for (const { log } of members) assert.deepEqual(log, []);
  await world.run(1_000);
  for (const { log, tabs, reason, fake } of members) {
    assert.deepEqual([log, tabs.reason, fake.timers], [["alone"], reason, 0]);
  }
});

test("rubbish is ignored, early messages arrive, close leaves nothing", async () => {
  const world = new World(2);
  const one = join(world);
  await world.run(1_000);
  const stranger = new FakeTab(world).platform.openChannel("group", () => {}, () => {});
  for (const rubbish of [null, 7, {}, { v: 2, from: "x", term: 9e15, body: { type: "lead" } }, { v: 1, from: "", term: 1, body: { type: "bye" } }, { v: 1, from: "x", term: Infinity, body: { type: "lead" } }, { v: 1, from: "x", term: 9e15, body: { type: "?" } }]) stranger.post(rubbish);
  const two = join(world);
  two.tabs.post("early");
  await world.run(1_000);
  assert.deepEqual(one.log, ["leader", { message: "early" }]);
  assert.deepEqual(two.log, ["follower"]);
  assert.throws(() => two.tabs.post(() => {}), { name: "DataCloneError" });
  one.tabs.close();
  one.tabs.close();
  two.tabs.post("late");
  await world.run(1_000);
  assert.deepEqual(one.log.length, 2);
  assert.deepEqual(two.log, ["follower", { gone: one.tabs.id }, "leader"]);
  assert.deepEqual([world.manager.countOf(one.fake), one.fake.timers], [0, 0]);
});

test("a tab that comes back need not wait for one that is stopped", async () => {
  const world = new World(3);
  const one = join(world);
  await world.run(1_000);
  const two = join(world);
  await world.run(1_000);
  // Both know each other. The one that is stopped gets the other's lock when that leaves, and keeps it.
  one.fake.stop();
  two.fake.page("leave");
  await world.run(1_000);
  assert.deepEqual(world.manager.holders(`group:tab:${two.tabs.id}`), [one.fake]);
  two.fake.page("return");
  await world.run(10_000);
  assert.deepEqual(two.log, ["follower", "missed", "leader"]);
  one.fake.go();
  await world.run(1_000);
  assert.deepEqual([one.tabs.role, two.tabs.role, one.tabs.leader], ["follower", "leader", two.tabs.id]);
  two.fake.crash();
  await world.run(1_000);
  // Once for the visit that it slept through, once for the end.
  assert.deepEqual(one.log, ["leader", { gone: two.tabs.id }, "follower", { gone: two.tabs.id }, "leader"]);
});

test("two lock managers on one channel, as after site data were cleared: it comes to rest, and all can go on", async () => {
  const world = new World(5);
  const other = new LockTable(world);
  const owner = new FakeTab(world);
  const first = join(world);
  await world.run(1_000);
  const second = join(world, { locks: { request: (name, options, callback) => other.request(owner, name, options, callback) } });
  await world.run(60_000);
  const said = [...first.log, ...second.log].length;
  assert.deepEqual([first.tabs.role, second.tabs.role].sort(), ["alone", "leader"]);
  const alone = first.tabs.role === "alone" ? first : second;
  assert.equal(alone.tabs.reason, "locks");
  assert.ok(alone.log.filter((one) => one === "leader").length > MAX_SHORT_LEADS - 1);
  await world.run(60_000);
  assert.equal([...first.log, ...second.log].length, said);
});

for (const more of [0, 1, MAX_OUTBOX]) {
  test(`a tab that says ${MAX_OUTBOX} things and ${more} more before it joined joins; what is lost is known to all`, async () => {
    const world = new World(4);
    const others = [join(world), join(world)];
    await world.run(1_000);
    const tab = join(world);
    for (let n = 0; n < MAX_OUTBOX + more; n += 1) tab.tabs.post(n);
    assert.throws(() => tab.tabs.post(() => {}), { name: "DataCloneError" });
    await world.run(10_000);
    tab.tabs.post("later");
    await world.run(1_000);
    const isLost = more > 0;
    const early = isLost ? ["missed"] : Array.from({ length: MAX_OUTBOX }, (_, n) => ({ message: n }));
    for (const { log } of others) assert.deepEqual(log.slice(1), [...early, { message: "later" }]);
    assert.deepEqual(tab.log, [...(isLost ? ["missed"] : []), "follower"]);
    assert.equal(tab.tabs.reason, undefined);
  });
}
