/**
 * One document in this tab: the replica, the value it shows, and what of it is not yet kept elsewhere.
 * Does no IO; {@link Client} does what it says.
 */
import { PatchError } from "../value/errors.js";
import { applyPatches, EMPTY, type Root } from "../value/tree.js";
import type { ChangeHash, Chunk, Heads, Wasm, WasmPatch, WasmReplica } from "../wasm.js";
import type { Contained, StoredChange, StoredDocument } from "../storage/storage.js";
import type { ServerNews } from "./messages.js";
import type { Presence } from "./presence.js";

/** What a page can be told of a document. */
export type DocumentState =
  /** Nothing is there yet, and it is still being looked for. */
  | "loading"
  /** There is something to show. */
  | "ready"
  /** Nobody who was asked has it. It becomes `ready` when somebody brings it. */
  | "unavailable"
  /** It was deleted in this browser. */
  | "deleted"
  /** It can't be worked with any more in this page; what was saved is safe. */
  | "failed";

/** Changes that were new: one by one, or, where there are many, as a snapshot of the document. */
export interface Arrived {
  readonly chunks: readonly Chunk[];
  readonly isSnapshot: boolean;
}

/** What applying did. */
export interface Applied {
  readonly patches: readonly WasmPatch[];
  readonly fromTabs: Arrived | undefined;
  readonly fromServer: Arrived | undefined;
}

/** More changes than this are passed on as a snapshot, which is much smaller. */
const MANY_CHANGES = 200;
/** More changes than this are only counted. */
const MANY_UNSYNCED = 2_000;
/** A letter that is typed so soon after the one before is undone with it, milliseconds. */
const SAME_STEP_MS = 1_000;

/** See the module's comment. */
export class LiveDocument {
  readonly id: string;
  readonly replica: WasmReplica;
  state: DocumentState = "loading";
  /** Whether storage was looked into. */
  loaded = false;
  /** The server does not have it, or does not show it. */
  unavailable = false;
  /** The document as plain data. */
  value: Root = EMPTY;
  /** Own changes that are not in this browser's storage yet. */
  readonly unsaved = new Map<ChangeHash, Chunk>();
  saving = false;
  /** A snapshot that is on its way into storage; never rejects. */
  compacting: Promise<void> | undefined;
  /** How many changes the server is not known to keep. */
  unsynced = 0;
  /** Which they are, where they are few enough to be told one by one. */
  #unsynced: Set<ChangeHash> | undefined = new Set();
  /** Whether there is something of this page's own to take back, or to do again. */
  canUndo = false;
  canRedo = false;
  readOnly = false;
  /** What of it could not be read from storage, until it is whole again. */
  damage: Error | undefined;
  /** Changes of others could not be stored: storage must not speak of them. */
  unkept = false;
  /** How many are on their way into storage. */
  keeping = 0;
  /** Heads that are durable on the server, as last told. */
  synced: Heads = [];
  /** Handles of this tab that show it; with none it is only kept in sync for other tabs. */
  handles = 0;
  /** Tabs that show it. */
  readonly wantedBy = new Set<string>();
  /** Who has it open. */
  readonly presence: Presence;
  #incoming: { readonly bytes: Uint8Array; readonly heads: Heads }[] = [];
  /** What is known to be in storage: names of snapshots, and hashes of changes beside them. */
  #snapshots: readonly string[] = [];
  readonly #tail = new Set<ChangeHash>();
  /** The text that was edited last, when nothing else was since, and when. */
  #typing: { readonly object: string; readonly at: number } | undefined;
  /** Heads of what {@link value} shows. */
  #shown: Heads = [];

  /** An empty document, of which nothing is known yet. */
  constructor(wasm: Wasm, id: string, presence: Presence) {
    this.id = id;
    this.presence = presence;
    this.replica = new wasm.Replica(id);
  }

