// What the tests of the bindings share: pages with the real libraries in them, and tabs that show one document.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { launch, make, openDocument, openTab, Server, servePages, until } from "./harness.mjs";

const client = fileURLToPath(new URL("../../client-wasm/js", import.meta.url));
const { build } = createRequire(join(client, "package.json"))("esbuild");
const BINDINGS = ["store", "react", "codemirror", "angularjs"];

/** A server, the page of a library (`pages/` and its name), and a browser. */
export class Bench {
  static async start(library) {
    const bench = new Bench();
    [bench.server, bench.pages, bench.browser] = await Promise.all([Server.start(), servePage(library), launch()]);
    return bench;
  }

  async stop() {
    await this.browser.close();
    this.pages.stop();
    await this.server.stop();
  }

  /** Shows a new document in a tab, in another of the same browser, and in one of another browser: `window.doc`. */
  async tabsOf(initial) {
    const contexts = [await this.browser.newContext(), await this.browser.newContext()];
    const open = (context) => openTab(context, this.pages, this.server.url);
    const [first, ...others] = await Promise.all([open(contexts[0]), open(contexts[0]), open(contexts[1])]);
    const url = await make(first, initial);
    await Promise.all(others.map((tab) => openDocument(tab, url)));
    const tabs = [first, ...others];
    const close = async () => {
      assert.deepEqual(tabs.flatMap((tab) => tab.faults).map(String), []);
      await Promise.all(contexts.map((context) => context.close()));
    };
    return { tabs, url, close };
  }
}

async function servePage(library) {
  const made = await build({
    entryPoints: [fileURLToPath(new URL(`pages/${library}.mjs`, import.meta.url))],
    outdir: "/",
    bundle: true,
    write: false,
    format: "esm",
    logLevel: "warning",
    define: { "process.env.NODE_ENV": '"development"' },
    nodePaths: [join(client, "node_modules")],
    alias: Object.fromEntries(BINDINGS.map((name) => [`@concord/client/${name}`, join(client, `dist/${name}.js`)])),
  });
  return servePages(Object.fromEntries(made.outputFiles.map(({ path, text }) => [path, text])));
}

/** The text of an element. */
export function text(tab, selector) {
  return tab.evaluate((selector) => document.querySelector(selector)?.textContent, selector);
}

/** Waits until an element has this text. */
export function shows(tab, selector, expected) {
  return until(tab, ([selector, expected]) => document.querySelector(selector)?.textContent === expected, [selector, expected]);
}
