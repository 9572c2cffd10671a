/**
 * Long documents are read in a worker: it takes Automerge seconds for a quarter of a million keystrokes, and in one
 * piece. A replica can't be handed over, but the memory of the instance that it is in can: the page copies it, part
 * by part, into a new instance, and goes on there. Between two calls nothing of an instance's state is elsewhere: the
 * stack is empty, and none of JavaScript's values is kept.
 *
 * What the document looks like comes as patches, some at a time: making them takes as long as reading, where there are
 * many objects.
 *
 * Of a document of which much is here already only what is new is wanted: then the worker does not hand over its
 * replica, but these changes, in parts that the page applies one at a time.
 *
 * The worker says `here` once it runs; the page sends one {@link Work}; then come `progress` and `filled`, and for each
 * `next` of the page's one `part` of the memory or some `patches`, until `done`. Where there is a {@link Work.have} it is
 * `changes` instead of all that. Or, at any time, `failed`.
 */
import type { Chunks } from "../client/chunks.js";
import type { Heads, WasmPatch } from "../wasm.js";

/** What a replica takes in. */
export type Content =
  | { readonly from: "chunks"; readonly chunks: Chunks }
  /** A sync message of the server's. */
  | { readonly from: "message"; readonly message: Uint8Array };

/** What of the content is not below {@link Work.have}. */
export interface Changes {
  /** In causal order, each to be applied at a time. */
  readonly parts: readonly Uint8Array[];
  /** Of all of the content. */
  readonly heads: Heads;
}

/** What the page asks for. */
export interface Work {
  readonly module: WebAssembly.Module;
  readonly document: string;
  readonly content: Content;
  /** What is here already, of which the server may not know all; nothing: hand over the replica. */
  readonly have: Heads | undefined;
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
  | ({ readonly t: "changes" } & Changes)
  | { readonly t: "failed"; readonly code: string; readonly message: string };
