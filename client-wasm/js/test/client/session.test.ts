/**
 * Promise: a document that nobody shows is not kept for what can't come any more.
 *
 * The server is the test's: a replica for one document, which speaks when it is told to. Who takes snapshots apart is a
 * fake, so that the test decides what happens meanwhile.
 */

import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { decode, encode } from "cborg";
import { MemoryStorage } from "../../src/storage/memory.js";
import type { Chunk } from "../../src/wasm.js";
import { loadWasm } from "../real-replica.js";
import { Browser, FakeLong, settle, until } from "./browser.js";

const wasm = await loadWasm();

interface Doc {
  readonly n: number;
}

interface Frame {
  readonly type: string;
  readonly senderId: string;
  readonly data: Uint8Array;
}

/** A server of one document, and the connection to it. */
class Server {
  readonly id = wasm.documentId(crypto.getRandomValues(new Uint8Array(16)));
  readonly replica = new wasm.Replica(this.id);
  #socket: WebSocket | undefined;
  #peer = "";

  constructor(context: TestContext) {
    const before = globalThis.WebSocket;
    const open = (): WebSocket => {
      const socket = { bufferedAmount: 0, send: (frame: Uint8Array) => this.#take(frame), close() {} } as unknown as WebSocket;
      this.#socket = socket;
      setImmediate(() => socket.onopen?.(new Event("open")));
      return socket;
    };
    globalThis.WebSocket = function () {
      return open();
    } as unknown as typeof WebSocket;
    context.after(() => (globalThis.WebSocket = before));
  }

  put(n: number, more = new Uint8Array()): Chunk {
    this.replica.put("_root", "n", n);
    this.replica.put("_root", "more", more);
    return this.replica.commit(undefined, 0) as Chunk;
  }

  /** What somebody knows of it who has all of it. */
  knownTo(chunks: readonly Chunk[]): Uint8Array {
    const replica = new wasm.Replica(this.id);
    for (const { bytes } of chunks) replica.apply(bytes);
    replica.connect();
    this.replica.connect();
    replica.receive((decode(this.replica.nextFrame("server", "anybody")!) as Frame).data);
    return replica.syncState();
  }

  /** Says what it has to say now. What it is told it takes at once. */
  speak(): void {
    const frame = this.replica.nextFrame("server", this.#peer);
    assert.ok(frame !== undefined, "there is something to say");
    this.#send({ type: "sync", documentId: this.id, data: (decode(frame) as Frame).data });
  }

  #take(frame: Uint8Array): void {
    const { type, senderId, data } = decode(frame) as Frame;
    if (type === "join") {
      this.#peer = senderId;
      this.replica.connect();
      const peerMetadata = { storageId: "disk", isEphemeral: false };
      setImmediate(() => this.#send({ type: "peer", selectedProtocolVersion: "1", peerMetadata }));
    } else if (type === "sync" || type === "request") {
      this.replica.receive(data);
      this.replica.applyPending(1e6);
    }
  }

  #send(fields: object): void {
    const data = encode({ senderId: "server", targetId: this.#peer, ...fields });
    this.#socket?.onmessage?.(new MessageEvent("message", { data: Uint8Array.from(data).buffer }));
  }
}

/** A client that has a little of a document, and is sent all of it. */
async function unpacking(context: TestContext) {
  const server = new Server(context);
  const chunks = [server.put(1)];
  const storage = new MemoryStorage();
  await storage.append(server.id, chunks, "others", "any");
  await storage.setSyncState(server.id, server.knownTo(chunks));
  for (let n = 2; n < 40; n += 1) chunks.push(server.put(n, crypto.getRandomValues(new Uint8Array(100))));
  const browser = await Browser.start();
  context.after(() => browser.close());
  const long = new FakeLong(2_000);
  const client = await browser.client(false, long, storage, "ws://nowhere/sync");
  const opened = client.open<Doc>(server.id);

  await until(() => client.status.connection === "open" && opened.status.state === "ready", "it is here");
  server.speak();
  const taken = await long.nextUnpacking();
  const read = { parts: chunks.slice(1).map((chunk) => chunk.bytes), heads: server.replica.heads() };
  return { browser, client, opened, taken, read };
}

test("a document that nobody shows is freed when the rest of it can't come", async (context) => {
  const { browser, client, opened, taken, read } = await unpacking(context);
  opened.close();
  await settle();
  assert.equal(browser.replicas, 1, "its changes are awaited");
  client.setOffline(true);
  await until(() => browser.replicas === 0, "nothing is awaited any more");
  taken.resolve(read);
  await settle();
});
