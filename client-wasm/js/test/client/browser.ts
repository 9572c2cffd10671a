/** A browser for tests: clients of the real module and the real storage, in tabs that are made up. */

import assert from "node:assert/strict";
import { applyChunks, bytesOf } from "../../src/client/chunks.js";
import { Client } from "../../src/client/client.js";
import { IndexedDbStorage } from "../../src/storage/indexeddb.js";
import type { Filled, LongReader, Progress } from "../../src/long/loader.js";
import type { Changes, Content } from "../../src/long/protocol.js";
import type { Storage } from "../../src/storage/storage.js";
import { stayAlone } from "../../src/tabs/alone.js";
import type { Tabs, TabsEvents } from "../../src/tabs/tabs.js";
import { applied, EMPTY } from "../../src/value/tree.js";
import type { Heads, Wasm, WasmReplica } from "../../src/wasm.js";
import { loadWasm } from "../real-replica.js";
import { Lab } from "../storage-faults.js";

export interface Message {
  readonly from: string;
  readonly to: string | undefined;
  readonly body: unknown;
}

/** The tabs of one browser. */
export class Group {
  readonly said: Message[] = [];
  /** Messages wait while this is set. */
  held: Promise<void> | undefined;
  readonly #members = new Map<string, TabsEvents>();

  /** A message that another tab would send. */
  say(to: string, from: string, body: unknown): void {
    this.#members.get(to)?.message(body, from);
  }

  /** The others took it for gone. */
  missed(tab: string): void {
    this.#members.get(tab)?.missed();
  }

  /** Another tab leads from now on; the one that did is gone. */
  leads(tab: string): void {
    for (const [id, events] of this.#members) {
      events.leader(tab);
      events.role(id === tab ? "leader" : "follower");
    }
  }

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
export class Browser {
  readonly lab = new Lab();
  readonly group = new Group();
  replicas = 0;
  /** Told how many bytes of chunks a replica is to apply. */
  onApply: (bytes: number) => void = () => {};
  readonly #wasm: Wasm;
  readonly #clients: Client[] = [];

  private constructor(wasm: Wasm) {
    const count = (by: number): void => void (this.replicas += by);
    const applies = (bytes: number): void => this.onApply(bytes);
    class Replica extends wasm.Replica {
      constructor(id: string) {
        super(id);
        count(1);
      }

      override apply(chunks: Uint8Array): void {
        applies(chunks.length);
        super.apply(chunks);
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

  newId(): string {
    return this.#wasm.documentId(crypto.getRandomValues(new Uint8Array(16)));
  }

  replica(id: string): WasmReplica {
    return new this.#wasm.Replica(id);
  }

  storage(): Promise<Storage> {
    return IndexedDbStorage.open("test", { factory: this.lab.factory });
  }

  async client(isAlone = false, long?: LongReader, storage?: Storage, url?: string): Promise<Client> {
    const client = new Client({
      wasm: this.#wasm,
      long,
      storage: storage ?? (await this.storage()),
      storageFault: undefined,
      joinTabs: (events) => (isAlone ? stayAlone(events, "asked") : this.group.join(events)),
      url,
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
export function settle(ms = 30): Promise<void> {
  return new Promise((soon) => setTimeout(soon, ms));
}

export async function until(is: () => boolean, what: string): Promise<void> {
  for (let waited = 0; !is(); waited += 10) {
    assert.ok(waited < 5_000, what);
    await settle(10);
  }
}

/** A document that is being read; the test says what comes of it. */
interface Filling {
  readonly document: string;
  readonly content: Content;
  resolve(filled: Filled | undefined): void;
  reject(error: Error): void;
}

/** A snapshot of which the changes are being taken out. */
interface Unpacking {
  readonly document: string;
  readonly content: Content;
  readonly have: Heads;
  readonly progress: Progress;
  resolve(read: Changes | undefined): void;
  reject(error: Error): void;
}

/** Reads nothing by itself, and takes all that is as long as `from` bytes. */
export class FakeLong implements LongReader {
  readonly fillings: Filling[] = [];
  readonly unpackings: Unpacking[] = [];
  #from: number;

  constructor(from = 1) {
    this.#from = from;
  }

  takes(content: Content): boolean {
    return (content.from === "chunks" ? bytesOf(content.chunks.chunks) : content.message.length) >= this.#from;
  }

  fill(document: string, content: Content): Promise<Filled | undefined> {
    return new Promise((resolve, reject) => this.fillings.push({ document, content, resolve, reject }));
  }

  changes(document: string, content: Content, have: Heads, progress: Progress): Promise<Changes | undefined> {
    return new Promise((resolve, reject) => this.unpackings.push({ document, content, have, progress, resolve, reject }));
  }

  /** The one of which something is read next. */
  async nextUnpacking(): Promise<Unpacking> {
    await until(() => this.unpackings.length > 0, "something long is to be taken apart");
    return this.unpackings.shift() as Unpacking;
  }

  /** The document that is read next. */
  async next(): Promise<Filling> {
    await until(() => this.fillings.length > 0, "something long is to be read");
    return this.fillings.shift() as Filling;
  }
}

/** What a worker finds in chunks. */
export function unpacked(browser: Browser, { document, content, have }: Unpacking): Changes {
  assert.ok(content.from === "chunks");
  const replica = browser.replica(document);
  applyChunks(replica, content.chunks);
  const read = { parts: replica.changesSince(have).map((chunk) => chunk.bytes), heads: replica.heads() };
  replica.free();
  return read;
}

/** What a worker makes of chunks. */
export function filled(browser: Browser, { document, content }: Filling): Filled {
  assert.ok(content.from === "chunks");
  const replica = browser.replica(document);
  const damaged = applyChunks(replica, content.chunks);
  const patches = replica.patches();
  return { replica, shown: { patches, value: applied(EMPTY, patches) }, damaged };
}
