// Promise: whatever the server or other pages bring, and if the wasm module traps, a page stays alive and says what is
// wrong, and what was saved stays. When the fault is over, so are its consequences. (stored.test.mjs has those of the
// browser's storage.)
//
// Faults are made where they happen: browser functions throw because an init script replaced them, and a server of the
// test's own sends what ours never would. Each test ends with something that works, so that a page which had merely
// stopped would fail it.

import assert from "node:assert/strict";
import { test } from "node:test";

import { put, shows, stageFaults, status } from "./faults.mjs";
import { begin, make, openDocument, openTab, PATIENCE_MS, settled, until } from "./harness.mjs";
import { BOMB, BOMB_CHUNK, CASES, serveBetween, serveHarm, snapshotOf, TRAPS as TRAP_CASES } from "./hostile.mjs";

let server, pages, browserWith;

stageFaults((parts) => ({ server, pages, browserWith } = parts));

// What tabs share.

for (const [name, init] of Object.entries({
  "Web Locks are missing": () => Object.defineProperty(Navigator.prototype, "locks", { value: undefined }),
  "BroadcastChannel is missing": () => delete window.BroadcastChannel,
  "locks are refused": () => {
    LockManager.prototype.request = () => Promise.reject(new DOMException("the test's", "SecurityError"));
  },
  "the channel can't be opened": () => {
    window.BroadcastChannel = class {
      constructor() {
        throw new DOMException("the test's", "SecurityError");
      }
    };
  },
})) {
  test(`${name}: each tab is alone, and two of one browser work`, async () => {
    const context = await browserWith(init);
    const before = await server.metric("concord_connections");
    const tabs = [await openTab(context, pages, server.url), await openTab(context, pages, server.url)];
    const url = await make(tabs[0], { title: "Acme", list: [] });
    await openDocument(tabs[1], url);
    assert.deepEqual(await Promise.all(tabs.map((tab) => tab.evaluate(() => window.client.status.role))), ["alone", "alone"]);
    await Promise.all(
      tabs.map((tab, n) =>
        tab.evaluate(async (n) => {
          for (let count = 0; count < 20; count += 1) {
            window.doc.change((draft) => draft.list.push(`${n} ${count}`));
            await new Promise((soon) => setTimeout(soon, 5));
          }
          await window.doc.whenSaved();
        }, n),
      ),
    );
    const value = await settled(tabs);
    assert.equal(new Set(value.list).size, 40);
    assert.equal((await server.metric("concord_connections")) - before, 2);
    // Both stored into the same place.
    await tabs[0].close();
    await server.kill();
    await tabs[1].reload();
    await begin(tabs[1], server.url);
    await openDocument(tabs[1], url);
    const stored = await tabs[1].evaluate(() => window.doc.value);
    await server.restart();
    assert.deepEqual([...stored.list].sort(), [...value.list].sort());
    await settled([tabs[1]]);
    assert.deepEqual(tabs.flatMap((tab) => tab.faults), []);
    await context.close();
  });
}

