// Promise: scopes and inputs show a document as it is, with a digest for each frame at most; what is typed is written,
// and what is being typed is left alone.
//
// The page counts its digests: it would show the same with one for each change.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { Bench, shows, text } from "./bindings.mjs";
import { settled, until } from "./harness.mjs";

let bench;

before(async () => {
  bench = await Bench.start("angularjs");
});

after(() => bench?.stop());

const start = (tab, url, template) =>
  tab.evaluate(
    async ([url, template]) => {
      const { start } = await import("/angularjs.js");
      window.page = await start(window.client, url, template);
    },
    [url, template],
  );

const items = ["invite", "print", "order"].map((text, n) => ({ id: `i${n}`, text }));

test("AngularJS: a list and an input, both ways", async () => {
  const { tabs, url, close } = await bench.tabsOf({ title: "Board", place: { date: "?" }, guests: 3, done: false, items });
  const [writer, reader] = tabs;
  await start(
    reader,
    url,
    `<h1>{{board.title}}</h1>
    <ul id="list"><li ng-repeat="item in board.items track by item.id">{{item.text}}</li></ul>
    <ul id="copies"><li ng-repeat="item in board.items | concordCopies">{{item.text}}</li></ul>
    <form name="form">
      <input id="date" concord-model="handle" concord-path="['place', 'date']" required>
      <input id="slow" concord-model="handle" concord-path="['title']" ng-model-options="{ debounce: 400 }">
      <input id="guests" type="number" concord-model="handle" concord-path="['guests']">
      <input id="done" type="checkbox" concord-model="handle" concord-path="['done']">
      <input class="text" ng-repeat="item in board.items track by item.id" concord-model="handle" concord-path="['items', $index, 'text']">
    </form>`,
  );
  await shows(reader, "h1", "Board");
  await shows(reader, "#list", "inviteprintorder");
  await shows(reader, "#copies", "inviteprintorder");
  const input = (selector, expected) =>
    until(reader, ([selector, expected]) => document.querySelector(selector).value === expected, [selector, expected]);
  await input("#date", "?");
  await input("#guests", "3");
  await input(".text:last-of-type", "order");
  // The same elements after a change, and the one that is new.
  await reader.evaluate(() => {
    window.elements = [...document.querySelectorAll("#list li, #copies li")];
  });
  await writer.evaluate(() =>
    window.doc.change((draft) => {
      draft.items.unshift({ id: "new", text: "begin" });
      draft.place.date = "2026-11-21";
    }),
  );
  await shows(reader, "#list", "begininviteprintorder");
  await shows(reader, "#copies", "begininviteprintorder");
  assert.ok(await reader.evaluate(() => window.elements.every((element) => element.isConnected)));
  await input("#date", "2026-11-21");
  await input(".text", "begin");
  // The page writes.
  await reader.fill("#date", "2026-12-24");
  await reader.fill("#guests", "12");
  await reader.check("#done");
  await reader.fill(".text:nth-of-type(6)", "invite all");
  await until(writer, () => window.doc.value.items[1].text === "invite all" && window.doc.value.place.date === "2026-12-24");
  await until(writer, () => window.doc.value.guests === 12 && window.doc.value.done === true);
  // What is invalid is not written.
  await reader.fill("#date", "");
  assert.equal(await reader.evaluate(() => window.page.root.form.$invalid), true);
  assert.equal((await settled(tabs.slice(0, 1).concat(tabs[2]))).place.date, "2026-12-24");
  // What is being typed is not replaced by what others write meanwhile, and is written after its debounce.
  await reader.fill("#slow", "Bo");
  await writer.evaluate(() => window.doc.change((draft) => void (draft.title = "Minutes")));
  await shows(reader, "h1", "Minutes");
  assert.equal(await reader.evaluate(() => document.querySelector("#slow").value), "Bo");
  await until(writer, () => window.doc.value.title === "Bo");
  await shows(reader, "h1", "Bo");
  assert.deepEqual(await reader.evaluate(() => window.page.faults), []);
  await close();
});

