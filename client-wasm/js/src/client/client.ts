/**
 * A page's client: its documents, what it stores, the other tabs, and the connection to the server.
 *
 * Every tab has its own replica of each document it shows. A change that is made in one goes three ways at once:
 * into this browser's storage, to the other tabs, and to the server, by whichever tab leads. Changes may come
 * twice or out of order; a replica takes each once and keeps what is early.
 *
 * What is here is said by `documents.ts`, how it came by `filling.ts`, what of it is stored by `storing.ts`, and what is
 * said to the server by `sessions.ts`, over the connection of `uplink.ts`. Here is what joins them, and the other tabs.
 */
import { Emitter, report } from "../emitter.js";
import type { LongReader } from "../long/loader.js";
import { randomName, type Storage, type StorageError } from "../storage/storage.js";
import type { Role, Tabs, TabsEvents } from "../tabs/tabs.js";
import { edit } from "../value/draft.js";
import type { Chunk, Wasm, WasmIncoming } from "../wasm.js";
import { asError, isTrap } from "./chunks.js";
import { DocumentHandle, type Host } from "./document.js";
import { Documents } from "./documents.js";
import { Ephemerals } from "./ephemeral.js";
import { Filling, MAX_READS } from "./filling.js";
import { joined, LiveDocument } from "./live.js";
import { asTabMessage, type Ephemeral, type ServerNews, type TabMessage } from "./messages.js";
import { Outbox } from "./outbox.js";
import { Presence } from "./presence.js";
import { Reader } from "./reader.js";
import { Scheduler } from "./scheduler.js";
import { Sessions } from "./sessions.js";
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

