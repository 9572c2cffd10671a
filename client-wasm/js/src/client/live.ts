/**
 * One document in this tab: the replica, the value it shows, and what of it is not yet kept elsewhere.
 * Does no IO; {@link Client} does what it says.
 */
import { InOrder } from "../in-order.js";
import { applied, applyPatches, EMPTY, type Root, type Shown } from "../value/tree.js";
import type { ChangeHash, Chunk, Heads, Wasm, WasmPatch, WasmReplica } from "../wasm.js";
import type { Filled } from "../long/loader.js";
import type { Contained, StoredDocument, StoredSnapshot } from "../storage/storage.js";
import { applyChunks, bytesOf, type Chunks, concat, SLICE_BYTES } from "./chunks.js";
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

/**
 * Changes that were new: one by one, or, where all are, as a snapshot of the document. That is much smaller, but who
 * has most of it takes as long to read it as who has nothing.
 */
export interface Arrived {
  readonly chunks: readonly Chunk[];
  readonly isSnapshot: boolean;
}

/** How far reading a long document is, in bytes. Of a snapshot nothing can be told before its end. */
export interface Reading {
  readonly done: number;
  readonly bytes: number;
}

/** Chunks that another tab sent, and the heads that they make, where that is known. */
interface FromTab {
  readonly bytes: Uint8Array;
  readonly heads: Heads;
}

/** Changes of a sync message, and what else it said. */
interface Unpacked {
  readonly parts: readonly Uint8Array[];
  /** Which is next. */
  at: number;
  readonly rest: Uint8Array;
}

/** What applying did. */
export interface Applied {
  readonly patches: readonly WasmPatch[];
  readonly fromTabs: Arrived | undefined;
  readonly fromServer: Arrived | undefined;
}

/** What may wait while a long document is read, bytes: two of the longest messages. The server sends it again. */
const MAX_EARLY_BYTES = 64 * 1024 * 1024;
/** Of which a message takes these besides its own: many short ones take long to go through. */
const EARLY_MESSAGE_BYTES = 16 * 1024;
/** More changes than this are only counted. */
const MANY_UNSYNCED = 2_000;
/** A letter that is typed so soon after the one before is undone with it, milliseconds. */
const SAME_STEP_MS = 1_000;

/** See the module's comment. */
export class LiveDocument {
  readonly id: string;
  state: DocumentState = "loading";
  /** Whether storage was looked into, and nothing is being read elsewhere. */
  loaded = false;
  /** Whether storage could not be read; `taking`: it was since, and what it has waits to be applied. */
  unread: "no" | "yes" | "taking" = "no";
  /** How often that failed. */
  reads = 0;
  /** How far reading a long document is. */
  reading: Reading | undefined;
  /** What comes for it is read in the page: elsewhere it could not be. */
  isReadHere = false;
  /** A snapshot that the server sent is being taken apart elsewhere, or what was new in it applied. */
  isUnpacking = false;
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
  /** The server may have ended connections because of it: it is not sent until it is tried again, or shown. */
  isLetGo = false;
  /** Storage may have changes marked as unsent that the server keeps, or will keep. */
  marked = false;
  /** Marks are being taken away. */
  settling = false;
  /** Whether storage has the document, as far as this tab knows: what is stored then builds on that. */
  isStored = false;
  /** Whether there is a session with the server in this connection. */
  inSession = false;
  /** What of it could not be read, until it is whole again. */
  damage: Error | undefined;
  /** Changes of others could not be stored: storage must not speak of them. */
  unkept = false;
  /** How many writes of others' changes, or of all as a snapshot, are under way: until then it is not dropped. */
  keeping = 0;
  /** What the other tabs were told last by this one, which leads. */
  told: ServerNews | undefined;
  /** Heads that are durable on the server, as last told. */
  synced: Heads = [];
  /** Handles of this tab that show it; with none it is only kept in sync for other tabs. */
  handles = 0;
  /** Tabs that show it. */
  readonly wantedBy = new Set<string>();
  /** Tabs that asked for it while {@link loaded} was not, and what they have of it. */
  readonly asked = new Map<string, Heads>();
  /** Who has it open. */
  readonly presence: Presence;
  /** What handles are told of its patches. */
  readonly telling = new InOrder();
  #replica: WasmReplica;
  #incoming: FromTab[] = [];
  /** What the server said while {@link loaded} was not, or while {@link isUnpacking}. */
  #early: Uint8Array[] = [];
  #earlyBytes = 0;
  /** What was new in the snapshot that is being taken apart. */
  #unpacked: Unpacked | undefined;
  /** What the replica has and was not shown yet is other tabs', and not the server's. */
  #isFromTabs = false;
  /** What a replica that was filled elsewhere told there. */
  #adopted: Shown | undefined;
  /** What is known to be in storage: names of snapshots, and hashes of changes beside them. */
  #snapshots: readonly string[] = [];
  readonly #tail = new Set<ChangeHash>();
  /** Changes of other tabs that are not known to be in storage. */
  readonly #borrowed = new Set<ChangeHash>();
  /** The text that was edited last, when nothing else was since, and when. */
  #typing: { readonly object: string; readonly at: number } | undefined;
  /** What other tabs said that they have, and is not here: it waits in the replica for what is below it, or is bad. */
  readonly #lacking = new Set<ChangeHash>();
  /** What of it was asked for. */
  #askedFor: Heads = [];
  /** Heads of what {@link value} shows. */
  #shown: Heads = [];

