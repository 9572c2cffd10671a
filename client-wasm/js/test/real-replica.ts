/** Replicas of the real wasm module, for tests that must hold for them as for fakes. */

import { readFile } from "node:fs/promises";

import { loadFrom } from "../src/load.js";
import type { Wasm, WasmReplica } from "../src/wasm.js";

/** Beside the compiled code, where `load` of `src/node.ts` reads it too. */
const MODULE = new URL("../src/concord_bg.wasm", import.meta.url);

/** The module. Where it was not built a test fails: skipped, it would prove nothing and say nothing. */
export async function loadWasm(): Promise<Wasm> {
  try {
    return (await loadFrom(() => readFile(MODULE))).wasm;
  } catch (cause) {
    throw new Error(`the wasm module can't be loaded: run \`cargo xtask client\` (${MODULE.pathname})`, { cause });
  }
}

/** Makes an empty document at each call. */
export async function wasmReplicas(): Promise<() => WasmReplica> {
  const wasm = await loadWasm();
  return () => new wasm.Replica(wasm.documentId(crypto.getRandomValues(new Uint8Array(16))));
}
