// Promise: an editor and the text of a document are the same, whoever changes which; nothing that is typed is lost;
// others' cursors are where they are among the letters.
//
// Editors in two tabs of one browser and in another browser are edited at once, at random: by a seed that is
// printed, and by CONCORD_TEST_SEED is the same again. That all come to the same would hold, too, if edits were lost
// or the editors all read the document anew: so what was inserted is counted, and what the document dispatches is
// looked at.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { Bench, text } from "./bindings.mjs";
import { settled, until } from "./harness.mjs";

const SEED = Number(process.env.CONCORD_TEST_SEED ?? Math.floor(Math.random() * 2 ** 31));
console.log(`CONCORD_TEST_SEED=${SEED}`);

let bench;

before(async () => {
  bench = await Bench.start("codemirror");
});

after(() => bench?.stop());

/** An editor in each tab: `window.view`. */
const edit = (tabs, path = ["notes"], doc = "") =>
  Promise.all(
    tabs.map((tab, n) =>
      tab.evaluate(
        async ([path, n, doc]) => {
          window.page ??= await import("/codemirror.js");
          window.view = window.page.edit(window.doc, path, { name: `writer ${n}`, color: "#c2410c" }, doc);
          await Promise.resolve();
        },
        [path, n, doc],
      ),
    ),
  );

const content = (tab) => tab.evaluate(() => window.view.state.doc.toString());
const reads = (tab, expected) => until(tab, (expected) => window.view.state.doc.toString() === expected, expected);

test("CodeMirror: all type at random, and nothing is lost", async () => {
  const { tabs, close } = await bench.tabsOf({ notes: "Minutes 😀 of the meeting\n" });
  await edit(tabs, ["notes"], "what an editor began with gives way");
  assert.equal(await content(tabs[0]), "Minutes 😀 of the meeting\n");
  const type = (steps, onlyInserts) =>
    Promise.all(
      tabs.map((tab, n) =>
        tab.evaluate(
          ([seed, steps, onlyInserts]) => window.page.typeAtRandom(window.view, seed, steps, onlyInserts),
          [SEED + n, steps, onlyInserts],
        ),
      ),
    );
  const same = async () => {
    const value = await settled(tabs);
    for (const tab of tabs) {
      assert.equal(await content(tab), value.notes);
    }
    return value.notes;
  };
  const inserted = await type(60, true);
  const units = (all) => [...all].sort().join("");
  const notes = await same();
  assert.equal(units(notes), units(`Minutes 😀 of the meeting\n${inserted.join("")}`));
  await type(80, false);
  assert.ok(!(await same()).includes("\r"));
  // Not by reading all of it again: as much as others typed, at most.
  const dispatched = await tabs[0].evaluate(() => window.view.remote);
  assert.ok(dispatched.length > 10);
  assert.ok(dispatched.every(({ inHistory, isRemote }) => inHistory === false && isRemote === true));
  await close();
});

test("CodeMirror: a transaction is one change, and what comes is the letters that are new", async () => {
  const { tabs, close } = await bench.tabsOf({ notes: "one two three" });
  await edit(tabs);
  const before = await tabs[0].evaluate(() => window.doc.history().length);
  await tabs[1].evaluate(() => window.view.dispatch({ selection: { anchor: 7 } }));
  await tabs[0].evaluate(() => {
    window.view.dispatch({ changes: [{ from: 0, to: 3, insert: "😀" }, { from: 4, insert: "x" }, { from: 8, to: 13 }] });
  });
  assert.equal(await tabs[0].evaluate(() => window.doc.history().length), before + 1);
  assert.equal((await settled(tabs)).notes, "😀 xtwo ");
  for (const tab of tabs.slice(1)) {
    await reads(tab, "😀 xtwo ");
    assert.equal(await tab.evaluate(() => window.view.remote.reduce((sum, { letters }) => sum + letters, 0)), 13 + 3 + 2 + 1 + 5);
  }
  // The cursor stays between the same letters.
  assert.equal(await tabs[1].evaluate(() => window.view.state.selection.main.head), 7);
  // Half of a letter can't be kept.
  await tabs[0].evaluate(() => window.view.dispatch({ changes: { from: 0, to: 1 } }));
  const { notes } = await settled(tabs);
  assert.equal(notes, "\ufffd xtwo ");
  await Promise.all(tabs.map((tab) => reads(tab, notes)));
  await close();
});

