/**
 * How documents come to have something in them: out of storage, again if it could not be read; and where that is long,
 * or what the server or another tab sent for an empty one, read elsewhere.
 */
import { report } from "../emitter.js";
import type { Filled } from "../long/loader.js";
import type { Content } from "../long/protocol.js";
import type { Storage } from "../storage/storage.js";
import type { Heads } from "../wasm.js";
import { asError, type Chunks } from "./chunks.js";
import type { Documents } from "./documents.js";
import { chunksOf, type LiveDocument } from "./live.js";
import { free, hasTrapped, type Reader } from "./reader.js";
import type { Sessions } from "./sessions.js";

/** What {@link Filling} needs of its client. */
export interface FillingHost {
  /** Runs what uses the wasm module, whose traps end there. */
  guard(work: () => void): void;
  /** Something went wrong: ends all if that was a trap of the module. */
  caught(error: unknown): void;
  /** Whether the client is closed, or was ended by a trap. */
  isOver(): boolean;
  /** Applies what waits in a document. */
  apply(live: LiveDocument): void;
  /** Likewise, in all, when it is time. */
  applySoon(): void;
  /** Whether this tab, or one that it leads, needs it. */
  isWanted(live: LiveDocument): boolean;
  /** Asks the other tabs for what is not here. */
  want(documents: readonly LiveDocument[]): void;
  /** Another tab asked, which has this of it. */
  wantedBy(tab: string, id: string, heads: Heads): void;
  maybeDrop(live: LiveDocument): void;
}

/** What could not be read from storage is read again so much later, milliseconds; twice that the next time. */
const READ_AGAIN_AFTER_MS = 2_000;
/** So often, while the page lives: then it is not, and whoever brings it to be sent may try others. */
export const MAX_READS = 6;

/** See the module's comment. */
export class Filling {
  readonly #documents: Documents;
  readonly #storage: Storage;
  readonly #reader: Reader;
  readonly #sessions: Sessions;
  readonly #ending: AbortSignal;
  readonly #host: FillingHost;

  /** `ending`: nothing is tried again after that. */
  constructor(documents: Documents, storage: Storage, reader: Reader, sessions: Sessions, ending: AbortSignal, host: FillingHost) {
    this.#documents = documents;
    this.#storage = storage;
    this.#reader = reader;
    this.#sessions = sessions;
    this.#ending = ending;
    this.#host = host;
  }

