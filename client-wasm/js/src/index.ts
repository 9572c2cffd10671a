/** `@concord/client` in a browser. */
import type { Client } from "./client/client.js";
import { type ConnectOptions, connectWith } from "./client/connect.js";
import { loadFrom } from "./load.js";

export * from "./public.js";

/**
 * Opens this browser's documents, and connects to a server unless there is none.
 *
 * @example
 * const client = await connect({ url: "https://example.org" });
 * const board = client.create({ title: "Board" });
 * board.change((draft) => { draft.title = "Board of Acme"; });
 */
export function connect(options: ConnectOptions = {}): Promise<Client> {
  return connectWith({ load, startWorker }, options);
}

/** The wasm module, fetched from beside this file. Bundlers find it there, and put it beside what they make. */
function load(): ReturnType<typeof loadFrom> {
  return loadFrom(async () => {
    const url = new URL("./concord_bg.wasm", import.meta.url);
    const response = await fetch(url);
    if (!response.ok) {
      throw new Error(`${url.href} could not be fetched: status ${response.status}`);
    }
    return response;
  });
}

/** Bundlers find it as they find the module. */
function startWorker(): Worker {
  return new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
}