test("rubbish from another page on the channel does no harm", async () => {
  const context = await browserWith();
  const tabs = [await openTab(context, pages, server.url), await openTab(context, pages, server.url)];
  const url = await make(tabs[0], { title: "Acme", list: [] });
  await openDocument(tabs[1], url);
  await settled(tabs);
  const refused = await server.metric("concord_refused_total");
  const evil = await context.newPage();
  await evil.goto(pages.url);
  await evil.evaluate(
    async ([name, id]) => {
      const channel = new BroadcastChannel(name);
      const say = (message) => channel.postMessage({ v: 1, from: "evil", term: 0, body: { type: "message", message } });
      const hash = "ab".repeat(32);
      for (const raw of [null, 7, "x", {}, { v: 1 }, { v: 1, from: "evil", term: -1, body: {} }, { v: 1, from: {}, term: 0, body: null }]) {
        channel.postMessage(raw);
      }
      const ephemeral = { id, author: "evil", session: "s", count: 1, data: new Uint8Array([0xf6]) };
      for (const message of [
        undefined,
        "changes",
        { t: "changes", id, bytes: new Uint8Array([1, 2, 3]), heads: [hash] },
        { t: "changes", id, bytes: new Uint8Array([1, 2, 3]), heads: 7 },
        { t: "changes", id, bytes: new Uint8Array([0x85, 0x6f, 0x4a, 0x83, 0, 0, 0, 0, 1, 5]), heads: [hash] },
        { t: "changes", id, bytes: new Uint8Array(0), heads: [] },
        { t: "changes", id, bytes: [1, 2, 3], heads: [hash] },
        { t: "changes", id: "nowhere", bytes: new Uint8Array([1]), heads: [hash] },
        { t: "want", documents: [{ id, heads: [hash] }] },
        { t: "want", documents: [{ id: "not an id", heads: [] }] },
        { t: "want", documents: [{ id: "", heads: [] }] },
        { t: "want", documents: [{ id, heads: ["zz"] }, null] },
        { t: "unwant", id: "nowhere" },
        { t: "server", id, news: { synced: [hash] } },
        { t: "server", id, news: { synced: [hash], unavailable: "yes", readOnly: 7 } },
        { t: "server", id, news: {} },
        { t: "connection", state: "dancing" },
        { t: "connection", state: "waiting", fault: "none" },
        { t: "offline", offline: "yes" },
        { t: "ephemeral", message: { ...ephemeral, count: NaN } },
        { t: "ephemeral", message: { ...ephemeral, count: -1 } },
        { t: "ephemeral", message: { ...ephemeral, count: 1e300 } },
        { t: "ephemeral", message: { ...ephemeral, id: "" } },
        { t: "ephemeral", message: { ...ephemeral, author: "" } },
        { t: "ephemeral", message: { ...ephemeral, author: "x".repeat(100_000) } },
        { t: "ephemeral", message: { ...ephemeral, data: new Uint8Array(0) } },
        { t: "ephemeral", message: { ...ephemeral, data: [1] } },
        { t: "ephemeral", message: null },
        { t: "nothing" },
      ]) {
        say(message);
      }
    },
    [`concord ${server.url} `, url.slice("automerge:".length)],
  );
  // In the same batch as rubbish, a good change is taken.
  await evil.evaluate(
    ([name, id]) => {
      const channel = new BroadcastChannel(name);
      const changes = { t: "changes", id, bytes: new Uint8Array([9, 9, 9]), heads: ["cd".repeat(32)] };
      window.flood = setInterval(() => channel.postMessage({ v: 1, from: "evil", term: 0, body: { type: "message", message: changes } }), 2);
    },
    [`concord ${server.url} `, url.slice("automerge:".length)],
  );
  for (let n = 0; n < 10; n += 1) {
    await tabs[n % 2].evaluate((n) => window.doc.change((draft) => draft.list.push(n)), n);
    await until(tabs[(n + 1) % 2], (n) => window.doc.value.list.includes(n), n);
  }
  await evil.close();
  const value = await settled(tabs);
  assert.deepEqual([...value.list].sort(), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  assert.deepEqual(tabs.flatMap((tab) => tab.faults), []);
  for (const tab of tabs) {
    assert.equal(await tab.evaluate(() => window.client.status.connection), "open");
  }
  assert.equal(await server.metric("concord_refused_total"), refused);
  await context.close();
});

// The server.

/** So long are connections counted, milliseconds. */
const COUNTED_MS = 8_000;
/** More than these, in that time, are a storm. */
const MAX_CONNECTIONS = 8;

test("hostile servers: the page lives, says what happened, keeps what was saved, and is no storm", async () => {
  const harm = await serveHarm();
  const context = await browserWith();
  const tab = await context.newPage();
  const faults = [];
  tab.on("pageerror", (error) => faults.push(error));
  await tab.goto(pages.url);
  const cases = Object.keys(CASES).map((name) => ({ name, url: harm.url(name) }));
  await tab.evaluate(async (cases) => {
    const { connect } = await import("/client/index.js");
    window.victims = new Map();
    await Promise.all(
      cases.map(async ({ name, url }) => {
        const client = await connect({ url });
        const doc = client.create({ name, list: [] });
        const victim = { client, doc, faults: [], opened: false };
        client.on("status", ({ connection, fault }) => {
          victim.opened ||= connection === "open";
          if (fault !== undefined) {
            victim.faults.push(fault.code);
          }
        });
        window.victims.set(name, victim);
      }),
    );
  }, cases);
  await tab.waitForTimeout(COUNTED_MS);
  const seen = await tab.evaluate(async () => {
    const all = [];
    for (const [name, { client, doc, faults, opened }] of window.victims) {
      let error;
      try {
        doc.change((draft) => draft.list.push(1));
        await doc.whenSaved();
      } catch (thrown) {
        error = String(thrown);
      }
      const { state, saved } = doc.status;
      all.push({ name, faults: [...new Set(faults)], opened, state, saved, error, value: doc.value, url: doc.url, connection: client.status.connection });
    }
    return all;
  });
  const wrong = [];
  for (const one of seen) {
    const { code, ends } = CASES[one.name];
    const connections = harm.connections.get(one.name);
    const told = ends === undefined || (ends ? one.faults.length > 0 && (code === undefined || one.faults.includes(code)) : one.faults.length === 0 && one.connection === "open");
    if (!told || one.state !== "ready" || !one.saved || one.error !== undefined || connections > MAX_CONNECTIONS || one.value.list.length !== 1) {
      wrong.push({ ...one, connections });
    }
  }
  console.log(`most connections in ${COUNTED_MS} ms: ${Math.max(...harm.connections.values())}`);
  assert.deepEqual(wrong, []);
  assert.deepEqual(faults, []);
  // All that was saved is there for the next page.
  await tab.reload();
  const lost = await tab.evaluate(
    async ([cases, urls]) => {
      const { connect } = await import("/client/index.js");
      const lost = [];
      for (const { name, url } of cases) {
        const client = await connect({ url });
        const doc = await client.open(urls[name]).whenReady();
        if (doc.value.list?.length !== 1) {
          lost.push(name);
        }
        await client.close();
      }
      return lost;
    },
    [cases, Object.fromEntries(seen.map(({ name, url }) => [name, url]))],
  );
  assert.deepEqual(lost, []);
  assert.deepEqual(faults, []);
  harm.stop();
  await context.close();
});

test("a bomb of 54 bytes: it is said, the page goes on, another document syncs; and so does this one when it is over", async () => {
  const between = await serveBetween(server.url, [BOMB]);
  const tab = await openTab(await browserWith(), pages, between.url);
  const reader = await openTab(await browserWith(), pages, server.url);
  const urls = await tab.evaluate(async () => {
    window.attacked = window.client.create({ list: [] });
    window.doc = window.client.create({ list: [] });
    window.faults = [];
    window.client.on("status", ({ fault }) => fault !== undefined && window.faults.push(fault.code));
    // How long it does not answer at most.
    window.held = 0;
    let last = performance.now();
    setInterval(() => {
      const now = performance.now();
      window.held = Math.max(window.held, now - last);
      last = now;
    }, 20);
    await Promise.all([window.attacked, window.doc].map((doc) => doc.whenSynced()));
    return [window.attacked.url, window.doc.url];
  });
  await openDocument(reader, urls[1]);
  between.victim = urls[0].slice("automerge:".length);
  const edit = (n) =>
    tab.evaluate(async (n) => {
      window.attacked.change((draft) => draft.list.push(n));
      window.doc.change((draft) => draft.list.push(n));
      await Promise.all([window.attacked, window.doc].map((doc) => doc.whenSaved()));
    }, n);
  await edit(1);
  await until(tab, () => window.faults.includes("too-many-ops"));
  await edit(2);
  // In the middle of it: it comes again with each connection.
  await shows(reader, { list: [1, 2] });
  const begun = performance.now();
  while (between.attacks < 3) {
    assert.ok(performance.now() - begun < PATIENCE_MS, `${between.attacks} attacks`);
    await tab.waitForTimeout(100);
  }
  const { held, states } = await tab.evaluate(() => ({
    held: window.held,
    states: [window.attacked, window.doc].map(({ status, value }) => [status.state, value.list]),
  }));
  assert.ok(held < 2_000, `${held} ms without an answer`);
  assert.deepEqual(states, [["ready", [1, 2]], ["ready", [1, 2]]]);

  between.victim = undefined;
  await edit(3);
  await tab.evaluate(() => Promise.all([window.attacked, window.doc].map((doc) => doc.whenSynced())));
  await openDocument(reader, urls[0]);
  await shows(reader, { list: [1, 2, 3] });
  assert.deepEqual([...tab.faults, ...reader.faults], []);
  between.stop();
});

/** A maker of a document of 100 kB, and a tab that has all of it, whose workers take their time from then on. */
async function withLong(messages) {
  const maker = await openTab(await browserWith(), pages, server.url);
  const url = await maker.evaluate(async () => {
    window.doc = window.client.create({ notes: [], n: 0 });
    for (let n = 0; n < 300; n += 1) {
      window.doc.change((draft) => draft.notes.push(crypto.getRandomValues(new Uint8Array(400))));
    }
    await window.doc.whenSynced();
    return window.doc.url;
  });
  const id = url.slice("automerge:".length);
  // Going, it makes a snapshot.
  await server.kill("SIGTERM");
  await server.restart();
  const snapshot = await snapshotOf(server.url, id);
  assert.ok(snapshot.length > 100_000);
  const between = await serveBetween(server.url, messages(snapshot));
  const context = await browserWith();
  const tab = await openTab(context, pages, between.url);
  await openDocument(tab, url);
  await settled([tab, maker]);
  await context.route("**/client/worker.js", async (route) => {
    await new Promise((slow) => setTimeout(slow, SLOW_WORKER_MS));
    await route.continue();
  });
  between.victim = id;
  await put(tab, "n", 1);
  await until(maker, () => window.doc.value.n === 1);
  while (between.attacks === 0) {
    await tab.waitForTimeout(20);
  }
  between.victim = undefined;
  return { maker, tab, between };
}

/** Longer than it takes to connect again. */
const SLOW_WORKER_MS = 5_000;

test("a bomb between two snapshots, which are taken apart meanwhile: the next connection is as good as any", async () => {
  const { maker, tab, between } = await withLong((snapshot) => [snapshot, BOMB, snapshot]);
  await until(tab, () => window.client.status.fault?.code === "too-many-ops");
  await until(tab, () => window.client.status.connection === "open");
  // Whatever was begun before is over.
  await tab.waitForTimeout(2 * SLOW_WORKER_MS);
  await put(maker, "late", 1);
  await shows(tab, { late: 1 });
  await settled([tab, maker]);
  assert.deepEqual([...tab.faults, ...maker.faults], []);
  between.stop();
});

test("a flood while a snapshot is taken apart: it is not kept for later without end", async () => {
  const { maker, tab, between } = await withLong((snapshot) => [snapshot, ...Array(5_000).fill([0x42, 0, 0, 0, 0])]);
  await until(tab, () => window.client.status.fault?.code === "overloaded");
  await until(tab, () => window.client.status.connection === "open");
  await put(maker, "late", 1);
  await shows(tab, { late: 1 });
  await settled([tab, maker]);
  assert.deepEqual([...tab.faults, ...maker.faults], []);
  between.stop();
});

test("offline, a snapshot that was being taken apart is not said to be read any more", async () => {
  const { maker, tab, between } = await withLong((snapshot) => [snapshot]);
  await until(tab, () => window.doc.status.reading !== undefined);
  await tab.evaluate(() => window.client.setOffline(true));
  await until(tab, () => window.doc.status.reading === undefined);
  await put(tab, "late", 1);
  await tab.evaluate(() => window.client.setOffline(false));
  await shows(maker, { late: 1 });
  assert.deepEqual([...tab.faults, ...maker.faults], []);
  between.stop();
});

test("a bomb from another page on the channel: the page goes on, and takes what is good", async () => {
  const context = await browserWith();
  const tab = await openTab(context, pages, server.url);
  const url = await make(tab, { list: [] });
  const evil = await context.newPage();
  await evil.goto(pages.url);
  await evil.evaluate(
    ([name, id, bytes]) => {
      const channel = new BroadcastChannel(name);
      const message = { t: "changes", id, bytes: new Uint8Array(bytes), heads: ["ab".repeat(32)] };
      for (let n = 0; n < 3; n += 1) {
        channel.postMessage({ v: 1, from: "evil", term: 0, body: { type: "message", message } });
      }
    },
    [`concord ${server.url} `, url.slice("automerge:".length), BOMB_CHUNK],
  );
  const second = await openTab(context, pages, server.url);
  await openDocument(second, url);
  await put(second, "second", 1);
  await shows(tab, { second: 1 });
  await put(tab, "first", 1);
  await shows(second, { first: 1 });
  await settled([tab, second]);
  assert.deepEqual([...tab.faults, ...second.faults], []);
});

test("a server that takes us in and throws us out at once is asked less and less often", async () => {
  const name = "open, then closed";
  const harm = await serveHarm();
  const tab = await openTab(await browserWith(), pages, harm.url(name));
  await until(tab, () => window.client.status.fault !== undefined);
  await tab.waitForTimeout(5_000);
  // Half of 250, 500, 1000, 2000 and 4000 ms are more than that; without growth it would be forty.
  assert.ok(harm.connections.get(name) <= 15, `${harm.connections.get(name)} connections in five seconds`);
  assert.deepEqual(tab.faults, []);
  harm.stop();
});

for (const name of Object.keys(TRAP_CASES)) {
  test(`a server sends ${name}, and the module traps: failed, and what was saved is there for the next page`, async () => {
    const harm = await serveHarm();
    const address = harm.url(name);
    const context = await browserWith();
    const tab = await openTab(context, pages, address);
    const url = await tab.evaluate(async () => {
      window.client.setOffline(true);
      window.doc = window.client.create({ list: [1] });
      await window.doc.whenSaved();
      window.client.setOffline(false);
      return window.doc.url;
    });
    await until(tab, () => window.doc.status.state === "failed");
    const { doc, client } = await tab.evaluate(() => ({ doc: window.doc.status, client: window.client.status }));
    assert.deepEqual([doc.saved, client.connection, client.fault.code], [true, "offline", "internal"]);
    // One of them from before it was told to be offline.
    assert.ok(harm.connections.get(name) <= 2);
    assert.deepEqual(tab.faults, []);
    harm.stop();
    await tab.reload();
    await begin(tab, address);
    await openDocument(tab, url);
    await put(tab, "more", 1);
    await tab.evaluate(() => window.doc.whenSaved());
    assert.deepEqual(await tab.evaluate(() => window.doc.value), { list: [1], more: 1 });
    await tab.evaluate(() => window.client.close());
    assert.deepEqual(tab.faults, []);
  });
}

test("more than the module keeps waiting comes at once: it is shown, stored, and told to the other tabs", async () => {
  const [one, two] = [await browserWith(), await browserWith()];
  const writer = await openTab(one, pages, server.url);
  const url = await make(writer, { title: "Acme" });
  const [leader, follower] = [await openTab(two, pages, server.url), await openTab(two, pages, server.url)];
  await openDocument(leader, url);
  await openDocument(follower, url);
  await settled([writer, leader, follower]);
  await writer.evaluate(() => {
    // Past 8 MiB, and of a kind that does not get smaller.
    const bytes = new Uint8Array(9 << 20);
    for (let at = 0; at < bytes.length; at += 65_536) {
      crypto.getRandomValues(bytes.subarray(at, Math.min(at + 65_536, bytes.length)));
    }
    window.doc.change((draft) => void (draft.bytes = bytes));
  });
  for (const tab of [leader, follower]) {
    await until(tab, () => window.doc.value.bytes?.length === 9 << 20);
  }
  await until(leader, () => window.doc.status.synced);
  await leader.waitForTimeout(500);
  await server.kill();
  await Promise.all([leader.reload(), follower.close()]);
  await begin(leader, server.url);
  await openDocument(leader, url);
  await until(leader, () => window.doc.value.bytes?.length === 9 << 20);
  // A browser that has nothing gets it in one piece.
  await server.restart();
  const reader = await openTab(await browserWith(), pages, server.url);
  await openDocument(reader, url);
  await until(reader, () => window.doc.value.bytes?.length === 9 << 20);
  assert.deepEqual([...writer.faults, ...leader.faults, ...reader.faults], []);
});

test("the network is back: the next attempt does not wait", async () => {
  const context = await browserWith();
  const tab = await openTab(context, pages, server.url);
  await make(tab, { title: "Acme" });
  await server.kill();
  // Long enough for the waits to have grown.
  await tab.waitForTimeout(10_000);
  await server.restart();
  await until(tab, () => window.client.status.connection === "waiting");
  const connected = tab.evaluate(
    () =>
      new Promise((done) => {
        const begun = performance.now();
        window.client.on("status", ({ connection }) => connection === "open" && done(performance.now() - begun));
        dispatchEvent(new Event("online"));
      }),
  );
  assert.ok((await connected) < 1_000);
});

// The wasm module.

/** A call into the module that comes to nothing, as after a panic: now and from then on. */
const TRAPS = () => {
  const really = WebAssembly.instantiate;
  WebAssembly.instantiate = async (module, imports) => {
    const instance = await really.call(WebAssembly, module, imports);
    const exports = {};
    for (const [name, one] of Object.entries(instance.exports)) {
      exports[name] =
        typeof one !== "function" || name.startsWith("__wb")
          ? one
          : (...given) => {
              if (window.trap?.(name)) {
                window.trap = () => true;
                throw new WebAssembly.RuntimeError("unreachable (the test's)");
              }
              return one(...given);
            };
    }
    return { instance: { exports }, module };
  };
};

test("the module traps while a change of another's is applied: failed, said, and saved edits are there for the next page", async () => {
  const contexts = [await browserWith(TRAPS), await browserWith()];
  const tab = await openTab(contexts[0], pages, server.url);
  const second = await openTab(contexts[0], pages, server.url);
  const url = await make(tab, { title: "Acme" });
  await openDocument(second, url);
  const other = await openTab(contexts[1], pages, server.url);
  await openDocument(other, url);
  await settled([tab, second, other]);
  await put(tab, "mine", 1);
  await tab.evaluate(() => window.doc.whenSaved());
  await tab.evaluate(() => (window.trap = (name) => /applypending/i.test(name)));
  await put(other, "theirs", 1);
  await until(tab, () => window.doc.status.state === "failed");
  const { error } = await status(tab);
  assert.match(error, /unreachable/);
  await assert.rejects(put(tab, "more", 1), /failed/);
  // The others of this browser are not kept from the server by the one that failed.
  await put(second, "second", 1);
  await shows(other, { second: 1 });
  await shows(second, { theirs: 1 });
  await tab.reload();
  await begin(tab, server.url);
  await openDocument(tab, url);
  assert.deepEqual(await settled([tab, second, other]), { title: "Acme", mine: 1, theirs: 1, second: 1 });
  assert.deepEqual([...tab.faults, ...second.faults, ...other.faults], []);
  await Promise.all(contexts.map((context) => context.close()));
});

test("the module traps in a change of the page's own: the change is refused, and the document failed", async () => {
  const context = await browserWith(TRAPS);
  const tab = await openTab(context, pages, server.url);
  const url = await make(tab, { title: "Acme" });
  await put(tab, "mine", 1);
  await tab.evaluate(() => window.doc.whenSaved());
  await tab.evaluate(() => (window.trap = (name) => /replica_(put|commit)$/i.test(name)));
  await assert.rejects(put(tab, "more", 1));
  await until(tab, () => window.doc.status.state === "failed");
  await tab.reload();
  await begin(tab, server.url);
  await openDocument(tab, url);
  assert.deepEqual(await settled([tab]), { title: "Acme", mine: 1 });
  assert.deepEqual(tab.faults, []);
  await context.close();
});
