/**
 * The promise: however slow the link, an answer arrives in the end; a connection on which nothing comes any more is
 * noticed, also by whoever only reads; a token that comes late, or never, keeps nobody from connecting; and a new
 * connection that nothing was wrong for is not told as the network's being gone.
 *
 * The server is the test's own, its frames are real, and time is the test's: it passes only in `tick`, so that no test
 * can pass because a machine is quick or slow.
 */

import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";

import { decode, encode } from "cborg";

import { MAX_ANSWER_WITHIN_MS } from "../../src/client/patience.js";
import { type ConnectionFault, type ConnectionState, Uplink, type UplinkOptions } from "../../src/client/uplink.js";
import type { WasmIncoming } from "../../src/wasm.js";
import { loadWasm } from "../real-replica.js";

const SECOND = 1_000;
const MINUTE = 60 * SECOND;

interface Message {
  readonly type: string;
  readonly documentId: string;
  readonly senderId: string;
}

const wasm = await loadWasm();

/** What `answer` says to each message comes so much later, milliseconds; never if it says nothing. */
type Answer = (message: Message, socket: FakeSocket) => { readonly after: number; readonly fields: object } | undefined;

/** A WebSocket to a server that is the test's. Frames come in order, and each after all of the one before. */
class FakeSocket {
  onopen: (() => void) | null = null;
  onmessage: ((event: { data: ArrayBuffer | string }) => void) | null = null;
  onclose: (() => void) | null = null;
  binaryType = "";
  bufferedAmount = 0;
  isClosed = false;
  readonly sent: Message[] = [];
  readonly texts: string[] = [];
  readonly #answer: Answer;
  #busyUntil = 0;

  constructor(answer: Answer) {
    this.#answer = answer;
    setTimeout(() => this.onopen?.(), 1);
  }