  /** An empty document, of which nothing is known yet. */
  constructor(wasm: Wasm, id: string, presence: Presence) {
    this.id = id;
    this.presence = presence;
    this.#replica = new wasm.Replica(id);
  }

  /** The Automerge document, and its session with the server. */
  get replica(): WasmReplica {
    return this.#replica;
  }

  /** Goes on with a replica that was filled elsewhere. `isFromTabs`: with what other tabs sent. */
  adopt({ replica, shown }: Filled, isFromTabs: boolean): void {
    this.#replica.free();
    this.#replica = replica;
    this.#adopted = shown;
    // What waited was in the other one.
    this.#askedFor = [];
    this.#isFromTabs = isFromTabs;
  }

  /** Who asked meanwhile; they do not wait any more. */
  takeAsked(): [tab: string, heads: Heads][] {
    const asked = [...this.asked];
    this.asked.clear();
    return asked;
  }

  /**
   * Takes what is stored. Changes that can't be read are left out, and counted. `filled`: the replica that has it in
   * it already.
   */
  restore(stored: StoredDocument, filled: Filled | undefined): { readonly patches: readonly WasmPatch[]; readonly damaged: number } {
    this.isStored = true;
    this.stored(stored.changes.map((change) => change.hash));
    if (filled !== undefined) {
      this.adopt(filled, false);
    }
    const damaged = filled?.damaged ?? applyChunks(this.replica, chunksOf(stored));
    // Only what was read may be replaced by a snapshot of this replica.
    this.#snapshots = damaged === 0 ? stored.snapshots.map((snapshot) => snapshot.name) : [];
    if (stored.syncState !== undefined && damaged === 0) {
      this.replica.restoreSyncState(stored.syncState);
    }
    this.synced = this.replica.syncedHeads();
    this.#countUnsynced();
    this.marked ||= this.unsynced > 0;
    return { patches: this.#show(), damaged };
  }

  /** Versions of it that are here: its heads, and some that others are more likely to have. */
  known(): Heads {
    return [...this.replica.heads(), ...this.replica.syncedHeads()];
  }

  /** Whether there is anything in it. */
  get isEmpty(): boolean {
    return this.replica.heads().length === 0;
  }

  /** Whether something waits for {@link apply}. */
  get hasIncoming(): boolean {
    return this.#incoming.length > 0 || this.#unpacked !== undefined || this.replica.hasPending() || this.isBehind;
  }

  /** The same, or for something else that must come first. */
  get isTakingIn(): boolean {
    return this.hasIncoming || this.isUnpacking || this.#early.length > 0;
  }

  /** Whether the replica has more than is shown: it applies what it was sent by itself where that is much. */
  get isBehind(): boolean {
    return !sameHeads(this.#shown, this.replica.heads());
  }

  /** Chunks from another tab, which make these heads, if it told; to be applied when it is time. */
  receive(bytes: Uint8Array, heads: Heads): void {
    this.#incoming.push({ bytes, heads });
  }

  /** What other tabs sent and is not here: about as much as is applied at a time. */
  waiting(): Chunks | undefined {
    const now = this.#nextIncoming();
    return now.length === 0
      ? undefined
      : {
          chunks: now.map((one) => one.bytes),
          expected: now.flatMap((one) => one.heads),
          unknown: now.filter((one) => one.heads.length === 0).length,
        };
  }

  /** The same, which does not wait any more. */
  takeIncoming(): Chunks | undefined {
    const chunks = this.waiting();
    this.#incoming.splice(0, chunks?.chunks.length ?? 0);
    return chunks;
  }

  /** What other tabs sent meanwhile builds on what can't be read, or is that once more. */
  forgetIncoming(): void {
    this.#incoming = [];
  }

  #nextIncoming(): readonly FromTab[] {
    // A snapshot costs seconds to read, be everything in it here or not.
    this.#incoming = this.#incoming.filter(({ heads }) => heads.length === 0 || heads.some((head) => !this.replica.has(head)));
    let bytes = 0;
    const later = this.#incoming.findIndex((one) => (bytes += one.bytes.length) > SLICE_BYTES);
    return later < 0 ? this.#incoming : this.#incoming.slice(0, Math.max(later, 1));
  }

  /** Keeps what the server said for {@link nextEarly}. Whether that is not too much. */
  keepEarly(message: Uint8Array): boolean {
    this.#early.push(message);
    this.#earlyBytes += message.length + EARLY_MESSAGE_BYTES;
    return this.#earlyBytes <= MAX_EARLY_BYTES;
  }

  nextEarly(): Uint8Array | undefined {
    const message = this.#early.shift();
    this.#earlyBytes -= message === undefined ? 0 : message.length + EARLY_MESSAGE_BYTES;
    return message;
  }

  /** Changes of a sync message, part by part, and then the rest of it: to be applied when it is time. */
  unpacked(parts: readonly Uint8Array[], rest: Uint8Array): void {
    this.#unpacked = { parts, at: 0, rest };
  }

  /** The session is over: what was not applied yet is sent again in the next. */
  sessionEnded(): void {
    this.#early = [];
    this.#earlyBytes = 0;
    this.isUnpacking = false;
    if (this.#unpacked !== undefined) {
      this.#unpacked = undefined;
      this.reading = undefined;
    }
  }

  /** The next part, and after the last the rest of the message. */
  #applyUnpacked(unpacked: Unpacked): void {
    const { parts, rest } = unpacked;
    const part = parts[unpacked.at];
    if (part !== undefined) {
      this.replica.receivePart(part);
      unpacked.at += 1;
    }
    if (unpacked.at < parts.length) {
      this.reading = { done: bytesOf(parts.slice(0, unpacked.at)), bytes: bytesOf(parts) };
      return;
    }
    this.#unpacked = undefined;
    this.isUnpacking = false;
    this.reading = undefined;
    this.replica.receive(rest);
  }

