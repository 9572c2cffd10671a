/** `@concord/client` in a browser. */

import { loadFrom } from "./load.js";
import type { Wasm } from "./wasm.js";

/** The wasm module, fetched from beside this file. Bundlers find it there, and put it beside what they make. */
export function load(): Promise<Wasm> {
  return loadFrom(async () => {
    const url = new URL("./concord_bg.wasm", import.meta.url);
    const response = await fetch(url);
    if (!response.ok) {
      throw new Error(`${url.href} could not be fetched: status ${response.status}`);
    }
    return response;
  });
}
