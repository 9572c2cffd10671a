/**
 * The connection to the server: opens WebSockets until one stays open, with full jitter between attempts, and
 * ends those on which nothing is heard any more (see `patience.ts` for when that is).
 */
import type { Wasm, WasmConnection, WasmIncoming, WasmReplica } from "../wasm.js";
import { Patience } from "./patience.js";
import { type GetToken, Renewal } from "./renewal.js";

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
  /** Asked for a token before each attempt, which is sent as `?token=`, and before that one ends. */
  readonly getToken: GetToken | undefined;
  /** The name to connect by; a second connection with it replaces the first. */
  readonly peer: () => string;
  /** Names what this browser stores, or nothing when it stores nothing. */
  readonly storage: string | undefined;
  /** Whether anything is missed while the connection is dead and nobody knows. */
  readonly isUsed: () => boolean;
}

/** What happens on it. */
export interface UplinkEvents {
  state(state: ConnectionState, error: ConnectionFault | undefined): void;
  /** The handshake is done; sessions begin. */
  open(): void;
  /** It has been open for some seconds. */
  proven(): void;
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
/** Applications know their token by then, or how to ask for it again, milliseconds. */
const TOKEN_WITHIN_MS = 30_000;
/** A connection that did not get so far by then is given up, milliseconds. */
const OPEN_WITHIN_MS = 10_000;
/**
 * After so long without a message the server is asked for a sign of life, milliseconds. Browsers tell a page nothing
 * of pings. Also when the page is hidden: others of its browser, which are not, hear by it, and the server pings it six
 * times meanwhile anyway.
 */
const PROBE_AFTER_MS = 30_000;
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
  readonly #patience = new Patience();
  readonly #renewal: Renewal;
  #wanted = false;
  /** The attempt that is under way; what comes of earlier ones is not heard. */
  #attempts = 0;
  #socket: WebSocket | undefined;
  #connection: WasmConnection | undefined;
  /** A document that nobody has, to ask for: one for each connection, as the server keeps in mind who asked. */
  #probe: { readonly id: string; readonly replica: WasmReplica } | undefined;
  #isOpen = false;
  #proof: ReturnType<typeof setTimeout> | undefined;
  #retry: ReturnType<typeof setTimeout> | undefined;
  #deadline: ReturnType<typeof setTimeout> | undefined;
  #fault: ConnectionFault | undefined;

