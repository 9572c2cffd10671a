// Promise: whatever tabs, browsers, the network and the server do, and in whatever order: what a tab was told is
// saved is in the documents at the end, once; what was removed stays removed; `synced` means that a browser which
// has nothing but the server sees it; all tabs come to the same; and a browser never has more than one connection.
//
// Steps come from one seed, which is printed; CONCORD_TEST_SEED runs it again, CONCORD_TEST_LONG=1 runs 10,000 steps
// and CONCORD_TEST_STEPS as many as it says. What happens in which order is then the same, though not when.
//
// Each edit brings a token of its own, so that a lost or doubled one can't hide behind another (reference.mjs says
// what must become of each). What undo and redo changed is compared at once, before anything else can happen. What was
// believed to be synced is checked with the server killed and all other browsers offline, so that none can bring it late.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { begin, PATIENCE_MS, sentAll, stage } from "./harness.mjs";
import { Reference, Steps } from "./reference.mjs";

const LONG = process.env.CONCORD_TEST_LONG === "1";
const STEPS = Number(process.env.CONCORD_TEST_STEPS ?? (LONG ? 10_000 : 300));
const SEED = Number(process.env.CONCORD_TEST_SEED ?? Math.floor(Math.random() * 2 ** 32));
/** All is brought to rest and compared so often, steps. */
const REST_EVERY = 75;
const MAX_TABS = 3;
const BROWSERS = 2;
/** More documents than the two that everybody has. */
const MAX_CREATED = 6;

const KINDS = ["title", "map", "list", "text", "nested", "inside", "line", "count", "unmap", "unlist", "untext"];
const STEP_WEIGHTS = {
  edit: 60,
  burst: 10,
  undo: 10,
  redo: 8,
  wait: 8,
  network: 6,
  reload: 5,
  openTab: 6,
  crash: 3,
  closeTab: 3,
  create: 2,
  open: 3,
  server: 3,
};