  /** Takes what is stored. Changes that can't be read are left out, and counted. */
  restore(stored: StoredDocument): { readonly patches: readonly WasmPatch[]; readonly damaged: number } {
    const chunks = [...stored.snapshots, ...stored.changes].map((one) => one.bytes);
    this.stored(stored.changes);
    let damaged = 0;
    const isTaken = this.#isApplied(concat(chunks));
    // One is bad, and the others are worth having; behind some kinds of bad ones there is no telling where they begin.
    const isWhole = stored.changes.every((change) => this.replica.has(change.hash));
    if (!isTaken || !isWhole || this.isEmpty || stored.snapshots.length > 1) {
      damaged = this.#applyEach(chunks);
    }
    // Only what was read may be replaced by a snapshot of this replica.
    this.#snapshots = damaged === 0 ? stored.snapshots.map((snapshot) => snapshot.name) : [];
    if (stored.syncState !== undefined && damaged === 0) {
      this.replica.restoreSyncState(stored.syncState);
    }
    this.synced = this.replica.syncedHeads();
    this.#countUnsynced();
    return { patches: this.#show(), damaged };
  }

  /** Whether there is anything in it. */
  get isEmpty(): boolean {
    return this.replica.heads().length === 0;
  }

  /** Whether something waits for {@link apply}. */
  get hasIncoming(): boolean {
    return this.#incoming.length > 0 || this.replica.hasPending() || this.isBehind;
  }

  /** Whether the replica has more than is shown: it applies what it was sent by itself where that is much. */
  get isBehind(): boolean {
    return !sameHeads(this.#shown, this.replica.heads());
  }

  /** Chunks from another tab, which make these heads; to be applied when it is time. */
  receive(bytes: Uint8Array, heads: Heads): void {
    this.#incoming.push({ bytes, heads });
  }

  /** Applies all that waits, from the server and from tabs. What of a tab's can't be read is left out. */
  apply(): Applied {
    const before = this.#shown;
    this.replica.applyPending();
    const between = this.replica.heads();
    const fromServer = this.#arrived(before, between);
    if (this.#incoming.length > 0) {
      const messages = this.#incoming;
      this.#incoming = [];
      const chunks = messages.map((message) => message.bytes);
      const isTaken = this.#isApplied(concat(chunks));
      // Another page's rubbish must not take with it what came behind it.
      const isWhole = messages.every(({ heads }) => heads.every((head) => this.replica.has(head)));
      if (chunks.length > 1 && !(isTaken && isWhole)) {
        this.#applyEach(chunks);
      }
    }
    const after = this.replica.heads();
    const fromTabs = this.#arrived(between, after);
    if (sameHeads(before, after)) {
      return { patches: [], fromTabs, fromServer };
    }
    this.#countUnsynced();
    return { patches: this.#show(), fromTabs, fromServer };
  }

  /** Chunks of what somebody who has `heads` lacks. */
  missing(heads: Heads): Uint8Array | undefined {
    const arrived = this.#arrived(heads, this.replica.heads());
    return arrived === undefined ? undefined : concat(arrived.chunks.map((chunk) => chunk.bytes));
  }

  /** The document as it was at some version. Costs a pass over all that was ever written. */
  at(heads: Heads): Root {
    return applyPatches(EMPTY, this.replica.diff([], heads));
  }

  /** A change was made here. `isStep`: undo takes it back; undoing and redoing keep their own account. */
  changed(chunk: Chunk, isStep: boolean): readonly WasmPatch[] {
    this.unsaved.set(chunk.hash, chunk);
    this.unsynced += 1;
    this.#unsynced?.add(chunk.hash);
    const patches = this.#show();
    if (isStep) {
      this.replica.record(chunk.hash, this.#goesOn(patches));
    } else {
      this.#typing = undefined;
    }
    this.lookAtSteps();
    return patches;
  }

  /** Undoing or redoing was tried. */
  lookAtSteps(): void {
    this.canUndo = this.replica.canUndo();
    this.canRedo = this.replica.canRedo();
  }

  /** Whether a change belongs to the one before, as a letter does to its word. */
  #goesOn(patches: readonly WasmPatch[]): boolean {
    const [first] = patches;
    const now = Date.now();
    const isTyping =
      first !== undefined &&
      patches.every(({ action, object }) => object === first.object && (action === "splice" || action === "del")) &&
      this.replica.typeOf(first.object) === "text";
    const before = this.#typing;
    this.#typing = isTyping ? { object: first.object, at: now } : undefined;
    return isTyping && before?.object === first.object && now - before.at < SAME_STEP_MS;
  }

  /** Whether the server is known to keep these changes. */
  isSynced(hashes: readonly ChangeHash[]): boolean {
    const unsynced = this.#unsynced;
    return this.loaded && (this.unsynced === 0 || (unsynced !== undefined && hashes.every((hash) => !unsynced.has(hash))));
  }

  /** These changes are in storage. */
  stored(changes: readonly StoredChange[]): void {
    for (const { hash } of changes) {
      this.#tail.add(hash);
    }
  }

  /** The document as a snapshot, and what of storage it makes superfluous: only what this replica has in it. */
  compacted(): { readonly snapshot: Uint8Array; readonly contained: Contained } {
    const changes = [...this.#tail].filter((hash) => this.replica.has(hash));
    return { snapshot: this.replica.save(), contained: { snapshots: this.#snapshots, changes } };
  }

  /** The snapshot is stored, and what it contained is gone. */
  storedAs(name: string, contained: Contained): void {
    this.#snapshots = [name];
    for (const hash of contained.changes) {
      this.#tail.delete(hash);
    }
  }

  /** The server told what it keeps. */
  learn(news: ServerNews): void {
    this.readOnly = news.readOnly;
    if (!sameHeads(this.synced, news.synced)) {
      this.synced = news.synced;
      this.#countUnsynced();
    }
  }

  /** Applies each by itself. How many of them are bad. */
  #applyEach(chunks: readonly Uint8Array[]): number {
    return chunks.filter((chunk) => !this.#isApplied(chunk)).length;
  }

  /** Applies what may be bad. Whether all of it was taken. */
  #isApplied(chunks: Uint8Array): boolean {
    try {
      this.replica.apply(chunks);
      return true;
    } catch (error) {
      if (isTrap(error)) {
        throw error;
      }
      return false;
    }
  }

  #arrived(before: Heads, after: Heads): Arrived | undefined {
    if (sameHeads(before, after)) {
      return undefined;
    }
    const count = this.replica.countSince(before);
    if (count === 0) {
      return undefined;
    }
    return count > MANY_CHANGES
      ? { chunks: [{ hash: "", bytes: this.replica.save() }], isSnapshot: true }
      : { chunks: this.replica.changesSince(before), isSnapshot: false };
  }

  /** Costs about as much as there are changes that the server is not known to keep. */
  #countUnsynced(): void {
    const isAll = sameHeads(this.replica.heads(), this.synced);
    this.unsynced = isAll ? 0 : this.replica.countSince(this.synced);
    this.#unsynced = this.unsynced > MANY_UNSYNCED ? undefined : new Set(isAll ? [] : this.replica.hashesSince(this.synced));
  }

  #show(): readonly WasmPatch[] {
    const patches = this.replica.patches();
    try {
      this.value = applyPatches(this.value, patches);
    } catch (error) {
      if (!(error instanceof PatchError)) {
        throw error;
      }
      // A step that has no meaning for plain values, as old libraries could write them: built anew instead.
      this.value = this.at(this.replica.heads());
    }
    this.#shown = this.replica.heads();
    return patches;
  }
}

/** Whether the wasm module panicked: nothing that it holds can be used any more. */
export function isTrap(error: unknown): boolean {
  return (
    error instanceof WebAssembly.RuntimeError ||
    // A change that could not be taken back either.
    (error instanceof AggregateError && error.errors.some(isTrap))
  );
}

/** Byte strings, one after the other. */
export function concat(parts: readonly Uint8Array[]): Uint8Array {
  if (parts.length === 1) {
    return parts[0] as Uint8Array;
  }
  const whole = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** Whether two versions are the same; both are sorted. */
export function sameHeads(one: Heads, other: Heads): boolean {
  return one.length === other.length && one.every((hash, index) => hash === other[index]);
}
