// Promise: the board app is what the package promises, on a page. A date that is changed in one tab is in the other;
// an agenda is written by two; offline shows what waits and gives it up when the browser is back; earlier versions
// can be looked at; and whoever uses a keyboard or a screen reader gets a name for every control.
//
// The app is the built one, over a real server, in a real browser. Whatever nobody caught in a page, and whatever
// its content security policy refused, fails the test.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";

import { launch, PATIENCE_MS, Server, servePages, until } from "./harness.mjs";

const example = fileURLToPath(new URL("../../client-wasm/example", import.meta.url));
const dist = join(example, "dist");

let server, pages, browser, board;
const scratch = mkdtempSync(join(tmpdir(), "concord-board-"));
const known = join(scratch, "known");

before(async () => {
  assert.ok(existsSync(join(dist, "app.js")), "the app is not built: run `node build.mjs` in client-wasm/example");
  server = await Server.start();
  board = seed();
  const files = readdirSync(dist).map((name) => [`/${name}`, readFileSync(join(dist, name))]);
  const page = readFileSync(join(dist, "index.html"));
  pages = await servePages({ ...Object.fromEntries(files), "/": page, "/board.json": JSON.stringify({ document: board }) });
  browser = await launch();
});

after(async () => {
  await browser?.close();
  pages?.stop();
  await server?.stop();
  rmSync(scratch, { recursive: true, force: true });
});

/** The sample board's id; as `cargo xtask demo` makes it. */
function seed() {
  const flags = Number(process.versions.node.split(".")[0]) < 22 ? ["--experimental-websocket"] : [];
  const made = spawnSync(process.execPath, [...flags, join(example, "build/seed.mjs"), server.url, known], { encoding: "utf8" });
  assert.equal(made.status, 0, made.stderr);
  return made.stdout.trim();
}

/** A tab of the app, and all that went wrong in it. */
async function open(context, hash = "") {
  const tab = await context.newPage();
  tab.setDefaultTimeout(PATIENCE_MS);
  tab.faults = [];
  tab.on("pageerror", (error) => tab.faults.push(error));
  tab.on("console", (message) => {
    // That a connection fails is what some tests are about.
    if (message.type() === "error" && !message.text().includes("WebSocket")) {
      tab.faults.push(new Error(message.text()));
    }
  });
  await tab.goto(`${pages.url}/?server=${encodeURIComponent(server.url)}${hash}`);
  await tab.getByRole("switch", { name: "Work offline" }).waitFor();
  assert.equal(await tab.evaluate(() => getComputedStyle(document.querySelector("header")).display), "flex", "the style sheet is there");
  return tab;
}

const meeting = (company, name) => `#${board}/${company}/${name}`;
/** What the pills say. */
const shows = (tab, text) => until(tab, (text) => document.querySelector(".status")?.textContent.includes(text), text);
const date = (tab) => tab.getByLabel("Date", { exact: true });
const agenda = (tab) => tab.getByRole("textbox", { name: "Agenda" });
/** What is written, without others' carets, which hold no text but word joiners. */
const written = (tab) => tab.evaluate(() => [...document.querySelectorAll(".cm-line")].map((line) => line.textContent.replaceAll("\u2060", "")).join("\n"));
const agendaHas = (tab, text) =>
  until(tab, (text) => document.querySelector(".cm-content")?.textContent.replaceAll("\u2060", "").includes(text), text);
const dateIs = (tab, value) => until(tab, (value) => document.querySelector('input[type="date"]')?.value === value, value);

async function end(context, ...tabs) {
  assert.deepEqual(tabs.flatMap((tab) => tab.faults), []);
  await context.close();
}

test("the page runs nothing that came from elsewhere, and sends nothing there", async () => {
  const context = await browser.newContext();
  const tab = await context.newPage();
  await tab.goto(pages.url);
  const refused = await tab.evaluate(async () => {
    const told = [];
    document.addEventListener("securitypolicyviolation", (event) => told.push(event.effectiveDirective));
    const inline = document.createElement("script");
    inline.textContent = "window.ran = true";
    document.head.append(inline);
    const link = document.createElement("a");
    link.setAttribute("onclick", "window.ran = true");
    link.click();
    const sent = await fetch("http://elsewhere.invalid/").then(() => "sent", (error) => error.name);
    await new Promise((resolve) => setTimeout(resolve, 100));
    return { told: told.sort(), ran: window.ran === true, sent };
  });
  await context.close();
  assert.equal(refused.ran, false);
  assert.equal(refused.sent, "TypeError");
  assert.deepEqual(refused.told, ["connect-src", "script-src-attr", "script-src-elem"]);
});

test("seeding again finds the same board", () => {
  assert.equal(seed(), board);
});

