/**
 * The sessions with the server, one for each document and connection: what is sent of it, and what of the server's is
 * taken in, and when.
 */
import { report } from "../emitter.js";
import type { Content } from "../long/protocol.js";
import type { Heads, Wasm, WasmConnection, WasmIncoming } from "../wasm.js";
import { asError, isTrap } from "./chunks.js";
import type { Documents } from "./documents.js";
import type { LiveDocument } from "./live.js";
import type { ServerNews, TabMessage } from "./messages.js";
import { hasTrapped, type Reader } from "./reader.js";
import type { Uplink } from "./uplink.js";

/** What {@link Sessions} needs of its client. */
export interface SessionsHost {
  /** Runs what uses the wasm module, whose traps end there. */
  guard(work: () => void): void;
  /** Applies what waits in a document. */
  apply(live: LiveDocument): void;
  /** Likewise, in all, when it is time. */
  applySoon(): void;
  /** Whether it is so long that an empty document is being filled with it elsewhere. */
  fills(live: LiveDocument, content: Content): boolean;
  /** Tells the other tabs, or one. */
  post(message: TabMessage, to?: string): void;
  /** Drops it if nobody needs it any more, and all of it is kept elsewhere. */
  maybeDrop(live: LiveDocument): void;
  /** The server told what it keeps. */
  learned(live: LiveDocument, news: ServerNews): void;
  /** That is to be stored. */
  keepSyncState(live: LiveDocument): void;
}

/** What the server believes that we have of a document. */
interface Left {
  readonly heads: Heads;
  readonly syncState: Uint8Array;
}

/** What the server says of one document. */
export type OfDocument = Extract<WasmIncoming, { readonly type: "sync" | "unavailable" }>;

/** See the module's comment. */
export class Sessions {
  readonly #wasm: Wasm;
  readonly #documents: Documents;
  readonly #uplink: Uplink;
  readonly #reader: Reader;
  readonly #host: SessionsHost;
  /** Documents that were here earlier in this connection, and are not now; what was left, as far as that is known. */
  readonly #dropped = new Map<string, Left | undefined>();

  constructor(wasm: Wasm, documents: Documents, uplink: Uplink, reader: Reader, host: SessionsHost) {
    this.#wasm = wasm;
    this.#documents = documents;
    this.#uplink = uplink;
    this.#reader = reader;
    this.#host = host;
  }

  /** The open connection. */
  get connection(): WasmConnection | undefined {
    return this.#uplink.connection;
  }

  /** A document is in use no more; the server goes on believing that it is here. `isStored`: what it had can be. */
  leave(live: LiveDocument, isStored: boolean): void {
    if (live.inSession) {
      // Whether it is read-only is told once in a session.
      const isLeft = isStored && !live.readOnly;
      this.#dropped.set(live.id, isLeft ? { heads: live.replica.heads(), syncState: live.replica.syncState() } : undefined);
    }
  }

  /** A connection is open. */
  beginAll(): void {
    this.#dropped.clear();
    for (const live of this.#documents) {
      live.unavailable = false;
      this.begin(live);
    }
  }

  /** The session of one document, where there is a connection. */
  begin(live: LiveDocument): void {
    if (this.#uplink.connection === undefined || !live.loaded || live.isLetGo) {
      return;
    }
    const wasHere = this.#dropped.has(live.id);
    if (wasHere && !this.#takesUp(live)) {
      this.#uplink.restart();
      return;
    }
    live.replica.connect();
    live.inSession = true;
    if (wasHere) {
      this.news(live);
    }
    // To the server it is one session, of which it answers the first message always.
    this.pump(live, !wasHere);
  }

