/** `@concord/client` in Node: documents are in memory. WebSockets are Node's own, from version 22 on. */
import { readFile } from "node:fs/promises";

import type { Client } from "./client/client.js";
import { type ConnectOptions, connectWith } from "./client/connect.js";
import { loadFrom } from "./load.js";

export * from "./public.js";

/** Connects to a server, unless there is none. See the browser's `connect`. */
export function connect(options: ConnectOptions = {}): Promise<Client> {
  return connectWith({ load }, { storage: "memory", tabs: false, ...options });
}

/** The wasm module, read from the file beside this one. */
function load(): ReturnType<typeof loadFrom> {
  return loadFrom(() => readFile(new URL("./concord_bg.wasm", import.meta.url)));
}
