// Promise: whoever opens /inspect sees documents as they are, while they are edited, and as they were at each version; who
// changed what, on top of what; and what was refused. With the pointer or with keys alone, in a wide or a narrow window.
//
// A real server, real Chromium; documents are written by REST and by stock WebSocket clients. Each test ends by asking
// what the page must never have done: thrown, broken its policy (Chromium says so in the console), or asked anybody
// but its server. What is compared is what is on the screen, not what the page believes.

import assert from "node:assert/strict";
import { test } from "node:test";

import { A, WebSocket } from "../interop/packages.mjs";
import { stage } from "./harness.mjs";
import { eventually, httpOf, inspect, make, rows, said, send, shot, shows, stock, upload, write } from "./inspect.mjs";

let server, browser;

stage((parts) => ({ server, browser } = parts));

/** A window, closed in the end; its page must have done nothing that it must not, but for what is `allowed`. */
async function look(t, fragment, options = {}, allowed = /^$/) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
  t.after(() => context.close());
  const page = await inspect(context, server, fragment);
  t.after(() => assert.deepEqual(page.faults.filter((fault) => !allowed.test(fault)), []));
  return page;
}

const company = () => ({
  name: "Acme",
  meetings: [
    { id: "a", date: "2026-11-21", notes: "Budget for the year" },
    { id: "b", date: "2026-12-01", notes: "" },
  ],
});

