// Stock automerge-repo, as npm has it, for pages.

import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";

const at = (path) => fileURLToPath(new URL(path, import.meta.url));
const { build } = createRequire(at("../../client-wasm/js/package.json"))("esbuild");

const STOCK = `
export { Repo, Counter, RawString, updateText, Presence } from "@automerge/automerge-repo";
export { WebSocketClientAdapter } from "@automerge/automerge-repo-network-websocket";
export * as A from "@automerge/automerge";
`;

/** As one file. Its wasm module comes inlined: entries for pages without a bundler's help. */
export async function bundle() {
  const built = await build({
    stdin: { contents: STOCK, resolveDir: at("../interop"), sourcefile: "stock.js" },
    bundle: true,
    format: "esm",
    write: false,
    platform: "neutral",
    mainFields: ["browser", "module", "main"],
    conditions: ["import"],
    logLevel: "error",
  });
  return built.outputFiles[0].text;
}
