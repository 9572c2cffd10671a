/** What tabs need of a browser, so that tests can bring their own; {@link browserPlatform} is the real one. */

/** What happens to the page. */
export type PageEvent =
  /** It was shown or hidden; {@link Platform.visible} tells which. */
  | "visibility"
  /** It is about to be stopped, with all that it holds. */
  | "freeze"
  /** It runs again. */
  | "resume"
  /** It is left: it ends, or goes to the back/forward cache (`pagehide`). */
  | "leave"
  /** It is back from there (`pageshow`). */
  | "return";

/** The part of `LockManager` that is used here. */
export interface Locks {
  /** May throw or reject: `AbortError` when aborted while waiting, or when the lock was stolen. */
  request(name: string, options: LockOptions, callback: (lock: unknown) => Promise<void> | void): Promise<unknown>;
}

/** A channel to all other tabs that opened one of the same name: reliable, in order per sender. */
export interface Channel {
  /** Throws `DataCloneError` when the message can't be sent; something else when the channel is of no use. */
  post(message: unknown): void;
  close(): void;
}

/** What a tab needs of the browser. */
export interface Platform {
  readonly locks: Locks;
  /** Opens a channel; may throw. `unreadable`: something arrived that can't be deserialised. */
  openChannel(name: string, receive: (message: unknown) => void, unreadable: () => void): Channel;
  /** Calls once, not before `ms` milliseconds, maybe much later in a hidden tab. The result cancels that. */
  setTimer(ms: number, call: () => void): () => void;
  /** Unix milliseconds, an integer; the same clock for all tabs. */
  now(): number;
  /** In [0, 1). */
  random(): number;
  /** A name that no other tab has: 1 to 64 characters. */
  newId(): string;
  /** Whether the page can be seen. */
  visible(): boolean;
  /** Tells of page events until the result is called. */
  onPage(handler: (event: PageEvent) => void): () => void;
  /** An exception of the page's own handlers. */
  report(error: unknown): void;
}

/** The browser's; `undefined` where Web Locks or BroadcastChannel are missing. Workers count as hidden. */
export function browserPlatform(): Platform | undefined {
  let manager: LockManager | undefined;
  try {
    manager = globalThis.navigator?.locks;
  } catch {
    return undefined;
  }
  if (manager === undefined || typeof BroadcastChannel === "undefined") return undefined;
  const locks = manager;
  return {
    locks: { request: (name, options, callback) => locks.request(name, options, callback) },
    openChannel,
    setTimer(ms, call) {
      const timer = setTimeout(call, ms);
      return () => clearTimeout(timer);
    },
    now: () => Date.now(),
    random: () => Math.random(),
    newId() {
      const bytes = crypto.getRandomValues(new Uint8Array(12));
      return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
    },
    visible: () => typeof document !== "undefined" && document.visibilityState === "visible",
    onPage,
    report(error) {
      if (typeof reportError === "function") reportError(error);
      else console.error(error);
    },
  };
}

function openChannel(name: string, receive: (message: unknown) => void, unreadable: () => void): Channel {
  const channel = new BroadcastChannel(name);
  channel.onmessage = (event: MessageEvent<unknown>) => receive(event.data);
  channel.onmessageerror = unreadable;
  return {
    post: (message) => channel.postMessage(message),
    close() {
      channel.onmessage = null;
      channel.onmessageerror = null;
      channel.close();
    },
  };
}

function onPage(handler: (event: PageEvent) => void): () => void {
  if (typeof document === "undefined") return () => {};
  const ending = new AbortController();
  // Capturing, and so before the page's own listeners.
  const options = { signal: ending.signal, capture: true };
  document.addEventListener("visibilitychange", () => handler("visibility"), options);
  document.addEventListener("freeze", () => handler("freeze"), options);
  document.addEventListener("resume", () => handler("resume"), options);
  addEventListener("pagehide", () => handler("leave"), options);
  addEventListener("pageshow", () => handler("return"), options);
  return () => ending.abort();
}
