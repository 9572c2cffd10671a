// Promise: where the server has to know who looks, the inspector is told by its address or by hand, shows what that one may
// see and nothing else, live and after a reload, and no address that could be copied has the token in it.

import assert from "node:assert/strict";
import { after, test } from "node:test";

import { stage } from "./harness.mjs";
import { inspect, make, shot, shows, write } from "./inspect.mjs";
import { Issuer } from "./issuer.mjs";

const issuer = new Issuer();
let server, browser, token, headers, id;

stage(
  async (parts) => {
    ({ server, browser } = parts);
    token = issuer.token("ann");
    headers = { authorization: `Bearer ${token}` };
    id = await make(server, { name: "Acme" }, headers);
  },
  undefined,
  issuer.arguments,
);
after(() => issuer.stop());

/** A page of which nothing was asked before; what a browser writes of refusals is no fault. */
async function look(t, fragment) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 } });
  t.after(() => context.close());
  const page = await inspect(context, server, fragment);
  t.after(() => assert.deepEqual(page.faults.filter((fault) => !/status of 40[14]/.test(fault)), []));
  return page;
}

test("a token in the address is taken out of it, and shows its bearer's documents, live", async (t) => {
  const page = await look(t, `#token=${token}/d/${id}`);
  await shows(page, "1 name “Acme”");
  await page.locator(".state.live").waitFor();
  assert.equal(new URL(page.url()).hash, `#/d/${id}`);
  await write(server, "PUT", `/${id}/value/name`, "Nadir", headers);
  await shows(page, "1 name “Nadir”");
  await page.reload();
  await shows(page, "1 name “Nadir”");
  assert.ok(!page.url().includes(token));
  assert.equal(await page.locator(".who").isVisible(), false);
  await shot(page, "inspect-token");
});

test("who looks without a token is asked for one", async (t) => {
  const page = await look(t, "#/");
  await page.locator(".who").waitFor();
  assert.match(await page.locator(".documents-pane [role=status]").textContent(), /has to know who asks/);
  await shot(page, "inspect-no-token");
  await page.locator(".who").fill(` ${token} `);
  await page.locator(".who").press("Enter");
  await page.locator(`.documents a[href="#/d/${id}"]`).waitFor();
  // Somebody else sees something else.
  await page.evaluate((token) => (location.hash = `#token=${token}/d/x`), issuer.token("bob"));
  await page.getByText("There are no documents yet.").waitFor();
  assert.equal(new URL(page.url()).hash, "#/d/x");
});

test("a token that is not believed is told, and another may be given", async (t) => {
  const page = await look(t, `#token=${token.slice(0, -8)}AAAAAAAA`);
  await page.locator(".who").waitFor();
  assert.match(await page.locator(".documents-pane [role=status]").textContent(), /signature/);
});
