/**
 * What the wasm module offers: the shape of `client-wasm/src/bindings`, by hand, so that everything else in
 * this package is checked against it. Only this package's own code sees it.
 *
 * Nothing here is async and nothing calls back into JavaScript.
 */

/** An object inside a document: `"_root"` or `"<counter>@<actor>"`. */
export type ObjectId = string;
/** A change hash, 64 hex digits. */
export type ChangeHash = string;
/** Sorted change hashes that name a version of a document. */
export type Heads = readonly ChangeHash[];
/** A key of a map, or an index into a list or text (UTF-16 code units). */
export type Prop = string | number;

/** The kinds of object in a document. */
export type ObjectType = "map" | "list" | "text";

/**
 * A value as it crosses the boundary. Scalars that JavaScript has are themselves (`null`, boolean, number,
 * `Uint8Array`, `Date`); the rest says what it is. A plain string in a document is an object of type `"text"`;
 * `{ string }` is a scalar string, which can only be replaced as a whole. `{ float }` is for writing only: a whole
 * number without it is written as an integer. Both are read as numbers.
 */
export type WasmValue =
  | null
  | boolean
  | number
  | Uint8Array
  | Date
  | { readonly string: string }
  | { readonly counter: number }
  | { readonly float: number }
  | { readonly object: ObjectId; readonly type: ObjectType };

/** One step that takes the document's last value to the next. `path` leads to the place, from the root. */
export type WasmPatch = { readonly path: readonly Prop[]; readonly object: ObjectId } & (
  | { readonly action: "put"; readonly value: WasmValue; readonly conflict: boolean }
  /** `path` ends with the index of the first new element. */
  | { readonly action: "insert"; readonly values: readonly WasmValue[] }
  /** `path` ends with the position in the text, in UTF-16 code units. */
  | { readonly action: "splice"; readonly text: string }
  /** `path` ends with the key, or the index of the first of `length` elements or code units. */
  | { readonly action: "del"; readonly length: number }
  | { readonly action: "inc"; readonly by: number }
  /** The value stays, but there are others now that were written at the same time. */
  | { readonly action: "conflict" }
  | { readonly action: "mark" }
);

/** A change of the history. */
export interface ChangeInfo {
  readonly hash: ChangeHash;
  /** 32 hex digits or more. */
  readonly actor: string;
  readonly seq: number;
  /** Unix milliseconds by the author's clock; 0 when not told. */
  readonly time: number;
  readonly message: string | undefined;
  readonly ops: number;
  readonly deps: readonly ChangeHash[];
}

/** A change chunk and its hash. */
export interface Chunk {
  readonly hash: ChangeHash;
  readonly bytes: Uint8Array;
}

/**
 * One document. Edits open a transaction; `commit` or `rollback` ends it, and everything but edits and reads
 * throws while one is open. An error of the module is an `Error` whose `code` says what went wrong.
 */
export interface WasmReplica {
  free(): void;
  /** Leaves it in the instance's memory, of which another instance is given a copy, and this object empty. */
  park(): void;

  // Reading, also inside a transaction.
  get(object: ObjectId, prop: Prop): WasmValue | undefined;
  keys(object: ObjectId): string[];
  /** Elements of a list, code units of a text, keys of a map. */
  length(object: ObjectId): number;
  text(object: ObjectId): string;
  /** Whether a position in a text is between the halves of a surrogate pair. */
  splitsPair(text: ObjectId, index: number): boolean;
  /** Throws when there is no such object. */
  typeOf(object: ObjectId): ObjectType;

  // Editing.
  /** Nothing is written when the same scalar of the same kind is there. To Automerge the floats 0 and -0 are. */
  put(object: ObjectId, prop: Prop, value: WasmValue): void;
  insert(list: ObjectId, index: number, value: WasmValue): void;
  putObject(object: ObjectId, prop: Prop, type: ObjectType): ObjectId;
  insertObject(list: ObjectId, index: number, type: ObjectType): ObjectId;
  remove(object: ObjectId, prop: Prop): void;
  increment(object: ObjectId, prop: Prop, by: number): void;
  /** UTF-16 code units; never between the halves of a surrogate pair. */
  spliceText(text: ObjectId, index: number, remove: number, insert: string): void;
  /** Makes the text read so with the fewest edits, so that edits made elsewhere at the same time are kept. */
  updateText(text: ObjectId, value: string): void;
  /** The change just made, or nothing when nothing was edited. `time` in Unix milliseconds. */
  commit(message: string | undefined, time: number): Chunk | undefined;
  rollback(): void;
  // Undo, of changes that were made by this replica.
  /** The change is a step to undo; with `continues` it is part of the last step. What could be redone no longer can. */
  record(hash: ChangeHash, continues: boolean): void;
  canUndo(): boolean;
  canRedo(): boolean;
  /**
   * Takes back what is left of the last step by one new change; nothing when others left nothing of it. What others
   * wrote stays.
   */
  undo(message: string | undefined, time: number): Chunk | undefined;
  /** Takes back the last undo, in the same way. */
  redo(message: string | undefined, time: number): Chunk | undefined;
  /** A change without edits: a document of which nothing was written exists by it. */
  emptyChange(time: number): Chunk;

