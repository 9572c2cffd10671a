/**
 * What was changed in documents that no tab shows any more, and was not sent: whichever tab leads brings these
 * documents here, a few at a time, until the server has all of them. Storage remembers which they are.
 */

/** What an {@link Outbox} needs of its client. */
export interface OutboxHost {
  /** The ids of documents with changes that the server is not known to keep. Does not reject. */
  unsent(): Promise<readonly string[]>;
  /** Whether this tab has a connection to send them by. */
  isConnected(): boolean;
  /** Brings a document here, if it is not, and sends it; {@link Outbox.left} tells when that is over. */
  bring(id: string): void;
  /** The server refuses what is in it: it is not to be sent again. */
  giveUp(id: string): void;
}

/** Documents that are brought at the same time: each costs its replica's memory. */
const MAX_AT_ONCE = 4;
/** A document is brought, or has a part in a connection's end, so often while a tab leads. */
const MAX_TRIES = 3;

/** See the module's comment. Of the tab that leads; others may ask it for nothing. */
export class Outbox {
  readonly #host: OutboxHost;
  readonly #waiting = new Set<string>();
  readonly #brought = new Set<string>();
  readonly #tries = new Map<string, number>();

  constructor(host: OutboxHost) {
    this.#host = host;
  }

  /** There may be something to send: this tab connected, or one is gone that was to. */
  async look(): Promise<void> {
    if (!this.#host.isConnected()) {
      return;
    }
    for (const id of await this.#host.unsent()) {
      if (!this.#brought.has(id) && this.#triesOf(id) < MAX_TRIES) {
        this.#waiting.add(id);
      }
    }
    this.#fill();
  }

  /** Nothing more of the document can be sent now. `isSent`: because the server has all of it. */
  left(id: string, isSent: boolean): void {
    if (isSent) {
      this.#tries.delete(id);
    }
    if (this.#brought.delete(id)) {
      this.#fill();
    }
  }

  /** The server ended the connection because of something that it was sent: maybe one of these. */
  refused(): void {
    for (const id of [...this.#brought]) {
      this.#tried(id);
      if (this.#triesOf(id) >= MAX_TRIES) {
        this.#brought.delete(id);
        this.#host.giveUp(id);
      }
    }
  }

  /** Another tab leads, and tries them all anew. */
  stop(): void {
    this.#waiting.clear();
    this.#brought.clear();
    this.#tries.clear();
  }

  #fill(): void {
    for (const id of this.#waiting) {
      if (this.#brought.size >= MAX_AT_ONCE || !this.#host.isConnected()) {
        return;
      }
      this.#waiting.delete(id);
      this.#brought.add(id);
      this.#tried(id);
      this.#host.bring(id);
    }
  }

  #tried(id: string): void {
    this.#tries.set(id, this.#triesOf(id) + 1);
  }

  #triesOf(id: string): number {
    return this.#tries.get(id) ?? 0;
  }
}
