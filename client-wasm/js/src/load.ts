/** Loading the wasm module: once, and only when something is wanted of it. */

import init, * as glue from "#glue";
import type { Wasm } from "./wasm.js";

/** What the module is made from. A `Response` is compiled while it arrives. */
export type WasmSource = Response | BufferSource | WebAssembly.Module;

let loading: Promise<Wasm> | undefined;

/** The module. `source` is called if nobody loaded it before; a later call tries again if it failed. */
export function loadFrom(source: () => WasmSource | Promise<WasmSource>): Promise<Wasm> {
  loading ??= start(source).catch((error: unknown) => {
    loading = undefined;
    throw error;
  });
  return loading;
}

async function start(source: () => WasmSource | Promise<WasmSource>): Promise<Wasm> {
  await init({ module_or_path: await source() });
  // Its types are in `wasm.ts`, by hand; its parts are exports.
  return glue as unknown as Wasm;
}