test("the page comes from the server itself, with a policy under which nothing but it can run", async () => {
  const base = httpOf(server);
  const moved = await fetch(`${base}/inspect`, { redirect: "manual" });
  assert.deepEqual([moved.status, moved.headers.get("location")], [308, "inspect/"]);
  const index = await (await fetch(`${base}/inspect/`)).text();
  const named = ["", ...[...index.matchAll(/(?:src|href)="([^"]+)"/g)].map(([, name]) => name)];
  const seen = new Set();
  for (const name of named) {
    if (seen.has(name)) continue;
    seen.add(name);
    const answer = await fetch(`${base}/inspect/${name}`);
    assert.equal(answer.status, 200, name);
    const text = await answer.text();
    const policy = answer.headers.get("content-security-policy");
    for (const part of ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "require-trusted-types-for 'script'"]) assert.ok(policy.includes(part), name);
    assert.ok(!policy.includes("unsafe"));
    assert.equal(answer.headers.get("x-content-type-options"), "nosniff");
    assert.equal(answer.headers.get("referrer-policy"), "no-referrer");
    const type = name === "" ? "text/html" : { css: "text/css", js: "text/javascript", svg: "image/svg+xml" }[name.split(".").at(-1)];
    assert.ok(answer.headers.get("content-type").startsWith(type), `${name}: ${answer.headers.get("content-type")}`);
    const etag = answer.headers.get("etag");
    const again = await fetch(`${base}/inspect/${name}`, { headers: { "if-none-match": etag } });
    assert.equal(again.status, 304, name);
    named.push(...[...text.matchAll(/from "\.\/([^"]+)"/g)].map(([, other]) => other));
  }
  assert.ok(seen.size > 15, `${[...seen]}`);
  const none = await fetch(`${base}/inspect/../http.rs`);
  assert.equal(none.status, 404);
  assert.equal((await fetch(`${base}/inspect/none.js`)).status, 404);
});

test("documents are listed, by pages, and filtered by how their ids begin", async (t) => {
  for (let n = 0; n < 120; n += 1) await write(server, "PUT", `/list-${String(n).padStart(3, "0")}`, { n });
  const page = await look(t);
  const links = page.locator(".documents a");
  await eventually(async () => (await links.count()) === 50);
  await page.getByRole("searchbox", { name: "Filter" }).fill("list-11");
  await eventually(async () => (await links.count()) === 10 || (await links.count()));
  assert.match(await links.first().textContent(), /^list-1101 change/);
  assert.equal(await page.getByText("10 documents").count(), 1);
  await page.getByRole("searchbox", { name: "Filter" }).fill("list-");
  await eventually(async () => (await links.count()) === 50);
  await page.getByRole("button", { name: "show more" }).click();
  await eventually(async () => (await links.count()) === 100);
  await page.getByRole("button", { name: "show more" }).click();
  await eventually(async () => (await links.count()) === 120);
  await page.getByRole("searchbox", { name: "Filter" }).fill("list-119");
  await eventually(async () => (await links.count()) === 1);
  await page.getByRole("searchbox", { name: "Filter" }).fill("nobody");
  await page.getByText("No id begins so.").waitFor();
  await page.getByRole("searchbox", { name: "Filter" }).fill("list-007");
  await eventually(async () => (await links.count()) === 1);
  await links.first().click();
  await shows(page, "1 n 7");
  assert.equal(await page.locator(".documents a[aria-current]").count(), 1);
});

test("a document is opened by its URL, and its address is one to be shared, and to come back to", async (t) => {
  const id = await make(server, company());
  await write(server, "PUT", `/${id}/value/name`, "Acme Ltd");
  await write(server, "PUT", `/${id}/value/name`, "Acme Inc");
  const page = await look(t);
  await page.getByRole("searchbox", { name: "Open" }).fill(`automerge:${id}`);
  await page.keyboard.press("Enter");
  await shows(page, "1 name “Acme Inc”");
  await page.getByRole("slider").press("ArrowLeft");
  await shows(page, "1 name “Acme Ltd”");
  await eventually(() => page.url().endsWith(`#/d/${id}?at=1`));
  // Somebody else is shown the same.
  const other = await look(t, new URL(page.url()).hash);
  await shows(other, "1 name “Acme Ltd”");
  assert.match(await said(other), /change 2 of 3/);
  await page.getByRole("link", { name: "refusals" }).last().click();
  await page.getByText(/Nothing was refused of this document/).waitFor();
  await page.goBack();
  await shows(page, "1 name “Acme Ltd”");
  await page.goBack();
  await page.getByText("Choose a document").waitFor();
});

test("what there is none of is said, and what is no id", async (t) => {
  const page = await look(t, "#/d/nobody", {}, /status of 40[04]/);
  await page.getByText("There is no document with this id here.").waitFor();
  await page.goto(`${httpOf(server)}/inspect/#/d/${"x".repeat(100)}`);
  await page.getByText("This is no document id.").waitFor();
});

test("the tree is live: by REST and by WebSocket; what changed is marked, and what is open stays so", async (t) => {
  const id = await make(server, company());
  const page = await look(t, `#/d/${id}`);
  await shows(page, "1 name “Acme”", "3 notes “Budget for the year”");
  await page.getByText("live", { exact: true }).waitFor();
  await write(server, "PUT", `/${id}/value/meetings/0/date`, "2026-11-24");
  await shows(page, "3 date “2026-11-24”");
  const marked = page.locator(".row.changed");
  assert.equal(await marked.count(), 1);
  assert.match(await marked.textContent(), /date“2026-11-24”/);
  await eventually(async () => (await marked.count()) === 0);

  // Somebody puts a meeting before the others: what was open is.
  const repo = stock(server, t);
  const handle = await repo.find(`automerge:${id}`);
  handle.change((doc) => doc.meetings.unshift({ id: "first", date: "2026-01-01", notes: "" }));
  await shows(page, "2 0 3 keysdate: “2026-01-01” · id: “first” · notes: “”", "3 date “2026-11-24”");
  await eventually(async () => (await page.locator(".count").textContent()) === "3 changes");
  await eventually(async () => /change 3 of 3/.test(await said(page)));
  await write(server, "DELETE", `/${id}/value/meetings/1`);
  await eventually(async () => !(await rows(page)).includes("3 date “2026-11-24”"));
  assert.ok((await rows(page)).includes("3 date “2026-12-01”"));
});

test("the slider goes through all versions; what is shown at one stays while others write", async (t) => {
  const id = await make(server, { n: 0 });
  for (let n = 1; n < 40; n += 1) await write(server, "PUT", `/${id}/value/n`, n);
  const page = await look(t, `#/d/${id}`);
  await shows(page, "1 n 39");
  const slider = page.getByRole("slider");
  const steps = [
    ["ArrowLeft", 38],
    ["PageDown", 28],
    ["ArrowRight", 29],
    ["PageUp", 39],
    ["Home", 0],
    ["PageUp", 10],
  ];
  for (const [key, n] of steps) {
    await slider.press(key);
    await shows(page, `1 n ${n}`);
    await eventually(async () => new RegExp(`change ${n + 1} of 40`).test(await said(page)));
  }
  await eventually(async () => / op$/.test(await slider.getAttribute("aria-valuetext")));
  assert.match(await slider.getAttribute("aria-valuetext"), /change 11 of 40, .*2026.*, by [0-9a-f]{8}, 1 op/);
  await write(server, "PUT", `/${id}/value/n`, 1000);
  await eventually(async () => /of 41/.test((await page.locator(".graph .stretch").textContent()) ?? ""));
  assert.deepEqual(await rows(page), ["0 document 1 key", "1 n 10"]);
  await page.getByRole("button", { name: "now" }).click();
  await shows(page, "1 n 1000");
  await write(server, "PUT", `/${id}/value/n`, 1001);
  await shows(page, "1 n 1001");
  assert.equal(await page.locator(".ticks span").count(), 5);
});

test("who slides fast asks for where they stop", async (t) => {
  const id = await make(server, { n: 0 });
  for (let n = 1; n < 60; n += 1) await write(server, "PUT", `/${id}/value/n`, n);
  const page = await look(t, `#/d/${id}?at=59`);
  await shows(page, "1 n 59");
  // Slow answers, so that requests that nobody waits for any more would pile up.
  await page.route(/at=/, async (route) => {
    await new Promise((soon) => setTimeout(soon, 300));
    await route.continue().catch(() => {});
  });
  const before = page.requests.all.length;
  page.requests.most = 0;
  await page.getByRole("slider").evaluate(async (slider) => {
    for (let n = 0; n < 50; n += 1) {
      slider.stepDown();
      slider.dispatchEvent(new Event("input", { bubbles: true }));
      await new Promise((soon) => setTimeout(soon, n % 10 === 9 ? 80 : 4));
    }
  });
  await shows(page, "1 n 9");
  assert.match(await said(page), /change 10 of 60/);
  const asked = page.requests.all.slice(before).filter((url) => url.includes("at=")).length;
  console.log(`50 steps of the slider: ${asked} documents were asked for, at most ${page.requests.most} at a time`);
  assert.ok(asked <= 20, `${asked} requests`);
  assert.ok(page.requests.most <= 4, `${page.requests.most} at a time`);
});

/** Three people edit at the same time, twice, and one merges what the others did. */
function branches() {
  const actors = ["aa", "bb", "cc"].map((two) => two.repeat(16));
  const change = (doc, actor, message, edit) => {
    const mine = A.clone(doc, { actor: actors[actor] });
    return A.change(mine, { message, time: 1_763_800_000 + 60 * message.length }, edit);
  };
  let doc = A.change(A.init({ actor: actors[0] }), { message: "begin", time: 1_763_800_000 }, (d) => Object.assign(d, { title: "Board", items: [], count: new A.Counter(1), notes: "the quick fox" }));
  for (let round = 0; round < 2; round += 1) {
    let one = change(doc, 0, "title", (d) => void (d.title = `Board ${round}`));
    one = change(one, 0, "and again", (d) => void (d.title = `The board ${round}`));
    const other = change(doc, 1, "an item", (d) => void d.items.push(`item ${round}`));
    const third = change(doc, 2, "counting", (d) => d.count.increment(2));
    doc = A.merge(A.merge(A.merge(A.clone(doc), one), other), third);
    doc = change(doc, 1, "merging", (d) => A.splice(d, ["notes"], 4, round === 0 ? 5 : 4, round === 0 ? "slow" : "lazy"));
  }
  return doc;
}

test("the graph has a lane for each actor, shows merges, and leads to versions by pointer and by keys", async (t) => {
  const doc = branches();
  const id = await upload(server, t, doc);
  const page = await look(t, `#/d/${id}`);
  const graph = page.getByRole("listbox", { name: "Change graph" });
  const options = graph.getByRole("option");
  await eventually(async () => (await options.count()) === 11);
  assert.equal(await page.locator(".lane").count(), 3);
  assert.equal(await graph.locator(".merge").count(), 2);
  assert.match(await page.locator(".graph .stretch").textContent(), /1–11 of 11 · 3 actors · 2 merges/);
  // Each line is a dep.
  const changes = (await (await fetch(`${httpOf(server)}/v1/documents/${id}/changes`)).json()).changes;
  assert.equal(await graph.locator(".line").count(), changes.reduce((sum, { deps }) => sum + deps.length, 0));
  assert.equal(await graph.locator("[aria-selected=true]").count(), 1);
  assert.equal(await graph.locator(".line.implied").count(), 2);
  const merge = changes.find(({ deps }) => deps.length === 3);
  await graph.locator(".merge").first().click();
  assert.match(await said(page), new RegExp(`change ${merge.place + 1} of 11`));
  await shows(page, "1 notes “the slow fox”", "1 count 3", "1 title “The board 0”");
  await shot(page, "graph");
  // The change before it in another lane, by keys alone.
  await graph.focus();
  await page.keyboard.press("ArrowUp");
  await eventually(async () => /[0-9a-f]/.test((await graph.getAttribute("aria-activedescendant")) ?? "") && (await said(page)).includes("aaaaaaaa"));
  await eventually(async () => /^change \d+, by aaaaaaaa, /.test(await graph.locator("[aria-selected=true]").getAttribute("aria-label")));
  await page.keyboard.press("Home");
  await shows(page, "1 title “Board”", "1 items 0 items");
  await page.keyboard.press("End");
  await shows(page, "1 notes “the lazy fox”");
  // Deps are links.
  const last = changes.at(-1);
  await page.locator(".change .body").getByRole("button", { name: last.deps[0].slice(0, 8) }).click();
  await eventually(async () => (await page.locator(".change h2").textContent()).startsWith(`Change ${changes.find(({ hash }) => hash === last.deps[0]).place + 1}`));
});

test("each change says what it is and did: texts by words, lists by what came, counters by how much", async (t) => {
  const doc = branches();
  const id = await upload(server, t, doc);
  const changes = (await (await fetch(`${httpOf(server)}/v1/documents/${id}/changes`)).json()).changes;
  const of = (message) => changes.find((change) => change.message === message);
  const page = await look(t, `#/d/${id}?at=${of("merging").hash}`);
  const body = page.locator(".change .body");
  await eventually(async () => /the quickslow fox/.test(await body.locator(".text-change").textContent()));
  assert.deepEqual([await body.locator("del").textContent(), await body.locator("ins").textContent()], ["quick", "slow"]);
  assert.match(await body.textContent(), /merging/);
  assert.match(await body.textContent(), new RegExp(of("merging").hash));
  const at = async (message) => {
    await page.goto(`${httpOf(server)}/inspect/#/d/${id}?at=${of(message).place}`);
    await eventually(async () => (await body.locator("h2").textContent()).startsWith(`Change ${of(message).place + 1}`) && (await body.locator(".operation, .did .hint").count()) > 0 && !/reading/.test(await body.textContent()));
    return (await body.locator(".operation").allTextContents()).join(" | ");
  };
  assert.equal(await at("an item"), "+inserted /items/0item 0");
  assert.equal(await at("counting"), "~changed /count1→3 (+2)");
  assert.equal(await at("title"), "~changed /titleBoard 0");
  assert.match(await at("begin"), /\+added \/count1.*\+added \/items\[\].*\+added \/notesthe quick fox.*\+added \/titleBoard/);
});

test("long values are cut until all of them is wanted", async (t) => {
  const id = await make(server, { text: "" });
  await write(server, "PUT", `/${id}/value/text`, "word ".repeat(2000));
  await write(server, "PUT", `/${id}/value/list`, Array.from({ length: 500 }, (_, n) => ({ n })));
  const page = await look(t, `#/d/${id}?at=1`);
  const body = page.locator(".change .body");
  const all = body.getByRole("button", { name: "show all 10,000 letters" });
  await all.waitFor();
  assert.ok((await body.locator("ins").textContent()).length < 400);
  await all.click();
  assert.equal((await body.locator("ins").textContent()).length, 10_000);
  await page.getByRole("button", { name: "One change on" }).click();
  await body.getByRole("button", { name: "show all" }).click();
  await eventually(async () => /"n": 499/.test(await body.locator("ins").textContent()));
});

test("a long history is shown in runs, a stretch at a time, and asks for no more than that", async (t) => {
  let doc = A.init({ actor: "aa".repeat(16) });
  doc = A.change(doc, (d) => void (d.text = ""));
  for (let n = 0; n < 26_000; n += 1) doc = A.change(doc, { time: 1_763_800_000 + n }, (d) => A.splice(d, ["text"], n, 0, "abcdefghij"[n % 10]));
  const id = await upload(server, t, doc);
  const page = await look(t, `#/d/${id}`);
  const graph = page.getByRole("listbox", { name: "Change graph" });
  await eventually(async () => (await graph.getByRole("option").count()) === 1);
  assert.match(await graph.getByRole("option").getAttribute("aria-label"), /^changes 24,002 to 26,001, 2,000 changes in a row/);
  assert.match(await page.locator(".graph .stretch").textContent(), /24,002–26,001 of 26,001/);
  await shot(page, "long");
  await page.getByRole("slider").focus();
  await page.keyboard.press("Home");
  await shows(page, "1 text “”");
  await eventually(async () => /^1–2,000 of/.test(await page.locator(".graph .stretch").textContent()));
  await page.getByRole("button", { name: "show every change" }).click();
  await eventually(async () => (await graph.getByRole("option").count()) === 300);
  await graph.focus();
  await page.keyboard.press("End");
  await shows(page, "1 text “abcdefghijabcdefghijabcdefghijabcdefghijabcdefghijabcdefghijabcdefghijabcdefghijabcdefghijabcdefghijabcdefghijabcdefghijabcdefghijabcdefghijabcdefghijabcdefghijabcdefghijabcdefghijabcdefghijabcdefghijabcdefghijabcdefghijabcdefghijabcdefghij…” 299 letters");
  await page.getByRole("button", { name: "newer" }).click();
  await eventually(async () => /^151–450 of/.test(await page.locator(".graph .stretch").textContent()));
  await page.locator(".change .text-change").waitFor();
  assert.equal(await page.locator(".change ins").count(), 1);
  const pages = page.requests.all.filter((url) => /\/changes\?/.test(url)).length;
  assert.ok(pages < 60, `${pages} pages of changes`);
});

test("a large document is quick, and only what is in sight is in the page", async (t) => {
  const meetings = Array.from({ length: 20_000 }, (_, n) => ({ id: `m${n}`, date: "2026-11-22", notes: `Meeting number ${n}` }));
  const id = await make(server, { meetings, text: "word ".repeat(20_000) });
  const start = Date.now();
  const page = await look(t, `#/d/${id}`);
  await shows(page, "1 meetings 20,000 items");
  const opened = Date.now() - start;
  const tree = page.getByRole("tree");
  await tree.focus();
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("ArrowRight");
  await page.keyboard.press("End");
  assert.match((await rows(page)).at(-1), /^1 text “word word .* 100,000 letters$/);
  assert.ok((await page.locator("[role=treeitem]").count()) < 100);
  await page.locator(".whole").waitFor();
  assert.equal((await page.locator(".whole").textContent()).length, 100_000);
  await page.keyboard.press("ArrowUp");
  await page.keyboard.press("ArrowRight");
  await shows(page, "3 notes “Meeting number 19999”");
  assert.equal(await page.locator("[aria-selected=true][role=treeitem]").getAttribute("aria-posinset"), "20000");
  assert.equal(await page.locator("[aria-selected=true][role=treeitem]").getAttribute("aria-setsize"), "20000");
  await shot(page, "large");
  // The longest that the page did anything else than wait for us, while others write.
  await page.evaluate(() => {
    window.longest = 0;
    new PerformanceObserver((list) => {
      for (const { duration } of list.getEntries()) window.longest = Math.max(window.longest, duration);
    }).observe({ type: "longtask" });
  });
  const seen = [];
  for (let n = 0; n < 5; n += 1) {
    const before = Date.now();
    await write(server, "PUT", `/${id}/value/meetings/19999/notes`, `Now ${n}`);
    await shows(page, `3 notes “Now ${n}”`);
    seen.push(Date.now() - before);
  }
  const longest = await page.evaluate(() => window.longest);
  console.log(`20,000 meetings: shown after ${opened} ms; a change in it after ${seen.sort((a, b) => a - b)[2]} ms, the page's longest task meanwhile ${longest} ms`);
  assert.ok(longest < 1500, `${longest} ms`);
  await write(server, "POST", `/${id}/value/meetings`, { id: "new", date: "", notes: "the last" });
  await shows(page, "3 notes “Now 4”");
});

test("with keys alone: a document is opened, looked through, and left for an earlier version", async (t) => {
  const id = await make(server, { ...company(), zebra: { stripes: [1, 2, 3] } });
  await write(server, "PUT", `/${id}/value/zebra/name`, "Zora");
  const page = await look(t);
  await page.getByText("Choose a document").waitFor();
  await page.keyboard.press("/");
  await page.keyboard.type(id);
  await page.keyboard.press("Enter");
  await shows(page, "2 name “Zora”");
  await page.keyboard.press("3");
  const active = () => page.evaluate(() => document.getElementById(document.activeElement.getAttribute("aria-activedescendant"))?.querySelector(".key").textContent);
  assert.equal(await page.evaluate(() => document.activeElement.getAttribute("role")), "tree");
  const presses = async (keys, wanted) => {
    for (const key of keys) await page.keyboard.press(key);
    await eventually(async () => (await active()) === wanted || (await active()));
  };
  await presses(["ArrowDown"], "meetings");
  await presses(["ArrowRight"], "0");
  await presses(["ArrowRight"], "date");
  await presses(["ArrowLeft"], "0");
  await presses(["ArrowLeft", "ArrowLeft"], "meetings");
  await presses(["z"], "zebra");
  const item = page.locator("[role=treeitem][aria-selected=true]");
  assert.deepEqual([await item.getAttribute("aria-level"), await item.getAttribute("aria-posinset"), await item.getAttribute("aria-setsize"), await item.getAttribute("aria-expanded")], ["2", "3", "3", "true"]);
  await presses(["Enter"], "zebra");
  await eventually(async () => (await item.getAttribute("aria-expanded")) === "false");
  await presses(["Home"], "document");
  await presses(["End"], "zebra");
  await presses(["Enter", "s", "t"], "stripes");
  // What comes at once would be of the same word.
  await page.waitForTimeout(800);
  await page.keyboard.press("2");
  await page.keyboard.press("ArrowLeft");
  await eventually(async () => !(await rows(page)).includes("2 name “Zora”"));
  await page.keyboard.press("4");
  await page.keyboard.press("ArrowRight");
  await shows(page, "2 name “Zora”");
  await page.keyboard.press(",");
  await eventually(async () => /change 1 of 2/.test(await said(page)));
  await page.keyboard.press("n");
  await eventually(async () => /change 2 of 2/.test(await said(page)));
  await page.keyboard.press("5");
  assert.equal(await page.evaluate(() => document.activeElement.getAttribute("aria-label")), "The change");
  await page.keyboard.press("?");
  await page.getByRole("dialog").waitFor();
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "hidden" });
  // Everything can be reached by Tab as well.
  const reached = new Set();
  for (let n = 0; n < 200; n += 1) {
    await page.keyboard.press("Tab");
    reached.add(await page.evaluate(() => document.activeElement.getAttribute("aria-label") ?? document.activeElement.textContent));
  }
  for (const name of ["Open a document by id or URL", "Version", "The document's values", "Change graph", "copy path", "open JSON"]) assert.ok(reached.has(name), `${name}: ${[...reached]}`);
});

