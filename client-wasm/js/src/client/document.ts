/** What a page holds of a document. */
import { Emitter } from "../emitter.js";
import { edit, splice } from "../value/draft.js";
import { fromWasm, publicPatch } from "../value/tree.js";
import type { Frozen, Patch, Value } from "../value/types.js";
import type { ChangeInfo, Chunk, Heads, Prop, WasmPatch, WasmReplica } from "../wasm.js";
import type { DocumentState, LiveDocument, Reading } from "./live.js";
import type { Presence } from "./presence.js";

/** What a page can show about a document. Frozen; a new one when anything in it is different. */
export interface DocumentStatus {
  readonly state: DocumentState;
  /** Every change is stored in this browser. */
  readonly saved: boolean;
  /** Changes that are not. */
  readonly unsaved: number;
  /** The server has every change on its disk. */
  readonly synced: boolean;
  /** Changes that it is not known to have there. */
  readonly unsynced: number;
  /** The server takes no changes from us. */
  readonly readOnly: boolean;
  /**
   * A long document is being read: so many of its bytes are. It is read in a worker, and the page goes on. Of a
   * snapshot nothing can be told before its end.
   */
  readonly reading: Reading | undefined;
  /** There is something of this page's own to take back, or to do again. */
  readonly canUndo: boolean;
  readonly canRedo: boolean;
  /** The last thing that went wrong with it, until it goes right. */
  readonly error: Error | undefined;
}

/** Where a batch of patches came from. */
export interface PatchesEvent<T> {
  readonly patches: readonly Patch[];
  readonly before: Frozen<T>;
  readonly after: Frozen<T>;
  /** `local`: made by this handle's tab. */
  readonly source: "local" | "remote";
}

/** Events of a {@link DocumentHandle}. */
export interface DocumentEvents<T> {
  /** In the order in which they happened: `after` of one is `before` of the next, also when a listener made that. */
  patches: (event: PatchesEvent<T>) => void;
  status: (status: DocumentStatus) => void;
}

/** What a change may be told. */
export interface ChangeOptions {
  /** Kept with the change in the history. */
  readonly message?: string;
}

/** One edit of a text: at `index` `remove` code units give way to `insert`. */
export interface TextEdit {
  readonly index: number;
  readonly remove: number;
  readonly insert: string;
}

/** A batch of patches, as the client has it. */
export interface Shown {
  readonly patches: readonly WasmPatch[];
  readonly before: unknown;
  readonly after: unknown;
  readonly source: "local" | "remote";
}

/** What a handle needs of its client. */
export interface Host {
  /** Stores, sends and relays a change that was made. */
  made(live: LiveDocument, chunk: Chunk, isStep: boolean): void;
  release(handle: DocumentHandle<unknown>): void;
  /** Something went wrong in the replica: ends all if that was a trap of the module. */
  caught(error: unknown): void;
}

/**
 * A live document. Its {@link value} is plain frozen data, brought up to date by every change, whoever makes
 * it; unchanged parts of it keep their identity.
 *
 * @example
 * const board = client.create({ title: "Board", meetings: [] as string[] });
 * board.subscribe(() => console.log(board.value.title));
 * board.change((draft) => {
 *   draft.title = "Board of Acme";
 *   draft.meetings.push("2026-11-21");
 * });
 * await board.whenSaved();
 */
export class DocumentHandle<T> {
  readonly id: string;
  readonly #live: LiveDocument;
  readonly #host: Host;
  readonly #events = new Emitter<DocumentEvents<T> & { change: () => void }>();
  readonly #waiting: { done: () => boolean; resolve: () => void; reject: (error: Error) => void }[] = [];
  /** Own state and others' in this document. */
  readonly presence: Presence;
  #status: DocumentStatus;
  #error: Error | undefined;
  #closed = false;

  /** @internal */
  constructor(live: LiveDocument, host: Host) {
    this.id = live.id;
    this.#live = live;
    this.#host = host;
    this.presence = live.presence;
    this.#status = this.#look();
  }

  /** `automerge:` and the id: what other Automerge programs call it. */
  get url(): string {
    return `automerge:${this.id}`;
  }

  /** The document as it is now; `{}` while there is nothing. */
  get value(): Frozen<T> {
    return this.#live.value as Frozen<T>;
  }

  get status(): DocumentStatus {
    return this.#status;
  }

