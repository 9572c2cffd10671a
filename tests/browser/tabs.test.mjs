// Promise: the tabs of a browser are one client. What is changed in one is in the others at once, over one
// connection, and a tab that leads can be lost at any moment without anything else being lost.
//
// The server counts its connections itself; the tabs are pages of a real browser, and are closed, crashed and
// frozen by it. A test that only waited for its own edits would pass with a connection for each tab: so the count
// is compared, too.

import assert from "node:assert/strict";
import { test } from "node:test";

import { make, openDocument, openTab, settled, stage, until } from "./harness.mjs";

let server, pages, browser;

stage((parts) => ({ server, pages, browser } = parts));

/** So many tabs of one browser on one company with four meetings. */
async function company(context, count) {
  const first = await openTab(context, pages, server.url);
  const meetings = Object.fromEntries(["spring", "summer", "autumn", "winter"].map((name) => [name, { date: "?", notes: "" }]));
  const url = await make(first, { name: "Acme", meetings });
  const tabs = [first];
  while (tabs.length < count) {
    const tab = await openTab(context, pages, server.url);
    await openDocument(tab, url);
    tabs.push(tab);
  }
  return { tabs, url };
}

const role = (tab) => tab.evaluate(() => window.client.status.role);

test("four tabs are one connection, and a date is in all of them at once", async () => {
  const context = await browser.newContext();
  const before = await server.metric("concord_connections");
  const { tabs } = await company(context, 4);
  assert.equal((await server.metric("concord_connections")) - before, 1);
  assert.deepEqual((await Promise.all(tabs.map(role))).sort(), ["follower", "follower", "follower", "leader"]);

  const delays = [];
  for (let day = 10; day < 30; day += 1) {
    const date = `2026-11-${day}`;
    const others = tabs.slice(1).map((tab) =>
      tab.evaluate(
        (date) =>
          new Promise((seen) => {
            const look = () => {
              if (window.doc.value.meetings.spring.date === date) {
                end();
                seen(Date.now());
              }
            };
            const end = window.doc.subscribe(look);
            look();
          }),
        date,
      ),
    );
    const made = await tabs[0].evaluate((date) => {
      window.doc.change((draft) => {
        draft.meetings.spring.date = date;
      });
      return Date.now();
    }, date);
    const seen = await Promise.all(others);
    delays.push(...seen.map((at) => at - made));
  }
  delays.sort((one, other) => one - other);
  console.log(`a date in the other tabs: median ${delays[delays.length >> 1]} ms, most ${delays.at(-1)} ms`);
  const value = await settled(tabs);
  assert.equal(value.meetings.spring.date, "2026-11-29");
  assert.equal((await server.metric("concord_connections")) - before, 1);
  await context.close();
});

/** Longer than the others wait for a leader that does not answer, milliseconds. */
const HUNG_MS = 12_000;

const LOSSES = {
  closed: (tab) => tab.close(),
  crashed: async (tab) => {
    const session = await tab.context().newCDPSession(tab);
    session.send("Page.crash").catch(() => {});
    await new Promise((crashed) => tab.once("crash", crashed));
  },
  // Still there, and still holding what only a leader holds; it comes back later, and must not lead again.
  hung: (tab) => {
    void tab.evaluate((ms) => {
      const until = Date.now() + ms;
      while (Date.now() < until) {
        // Nothing else runs in this page.
      }
    }, HUNG_MS);
  },
};

for (const [how, lose] of Object.entries(LOSSES)) {
  test(`the leader is ${how} in the middle of typing: all that was typed is there, once`, async () => {
    const context = await browser.newContext();
    const { tabs, url } = await company(context, 3);
    const roles = await Promise.all(tabs.map(role));
    const leader = tabs[roles.indexOf("leader")];
    const others = tabs.filter((tab) => tab !== leader);
    // Each types into its own place of one text, a letter at a time, and the leader is lost while they do.
    const type = (tab, name, letters) =>
      tab.evaluate(
        async ([name, letters]) => {
          const { splice } = await import("/client/index.js");
          for (const letter of letters) {
            window.doc.change((draft) => {
              splice(draft, ["meetings", name, "notes"], draft.meetings[name].notes.length, 0, letter);
            });
            await new Promise((soon) => setTimeout(soon, 10));
          }
          await window.doc.whenSaved();
        },
        [name, [...letters]],
      );
    const text = "The quick brown fox jumps over the lazy dog. ".repeat(4);
    const typing = others.map((tab, n) => type(tab, ["summer", "autumn"][n], text));
    await type(leader, "spring", text.slice(0, 60));
    await lose(leader);
    await Promise.all(typing);
    // Nobody needs the lost one to come to the same, and one of them leads.
    await Promise.all(others.map((tab) => tab.evaluate(() => window.doc.whenSynced())));
    assert.ok((await Promise.all(others.map(role))).includes("leader"));
    const value = await settled(how === "hung" ? tabs : others);
    assert.equal((await Promise.all((how === "hung" ? tabs : others).map(role))).filter((one) => one === "leader").length, 1);
    assert.equal(value.meetings.spring.notes, text.slice(0, 60));
    assert.equal(value.meetings.summer.notes, text);
    assert.equal(value.meetings.autumn.notes, text);

    // What the server keeps is the same: another browser has nothing but that.
    const elsewhere = await browser.newContext();
    const reader = await openTab(elsewhere, pages, server.url);
    await openDocument(reader, url);
    await until(reader, (text) => window.doc.value.meetings.autumn.notes === text, text);
    assert.deepEqual(await settled([reader, ...others]), value);
    assert.deepEqual(others.flatMap((tab) => tab.faults), []);
    await elsewhere.close();
    await context.close();
  });
}

test("a tab edits a document that the leader does not show, and closes it at once: it is sent all the same", async () => {
  const context = await browser.newContext();
  const leader = await openTab(context, pages, server.url);
  await until(leader, () => window.client.status.role === "leader" && window.client.status.connection === "open");
  const tab = await openTab(context, pages, server.url);
  await until(tab, () => window.client.status.connection === "open");
  const urls = await tab.evaluate(() =>
    Array.from({ length: 10 }, (_, n) => {
      const doc = window.client.create({ n });
      doc.change((draft) => {
        draft.last = true;
      });
      doc.close();
      return doc.url;
    }),
  );
  const elsewhere = await browser.newContext();
  const reader = await openTab(elsewhere, pages, server.url);
  for (const [n, url] of urls.entries()) {
    await openDocument(reader, url);
    await until(reader, (n) => window.doc.value.n === n && window.doc.value.last === true, n);
  }
  assert.deepEqual([...leader.faults, ...tab.faults, ...reader.faults], []);
  await elsewhere.close();
  await context.close();
});
