// A server that means harm: it answers the handshake, or not, and sends what each case has for the document.

import { createHash } from "node:crypto";
import { once } from "node:events";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import { deflateRawSync } from "node:zlib";

import { decode, encode } from "../../client-wasm/js/node_modules/cborg/cborg.js";

// The packages of the interop tests and of the client; this folder has none.
const { WebSocket, WebSocketServer } = createRequire(fileURLToPath(new URL("../interop/package.json", import.meta.url)))("ws");

function uleb(number) {
  const bytes = [];
  for (let left = BigInt(number); ; left >>= 7n) {
    const rest = left >> 7n > 0n;
    bytes.push(Number(left & 0x7fn) | (rest ? 0x80 : 0));
    if (!rest) {
      return bytes;
    }
  }
}

const prefixed = (bytes) => [...uleb(bytes.length), ...bytes];

/** A chunk with a right checksum. Kinds: 0 document, 1 change, 2 compressed change. */
function chunk(kind, data) {
  const body = [kind, ...prefixed(data)];
  return [0x85, 0x6f, 0x4a, 0x83, ...createHash("sha256").update(Uint8Array.from(body)).digest().subarray(0, 4), ...body];
}

/** A sync message that brings a chunk, and says that the server has a head which nobody knows. */
const bringing = (chunk) => [0x42, 1, ...Array(32).fill(1), 0, 0, 1, ...prefixed(chunk)];
const asking = (bloom) => [0x42, 0, 0, 1, 0, ...prefixed(bloom), 0];

const latin = (text) => [...text].map((letter) => letter.charCodeAt(0));
/** A million predecessors in 50 bytes. */
const PREDECESSORS = latin(
  "\0\x01\x07\x01\x81\x89\x7a\0\0\x01\x01\x09\x07\x15\x03\x34\x01\x42\x02\x56\x02\x70\x04\x71\x04\x73\x04\x7f\x01k\x01\x7f\x01\x7f\x02\x7f\xc0\x84\x3d\xc0\x84\x3d\x01\xc0\x84\x3d\x01",
);

/** Sync messages; those that are none end the connection. */
const BAD_SYNC = {
  "not a sync message": [1, 2, 3],
  "a sync message cut short": [0x42, 1, 7, 7],
  "a filter of no bits": asking([1, 0, 1]),
  "a filter of 2e8 probes": asking([1, 8, 0x80, 0x84, 0xaf, 0x5f, 0xff]),
  "a filter cut short": asking([0xff, 0xff, 0x03, 10, 7]),
  "2^40 heads": [0x42, ...uleb(2n ** 40n)],
  "2^40 chunks": [0x42, 0, 0, 0, ...uleb(2n ** 40n)],
};

/** Fifty million ops in 54 bytes: a key is set, and what follows says how often. */
const RUN = [0x80, 0xe1, 0xeb, 0x17];
const OPS = [
  ...latin("\0\x01\x07\x01\x01\0\0\0\x05\x15\x06\x34\x04\x42\x05\x56\x05\x70\x05"),
  ...[...RUN, ...latin("\x01k"), ...RUN, ...RUN, 1, ...RUN, 2, ...RUN, 0],
];
export const BOMB_CHUNK = chunk(1, OPS);
export const BOMB = bringing(BOMB_CHUNK);
/** A change of an object that is not there. */
const NO_OBJECT = latin(
  "\0\x01\x07\x01\x01\0\0\x01\x01\x09\x07\x01\x02\x02\x02\x15\x03\x34\x01\x42\x02\x56\x02\x70\x02\x7f\x01\x7f\x05\x7f\x01k\x01\x7f\x01\x7f\x02\x7f\0",
);
/** 64 MB of nothing. */
const INFLATES = [...deflateRawSync(new Uint8Array(64 << 20))];

/** Chunks in sync messages, each with the code that the page is told. */
const BAD_CHUNKS = {
  "5e7 ops in 54 bytes": [BOMB, "too-many-ops"],
  "a change that inflates to 64 MB": [bringing(chunk(2, INFLATES)), "change-too-large"],
  "a chunk of garbage": [bringing([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]), "bad-chunk"],
  "a chunk cut short": [bringing(chunk(1, PREDECESSORS).slice(0, -3)), "bad-chunk"],
  "a chunk with a wrong checksum": [bringing(chunk(1, PREDECESSORS).with(4, 0)), "bad-checksum"],
  "a chunk of 2^40 bytes": [bringing([...chunk(1, []).slice(0, 9), ...uleb(2n ** 40n)]), "bad-chunk"],
  "a document chunk of garbage": [bringing(chunk(0, [7, 7, 7, 7])), "bad-document"],
  "a compressed chunk of garbage": [bringing(chunk(2, [1, 2, 3])), "bad-chunk"],
  "a chunk of an unknown kind": [bringing(chunk(9, [1, 2, 3])), "unsupported-chunk"],
};