  /** The version: hashes of the latest changes. */
  get heads(): Heads {
    return this.#live.replica.heads();
  }

  /**
   * Makes one change out of all that `callback` does to the draft: ordinary assignment, `delete`, array methods.
   * When it throws, nothing of it happens. It is shown at once, stored in this browser and sent.
   *
   * @example
   * const doc = client.create<{ n?: number }>({});
   * doc.change((draft) => { draft.n = 1; }, { message: "the first" });
   */
  change(callback: (draft: T) => void, options: ChangeOptions = {}): void {
    this.#check();
    if (this.#live.state !== "ready") {
      throw new Error(`the document is ${this.#live.state}`);
    }
    let chunk: Chunk | undefined;
    try {
      chunk = edit<T>(this.#live.replica, callback, { message: options.message, time: Date.now() });
    } catch (error) {
      // After a trap of ours nothing can be taken back; where it was, the callback used a module of its own.
      if (error instanceof AggregateError) {
        this.#host.caught(error);
      }
      throw error;
    }
    if (chunk !== undefined) {
      this.#host.made(this.#live, chunk, true);
    }
  }

  /**
   * Makes one change of edits of the text at `path`, one after the other: for editors, which know them. It is the
   * `splice` of a change, for code that has nothing but the handle.
   *
   * @example
   * const doc = client.create({ title: "Minutes" });
   * doc.splice(["title"], [{ index: 7, remove: 0, insert: " of Acme" }]);
   */
  splice(path: readonly Prop[], edits: readonly TextEdit[], options: ChangeOptions = {}): void {
    const all = (draft: T): void => {
      for (const { index, remove, insert } of edits) {
        splice(draft as object, path, index, remove, insert);
      }
    };
    this.change(all, options);
  }

  /**
   * Takes back this page's own last change, and leaves alone what others did since. Letters that were typed one after
   * the other are taken back together. False when there is nothing.
   *
   * @example
   * const doc = client.create({ title: "first" });
   * doc.change((draft) => { draft.title = "second"; });
   * doc.undo();
   * console.log(doc.value.title);
   */
  undo(): boolean {
    return this.#takeBack((replica, time) => replica.undo(undefined, time), (replica) => replica.canUndo());
  }

  /** Does again what {@link undo} took back last. False when there is nothing. */
  redo(): boolean {
    return this.#takeBack((replica, time) => replica.redo(undefined, time), (replica) => replica.canRedo());
  }

  /** Calls `listener` whenever {@link value} is another; what it returns ends that. */
  subscribe(listener: () => void): () => void {
    return this.#events.on("change", listener);
  }

  /** Listens to an event; what it returns ends that. */
  on<Name extends keyof DocumentEvents<T>>(name: Name, listener: DocumentEvents<T>[Name]): () => void {
    return this.#events.on(name, listener as never);
  }

  /** When there is something to show. Rejects when the document is deleted or failed. */
  async whenReady(): Promise<this> {
    await this.#when(() => this.#live.state === "ready");
    return this;
  }

  /** When all that was changed until now is stored in this browser. */
  async whenSaved(): Promise<void> {
    const until = [...this.#live.unsaved.keys()];
    return this.#when(() => until.every((hash) => !this.#live.unsaved.has(hash)));
  }

  /** When all that is in the document now is on the server's disk. */
  async whenSynced(): Promise<void> {
    this.#check();
    // Whatever the server has of them, it has all that is below them.
    const until = this.heads;
    return this.#when(() => this.#live.isSynced(until));
  }

  /** All changes, oldest first. Costs a pass over them. */
  history(): ChangeInfo[] {
    return this.#live.replica.history();
  }

  /**
   * The document at an earlier version, frozen. Costs a pass over all that was ever written.
   *
   * @example
   * const doc = client.create({ title: "first" });
   * const heads = doc.heads;
   * doc.change((draft) => { draft.title = "second"; });
   * console.log(doc.at(heads).title);
   */
  at(heads: Heads): Frozen<T> {
    return this.#live.at(heads) as Frozen<T>;
  }

  /** The steps from one version to another. */
  diff(before: Heads, after: Heads): Patch[] {
    return this.#live.replica.diff(before, after).map(publicPatch);
  }

  /** Values that were written in one place at the same time, by path; the one that is shown comes last. */
  conflicts(path: readonly Prop[]): Value[] {
    const [object, prop] = this.#place(path);
    return this.#live.replica.conflicts(object, prop).map(fromWasm);
  }

  /** A position in a text or list that moves with what is around it. UTF-16 code units. */
  cursor(path: readonly Prop[], index: number): string {
    return this.#live.replica.cursor(this.#object(path), index);
  }

  /** Where a cursor is now; nothing if what it was in is gone. */
  position(path: readonly Prop[], cursor: string): number | undefined {
    return this.#live.replica.cursorPosition(this.#object(path), cursor);
  }

  /** No more events; the document goes on in other handles. */
  close(): void {
    if (!this.#closed) {
      this.#closed = true;
      this.#events.clear();
      this.#fail(new Error("the handle was closed"));
      this.#host.release(this as DocumentHandle<unknown>);
    }
  }

  /** @internal Whether it is this one's. */
  shows(live: LiveDocument): boolean {
    return this.#live === live;
  }

  /** @internal The value is another. */
  shown({ patches, before, after, source }: Shown): void {
    if (patches.length > 0) {
      if (this.#events.has("patches")) {
        this.#events.emit("patches", {
          patches: patches.map(publicPatch),
          before: before as Frozen<T>,
          after: after as Frozen<T>,
          source,
        });
      }
      this.#events.emit("change");
    }
  }

