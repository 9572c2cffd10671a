/**
 * What `wasm-bindgen` makes (`#glue` in package.json), as far as `load` needs it. The rest of it is the `Wasm`
 * of `wasm.ts`.
 */
export default function init(from: {
  readonly module_or_path: Response | BufferSource | WebAssembly.Module;
}): Promise<unknown>;
