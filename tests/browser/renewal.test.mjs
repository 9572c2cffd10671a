// Promise: a tab whose tokens end soon stays on one connection, as its application gives new ones; one whose application
// gives no others connects anew.
//
// The server believes this file's key alone, and ends each connection with its token: one that is not renewed in time is
// seen as another connection.

import assert from "node:assert/strict";
import { after, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import { stage, until } from "./harness.mjs";
import { Issuer } from "./issuer.mjs";

/** Seconds that a token lasts. */
const TOKEN_S = 8;

const issuer = new Issuer();
let server, pages, browser;

stage((parts) => ({ server, pages, browser } = parts), undefined, [...issuer.arguments, "--cors-origin", "*"]);
after(() => issuer.stop());

/** A tab that made a document, by the tokens that `give` gives; `tab.connections` is how many it made. */
async function editing(give) {
  const context = await browser.newContext();
  await context.exposeFunction("giveToken", give);
  const tab = await context.newPage();
  tab.faults = [];
  tab.connections = 0;
  tab.on("pageerror", (error) => tab.faults.push(error));
  tab.on("websocket", () => (tab.connections += 1));
  await tab.goto(pages.url);
  await tab.evaluate(async (url) => {
    const { connect } = await import("/client/index.js");
    window.client = await connect({ url, getToken: () => window.giveToken(), tabs: false });
    window.doc = window.client.create({ list: [] });
    await window.doc.whenSynced();
  }, server.url);
  return tab;
}

test("a tab that is given new tokens stays on its connection", async () => {
  let given = 0;
  const tab = await editing(() => {
    given += 1;
    return issuer.token("ann", TOKEN_S);
  });
  for (let second = 0; second < 2.5 * TOKEN_S; second += 1) {
    await sleep(1_000);
    await tab.evaluate((n) => window.doc.change((draft) => draft.list.push(n)), second);
  }
  await until(tab, () => window.doc.status.synced);
  assert.equal(tab.connections, 1);
  assert.ok(given > 2, `${given} tokens were given`);
  assert.deepEqual(tab.faults, []);
});

test("a tab that is given the same one connects anew, and nothing is lost", async () => {
  let current = issuer.token("ann", TOKEN_S);
  const tab = await editing(() => current);
  await until(tab, () => window.client.status.connection !== "open");
  current = issuer.token("ann", TOKEN_S);
  await tab.evaluate(() => window.doc.change((draft) => draft.list.push("later")));
  await until(tab, () => window.doc.status.synced);
  assert.ok(tab.connections > 1, `${tab.connections} connections`);
  assert.deepEqual(tab.faults, []);
});
