/**
 * A token that ends while the connection is open is renewed on it, a little before: else the server would end the
 * connection, and all documents would begin anew on another (PROTOCOL.md, "Renewing a token").
 */

/** Asks the application for a token. */
export type GetToken = () => string | undefined | Promise<string | undefined>;

/** So long before its end a token is renewed; one that has less left, when a quarter of that is left. Milliseconds. */
const RENEW_BEFORE_MS = 60_000;
/** With less left than this it is not worth a try, milliseconds. */
const LEAST_LEFT_MS = 1_000;
/** Browsers' timers go no further than some weeks; clocks are set meanwhile. Milliseconds. */
const LONGEST_WAIT_MS = 3_600_000;
/** Servers that know what is said here have names that begin so. Others may not survive it. */
const NAME = "concord-";

/** Of one connection after the other: {@link Renewal.opened}, what is {@link Renewal.answered}, {@link Renewal.ended}. */
export class Renewal {
  readonly #getToken: GetToken | undefined;
  readonly #send: (text: string) => void;
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** By which the connection is open. */
  #token: string | undefined;
  /** What was sent, and not answered yet. */
  #shown: string | undefined;

  constructor(getToken: GetToken | undefined, send: (text: string) => void) {
    this.#getToken = getToken;
    this.#send = send;
  }

  /** A connection to a server of this name is open, by this token. */
  opened(server: string | undefined, token: string | undefined): void {
    this.ended();
    if (server?.startsWith(NAME)) {
      this.#token = token;
      this.#plan();
    }
  }

  /** A text of the server's. Whether it was waited for. */
  answered(text: string): boolean {
    const shown = this.#shown;
    if (shown === undefined) {
      return false;
    }
    this.#shown = undefined;
    const answer = JSON.parse(text) as { readonly until?: unknown };
    if (answer.until !== undefined) {
      this.#token = shown;
    }
    // Who was refused asks the application again, if there is time.
    this.#plan();
    return true;
  }

  /** The connection is over. */
  ended(): void {
    clearTimeout(this.#timer);
    this.#timer = this.#token = this.#shown = undefined;
  }

  #plan(): void {
    const end = this.#token === undefined ? undefined : endOf(this.#token);
    const left = (end ?? 0) - Date.now();
    if (left < LEAST_LEFT_MS) {
      return;
    }
    const wait = Math.max(left - RENEW_BEFORE_MS, left * 0.75);
    const isLong = wait > LONGEST_WAIT_MS;
    this.#timer = setTimeout(() => (isLong ? this.#plan() : this.#renew()), Math.min(wait, LONGEST_WAIT_MS));
  }

  #renew(): void {
    const before = this.#token;
    const isCurrent = (): boolean => before !== undefined && this.#token === before && this.#shown === undefined;
    Promise.resolve()
      .then(this.#getToken)
      .then(
        (token) => {
          if (!isCurrent()) {
            return;
          }
          if (token === undefined || token === before) {
            this.#plan();
            return;
          }
          this.#shown = token;
          this.#send(JSON.stringify({ type: "token", token }));
        },
        () => isCurrent() && this.#plan(),
      );
  }
}

/** When a token ends by what it says itself, in milliseconds since 1970. Only the server can tell whether that is true. */
function endOf(token: string): number | undefined {
  try {
    const claims = token.split(".")[1] ?? "";
    const { exp } = JSON.parse(atob(claims.replaceAll("-", "+").replaceAll("_", "/"))) as { readonly exp?: unknown };
    return typeof exp === "number" ? exp * 1000 : undefined;
  } catch {
    return undefined;
  }
}
