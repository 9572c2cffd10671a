/** The way in: `connect`. */
import { openStorage } from "../storage/open.js";
import { stayAlone } from "../tabs/alone.js";
import { joinTabs } from "../tabs/group.js";
import type { Loaded } from "../load.js";
import { LongLoader } from "../long/loader.js";
import { Client } from "./client.js";
import type { GetToken } from "./renewal.js";

/** Where to connect, and as whom. */
export interface ConnectOptions {
  /**
   * The server: `wss://example.org/sync`, or `https://example.org`, or a path on the page's own server. Without it
   * documents stay in this browser.
   */
  readonly url?: string;
  /** Sent with each connection, as `?token=`. */
  readonly token?: string;
  /** Asked for a token before each connection, and a minute before that token ends; in place of `token`. */
  readonly getToken?: GetToken;
  /**
   * Whose documents these are, where one browser has several people: storage and tabs are theirs alone. Letters,
   * digits, anything.
   */
  readonly user?: string;
  /**
   * `"indexeddb"`: stored in this browser, or an error; `"memory"`: in this page only; without it, the first where
   * the browser lets us, else the second (see the client's `status`).
   */
  readonly storage?: "indexeddb" | "memory";
  /** Whether to share one connection with the other tabs; else this tab connects by itself. Default: true. */
  readonly tabs?: boolean;
}

/** Where a server listens for WebSockets. */
const PATH = "/sync";

/** What each entry of the package knows: where its files are. @internal */
export interface Files {
  load(): Promise<Loaded>;
  /** The worker for long documents; without it the page reads them. */
  startWorker?(): Worker;
}

/** @internal */
export async function connectWith({ load, startWorker }: Files, options: ConnectOptions): Promise<Client> {
  const { token, getToken = token === undefined ? undefined : () => token } = options;
  const url = options.url === undefined ? undefined : webSocketUrl(options.url);
  const name = `concord ${url ?? "local"} ${options.user ?? ""}`;
  const [{ wasm, module }, { storage, fallback }] = await Promise.all([load(), openStorage({ name, kind: options.storage })]);
  return new Client({
    wasm,
    long: startWorker && new LongLoader(module, startWorker),
    storage,
    storageFault: fallback,
    joinTabs: (events) => (options.tabs === false ? stayAlone(events) : joinTabs(name, events)),
    url,
    getToken,
  });
}

/** @internal */
export function webSocketUrl(given: string): string {
  const url = new URL(given, typeof location === "undefined" ? undefined : location.href);
  url.protocol = url.protocol.replace(/^http/, "ws");
  if (url.protocol !== "ws:" && url.protocol !== "wss:") {
    throw new TypeError(`${given} is no address of a server: it must begin with wss:, ws:, https: or http:`);
  }
  if (url.pathname === "/") {
    url.pathname = PATH;
  }
  url.hash = "";
  return url.href;
}