test("hostile content is text, and the page stays as it is", async (t) => {
  const evil = `<img src=x onerror="window.hit=1"><script>window.hit=1</script>`;
  let nested = { end: "deep" };
  for (let n = 0; n < 245; n += 1) nested = n % 2 === 0 ? [nested] : { n: nested };
  let doc = A.change(A.init({ actor: "aa".repeat(16) }), { message: evil }, (d) => {
    d[evil] = evil;
    d["\u202eevil\u2066"] = "a\u202eb\u0000c\u200bd";
    d.long = "x".repeat(300_000);
    d["k".repeat(2000)] = 1;
    d.constructor = 1;
    d.toString = { valueOf: 2 };
    d[""] = { "": "" };
    d.tag = { $counter: 5 };
    d["a/b~c"] = "path";
    d.list = [evil, null, true, 1.5, new Date(0), new Uint8Array([1, 2, 3])];
  });
  doc = A.change(doc, { message: "\u202e".repeat(5000) }, (d) => {
    d.keys = {};
    for (let n = 0; n < 10_000; n += 1) d.keys[`key ${n}`] = n;
  });
  doc = A.change(doc, (d) => void (d.nested = nested));
  doc = A.change(doc, (d) => void (d[evil] = `${evil}!`));
  const id = await upload(server, t, doc);
  const page = await look(t, `#/d/${id}`, {}, /requires 'TrustedHTML'/);
  await shows(page, `1 ${evil} “${evil}!”`, "1 constructor 1", "2 “” “”", "1 a/b~c “path”");
  assert.ok((await rows(page)).some((row) => row.startsWith("1 keys 10,000 keys")));
  const tree = page.getByRole("tree");
  await tree.focus();
  await page.keyboard.press("End");
  await shows(page, "1 \\u{202e}evil\\u{2066} “a\\u{202e}b\\u{0}c\\u{200b}d”");
  // All the way down.
  await page.keyboard.type("neste");
  for (let n = 0; n < 2 * 246; n += 1) await page.keyboard.press("ArrowRight");
  await shows(page, "247 end “deep”");
  assert.equal(await page.locator("[role=treeitem][aria-selected=true]").getAttribute("aria-level"), "248");
  await page.keyboard.press("Home");
  await page.keyboard.type("keys");
  await page.keyboard.press("ArrowRight");
  await page.keyboard.press("PageDown");
  assert.ok((await page.locator("[role=treeitem]").count()) < 100);
  for (const [place, wanted] of [
    [0, evil],
    [1, "key 1"],
    [2, "nested"],
    [3, evil],
  ]) {
    await page.goto(`${httpOf(server)}/inspect/#/d/${id}?at=${place}`);
    await eventually(async () => (await page.locator(".change h2").textContent()).startsWith(`Change ${place + 1}`) && (await page.locator(".operation").count()) > 0);
    assert.ok((await page.locator(".change .body").textContent()).includes(wanted));
    for (const more of await page.locator(".operation button.link").all()) await more.click();
  }
  await shot(page, "hostile");
  assert.equal(await page.evaluate(() => window.hit), undefined);
  assert.equal(await page.evaluate(() => document.querySelectorAll("img, iframe, body script, object, embed").length), 0);
  // What would be an injection, were it ever attempted, throws.
  const attempt = await page.evaluate(() => {
    try {
      document.body.innerHTML = "<b>x</b>";
      return "done";
    } catch (error) {
      return error.name;
    }
  });
  assert.equal(attempt, "TypeError");
});

