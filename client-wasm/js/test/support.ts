/** What the tests of values share. */

import fc from "fast-check";
import { FakeReplica } from "./fake-replica.js";
import { wasmReplicas } from "./real-replica.js";
import type { EditableReplica } from "../src/value/draft.js";
import { Counter, Float, ImmutableString } from "../src/value/types.js";
import type { WasmPatch } from "../src/wasm.js";

/**
 * Checks a property under a seed that is printed, and can be given again as `CONCORD_SEED`. `CONCORD_RUNS` is
 * how many programs to try.
 */
export function check<T>(name: string, property: fc.IProperty<T>, runs = 300): void {
  const seed = Number(process.env["CONCORD_SEED"] ?? Math.floor(Math.random() * 0x7fffffff));
  console.log(`${name}: CONCORD_SEED=${seed}`);
  const numRuns = Number(process.env["CONCORD_RUNS"] ?? runs);
  fc.assert(property, { seed, numRuns, includeErrorInReport: true } as fc.Parameters<T>);
}

/** What the random programs need of a replica; only the fake's patches come in two orders. */
export type TestReplica = EditableReplica & { patches(asTheyHappened?: boolean): WasmPatch[]; free?(): void };

/** Both kinds of replica that a promise must hold for, by name. */
export const REPLICAS: readonly { readonly kind: string; readonly maker: () => Promise<() => TestReplica> }[] = [
  { kind: "fake", maker: async () => () => new FakeReplica() },
  { kind: "wasm", maker: wasmReplicas },
];

/** Anything as data of this realm's plain kinds, drafts too: for `deepEqual`. */
export function plain(value: unknown): unknown {
  if (value === null || typeof value !== "object") return value;
  if (value instanceof Date || value instanceof Uint8Array) return value;
  if (value instanceof Counter) return { counter: value.value };
  if (Array.isArray(value)) return value.map(plain);
  return Object.fromEntries(Object.entries(value).map(([key, entry]) => [key, plain(entry)]));
}

/** What a value reads as once it is in a document; counters can be changed by their holder only. */
export function written(value: unknown): unknown {
  if (value === null || typeof value !== "object" || value instanceof Counter) return value;
  if (value instanceof Float) return value.value;
  if (value instanceof ImmutableString) return value.val;
  if (value instanceof Date) return new Date(value);
  if (value instanceof Uint8Array) return value.slice();
  if (Array.isArray(value)) return value.map(written);
  return Object.fromEntries(Object.entries(value).map(([key, entry]) => [key, written(entry)]));
}

/** Whether nothing in there can be changed, as far as JavaScript can freeze. */
export function isDeepFrozen(value: unknown): boolean {
  if (value === null || typeof value !== "object" || value instanceof Date || value instanceof Uint8Array) return true;
  return Object.isFrozen(value) && Object.values(value).every(isDeepFrozen);
}

/** Whatever documents hold, of the kinds that applications assign. */
export const anyText = fc.oneof(fc.string({ maxLength: 6 }), fc.string({ unit: "binary", maxLength: 6 }));
export const anyKey = fc.oneof(
  fc.constantFrom("a", "b", "c", "0", "1", "length", "constructor", "toString", "hasOwnProperty", "valueOf", "then"),
  fc.string({ maxLength: 3 }).filter((key) => key !== "__proto__"),
);
export const anyValue = fc.letrec((tie) => ({
  value: fc.oneof({ depthSize: "small", withCrossShrink: true }, tie("leaf"), tie("list"), tie("map")),
  list: fc.array(tie("value"), { maxLength: 4 }),
  map: fc.dictionary(anyKey, tie("value"), { maxKeys: 4, noNullPrototype: true }),
  leaf: fc.oneof(
    fc.constantFrom<unknown>(null, true, false, -0, NaN, Infinity, 2 ** 53, -(2 ** 60)),
    fc.integer(),
    fc.double(),
    anyText,
    anyText,
    anyText.map((text) => new ImmutableString(text)),
    // Not the floats 0 and -0 one over the other: Automerge takes them for the same, and keeps what is there.
    fc.double().map((value) => new Float(value === 0 ? 1 : value)),
    fc.date({ noInvalidDate: true }),
    fc.uint8Array({ maxLength: 4 }),
    fc.integer({ min: -9, max: 9 }).map((value) => new Counter(value)),
  ),
})).value;