test("AngularJS: frozen values need track by", async () => {
  const { tabs, url, close } = await bench.tabsOf({ title: "Board", items });
  await start(tabs[1], url, `<ul><li ng-repeat="item in board.items">{{item.text}}</li></ul>`);
  await until(tabs[1], () => window.page.faults.length > 0);
  assert.match((await tabs[1].evaluate(() => window.page.faults))[0], /\$\$hashKey/);
  await close();
});

test("AngularJS: one digest for a frame, and none for a scope that is gone", async () => {
  const { tabs, url, close } = await bench.tabsOf({ title: "Board", count: 0, items });
  const [, reader] = tabs;
  await start(reader, url, "<h1>{{board.title}}</h1><p id=count>{{board.count}}</p>");
  await shows(reader, "h1", "Board");
  await settled(tabs);
  await new Promise((later) => setTimeout(later, 300));
  // In one task, a hundred changes of the page's own.
  const burst = await reader.evaluate(async () => {
    const before = window.page.digests;
    for (let n = 1; n <= 100; n += 1) {
      window.doc.change((draft) => void (draft.count = n));
    }
    const within = window.page.digests - before;
    while (document.getElementById("count").textContent !== "100") {
      await new Promise((soon) => setTimeout(soon, 5));
    }
    return { within, digests: window.page.digests - before };
  });
  assert.equal(burst.within, 0);
  assert.equal(burst.digests, 1);
  await settled(tabs);
  await new Promise((later) => setTimeout(later, 300));
  // Others' changes, over a second.
  await reader.evaluate(() => {
    window.frames_ = 0;
    window.before = window.page.digests;
    const count = () => {
      window.frames_ += 1;
      requestAnimationFrame(count);
    };
    requestAnimationFrame(count);
  });
  await tabs[2].evaluate(async () => {
    for (let n = 101; n <= 400; n += 1) {
      window.doc.change((draft) => void (draft.count = n));
      if (n % 5 === 0) {
        await new Promise((soon) => setTimeout(soon, 10));
      }
    }
  });
  await shows(reader, "#count", "400");
  const { frames, digests } = await reader.evaluate(() => ({ frames: window.frames_, digests: window.page.digests - window.before }));
  console.log(`300 changes from elsewhere: ${digests} digests in ${frames} frames`);
  // A frame that was late is given up after a tenth of a second.
  assert.ok(digests > 0 && digests <= frames + 1, `${digests} digests in ${frames} frames`);
  // In a digest that runs, what is changed is shown by that one.
  const own = await reader.evaluate(async () => {
    const before = window.page.digests;
    window.page.root.$apply(() => window.doc.change((draft) => void (draft.title = "at once")));
    const shown = document.querySelector("h1").textContent;
    const digests = window.page.digests - before;
    await new Promise((soon) => setTimeout(soon, 5));
    return { shown, digests };
  });
  assert.deepEqual(own, { shown: "at once", digests: 1 });
  // All that was bound ends with its scope, whoever still has the handle.
  const kept = await reader.evaluate(async () => {
    const scope = window.page.root.$new();
    window.page.concord.bind(scope, "board", window.doc);
    scope.$destroy();
    window.page.root.$apply(() => window.doc.change((draft) => void (draft.count = 401)));
    const { count } = scope.board;
    window.page.root.$apply(() => window.doc.change((draft) => void (draft.count = 400)));
    return count;
  });
  assert.equal(kept, 400);
  await settled(tabs);
  await reader.evaluate(async () => {
    await new Promise((later) => setTimeout(later, 300));
    window.page.unbind();
    window.page.scope.$destroy();
    window.before = window.page.digests;
  });
  await tabs[2].evaluate(() => window.doc.change((draft) => void (draft.title = "unheard of")));
  await until(tabs[1], () => window.page.digests === window.before);
  await new Promise((later) => setTimeout(later, 500));
  assert.equal(await reader.evaluate(() => window.page.digests - window.before), 0);
  assert.equal(await text(reader, "h1"), "at once");
  await close();
});