  /** Goes on where the document was dropped, if all that the server believes to be here is here again. */
  #takesUp(live: LiveDocument): boolean {
    const left = this.#dropped.get(live.id);
    if (left === undefined || !left.heads.every((hash) => live.replica.has(hash))) {
      return false;
    }
    this.#dropped.delete(live.id);
    live.replica.restoreSyncState(left.syncState);
    return true;
  }

  /** The connection is gone. */
  endAll(): void {
    for (const live of this.#documents) {
      live.sessionEnded();
      live.replica.disconnect();
      live.inSession = false;
      // Nobody may show it, and what it waited for does not come.
      this.#host.maybeDrop(live);
    }
  }

  /** Sends what the server lacks. */
  pump(live: LiveDocument, isFirst = false): void {
    const { connection } = this.#uplink;
    if (connection === undefined || !live.loaded || !live.inSession || !this.#documents.isHere(live)) {
      return;
    }
    const isAnswered = isFirst || live.isEmpty || (live.unsynced > 0 && !live.readOnly);
    const peers = connection.peers();
    const next = (): Uint8Array | undefined => live.replica.nextFrame(...peers);
    for (let frame = next(); frame !== undefined; frame = next()) {
      this.#uplink.send(frame, isAnswered ? live.id : undefined);
    }
  }

  /** What the server says of a document. */
  incoming(message: OfDocument): void {
    const live = this.#documents.get(message.document);
    if (live === undefined) {
      // The server believes that this came.
      if (message.type === "sync" && this.#dropped.has(message.document)) {
        this.#dropped.set(message.document, undefined);
      }
      return;
    }
    if (message.type === "unavailable") {
      live.unavailable = true;
      this.#documents.judge(live);
      this.#documents.looked(live);
      this.news(live);
    } else {
      this.#take(live, message.data);
    }
  }

  /** A sync message of the server's, when it is its turn. */
  #take(live: LiveDocument, message: Uint8Array): void {
    if (!live.loaded || live.isUnpacking) {
      if (!live.keepEarly(message)) {
        this.#uplink.fail(Object.assign(new Error("too much came while a long document was being read"), { code: "overloaded" }));
      }
    } else if (!this.#host.fills(live, { from: "message", message }) && !this.#unpacks(live, message)) {
      this.received(live, message);
    }
  }

  /**
   * What came while something else had to be taken in first. What ends the connection ends this, too: what came behind
   * it is forgotten with the session.
   */
  takeEarly(live: LiveDocument): void {
    while (live.loaded && !live.isUnpacking && this.#documents.isHere(live)) {
      const message = live.nextEarly();
      if (message === undefined) {
        return;
      }
      this.#take(live, message);
    }
  }

  /**
   * Whether much is here of a long document that comes as a snapshot: then what is new is taken out of that elsewhere,
   * and applied part by part. In the page, in one piece, it takes as long as if nothing were here.
   */
  #unpacks(live: LiveDocument, message: Uint8Array): boolean {
    const isLong = !live.isReadHere && this.#reader.takes({ from: "message", message });
    const rest = isLong ? this.#wasm.Replica.withoutSnapshot(message) : undefined;
    live.isUnpacking = rest !== undefined;
    if (rest !== undefined) {
      this.#unpack(live, message, rest).catch(report);
    }
    return live.isUnpacking;
  }

  async #unpack(live: LiveDocument, message: Uint8Array, rest: Uint8Array): Promise<void> {
    const { connection } = this.#uplink;
    const isWanted = (): boolean => this.#documents.isHere(live) && connection === this.#uplink.connection;
    const read = await this.#reader.changes(live, { from: "message", message }, live.known(), isWanted).catch(asError);
    this.#host.guard(() => {
      if (!isWanted()) {
        return;
      }
      if (hasTrapped(read)) {
        this.broken(live, read);
      } else if (read === undefined || read instanceof Error) {
        live.isReadHere = true;
        live.isUnpacking = false;
        this.received(live, message);
        this.takeEarly(live);
      } else {
        live.unpacked(read.parts, rest);
        this.#host.applySoon();
      }
    });
  }

  /** A sync message of the server's. */
  received(live: LiveDocument, message: Uint8Array): void {
    try {
      live.replica.receive(message);
    } catch (error) {
      this.broken(live, error);
      return;
    }
    if (live.replica.hasPending()) {
      this.#host.applySoon();
    } else if (live.isBehind) {
      // So much came that it did not wait to be applied.
      this.#host.apply(live);
    } else {
      this.news(live);
      this.pump(live);
    }
  }

  /** The server may have told something about what it keeps. `asker`: a tab that is told in any case. */
  news(live: LiveDocument, asker?: string): void {
    const { replica } = live;
    const news: ServerNews = {
      synced: replica.syncedHeads(),
      unavailable: live.unavailable && live.isEmpty,
      readOnly: replica.isReadOnly(),
    };
    if (live.tells(news)) {
      this.#host.post({ t: "server", id: live.id, news });
      this.#host.keepSyncState(live);
    } else if (asker !== undefined) {
      this.#host.post({ t: "server", id: live.id, news }, asker);
    }
    this.#host.learned(live, news);
  }

  /** Something of the server's came that can't be applied. */
  broken(live: LiveDocument, error: unknown): void {
    if (isTrap(error)) {
      throw error;
    }
    this.#documents.looked(live, asError(error));
    this.#uplink.fail(error);
  }
}
