/**
 * The documents of a page that are in use, and its handles on them: which there are, and who is told what of them.
 * Does no IO.
 */
import type { WasmPatch } from "../wasm.js";
import type { DocumentHandle } from "./document.js";
import type { LiveDocument } from "./live.js";

/** See the module's comment. */
export class Documents {
  readonly #live = new Map<string, LiveDocument>();
  readonly #handles = new Map<string, Set<DocumentHandle<unknown>>>();
  readonly #isUnreachable: () => boolean;

  /** `isUnreachable`: the server can't be asked for the time being. */
  constructor(isUnreachable: () => boolean) {
    this.#isUnreachable = isUnreachable;
  }

  get size(): number {
    return this.#live.size;
  }

  /** All that are here now. */
  all(): LiveDocument[] {
    return [...this.#live.values()];
  }

  /** The same, without those that went before it is their turn: listeners may close and delete what they like. */
  *[Symbol.iterator](): Generator<LiveDocument> {
    for (const live of this.all()) {
      if (this.isHere(live)) {
        yield live;
      }
    }
  }

  get(id: string): LiveDocument | undefined {
    return this.#live.get(id);
  }

  /** Whether it is in use: neither deleted nor dropped, also if another of the same id took its place. */
  isHere(live: LiveDocument): boolean {
    return this.#live.get(live.id) === live;
  }

  add(live: LiveDocument): void {
    this.#live.set(live.id, live);
  }

  /** It is not in use any more. */
  forget(live: LiveDocument): void {
    this.#live.delete(live.id);
  }

  /** All handles of all documents. */
  handles(): DocumentHandle<unknown>[] {
    return [...this.#handles.values()].flatMap((all) => [...all]);
  }

  addHandle(handle: DocumentHandle<unknown>): void {
    let all = this.#handles.get(handle.id);
    if (all === undefined) {
      all = new Set();
      this.#handles.set(handle.id, all);
    }
    all.add(handle);
  }

  removeHandle(handle: DocumentHandle<unknown>): void {
    const all = this.#handles.get(handle.id);
    all?.delete(handle);
    if (all?.size === 0) {
      this.#handles.delete(handle.id);
    }
  }

  /** Says anew whether there is something to show. */
  judge(live: LiveDocument): void {
    if (live.state === "loading" || live.state === "unavailable") {
      live.state = live.loaded && (live.unavailable || this.#isUnreachable()) ? "unavailable" : "loading";
      if (!live.isEmpty) {
        live.state = "ready";
      }
    }
  }

  /** It changed: `patches` lead from `before` to what is there now. */
  shown(live: LiveDocument, patches: readonly WasmPatch[], before: unknown, source: "local" | "remote"): void {
    // Whoever comes meanwhile has seen what came of it.
    const handles = this.#handlesOf(live);
    const event = { patches, before, after: live.value, source };
    // A listener that changes the document must not have others hear of that before they heard of what was before it.
    live.telling.run(() => {
      for (const handle of handles) {
        handle.shown(event);
      }
    });
    this.looked(live);
  }

  /** Something about it may be different. */
  looked(live: LiveDocument, error?: Error): void {
    for (const handle of this.#handlesOf(live)) {
      handle.looked(error);
    }
  }

  #handlesOf(live: LiveDocument): DocumentHandle<unknown>[] {
    return [...(this.#handles.get(live.id) ?? [])].filter((handle) => handle.shows(live));
  }
}
