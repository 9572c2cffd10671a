/** Bytes of changes, and a replica that takes them, some of which may be bad. */
import type { ChangeHash, WasmReplica } from "../wasm.js";

/**
 * Bytes of changes that are applied at a time; what is more waits for the next frame. Of the keystrokes of a paper these
 * take 0.1 s, of which more than half is for the pass over its text.
 */
export const SLICE_BYTES = 256 * 1024;

/** What a replica is to take in. */
export interface Chunks {
  readonly chunks: readonly Uint8Array[];
  /** Changes that are in them, as far as that is known. */
  readonly expected: readonly ChangeHash[];
  /** How many of them are of which that is not known. */
  readonly unknown: number;
}

/**
 * Applies all of them; or each by itself where anything is missing: one is bad, the others are worth having, and behind
 * some kinds of bad ones there is no telling where they begin. How many could not be read.
 */
export function applyChunks(replica: WasmReplica, { chunks, expected, unknown }: Chunks): number {
  const isTaken = isApplied(replica, concat(chunks));
  if (chunks.length === 1) {
    return isTaken ? 0 : 1;
  }
  const isWhole = unknown <= 1 && replica.heads().length > 0 && expected.every((hash) => replica.has(hash));
  return isTaken && isWhole ? 0 : chunks.filter((chunk) => !isApplied(replica, chunk)).length;
}

/** Applies what may be bad. Whether all of it was taken. */
function isApplied(replica: WasmReplica, chunks: Uint8Array): boolean {
  try {
    replica.apply(chunks);
    return true;
  } catch (error) {
    if (isTrap(error)) {
      throw error;
    }
    return false;
  }
}

/** Whether the wasm module panicked: nothing that it holds can be used any more. */
export function isTrap(error: unknown): boolean {
  return (
    error instanceof WebAssembly.RuntimeError ||
    // A change that could not be taken back either.
    (error instanceof AggregateError && error.errors.some(isTrap))
  );
}

/** Whatever was thrown, as an error. */
export function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}

/** Byte strings, one after the other. */
export function concat(parts: readonly Uint8Array[]): Uint8Array {
  if (parts.length === 1) {
    return parts[0] as Uint8Array;
  }
  const whole = new Uint8Array(bytesOf(parts));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** Bytes in all of them. */
export function bytesOf(parts: readonly Uint8Array[]): number {
  return parts.reduce((sum, part) => sum + part.length, 0);
}