/** A session on one socket. */
class Session {
  constructor(socket, us, join) {
    this.socket = socket;
    this.us = us;
    this.target = join.senderId;
  }

  raw(bytes) {
    this.socket.send(Uint8Array.from(bytes));
  }

  message(fields) {
    this.socket.send(encode({ senderId: this.us, targetId: this.target, ...fields }));
  }

  peer(fields = {}) {
    const peerMetadata = { storageId: "hostile", isEphemeral: false };
    this.message({ type: "peer", selectedProtocolVersion: "1", peerMetadata, ...fields });
  }

  sync(documentId, bytes, fields = {}) {
    this.message({ type: "sync", documentId, data: Uint8Array.from(bytes), ...fields });
  }
}

/** In place of the answer to the handshake; and the code that the page is told. */
const BAD_HANDSHAKES = {
  "garbage for an answer": [(session) => session.raw([0xf6]), undefined],
  "an answer for another": [(session) => session.peer({ targetId: "somebody" }), undefined],
  "another version": [(session) => session.peer({ selectedProtocolVersion: "7" }), undefined],
  "an error for an answer": [(session) => session.message({ type: "error", message: "back-off: too soon" }), "back-off"],
  "closed at once": [(session) => session.socket.close(), "network"],
  "closed at once with a code": [(session) => session.socket.close(4403, "forbidden"), "forbidden"],
  "cut at once": [(session) => session.socket.terminate(), "network"],
  "open, then closed": [(session) => (session.peer(), session.socket.close()), "network"],
  "open, then cut": [(session) => (session.peer(), setTimeout(() => session.socket.terminate(), 20)), "network"],
  "open, then goodbye": [(session) => (session.peer(), session.message({ type: "leave" })), "leave"],
  "open, then an error": [(session) => (session.peer(), session.message({ type: "error", message: "internal: a fault" })), "internal"],
  "open, then an odd error": [(session) => (session.peer(), session.message({ type: "error", message: "?" })), "server"],
};

/** What an open session sends for a document. `ends`: whether the connection ends by it. */
const BAD_FRAMES = {
  "f6": [(session) => session.raw([0xf6]), true],
  "nothing": [(session) => session.raw([]), true],
  "a text frame": [(session) => session.socket.send("hello"), true],
  "data of 2^63 bytes": [(session) => session.raw([0xa1, ...latin("\x64data\x5b\x7f\xff\xff\xff\xff\xff\xff\xff")]), true],
  "a map of 2^60": [(session) => session.raw(latin("\xbb\x10\0\0\0\0\0\0\0\x61a\x01")), true],
  "nested arrays": [(session) => session.raw(Array(10_000).fill(0x81)), true],
  "endless arrays": [(session) => session.raw(Array(10_000).fill(0x9f)), true],
  "an unknown type": [(session) => session.message({ type: "surprise" }), true],
  "for another": [(session, id) => session.sync(id, [0x42, 0, 0, 0, 0], { targetId: "somebody" }), true],
  "a second handshake": [(session) => session.peer(), true],
  "an id that is none": [(session) => session.sync("", [0x42, 0, 0, 0, 0]), true],
  "another document": [(session) => session.sync("4NMNnkMhL8jXrdJ9jamS58PAVdXu", [0x42, 0, 0, 0, 0]), false],
  "unavailable though it is here": [(session, id) => session.message({ type: "doc-unavailable", documentId: id }), false],
  "a head that nobody has": [(session, id) => session.sync(id, [0x42, 1, ...Array(32).fill(9), 0, 0, 0]), false],
  "a version that nobody has, and both are said to share": [
    (session, id) => session.sync(id, [0x42, 0, 0, 1, 1, ...Array(32).fill(7), 0, 0]),
    false,
  ],
  "messages that nobody can read": [
    (session, id) => {
      for (let count = 1; count <= 3_000; count += 1) {
        const data = Uint8Array.from([0xff, count & 255, 0x9f]);
        session.message({ type: "ephemeral", documentId: id, senderId: "evil", count, sessionId: "s", data });
      }
    },
    false,
  ],
  "a crowd": [
    (session, id) => {
      for (let n = 1; n <= 3_000; n += 1) {
        const data = encode({ __presence: { type: "snapshot", state: { n, __proto__: { evil: true } } } });
        session.message({ type: "ephemeral", documentId: id, senderId: `peer ${n}`, count: 1, sessionId: "s", data });
      }
    },
    false,
  ],
};

