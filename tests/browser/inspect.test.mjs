// Promise: whoever opens /inspect sees documents as they are, while they are edited, and as they were at each version; who
// changed what, on top of what; and what was refused. With the pointer or with keys alone, in a wide or a narrow window.
//
// A real server, real Chromium; documents are written by REST and by stock WebSocket clients. Each test ends by asking
// what the page must never have done: thrown, broken its policy (Chromium says so in the console), or asked anybody
// but its server. What is compared is what is on the screen, not what the page believes.

import assert from "node:assert/strict";
import { test } from "node:test";

import { A } from "../interop/packages.mjs";
import { stage } from "./harness.mjs";
import { eventually, httpOf, inspect, make, rows, said, shows, stock, upload, write } from "./inspect.mjs";

let server, browser;

stage((parts) => ({ server, browser } = parts));

/** A window, closed in the end; its page must have done nothing that it must not. */
async function look(t, fragment, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
  t.after(() => context.close());
  const page = await inspect(context, server, fragment);
  t.after(() => assert.deepEqual(page.faults, []));
  return page;
}

const company = () => ({
  name: "Acme",
  meetings: [
    { id: "a", date: "2026-11-21", notes: "Budget for the year" },
    { id: "b", date: "2026-12-01", notes: "" },
  ],
});

const shot = async (page, name) => {
  if (process.env.CONCORD_TEST_SHOTS !== undefined) await page.screenshot({ path: `${process.env.CONCORD_TEST_SHOTS}/${name}.png` });
};

test("the page comes from the server itself, with a policy under which nothing but it can run", async () => {
  const base = httpOf(server);
  const moved = await fetch(`${base}/inspect`, { redirect: "manual" });
  assert.deepEqual([moved.status, moved.headers.get("location")], [308, "inspect/"]);
  const index = await (await fetch(`${base}/inspect/`)).text();
  const named = [...index.matchAll(/(?:src|href)="([^"]+)"/g)].map(([, name]) => name);
  const seen = new Set();
  for (const name of ["", ...named]) {
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
  const page = await look(t, "#/d/nobody");
  await page.getByText("There is no document with this id here.").waitFor();
  await page.goto(`${httpOf(server)}/inspect/#/d/${"x".repeat(100)}`);
  await page.getByText("This is no document id.").waitFor();
  page.faults = page.faults.filter((fault) => !/status of 40[04]/.test(fault));
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
  assert.match(await said(page), /change 3 of 3/);
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
    assert.match(await said(page), new RegExp(`change ${n + 1} of 40`));
  }
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
  await page.getByRole("slider").focus();
  for (let n = 0; n < 50; n += 1) {
    await page.keyboard.press("ArrowLeft");
    if (n % 10 === 9) await page.waitForTimeout(80);
  }
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
    doc = change(doc, 1, "merging", (d) => A.splice(d, ["notes"], 4, 5, round === 0 ? "slow" : "lazy"));
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
  const merge = changes.find(({ deps }) => deps.length === 3);
  await graph.locator(".merge").first().click();
  assert.match(await said(page), new RegExp(`change ${merge.place + 1} of 11`));
  await page.getByText("merges 3", { exact: true }).waitFor();
  await shows(page, "1 notes “the slow fox”", "1 count 3", "1 title “The board 0”");
  await shot(page, "graph");
  // The change before it in another lane, by keys alone.
  await graph.focus();
  await page.keyboard.press("ArrowUp");
  await eventually(async () => /[0-9a-f]/.test((await graph.getAttribute("aria-activedescendant")) ?? "") && (await said(page)).includes("aaaaaaaa"));
  const selected = await graph.locator("[aria-selected=true]").getAttribute("aria-label");
  assert.match(selected, /^change \d+, by aaaaaaaa, /);
  await page.keyboard.press("Home");
  await shows(page, "1 title “Board”", "1 items 0 items");
  await page.keyboard.press("End");
  await shows(page, "1 notes “the lazy fox”");
  // Deps are links.
  await page.getByRole("button", { name: merge.hash.slice(0, 8) }).first().waitFor({ state: "detached" }).catch(() => {});
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
  assert.equal(await at("an item"), "+inserted /items/0“item 0”".replace(/[“”]/g, ""));
  assert.equal(await at("counting"), "~changed /count1→3 (+2)");
  assert.equal(await at("title"), "~changed /titleBoard 0".replace("Board 0", "Board 0"));
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