  constructor(wasm: Wasm, options: UplinkOptions, events: UplinkEvents) {
    this.#wasm = wasm;
    this.#options = options;
    this.#events = events;
    this.#backoff = new wasm.Backoff(BACKOFF_BASE_MS, BACKOFF_CAP_MS);
    this.#renewal = new Renewal(options.getToken, (text) => this.#socket?.send(text));
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

  /** Does not wait for the next attempt, or for silence: the network is back, or another. */
  hurry(): void {
    if (this.#wanted && this.#socket === undefined && this.#retry !== undefined) {
      this.#attempt();
    } else if (this.#isOpen && !this.#patience.isWaiting) {
      this.#sendProbe();
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

  /** Goes on with a new connection, at once: nothing is wrong, but sessions are to begin anew. */
  restart(): void {
    if (this.#wanted) {
      this.#end(undefined);
      this.#attempt();
    }
  }

  /** Sends a frame. `about`: the document about which the server answers it, so that silence means that it is gone. */
  send(frame: Uint8Array, about: string | undefined): void {
    const socket = this.#socket;
    if (!this.#isOpen || socket === undefined) {
      return;
    }
    socket.send(frame as Uint8Array<ArrayBuffer>);
    if (about !== undefined) {
      const wasWaiting = this.#patience.isWaiting;
      this.#patience.asked(about);
      if (!wasWaiting) {
        this.#listen(socket);
      }
    }
  }

  #attempt(): void {
    clearTimeout(this.#retry);
    this.#retry = undefined;
    this.#attempts += 1;
    const attempt = this.#attempts;
    const isCurrent = (): boolean => this.#wanted && this.#attempts === attempt;
    this.#events.state("connecting", this.#fault);
    // Whoever was told may have stopped it, or begun anew.
    if (!isCurrent()) {
      return;
    }
    const { url, getToken } = this.#options;
    if (getToken === undefined) {
      this.#openAt(url);
      return;
    }
    const fail = (message: string): void => {
      if (isCurrent()) {
        this.#again({ code: "token", message });
      }
    };
    this.#expect(TOKEN_WITHIN_MS, () => fail("no token in time"));
    Promise.resolve()
      .then(getToken)
      .then(
        (token) => isCurrent() && this.#openAt(url, token),
        (error: unknown) => fail(String(error)),
      );
  }

  #openAt(url: string, token?: string): void {
    try {
      this.#open(new WebSocket(withToken(url, token)), token);
    } catch (error) {
      this.#again({ code: "network", message: String(error) });
    }
  }

  #open(socket: WebSocket, token?: string): void {
    socket.binaryType = "arraybuffer";
    const connection = new this.#wasm.Connection(this.#options.peer(), this.#options.storage);
    this.#socket = socket;
    this.#connection = connection;
    this.#expect(OPEN_WITHIN_MS, () => this.#again({ code: "timeout", message: "could not connect in time" }));
    const isCurrent = (): boolean => this.#socket === socket;
    socket.onopen = () => {
      if (isCurrent()) {
        socket.send(connection.join() as Uint8Array<ArrayBuffer>);
      }
    };
    socket.onmessage = (event: MessageEvent<unknown>) => {
      if (isCurrent()) {
        this.#receive(connection, event.data, token);
      }
      if (isCurrent() && this.#isOpen) {
        this.#listen(socket);
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

  #receive(connection: WasmConnection, data: unknown, token?: string): void {
    try {
      if (typeof data === "string" && this.#renewal.answered(data)) {
        return;
      }
      if (!(data instanceof ArrayBuffer)) {
        throw new TypeError("a text frame");
      }
      const message = connection.receive(new Uint8Array(data));
      if (message.type === "open") {
        this.#isOpen = true;
        this.#renewal.opened(connection.peers()[1], token);
        // Not at once: a server that takes us in and throws us out would be asked again and again.
        this.#proof = setTimeout(() => {
          this.#backoff.reset();
          this.#events.proven();
        }, PROVEN_AFTER_MS);
        this.#fault = undefined;
        this.#events.state("open", undefined);
        this.#events.open();
      } else if (message.type === "leave") {
        this.#again({ code: "leave", message: "the server said goodbye" });
      } else {
        if (message.type === "sync" || message.type === "unavailable") {
          this.#patience.answered(message.document);
        }
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

  /** From now on: for what was asked, or else for anything. */
  #listen(socket: WebSocket): void {
    if (!this.#patience.isWaiting) {
      this.#expect(PROBE_AFTER_MS, () => this.#sendProbe());
      return;
    }
    this.#expect(this.#patience.waitMs + socket.bufferedAmount / SLOWEST_BYTES_PER_MS, () => {
      this.#patience.lost();
      this.#again({ code: "timeout", message: "no answer" });
    });
  }

  /**
   * Asks for a document that nobody has: of all that may be sent again and again, the one thing that the server answers
   * each time.
   */
  #sendProbe(): void {
    const socket = this.#socket;
    const connection = this.#connection;
    if (socket === undefined || connection === undefined) {
      return;
    }
    if (!this.#options.isUsed()) {
      this.#listen(socket);
      return;
    }
    try {
      this.#probe ??= nobodys(this.#wasm);
      const { id, replica } = this.#probe;
      // It asks once in a session.
      replica.connect();
      const frame = replica.nextFrame(...connection.peers());
      if (frame !== undefined) {
        this.send(frame, id);
      }
    } catch (error) {
      this.#again(faultOf(error));
    }
  }

  #expect(ms: number, then: () => void): void {
    clearTimeout(this.#deadline);
    this.#deadline = setTimeout(then, ms);
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
    this.#attempts += 1;
    clearTimeout(this.#deadline);
    this.#patience.ended();
    this.#renewal.ended();
    const socket = this.#socket;
    const connection = this.#connection;
    const wasOpen = this.#isOpen;
    clearTimeout(this.#proof);
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
    const probe = this.#probe;
    this.#probe = undefined;
    try {
      connection?.free();
      probe?.replica.free();
    } catch {
      // After a trap in it, it can't be freed.
    }
  }
}

function nobodys(wasm: Wasm): { readonly id: string; readonly replica: WasmReplica } {
  const id = wasm.documentId(crypto.getRandomValues(new Uint8Array(16)));
  return { id, replica: new wasm.Replica(id) };
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