  /** @internal Something about it may be different. */
  looked(error?: Error | undefined): void {
    const isOver = this.#live.unsaved.size === 0 && !this.#live.unkept && this.#live.unread === "no" && this.#live.state !== "failed";
    this.#error = error ?? (isOver ? this.#live.damage : this.#error);
    const next = this.#look();
    const last = this.#status;
    if (Object.keys(next).some((key) => next[key as keyof DocumentStatus] !== last[key as keyof DocumentStatus])) {
      this.#status = next;
      this.#events.emit("status", next);
    }
    const state = this.#live.state;
    if (state === "deleted" || state === "failed") {
      this.#fail(new Error(`the document is ${state}`));
      return;
    }
    for (const waiter of this.#waiting.splice(0)) {
      if (waiter.done()) {
        waiter.resolve();
      } else {
        this.#waiting.push(waiter);
      }
    }
  }

  #takeBack(
    take: (replica: WasmReplica, time: number) => Chunk | undefined,
    can: (replica: WasmReplica) => boolean,
  ): boolean {
    this.#check();
    const { replica } = this.#live;
    // A step of which others left nothing changes nothing: the one before is meant.
    try {
      while (can(replica)) {
        const chunk = take(replica, Date.now());
        if (chunk !== undefined) {
          this.#host.made(this.#live, chunk, false);
          return true;
        }
      }
      this.#live.lookAtSteps();
    } catch (error) {
      this.#host.caught(error);
      throw error;
    }
    this.looked();
    return false;
  }

  #look(): DocumentStatus {
    const { state, loaded, unread, unsaved, unsynced, readOnly, reading, canUndo, canRedo } = this.#live;
    return Object.freeze({
      state,
      saved: unsaved.size === 0,
      unsaved: unsaved.size,
      synced: loaded && unread === "no" && unsynced === 0,
      unsynced,
      readOnly,
      reading,
      canUndo,
      canRedo,
      error: this.#error,
    });
  }

  #when(done: () => boolean): Promise<void> {
    this.#check();
    if (done()) {
      return Promise.resolve();
    }
    return new Promise((resolve, reject) => {
      this.#waiting.push({ done, resolve, reject });
    });
  }

  #fail(error: Error): void {
    for (const waiter of this.#waiting.splice(0)) {
      waiter.reject(error);
    }
  }

  #check(): void {
    if (this.#closed) {
      throw new Error("the handle was closed");
    }
    const { state } = this.#live;
    if (state === "deleted" || state === "failed") {
      throw new Error(`the document is ${state}`);
    }
  }

  #object(path: readonly Prop[]): string {
    let object = "_root";
    path.forEach((prop, depth) => {
      const found = this.#live.replica.get(object, prop);
      if (typeof found !== "object" || found === null || !("object" in found)) {
        throw new RangeError(`there is no object at ${JSON.stringify(path.slice(0, depth + 1))}`);
      }
      object = found.object;
    });
    return object;
  }

  #place(path: readonly Prop[]): [object: string, prop: Prop] {
    const prop = path.at(-1);
    if (prop === undefined) {
      throw new RangeError("an empty path names no place");
    }
    return [this.#object(path.slice(0, -1)), prop];
  }
}