  /** Looks for it in storage; its session begins when that is done. */
  async load(live: LiveDocument): Promise<void> {
    let fault: Error | undefined;
    try {
      const stored = await this.#storage.load(live.id);
      const filled = stored && (await this.#reader.fillOrNot(live, chunksOf(stored)));
      if (!this.#documents.isHere(live)) {
        free(filled);
      } else if (stored !== undefined) {
        const before = live.value;
        const { patches, damaged } = live.restore(stored, filled);
        if (damaged + stored.damaged > 0) {
          live.damage = new Error(`${damaged + stored.damaged} stored changes could not be read`);
        }
        this.#documents.shown(live, patches, before, "remote");
      }
    } catch (error) {
      this.#host.caught(error);
      fault = asError(error);
      live.unread = "yes";
      this.#readLater(live);
    }
    this.#host.guard(() => {
      if (this.#documents.isHere(live)) {
        live.loaded = true;
        this.#sessions.begin(live);
        this.#arrived(live, fault);
      }
    });
  }

  /** What was being read is here, or could not be read: whoever asked for it meanwhile was not answered. */
  #arrived(live: LiveDocument, fault?: Error, asks = true): void {
    this.#documents.judge(live);
    this.#documents.looked(live, fault);
    if (!this.#documents.isHere(live)) {
      return;
    }
    // Its handles may be closed by now; and who leads may be another, whom nobody told.
    if (asks && this.#host.isWanted(live)) {
      this.#host.want([live]);
    }
    for (const [tab, heads] of live.takeAsked()) {
      this.#host.wantedBy(tab, live.id, heads);
    }
    this.#sessions.takeEarly(live);
    if (live.hasIncoming) {
      this.#host.applySoon();
    }
    this.#host.maybeDrop(live);
  }

  /** Whether what came for an empty replica is long: then it is being read elsewhere, and applied when that is done. */
  fills(live: LiveDocument, content: Content): boolean {
    // What waits in the replica would be lost with it.
    const isLong = live.isEmpty && !live.isReadHere && !live.replica.hasPending() && this.#reader.takes(content);
    if (isLong) {
      live.loaded = false;
      this.#fillAndApply(live, content).catch(report);
    }
    return isLong;
  }

  async #fillAndApply(live: LiveDocument, content: Content): Promise<void> {
    const { connection } = this.#sessions;
    const filled = await this.#reader.fill(live, content).catch(asError);
    this.#host.guard(() => {
      if (!this.#documents.isHere(live)) {
        free(filled);
        return;
      }
      live.loaded = true;
      const isSameSession = connection === this.#sessions.connection;
      if (filled instanceof Error && isSameSession && content.from === "message") {
        this.#sessions.broken(live, filled);
        this.#arrived(live, filled);
        return;
      }
      this.#goOn(live, content, filled, isSameSession);
      this.#host.apply(live);
      if (this.#documents.isHere(live)) {
        // Who has what made the module trap would send it again, for ever.
        this.#arrived(live, undefined, !hasTrapped(filled));
      }
    });
  }

  /** With the replica that was filled; or, where that could not be, with the one that was here. */
  #goOn(live: LiveDocument, content: Content, filled: Filled | Error | undefined, isSameSession: boolean): void {
    const isFilled = filled !== undefined && !(filled instanceof Error);
    if (isFilled) {
      live.adopt(filled, content.from === "chunks");
      live.replica.disconnect();
    } else if (hasTrapped(filled)) {
      live.damage = filled;
      live.forgetIncoming();
    } else if (content.from === "chunks") {
      // No other tab sends them again.
      this.#takeHere(live, content.chunks);
    }
    if (!isSameSession) {
      this.#sessions.begin(live);
    } else if (isFilled && !live.isEmpty && this.#sessions.connection !== undefined) {
      // To the server it is the session that it was.
      live.replica.connect();
      this.#sessions.pump(live);
    } else if (!isFilled && content.from === "message") {
      this.#sessions.received(live, content.message);
    }
  }

  /** Chunks that were not read elsewhere. */
  #takeHere(live: LiveDocument, { chunks, expected }: Chunks): void {
    live.isReadHere = true;
    for (const chunk of chunks) {
      live.receive(chunk, expected);
    }
  }

  /** What storage has of it is not known: it may have changes that nobody else has. */
  #readLater(live: LiveDocument): void {
    live.reads += 1;
    if (live.reads >= MAX_READS) {
      return;
    }
    const timer = setTimeout(() => {
      if (!this.#host.isOver() && this.#documents.isHere(live) && live.unread === "yes") {
        this.readAgain(live).catch(report);
      }
    }, READ_AGAIN_AFTER_MS * 2 ** (live.reads - 1));
    this.#ending.addEventListener("abort", () => clearTimeout(timer));
  }

  /** What other tabs stored meanwhile; there may be none left to ask. */
  async readAgain(live: LiveDocument): Promise<void> {
    try {
      const stored = await this.#storage.load(live.id);
      if (!this.#documents.isHere(live)) {
        return;
      }
      if (stored === undefined) {
        this.isRead(live);
        return;
      }
      for (const { hash, bytes } of stored.changes) {
        live.receive(bytes, [hash]);
      }
      const snapshots = live.unknownOf(stored.snapshots).map((snapshot) => snapshot.bytes);
      await this.#receiveSnapshots(live, { chunks: snapshots, expected: [], unknown: snapshots.length });
      this.isRead(live);
      this.#host.applySoon();
    } catch (error) {
      this.#documents.looked(live, asError(error));
      if (live.unread === "yes") {
        this.#readLater(live);
        this.#host.guard(() => this.#host.maybeDrop(live));
      }
    }
  }

  /** What storage has of it is here; some of it may wait to be applied. */
  isRead(live: LiveDocument): void {
    if (live.unread === "yes") {
      live.unread = "taking";
    }
    if (live.unread === "taking" && !live.hasIncoming && live.loaded && this.#documents.isHere(live)) {
      live.unread = "no";
      this.#documents.looked(live);
      this.#host.guard(() => this.#host.maybeDrop(live));
    }
  }

  /** Of long ones only what is not here is applied in the page. */
  async #receiveSnapshots(live: LiveDocument, snapshots: Chunks): Promise<void> {
    const read = live.isEmpty ? undefined : await this.#reader.changesOrNot(live, snapshots, live.known());
    // Our newest changes may not be in it, and all of it be here.
    if (this.#documents.isHere(live) && read?.heads.every((hash) => live.replica.has(hash)) !== true) {
      for (const bytes of read?.parts ?? snapshots.chunks) {
        live.receive(bytes, []);
      }
    }
  }
}
