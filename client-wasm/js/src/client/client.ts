/**
 * A page's client: its documents, what it stores, the other tabs, and the connection to the server.
 *
 * Every tab has its own replica of each document it shows. A change that is made in one goes three ways at once:
 * into this browser's storage, to the other tabs, and to the server, by whichever tab leads. Changes may come
 * twice or out of order; a replica takes each once and keeps what is early.
 */
import { Emitter, report } from "../emitter.js";
import type { Filled, LongReader } from "../long/loader.js";
import type { Content } from "../long/protocol.js";
import { randomName, type Storage, type StorageError } from "../storage/storage.js";
import type { Role, Tabs, TabsEvents } from "../tabs/tabs.js";
import { edit } from "../value/draft.js";
import type { Chunk, Heads, Wasm, WasmIncoming, WasmPatch } from "../wasm.js";
import { DocumentHandle, type Host } from "./document.js";
import { asError, type Chunks, isTrap } from "./chunks.js";
import { Ephemerals } from "./ephemeral.js";
import { chunksOf, joined, LiveDocument } from "./live.js";
import { asTabMessage, type Ephemeral, type ServerNews, type TabMessage } from "./messages.js";
import { Outbox } from "./outbox.js";
import { Presence } from "./presence.js";
import { free, hasTrapped, Reader } from "./reader.js";
import { Scheduler } from "./scheduler.js";
import { Storing } from "./storing.js";
import { type ConnectionFault, type ConnectionState, Uplink } from "./uplink.js";

/** What a page can show about the connection. */
export interface ClientStatus {
  readonly connection: ConnectionState;
  /** Why it is not open, or was not the last time. */
  readonly fault: ConnectionFault | undefined;
  readonly role: Role;
  /** Where documents are kept, and why not in IndexedDB if they are not. */
  readonly storage: Storage["kind"];
  readonly storageFault: StorageError | undefined;
}

/** Events of a {@link Client}. */
export interface ClientEvents {
  status: (status: ClientStatus) => void;
}

/** What a client is made of; see `connect`. @internal */
export interface ClientParts {
  readonly wasm: Wasm;
  /** Nothing: long documents are read in the page, too. */
  readonly long: LongReader | undefined;
  readonly storage: Storage;
  readonly storageFault: StorageError | undefined;
  readonly joinTabs: (events: TabsEvents) => Tabs;
  /** Nothing: stay offline. */
  readonly url: string | undefined;
  readonly getToken: (() => string | undefined | Promise<string | undefined>) | undefined;
}

/** What could not be read from storage is read again so much later, milliseconds; twice that the next time. */
const READ_AGAIN_AFTER_MS = 2_000;
/** So often, while the page lives: then it is not, and whoever brings it to be sent may try others. */
const MAX_READS = 6;

/** What the server believes that we have of a document. */
interface Left {
  readonly heads: Heads;
  readonly syncState: Uint8Array;
}

