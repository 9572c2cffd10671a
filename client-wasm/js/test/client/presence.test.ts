/**
 * The promise: two that have a document open see each other soon, and stop seeing who went or fell silent,
 * whatever anybody sends. Time is the test's own.
 */

import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { HEARTBEAT_MS, type PeerPresence, Presence } from "../../src/client/presence.js";

const GONE_MS = 3 * HEARTBEAT_MS;
const inside = (type: string, more: object = {}) => ({ __presence: { type, ...more } });
const snapshot = (state: unknown) => inside("snapshot", { state });

function start(context: TestContext) {
  context.mock.timers.enable({ apis: ["setInterval", "Date"], now: 1_700_000_000_000 });
  const sent: unknown[] = [];
  const presence = new Presence((value) => sent.push(structuredClone(value)));
  context.after(() => presence.stop());
  return {
    presence,
    sent,
    take: () => sent.splice(0),
    tick: (ms: number) => context.mock.timers.tick(ms),
    receive: (peer: string, message: unknown) => presence.receive(peer, message, Date.now()),
    states: () => Object.fromEntries(presence.peers.map(({ peer, state }) => [peer, { ...state }])),
  };
}

test("own state: all of it first, then what is new, then signs of life, then goodbye", (context) => {
  const { presence, take, tick } = start(context);
  tick(10 * HEARTBEAT_MS);
  assert.deepEqual(take(), []);
  presence.set({ name: "Ada", at: 1 });
  presence.set({ at: 2 });
  assert.deepEqual(presence.own, { name: "Ada", at: 2 });
  assert.deepEqual(take(), [snapshot({ name: "Ada", at: 1 }), inside("update", { channel: "at", value: 2 })]);
  tick(HEARTBEAT_MS - 1);
  assert.deepEqual(take(), []);
  tick(1);
  tick(HEARTBEAT_MS);
  assert.deepEqual(take(), [inside("heartbeat"), inside("heartbeat")]);
  presence.stop();
  presence.stop();
  tick(10 * HEARTBEAT_MS);
  assert.deepEqual(take(), [inside("goodbye")]);
  assert.equal(presence.own, undefined);
  presence.set({ at: 3 });
  assert.deepEqual(take(), [snapshot({ at: 3 })]);
});

test("who slept longer than others remember tells all of it", (context) => {
  const { presence, take, tick } = start(context);
  presence.set({ at: 1 });
  take();
  // The clock goes on, and timers don't run.
  context.mock.timers.setTime(Date.now() + GONE_MS + 1);
  tick(1);
  assert.deepEqual(take()[0], snapshot({ at: 1 }));
  tick(HEARTBEAT_MS);
  assert.deepEqual(take().at(-1), inside("heartbeat"));
});

test("who comes back tells all of it, if there is something to tell", (context) => {
  const { presence, take } = start(context);
  presence.again();
  assert.deepEqual(take(), []);
  presence.set({ at: 1 });
  presence.again();
  assert.deepEqual(take(), [snapshot({ at: 1 }), snapshot({ at: 1 })]);
});

test("others: snapshot, update, goodbye, and events only when something is different", (context) => {
  const { presence, receive, states } = start(context);
  const seen: (readonly PeerPresence[])[] = [];
  const off = presence.on("change", (peers) => seen.push(peers));
  assert.ok(receive("b", snapshot({ at: 1, gone: 1 })));
  assert.ok(receive("c", inside("update", { channel: "at", value: [1] })));
  assert.ok(receive("b", snapshot({ at: 2, x: null })));
  assert.ok(receive("b", inside("update", { channel: "x", value: 5 })));
  assert.deepEqual(states(), { b: { at: 2, x: 5 }, c: { at: [1] } });
  assert.equal(seen.length, 4);
  const list = presence.peers;
  assert.equal(seen[3], list);
  assert.ok(Object.isFrozen(list) && Object.isFrozen(list[0]?.state));
  assert.ok(receive("b", inside("heartbeat")));
  assert.ok(receive("nobody", inside("heartbeat")) && receive("nobody", inside("goodbye")));
  presence.gone("nobody");
  assert.equal(presence.peers, list);
  assert.ok(receive("b", inside("goodbye")));
  presence.gone("c");
  assert.deepEqual([states(), seen.length], [{}, 6]);
  off();
  receive("b", snapshot({}));
  assert.equal(seen.length, 6);
});

test("newcomers are told of us, once; nobody answers who tells nothing", (context) => {
  const { presence, receive, take } = start(context);
  receive("early", snapshot({}));
  assert.deepEqual(take(), []);
  presence.set({ at: 1 });
  take();
  receive("b", snapshot({}));
  assert.deepEqual(take(), [snapshot({ at: 1 })]);
  receive("b", snapshot({}));
  receive("b", inside("update", { channel: "x", value: 1 }));
  receive("early", snapshot({}));
  assert.deepEqual(take(), []);
  receive("b", inside("goodbye"));
  assert.deepEqual(take(), []);
  receive("b", inside("update", { channel: "x", value: 1 }));
  assert.deepEqual(take(), [snapshot({ at: 1 })]);
});

test("two that meet come to rest", (context) => {
  context.mock.timers.enable({ apis: ["setInterval", "Date"], now: 1_700_000_000_000 });
  const queue: (() => void)[] = [];
  const one: Presence = new Presence((value) => queue.push(() => two.receive("one", value, Date.now())));
  const two: Presence = new Presence((value) => queue.push(() => one.receive("two", value, Date.now())));
  one.set({ n: 1 });
  two.set({ n: 2 });
  let messages = 0;
  for (let next = queue.shift(); next !== undefined && messages < 100; next = queue.shift()) {
    messages += 1;
    next();
  }
  assert.ok(messages <= 4, `${messages}`);
  assert.deepEqual([one.peers[0]?.state, two.peers[0]?.state], [{ n: 2 }, { n: 1 }]);
  one.stop();
  two.stop();
});

