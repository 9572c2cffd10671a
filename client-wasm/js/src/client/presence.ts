/**
 * Who is here: a small state of each tab that has a document open, sent as messages that nobody stores, in the
 * form of automerge-repo's `Presence`, so that both see each other.
 */
import { Emitter, report } from "../emitter.js";

/** What a tab tells of itself; anything that JSON takes. */
export type PresenceState = { readonly [key: string]: unknown };

/** Somebody who has the document open. */
export interface PeerPresence {
  /** Names the tab. */
  readonly peer: string;
  readonly state: PresenceState;
  /** Unix milliseconds by our clock. */
  readonly lastSeen: number;
}

/** Events of {@link Presence}. */
export interface PresenceEvents {
  /** Somebody came, went, or told something new. */
  change: (peers: readonly PeerPresence[]) => void;
}

/** Own state is told again so often, milliseconds, and whoever was silent for three times as long is gone. */
export const HEARTBEAT_MS = 15_000;
const GONE_AFTER_MS = 3 * HEARTBEAT_MS;
/** At most so many others are kept: names are not checked by anybody. */
const MAX_PEERS = 1_000;
/** Fields of one of them; each message adds one. */
const MAX_FIELDS = 256;

const MARKER = "__presence";

/** Own state in a document, and others'. Nothing is told before {@link set}. */
export class Presence {
  readonly #send: (value: unknown) => void;
  readonly #events = new Emitter<PresenceEvents>();
  readonly #peers = new Map<string, PeerPresence>();
  #own: PresenceState | undefined;
  #beat: ReturnType<typeof setInterval> | undefined;
  /** When others heard of us last because it was time to. */
  #beaten = 0;
  #list: readonly PeerPresence[] = [];

  /** @internal */
  constructor(send: (value: unknown) => void) {
    this.#send = send;
  }

  /** The others, in the order in which they came. The same array while nothing is different. */
  get peers(): readonly PeerPresence[] {
    return this.#list;
  }

  /** Own state, as last set. */
  get own(): PresenceState | undefined {
    return this.#own;
  }

  /**
   * Tells everybody who has the document open; fields that are left out keep their value.
   *
   * @example
   * const doc = client.create({ agenda: "" });
   * doc.presence.set({ name: "Ada", at: 3 });
   */
  set(state: PresenceState): void {
    const before = this.#own;
    this.#own = { ...before, ...state };
    try {
      if (before === undefined) {
        this.#send(this.#snapshot());
        this.#start();
        return;
      }
      for (const [channel, value] of Object.entries(state)) {
        this.#send({ [MARKER]: { type: "update", channel, value } });
      }
    } catch (error) {
      // What can't be sent now could not be told to newcomers either.
      this.#own = before;
      throw error;
    }
  }

  on<Name extends keyof PresenceEvents>(name: Name, listener: PresenceEvents[Name]): () => void {
    this.#start();
    return this.#events.on(name, listener);
  }

  /** Says goodbye; {@link set} begins anew. */
  stop(): void {
    clearInterval(this.#beat);
    this.#beat = undefined;
    if (this.#own !== undefined) {
      this.#own = undefined;
      this.#trySend({ [MARKER]: { type: "goodbye" } });
    }
  }

  /** @internal A message came that is not stored. Whether it was one of presence. */
  receive(peer: string, message: unknown, now: number): boolean {
    const inside = field(message, MARKER);
    const type = field(inside, "type");
    if (typeof type !== "string") {
      return false;
    }
    const known = this.#peers.get(peer);
    if (type === "goodbye") {
      if (this.#peers.delete(peer)) {
        this.#changed();
      }
    } else if (type === "heartbeat") {
      if (known !== undefined) {
        this.#peers.set(peer, { ...known, lastSeen: now });
      }
    } else {
      const told = type === "snapshot" ? field(inside, "state") : type === "update" ? asUpdate(inside) : undefined;
      if (!isState(told) || (known === undefined && this.#peers.size >= MAX_PEERS)) {
        return true;
      }
      const state = type === "snapshot" ? { ...told } : { ...known?.state, ...told };
      if (Object.keys(state).length > MAX_FIELDS) {
        return true;
      }
      this.#peers.set(peer, { peer, state: Object.freeze(state), lastSeen: now });
      // Whoever only looks at `peers` must not see those who are gone.
      this.#start();
      this.#changed();
      // Who is new does not know of us yet.
      if (known === undefined) {
        this.again();
      }
    }
    return true;
  }

  /** @internal A tab is gone, as far as this browser knows. */
  gone(peer: string): void {
    if (this.#peers.delete(peer)) {
      this.#changed();
    }
  }

  /** @internal Others do not know of us, or took us for gone: tells them all of it again. */
  again(): void {
    if (this.#own !== undefined) {
      this.#trySend(this.#snapshot());
    }
  }

  /** @internal Forgets who was silent for too long. */
  expire(now: number): void {
    let any = false;
    for (const [peer, { lastSeen }] of this.#peers) {
      if (now - lastSeen > GONE_AFTER_MS) {
        any = this.#peers.delete(peer) || any;
      }
    }
    if (any) {
      this.#changed();
    }
  }

  #start(): void {
    if (this.#beat !== undefined) {
      return;
    }
    this.#beaten = Date.now();
    this.#beat = setInterval(() => {
      const now = Date.now();
      if (this.#own !== undefined) {
        // After a sleep, or a browser that runs timers of hidden pages once a minute, others may have forgotten us,
        // and a heartbeat alone tells them nothing.
        const isForgotten = now - this.#beaten > GONE_AFTER_MS;
        this.#trySend(isForgotten ? this.#snapshot() : { [MARKER]: { type: "heartbeat" } });
      }
      this.#beaten = now;
      this.expire(now);
    }, HEARTBEAT_MS);
  }

  #snapshot(): unknown {
    return { [MARKER]: { type: "snapshot", state: this.#own } };
  }

  /**
   * The page may have put into its state what can't be sent, since it was set: that is the page's fault, and no reason
   * for whoever brought a message, or for the other documents, to fail.
   */
  #trySend(value: unknown): void {
    try {
      this.#send(value);
    } catch (error) {
      report(error);
    }
  }

  #changed(): void {
    this.#list = Object.freeze([...this.#peers.values()]);
    this.#events.emit("change", this.#list);
  }
}

function field(value: unknown, name: string): unknown {
  return typeof value === "object" && value !== null ? (value as { [name: string]: unknown })[name] : undefined;
}

function asUpdate(inside: unknown): unknown {
  const channel = field(inside, "channel");
  return typeof channel === "string" ? { [channel]: field(inside, "value") } : undefined;
}

function isState(value: unknown): value is PresenceState {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !ArrayBuffer.isView(value);
}
