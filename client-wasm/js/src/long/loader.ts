/** The page's side of reading long documents; see `protocol.ts`. */
import { bytesOf } from "../client/chunks.js";
import { type Instance, instantiate } from "../load.js";
import { applied, EMPTY, type Root, type Shown } from "../value/tree.js";
import type { Heads, WasmPatch, WasmReplica } from "../wasm.js";
import type { Changes, Content, Told, Work } from "./protocol.js";

/** A replica that has in it what could be read. */
export interface Filled {
  readonly replica: WasmReplica;
  /** What the replica's next `patches` build on: what led to it, from nothing. */
  readonly shown: Shown;
  /** Chunks that could not. */
  readonly damaged: number;
}

/**
 * So many bytes are much: dense ones take a fifth of a second. Less is read at once and in the page, where all such
 * documents share one instance.
 */
const LONG_BYTES = 16 * 1024;
/** A page of WebAssembly's memory. */
const PAGE_BYTES = 64 * 1024;
/** A worker that was not heard of by then is not one. Milliseconds. */
const HERE_WITHIN_MS = 10_000;
/** One that says nothing for so long is gone: a snapshot, of which nothing is told until it is read, takes seconds. */
const SILENT_MS = 3 * 60_000;
/** So many in a row that did not come: then there are none to be had. One may have failed to be fetched. */
const MAX_MISSED = 3;

/** Is told how many bytes of how many were read. */
export type Progress = (done: number, bytes: number) => void;

/** Who reads long documents elsewhere than in the page. */
export interface LongReader {
  /** Whether reading it is better done there. */
  takes(content: Content): boolean;
  /** A replica filled there; nothing where that can't be done: then the page has to do it. */
  fill(document: string, content: Content, progress: Progress): Promise<Filled | undefined>;
  /**
   * The changes in it that are not below `have`; nothing, likewise, or where it is its turn and `isWanted` says that nobody
   * waits for it any more.
   */
  changes(document: string, content: Content, have: Heads, progress: Progress, isWanted: () => boolean): Promise<Changes | undefined>;
}

/** Reads one after the other: each takes a multiple of what it needs in the end. */
export class LongLoader implements LongReader {
  readonly #module: WebAssembly.Module;
  readonly #start: () => Worker;
  #isUsable = true;
  /** Workers that did not come, since the last that did. */
  #missed = 0;
  #last: Promise<unknown> = Promise.resolve();

  /** `start`: makes a worker of `worker.ts`; may throw. */
  constructor(module: WebAssembly.Module, start: () => Worker) {
    this.#module = module;
    this.#start = start;
  }

  takes(content: Content): boolean {
    return this.#isUsable && sizeOf(content) > LONG_BYTES;
  }

  fill(document: string, content: Content, progress: Progress): Promise<Filled | undefined> {
    return this.#read({ module: this.#module, document, content, have: undefined }, progress, filling(this.#module), () => true);
  }

  changes(document: string, content: Content, have: Heads, progress: Progress, isWanted: () => boolean): Promise<Changes | undefined> {
    return this.#read({ module: this.#module, document, content, have }, progress, changes, isWanted);
  }

  /** Nothing where workers can't be had (another origin's script, a policy of the page's). */
  #read<T>(work: Work, progress: Progress, hear: Hear<T>, isWanted: () => boolean): Promise<T | undefined> {
    const read = this.#last.then(() => (isWanted() ? this.#readNow(work, progress, hear) : undefined));
    this.#last = read.catch(() => undefined);
    return read;
  }

  async #readNow<T>(work: Work, progress: Progress, hear: Hear<T>): Promise<T | undefined> {
    const bytes = sizeOf(work.content);
    progress(0, bytes);
    const worker = this.#isUsable ? await this.#worker() : undefined;
    if (worker === undefined) {
      return undefined;
    }
    try {
      return await ask(worker, work, (done) => progress(done, bytes), hear);
    } finally {
      worker.terminate();
    }
  }

  /** One that runs. */
  async #worker(): Promise<Worker | undefined> {
    let worker: Worker;
    try {
      worker = this.#start();
    } catch {
      this.#isUsable = false;
      return undefined;
    }
    let waiting: ReturnType<typeof setTimeout> | undefined;
    const isHere = await new Promise<boolean>((resolve) => {
      worker.onmessage = () => resolve(true);
      worker.onerror = (event) => {
        event.preventDefault();
        resolve(false);
      };
      waiting = setTimeout(() => resolve(false), HERE_WITHIN_MS);
    });
    clearTimeout(waiting);
    this.#missed = isHere ? 0 : this.#missed + 1;
    this.#isUsable = this.#missed < MAX_MISSED;
    if (!isHere) {
      worker.terminate();
    }
    return isHere ? worker : undefined;
  }
}

