// `node tests/browser/paper.bench.mjs`: a paper of a quarter of a million keystrokes, in two tabs that type at the same
// time: Concord's client, and next to it the same page on stock automerge-repo. Prints what it measured and the ratios.
//
// BUILT_CONCORD names a release build of the server, CONCORD_TEST_TRACES the directory of the editing traces.
// Each tab types at the end of the text, ten letters a second for three seconds, while the other does the same.

import { spawnSync } from "node:child_process";
import { join } from "node:path";

import { launch, openDocument, openTab, Server, servePages } from "./harness.mjs";
import { bundle } from "./stock.mjs";

const ROUNDS = 3;
const LETTERS = 30;
const EVERY_MS = 100;

const trace = join(process.env.CONCORD_TEST_TRACES ?? new URL("../../../shared/traces", import.meta.url).pathname, "automerge-paper.json.gz");

/** In the page: types, and measures from each keystroke to the next picture that is painted after it. */
const TYPE = async ([count, every]) => {
  const long = [];
  const observer = new PerformanceObserver((list) => long.push(...list.getEntries().map((entry) => entry.duration)));
  observer.observe({ entryTypes: ["longtask"] });
  const painted = [];
  for (let n = 0; n < count; n += 1) {
    const begun = performance.now();
    window.typeLetter();
    document.querySelector("#show").textContent = window.shown().slice(-200);
    await new Promise((next) => requestAnimationFrame(() => setTimeout(next, 0)));
    painted.push(performance.now() - begun);
    await new Promise((soon) => setTimeout(soon, Math.max(0, every - (performance.now() - begun))));
  }
  observer.disconnect();
  return { painted, long };
};

/** In the page: when each length of the text was first shown, by the wall clock. */
const WATCH = (count) =>
  new Promise((done) => {
    const from = window.shown().length;
    const seen = [];
    const look = () => {
      const length = window.shown().length - from;
      while (seen.length < length) seen.push(Date.now());
      if (seen.length < count) setTimeout(look, 2);
      else done(seen);
    };
    look();
  });

const median = (values) => values.toSorted((one, other) => one - other)[values.length >> 1];
const ms = (value) => `${value.toFixed(1)} ms`;

const server = await Server.start();
const pages = await servePages({ "/stock.js": await bundle() });
const browser = await launch();

async function concord(context, url) {
  const tab = await openTab(context, pages, server.url);
  const begun = Date.now();
  await openDocument(tab, url);
  const loaded = Date.now() - begun;
  await tab.evaluate(async () => {
    const { splice } = await import("/client/index.js");
    window.shown = () => window.doc.value.text;
    window.typeLetter = () => window.doc.change((draft) => splice(draft, ["text"], window.shown().length, 0, "x"));
  });
  return { tab, loaded };
}

async function stock(context, url) {
  const tab = await context.newPage();
  await tab.goto(pages.url);
  const begun = Date.now();
  await tab.evaluate(
    async ([server, url]) => {
      const { Repo, WebSocketClientAdapter, A } = await import("/stock.js");
      window.repo = new Repo({ network: [new WebSocketClientAdapter(server)] });
      window.handle = await window.repo.find(url);
      await window.handle.whenReady();
      window.shown = () => window.handle.doc().text;
      window.typeLetter = () => window.handle.change((doc) => A.splice(doc, ["text"], doc.text.length, 0, "x"));
    },
    [server.url, url],
  );
  return { tab, loaded: Date.now() - begun };
}

try {
  const made = spawnSync(process.env.BUILT_CONCORD, ["replay", trace, "--to", server.url, "--window", "4096", "--json"], { encoding: "utf8" });
  if (made.status !== 0) {
    throw new Error(`the paper could not be made: ${made.stderr}`);
  }
  const url = `automerge:${JSON.parse(made.stdout).server.document}`;
  const results = { concord: [], stock: [] };
  for (let round = 0; round < ROUNDS; round += 1) {
    for (const [name, open] of Object.entries({ concord, stock })) {
      const contexts = [await browser.newContext(), await browser.newContext()];
      const [one, other] = [await open(contexts[0], url), await open(contexts[1], url)];
      const watching = other.tab.evaluate(WATCH, LETTERS);
      const alone = await one.tab.evaluate(
        async ([type, count, every]) => {
          const times = [];
          const letter = window.typeLetter;
          window.typeLetter = () => {
            times.push(Date.now());
            letter();
          };
          const measured = await eval(`(${type})`)([count, every]);
          window.typeLetter = letter;
          return { ...measured, times };
        },
        [TYPE.toString(), LETTERS, EVERY_MS],
      );
      const seen = await watching;
      const both = await Promise.all([one, other].map(({ tab }) => tab.evaluate(TYPE, [LETTERS, EVERY_MS])));
      results[name].push({
        load: median([one.loaded, other.loaded]),
        paint: median(both.flatMap(({ painted }) => painted)),
        worst: Math.max(0, ...both.flatMap(({ long }) => long), ...alone.long),
        arrival: median(seen.map((at, n) => at - alone.times[n])),
      });
      await Promise.all(contexts.map((context) => context.close()));
    }
  }
  const of = (name, figure) => median(results[name].map((round) => round[figure]));
  const lines = { load: "until it can be edited", paint: "keystroke to paint, both typing", arrival: "arrival in the other tab", worst: "longest task while typing" };
  for (const [figure, what] of Object.entries(lines)) {
    const [ours, theirs] = [of("concord", figure), of("stock", figure)];
    console.log(`${what}: ${ms(ours)}, automerge-repo ${ms(theirs)}, ratio ${(ours / theirs).toFixed(2)}`);
  }
} finally {
  await browser.close();
  pages.stop();
  await server.stop();
}