test("numbers are exact, and types that JSON lacks are told apart", async (t) => {
  const id = await make(server, { whole: 0 });
  await fetch(`${httpOf(server)}/v1/documents/${id}/value?types=tagged`, {
    method: "PUT",
    headers: { "content-type": "application/json" },
    body: `{"whole": 9007199254740993, "least": -9223372036854775808, "half": 0.1, "count": {"$counter": 5}, "at": {"$timestamp": "2026-11-22T04:10:28.000Z"}, "bytes": {"$bytes": "AAEC"}, "string": {"$string": "done"}, "none": {"$number": "NaN"}, "map": {"$map": {"$counter": 7}}}`,
  }).then((answer) => assert.ok(answer.ok));
  const page = await look(t, `#/d/${id}`);
  await shows(page, "1 whole 9007199254740993", "1 least -9223372036854775808", "1 half 0.1", "1 count 5", "1 at 2026-11-22T04:10:28.000Z", "1 bytes AAEC (3 bytes)", "1 string “done”", "1 none NaN", "1 map 1 key", "2 $counter 7");
  const kinds = await page.locator("[role=treeitem]").evaluateAll((all) => Object.fromEntries(all.map((row) => [row.querySelector(".key").textContent, row.querySelector(".kind").textContent])));
  assert.deepEqual([kinds.count, kinds.at, kinds.bytes, kinds.string, kinds.whole, kinds.map], ["counter", "time", "bytes", "string", "number", "object"]);
  const link = await page.evaluate(() => document.querySelector(".selected-value a").href);
  assert.equal((await fetch(link)).status, 200);
});

