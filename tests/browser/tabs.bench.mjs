/**
 * Tabs in a real Chromium: several pages of one origin, of which the leader is closed, crashed, told that it
 * will be frozen, hung without a word, and put into the back/forward cache. Prints the take-over times and fails when
 * one is too long, or when two pages lead in the end.
 *
 * Run: `node tests/browser/tabs.bench.mjs`, with CONCORD_TEST_CHROMIUM as for the tests.
 */

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { performance } from "node:perf_hooks";
import { fileURLToPath } from "node:url";

import { launch } from "./harness.mjs";

const here = fileURLToPath(new URL("../../client-wasm/js", import.meta.url));
const { build } = createRequire(`${here}/package.json`)("esbuild");
const built = await build({
  stdin: { contents: 'export * from "./src/tabs/group.ts";', resolveDir: here, loader: "ts" },
  bundle: true,
  format: "esm",
  target: "es2022",
  write: false,
});
const script = built.outputFiles[0].text;
const page = `<!doctype html><title>tab</title><script type="module">
  import { joinTabs } from "/tabs.js";
  const seen = (window.seen = { roles: [], messages: [], gone: [], missed: 0, errors: [] });
  addEventListener("error", (event) => seen.errors.push(event.message));
  addEventListener("unhandledrejection", (event) => seen.errors.push(String(event.reason)));
  window.tabs = joinTabs("test", {
    role: (role) => seen.roles.push([role, Date.now()]),
    leader: () => {},
    message: (message, from) => seen.messages.push([message, from]),
    gone: (tab) => seen.gone.push([tab, Date.now()]),
    missed: () => (seen.missed += 1),
  });
</script>`;
const server = createServer((request, response) => {
  const isScript = request.url === "/tabs.js";
  response.writeHead(200, { "content-type": isScript ? "text/javascript" : "text/html" });
  response.end(isScript ? script : request.url === "/other" ? "<!doctype html>elsewhere" : page);
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const origin = `http://localhost:${server.address().port}`;

// A process per page, or a crash would take them all.
const browser = await launch(["--process-per-tab"], { ignoreDefaultArgs: ["--disable-back-forward-cache"] });

const results = [];

/** Waits until `check` holds in some page of these; the page, and the Unix milliseconds it took since `from`. */
async function until(what, check, timeoutMs = 15_000) {
  const end = performance.now() + timeoutMs;
  for (;;) {
    const found = await check();
    if (found !== undefined && found !== false) return found;
    if (performance.now() > end) throw new Error(`waited for: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

const roleOf = (page) => page.evaluate(() => window.tabs?.role);

async function leaderOf(pages) {
  return until("a leader", async () => {
    for (const page of pages) if ((await roleOf(page)) === "leader") return page;
    return undefined;
  });
}

/** Milliseconds from `from` to when this page last began to lead. */
async function ledAfter(page, from) {
  const roles = await page.evaluate(() => window.seen.roles);
  return roles.findLast(([role]) => role === "leader")[1] - from;
}

/** A context with four pages, all of which know who leads. */
async function withPages(name, budgetMs, run) {
  const context = await browser.newContext();
  const pages = [];
  for (let index = 0; index < 4; index += 1) {
    const opened = await context.newPage();
    await opened.goto(`${origin}/`);
    pages.push(opened);
  }
  const leader = await leaderOf(pages);
  const id = await leader.evaluate(() => window.tabs.id);
  for (const page of pages) await until("all to know the leader", () => page.evaluate((id) => window.tabs.leader === id, id));
  const others = pages.filter((page) => page !== leader);
  const session = await context.newCDPSession(leader);
  const ms = await run({ context, leader, others, session, id });
  results.push([name, ms]);
  console.log(`${name}: ${ms} ms`);
  assert.ok(ms <= budgetMs, `${name} took ${ms} ms, more than ${budgetMs}`);
  for (const page of others) assert.deepEqual(await page.evaluate(() => window.seen.errors), []);
  await context.close();
}

async function reportedGone(pages, id) {
  for (const page of pages) {
    await until("gone", () => page.evaluate((id) => window.seen.gone.some(([tab]) => tab === id), id));
  }
}

try {
  await withPages("messages", 1_000, async ({ leader, others, id }) => {
    const from = Date.now();
    await leader.evaluate(() => {
      for (let n = 0; n < 200; n += 1) window.tabs.post({ n, bytes: new Uint8Array(3) });
    });
    const expected = Array.from({ length: 200 }, (_, n) => n);
    for (const page of others) {
      await until("200 messages", () => page.evaluate(() => window.seen.messages.length >= 200));
      const got = await page.evaluate(() => window.seen.messages.map(([message, from]) => [message.n, from]));
      assert.deepEqual(got.map(([n]) => n), expected);
      assert.ok(got.every(([, sender]) => sender === id));
    }
    return Date.now() - from;
  });

  await withPages("leader's page closed", 1_000, async ({ leader, others, id }) => {
    const from = Date.now();
    await leader.close();
    const next = await leaderOf(others);
    await reportedGone(others, id);
    return ledAfter(next, from);
  });

  await withPages("leader says goodbye", 500, async ({ leader, others, id }) => {
    const from = await leader.evaluate(() => {
      window.tabs.close();
      return Date.now();
    });
    const next = await leaderOf(others);
    await reportedGone(others, id);
    return ledAfter(next, from);
  });

  await withPages("leader crashed", 1_500, async ({ leader, others, session, id }) => {
    const crashed = new Promise((resolve) => leader.once("crash", resolve));
    const from = Date.now();
    session.send("Page.crash").catch(() => {});
    await crashed;
    const next = await leaderOf(others);
    await reportedGone(others, id);
    return ledAfter(next, from);
  });

  await withPages("leader told that it will be frozen", 1_000, async ({ leader, others }) => {
    const from = Date.now();
    // Chromium does not freeze a page that it counts as visible, as all are when headless: the event alone.
    await leader.evaluate(() => document.dispatchEvent(new Event("freeze")));
    const next = await leaderOf(others);
    const ms = await ledAfter(next, from);
    await next.evaluate(() => window.tabs.post("while frozen"));
    await leader.evaluate(() => document.dispatchEvent(new Event("resume")));
    await until("the thawed page to follow", async () => (await roleOf(leader)) === "follower");
    await until("the message it missed", () => leader.evaluate(() => window.seen.messages.some(([text]) => text === "while frozen")));
    assert.equal(await roleOf(next), "leader");
    return ms;
  });

  await withPages("leader hung", 7_000, async ({ leader, others }) => {
    const from = Date.now();
    // Nothing runs in the page for ten seconds: as if it were suspended without a word.
    const hang = leader.evaluate(() => {
      const end = Date.now() + 10_000;
      while (Date.now() < end);
      window.seen.thawed = Date.now();
    });
    const next = await leaderOf(others);
    const ms = await ledAfter(next, from);
    await hang;
    await until("the robbed page to follow", async () => (await roleOf(leader)) === "follower");
    const [roles, thawed] = await leader.evaluate(() => [window.seen.roles, window.seen.thawed]);
    const late = roles.at(-1)[1] - thawed;
    console.log(`  the robbed leader stepped down ${late} ms after it ran again`);
    assert.ok(late < 200);
    assert.equal(await roleOf(next), "leader");
    return ms;
  });

  await withPages("leader went to the back/forward cache", 1_000, async ({ leader, others, id }) => {
    await leader.evaluate(() => {
      window.kept = true;
    });
    const from = Date.now();
    await leader.goto(`${origin}/other`);
    const next = await leaderOf(others);
    await reportedGone(others, id);
    const ms = await ledAfter(next, from);
    await leader.goBack({ waitUntil: "commit" });
    await until("the page to follow again", async () => (await roleOf(leader)) === "follower");
    const [kept, missed] = await leader.evaluate(() => [window.kept === true, window.seen.missed]);
    console.log(`  ${kept ? "it was kept" : "Chromium did not keep it (a new page loaded)"}`);
    assert.equal(missed, kept ? 1 : 0);
    const nextId = await next.evaluate(() => window.tabs.id);
    await until("it to know the leader", () => leader.evaluate((id) => window.tabs.leader === id, nextId));
    return ms;
  });

  await withPages("back from the cache while another page hangs", 2_000, async ({ leader, others }) => {
    await leader.evaluate(() => {
      window.kept = true;
    });
    const [hanging, witness] = others;
    const hang = hanging.evaluate(() => {
      const end = Date.now() + 8_000;
      while (Date.now() < end);
    });
    await leader.goto(`${origin}/other`);
    // So that the page that hangs is given the lock it watches by.
    await new Promise((resolve) => setTimeout(resolve, 500));
    await leader.goBack({ waitUntil: "commit" });
    const from = Date.now();
    await leader.evaluate(() => window.tabs.post("back"));
    await until("its message", () => witness.evaluate(() => window.seen.messages.some(([text]) => text === "back")));
    const ms = Date.now() - from;
    if (!(await leader.evaluate(() => window.kept === true))) console.log("  Chromium did not keep it (a new page loaded)");
    await hang;
    return ms;
  });

  await withPages("leader with a CPU slowed sixfold is left alone for 12 s", 1, async ({ leader, others, session }) => {
    await session.send("Emulation.setCPUThrottlingRate", { rate: 6 });
    await others[0].bringToFront();
    await new Promise((resolve) => setTimeout(resolve, 12_000));
    assert.equal(await roleOf(leader), "leader");
    for (const page of others) assert.equal(await roleOf(page), "follower");
    return 0;
  });
  console.log("browser: tabs ok");
} finally {
  await browser.close();
  server.close();
}