test("CodeMirror: keys and an input method, while others type in the same line", async () => {
  const { tabs, close } = await bench.tabsOf({ notes: "first\nstart: " });
  await edit(tabs);
  const [one, other] = tabs;
  const end = (tab) =>
    tab.evaluate(() => {
      window.view.focus();
      window.view.dispatch({ selection: { anchor: window.view.state.doc.length } });
    });
  await end(one);
  const session = await one.context().newCDPSession(one);
  const compose = (text) => session.send("Input.imeSetComposition", { text, selectionStart: text.length, selectionEnd: text.length });
  await compose("k");
  await compose("か");
  await reads(other, "first\nstart: か");
  // In another line: shown at once. In the line that is being composed: only after that, or it would be cut off.
  const insert = (from, insert) => other.evaluate((change) => window.view.dispatch({ changes: change }), { from, insert });
  await insert(5, "!");
  await reads(one, "first!\nstart: か");
  await insert(7, "[others] ");
  await settled(tabs);
  assert.equal(await content(one), "first!\nstart: か");
  await compose("かん");
  await compose("漢");
  await session.send("Input.insertText", { text: "漢字" });
  const expected = "first!\n[others] start: 漢字";
  await Promise.all(tabs.map((tab) => reads(tab, expected)));
  await end(other);
  await other.keyboard.type(" and keys");
  await other.keyboard.press("Backspace");
  await Promise.all(tabs.map((tab) => reads(tab, `${expected} and key`)));
  assert.equal((await settled(tabs)).notes, `${expected} and key`);
  await close();
});

test("CodeMirror: others' cursors and selections, with their names", async () => {
  const { tabs, close } = await bench.tabsOf({ notes: "one two three" });
  await edit(tabs);
  const [one, other, third] = tabs;
  await one.evaluate(() => {
    window.view.focus();
    window.view.dispatch({ selection: { anchor: 4, head: 7 } });
  });
  const carets = (tab) =>
    tab.evaluate(() =>
      [...document.querySelectorAll(".cm-concord-caret")].map((caret) => ({
        name: caret.querySelector(".cm-concord-name").dataset.name,
        at: window.view.posAtDOM(caret),
        color: getComputedStyle(caret).color,
      })),
    );
  const state = () => JSON.stringify({ text: window.doc.value, peers: window.doc.presence.peers, own: window.doc.presence.own, hasFocus: window.view.hasFocus, client: window.client.status });
  const caretAt = (tab, at) =>
    until(tab, (at) => [...document.querySelectorAll(".cm-concord-caret")].some((caret) => window.view.posAtDOM(caret) === at), at).catch(
      async (error) => {
        throw new Error((await Promise.all(tabs.map((tab) => tab.evaluate(state)))).join("\n"), { cause: error });
      },
    );
  for (const tab of [other, third]) {
    await caretAt(tab, 7);
    assert.deepEqual((await carets(tab)).filter(({ name }) => name === "writer 0"), [{ name: "writer 0", at: 7, color: "rgb(194, 65, 12)" }]);
    assert.equal(await text(tab, ".cm-concord-selection"), "two");
  }
  // It stays where it is among the letters, whoever types; at the text's end, too.
  await third.evaluate(() => window.view.dispatch({ changes: { from: 0, insert: "zero " } }));
  await Promise.all([caretAt(other, 12), caretAt(third, 12), reads(one, "zero one two three")]);
  assert.equal(await text(other, ".cm-concord-selection"), "two");
  await one.evaluate(() => window.view.dispatch({ selection: { anchor: window.view.state.doc.length } }));
  await Promise.all([caretAt(other, 18), caretAt(third, 18)]);
  // What is told is not to be trusted.
  await one.evaluate(() => window.doc.presence.set({ name: "<b>x</b>", color: "red; position: fixed" }));
  await until(other, () => document.querySelector(".cm-concord-name")?.dataset.name === "<b>x</b>");
  const style = await other.evaluate(() => document.querySelector(".cm-concord-caret").getAttribute("style"));
  assert.match(style, /^color: rgb\(107, 114, 128\);$/);
  await one.evaluate(() => window.doc.presence.set({ caret: { path: ["notes"], head: "nonsense", anchor: 7 } }));
  await until(other, () => document.querySelector(".cm-concord-caret") === null);
  // An editor that goes takes its cursor with it.
  await one.evaluate(() => window.view.dispatch({ selection: { anchor: 2 } }));
  await caretAt(other, 2);
  await one.evaluate(() => window.view.destroy());
  await until(other, () => document.querySelector(".cm-concord-caret") === null);
  await close();
});

