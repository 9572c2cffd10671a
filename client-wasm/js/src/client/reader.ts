/** Reading of long documents elsewhere than in the page, and what pages are told of it. */
import type { Filled, LongReader, Progress } from "../long/loader.js";
import type { Changes, Content } from "../long/protocol.js";
import type { Heads } from "../wasm.js";
import type { Chunks } from "./chunks.js";
import type { LiveDocument } from "./live.js";

/** Reads for a client's documents. */
export class Reader {
  readonly #long: LongReader | undefined;
  readonly #looked: (live: LiveDocument) => void;

  /** `long`: nothing where all is read in the page. `looked`: how far it is has changed. */
  constructor(long: LongReader | undefined, looked: (live: LiveDocument) => void) {
    this.#long = long;
    this.#looked = looked;
  }

  /** Whether it is so long that it is better read elsewhere. */
  takes(content: Content): boolean {
    return this.#long?.takes(content) === true;
  }

  /** A replica with this content; nothing where the page has to read it. */
  fill(live: LiveDocument, content: Content): Promise<Filled | undefined> {
    return this.#read(live, content, (long, progress) => long.fill(live.id, content, progress));
  }

  /** The same of chunks; nothing also where the worker failed, if the page may fare better. */
  fillOrNot(live: LiveDocument, chunks: Chunks): Promise<Filled | undefined> {
    return orNot(this.fill(live, { from: "chunks", chunks }));
  }

  /** The changes in it that are not below `have`; nothing where the page has to read all of it, or is not `isWanted`. */
  changes(live: LiveDocument, content: Content, have: Heads, isWanted: () => boolean): Promise<Changes | undefined> {
    return this.#read(live, content, (long, progress) => long.changes(live.id, content, have, progress, isWanted));
  }

  /** The same of chunks; nothing also where the worker failed, if the page may fare better. */
  changesOrNot(live: LiveDocument, chunks: Chunks, have: Heads): Promise<Changes | undefined> {
    return orNot(this.changes(live, { from: "chunks", chunks }, have, () => true));
  }

  async #read<T>(
    live: LiveDocument,
    content: Content,
    read: (long: LongReader, progress: Progress) => Promise<T | undefined>,
  ): Promise<T | undefined> {
    if (this.#long?.takes(content) !== true) {
      return undefined;
    }
    try {
      return await read(this.#long, (done, bytes) => {
        live.reading = { done, bytes };
        this.#looked(live);
      });
    } finally {
      live.reading = undefined;
      this.#looked(live);
    }
  }
}

async function orNot<T>(read: Promise<T | undefined>): Promise<T | undefined> {
  try {
    return await read;
  } catch (error) {
    if (hasTrapped(error)) {
      throw error;
    }
    return undefined;
  }
}

/** Whether what was read elsewhere made the module trap there: it would do so here, too, and end all documents. */
export function hasTrapped(read: unknown): read is Error {
  return read instanceof Error && (read as { code?: unknown }).code === "internal";
}

/** A replica that nobody waits for any more. */
export function free(filled: Filled | Error | undefined): void {
  if (filled !== undefined && !(filled instanceof Error)) {
    filled.replica.free();
  }
}
