// What the browser tests share: a server of the built `concord`, pages, and Chromium.
//
// BUILT_CONCORD names the server's binary and CONCORD_TEST_CHROMIUM the browser; `cargo xtask test` sets both.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { extname, join, normalize } from "node:path";
import { createInterface } from "node:readline";
import { after, before } from "node:test";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../..", import.meta.url));
const client = join(root, "client-wasm/js");
const { chromium } = createRequire(join(client, "package.json"))("playwright-core");

/** The flags that Debian's Chromium is run with: no window, no sandbox (tests run as root), no calls home. */
const FLAGS = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** How long anything that must happen may take, milliseconds. Generous: it ends tests that hang, and measures nothing. */
export const PATIENCE_MS = 30_000;

/** A server with its own data, which is removed in the end. */
export class Server {
  #process;
  #data = mkdtempSync(join(tmpdir(), "concord-browser-"));
  #address = "127.0.0.1:0";
  #log = "";
  #more = [];

  /** With these arguments besides. */
  static async start(more = []) {
    const server = new Server();
    server.#more = more;
    await server.restart();
    return server;
  }

  get url() {
    return `ws://${this.#address}/sync`;
  }

  get isUp() {
    return this.#process.exitCode === null && this.#process.signalCode === null;
  }

  get log() {
    return this.#log;
  }