  /** Applies what waits, from the server and from tabs. What of a tab's can't be read is left out. */
  apply(): Applied {
    const before = this.#shown;
    if (this.#unpacked === undefined) {
      this.replica.applyPending(SLICE_BYTES);
    } else {
      this.#applyUnpacked(this.#unpacked);
    }
    const between = this.#isFromTabs ? before : this.replica.heads();
    this.#isFromTabs = false;
    const fromServer = this.#arrived(before, between);
    const incoming = this.takeIncoming();
    if (incoming !== undefined) {
      applyChunks(this.replica, incoming);
      for (const hash of incoming.expected) {
        this.#lacking.add(hash);
      }
    }
    const after = this.replica.heads();
    const fromTabs = this.#arrived(between, after);
    this.marked ||= fromTabs !== undefined;
    if (sameHeads(before, after)) {
      return { patches: [], fromTabs, fromServer };
    }
    // Else `learn` is to find out that the server told something new, and to count.
    if (this.inSession) {
      this.synced = this.replica.syncedHeads();
    }
    this.#countUnsynced();
    const brought = fromTabs?.isSnapshot === true ? this.#unsynced : fromTabs?.chunks.map((chunk) => chunk.hash);
    for (const hash of brought ?? []) {
      this.#borrowed.add(hash);
    }
    return { patches: this.#show(), fromTabs, fromServer };
  }

  /** Whether other tabs have something that is not here, for which {@link lacksMore} did not say so before. */
  lacksMore(): boolean {
    const lacking = [...this.#lacking].filter((hash) => !this.replica.has(hash)).sort();
    this.#lacking.clear();
    lacking.forEach((hash) => this.#lacking.add(hash));
    const isNew = lacking.length > 0 && !sameHeads(lacking, this.#askedFor);
    this.#askedFor = lacking;
    return isNew;
  }

  /** Chunks of what somebody who has `heads` lacks. */
  missing(heads: Heads): Uint8Array | undefined {
    const arrived = this.#arrived(heads, this.replica.heads());
    return arrived && joined(arrived);
  }

  /** The document as it was at some version. Costs a pass over all that was ever written. */
  at(heads: Heads): Root {
    return applyPatches(EMPTY, this.replica.diff([], heads));
  }

  /** A change was made here. `isStep`: undo takes it back; undoing and redoing keep their own account. */
  changed(chunk: Chunk, isStep: boolean): readonly WasmPatch[] {
    this.unsaved.set(chunk.hash, chunk);
    this.unsynced += 1;
    this.marked = true;
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
    return this.loaded && this.unread === "no" && (this.unsynced === 0 || (unsynced !== undefined && hashes.every((hash) => !unsynced.has(hash))));
  }

  /** Whether a change is here and the server known to keep it: what is not here was not counted. */
  isSent(hash: ChangeHash): boolean {
    return this.replica.has(hash) && !this.isBehind && this.isSynced([hash]);
  }

  /** These changes are in storage. */
  stored(hashes: Iterable<ChangeHash>): void {
    this.isStored = true;
    for (const hash of hashes) {
      this.#tail.add(hash);
      this.#borrowed.delete(hash);
    }
  }

  /** What own changes may build on, and is not known to be kept anywhere: the tab that made it may fail to. */
  borrowed(): readonly Chunk[] {
    return this.#borrowed.size === 0 ? [] : this.replica.changesSince(this.synced).filter(({ hash }) => this.#borrowed.has(hash));
  }

  /** The document as a snapshot, and what of storage it makes superfluous: only what this replica has in it. */
  compacted(): { readonly snapshot: Uint8Array; readonly contained: Contained } {
    const changes = [...this.#tail, ...this.#borrowed].filter((hash) => this.replica.has(hash));
    return { snapshot: this.replica.save(), contained: { snapshots: this.#snapshots, changes } };
  }

  /** Those that this tab neither loaded nor stored. */
  unknownOf(snapshots: readonly StoredSnapshot[]): StoredSnapshot[] {
    return snapshots.filter((snapshot) => !this.#snapshots.includes(snapshot.name));
  }

  /** The snapshot is stored, and what it contained is gone. */
  storedAs(name: string, contained: Contained): void {
    this.isStored = true;
    this.#snapshots = [name];
    for (const hash of contained.changes) {
      this.#tail.delete(hash);
      this.#borrowed.delete(hash);
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

  /** The other tabs are told this. Whether it is something new. */
  tells(news: ServerNews): boolean {
    const { told } = this;
    this.told = news;
    return (
      told === undefined ||
      told.unavailable !== news.unavailable ||
      told.readOnly !== news.readOnly ||
      !sameHeads(told.synced, news.synced)
    );
  }

  #arrived(before: Heads, after: Heads): Arrived | undefined {
    if (sameHeads(before, after)) {
      return undefined;
    }
    if (before.length === 0) {
      return { chunks: [{ hash: "", bytes: this.replica.save() }], isSnapshot: true };
    }
    const chunks = this.replica.changesSince(before);
    return chunks.length === 0 ? undefined : { chunks, isSnapshot: false };
  }

  /** Costs about as much as there are changes that the server is not known to keep. */
  #countUnsynced(): void {
    const isAll = sameHeads(this.replica.heads(), this.synced);
    if (isAll) {
      // The server has what others made, too.
      this.#borrowed.clear();
    }
    this.unsynced = isAll ? 0 : this.replica.countSince(this.synced);
    this.#unsynced = this.unsynced > MANY_UNSYNCED ? undefined : new Set(isAll ? [] : this.replica.hashesSince(this.synced));
  }

  #show(): readonly WasmPatch[] {
    const { patches, value } = this.#next();
    // A step that has no meaning for plain values: built anew instead.
    this.value = value ?? this.at(this.replica.heads());
    this.#shown = this.replica.heads();
    return patches;
  }

  #next(): Shown {
    const adopted = this.#adopted ?? { patches: [], value: this.value };
    this.#adopted = undefined;
    const patches = this.replica.patches();
    return { patches: [...adopted.patches, ...patches], value: adopted.value && applied(adopted.value, patches) };
  }
}

/** All that arrived, one after the other. */
export function joined({ chunks }: Arrived): Uint8Array {
  return concat(chunks.map((chunk) => chunk.bytes));
}

/** What is stored, as chunks. */
export function chunksOf({ snapshots, changes }: StoredDocument): Chunks {
  return {
    chunks: [...snapshots, ...changes].map((one) => one.bytes),
    expected: changes.map((change) => change.hash),
    unknown: snapshots.length,
  };
}

/** Whether two versions are the same; both are sorted. */
export function sameHeads(one: Heads, other: Heads): boolean {
  return one.length === other.length && one.every((hash, index) => hash === other[index]);
}