  send(frame: Uint8Array | string): void {
    if (typeof frame === "string") {
      this.texts.push(frame);
      return;
    }
    const message = decode(frame) as Message;
    this.sent.push(message);
    const answer = message.type === "join" ? welcome : this.#answer(message, this);
    if (answer !== undefined) {
      this.#busyUntil = Math.max(this.#busyUntil, Date.now()) + answer.after;
      const data = encode({ senderId: "server", targetId: message.senderId, documentId: message.documentId, ...answer.fields });
      setTimeout(() => !this.isClosed && this.onmessage?.({ data: data.slice().buffer }), this.#busyUntil - Date.now());
    }
  }

  close(): void {
    this.isClosed = true;
  }
}

const welcome = {
  after: 1,
  fields: { type: "peer", selectedProtocolVersion: "1", peerMetadata: { storageId: "disk", isEphemeral: false } },
};
const soon = { after: 500, fields: { type: "doc-unavailable" } };

async function start(context: TestContext, answer: Answer, options: Partial<UplinkOptions> = {}) {
  context.mock.timers.enable({ apis: ["setTimeout", "Date"], now: 1_700_000_000_000 });
  // The longest wait between attempts: none is forgotten.
  context.mock.method(Math, "random", () => 0.999);
  const sockets: FakeSocket[] = [];
  const before = globalThis.WebSocket;
  const fake = function () {
    sockets.push(new FakeSocket(answer));
    return sockets.at(-1);
  };
  globalThis.WebSocket = fake as unknown as typeof WebSocket;
  const faults: ConnectionFault[] = [];
  const incoming: WasmIncoming[] = [];
  const states: ConnectionState[] = [];
  let opened = (): void => {};
  const uplink = new Uplink(
    wasm,
    { url: "ws://nowhere/sync", getToken: undefined, peer: () => "tab", storage: undefined, isUsed: () => true, ...options },
    {
      state: (state, fault) => {
        states.push(state);
        if (fault !== undefined && faults.at(-1) !== fault) faults.push(fault);
      },
      open: () => opened(),
      proven: () => {},
      closed: () => {},
      incoming: (message) => incoming.push(message),
    },
  );
  context.after(() => {
    uplink.stop();
    globalThis.WebSocket = before;
  });
  /** Lets time pass, and whatever was promised happen. */
  const tick = async (ms: number): Promise<void> => {
    const end = Date.now() + ms;
    for (let left = ms; left > 0; left = end - Date.now()) {
      context.mock.timers.tick(Math.min(left, 100));
      for (let turn = 0; turn < 5; turn += 1) await null;
    }
  };
  /** Asks for these at each beginning of a session. */
  const asksFor = (...ids: string[]): void => {
    opened = () => {
      for (const id of ids) {
        const replica = new wasm.Replica(id);
        replica.connect();
        uplink.send(replica.nextFrame(...uplink.connection!.peers())!, id);
      }
    };
  };
  return { uplink, sockets, faults, states, incoming, tick, asksFor };
}

const ids = [1, 2].map((seed) => wasm.documentId(new Uint8Array(16).fill(seed))) as [string, string];

test("an answer that takes minutes to arrive is waited for longer each time, until it is there", async (context) => {
  const large = { after: 4 * MINUTE, fields: { type: "doc-unavailable" } };
  const { uplink, sockets, faults, incoming, tick, asksFor } = await start(context, ({ documentId }) =>
    documentId === ids[0] ? large : soon,
  );
  asksFor(ids[0]);
  uplink.start();
  await tick(20 * MINUTE);
  assert.deepEqual(incoming[0], { type: "unavailable", document: ids[0] });
  // 10, 20, 40, 80 and 160 s were too short.
  assert.equal(sockets.findIndex((socket) => !socket.isClosed), 5);
  assert.ok(faults.every(({ code, message }) => code === "timeout" && message === "no answer"));
});

test("a short answer that comes first does not take the time away from the long one behind it", async (context) => {
  const { uplink, incoming, tick, asksFor } = await start(context, ({ documentId }) =>
    documentId === ids[1] ? { after: 2 * MINUTE, fields: { type: "doc-unavailable" } } : soon,
  );
  asksFor(...ids);
  uplink.start();
  await tick(15 * MINUTE);
  assert.ok(incoming.some((message) => message.type === "unavailable" && message.document === ids[1]));
});

test("a server that never answers is given up at first after ten seconds, and never waited for without end", async (context) => {
  const { uplink, sockets, tick, asksFor } = await start(context, () => undefined);
  asksFor(ids[0]);
  uplink.start();
  await tick(9 * SECOND);
  assert.equal(sockets[0]?.isClosed, false);
  await tick(2 * SECOND);
  assert.equal(sockets[0]?.isClosed, true);
  await tick(60 * MINUTE);
  const before = sockets.length;
  await tick(MAX_ANSWER_WITHIN_MS + MINUTE);
  assert.ok(sockets.length > before);
});

test("after answers silence is noticed soon again", async (context) => {
  let isSlow = true;
  let isDead = false;
  const { uplink, sockets, tick, asksFor } = await start(context, () =>
    isDead ? undefined : { ...soon, after: isSlow ? 70 * SECOND : 500 },
  );
  asksFor(ids[0]);
  uplink.start();
  await tick(5 * MINUTE);
  assert.equal(sockets.at(-1)?.isClosed, false);
  isSlow = false;
  // Signs of life, each of which is answered.
  await tick(5 * MINUTE);
  isDead = true;
  const before = sockets.length;
  await tick(MINUTE);
  assert.ok(sockets.length > before);
});

test("what is still to be sent has its time before an answer is expected", async (context) => {
  const { uplink, sockets, tick, asksFor } = await start(context, () => undefined);
  uplink.start();
  await tick(SECOND);
  const [socket] = sockets;
  // Forty seconds on the slowest of links.
  socket!.bufferedAmount = 320_000;
  asksFor(ids[0]);
  const replica = new wasm.Replica(ids[0]);
  replica.connect();
  uplink.send(replica.nextFrame(...uplink.connection!.peers())!, ids[0]);
  await tick(49 * SECOND);
  assert.equal(socket?.isClosed, false);
  await tick(2 * SECOND);
  assert.equal(socket?.isClosed, true);
});

test("who only reads notices a dead connection, and a living one costs a message now and then", async (context) => {
  let isDead = false;
  const { uplink, sockets, faults, tick, asksFor } = await start(context, () => (isDead ? undefined : soon));
  asksFor(ids[0]);
  uplink.start();
  await tick(10 * MINUTE);
  assert.equal(sockets.length, 1);
  const probes = sockets[0]!.sent.slice(2);
  assert.ok(probes.length >= 18 && probes.length <= 20, `${probes.length} messages in ten minutes`);
  // One document more on the server, however often it is asked for.
  assert.equal(new Set(probes.map(({ documentId }) => documentId)).size, 1);
  assert.ok(probes.every(({ type, documentId }) => type === "request" && documentId !== ids[0]));
  isDead = true;
  await tick(45 * SECOND);
  assert.equal(sockets[0]?.isClosed, true);
  assert.deepEqual(faults[0], { code: "timeout", message: "no answer" });
});

test("whatever comes is a sign of life, and nobody is asked for one", async (context) => {
  const { uplink, sockets, tick } = await start(context, () => undefined);
  uplink.start();
  await tick(SECOND);
  const message = { type: "ephemeral", senderId: "ada", targetId: "tab", documentId: ids[0], sessionId: "s", data: encode(1) };
  for (let count = 1; count <= 20; count += 1) {
    sockets[0]?.onmessage?.({ data: encode({ ...message, count }).slice().buffer });
    await tick(15 * SECOND);
  }
  assert.deepEqual(sockets.map(({ sent }) => sent.length), [1]);
});

test("without documents nothing is missed, and nobody is asked for a sign of life", async (context) => {
  const { uplink, sockets, tick } = await start(context, () => undefined, { isUsed: () => false });
  uplink.start();
  await tick(10 * MINUTE);
  assert.deepEqual(sockets.map(({ sent }) => sent.length), [1]);
});

test("when the network changes a sign of life is not waited for", async (context) => {
  const { uplink, sockets, tick } = await start(context, () => undefined);
  uplink.start();
  await tick(SECOND);
  uplink.hurry();
  uplink.hurry();
  assert.equal(sockets[0]?.sent.length, 2);
  await tick(11 * SECOND);
  assert.equal(sockets[0]?.isClosed, true);
});

test("a token is renewed on the connection by which it came, and other texts end it", async (context) => {
  const now = (): number => Date.now() / 1_000;
  const tokens: string[] = [];
  const getToken = (): string => {
    tokens.push(`head.${btoa(JSON.stringify({ exp: now() + 120, n: tokens.length }))}.signature`);
    return tokens.at(-1)!;
  };
  const name = { senderId: "concord-1" };
  Object.assign(welcome.fields, name);
  context.after(() => Reflect.deleteProperty(welcome.fields, "senderId"));
  const { uplink, sockets, faults, tick } = await start(context, () => soon, { getToken });
  uplink.start();
  await tick(100 * SECOND);
  const [socket] = sockets as [FakeSocket];
  assert.deepEqual(socket.texts, [JSON.stringify({ type: "token", token: tokens[1] })]);
  socket.onmessage?.({ data: JSON.stringify({ type: "token", until: "2024-01-01T00:00:00.000Z" }) });
  await tick(100 * SECOND);
  assert.deepEqual(socket.texts.length, 2);
  socket.onmessage?.({ data: JSON.stringify({ type: "token", until: "2024-01-01T00:00:00.000Z" }) });
  assert.deepEqual([sockets.length, faults.length], [1, 0]);
  socket.onmessage?.({ data: "hello" });
  await tick(30 * SECOND);
  assert.equal(faults.length, 1);
  assert.equal(sockets.length, 2);
});

test("a token that never comes is like one that could not be had: it is asked for again", async (context) => {
  let asked = 0;
  const { uplink, sockets, faults, tick } = await start(context, () => soon, {
    getToken: () => {
      asked += 1;
      return asked === 1 ? new Promise(() => {}) : Promise.resolve("secret");
    },
  });
  uplink.start();
  await tick(29 * SECOND);
  assert.deepEqual([asked, sockets.length], [1, 0]);
  await tick(3 * SECOND);
  assert.deepEqual([asked, sockets.length], [2, 1]);
  assert.deepEqual(faults.map(({ code }) => code), ["token"]);
});

test("a token that comes, or is refused, when nobody waits for it any more changes nothing", async (context) => {
  const tokens: { resolve: (token: string) => void; reject: (error: Error) => void }[] = [];
  const { uplink, sockets, faults, tick } = await start(context, () => soon, {
    getToken: () => new Promise<string>((resolve, reject) => tokens.push({ resolve, reject })),
  });
  // After the end.
  uplink.start();
  await tick(SECOND);
  uplink.stop();
  tokens[0]?.reject(new Error("late"));
  await tick(5 * MINUTE);
  assert.deepEqual([tokens.length, sockets.length, faults.length], [1, 0, 0]);
  // While another attempt waits for its own.
  for (const settle of [() => tokens[1]?.resolve("old"), () => tokens[1]?.reject(new Error("late"))]) {
    uplink.start();
    await tick(SECOND);
    uplink.stop();
    uplink.start();
    await tick(SECOND);
    settle();
    await tick(SECOND);
    assert.deepEqual([sockets.length, faults.length], [0, 0]);
    uplink.stop();
    tokens.splice(1);
  }
  // While another attempt's connection is open.
  uplink.start();
  await tick(SECOND);
  uplink.stop();
  uplink.start();
  await tick(SECOND);
  tokens[2]?.resolve("new");
  await tick(SECOND);
  tokens[1]?.reject(new Error("late"));
  await tick(SECOND);
  assert.equal(sockets[0]?.isClosed, false);
  assert.ok(uplink.connection !== undefined);
});

test("a connection that begins anew is never told as offline or waiting", async (context) => {
  const { uplink, sockets, states, tick } = await start(context, () => soon);
  uplink.restart();
  assert.equal(sockets.length, 0, "nobody wants one");
  uplink.start();
  await tick(SECOND);
  uplink.restart();
  uplink.restart();
  await tick(SECOND);
  assert.deepEqual(sockets.map(({ isClosed }) => isClosed), [true, true, false]);
  assert.deepEqual(states, ["connecting", "open", "connecting", "connecting", "open"]);
  uplink.stop();
});
