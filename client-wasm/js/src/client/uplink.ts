/**
 * The connection to the server: opens WebSockets until one stays open, with full jitter between attempts, and
 * ends those on which nothing is heard any more.
 */
import type { Wasm, WasmConnection, WasmIncoming } from "../wasm.js";

/** What the page can be told about the connection. */
export type ConnectionState =
  /** An attempt is under way. */
  | "connecting"
  /** The server answered. */
  | "open"
  /** The next attempt is waited for. */
  | "waiting"
  /** The page asked to be offline, or the client is closed. */
  | "offline";

/** Where and as whom to connect. */
export interface UplinkOptions {
  /** `ws:` or `wss:`. */
  readonly url: string;
  /** Asked for a token before each attempt; it is sent as `?token=`. */
  readonly getToken: (() => string | undefined | Promise<string | undefined>) | undefined;
  /** The name to connect by; a second connection with it replaces the first. */
  readonly peer: () => string;
  /** Names what this browser stores, or nothing when it stores nothing. */
  readonly storage: string | undefined;
}

/** What happens on it. */
export interface UplinkEvents {
  state(state: ConnectionState, error: ConnectionFault | undefined): void;
  /** The handshake is done; sessions begin. */
  open(): void;
  /** Sessions are over. */
  closed(): void;
  incoming(message: WasmIncoming): void;
}

/** Why a connection ended. `code` is the server's (see PROTOCOL.md) or `network`. */
export interface ConnectionFault {
  readonly code: string;
  readonly message: string;
}

/** First and longest wait between attempts, milliseconds. */
const BACKOFF_BASE_MS = 250;
const BACKOFF_CAP_MS = 20_000;
/** A connection that lived so long was a good one, after which attempts begin anew, milliseconds. */
const PROVEN_AFTER_MS = 5_000;
/** A connection that did not get so far by then is given up, milliseconds. */
const OPEN_WITHIN_MS = 10_000;
/** What was sent is answered by then, or the connection is half open: the server answers every sync message. */
const ANSWER_WITHIN_MS = 10_000;
/** The slowest network on which a long message is waited for, bytes a millisecond. */
const SLOWEST_BYTES_PER_MS = 8;
/** Close codes after which trying soon again helps nobody: refused changes, forbidden, held off. */
const SLOW_CODES = new Set([4400, 4403, 4422, 4429]);
/** The least wait after those, milliseconds. */
const SLOW_WAIT_MS = 2_000;

/** Holds one WebSocket at a time; {@link Uplink.start} and {@link Uplink.stop} as often as one likes. */
export class Uplink {
  readonly #wasm: Wasm;
  readonly #options: UplinkOptions;
  readonly #events: UplinkEvents;
  readonly #backoff;
  #wanted = false;
  #socket: WebSocket | undefined;
  #connection: WasmConnection | undefined;
  #isOpen = false;
  #openedAt = 0;
  #retry: ReturnType<typeof setTimeout> | undefined;
  #deadline: ReturnType<typeof setTimeout> | undefined;
  #fault: ConnectionFault | undefined;

  constructor(wasm: Wasm, options: UplinkOptions, events: UplinkEvents) {
    this.#wasm = wasm;
    this.#options = options;
    this.#events = events;
    this.#backoff = new wasm.Backoff(BACKOFF_BASE_MS, BACKOFF_CAP_MS);
  }

  /** The open connection. */
  get connection(): WasmConnection | undefined {
    return this.#isOpen ? this.#connection : undefined;
  }

  /** Connects, and reconnects from now on. */
  start(): void {
    if (!this.#wanted) {
      this.#wanted = true;
      this.#attempt();
    }
  }

  /** Does not wait for the next attempt: the network is back, or somebody looks at the page again. */
  hurry(): void {
    if (this.#wanted && this.#socket === undefined && this.#retry !== undefined) {
      this.#attempt();
    }
  }