test("a fresh visit shows the sample; three tabs opened at once show the same one", async () => {
  const context = await browser.newContext();
  const tabs = await Promise.all([open(context), open(context), open(context)]);
  for (const tab of tabs) {
    await tab.getByRole("navigation").getByText("Nordlys Energy").waitFor();
    assert.equal(await tab.locator("nav section").count(), 3);
    assert.ok(tab.url().endsWith(`#${board}`), tab.url());
  }
  await end(context, ...tabs);
});

test("a date is in the other tab at once, and who is there is shown", async () => {
  const context = await browser.newContext();
  const one = await open(context, meeting("nordlys", "audit"));
  const other = await open(context, meeting("nordlys", "audit"));
  await one.getByText("Also here").waitFor();
  await date(one).fill("2031-05-06");
  await dateIs(other, "2031-05-06");
  await until(other, () => document.querySelector('nav a[aria-current="page"] time').dateTime === "2031-05-06");
  // What is no date yet is nobody else's business: a year is typed figure by figure.
  await date(one).fill("0002-05-06");
  await one.getByLabel("Place").fill("Oslo");
  await until(other, () => [...document.querySelectorAll("input")].some((input) => input.value === "Oslo"));
  await dateIs(other, "2031-05-06");
  // Somebody on another machine.
  const elsewhere = await browser.newContext();
  const far = await open(elsewhere, meeting("nordlys", "audit"));
  await dateIs(far, "2031-05-06");
  await far.getByLabel("Your name").fill("Zora");
  await one.getByRole("list", { name: "Who is here" }).getByText("Zora, looks at Audit committee").waitFor();
  await end(elsewhere, far);
  await end(context, one, other);
});

test("two write into one agenda", async () => {
  const context = await browser.newContext();
  const one = await open(context, meeting("havn", "strategy"));
  const other = await open(context, meeting("havn", "strategy"));
  await Promise.all([agendaHas(one, "Morning"), agendaHas(other, "Morning")]);
  await agenda(one).press("Control+Home");
  await agenda(other).press("Control+End");
  await Promise.all([one.keyboard.type("First of all. ", { delay: 5 }), other.keyboard.type(" And at last.", { delay: 5 })]);
  await other.keyboard.press("Enter");
  await other.keyboard.type("New lineX");
  await other.keyboard.press("Backspace");
  for (const tab of [one, other]) {
    await agendaHas(tab, "First of all. Morning");
    await agendaHas(tab, "And at last.New line");
  }
  await Promise.all([shows(one, "Synced"), shows(other, "Synced")]);
  assert.equal(await written(one), await written(other));
  await end(context, one, other);
});

test("offline shows what waits, in all tabs; back online it is sent", async () => {
  const context = await browser.newContext();
  const elsewhere = await browser.newContext();
  const one = await open(context, meeting("alba", "trial"));
  const other = await open(context, meeting("alba", "trial"));
  const far = await open(elsewhere, meeting("alba", "trial"));
  await Promise.all([one, other, far].map((tab) => shows(tab, "Synced")));
  await one.getByRole("switch").click();
  await Promise.all([shows(one, "Offline"), shows(other, "Offline")]);
  assert.equal(await other.getByRole("switch").getAttribute("aria-checked"), "true");
  const before = await date(far).inputValue();
  await date(one).fill("2032-02-03");
  await dateIs(other, "2032-02-03");
  await Promise.all([shows(one, "1 change waits"), shows(other, "1 change waits")]);
  await shows(one, "Saved in this browser");
  assert.equal(await date(far).inputValue(), before);
  // What waits survives the page.
  await one.reload();
  await dateIs(one, "2032-02-03");
  await other.getByRole("switch").click();
  await dateIs(far, "2032-02-03");
  await Promise.all([one, other].map((tab) => shows(tab, "Synced")));
  await end(elsewhere, far);
  await end(context, one, other);
});

test("companies and meetings are added, renamed and deleted", async () => {
  const context = await browser.newContext();
  const one = await open(context);
  const other = await open(context);
  const listed = (tab) => tab.getByRole("navigation");
  await one.getByRole("button", { name: "Add company" }).click();
  await one.getByLabel("Name of the company").fill("Orchard & Sons");
  await listed(other).getByRole("link", { name: "Orchard & Sons" }).waitFor();
  await one.getByRole("button", { name: "Add meeting", exact: true }).click();
  await one.getByLabel("Title").fill("Kick-off");
  await listed(other).getByText("Kick-off").click();
  await other.getByLabel("Name of another participant").fill("Ada");
  await other.getByRole("button", { name: "Add", exact: true }).click();
  // A tab in the background draws once a second, and is waited for.
  await one.bringToFront();
  await one.getByRole("button", { name: "Remove Ada" }).click();
  await other.getByRole("button", { name: "Remove Ada" }).waitFor({ state: "detached" });
  await one.getByRole("button", { name: "Delete meeting" }).click();
  await one.getByRole("button", { name: "Keep" }).click();
  await one.getByRole("button", { name: "Delete meeting" }).click();
  await one.getByRole("button", { name: "Delete", exact: true }).click();
  await other.getByText("This meeting is not there").waitFor();
  await one.getByRole("button", { name: "Delete company" }).click();
  await one.getByRole("button", { name: "Delete", exact: true }).click();
  await listed(other).getByText("Orchard & Sons").waitFor({ state: "detached" });
  await end(context, one, other);
});

