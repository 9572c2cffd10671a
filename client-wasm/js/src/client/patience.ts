/**
 * How long silence on a connection is borne. Pure: who has the connection has the clock.
 *
 * A browser tells of a message when all of it is there, so a long answer on a slow link looks like no answer at all.
 * Each time that a connection was given up the next is given twice as long: whatever the link, a wait comes that is
 * long enough. The waits get shorter only when everything that was asked for was answered, not by any answer: a short
 * one that comes first must not take the time away from the long one behind it.
 */

/** What was asked for is answered by then on any but a slow link, milliseconds. */
export const ANSWER_WITHIN_MS = 10_000;
/** No answer is waited for longer, milliseconds: one of 32 MiB takes that at half a megabit a second. */
export const MAX_ANSWER_WITHIN_MS = 600_000;

/** See the module's comment. Kept over connections. */
export class Patience {
  /** Documents of which the server was told something that it answers, and did not yet. */
  readonly #asked = new Set<string>();
  #waitMs = ANSWER_WITHIN_MS;

  /** So long is an answer waited for, milliseconds. */
  get waitMs(): number {
    return this.#waitMs;
  }

  /** Whether an answer is due. */
  get isWaiting(): boolean {
    return this.#asked.size > 0;
  }

  /** Something about a document was sent that the server answers by a message about it. */
  asked(document: string): void {
    this.#asked.add(document);
  }

  /** A message about a document came. */
  answered(document: string): void {
    if (this.#asked.delete(document) && !this.isWaiting) {
      this.#waitMs = Math.max(this.#waitMs / 2, ANSWER_WITHIN_MS);
    }
  }

  /** The wait was in vain. */
  lost(): void {
    this.#waitMs = Math.min(this.#waitMs * 2, MAX_ANSWER_WITHIN_MS);
  }

  /** The connection is over, and with it what was asked on it. */
  ended(): void {
    this.#asked.clear();
  }
}
