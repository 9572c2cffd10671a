/**
 * Promise: a client keeps no document that nobody shows and that is kept elsewhere, and tells its tabs nothing twice.
 *
 * Clients of the real module and the real storage (IndexedDB is a fake), without a server. Tabs are made up: the first
 * leads, and messages take a turn of the event loop. Replicas are counted as they are made and freed, so that a
 * document which is kept can't hide.
 */

import assert from "node:assert/strict";
import { test } from "node:test";
import { Client } from "../../src/client/client.js";
import { IndexedDbStorage } from "../../src/storage/indexeddb.js";
import type { Storage } from "../../src/storage/storage.js";
import { stayAlone } from "../../src/tabs/alone.js";
import type { Tabs, TabsEvents } from "../../src/tabs/tabs.js";
import type { Wasm } from "../../src/wasm.js";
import { loadWasm } from "../real-replica.js";
import { Lab } from "../storage-faults.js";

interface Message {
  readonly from: string;
  readonly to: string | undefined;
  readonly body: unknown;
}

/** The tabs of one browser. */
class Group {
  readonly said: Message[] = [];
  /** Messages wait while this is set. */
  held: Promise<void> | undefined;
  readonly #members = new Map<string, TabsEvents>();

  join(events: TabsEvents): Tabs {
    const id = `tab-${this.#members.size}`;
    const role = this.#members.size === 0 ? "leader" : "follower";
    this.#members.set(id, events);
    setImmediate(() => {
      events.leader("tab-0");
      events.role(role);
    });
    return {
      id,
      role,
      reason: undefined,
      leader: "tab-0",
      term: 1,
      post: (message, to) => void this.#deliver({ from: id, to, body: structuredClone(message) }),
      close: () => this.#members.delete(id),
    };
  }

  async #deliver(message: Message): Promise<void> {
    this.said.push(message);
    await this.held;
    await new Promise((soon) => setImmediate(soon));
    for (const [id, events] of this.#members) {
      if (id !== message.from && (message.to === undefined || message.to === id)) {
        events.message(message.body, message.from);
      }
    }
  }
}

/** A browser's storage, its tabs, and how many replicas there are. */
class Browser {
  readonly lab = new Lab();
  readonly group = new Group();
  replicas = 0;
  readonly #wasm: Wasm;
  readonly #clients: Client[] = [];

  private constructor(wasm: Wasm) {
    const count = (by: number): void => void (this.replicas += by);
    class Replica extends wasm.Replica {
      constructor(id: string) {
        super(id);
        count(1);
      }

      override free(): void {
        count(-1);
        super.free();
      }
    }
    this.#wasm = { ...wasm, Replica };
  }

  static async start(): Promise<Browser> {
    return new Browser(await loadWasm());
  }

  storage(): Promise<Storage> {
    return IndexedDbStorage.open("test", { factory: this.lab.factory });
  }

  async client(isAlone = false): Promise<Client> {
    const client = new Client({
      wasm: this.#wasm,
      storage: await this.storage(),
      storageFault: undefined,
      joinTabs: (events) => (isAlone ? stayAlone(events, "asked") : this.group.join(events)),
      url: undefined,
      getToken: undefined,
    });
    this.#clients.push(client);
    await settle();
    return client;
  }

  async close(): Promise<void> {
    await Promise.all(this.#clients.map((client) => client.close()));
  }
}

/** Until timers of some milliseconds have run. */
function settle(ms = 30): Promise<void> {
  return new Promise((soon) => setTimeout(soon, ms));
}

async function until(is: () => boolean, what: string): Promise<void> {
  for (let waited = 0; !is(); waited += 10) {
    assert.ok(waited < 5_000, what);
    await settle(10);
  }
}

for (const isAlone of [true, false]) {
  test(`without a server a document is freed when its handle is closed and it is saved${isAlone ? "; alone" : ""}`, async () => {
    const browser = await Browser.start();
    const client = await browser.client(isAlone);
    for (let n = 0; n < 10; n += 1) {
      const made = client.create({ n });
      made.close();
    }
    const kept = client.create({ n: 10 });
    await until(() => browser.replicas === 1, "only the one that is shown is kept");
    assert.equal((await client.list()).length, 11);
    assert.equal(kept.value.n, 10);
    await browser.close();
  });
}

test("a follower's documents are freed in all tabs, also one that is closed before it is loaded", async () => {
  const browser = await Browser.start();
  const leader = await browser.client();
  const follower = await browser.client();
  const made = leader.create({ n: 1 });
  await made.whenSaved();
  made.close();
  await until(() => browser.replicas === 0, "nobody shows it");
  const hasty = follower.open(made.id);
  hasty.close();
  const patient = follower.open(made.id);
  await patient.whenReady();
  await until(() => browser.replicas === 2, "both tabs have it");
  patient.close();
  await until(() => browser.replicas === 0, "nobody shows it any more");
  follower.open(made.id).close();
  await settle();
  assert.equal(browser.replicas, 0, "it was closed before it was loaded");
  await browser.close();
});

test("what is known of the server is told once, and to each tab that asks", async () => {
  const browser = await Browser.start();
  const leader = await browser.client();
  const made = leader.create({ n: 0 });
  await made.whenSaved();
  const news = (): Message[] => browser.group.said.filter(({ body }) => (body as { t: string }).t === "server");
  for (const tab of ["tab-1", "tab-2"]) {
    const follower = await browser.client();
    await follower.open(made.id).whenReady();
    await settle();
    assert.ok(news().some(({ to }) => to === undefined || to === tab), `${tab} was told`);
  }
  assert.deepEqual(news().map(({ to }) => to), [undefined, "tab-2"]);
  await browser.close();
});