/** See the module's comment. Made by `connect`. */
export class Client implements Host {
  readonly #parts: ClientParts;
  readonly #events = new Emitter<ClientEvents>();
  readonly #live = new Map<string, LiveDocument>();
  readonly #handles = new Map<string, Set<DocumentHandle<unknown>>>();
  readonly #tabs: Tabs;
  /** This tab's name among those of this browser. */
  readonly #tab: string;
  readonly #uplink: Uplink;
  readonly #flushing: Scheduler;
  readonly #reader: Reader;
  readonly #storing: Storing;
  readonly #outbox: Outbox;
  readonly #ephemerals: Ephemerals;
  #role: Role = "follower";
  #connection: { readonly state: ConnectionState; readonly fault: ConnectionFault | undefined } = {
    state: "connecting",
    fault: undefined,
  };
  #status: ClientStatus;
  /** Documents that were here earlier in this connection, and are not now; what was left, as far as that is known. */
  readonly #dropped = new Map<string, Left | undefined>();
  #offline = false;
  #closed = false;
  /** The wasm module trapped, with this. */
  #trap: Error | undefined;
  readonly #ending = new AbortController();

  /** @internal */
  constructor(parts: ClientParts) {
    this.#parts = parts;
    this.#flushing = new Scheduler(() => this.#guard(() => this.#flush()));
    this.#reader = new Reader(parts.long, (live) => this.#looked(live));
    this.#uplink = new Uplink(
      parts.wasm,
      {
        url: parts.url ?? "",
        getToken: parts.getToken,
        // A tab that shares nothing with the others must not replace their connection.
        peer: () => (this.#role === "alone" ? this.#author(this.#tab) : `concord-${parts.storage.id}`),
        storage: parts.storage.kind === "indexeddb" ? parts.storage.id : undefined,
        isUsed: () => this.#live.size > 0,
      },
      {
        state: (state, fault) => this.#connectionIs(state, fault),
        open: () => this.#guard(() => this.#sessionsBegin()),
        closed: () => this.#guard(() => this.#sessionsEnd()),
        proven: () => this.#outbox.proven(),
        incoming: (message) => this.#guard(() => this.#incoming(message)),
      },
    );
    this.#storing = new Storing(parts.storage, {
      isUsable: (live) => this.#trap === undefined && this.#isHere(live),
      keepsOthers: () => this.#role !== "follower",
      looked: (live, error) => this.#looked(live, error),
      saved: (live) => this.#guard(() => this.#maybeDrop(live)),
      lacks: (live) => void this.#readAgain(live).catch(report),
      removed: (live) => this.#removed(live),
    });
    this.#outbox = new Outbox({
      unsent: () => this.#unsent(),
      isConnected: () => this.#uplink.connection !== undefined && !this.#closed,
      bring: (id) => this.#guard(() => this.#bring(id)),
      hidden: () => this.#sending().flatMap((live) => (isShown(live) ? [] : [live.id])),
      sendsShown: () => this.#sending().some(isShown),
      letGo: (id) => this.#guard(() => this.#letGo(id)),
    });
    this.#ephemerals = new Ephemerals(parts.wasm, {
      connection: () => (this.#role === "follower" ? undefined : this.#uplink.connection),
      sendFrame: (frame) => this.#uplink.send(frame, undefined),
      tell: (message) => this.#post({ t: "ephemeral", message, fromServer: false }),
      isShown: (id) => (this.#live.get(id)?.handles ?? 0) > 0,
      heard: (id, author, value) => this.#live.get(id)?.presence.receive(author, value, Date.now()),
      caught: (error) => this.caught(error),
    });
    this.#status = this.#look();
    this.#tabs = parts.joinTabs({
      role: (role) => this.#roleIs(role),
      leader: (tab) => this.#leaderIs(tab),
      missed: () => this.#guard(() => this.#isBack()),
      message: (message, from) => this.#guard(() => this.#tabSaid(asTabMessage(message), from)),
      gone: (tab) => this.#tabGone(tab),
    });
    this.#tab = this.#tabs.id === "alone" ? randomName() : this.#tabs.id;
    if (typeof addEventListener === "function") {
      addEventListener("online", () => this.#uplink.hurry(), { signal: this.#ending.signal });
    }
  }

  get status(): ClientStatus {
    return this.#status;
  }

  /** Listens to an event; what it returns ends that. */
  on<Name extends keyof ClientEvents>(name: Name, listener: ClientEvents[Name]): () => void {
    return this.#events.on(name, listener);
  }

  /**
   * A new document with this content, ready at once.
   *
   * @example
   * const company = client.create({ name: "Acme", meetings: {} });
   * console.log(company.url, company.value.name);
   */
  create<T extends object>(initial: T): DocumentHandle<T> {
    this.#check();
    const { wasm } = this.#parts;
    const live = this.#new(wasm.documentId(crypto.getRandomValues(new Uint8Array(16))));
    live.loaded = true;
    const fill = (draft: Record<string, unknown>): void => void Object.assign(draft, initial);
    // A document without a change does not exist for anybody else, so there is always one, even if it is empty.
    let chunk: Chunk;
    try {
      chunk = edit(live.replica, fill, { time: Date.now(), message: undefined }) ?? live.replica.emptyChange(Date.now());
    } catch (error) {
      this.#live.delete(live.id);
      this.caught(error);
      throw error;
    }
    this.#sessionBegins(live);
    const handle = this.#handle<T>(live);
    this.made(live, chunk, false);
    return handle;
  }

  /**
   * A document by its id or `automerge:` URL. What is known of it is shown as soon as it is there: see
   * `whenReady` and `status` of the handle.
   *
   * @example
   * const made = client.create({ title: "Minutes" });
   * const found = await client.open<{ title: string }>(made.url).whenReady();
   * console.log(found.value.title);
   */
  open<T>(idOrUrl: string): DocumentHandle<T> {
    this.#check();
    const id = this.#parts.wasm.parseDocumentId(idOrUrl);
    return this.#handle<T>(this.#obtain(id));
  }

  /** The ids of all documents that are stored in this browser. */
  list(): Promise<string[]> {
    return this.#parts.storage.list();
  }

  /** Forgets a document in this browser, in all tabs. The server keeps what it has. */
  async delete(idOrUrl: string): Promise<void> {
    this.#check();
    const id = this.#parts.wasm.parseDocumentId(idOrUrl);
    this.#deleted(id);
    this.#post({ t: "deleted", id });
    await this.#parts.storage.remove(id);
  }

  /** Forgets all documents in this browser, in all tabs; but those that are made, or opened, from now on. */
  async clear(): Promise<void> {
    this.#check();
    for (const id of [...this.#live.keys()]) {
      this.#deleted(id);
    }
    await this.#parts.storage.clear();
    this.#post({ t: "cleared" });
  }

  /** Takes all tabs of this browser off the network, or back; they go on exchanging changes. */
  setOffline(offline: boolean): void {
    this.#offline = offline;
    this.#post({ t: "offline", offline });
    this.#steer();
  }

  /** Ends everything; what was changed is stored first. */
  async close(): Promise<void> {
    if (this.#closed) {
      return;
    }
    for (const handle of [...this.#handles.values()].flatMap((all) => [...all])) {
      handle.close();
    }
    this.#closed = true;
    this.#ending.abort();
    this.#uplink.stop();
    this.#tabs.close();
    this.#storing.finish(this.#live.values());
    this.#events.clear();
    await this.#parts.storage.close();
    for (const live of this.#live.values()) {
      if (live.state !== "failed") {
        live.replica.free();
      }
    }
    this.#live.clear();
  }

  /** @internal */
  made(live: LiveDocument, chunk: Chunk, isStep: boolean): void {
    const before = live.value;
    const patches = live.changed(chunk, isStep);
    this.#judge(live);
    this.#shown(live, patches, before, "local");
    this.#post({ t: "changes", id: live.id, bytes: chunk.bytes, heads: [chunk.hash] });
    this.#storing.save(live);
    this.#pump(live);
  }

  /** @internal */
  release(handle: DocumentHandle<unknown>): void {
    this.#removeHandle(handle);
    const live = this.#live.get(handle.id);
    // A document that was deleted, and is here again, is not the one that the handle was of.
    if (live !== undefined && handle.shows(live)) {
      live.handles -= 1;
      if (live.handles === 0) {
        live.presence.stop();
        this.#post({ t: "unwant", id: live.id });
      }
      this.#maybeDrop(live);
    }
  }

  #removeHandle(handle: DocumentHandle<unknown>): void {
    const all = this.#handles.get(handle.id);
    all?.delete(handle);
    if (all?.size === 0) {
      this.#handles.delete(handle.id);
    }
  }

  /** @internal */
  caught(error: unknown): void {
    if (isTrap(error) && this.#trap === undefined) {
      this.#failed(asError(error));
    }
  }

  /** Runs what uses the wasm module, whose traps end there. */
  #guard(work: () => void): void {
    if (this.#trap !== undefined) {
      return;
    }
    try {
      work();
    } catch (error) {
      this.caught(error);
      if (!isTrap(error)) {
        throw error;
      }
    }
  }

  /**
   * The module trapped, and what it holds is of no use. Nothing more is asked of it; what was changed is in storage
   * or on its way. Another tab leads then, which may fare better.
   */
  #failed(error: Error): void {
    this.#trap = error;
    for (const live of this.#live.values()) {
      live.state = "failed";
      live.presence.stop();
    }
    this.#tabs.close();
    this.#uplink.stop();
    this.#connection = { state: "offline", fault: { code: "internal", message: error.message } };
    for (const live of this.#live.values()) {
      this.#looked(live, error);
    }
    this.#changed();
  }

  // Documents.

  #handle<T>(live: LiveDocument): DocumentHandle<T> {
    const handle = new DocumentHandle<T>(live, this);
    let all = this.#handles.get(live.id);
    if (all === undefined) {
      all = new Set();
      this.#handles.set(live.id, all);
    }
    all.add(handle as DocumentHandle<unknown>);
    live.handles += 1;
    this.#takeBack(live);
    if (live.handles === 1 && live.loaded) {
      this.#want([live]);
    }
    return handle;
  }

  /** The document, which is looked for if it is not here. */
  #obtain(id: string): LiveDocument {
    const there = this.#live.get(id);
    if (there !== undefined) {
      return there;
    }
    const live = this.#new(id);
    this.#load(live).catch(report);
    return live;
  }

  /** Whether it is in use: neither deleted nor dropped, also if another of the same id took its place. */
  #isHere(live: LiveDocument): boolean {
    return this.#live.get(live.id) === live;
  }

  #new(id: string): LiveDocument {
    const presence = new Presence((value) => this.#say(id, value));
    const live = new LiveDocument(this.#parts.wasm, id, presence);
    this.#live.set(id, live);
    return live;
  }

  async #load(live: LiveDocument): Promise<void> {
    let fault: Error | undefined;
    try {
      const stored = await this.#parts.storage.load(live.id);
      const filled = stored && (await this.#reader.fillOrNot(live, chunksOf(stored)));
      if (!this.#isHere(live)) {
        free(filled);
      } else if (stored !== undefined) {
        const before = live.value;
        const { patches, damaged } = live.restore(stored, filled);
        if (damaged + stored.damaged > 0) {
          live.damage = new Error(`${damaged + stored.damaged} stored changes could not be read`);
        }
        this.#shown(live, patches, before, "remote");
      }
    } catch (error) {
      this.caught(error);
      fault = asError(error);
      live.unread = "yes";
      this.#readLater(live);
    }
    this.#guard(() => {
      if (this.#isHere(live)) {
        live.loaded = true;
        this.#sessionBegins(live);
        this.#arrived(live, fault);
      }
    });
  }

  /** What was being read is here, or could not be read: whoever asked for it meanwhile was not answered. */
  #arrived(live: LiveDocument, fault?: Error, asks = true): void {
    this.#judge(live);
    this.#looked(live, fault);
    if (!this.#isHere(live)) {
      return;
    }
    // Its handles may be closed by now; and who leads may be another, whom nobody told.
    if (asks && this.#isWanted(live)) {
      this.#want([live]);
    }
    for (const [tab, heads] of live.takeAsked()) {
      this.#wantedBy(tab, live.id, heads);
    }
    this.#takeEarly(live);
    if (live.hasIncoming) {
      this.#flushing.request();
    }
    this.#maybeDrop(live);
  }

  /** Whether what came for an empty replica is long: then it is being read elsewhere, and applied when that is done. */
  #fills(live: LiveDocument, content: Content): boolean {
    // What waits in the replica would be lost with it.
    const isLong = live.isEmpty && !live.isReadHere && !live.replica.hasPending() && this.#reader.takes(content);
    if (isLong) {
      live.loaded = false;
      this.#fillAndApply(live, content).catch(report);
    }
    return isLong;
  }

  async #fillAndApply(live: LiveDocument, content: Content): Promise<void> {
    const { connection } = this.#uplink;
    const filled = await this.#reader.fill(live, content).catch(asError);
    this.#guard(() => {
      if (!this.#isHere(live)) {
        free(filled);
        return;
      }
      live.loaded = true;
      const isSameSession = connection === this.#uplink.connection;
      if (filled instanceof Error && isSameSession && content.from === "message") {
        this.#broken(live, filled);
        this.#arrived(live, filled);
        return;
      }
      this.#goOn(live, content, filled, isSameSession);
      this.#apply(live);
      if (this.#isHere(live)) {
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
      this.#sessionBegins(live);
    } else if (isFilled && !live.isEmpty && this.#uplink.connection !== undefined) {
      // To the server it is the session that it was.
      live.replica.connect();
      this.#pump(live);
    } else if (!isFilled && content.from === "message") {
      this.#received(live, content.message);
    }
  }

  /** Chunks that were not read elsewhere. */
  #takeHere(live: LiveDocument, { chunks, expected }: Chunks): void {
    live.isReadHere = true;
    for (const chunk of chunks) {
      live.receive(chunk, expected);
    }
  }

  /** The others took this tab for gone. */
  #isBack(): void {
    this.#wantAll();
    for (const live of this.#live.values()) {
      live.presence.again();
      this.#readAgain(live).catch(report);
    }
  }

  /** What storage has of it is not known: it may have changes that nobody else has. */
  #readLater(live: LiveDocument): void {
    live.reads += 1;
    if (live.reads >= MAX_READS) {
      return;
    }
    const timer = setTimeout(() => {
      if (!this.#closed && this.#trap === undefined && this.#isHere(live) && live.unread === "yes") {
        this.#readAgain(live).catch(report);
      }
    }, READ_AGAIN_AFTER_MS * 2 ** (live.reads - 1));
    this.#ending.signal.addEventListener("abort", () => clearTimeout(timer));
  }

  /** What other tabs stored meanwhile; there may be none left to ask. */
  async #readAgain(live: LiveDocument): Promise<void> {
    try {
      const stored = await this.#parts.storage.load(live.id);
      if (!this.#isHere(live)) {
        return;
      }
      if (stored === undefined) {
        this.#isRead(live);
        return;
      }
      for (const { hash, bytes } of stored.changes) {
        live.receive(bytes, [hash]);
      }
      const snapshots = live.unknownOf(stored.snapshots).map((snapshot) => snapshot.bytes);
      await this.#receiveSnapshots(live, { chunks: snapshots, expected: [], unknown: snapshots.length });
      this.#isRead(live);
      this.#flushing.request();
    } catch (error) {
      this.#looked(live, asError(error));
      if (live.unread === "yes") {
        this.#readLater(live);
        this.#guard(() => this.#maybeDrop(live));
      }
    }
  }

  /** What storage has of it is here; some of it may wait to be applied. */
  #isRead(live: LiveDocument): void {
    if (live.unread === "yes") {
      live.unread = "taking";
    }
    if (live.unread === "taking" && !live.hasIncoming && live.loaded && this.#isHere(live)) {
      live.unread = "no";
      this.#looked(live);
      this.#guard(() => this.#maybeDrop(live));
    }
  }

  /** Of long ones only what is not here is applied in the page. */
  async #receiveSnapshots(live: LiveDocument, snapshots: Chunks): Promise<void> {
    const read = live.isEmpty ? undefined : await this.#reader.changesOrNot(live, snapshots, live.known());
    // Our newest changes may not be in it, and all of it be here.
    if (this.#isHere(live) && read?.heads.every((hash) => live.replica.has(hash)) !== true) {
      for (const bytes of read?.parts ?? snapshots.chunks) {
        live.receive(bytes, []);
      }
    }
  }

  /** Tells the other tabs, or one, what is wanted, and what is there of it. */
  #want(documents: readonly LiveDocument[], of?: string): void {
    this.#post({ t: "want", documents: documents.map((live) => ({ id: live.id, heads: live.replica.heads() })) }, of);
  }

  #judge(live: LiveDocument): void {
    if (live.state === "loading" || live.state === "unavailable") {
      const unreachable = this.#connection.state === "waiting" || this.#connection.state === "offline";
      live.state = live.loaded && (live.unavailable || unreachable) ? "unavailable" : "loading";
      if (!live.isEmpty) {
        live.state = "ready";
      }
    }
  }

  /** Nobody looks at it any more, and all of it is kept elsewhere. */
  #maybeDrop(live: LiveDocument): void {
    // What was dropped, and freed, can't be asked.
    if (!this.#isHere(live) || !live.loaded || live.state === "failed") {
      return;
    }
    if (live.unread !== "no" && live.reads < MAX_READS) {
      return;
    }
    if (!this.#isToSend(live)) {
      this.#outbox.left(live.id, live.unsynced === 0 && live.unread === "no");
    }
    if (!this.#isWanted(live) && !live.hasIncoming && !live.isUnpacking && live.early.length === 0 && this.#storing.isSettled(live)) {
      // Whether it is read-only is told once in a session.
      this.#forget(live, live.readOnly ? undefined : { heads: live.replica.heads(), syncState: live.replica.syncState() });
      live.replica.free();
      if (this.#role === "follower") {
        this.#post({ t: "unwant", id: live.id });
      }
    }
  }

  /** Whether something of it is still to be sent, and can be. */
  #isToSend(live: LiveDocument): boolean {
    return live.unsynced > 0 && this.#parts.url !== undefined && !live.readOnly && !live.isLetGo;
  }

  #forget(live: LiveDocument, left?: Left): void {
    this.#live.delete(live.id);
    if (live.inSession) {
      this.#dropped.set(live.id, left);
    }
  }

  async #unsent(): Promise<readonly string[]> {
    try {
      return (await this.#parts.storage.unsent()).filter((id) => this.#isId(id));
    } catch {
      // Those who store something are told what is wrong with it.
      return [];
    }
  }

  /** Of a document that is here already, only the marks may be wrong. */
  #bring(id: string): void {
    const live = this.#obtain(id);
    live.marked = true;
    this.#takeBack(live);
    if (live.loaded) {
      this.#storing.keepSyncState(live);
      this.#maybeDrop(live);
    }
  }

  #sending(): LiveDocument[] {
    return [...this.#live.values()].filter((live) => this.#isToSend(live));
  }

  /** The documents that are shown are not the outbox's to send or not. */
  #letGo(id: string): void {
    const live = this.#live.get(id);
    if (live !== undefined && !isShown(live)) {
      live.isLetGo = true;
      this.#maybeDrop(live);
    }
  }

  /** It is to be sent after all. */
  #takeBack(live: LiveDocument): void {
    if (live.isLetGo) {
      live.isLetGo = false;
      this.#sessionBegins(live);
    }
  }

  #deleted(id: string): void {
    const live = this.#live.get(id);
    if (live !== undefined) {
      live.state = "deleted";
      live.presence.stop();
      this.#forget(live);
      this.#outbox.left(id, false);
      this.#looked(live);
    }
  }

  #removed(live: LiveDocument): void {
    if (this.#isHere(live)) {
      this.#deleted(live.id);
    }
  }

  /** Another tab forgot all documents. What this one made since is stored, whole, and stays. */
  async #cleared(): Promise<void> {
    const { storage } = this.#parts;
    const before = [...this.#live.values()].filter((live) => live.isStored);
    try {
      if (storage.kind === "memory") {
        await storage.clear();
      }
      const stored = new Set(await storage.list());
      for (const live of before.filter(({ id }) => !stored.has(id))) {
        this.#removed(live);
      }
    } catch {
      // Whoever stores the next change finds out.
    }
  }

  #shown(live: LiveDocument, patches: readonly WasmPatch[], before: unknown, source: "local" | "remote"): void {
    // Whoever comes meanwhile has seen what came of it.
    const handles = this.#handlesOf(live);
    const event = { patches, before, after: live.value, source };
    // A listener that changes the document must not have others hear of that before they heard of what was before it.
    live.telling.run(() => {
      for (const handle of handles) {
        handle.shown(event);
      }
    });
    this.#looked(live);
  }

  #looked(live: LiveDocument, error?: Error): void {
    for (const handle of this.#handlesOf(live)) {
      handle.looked(error);
    }
  }

  #handlesOf(live: LiveDocument): DocumentHandle<unknown>[] {
    return [...(this.#handles.get(live.id) ?? [])].filter((handle) => handle.shows(live));
  }

  /** Applies what arrived, in all documents. */
  #flush(): void {
    for (const live of [...this.#live.values()]) {
      if (live.loaded && live.hasIncoming) {
        const chunks = live.isEmpty ? live.waiting() : undefined;
        if (chunks !== undefined && this.#fills(live, { from: "chunks", chunks })) {
          live.takeIncoming();
        } else {
          this.#apply(live);
        }
      }
    }
  }

  #apply(live: LiveDocument): void {
    const before = live.value;
    const wasUnpacking = live.isUnpacking;
    try {
      const { patches, fromTabs, fromServer } = live.apply();
      this.#judge(live);
      if (fromServer !== undefined) {
        this.#post({ t: "changes", id: live.id, bytes: joined(fromServer), heads: live.replica.heads() });
      }
      if (this.#role !== "follower") {
        this.#storing.keep(live, fromTabs);
        this.#storing.keep(live, fromServer);
      }
      this.#shown(live, patches, before, "remote");
    } catch (error) {
      this.#broken(live, error);
      return;
    }
    if (live.hasIncoming) {
      // Much came: the rest is for the next frames.
      this.#flushing.request();
    } else if (live.lacksMore()) {
      this.#want([live]);
    }
    if (live.unread === "taking") {
      this.#isRead(live);
    }
    if (this.#uplink.connection !== undefined && this.#isHere(live)) {
      this.#news(live);
      this.#pump(live);
      if (wasUnpacking && !live.isUnpacking) {
        this.#takeEarly(live);
      }
    }
    this.#maybeDrop(live);
  }

  /** Something of the server's came that can't be applied. */
  #broken(live: LiveDocument, error: unknown): void {
    if (isTrap(error)) {
      throw error;
    }
    this.#looked(live, asError(error));
    this.#uplink.fail(error);
  }

  // The server.

  #roleIs(role: Role): void {
    this.#role = role;
    for (const live of this.#live.values()) {
      live.wantedBy.clear();
      live.told = undefined;
    }
    if (role === "follower") {
      this.#outbox.stop();
    }
    if (role === "leader") {
      this.#post({ t: "who" });
      this.#guard(() => {
        for (const live of this.#live.values()) {
          if (live.loaded && !live.isEmpty) {
            this.#storing.takeOver(live);
          }
        }
      });
    }
    this.#steer();
    this.#changed();
  }

  #leaderIs(tab: string | undefined): void {
    if (tab !== undefined && tab !== this.#tabs.id) {
      this.#wantAll();
    }
  }

  /** Also when nothing is wanted: the leader answers with what it knows of the connection. */
  #wantAll(): void {
    this.#want([...this.#live.values()].filter((live) => live.loaded && this.#isWanted(live)));
  }

  /** By this tab, or by one that this tab leads. */
  #isWanted(live: LiveDocument): boolean {
    return isShown(live) || live.unsaved.size > 0 || this.#isToSend(live);
  }

  #steer(): void {
    const leads = this.#role !== "follower" && !this.#offline && this.#parts.url !== undefined && !this.#closed;
    if (leads) {
      this.#uplink.start();
    } else {
      this.#uplink.stop();
    }
  }

  #connectionIs(state: ConnectionState, fault: ConnectionFault | undefined): void {
    if (this.#role === "follower" && state === "offline" && !this.#offline) {
      // Not the browser's connection but this tab's, which it has no more; the leader tells.
      return;
    }
    this.#connection = { state, fault };
    if (this.#role === "leader") {
      this.#post({ t: "connection", state, fault });
    }
    this.#changed();
    for (const live of this.#live.values()) {
      this.#judge(live);
      this.#looked(live);
    }
    if (state === "waiting" && fault !== undefined && this.#role !== "follower") {
      // Later: whoever found the fault may still be at a document that goes.
      queueMicrotask(() => this.#outbox.ended(fault.code));
    }
  }

  #sessionsBegin(): void {
    this.#dropped.clear();
    for (const live of this.#live.values()) {
      live.unavailable = false;
      this.#sessionBegins(live);
    }
    this.#outbox.look().catch(report);
  }

  #sessionBegins(live: LiveDocument): void {
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
      this.#news(live);
    }
    // To the server it is one session, of which it answers the first message always.
    this.#pump(live, !wasHere);
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

  #sessionsEnd(): void {
    for (const live of this.#live.values()) {
      live.sessionEnded();
      live.replica.disconnect();
      live.inSession = false;
    }
  }

  /** Sends what the server lacks. */
  #pump(live: LiveDocument, isFirst = false): void {
    const { connection } = this.#uplink;
    if (connection === undefined || !live.loaded || !live.inSession || !this.#isHere(live)) {
      return;
    }
    const isAnswered = isFirst || live.isEmpty || (live.unsynced > 0 && !live.readOnly);
    const peers = connection.peers();
    const next = (): Uint8Array | undefined => live.replica.nextFrame(...peers);
    for (let frame = next(); frame !== undefined; frame = next()) {
      this.#uplink.send(frame, isAnswered ? live.id : undefined);
    }
  }

  #incoming(message: WasmIncoming): void {
    if (message.type === "ephemeral") {
      const { document: id, author, session, count, data } = message;
      const heard: Ephemeral = { id, author, session, count, data };
      this.#ephemerals.receive(heard);
      this.#post({ t: "ephemeral", message: heard, fromServer: true });
      return;
    }
    if (message.type !== "sync" && message.type !== "unavailable") {
      return;
    }
    const live = this.#live.get(message.document);
    if (live === undefined) {
      // The server believes that this came.
      if (message.type === "sync" && this.#dropped.has(message.document)) {
        this.#dropped.set(message.document, undefined);
      }
      return;
    }
    if (message.type === "unavailable") {
      live.unavailable = true;
      this.#judge(live);
      this.#looked(live);
      this.#news(live);
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
    } else if (!this.#fills(live, { from: "message", message }) && !this.#unpacks(live, message)) {
      this.#received(live, message);
    }
  }

  /** One that ends the connection ends this, too: what came behind it is forgotten with the session. */
  #takeEarly(live: LiveDocument): void {
    while (live.loaded && !live.isUnpacking) {
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
    const rest = isLong ? this.#parts.wasm.Replica.withoutSnapshot(message) : undefined;
    live.isUnpacking = rest !== undefined;
    if (rest !== undefined) {
      this.#unpack(live, message, rest).catch(report);
    }
    return live.isUnpacking;
  }

  async #unpack(live: LiveDocument, message: Uint8Array, rest: Uint8Array): Promise<void> {
    const { connection } = this.#uplink;
    const read = await this.#reader.changes(live, { from: "message", message }, live.known()).catch(asError);
    this.#guard(() => {
      if (!this.#isHere(live) || connection !== this.#uplink.connection) {
        // It is not being read any more.
        this.#looked(live);
        return;
      }
      if (hasTrapped(read)) {
        this.#broken(live, read);
      } else if (read === undefined || read instanceof Error) {
        live.isReadHere = true;
        live.isUnpacking = false;
        this.#received(live, message);
        this.#takeEarly(live);
      } else {
        live.unpacked(read.parts, rest);
        this.#flushing.request();
      }
    });
  }

  /** A sync message of the server's. */
  #received(live: LiveDocument, message: Uint8Array): void {
    try {
      live.replica.receive(message);
    } catch (error) {
      this.#broken(live, error);
      return;
    }
    if (live.replica.hasPending()) {
      this.#flushing.request();
    } else if (live.isBehind) {
      // So much came that it did not wait to be applied.
      this.#apply(live);
    } else {
      this.#news(live);
      this.#pump(live);
    }
  }

  /** The server may have told something about what it keeps. `asker`: a tab that is told in any case. */
  #news(live: LiveDocument, asker?: string): void {
    const { replica } = live;
    const news: ServerNews = {
      synced: replica.syncedHeads(),
      unavailable: live.unavailable && live.isEmpty,
      readOnly: replica.isReadOnly(),
    };
    if (live.tells(news)) {
      this.#post({ t: "server", id: live.id, news });
      this.#storing.keepSyncState(live);
    } else if (asker !== undefined) {
      this.#post({ t: "server", id: live.id, news }, asker);
    }
    this.#learned(live, news);
  }

  #learned(live: LiveDocument, news: ServerNews): void {
    live.unavailable = news.unavailable;
    live.learn(news);
    if (this.#parts.storage.kind === "memory") {
      // What is only in this page's memory is kept when the server has it.
      for (const hash of [...live.unsaved.keys()]) {
        if (live.isSynced([hash])) {
          live.unsaved.delete(hash);
        }
      }
    }
    this.#storing.heal(live);
    this.#judge(live);
    this.#looked(live);
    this.#maybeDrop(live);
  }

  // The other tabs.

  #post(message: TabMessage, to?: string): void {
    if (!this.#closed && this.#role !== "alone") {
      this.#tabs.post(message, to);
    }
  }

  #tabSaid(message: TabMessage | undefined, from: string): void {
    if (message === undefined || this.#closed) {
      return;
    }
    switch (message.t) {
      case "want":
        for (const { id, heads } of message.documents) {
          if (this.#isId(id)) {
            this.#wantedBy(from, id, heads);
          }
        }
        if (this.#role === "leader") {
          this.#post({ t: "connection", ...this.#connection }, from);
        }
        break;
      case "unwant": {
        const live = this.#live.get(message.id);
        if (live !== undefined) {
          live.wantedBy.delete(from);
          live.asked.delete(from);
          this.#maybeDrop(live);
        }
        break;
      }
      case "who":
        this.#wantAll();
        break;
      case "changes": {
        const live = this.#live.get(message.id);
        if (live !== undefined) {
          live.receive(message.bytes, message.heads);
          this.#flushing.request();
        }
        break;
      }
      case "server": {
        const live = this.#live.get(message.id);
        // A leader that hung, and was robbed, still tells what it knew: nobody says again what is newer.
        if (live !== undefined && this.#role === "follower" && from === this.#tabs.leader) {
          this.#learned(live, message.news);
        }
        break;
      }
      case "connection":
        if (this.#role === "follower") {
          this.#offline = message.state === "offline";
          this.#connectionIs(message.state, message.fault);
        }
        break;
      case "offline":
        this.#offline = message.offline;
        this.#steer();
        break;
      case "ephemeral":
        this.#ephemerals.receive(message.message);
        if (!message.fromServer && this.#role === "leader") {
          this.#ephemerals.send(message.message);
        }
        break;
      case "deleted":
        this.#deleted(message.id);
        if (this.#parts.storage.kind === "memory") {
          // Each tab has its own.
          void this.#parts.storage.remove(message.id);
        }
        break;
      case "cleared":
        void this.#cleared();
        break;
    }
  }

  #isId(text: string): boolean {
    try {
      return this.#parts.wasm.parseDocumentId(text) === text;
    } catch (error) {
      this.caught(error);
      return false;
    }
  }

  #wantedBy(tab: string, id: string, heads: readonly string[]): void {
    const leads = this.#role === "leader";
    const live = leads ? this.#obtain(id) : this.#live.get(id);
    if (live === undefined) {
      return;
    }
    if (leads) {
      live.wantedBy.add(tab);
      this.#takeBack(live);
    }
    if (!live.loaded) {
      live.asked.set(tab, heads);
      return;
    }
    // What is not in storage can only come from who has it; and a new leader may have no storage to look into.
    const answers = leads || live.unsaved.size > 0 || tab === this.#tabs.leader;
    if (answers && !live.isEmpty) {
      const missing = live.missing(heads);
      if (missing !== undefined) {
        this.#post({ t: "changes", id, bytes: missing, heads: live.replica.heads() }, tab);
      }
    }
    if (leads) {
      // It has what did not come here: lost while one of us was in the back/forward cache.
      if (heads.some((hash) => !live.replica.has(hash))) {
        this.#want([live], tab);
      }
      this.#news(live, tab);
    }
  }

  #tabGone(tab: string): void {
    for (const live of [...this.#live.values()]) {
      live.presence.gone(this.#author(tab));
      live.wantedBy.delete(tab);
      live.asked.delete(tab);
      this.#maybeDrop(live);
    }
    this.#outbox.look().catch(report);
  }

  /** To whoever has the document open. */
  #say(id: string, value: unknown): void {
    if (this.#trap === undefined) {
      this.#ephemerals.say(id, this.#author(this.#tab), this.#tab, value);
    }
  }

  /** The name under which others see a tab of this browser's. */
  #author(tab: string): string {
    return `concord-${this.#parts.storage.id}-${tab}`;
  }

  #changed(): void {
    this.#status = this.#look();
    this.#events.emit("status", this.#status);
  }

  #look(): ClientStatus {
    return Object.freeze({
      connection: this.#connection.state,
      fault: this.#connection.fault,
      role: this.#role,
      storage: this.#parts.storage.kind,
      storageFault: this.#parts.storageFault,
    });
  }

  #check(): void {
    if (this.#closed) {
      throw new Error("the client is closed");
    }
    if (this.#trap !== undefined) {
      throw new Error("the client failed; load the page again", { cause: this.#trap });
    }
  }
}

/** In this tab, or in one that it leads. */
function isShown(live: LiveDocument): boolean {
  return live.handles > 0 || live.wantedBy.size > 0;
}