test("CodeMirror: a text that is replaced, deleted, moved, or not to be written", async () => {
  const { tabs, close } = await bench.tabsOf({ notes: "a\r\nb", items: [{ text: "first" }, { text: "second" }] });
  await edit(tabs);
  const [one, other] = tabs;
  const isReadOnly = (tab, expected) => until(tab, (expected) => window.view.state.readOnly === expected, expected);
  const append = (tab, letters) =>
    tab.evaluate((insert) => window.view.dispatch({ changes: { from: window.view.state.doc.length, insert } }), letters);
  // A "\r" is a letter: positions behind it are the same in both.
  await append(other, "!");
  assert.equal((await settled(tabs)).notes, "a\r\nb!");
  await Promise.all(tabs.map((tab) => reads(tab, "a\r\nb!")));
  await one.evaluate(() => window.doc.change((draft) => void (draft.notes = "another text")));
  await Promise.all(tabs.map((tab) => reads(tab, "another text")));
  await append(other, "!");
  assert.equal((await settled(tabs)).notes, "another text!");
  await one.evaluate(() => window.doc.change((draft) => void delete draft.notes));
  for (const tab of tabs) {
    await reads(tab, "");
    await isReadOnly(tab, true);
  }
  await append(other, "nowhere");
  assert.equal(await content(other), "");
  await one.evaluate(() => window.doc.change((draft) => void (draft.notes = "again")));
  for (const tab of tabs) {
    await reads(tab, "again");
    await isReadOnly(tab, false);
  }
  // An element of a list is followed.
  await Promise.all(tabs.map((tab) => tab.evaluate(() => window.view.destroy())));
  await edit(tabs, ["items", 1, "text"]);
  await one.evaluate(() => window.doc.change((draft) => void draft.items.unshift({ text: "zeroth" }, { text: "half" })));
  await settled(tabs);
  await append(other, "!");
  assert.deepEqual((await settled(tabs)).items.map((item) => item.text), ["zeroth", "half", "first", "second!"]);
  await Promise.all(tabs.map((tab) => reads(tab, "second!")));
  await one.evaluate(() => window.doc.change((draft) => void draft.items.splice(1, 2)));
  await settled(tabs);
  await append(other, "?");
  assert.deepEqual((await settled(tabs)).items.map((item) => item.text), ["zeroth", "second!?"]);
  await one.evaluate(() => window.doc.change((draft) => void draft.items.splice(1, 1)));
  for (const tab of tabs) {
    await reads(tab, "");
    await isReadOnly(tab, true);
  }
  await close();
});

test("CodeMirror: an editor that is there before its document", async () => {
  const { tabs, close } = await bench.tabsOf({ notes: "unused" });
  const [one, , elsewhere] = tabs;
  const url = await one.evaluate(async () => {
    window.doc = window.client.create({});
    await window.doc.whenSynced();
    return window.doc.url;
  });
  await elsewhere.evaluate((url) => {
    window.doc = window.client.open(url);
  }, url);
  await edit([elsewhere], ["notes"], "an outline");
  assert.equal(await elsewhere.evaluate(() => window.view.state.readOnly), true);
  await elsewhere.evaluate(() => window.view.dispatch({ changes: { from: 0, insert: "too early" } }));
  assert.equal(await content(elsewhere), "an outline");
  // There, but no text in it: nothing to be tied to.
  await elsewhere.evaluate(() => window.doc.whenReady());
  assert.equal(await elsewhere.evaluate(() => window.view.state.readOnly), true);
  await one.evaluate(() => window.doc.change((draft) => void (draft.notes = "a text")));
  await reads(elsewhere, "a text");
  await until(elsewhere, () => !window.view.state.readOnly);
  await elsewhere.evaluate(() => window.view.dispatch({ changes: { from: 6, insert: "!" } }));
  assert.equal((await settled([one, elsewhere])).notes, "a text!");
  await close();
});

test("CodeMirror: a listener that changes the text while an editor does, and two editors in a page", async () => {
  const { tabs, close } = await bench.tabsOf({ notes: "start" });
  await tabs[0].evaluate(() => {
    // Whoever writes "?" is answered in the middle of that.
    window.doc.on("patches", ({ patches }) => {
      if (patches.some((patch) => patch.value === "?")) {
        window.doc.splice(["notes"], [{ index: 0, remove: 0, insert: "answer " }]);
      }
    });
  });
  await edit(tabs);
  await tabs[0].evaluate(() => {
    const second = window.page.edit(window.doc, ["notes"]);
    window.second = second;
    // In one go: the second change is made before the first has been told to the other editor.
    window.view.dispatch({ changes: { from: 5, insert: "?" } });
    second.dispatch({ changes: { from: 0, insert: "1" } });
    window.view.dispatch({ changes: { from: 0, insert: "2" } });
  });
  const { notes } = await settled(tabs);
  assert.equal([...notes].sort().join(""), [..."start?answer 12"].sort().join(""));
  await Promise.all(tabs.map((tab) => reads(tab, notes)));
  assert.equal(await tabs[0].evaluate(() => window.second.state.doc.toString()), notes);
  await close();
});

test("CodeMirror: undo takes back own edits only", async () => {
  const { tabs, close } = await bench.tabsOf({ notes: "" });
  const [one, other] = tabs;
  await edit(tabs);
  await one.evaluate(() => window.view.focus());
  await one.keyboard.type("mine");
  await Promise.all(tabs.map((tab) => reads(tab, "mine")));
  await other.evaluate(() => window.view.dispatch({ changes: { from: 0, insert: "others' " } }));
  await Promise.all(tabs.map((tab) => reads(tab, "others' mine")));
  // What was typed in one go is one step, and nothing else is there to take back.
  for (const [key, expected] of [
    ["Control+z", "others' "],
    ["Control+z", "others' "],
    ["Control+Shift+Z", "others' mine"],
    ["Control+z", "others' "],
    ["Control+y", "others' mine"],
  ]) {
    await one.keyboard.press(key);
    await Promise.all(tabs.map((tab) => reads(tab, expected)));
    assert.equal((await settled(tabs)).notes, expected, key);
  }
  await close();
});