test("one's own changes are taken back, and nobody else's", async () => {
  const context = await browser.newContext();
  const one = await open(context, meeting("havn", "crisis"));
  const other = await open(context, meeting("havn", "crisis"));
  await one.getByLabel("Title").waitFor();
  const before = await date(one).inputValue();
  await date(one).fill("2033-03-04");
  await dateIs(other, "2033-03-04");
  await other.getByLabel("Place").fill("Bergen");
  await until(one, () => [...document.querySelectorAll("input")].some((input) => input.value === "Bergen"));
  await one.getByRole("button", { name: "Undo" }).click();
  await dateIs(other, before);
  assert.equal(await other.getByLabel("Place").inputValue(), "Bergen");
  await one.getByRole("button", { name: "Redo" }).click();
  await dateIs(other, "2033-03-04");
  await one.getByLabel("Title").press("Control+z");
  await dateIs(other, before);
  await end(context, one, other);
});

test("earlier versions are shown, read-only, and can be brought back", async () => {
  const context = await browser.newContext();
  const one = await open(context, meeting("alba", "ethics"));
  const other = await open(context, meeting("alba", "ethics"));
  const first = await date(one).inputValue();
  await date(one).fill("2034-04-05");
  await dateIs(other, "2034-04-05");
  await other.getByLabel("Place").fill("Porto");
  await until(one, () => [...document.querySelectorAll("input")].some((input) => input.value === "Porto"));
  await one.getByRole("button", { name: "History" }).click();
  const slider = one.getByRole("slider");
  await slider.press("Home");
  const past = one.locator(".then");
  await past.getByText("Two serious adverse events").waitFor();
  assert.equal(await past.getByText("Porto").count(), 0);
  assert.equal(await past.locator("input, [contenteditable=true]").count(), 0);
  assert.match(await slider.getAttribute("aria-valuetext"), /^Version 1 of 3, .*meeting added$/);
  await slider.press("ArrowRight");
  await past.getByText("5 Apr 2034").waitFor();
  assert.match(await slider.getAttribute("aria-valuetext"), /date changed$/);
  await slider.press("ArrowLeft");
  await one.getByRole("button", { name: "Bring this version back" }).click();
  await dateIs(other, first);
  assert.equal(await other.getByLabel("Place").inputValue(), "Video call");
  await end(context, one, other);
});

const CONTROLS = new Set([
  "button",
  "link",
  "textbox",
  "switch",
  "slider",
  "Date",
  "DateTime",
  "InputTime",
  "combobox",
  "checkbox",
  "spinbutton",
  "radio",
]);

test("every control has a name, and each page its landmarks and one heading", async () => {
  const context = await browser.newContext();
  const tab = await open(context);
  const session = await context.newCDPSession(tab);
  await session.send("Accessibility.enable");
  const look = async (where) => {
    const { nodes } = await session.send("Accessibility.getFullAXTree");
    const shown = nodes.filter(({ ignored }) => !ignored);
    const controls = shown.filter(({ role }) => CONTROLS.has(role?.value));
    assert.ok(controls.length > 15, `${where}: ${controls.length} controls`);
    const nameless = controls.filter(({ name }) => (name?.value ?? "").trim() === "");
    assert.deepEqual(nameless.map(({ role, backendDOMNodeId }) => [role.value, backendDOMNodeId]), [], where);
    const roles = shown.map(({ role }) => role?.value);
    for (const landmark of ["main", "navigation", "banner", "status"]) {
      assert.equal(roles.filter((role) => role === landmark).length, 1, `${where}: ${landmark}`);
    }
    assert.equal(await tab.locator("h1").count(), 1, where);
  };
  await look("overview");
  await tab.getByRole("navigation").getByRole("link", { name: "Havn Logistics" }).click();
  await tab.getByRole("button", { name: "Delete company" }).waitFor();
  await look("company");
  await tab.getByRole("navigation").getByText("Personnel committee").click();
  await agenda(tab).waitFor();
  await look("meeting");
  await tab.getByRole("button", { name: "History" }).click();
  await tab.getByRole("slider").waitFor();
  await look("history");
  await end(context, tab);
});
