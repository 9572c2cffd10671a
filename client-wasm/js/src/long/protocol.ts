/**
 * Long documents are read in a worker: it takes Automerge seconds for a quarter of a million keystrokes, and in one
 * piece. A replica can't be handed over, but the memory of the instance that it is in can: the page copies it, part
 * by part, into a new instance, and goes on there. Between two calls nothing of an instance's state is elsewhere: the
 * stack is empty, and none of JavaScript's values is kept.
 *
 * What the document looks like comes as patches, some at a time: making them takes as long as reading, where there are
 * many objects.
 *
 * The worker says `here` once it runs; the page sends one {@link Work}; then come `progress` and `filled`, and for each
 * `next` of the page's one `part` of the memory or some `patches`, until `done`; or, at any time, `failed`.
 */
import type { Chunks } from "../client/chunks.js";
import type { WasmPatch } from "../wasm.js";

/** What an empty replica is filled with. */
export type Content =
  | { readonly from: "chunks"; readonly chunks: Chunks }
  /** The server's first sync message. */
  | { readonly from: "message"; readonly message: Uint8Array };

/** What the page asks for. */
export interface Work {
  readonly module: WebAssembly.Module;
  readonly document: string;
  readonly content: Content;
}

/** What the worker tells. */
export type Told =
  | { readonly t: "here" }
  /** So many bytes of the content were read. */
  | { readonly t: "progress"; readonly done: number }
  /** Bytes of the memory, slots of the table of JavaScript's values, chunks that could not be read. */
  | { readonly t: "filled"; readonly bytes: number; readonly values: number; readonly damaged: number }
  | { readonly t: "part"; readonly part: Uint8Array }
  | { readonly t: "patches"; readonly patches: readonly WasmPatch[] }
  | { readonly t: "done" }
  | { readonly t: "failed"; readonly code: string; readonly message: string };
