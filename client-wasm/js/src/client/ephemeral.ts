/**
 * Messages that nobody stores: an application's, to whoever has the same document open, and others' to it. They go to
 * the other tabs, and to the server by whichever tab leads; each is heard once, however often it comes.
 */
import type { Wasm, WasmConnection } from "../wasm.js";
import type { Ephemeral } from "./messages.js";

/** What {@link Ephemerals} needs of its client. */
export interface EphemeralHost {
  /** By what this tab sends to the server, if it does. */
  connection(): WasmConnection | undefined;
  sendFrame(frame: Uint8Array): void;
  /** To the other tabs. */
  tell(message: Ephemeral): void;
  /** Whether this tab shows the document. */
  isShown(id: string): boolean;
  /** For the document, which is shown. */
  heard(id: string, author: string, value: unknown): void;
  /** Something was thrown: maybe by the wasm module's end. */
  caught(error: unknown): void;
}

/** Authors of messages that are not stored, whose last count is known. */
const MAX_AUTHORS = 10_000;

/** See the module's comment. */
export class Ephemerals {
  readonly #wasm: Wasm;
  readonly #host: EphemeralHost;
  /** Last count of each author's messages. */
  readonly #heard = new Map<string, number>();
  #count = 0;

  constructor(wasm: Wasm, host: EphemeralHost) {
    this.#wasm = wasm;
    this.#host = host;
  }

  /** Sends an application's message to whoever has the document open. */
  say(id: string, author: string, session: string, value: unknown): void {
    this.#count += 1;
    const message = { id, author, session, count: this.#count, data: this.#wasm.encodeCbor(value) };
    this.#host.tell(message);
    this.send(message);
  }

  /** Sends one to the server. */
  send({ id, author, session, count, data }: Ephemeral): void {
    const connection = this.#host.connection();
    if (connection === undefined) {
      return;
    }
    let frame: Uint8Array;
    try {
      frame = connection.ephemeral(id, author, session, count, data);
    } catch (error) {
      this.#host.caught(error);
      // Names that are none: another page's rubbish.
      return;
    }
    this.#host.sendFrame(frame);
  }

  /** One came, from another tab or from the server. */
  receive({ id, author, session, count, data }: Ephemeral): void {
    const key = `${author} ${session}`;
    if (count <= (this.#heard.get(key) ?? 0) || !this.#host.isShown(id)) {
      return;
    }
    // The one that was heard of longest ago is forgotten first.
    this.#heard.delete(key);
    this.#heard.set(key, count);
    if (this.#heard.size > MAX_AUTHORS) {
      for (const oldest of this.#heard.keys()) {
        this.#heard.delete(oldest);
        break;
      }
    }
    let value: unknown;
    try {
      value = this.#wasm.decodeCbor(data);
    } catch {
      // Somebody else's, in a form that is not ours.
      return;
    }
    this.#host.heard(id, author, value);
  }
}
