/**
 * Loading the wasm module, once and only when something is wanted of it, and making instances of it: one that all
 * of the page shares, and others for long documents (`long/`).
 */

import { makeGlue } from "#glue";
import type { Wasm } from "./wasm.js";

/** What the module is made from. A `Response` is compiled while it arrives. */
export type WasmSource = Response | BufferSource;

/** The module, and the instance that all share. */
export interface Loaded {
  readonly module: WebAssembly.Module;
  readonly wasm: Wasm;
}

/** One instance of the module: what it offers, and the state in which it is. */
export interface Instance {
  readonly wasm: Wasm;
  readonly memory: WebAssembly.Memory;
  /** JavaScript's values as the module names them; none between two calls. */
  readonly values: WebAssembly.Table;
}

let loading: Promise<Loaded> | undefined;

/** The module. `source` is called if nobody loaded it before; a later call tries again if it failed. */
export function loadFrom(source: () => WasmSource | Promise<WasmSource>): Promise<Loaded> {
  loading ??= start(source).catch((error: unknown) => {
    loading = undefined;
    throw error;
  });
  return loading;
}

/** A new instance, which shares nothing with others. */
export async function instantiate(module: WebAssembly.Module): Promise<Instance> {
  const glue = makeGlue();
  const exports = await glue.init({ module_or_path: module });
  return {
    // Its types are in `wasm.ts`, by hand.
    wasm: glue as unknown as Wasm,
    memory: exports["memory"] as WebAssembly.Memory,
    values: exports["__wbindgen_externrefs"] as WebAssembly.Table,
  };
}

async function start(source: () => WasmSource | Promise<WasmSource>): Promise<Loaded> {
  const module = await compile(await source());
  const { wasm } = await instantiate(module);
  return { module, wasm };
}

async function compile(source: WasmSource): Promise<WebAssembly.Module> {
  if (!(source instanceof Response)) {
    return WebAssembly.compile(source);
  }
  // Servers that call it something else are many; compiling while it arrives is refused then.
  const isNamed = source.headers.get("content-type")?.startsWith("application/wasm") === true;
  return isNamed ? WebAssembly.compileStreaming(source) : WebAssembly.compile(await source.arrayBuffer());
}