  /** Ends the connection. */
  stop(): void {
    this.#wanted = false;
    clearTimeout(this.#retry);
    this.#retry = undefined;
    this.#end(undefined);
    this.#events.state("offline", undefined);
  }

  /** Sends a frame. `answered`: whether the server answers it, so that silence means that it is gone. */
  send(frame: Uint8Array, answered: boolean): void {
    const socket = this.#socket;
    if (!this.#isOpen || socket === undefined) {
      return;
    }
    socket.send(frame as Uint8Array<ArrayBuffer>);
    if (answered && this.#deadline === undefined) {
      this.#expect(ANSWER_WITHIN_MS + frame.length / SLOWEST_BYTES_PER_MS, "no answer");
    }
  }

  #attempt(): void {
    clearTimeout(this.#retry);
    this.#retry = undefined;
    this.#events.state("connecting", this.#fault);
    const socketAt = (url: string): void => {
      if (!this.#wanted || this.#socket !== undefined) {
        return;
      }
      try {
        this.#open(new WebSocket(url));
      } catch (error) {
        this.#again({ code: "network", message: String(error) });
      }
    };
    const { url, getToken } = this.#options;
    if (getToken === undefined) {
      socketAt(url);
      return;
    }
    Promise.resolve()
      .then(getToken)
      .then(
        (token) => socketAt(withToken(url, token)),
        (error: unknown) => this.#again({ code: "token", message: String(error) }),
      );
  }

  #open(socket: WebSocket): void {
    socket.binaryType = "arraybuffer";
    const connection = new this.#wasm.Connection(this.#options.peer(), this.#options.storage);
    this.#socket = socket;
    this.#connection = connection;
    this.#expect(OPEN_WITHIN_MS, "could not connect in time");
    const isCurrent = (): boolean => this.#socket === socket;
    socket.onopen = () => {
      if (isCurrent()) {
        socket.send(connection.join() as Uint8Array<ArrayBuffer>);
      }
    };
    socket.onmessage = (event: MessageEvent<unknown>) => {
      if (isCurrent()) {
        this.#receive(connection, event.data);
      }
    };
    socket.onclose = (event: CloseEvent) => {
      if (isCurrent()) {
        const code = event.reason === "" ? "network" : event.reason;
        const fault = this.#fault ?? { code, message: `closed with ${event.code}` };
        this.#again(fault, SLOW_CODES.has(event.code) ? SLOW_WAIT_MS : undefined);
      }
    };
  }

  #receive(connection: WasmConnection, data: unknown): void {
    clearTimeout(this.#deadline);
    this.#deadline = undefined;
    try {
      if (!(data instanceof ArrayBuffer)) {
        throw new TypeError("a text frame");
      }
      const message = connection.receive(new Uint8Array(data));
      if (message.type === "open") {
        this.#isOpen = true;
        this.#openedAt = performance.now();
        this.#fault = undefined;
        this.#events.state("open", undefined);
        this.#events.open();
      } else if (message.type === "leave") {
        this.#again({ code: "leave", message: "the server said goodbye" });
      } else {
        this.#events.incoming(message);
      }
    } catch (error) {
      this.#again(faultOf(error), SLOW_WAIT_MS);
    }
  }

  /** Ends the connection because of something that was found in a message. */
  fail(error: unknown): void {
    if (this.#socket !== undefined) {
      this.#again(faultOf(error), SLOW_WAIT_MS);
    }
  }

  #expect(ms: number, what: string): void {
    clearTimeout(this.#deadline);
    this.#deadline = setTimeout(() => this.#again({ code: "timeout", message: what }), ms);
  }

  #again(fault: ConnectionFault, leastMs?: number): void {
    this.#end(fault);
    if (!this.#wanted) {
      return;
    }
    const wait = this.#backoff.next(Math.random(), leastMs);
    this.#retry = setTimeout(() => this.#attempt(), wait);
    this.#events.state("waiting", fault);
  }

  #end(fault: ConnectionFault | undefined): void {
    this.#fault = fault;
    clearTimeout(this.#deadline);
    this.#deadline = undefined;
    const socket = this.#socket;
    const connection = this.#connection;
    const wasOpen = this.#isOpen;
    // Not when it opens: a server that takes us in and throws us out would be asked again and again.
    if (wasOpen && performance.now() - this.#openedAt >= PROVEN_AFTER_MS) {
      this.#backoff.reset();
    }
    this.#socket = undefined;
    this.#connection = undefined;
    this.#isOpen = false;
    if (socket !== undefined) {
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.close();
    }
    if (wasOpen) {
      this.#events.closed();
    }
    try {
      connection?.free();
    } catch {
      // After a trap in it, it can't be freed.
    }
  }
}

function withToken(url: string, token: string | undefined): string {
  if (token === undefined) {
    return url;
  }
  const full = new URL(url);
  full.searchParams.set("token", token);
  return full.href;
}

/** An error of the wasm module's, or anything else that was thrown, as the page is told. */
export function faultOf(error: unknown): ConnectionFault {
  if (error instanceof Error) {
    const code: unknown = (error as { code?: unknown }).code;
    const message = error.message;
    // The server's own code stands before the colon of its message.
    const told = code === "server" ? /: ([a-z-]+):/.exec(message)?.[1] : undefined;
    return { code: told ?? (typeof code === "string" ? code : "internal"), message };
  }
  return { code: "internal", message: String(error) };
}