  /** Starts it again, on the same port and data. */
  async restart() {
    const binary = process.env.BUILT_CONCORD;
    if (binary === undefined) {
      throw new Error("BUILT_CONCORD names no server: run `cargo xtask test`");
    }
    const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("CONCORD_")));
    this.#process = spawn(binary, ["serve", "--listen", this.#address, "--data", join(this.#data, "data"), ...this.#more], {
      env,
      stdio: ["ignore", "pipe", "pipe"],
    });
    const collect = (text) => {
      this.#log += text;
    };
    this.#process.stderr.on("data", collect);
    const lines = createInterface({ input: this.#process.stdout });
    await new Promise((listening, failed) => {
      lines.on("line", (line) => {
        collect(`${line}\n`);
        const address = /(127\.0\.0\.1:\d+)/.exec(line);
        if (address !== null) {
          this.#address = address[1];
          listening();
        }
      });
      this.#process.once("exit", () => failed(new Error(`the server ended:\n${this.#log}`)));
    });
  }

  /** By default `kill -9`. Of `SIGTERM` it makes snapshots of what was edited. */
  async kill(signal = "SIGKILL") {
    const ended = once(this.#process, "exit");
    this.#process.kill(signal);
    await ended;
  }

  async stop() {
    if (this.isUp) {
      await this.kill();
    }
    rmSync(this.#data, { recursive: true, force: true });
  }

  /** A metric's value, summed over its labels. */
  async metric(name) {
    const answer = await fetch(`http://${this.#address}/metrics`);
    const lines = (await answer.text()).split("\n").filter((line) => line.startsWith(name));
    return lines.reduce((sum, line) => sum + Number(line.split(" ").at(-1)), 0);
  }
}

const TYPES = {
  ".css": "text/css",
  ".html": "text/html",
  ".js": "text/javascript",
  ".mjs": "text/javascript",
  ".svg": "image/svg+xml",
  ".wasm": "application/wasm",
};
const PAGE = `<!doctype html><meta charset="utf-8"><title>A page of Concord's tests</title><p id="show"></p>`;

/** Serves an empty page at `/`, the client's package below `/client/`, and what is in `more` by path. */
export async function servePages(more = {}) {
  const server = createServer((request, response) => {
    const { pathname } = new URL(request.url, "http://localhost");
    try {
      let body = more[pathname] ?? PAGE;
      let type = pathname in more ? (TYPES[extname(pathname)] ?? "text/html") : "text/html";
      if (pathname.startsWith("/client/")) {
        body = readFileSync(join(client, "dist", normalize(pathname.slice("/client/".length))));
        type = TYPES[extname(pathname)] ?? "application/octet-stream";
      }
      response.writeHead(200, { "content-type": type, "cache-control": "no-store" });
      response.end(body);
    } catch {
      response.writeHead(404);
      response.end();
    }
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  // A secure context, unlike the address.
  const url = `http://localhost:${server.address().port}`;
  return {
    url,
    stop: () => {
      server.closeAllConnections();
      server.close();
    },
  };
}

/** A browser; `flags` and `options` beside what all have. */
export function launch(flags = [], options = {}) {
  const executablePath = process.env.CONCORD_TEST_CHROMIUM ?? "/usr/bin/chromium";
  return chromium.launch({ executablePath, args: [...FLAGS, ...flags], ...options });
}

/**
 * A server, pages and a browser for the tests of a file: `take` gets them before the first, and they end after the
 * last. `more`: what {@link servePages} is to serve besides; `args`: for the server.
 */
export function stage(take, more = () => ({}), args = []) {
  let parts = {};
  before(async () => {
    const [server, pages, browser] = await Promise.all([Server.start(args), Promise.resolve(more()).then(servePages), launch()]);
    parts = { server, pages, browser };
    await take(parts);
  });
  after(async () => {
    await parts.browser?.close();
    parts.pages?.stop();
    await parts.server?.stop();
  });
}

/**
 * A tab with a client that is connected to `url`; `window.client` in it. Whatever nobody caught in it is in
 * `tab.faults`.
 */
export async function openTab(context, pages, url, options = {}) {
  const tab = await context.newPage();
  tab.faults = [];
  tab.on("pageerror", (error) => tab.faults.push(error));
  await tab.goto(pages.url);
  await begin(tab, url, options);
  return tab;
}

/** Connects in a page that was loaded, or loaded again. */
export async function begin(tab, url, options = {}) {
  await tab.evaluate(
    async ([url, options]) => {
      const { connect } = await import("/client/index.js");
      window.client = await connect({ url, ...options });
    },
    [url, options],
  );
}

/** Makes a document in a tab: `window.doc`. Its URL, once the server has it. */
export function make(tab, initial) {
  return tab.evaluate(async (initial) => {
    window.doc = window.client.create(initial);
    await window.doc.whenSynced();
    return window.doc.url;
  }, initial);
}

/** Opens a document in a tab: `window.doc`. Waits until there is something to show. */
export async function openDocument(tab, url) {
  await tab.evaluate(async (url) => {
    window.doc = window.client.open(url);
    await window.doc.whenReady();
  }, url);
}

/** Waits until `check`, run in the tab with `argument`, is true; says what it last saw. */
export async function until(tab, check, argument) {
  await tab.waitForFunction(check, argument, { timeout: PATIENCE_MS, polling: 20 });
}

/** Waits until nothing in the storage of the tab's browser is marked as unsent to the server. */
export async function sentAll(tab, { url }) {
  const count = (name) =>
    new Promise((resolve, reject) => {
      const opening = indexedDB.open(name);
      opening.onerror = () => reject(opening.error);
      opening.onsuccess = () => {
        const counting = opening.result.transaction("unsent").objectStore("unsent").count();
        opening.result.close();
        counting.onerror = () => reject(counting.error);
        counting.onsuccess = () => resolve(counting.result);
      };
    });
  const deadline = Date.now() + PATIENCE_MS;
  for (let unsent; (unsent = await tab.evaluate(count, `concord ${url} `)) > 0; ) {
    if (Date.now() > deadline) {
      throw new Error(`${unsent} changes are marked as unsent`);
    }
    await new Promise((soon) => setTimeout(soon, 50));
  }
}

/** For `JSON.stringify`: keys have no order of their own. */
const sortedKeys = (_, part) =>
  typeof part === "object" && part !== null && !Array.isArray(part)
    ? Object.fromEntries(Object.entries(part).sort(([one], [other]) => (one < other ? -1 : 1)))
    : part;

/** Waits until all tabs show the same value, and all of them say that the server has it. The value. */
export async function settled(tabs) {
  const deadline = Date.now() + PATIENCE_MS;
  for (;;) {
    const seen = await Promise.all(
      tabs.map((tab) =>
        tab.evaluate((sorted) => ({ value: JSON.stringify(window.doc.value, (0, eval)(sorted)), heads: window.doc.heads.join(), status: window.doc.status }), String(sortedKeys)),
      ),
    );
    const isSame = seen.every(({ heads, status }) => heads === seen[0].heads && status.saved && status.synced);
    if (isSame) {
      for (const { value } of seen) {
        if (value !== seen[0].value) {
          throw new Error(`the same heads and not the same values:\n${seen.map((one) => one.value).join("\n")}`);
        }
      }
      return JSON.parse(seen[0].value);
    }
    if (Date.now() > deadline) {
      throw new Error(`tabs do not come to the same:\n${JSON.stringify(seen, undefined, 1)}`);
    }
    await new Promise((soon) => setTimeout(soon, 50));
  }
}
