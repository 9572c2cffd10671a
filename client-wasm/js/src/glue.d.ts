/**
 * What `xtask/bindgen` makes (`#glue` in package.json), as far as `load` needs it. The rest of it is the `Wasm`
 * of `wasm.ts`.
 */

/** A new instance's glue; of no use before `init`. */
export function makeGlue(): {
  init(from: { readonly module_or_path: WebAssembly.Module }): Promise<WebAssembly.Exports>;
};
