/**
 * What was changed in documents that no tab shows any more, and was not sent: whichever tab leads brings these
 * documents here, a few at a time, until the server has all of them. Storage remembers which they are.
 *
 * **Who is to blame.** A server that refuses what is in a document ends the connection, and does not say which it was.
 * All that may be it, and that nobody shows, goes then, and comes back one at a time while nothing else is being sent:
 * what ends the connection when it is alone, several times, is given up.
 */

/** What an {@link Outbox} needs of its client. */
export interface OutboxHost {
  /** The ids of documents with changes that the server is not known to keep. Does not reject. */
  unsent(): Promise<readonly string[]>;
  /** Whether this tab has a connection to send them by. */
  isConnected(): boolean;
  /** Brings a document here, if it is not, and sends it; {@link Outbox.left} tells when that is over. */
  bring(id: string): void;
  /** Documents that are here, that nobody shows, and that are being sent. */
  hidden(): readonly string[];
  /** Whether something is being sent of a document that somebody shows. */
  sendsShown(): boolean;
  /** It is not to be sent until it is brought again, or shown. */
  letGo(id: string): void;
}

/** Documents that are brought at the same time: each costs its replica's memory. */
const MAX_AT_ONCE = 4;
/** A document is brought in vain, or ends the connection, so often while a tab leads. */
const MAX_TRIES = 3;
/** Ends of a connection that nothing sent on it was the reason of. */
const BLAMELESS_CODES = new Set([
  "network",
  "timeout",
  "leave",
  "token",
  "token-expired",
  "back-off",
  "rate-limited",
  "replaced",
  "too-many-documents",
  "overloaded",
  "shutting-down",
]);

/** See the module's comment. Of the tab that leads; others may ask it for nothing. */
export class Outbox {
  readonly #host: OutboxHost;
  readonly #waiting = new Set<string>();
  readonly #brought = new Set<string>();
  /** How often each was brought, and gone again with something left to send. */
  readonly #tries = new Map<string, number>();
  /** How many connections ended while each was all that was being sent. */
  readonly #ends = new Map<string, number>();
  /** Those that were given up, and had another chance when the connection was good without them. */
  readonly #forgiven = new Set<string>();
  /** Something that was sent ended a connection: one at a time. */
  #isCareful = false;
  #isProven = false;

  constructor(host: OutboxHost) {
    this.#host = host;
  }

  /** There may be something to send: this tab connected, or one is gone that was to. */
  async look(): Promise<void> {
    if (!this.#host.isConnected()) {
      return;
    }
    for (const id of await this.#host.unsent()) {
      if (!this.#brought.has(id) && count(this.#tries, id) < MAX_TRIES && count(this.#ends, id) < MAX_TRIES) {
        this.#waiting.add(id);
      }
    }
    this.#fill();
  }

  /** Nothing more of the document can be sent now. `isSent`: because the server has all of it. */
  left(id: string, isSent: boolean): void {
    const wasBrought = this.#brought.delete(id);
    if (isSent) {
      this.#tries.delete(id);
      this.#ends.delete(id);
    } else if (wasBrought) {
      add(this.#tries, id);
    }
    if (this.#isProven) {
      this.#forgive();
    }
    if (wasBrought || this.#isCareful) {
      this.#fill();
    }
  }

  /** It is stored no more. */
  forget(id: string): void {
    this.#waiting.delete(id);
    this.left(id, true);
  }

  /** The connection has been open for a while: whatever ended those before it is not in this one. */
  proven(): void {
    this.#isProven = true;
    this.#forgive();
    this.#fill();
  }

  /** The connection is over, or there was none; `code` tells why. */
  ended(code: string): void {
    this.#isProven = false;
    if (BLAMELESS_CODES.has(code)) {
      return;
    }
    this.#isCareful = true;
    const suspects = new Set([...this.#brought, ...this.#host.hidden()]);
    const isAlone = suspects.size === 1 && !this.#host.sendsShown();
    for (const id of suspects) {
      if (isAlone && add(this.#ends, id) < MAX_TRIES) {
        // It is sent once more, as the only one.
        return;
      }
      this.#brought.delete(id);
      if (!isAlone) {
        this.#waiting.add(id);
      }
      this.#host.letGo(id);
    }
  }

  /** Another tab leads, and tries them all anew. */
  stop(): void {
    for (const each of [this.#waiting, this.#brought, this.#tries, this.#ends, this.#forgiven]) {
      each.clear();
    }
    this.#isCareful = false;
    this.#isProven = false;
  }

  /** What was counted may have had another reason, which is gone. Not while one is being sent, however long it takes. */
  #forgive(): void {
    if (!this.#isCareful || this.#brought.size > 0 || this.#host.sendsShown()) {
      return;
    }
    this.#isCareful = false;
    for (const [id, ends] of this.#ends) {
      if (ends < MAX_TRIES || !this.#forgiven.has(id)) {
        this.#ends.delete(id);
      }
      if (ends >= MAX_TRIES) {
        this.#forgiven.add(id);
      }
    }
    void this.look();
  }

  #fill(): void {
    const most = this.#isCareful ? 1 : MAX_AT_ONCE;
    for (const id of this.#waiting) {
      const waits = this.#isCareful && this.#host.sendsShown();
      if (waits || this.#brought.size >= most || !this.#host.isConnected()) {
        return;
      }
      this.#waiting.delete(id);
      this.#brought.add(id);
      this.#host.bring(id);
    }
  }
}

function count(counts: ReadonlyMap<string, number>, id: string): number {
  return counts.get(id) ?? 0;
}

function add(counts: Map<string, number>, id: string): number {
  const next = count(counts, id) + 1;
  counts.set(id, next);
  return next;
}