  // Changes from elsewhere: a concatenation of chunks of any kind. Costs a pass over each object they touch.
  apply(chunks: Uint8Array): void;
  /** What happened since the last call, for whoever shows the document. */
  patches(): WasmPatch[];

  // Versions.
  heads(): Heads;
  has(hash: ChangeHash): boolean;
  /** Chunks of all changes that are not below `heads` (of which unknown ones are ignored), in causal order. */
  changesSince(heads: Heads): Chunk[];
  /** Hashes of the same changes. */
  hashesSince(heads: Heads): ChangeHash[];
  /** How many they are. */
  countSince(heads: Heads): number;
  save(): Uint8Array;
  history(): ChangeInfo[];
  /** The steps from one version to another. */
  diff(before: Heads, after: Heads): WasmPatch[];
  /** All values that were written at the same time in that place; the winner is the last. */
  conflicts(object: ObjectId, prop: Prop): WasmValue[];
  /** A place in a text or list that moves with what is around it. */
  cursor(object: ObjectId, index: number): string;
  /** Where it is now. */
  cursorPosition(object: ObjectId, cursor: string): number | undefined;

  // The session with the server.
  connect(): void;
  disconnect(): void;
  /** The next frame from us to the server, as {@link WasmConnection.peers} names both, or nothing to say. */
  nextFrame(us: string, server: string): Uint8Array | undefined;
  /** A sync message from the server. Its changes wait for `applyPending`. */
  receive(data: Uint8Array): void;
  /**
   * Changes of a message of the server's of which more comes, or the rest, which is taken by `receive`. Nothing is to be
   * sent until then. They are not judged: only for what was read by another instance of this module.
   */
  receivePart(chunks: Uint8Array): void;
  hasPending(): boolean;
  /** Applies what was received; of what is much only the first changes, about `most` bytes of them. */
  applyPending(most: number): void;
  /** Heads known to be durable on the server, also from earlier sessions. */
  syncedHeads(): Heads;
  isReadOnly(): boolean;
  /** To be kept beside the document; costs only a fuller exchange when it is lost. */
  syncState(): Uint8Array;
  /** One of an earlier page's, before the first session; what can't be read is ignored. */
  restoreSyncState(state: Uint8Array): void;
}

/** What a frame from the server turned out to be. */
export type WasmIncoming =
  | { readonly type: "open"; readonly server: string; readonly storage: string | undefined }
  | { readonly type: "sync"; readonly document: string; readonly data: Uint8Array }
  | { readonly type: "unavailable"; readonly document: string }
  | {
      readonly type: "ephemeral";
      readonly document: string;
      readonly author: string;
      readonly session: string;
      readonly count: number;
      readonly data: Uint8Array;
    }
  | { readonly type: "leave" }
  | { readonly type: "ignored" };

/** One WebSocket connection's protocol state. */
export interface WasmConnection {
  free(): void;
  /** The first frame. */
  join(): Uint8Array;
  /** Our name and the server's; once it is open. */
  peers(): [us: string, server: string];
  receive(frame: Uint8Array): WasmIncoming;
  /** `author` may be another than who joined. `data` is CBOR. */
  ephemeral(document: string, author: string, session: string, count: number, data: Uint8Array): Uint8Array;
}

/** Waits between attempts to connect. */
export interface WasmBackoff {
  free(): void;
  /** Milliseconds; `random` is in [0, 1), `suggested` what the server asked for. */
  next(random: number, suggested: number | undefined): number;
  reset(): void;
}

/** The module. */
export interface Wasm {
  Replica: {
    /** An empty document, by an actor of its own. */
    new (document: string): WasmReplica;
    /** The one that was parked in the memory that this instance was given. */
    parked(): WasmReplica | undefined;
    /** What a sync message says besides its changes, as a message; nothing where none of them come as a snapshot. */
    withoutSnapshot(message: Uint8Array): Uint8Array | undefined;
  };
  /** `storage` names what this browser keeps; without it the server forgets us at once. */
  Connection: new (peer: string, storage: string | undefined) => WasmConnection;
  Backoff: new (baseMs: number, capMs: number) => WasmBackoff;
  /** A document id out of 16 random bytes. */
  documentId(random: Uint8Array): string;
  /** The id in an id or `automerge:` URL; throws when it is neither. */
  parseDocumentId(text: string): string;
  /** A value of plain objects, arrays, `Uint8Array`s and primitives as CBOR; throws for others. */
  encodeCbor(value: unknown): Uint8Array;
  /** The value in bytes from elsewhere; throws when they are none. */
  decodeCbor(bytes: Uint8Array): unknown;
}
