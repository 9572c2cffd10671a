// What the tests of the inspector share: its page, watched for what it must never do, and those who write documents.

import assert from "node:assert/strict";

import { A, Repo, WebSocketClientAdapter } from "../interop/packages.mjs";
import { PATIENCE_MS } from "./harness.mjs";

/** Where a server answers HTTP. */
export const httpOf = (server) => new URL("/", server.url.replace(/^ws/, "http")).href.replace(/\/$/, "");

/**
 * A page of the inspector. What it must not do is in `page.faults`: errors that nobody caught, errors in the console
 * (violations of its policy are such), requests to anybody but its server, dialogs.
 */
export async function inspect(context, server, fragment = "#/") {
  const page = await context.newPage();
  const base = httpOf(server);
  page.faults = [];
  page.requests = { running: 0, most: 0, all: [] };
  page.on("pageerror", (error) => page.faults.push(error.stack));
  page.on("dialog", (dialog) => {
    page.faults.push(`a dialog: ${dialog.message()}`);
    void dialog.dismiss();
  });
  page.on("console", (message) => {
    if (message.type() === "error") page.faults.push(message.text());
  });
  page.on("request", (request) => {
    if (!request.url().startsWith(`${base}/`) && !request.url().startsWith("data:")) page.faults.push(`a request to ${request.url()}`);
    page.requests.all.push(request.url());
    if (request.url().includes("at=")) {
      page.requests.running += 1;
      page.requests.most = Math.max(page.requests.most, page.requests.running);
    }
  });
  for (const end of ["requestfinished", "requestfailed"]) {
    page.on(end, (request) => {
      if (request.url().includes("at=")) page.requests.running -= 1;
    });
  }
  await page.goto(`${base}/inspect/${fragment}`);
  return page;
}

/** A request that writes: `{id, version}` of the document after it. */
export async function write(server, method, path, body, headers = {}) {
  const answer = await fetch(`${httpOf(server)}/v1/documents${path}`, { method, headers: { "content-type": "application/json", ...headers }, body: JSON.stringify(body) });
  assert.ok(answer.ok, `${method} ${path}: ${answer.status} ${await answer.clone().text()}`);
  const location = answer.headers.get("location");
  return { id: location?.split("/")[3], etag: answer.headers.get("etag") };
}

/** A document of a JSON object; its id. */
export const make = async (server, value, headers) => (await write(server, "POST", "", value, headers)).id;

/** A stock client in this process; it ends with the test. */
export function stock(server, test) {
  const adapter = new WebSocketClientAdapter(server.url, 200);
  const repo = new Repo({ network: [adapter] });
  test.after(() => repo.shutdown());
  return repo;
}

/** Sends a document that was made by hand: its id, once the server has all of it. */
export async function upload(server, test, doc) {
  const repo = stock(server, test);
  const handle = repo.import(A.save(doc));
  const count = A.getAllChanges(doc).length;
  await eventually(async () => {
    const answer = await fetch(`${httpOf(server)}/v1/documents/${handle.documentId}/changes?limit=1`);
    return answer.ok && (await answer.json()).count === count;
  });
  return handle.documentId;
}

/** Sends the last change of a document, as a client would that knows nothing of what others made. */
export async function send(server, test, documentId, doc) {
  const adapter = new WebSocketClientAdapter(server.url, 200);
  const repo = new Repo({ network: [adapter] });
  test.after(() => repo.shutdown());
  await repo.networkSubsystem.whenReady();
  const data = A.encodeSyncMessage({ heads: A.getHeads(doc), need: [], have: [], changes: [A.getLastLocalChange(doc)] });
  adapter.send({ type: "sync", senderId: repo.peerId, targetId: adapter.remotePeerId, documentId, data });
}

/** Waits until something is so; says what it last threw or was. */
export async function eventually(check) {
  const deadline = Date.now() + PATIENCE_MS;
  for (;;) {
    let last;
    try {
      last = await check();
    } catch (error) {
      last = error;
    }
    if (last === true) return;
    if (Date.now() > deadline) throw last instanceof Error ? last : new Error(`in the end it was ${JSON.stringify(last)}`);
    await new Promise((soon) => setTimeout(soon, 25));
  }
}

/** The tree's rows in sight, each as `depth key value`. */
export const rows = (page) =>
  page.locator("[role=treeitem]").evaluateAll((all) =>
    all
      .map((row) => ({ top: Number.parseInt(row.style.top, 10), text: `${Number(row.getAttribute("aria-level")) - 1} ${row.querySelector(".key").textContent} ${row.querySelector(".value").textContent}` }))
      .sort((one, other) => one.top - other.top)
      .map(({ text }) => text),
  );

/** Waits for rows. */
export const shows = (page, ...wanted) =>
  eventually(async () => {
    const shown = await rows(page);
    const missing = wanted.filter((one) => !shown.includes(one));
    return missing.length === 0 || `${missing.join(", ")} is not among ${shown.join(" | ")}`;
  });

/** A picture of a page, where somebody wants to see it. */
export const shot = async (page, name) => {
  if (process.env.CONCORD_TEST_SHOTS !== undefined) await page.screenshot({ path: `${process.env.CONCORD_TEST_SHOTS}/${name}.png` });
};

/** What the timeline says is shown. */
export const said = (page) => page.locator(".timeline .says").textContent();