test("who is silent for too long is gone, whether anybody listens or not", (context) => {
  const { presence, receive, states, tick } = start(context);
  receive("silent", snapshot({}));
  receive("beats", snapshot({}));
  for (let beat = 0; beat < 3; beat += 1) {
    tick(HEARTBEAT_MS);
    receive("beats", inside("heartbeat"));
  }
  assert.deepEqual(Object.keys(states()), ["silent", "beats"]);
  tick(HEARTBEAT_MS);
  assert.deepEqual(Object.keys(states()), ["beats"]);
  assert.equal(presence.peers[0]?.lastSeen, Date.now() - HEARTBEAT_MS);
  // To the millisecond.
  presence.expire(Date.now() - HEARTBEAT_MS + GONE_MS);
  assert.equal(presence.peers.length, 1);
  presence.expire(Date.now() - HEARTBEAT_MS + GONE_MS + 1);
  assert.equal(presence.peers.length, 0);
});

test("a listener that throws, and own state that can't be sent any more, harm nobody who brings a message", async (context) => {
  context.mock.timers.enable({ apis: ["setInterval", "Date"], now: 1_700_000_000_000 });
  const reported: unknown[] = [];
  context.mock.method(globalThis, "queueMicrotask", (task: () => void) => {
    try {
      task();
    } catch (error) {
      reported.push(error);
    }
  });
  let fails = false;
  const sent: unknown[] = [];
  const presence = new Presence((value) => {
    if (fails) throw new Error("not to be sent");
    sent.push(value);
  });
  presence.set({ at: 1 });
  const heard: number[] = [];
  presence.on("change", () => {
    throw new Error("the listener's");
  });
  presence.on("change", (peers) => heard.push(peers.length));
  fails = true;
  assert.ok(presence.receive("b", snapshot({ at: 1 }), Date.now()));
  presence.again();
  context.mock.timers.tick(HEARTBEAT_MS);
  assert.deepEqual(heard, [1]);
  assert.deepEqual(reported.map((error) => (error as Error).message), ["the listener's", ...Array<string>(3).fill("not to be sent")]);
  // Who is silent still goes, and what can be sent again is.
  context.mock.timers.tick(GONE_MS);
  assert.deepEqual(heard, [1, 0]);
  assert.throws(() => presence.set({ at: 2 }), /not to be sent/);
  fails = false;
  sent.length = 0;
  context.mock.timers.tick(HEARTBEAT_MS);
  assert.deepEqual(sent, [inside("heartbeat")]);
  presence.stop();
});

test("hostile messages change nothing", (context) => {
  const { presence, receive, states } = start(context);
  presence.set({ at: 1 });
  receive("b", snapshot({ at: 1 }));
  const list = presence.peers;
  const others = [null, undefined, 7, "x", [], {}, { __presence: 7 }, { __presence: null }, { __presence: {} }, inside("x").__presence];
  for (const message of [...others, { __presence: { type: 7 } }, { presence: { type: "goodbye" } }]) {
    assert.equal(receive("b", message), false, JSON.stringify(message));
  }
  for (const state of [undefined, null, 7, "x", [1], new Uint8Array(9)]) assert.ok(receive("b", snapshot(state)));
  for (const channel of [undefined, null, 7, ["x"]]) assert.ok(receive("b", inside("update", { channel, value: 1 })));
  assert.ok(receive("b", inside("unheard of", { channel: "at", value: 9 })));
  assert.equal(presence.peers, list);
  // Names with a meaning are data.
  receive("b", inside("update", { channel: "__proto__", value: { polluted: 1 } }));
  receive("__proto__", snapshot(JSON.parse('{"__proto__": {"polluted": 1}, "constructor": 1}')));
  assert.equal(({} as { polluted?: number }).polluted, undefined);
  for (const { state } of presence.peers) {
    assert.equal(Object.getPrototypeOf(state), Object.prototype);
    assert.equal(state["polluted"], undefined);
  }
  assert.equal(Object.keys(states()).length, 2);
});

test("neither peers nor what they tell grow without bound", (context) => {
  const { presence, receive, take } = start(context);
  presence.set({ at: 1 });
  take();
  for (let n = 0; n < 3_000; n += 1) receive(`peer ${n}`, snapshot({ n }));
  assert.equal(presence.peers.length, 1_000);
  assert.equal(take().length, 1_000);
  // Who is known is still heard, and who goes makes room.
  receive("peer 0", snapshot({ n: "new" }));
  assert.deepEqual(presence.peers[0]?.state, { n: "new" });
  receive("peer 1", inside("goodbye"));
  receive("late", snapshot({}));
  assert.deepEqual([presence.peers.length, presence.peers.at(-1)?.peer], [1_000, "late"]);
  for (let n = 0; n < 3_000; n += 1) receive("late", inside("update", { channel: `field ${n}`, value: n }));
  const fields = (): number => Object.keys(presence.peers.at(-1)?.state ?? {}).length;
  assert.equal(fields(), 256);
  receive("late", inside("update", { channel: "field 7", value: "new" }));
  assert.equal(presence.peers.at(-1)?.state["field 7"], "new");
  receive("late", snapshot(Object.fromEntries(Array.from({ length: 257 }, (_, n) => [n, n]))));
  assert.equal(fields(), 256);
  assert.equal(presence.peers.at(-1)?.state["field 7"], "new");
});