/** See the module's comment. Made by `connect`. */
export class Client implements Host {
  readonly #parts: ClientParts;
  readonly #events = new Emitter<ClientEvents>();
  readonly #documents: Documents;
  readonly #tabs: Tabs;
  /** This tab's name among those of this browser. */
  readonly #tab: string;
  readonly #uplink: Uplink;
  readonly #flushing: Scheduler;
  readonly #sessions: Sessions;
  readonly #filling: Filling;
  readonly #storing: Storing;
  readonly #outbox: Outbox;
  readonly #ephemerals: Ephemerals;
  #role: Role = "follower";
  #connection: { readonly state: ConnectionState; readonly fault: ConnectionFault | undefined } = {
    state: "connecting",
    fault: undefined,
  };
  #status: ClientStatus;
  #offline = false;
  #closed = false;
  /** The wasm module trapped, with this. */
  #trap: Error | undefined;
  readonly #ending = new AbortController();

  /** @internal */
  constructor(parts: ClientParts) {
    this.#parts = parts;
    this.#flushing = new Scheduler(() => this.#guard(() => this.#flush()));
    this.#documents = new Documents(() => this.#connection.state === "waiting" || this.#connection.state === "offline");
    const reader = new Reader(parts.long, (live) => this.#documents.looked(live));
    this.#uplink = new Uplink(
      parts.wasm,
      {
        url: parts.url ?? "",
        getToken: parts.getToken,
        // A tab that shares nothing with the others must not replace their connection.
        peer: () => (this.#role === "alone" ? this.#author(this.#tab) : `concord-${parts.storage.id}`),
        storage: parts.storage.kind === "indexeddb" ? parts.storage.id : undefined,
        isUsed: () => this.#documents.size > 0,
      },
      {
        state: (state, fault) => this.#connectionIs(state, fault),
        open: () => this.#guard(() => this.#isConnected()),
        closed: () => this.#guard(() => this.#sessions.endAll()),
        proven: () => this.#outbox.proven(),
        incoming: (message) => this.#guard(() => this.#incoming(message)),
      },
    );
    const guard = (work: () => void): void => this.#guard(work);
    const apply = (live: LiveDocument): void => this.#apply(live);
    const applySoon = (): void => this.#flushing.request();
    const maybeDrop = (live: LiveDocument): void => this.#maybeDrop(live);
    this.#sessions = new Sessions(parts.wasm, this.#documents, this.#uplink, reader, {
      guard,
      apply,
      applySoon,
      maybeDrop,
      fills: (live, content) => this.#filling.fills(live, content),
      post: (message, to) => this.#post(message, to),
      learned: (live, news) => this.#learned(live, news),
      keepSyncState: (live) => this.#storing.keepSyncState(live),
    });
    this.#filling = new Filling(this.#documents, parts.storage, reader, this.#sessions, this.#ending.signal, {
      guard,
      caught: (error) => this.caught(error),
      isOver: () => this.#closed || this.#trap !== undefined,
      apply,
      applySoon,
      isWanted: (live) => this.#isWanted(live),
      want: (documents) => this.#want(documents),
      wantedBy: (tab, id, heads) => this.#wantedBy(tab, id, heads),
      maybeDrop,
    });
    this.#storing = new Storing(parts.storage, {
      isUsable: (live) => this.#trap === undefined && this.#documents.isHere(live),
      keepsOthers: () => this.#role !== "follower",
      looked: (live, error) => this.#documents.looked(live, error),
      saved: (live) => this.#guard(() => this.#maybeDrop(live)),
      lacks: (live) => void this.#filling.readAgain(live).catch(report),
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
      isShown: (id) => (this.#documents.get(id)?.handles ?? 0) > 0,
      heard: (id, author, value) => this.#documents.get(id)?.presence.receive(author, value, Date.now()),
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
      this.#documents.forget(live);
      this.caught(error);
      throw error;
    }
    this.#sessions.begin(live);
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
    this.#outbox.stop();
    for (const { id } of this.#documents) {
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
    for (const handle of this.#documents.handles()) {
      handle.close();
    }
    this.#closed = true;
    this.#ending.abort();
    this.#uplink.stop();
    this.#tabs.close();
    this.#storing.finish(this.#documents.all());
    this.#events.clear();
    await this.#parts.storage.close();
    for (const live of this.#documents) {
      this.#documents.forget(live);
      if (live.state !== "failed") {
        live.replica.free();
      }
    }
  }

  /** @internal */
  made(live: LiveDocument, chunk: Chunk, isStep: boolean): void {
    const before = live.value;
    const patches = live.changed(chunk, isStep);
    this.#documents.judge(live);
    this.#documents.shown(live, patches, before, "local");
    this.#post({ t: "changes", id: live.id, bytes: chunk.bytes, heads: [chunk.hash] });
    this.#storing.save(live);
    this.#sessions.pump(live);
  }

  /** @internal */
  release(handle: DocumentHandle<unknown>): void {
    this.#documents.removeHandle(handle);
    const live = this.#documents.get(handle.id);
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
    for (const live of this.#documents) {
      live.state = "failed";
      live.presence.stop();
    }
    this.#tabs.close();
    this.#uplink.stop();
    this.#connection = { state: "offline", fault: { code: "internal", message: error.message } };
    for (const live of this.#documents) {
      this.#documents.looked(live, error);
    }
    this.#changed();
  }

  // Documents.

  #handle<T>(live: LiveDocument): DocumentHandle<T> {
    const handle = new DocumentHandle<T>(live, this);
    this.#documents.addHandle(handle as DocumentHandle<unknown>);
    live.handles += 1;
    this.#takeBack(live);
    if (live.handles === 1 && live.loaded) {
      this.#want([live]);
    }
    return handle;
  }

  /** The document, which is looked for if it is not here. */
  #obtain(id: string): LiveDocument {
    const there = this.#documents.get(id);
    if (there !== undefined) {
      return there;
    }
    const live = this.#new(id);
    this.#filling.load(live).catch(report);
    return live;
  }

  #new(id: string): LiveDocument {
    const presence = new Presence((value) => this.#say(id, value));
    const live = new LiveDocument(this.#parts.wasm, id, presence);
    this.#documents.add(live);
    return live;
  }

  /** The others took this tab for gone. */
  #isBack(): void {
    this.#wantAll();
    for (const live of this.#documents) {
      live.presence.again();
      this.#filling.readAgain(live).catch(report);
    }
  }

  /** Tells the other tabs, or one, what is wanted, and what is there of it. */
  #want(documents: readonly LiveDocument[], of?: string): void {
    this.#post({ t: "want", documents: documents.map((live) => ({ id: live.id, heads: live.replica.heads() })) }, of);
  }

  /** Nobody looks at it any more, and all of it is kept elsewhere. */
  #maybeDrop(live: LiveDocument): void {
    // What was dropped, and freed, can't be asked.
    if (!this.#documents.isHere(live) || !live.loaded || live.state === "failed") {
      return;
    }
    if (live.unread !== "no" && live.reads < MAX_READS) {
      return;
    }
    if (!this.#isToSend(live)) {
      this.#outbox.left(live.id, live.unsynced === 0 && live.unread === "no");
    }
    if (!this.#isWanted(live) && !live.isTakingIn && this.#storing.settle(live)) {
      this.#forget(live, true);
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

  #forget(live: LiveDocument, isStored: boolean): void {
    this.#documents.forget(live);
    this.#sessions.leave(live, isStored);
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
    return this.#documents.all().filter((live) => this.#isToSend(live));
  }

  /** The documents that are shown are not the outbox's to send or not. */
  #letGo(id: string): void {
    const live = this.#documents.get(id);
    if (live !== undefined && !isShown(live)) {
      live.isLetGo = true;
      this.#maybeDrop(live);
    }
  }

  /** It is to be sent after all. */
  #takeBack(live: LiveDocument): void {
    if (live.isLetGo) {
      live.isLetGo = false;
      this.#sessions.begin(live);
    }
  }

  #deleted(id: string): void {
    const live = this.#documents.get(id);
    if (live !== undefined) {
      live.state = "deleted";
      live.presence.stop();
      this.#forget(live, false);
      this.#documents.looked(live);
    }
    this.#outbox.forget(id);
  }

  #removed(live: LiveDocument): void {
    if (this.#documents.isHere(live)) {
      this.#deleted(live.id);
    }
  }

  /** Another tab forgot all documents. What this one made since is stored, whole, and stays. */
  async #cleared(): Promise<void> {
    const { storage } = this.#parts;
    const before = this.#documents.all().filter((live) => live.isStored);
    try {
      if (storage.kind === "memory") {
        await storage.clear();
      }
      const stored = new Set(await storage.list());
      this.#outbox.stop();
      for (const live of before.filter(({ id }) => !stored.has(id))) {
        this.#removed(live);
      }
      await this.#outbox.look();
    } catch {
      // Whoever stores the next change finds out.
    }
  }

  /** Applies what arrived, in all documents. */
  #flush(): void {
    for (const live of this.#documents) {
      if (live.loaded && live.hasIncoming) {
        const chunks = live.isEmpty ? live.waiting() : undefined;
        if (chunks !== undefined && this.#filling.fills(live, { from: "chunks", chunks })) {
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
      this.#documents.judge(live);
      if (fromServer !== undefined) {
        this.#post({ t: "changes", id: live.id, bytes: joined(fromServer), heads: live.replica.heads() });
      }
      if (this.#role !== "follower") {
        this.#storing.keep(live, fromTabs);
        this.#storing.keep(live, fromServer);
      }
      this.#documents.shown(live, patches, before, "remote");
    } catch (error) {
      this.#sessions.broken(live, error);
      return;
    }
    if (!this.#documents.isHere(live)) {
      // A listener closed it, and it is freed.
      return;
    }
    if (live.hasIncoming) {
      // Much came: the rest is for the next frames.
      this.#flushing.request();
    } else if (live.lacksMore()) {
      this.#want([live]);
    }
    if (live.unread === "taking") {
      this.#filling.isRead(live);
    }
    if (this.#uplink.connection !== undefined && this.#documents.isHere(live)) {
      this.#sessions.news(live);
      this.#sessions.pump(live);
      if (wasUnpacking && !live.isUnpacking) {
        this.#sessions.takeEarly(live);
      }
    }
    this.#maybeDrop(live);
  }

  // The server.

  #roleIs(role: Role): void {
    this.#role = role;
    for (const live of this.#documents) {
      live.wantedBy.clear();
      live.told = undefined;
    }
    if (role === "follower") {
      this.#outbox.stop();
    }
    if (role === "leader") {
      this.#post({ t: "who" });
      this.#guard(() => {
        for (const live of this.#documents) {
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
    this.#want(this.#documents.all().filter((live) => live.loaded && this.#isWanted(live)));
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
    for (const live of this.#documents) {
      this.#documents.judge(live);
      this.#documents.looked(live);
    }
    if (state === "waiting" && fault !== undefined && this.#role !== "follower") {
      // Later: whoever found the fault may still be at a document that goes.
      queueMicrotask(() => this.#outbox.ended(fault.code));
    }
  }

  #isConnected(): void {
    this.#sessions.beginAll();
    this.#outbox.look().catch(report);
  }

  #incoming(message: WasmIncoming): void {
    if (message.type === "ephemeral") {
      const { document: id, author, session, count, data } = message;
      const heard: Ephemeral = { id, author, session, count, data };
      this.#ephemerals.receive(heard);
      this.#post({ t: "ephemeral", message: heard, fromServer: true });
    } else if (message.type === "sync" || message.type === "unavailable") {
      this.#sessions.incoming(message);
    }
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
    this.#documents.judge(live);
    this.#documents.looked(live);
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
        const live = this.#documents.get(message.id);
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
        const live = this.#documents.get(message.id);
        if (live !== undefined) {
          live.receive(message.bytes, message.heads);
          this.#flushing.request();
        }
        break;
      }
      case "server": {
        const live = this.#documents.get(message.id);
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
          this.#parts.storage.remove(message.id).catch(report);
        }
        break;
      case "cleared":
        this.#cleared().catch(report);
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
    const live = leads ? this.#obtain(id) : this.#documents.get(id);
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
      this.#sessions.news(live, tab);
    }
  }

  #tabGone(tab: string): void {
    for (const live of this.#documents) {
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
