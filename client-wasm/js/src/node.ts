/** `@concord/client` in Node. */

import { readFile } from "node:fs/promises";

import { loadFrom } from "./load.js";
import type { Wasm } from "./wasm.js";

/** The wasm module, read from the file beside this one. */
export function load(): Promise<Wasm> {
  return loadFrom(() => readFile(new URL("./concord_bg.wasm", import.meta.url)));
}