/** By name: `{ handshake, attack, code, ends }`. Without `ends` it may end or not. */
export const CASES = Object.fromEntries([
  ...Object.entries(BAD_HANDSHAKES).map(([name, [handshake, code]]) => [name, { handshake, code, ends: true }]),
  ...Object.entries(BAD_FRAMES).map(([name, [attack, ends]]) => [name, { attack, ends }]),
  ...Object.entries(BAD_SYNC).map(([name, bytes]) => [name, { attack: (session, id) => session.sync(id, bytes), ends: true }]),
  ...Object.entries(BAD_CHUNKS).map(([name, [bytes, code]]) => [
    name,
    { attack: (session, id) => session.sync(id, bytes), code, ends: true },
  ]),
]);

/** Of what is not there: our own server would never pass it on, a client does not look for it, Automerge panics. */
export const TRAPS = {
  "a million predecessors in 50 bytes": { attack: (session, id) => session.sync(id, bringing(chunk(1, PREDECESSORS))), ends: true },
  "a change of an object that is not there": { attack: (session, id) => session.sync(id, bringing(chunk(1, NO_OBJECT))), ends: true },
};

/** Plays each case at its own path; `connections` counts by case. */
export async function serveHarm() {
  const server = new WebSocketServer({ host: "127.0.0.1", port: 0 });
  await once(server, "listening");
  const connections = new Map();
  server.on("connection", (socket, request) => {
    const name = decodeURIComponent(request.url.slice("/sync/".length));
    const found = CASES[name] ?? TRAPS[name];
    connections.set(name, (connections.get(name) ?? 0) + 1);
    let session;
    const attacked = new Set();
    socket.on("error", () => {});
    socket.on("message", (data) => {
      const message = decode(new Uint8Array(data));
      if (message.type === "join") {
        session = new Session(socket, "hostile", message);
        (found.handshake ?? (() => session.peer()))(session);
      } else if ((message.type === "sync" || message.type === "request") && !attacked.has(message.documentId)) {
        attacked.add(message.documentId);
        found.attack?.(session, message.documentId);
      }
    });
  });
  return {
    connections,
    url: (name) => `ws://127.0.0.1:${server.address().port}/sync/${encodeURIComponent(name)}`,
    stop: () => {
      server.clients.forEach((socket) => socket.terminate());
      server.close();
    },
  };
}

/** So long has a document that is not attacked, to get its word through: milliseconds. */
const ATTACKED_AFTER_MS = 300;

/** What the server sends to who has nothing of a document: a sync message, with its snapshot if it has one. */
export async function snapshotOf(url, documentId) {
  const socket = new WebSocket(url);
  await once(socket, "open");
  socket.send(encode({ type: "join", senderId: "nobody", supportedProtocolVersions: ["1"], peerMetadata: {} }));
  const [peer] = await once(socket, "message");
  const targetId = decode(new Uint8Array(peer)).senderId;
  // As one that reads both versions of messages: only the second has snapshots.
  const data = Uint8Array.from([...asking([]), 2, 1, 2]);
  socket.send(encode({ type: "request", documentId, senderId: "nobody", targetId, data }));
  const [answer] = await once(socket, "message");
  socket.terminate();
  return decode(new Uint8Array(answer)).data;
}

/**
 * Stands between clients and a server, and passes on all that they say. The `victim` gets these sync messages, too, on
 * each connection; `attacks` counts them.
 */
export async function serveBetween(url, messages) {
  const between = { attacks: 0, victim: undefined };
  const front = new WebSocketServer({ host: "127.0.0.1", port: 0 });
  await once(front, "listening");
  front.on("connection", (socket) => {
    const back = new WebSocket(url);
    const waiting = [];
    let session;
    let attacked = false;
    for (const [one, other] of [
      [socket, back],
      [back, socket],
    ]) {
      one.on("error", () => {});
      one.on("close", () => other.close());
    }
    back.on("open", () => waiting.splice(0).forEach((data) => back.send(data)));
    back.on("message", (data) => socket.send(data));
    socket.on("message", (data) => {
      if (back.readyState === WebSocket.OPEN) {
        back.send(data);
      } else {
        waiting.push(data);
      }
      const message = decode(new Uint8Array(data));
      if (message.type === "join") {
        session = new Session(socket, "hostile", message);
      } else if (message.documentId === between.victim && between.victim !== undefined && !attacked) {
        attacked = true;
        setTimeout(() => {
          if (socket.readyState === WebSocket.OPEN) {
            between.attacks += 1;
            messages.forEach((bytes) => session.sync(message.documentId, bytes));
          }
        }, ATTACKED_AFTER_MS);
      }
    });
  });
  between.url = `ws://127.0.0.1:${front.address().port}/sync`;
  between.stop = () => {
    front.clients.forEach((socket) => socket.terminate());
    front.close();
  };
  return between;
}