test("what was refused is shown, once for each change however often it comes, and by document", async (t) => {
  const documentId = await make(server, { fine: true });
  const page = await look(t, "#/refusals");
  await page.locator(".refusals-pane .hint").waitFor();
  // Not a frame of the protocol, twice.
  for (let n = 0; n < 2; n += 1) {
    await new Promise((closed) => {
      const socket = new WebSocket(server.url);
      socket.on("open", () => socket.send(Buffer.from([0xff, 0xff])));
      socket.on("close", closed);
    });
  }
  // Two changes of one actor with one number.
  const actor = "ee".repeat(16);
  const first = A.change(A.init({ actor }), (d) => void (d.x = 1));
  const second = A.change(A.init({ actor }), (d) => void (d.x = 2));
  const id = await upload(server, t, first);
  await send(server, t, id, second);
  const codes = page.locator(".refusals .code");
  await eventually(async () => (await codes.allTextContents()).includes("bad-frame") && (await codes.count()) >= 2);
  const entries = page.locator(".refusals li");
  await entries.filter({ hasText: "bad-frame" }).getByText("2 times").waitFor();
  const refused = entries.filter({ hasText: id });
  assert.equal(await refused.count(), 1);
  await shot(page, "refusals");
  await refused.getByRole("link").click();
  await shows(page, "1 x 1");
  await page.getByRole("link", { name: "refusals" }).last().click();
  await eventually(async () => (await entries.count()) === 1);
  await page.getByRole("searchbox", { name: "Only refusals" }).fill(documentId);
  await page.keyboard.press("Enter");
  await page.getByText(/Nothing was refused of this document/).waitFor();
});

