// Promise: a document arrives over a link on which it takes longer than an answer usually does, and a tab that only
// reads notices that its connection is dead.
//
// Between the browser and a real server is a proxy of TCP, which lets through so many bytes a second, or none without
// a word to anybody. That the link is slow enough shows: the first connection is given up.

import assert from "node:assert/strict";
import { once } from "node:events";
import { connect, createServer } from "node:net";
import { test } from "node:test";

import { begin, make, openDocument, openTab, stage, until } from "./harness.mjs";

let server, pages, browser;

stage((parts) => ({ server, pages, browser } = parts));

/** What is let through towards the browser comes in pieces, so often. Milliseconds. */
const PIECE_MS = 50;

/** A link to the server. `bytesPerMs` towards the browser can be set at any time; at 0 nothing passes, either way. */
async function link() {
  const state = { bytesPerMs: Infinity, url: undefined, stop: undefined };
  const sockets = new Set();
  const proxy = createServer((near) => {
    const far = connect(Number(new URL(server.url).port), "127.0.0.1");
    for (const socket of [near, far]) {
      socket.on("error", () => {});
      sockets.add(socket);
    }
    near.on("data", (data) => state.bytesPerMs > 0 && far.write(data));
    near.on("close", () => far.destroy());
    far.on("close", () => state.bytesPerMs > 0 && near.destroy());
    slowly(far, near, state);
  });
  proxy.listen(0, "127.0.0.1");
  await once(proxy, "listening");
  state.url = `ws://127.0.0.1:${proxy.address().port}/sync`;
  state.stop = () => {
    sockets.forEach((socket) => socket.destroy());
    proxy.close();
  };
  return state;
}

/** Passes on what comes, as slowly as the link is. */
function slowly(from, to, state) {
  const waiting = [];
  from.on("data", (data) => waiting.push(data));
  const timer = setInterval(() => {
    for (let left = state.bytesPerMs * PIECE_MS; left > 0 && waiting.length > 0; ) {
      const [first] = waiting;
      to.write(first.subarray(0, left));
      waiting.splice(0, 1, ...(first.length > left ? [first.subarray(left)] : []));
      left -= first.length;
    }
  }, PIECE_MS);
  to.on("close", () => clearInterval(timer));
}

test("a document that takes longer than an answer arrives, on a later connection", async () => {
  const writer = await openTab(await browser.newContext(), pages, server.url);
  const url = await writer.evaluate(async () => {
    // Of a kind that does not get smaller.
    const bytes = new Uint8Array(1_400_000);
    for (let at = 0; at < bytes.length; at += 65_536) {
      crypto.getRandomValues(bytes.subarray(at, Math.min(at + 65_536, bytes.length)));
    }
    window.doc = window.client.create({ bytes });
    await window.doc.whenSynced();
    return window.doc.url;
  });
  const slow = await link();
  // Fourteen seconds.
  slow.bytesPerMs = 100;
  const context = await browser.newContext();
  const reader = await openTab(context, pages, slow.url);
  await reader.evaluate((url) => {
    window.faults = [];
    window.client.on("status", ({ connection, fault }) => connection === "waiting" && window.faults.push(fault));
    window.doc = window.client.open(url);
  }, url);
  await reader.waitForFunction(() => window.doc.value.bytes?.length === 1_400_000, undefined, { timeout: 90_000 });
  assert.deepEqual(await reader.evaluate(() => window.faults.map(({ message }) => message)), ["no answer"]);
  assert.deepEqual([...writer.faults, ...reader.faults], []);
  slow.stop();
});

test("the server answers a request for a sign of life each time, and silence ends the connection", async () => {
  const writer = await openTab(await browser.newContext(), pages, server.url);
  const url = await make(writer, { title: "Acme" });
  const between = await link();
  const context = await browser.newContext();
  const reader = await context.newPage();
  let received = 0;
  reader.on("websocket", (socket) => socket.on("framereceived", () => (received += 1)));
  await reader.goto(pages.url);
  await begin(reader, between.url);
  await openDocument(reader, url);
  await until(reader, () => window.doc.status.synced);
  for (let round = 0; round < 3; round += 1) {
    const before = received;
    // A client that was told of a network asks at once, and not after half a minute.
    await reader.evaluate(() => dispatchEvent(new Event("online")));
    await reader.waitForTimeout(2_000);
    assert.equal(received, before + 1, `round ${round}`);
  }
  assert.equal(await reader.evaluate(() => window.client.status.connection), "open");
  between.bytesPerMs = 0;
  await writer.evaluate(() => window.doc.change((draft) => void (draft.title = "Acme & Sons")));
  await reader.evaluate(() => dispatchEvent(new Event("online")));
  await until(reader, () => window.client.status.connection !== "open");
  between.bytesPerMs = Infinity;
  await until(reader, () => window.doc.value.title === "Acme & Sons");
  between.stop();
});