/** Numbers in [0, 1), by seed (mulberry32). */
function generator(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

const random = generator(SEED);
const below = (count) => Math.floor(random() * count);
const pick = (list) => list[below(list.length)];

function weighted(weights) {
  let left = random() * Object.values(weights).reduce((sum, weight) => sum + weight, 0);
  for (const [name, weight] of Object.entries(weights)) {
    left -= weight;
    if (left < 0) {
      return name;
    }
  }
  throw new Error("weights are positive");
}

let server, pages, chromium;
/** `{ context, tabs, offline }` each. */
let browsers = [];
let isServerUp = true;
const reference = new Reference();
const { operations } = reference;
/** By URL: which browser made it. */
const documents = new Map();
/** By URL: heads that were believed to be synced, by any tab. */
const beliefs = new Map();
const faults = [];
const steps = [];

stage(
  (parts) => ({ server, pages, browser: chromium } = parts),
  () => ({ "/random.js": readFileSync(new URL("random-page.js", import.meta.url)) }),
);

async function addBrowser() {
  const context = await chromium.newContext();
  await context.exposeBinding("reportSaved", (_, operation) => {
    operations.get(operation).saved = true;
  });
  return { context, tabs: [], offline: false };
}

/**
 * Runs a function of random-page.js in a tab. Not by an import each time: nothing but that would hold the promise of one
 * that is waited for, and in thousands of them Chromium collects one before it is there.
 */
const run = (tab, name, ...given) =>
  tab.evaluate(([name, given]) => window.random[name](...given), [name, given]);

async function addTab(browser) {
  const tab = await browser.context.newPage();
  tab.on("pageerror", (error) => faults.push(error));
  tab.on("console", (message) => {
    // The browser itself tells of connections that could not be made.
    if (message.type() === "error" && !/WebSocket connection|favicon/.test(message.text())) {
      faults.push(new Error(`console: ${message.text()}`));
    }
  });
  tab.shows = new Set([...documents.keys()].slice(0, 2));
  await tab.goto(pages.url);
  await start(tab);
  browser.tabs.push(tab);
  return tab;
}

async function start(tab) {
  await begin(tab, server.url);
  await tab.evaluate(async () => {
    window.random = await import("/random.js");
  });
  // A page that is loaded again has nothing to undo.
  tab.life = Symbol("page");
  tab.steps = new Map();
  for (const url of tab.shows) {
    await run(tab, "open", url);
  }
}

const allTabs = () => browsers.flatMap((browser) => browser.tabs);

/** Writes down what a tab believed, before it is gone. */
async function confess(tab) {
  for (const [url, heads] of await run(tab, "beliefs")) {
    const all = beliefs.get(url) ?? new Set();
    beliefs.set(url, all);
    for (const head of heads) {
      all.add(head);
    }
  }
}

async function edit(tab, kinds = KINDS) {
  const url = pick([...tab.shows]);
  const kind = pick(kinds);
  const operation = reference.add(kind, url, tab.life);
  const goesOn = random() < 0.5;
  const told = await run(tab, "edit", url, kind, operation, [random(), random()], goesOn);
  reference.tell(operation, told);
  if (told !== undefined) {
    stepsOf(tab, url).made(operation, operations.get(operation), goesOn);
  }
}

function stepsOf(tab, url) {
  const steps = tab.steps.get(url) ?? new Steps();
  tab.steps.set(url, steps);
  return steps;
}

/** Undoes or redoes in one of the documents in which the tab has something to take back. */
async function takeBack(tab, what) {
  const from = { undo: "done", redo: "undone" }[what];
  const urls = [...tab.steps].filter(([, steps]) => steps[from].length > 0 && !steps.isBlind).map(([url]) => url);
  if (urls.length > 0) {
    const url = pick(urls);
    const operation = reference.add(what, url, tab.life);
    const told = await run(tab, "takeBack", url, what, operation);
    if (told !== undefined) {
      reference.tookBack(operation, tab.steps.get(url), told);
    }
  }
}

async function create(browser, tab) {
  const operation = reference.add("create", undefined, tab.life);
  const url = await run(tab, "create", operation);
  tab.shows.add(url);
  documents.set(url, { browser, operation });
  return url;
}

const STEP = {
  edit: (_, tab) => edit(tab),
  async burst(_, tab) {
    for (let count = 2 + below(6); count > 0; count -= 1) {
      await edit(tab);
    }
  },
  async undo(_, tab) {
    const count = 1 + below(3);
    for (let left = count; left > 0; left -= 1) {
      await takeBack(tab, "undo");
    }
    // Right away, before anything new takes the possibility away.
    for (let left = below(count + 1); left > 0; left -= 1) {
      await takeBack(tab, "redo");
    }
  },
  redo: (_, tab) => takeBack(tab, "redo"),
  wait: () => new Promise((soon) => setTimeout(soon, random() * 150)),
  async network(browser, tab) {
    browser.offline = !browser.offline;
    await tab.evaluate((offline) => window.client.setOffline(offline), browser.offline);
  },
  async reload(browser, tab) {
    await confess(tab);
    await tab.reload();
    await start(tab);
    if (browser.tabs.length === 1) {
      // Nobody is left who knew.
      browser.offline = false;
    }
  },
  async openTab(browser) {
    if (browser.tabs.length < MAX_TABS) {
      await addTab(browser);
    }
  },
  async closeTab(browser, tab) {
    await confess(tab);
    browser.tabs.splice(browser.tabs.indexOf(tab), 1);
    await tab.close();
  },
  async crash(browser, tab) {
    await confess(tab);
    browser.tabs.splice(browser.tabs.indexOf(tab), 1);
    const session = await browser.context.newCDPSession(tab);
    // What is made last is lost, or not, as it happens; what a removal hit could not be told any more.
    const crashed = new Promise((crashed) => tab.once("crash", crashed));
    const last = random() < 0.5 ? edit(tab, KINDS.filter((kind) => !kind.startsWith("un"))).catch(() => {}) : undefined;
    session.send("Page.crash").catch(() => {});
    await crashed;
    await tab.close();
    await last;
  },
  async create(browser, tab) {
    if (documents.size < 2 + MAX_CREATED) {
      await create(browser, tab);
    }
  },
  async open(_, tab) {
    const url = pick([...documents.keys()]);
    tab.shows.add(url);
    await run(tab, "open", url);
  },
  async server() {
    await (isServerUp ? server.kill() : server.restart());
    isServerUp = !isServerUp;
  },
};

async function step() {
  const browser = pick(browsers);
  if (browser.tabs.length === 0) {
    browser.offline = false;
    await addTab(browser);
  }
  const what = weighted(STEP_WEIGHTS);
  const at = below(browser.tabs.length);
  steps.push(`${what} in ${browsers.indexOf(browser)}.${at}`);
  await STEP[what](browser, browser.tabs[at]);
}

/** What was ever believed to be synced is there for somebody who has nothing but the server. */
async function checkBeliefs() {
  if (isServerUp) {
    await server.kill();
  }
  await Promise.all(allTabs().map(confess));
  for (const browser of browsers) {
    if (browser.tabs.length > 0) {
      await browser.tabs[0].evaluate(() => window.client.setOffline(true));
      for (const tab of browser.tabs) {
        await tab.waitForFunction(() => window.client.status.connection === "offline", undefined, { timeout: PATIENCE_MS });
      }
    }
  }
  await server.restart();
  isServerUp = true;
  const stranger = await addBrowser();
  const reader = await addTab(stranger);
  for (const [url, heads] of beliefs) {
    if (heads.size > 0) {
      await run(reader, "open", url);
      const deadline = Date.now() + PATIENCE_MS;
      let lacking;
      do {
        lacking = await run(reader, "lacks", url, [...heads]);
      } while (lacking.length > 0 && Date.now() < deadline);
      assert.deepEqual(lacking, [], `believed to be on the server, and not there, of ${url}`);
    }
  }
  await stranger.context.close();
  for (const browser of browsers) {
    browser.offline = false;
    await browser.tabs[0]?.evaluate(() => window.client.setOffline(false));
  }
}

/** Waits until all tabs show the same of all documents, and say that it is kept. By URL. */
async function settled() {
  const deadline = Date.now() + PATIENCE_MS;
  for (;;) {
    const seen = (await Promise.all(allTabs().map((tab) => run(tab, "look")))).flat();
    const byUrl = new Map();
    let why;
    for (const one of seen) {
      const { saved, synced, state } = one.status;
      const first = byUrl.get(one.url) ?? one;
      byUrl.set(one.url, first);
      // Nobody may ever have saved it.
      const isThere = operations.get(documents.get(one.url).operation).saved;
      if (one.heads !== first.heads || !saved || !synced || (state !== "ready" && isThere)) {
        why = `${one.url}: ${one.heads} and ${first.heads}, ${JSON.stringify(one.status)}`;
      } else {
        assert.equal(one.value, first.value, "the same heads and not the same values");
      }
    }
    if (why === undefined) {
      return new Map([...byUrl].filter(([, one]) => one.status.state === "ready").map(([url, one]) => [url, JSON.parse(one.value)]));
    }
    if (Date.now() > deadline) {
      const states = await Promise.all(allTabs().map((tab) => tab.evaluate(() => JSON.stringify(window.client.status))));
      throw new Error(`tabs do not come to the same: ${why}\n${states.join("\n")}`);
    }
    await new Promise((soon) => setTimeout(soon, 30));
  }
}

/** A document that no tab shows, when all that was done is in it. */
async function fromServer(reader, url) {
  await run(reader, "open", url);
  const deadline = Date.now() + PATIENCE_MS;
  for (;;) {
    const value = await run(reader, "valueOf", url);
    try {
      reference.check(url, value);
      return value;
    } catch (error) {
      if (Date.now() > deadline) {
        throw error;
      }
    }
    await new Promise((soon) => setTimeout(soon, 50));
  }
}

/** Brings all to rest and compares it with what was done. */
async function rest() {
  await checkBeliefs();
  for (const browser of browsers) {
    if (browser.tabs.length === 0) {
      await addTab(browser);
    }
    // Also what is in documents that no tab opens.
    await sentAll(browser.tabs[0], server);
  }
  const values = await settled();
  const deadline = Date.now() + PATIENCE_MS;
  while ((await server.metric("concord_connections")) !== BROWSERS && Date.now() < deadline) {
    await new Promise((soon) => setTimeout(soon, 50));
  }
  assert.equal(await server.metric("concord_connections"), BROWSERS, "a connection for each browser");
  // And the server has just that.
  const stranger = await addBrowser();
  const reader = await addTab(stranger);
  for (const [url, { operation }] of documents) {
    if (!values.has(url) && operations.get(operation).saved) {
      values.set(url, await fromServer(reader, url));
    }
  }
  for (const [url, value] of values) {
    reference.check(url, value);
    await run(reader, "open", url);
    await reader.waitForFunction(
      ([url, value]) => {
        const { canonical, documents } = window.random;
        return canonical(documents.get(url).value) === canonical(value);
      },
      [url, value],
      { timeout: PATIENCE_MS },
    );
  }
  await stranger.context.close();
  assert.deepEqual(faults, []);
}

test(`${STEPS} random steps, CONCORD_TEST_SEED=${SEED}`, { timeout: LONG ? 3_600_000 : 240_000 }, async () => {
  console.log(`CONCORD_TEST_SEED=${SEED}`);
  browsers = await Promise.all(Array.from({ length: BROWSERS }, addBrowser));
  try {
    const first = await addTab(browsers[0]);
    await create(browsers[0], first);
    await create(browsers[0], first);
    await addTab(browsers[1]);
    for (let count = 1; count <= STEPS; count += 1) {
      await step();
      if (count % REST_EVERY === 0 || count === STEPS) {
        await rest();
      }
    }
  } catch (error) {
    console.log(`failed with CONCORD_TEST_SEED=${SEED} after ${steps.length} steps:\n${steps.slice(-40).join("\n")}`);
    if (faults.length > 0) {
      console.log(faults);
    }
    throw error;
  }
  const of = (kind) => [...operations.values()].filter((made) => made.kind === kind).length;
  console.log(`${operations.size} operations, ${of("nothing")} without anything to do, ${of("undo")} undone, ${of("redo")} redone`);
});