test("a server that goes away is said to be away, and the page comes back by itself", async (t) => {
  const id = await make(server, { n: 1 });
  const page = await look(t, `#/d/${id}`, {}, /ERR_CONNECTION|ERR_INCOMPLETE|ERR_EMPTY/);
  await page.getByText("live", { exact: true }).waitFor();
  await shows(page, "1 n 1");
  await server.kill();
  await page.getByText("server away", { exact: true }).waitFor();
  await page.keyboard.press(",");
  assert.ok((await rows(page)).includes("1 n 1"));
  await server.restart();
  await write(server, "PUT", `/${id}/value/n`, 2);
  await shows(page, "1 n 2");
  await page.getByText("live", { exact: true }).waitFor();
  await eventually(async () => /change 2 of 2/.test(await said(page)));
});

test("in a narrow window one part is shown at a time, and nothing is wider than it", async (t) => {
  const id = await upload(server, t, branches());
  const page = await look(t, `#/d/${id}`, { viewport: { width: 400, height: 800 } });
  await shows(page, "1 notes “the lazy fox”");
  const isNarrow = () => page.evaluate(() => document.documentElement.scrollWidth <= 400 && document.body.scrollWidth <= 400);
  for (const [name, part] of [
    ["graph", page.getByRole("listbox", { name: "Change graph" })],
    ["change", page.locator(".change .body")],
    ["value", page.getByRole("tree")],
  ]) {
    await page.getByRole("button", { name, exact: true }).click();
    await part.waitFor();
    assert.ok(await isNarrow(), name);
    const { width } = await page.locator(`.${{ value: "tree", graph: "graph", change: "change" }[name]}.pane`).boundingBox();
    assert.ok(width > 360, `${name} is ${width} wide`);
    await shot(page, `narrow-${name}`);
  }
  assert.ok(!(await page.locator(".change .body").isVisible()));
  await page.getByRole("button", { name: "graph", exact: true }).click();
  await eventually(() => page.url().endsWith("view=graph"));
  await page.getByRole("link", { name: "Concord" }).click();
  await page.locator(".documents a").first().waitFor();
  assert.ok(await isNarrow());
});

test("in the dark, and for those who want nothing to move", async (t) => {
  const id = await upload(server, t, branches());
  const page = await look(t, `#/d/${id}`, { colorScheme: "dark", reducedMotion: "reduce" });
  await shows(page, "1 notes “the lazy fox”");
  await write(server, "PUT", `/${id}/value/title`, "New");
  await shows(page, "1 title “New”");
  const marked = page.locator(".row.changed");
  assert.deepEqual(await marked.evaluate((row) => [getComputedStyle(row).animationName, getComputedStyle(row).backgroundColor !== "rgba(0, 0, 0, 0)"]), ["none", true]);
  await shot(page, "dark");
  const [ground, ink] = await page.evaluate(() => [getComputedStyle(document.documentElement).backgroundColor, getComputedStyle(document.documentElement).color].map((colour) => Math.max(...colour.match(/\d+/g).map(Number))));
  assert.ok(ground < 64 && ink > 192);
});