/** Takes what the worker tells; in the end what was asked for. Nothing: the worker is to go on. */
type Hear<T> = (told: Told) => T | undefined | Promise<T | undefined>;

/** Has a worker do it. */
function ask<T>(worker: Worker, work: Work, progress: (done: number) => void, hear: Hear<T>): Promise<T> {
  let waiting: ReturnType<typeof setTimeout> | undefined;
  const answered = new Promise<T>((resolve, reject) => {
    const wait = (): void => {
      clearTimeout(waiting);
      waiting = setTimeout(() => reject(new Error("reading a long document: the worker went silent")), SILENT_MS);
    };
    const take = async (told: Told): Promise<void> => {
      switch (told.t) {
        case "here":
          return;
        case "progress":
          progress(told.done);
          return;
        case "failed":
          throw Object.assign(new Error(told.message), { code: told.code });
      }
      const answer = await hear(told);
      if (answer === undefined) {
        worker.postMessage("next");
      } else {
        resolve(answer);
      }
    };
    worker.onmessage = (event: MessageEvent<Told>) => {
      wait();
      take(event.data).catch(reject);
    };
    worker.onmessageerror = () => reject(new Error("reading a long document: what the worker said can't be read"));
    worker.onerror = (event) => {
      event.preventDefault();
      reject(new Error(`reading a long document: ${event.message}`));
    };
    worker.postMessage(work);
    wait();
  });
  return answered.finally(() => clearTimeout(waiting));
}

/** Copies the worker's instance, as it is when the content is in it. */
function filling(module: WebAssembly.Module): Hear<Filled> {
  let copy: Copy | undefined;
  return async (told) => {
    switch (told.t) {
      case "filled":
        copy = new Copy(await instantiate(module), told);
        break;
      case "part":
        copy?.take(told.part);
        break;
      case "patches":
        copy?.show(told.patches);
        break;
      case "done":
        return copy?.filled();
    }
    return undefined;
  };
}

/** Takes the changes that the worker was asked for. */
function changes(told: Told): Changes | undefined {
  return told.t === "changes" ? told : undefined;
}

/** An instance that is becoming a copy of another. */
class Copy {
  readonly #instance: Instance;
  readonly #to: Extract<Told, { t: "filled" }>;
  readonly #patches: WasmPatch[] = [];
  #value: Root | undefined = EMPTY;
  #at = 0;

  constructor(instance: Instance, to: Extract<Told, { t: "filled" }>) {
    const { memory, values } = instance;
    memory.grow((to.bytes - memory.buffer.byteLength) / PAGE_BYTES);
    values.grow(to.values - values.length);
    this.#instance = instance;
    this.#to = to;
  }

  take(part: Uint8Array): void {
    new Uint8Array(this.#instance.memory.buffer).set(part, this.#at);
    this.#at += part.length;
  }

  show(patches: readonly WasmPatch[]): void {
    this.#patches.push(...patches);
    this.#value = this.#value && applied(this.#value, patches);
  }

  filled(): Filled {
    const replica = this.#instance.wasm.Replica.parked();
    if (replica === undefined) {
      throw new Error("reading a long document: no replica was handed over");
    }
    return { replica, shown: { patches: this.#patches, value: this.#value }, damaged: this.#to.damaged };
  }
}

function sizeOf(content: Content): number {
  return content.from === "chunks" ? bytesOf(content.chunks.chunks) : content.message.length;
}
