/**
 * The promise: what another tab sends is a message of ours, or nothing at all. Each field of each good message is
 * left out or replaced by rubbish, one at a time, so whatever passes has every field of its type.
 */

import assert from "node:assert/strict";
import { test } from "node:test";
import { asTabMessage, type TabMessage } from "../../src/client/messages.js";

const HASH = "0123456789abcdef".repeat(4);
const EPHEMERAL = { id: "d", author: "a", session: "s", count: 1, data: new Uint8Array([1]) };
const NEWS = { synced: [HASH], unavailable: false, readOnly: true };

const GOOD: readonly TabMessage[] = [
  { t: "want", documents: [] },
  { t: "want", documents: [{ id: "d", heads: [] }, { id: "e", heads: [HASH, HASH] }] },
  { t: "unwant", id: "d" },
  { t: "who" },
  { t: "cleared" },
  { t: "changes", id: "d", bytes: new Uint8Array([1, 2]), heads: ["a".repeat(64)] },
  { t: "server", id: "d", news: NEWS },
  { t: "server", id: "d", news: { synced: [], unavailable: true, readOnly: false } },
  { t: "connection", state: "open", fault: undefined },
  { t: "connection", state: "waiting", fault: { code: "network", message: "gone" } },
  { t: "connection", state: "connecting", fault: undefined },
  { t: "connection", state: "offline", fault: undefined },
  { t: "ephemeral", message: EPHEMERAL, fromServer: true },
  { t: "ephemeral", message: { ...EPHEMERAL, count: 0 }, fromServer: false },
  { t: "offline", offline: true },
  { t: "deleted", id: "d" },
];

/** Each is wrong in any place but those named in {@link isGoodFor}. */
const RUBBISH: readonly unknown[] = [
  undefined, null, 0, 7.5, -1, NaN, Infinity, 2 ** 53, "", "x", "__proto__", "constructor", true, false, 1n, [], {},
  [undefined], [null], [HASH.slice(1)], [HASH.toUpperCase()], [7], [{}], [{ id: "d" }], [{ id: 7, heads: [] }],
  [{ id: "d", heads: "x" }], [{ id: "d", heads: [, HASH] }], [, HASH], [, { id: "d", heads: [] }],
  { length: 0 }, new Uint16Array(1), new ArrayBuffer(1), [1, 2], new Date(0), new Map(), HASH,
];

/** Rubbish elsewhere, but not there. */
function isGoodFor(field: string, value: unknown): boolean {
  if (["id", "author", "session", "code", "fault.message"].includes(field) && typeof value === "string") return true;
  if (["offline", "unavailable", "readOnly", "fromServer"].includes(field) && typeof value === "boolean") return true;
  if (["documents", "heads", "synced"].includes(field) && Array.isArray(value) && value.length === 0) return true;
  if (field === "fault" && value === undefined) return true;
  return field === "count" && value === 0;
}

/** The message with one place of it changed, for all places, also the inner ones. */
function* changed(whole: unknown): Generator<{ where: string; message: unknown; field: string; value: unknown }> {
  if (typeof whole !== "object" || whole === null || ArrayBuffer.isView(whole)) return;
  for (const [field, inner] of Object.entries(whole)) {
    const put = (value: unknown): unknown => {
      if (Array.isArray(whole)) return whole.map((each, index) => (index === Number(field) ? value : each));
      return { ...whole, [field]: value };
    };
    for (const value of RUBBISH) yield { where: field, message: put(value), field, value };
    if (!Array.isArray(whole)) {
      const { [field]: _, ...rest } = whole as { [field: string]: unknown };
      yield { where: `without ${field}`, message: rest, field, value: undefined };
    }
    for (const deeper of changed(inner)) {
      yield { ...deeper, where: `${field}.${deeper.where}`, message: put(deeper.message) };
    }
  }
}

test("messages of ours pass as they are, also with more in them", () => {
  for (const message of GOOD) {
    assert.deepEqual(asTabMessage(structuredClone(message)), message);
    assert.ok(asTabMessage({ ...message, more: 1 }) !== undefined);
  }
});

test("rubbish is refused, also deep inside", () => {
  for (const value of RUBBISH) assert.equal(asTabMessage(value), undefined);
  for (const t of ["", "Want", "toString", "__proto__", 7, null]) assert.equal(asTabMessage({ t, id: "d" }), undefined);
  let tried = 0;
  for (const good of GOOD) {
    for (const { where, message, field, value } of changed(good)) {
      // An element of a list of hashes has its index for a name; a hash is good there.
      if (isGoodFor(where === "fault.message" ? where : field, value) || (value === HASH && /^\d+$/.test(field))) continue;
      tried += 1;
      assert.equal(asTabMessage(message), undefined, `${good.t}: ${where} = ${String(value)}`);
    }
  }
  assert.ok(tried > 1_000, `${tried}`);
});
