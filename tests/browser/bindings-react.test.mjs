// Promise: what others change is shown, and nothing is called or rendered for what is not different; a document is
// open exactly as long as a component shows it.
//
// Components count their renderings themselves, in strict mode, and the page counts the handles that are opened and
// closed: what is shown would be the same if all was rendered at each change and no handle ever closed.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { Bench, shows } from "./bindings.mjs";
import { settled, until } from "./harness.mjs";

let bench;

before(async () => {
  bench = await Bench.start("react");
});

after(() => bench?.stop());

test("a store gives the same snapshot until its part is different", async () => {
  const { tabs, close } = await bench.tabsOf({ title: "Board", tasks: [{ id: 1, done: false }] });
  const seen = await tabs[0].evaluate(async () => {
    const { select, valueStore, statusStore, peersStore } = await import("/client/store.js");
    const { doc } = window;
    const whole = valueStore(doc);
    const title = select(doc, (value) => value.title);
    const open = select(doc, (value) => value.tasks.filter((task) => !task.done));
    const calls = { whole: 0, title: 0, open: 0 };
    const ends = Object.entries({ whole, title, open }).map(([name, store]) => store.subscribe(() => (calls[name] += 1)));
    const before = { whole: whole.getSnapshot(), open: open.getSnapshot() };
    doc.change((draft) => void (draft.title = "Minutes"));
    const kept = { whole: before.whole === whole.getSnapshot(), open: before.open === open.getSnapshot() };
    doc.change((draft) => void (draft.tasks[0].done = true));
    const last = open.getSnapshot().length;
    ends.forEach((end) => end());
    doc.change((draft) => void (draft.title = "nobody hears of it"));
    return {
      calls,
      kept,
      last,
      stable: [whole, title, open, statusStore(doc), peersStore(doc)].every((store) => store.getSnapshot() === store.getSnapshot()),
    };
  });
  assert.deepEqual(seen, { calls: { whole: 2, title: 1, open: 1 }, kept: { whole: false, open: true }, last: 0, stable: true });
  await close();
});

const mount = (tab, url, name) =>
  tab.evaluate(
    async ([url, name]) => {
      window.page = await import("/react.js");
      // Counts the handles that components have.
      window.handles = { opened: 0, closed: 0 };
      window.props = {
        url,
        name,
        client: {
          open: (id) => {
            const handle = window.client.open(id);
            const close = handle.close.bind(handle);
            window.handles.opened += 1;
            handle.close = () => {
              window.handles.closed += 1;
              close();
            };
            return handle;
          },
        },
      };
      window.root = window.page.mount(window.props);
    },
    [url, name],
  );

test("React: what others change is shown, and only what is different is rendered", async () => {
  const tasks = [
    { id: "a", text: "invite", done: false },
    { id: "b", text: "print", done: false },
  ];
  const { tabs, url, close } = await bench.tabsOf({ title: "Board", tasks, other: 0 });
  const [writer, ...readers] = tabs;
  await Promise.all(readers.map((tab, n) => mount(tab, url, `reader ${n}`)));
  for (const tab of readers) {
    await shows(tab, "h1", "Board");
    await shows(tab, "#open", "inviteprint");
    await shows(tab, "#state", "ready");
  }
  await shows(readers[0], "#peers", "reader 1");
  await shows(readers[1], "#peers", "reader 0");
  const counts = () => Promise.all(readers.map((tab) => tab.evaluate(() => ({ ...window.page.renders }))));
  await settled(tabs);
  const before = await counts();
  await writer.evaluate(() => window.doc.change((draft) => void (draft.title = "Minutes")));
  for (const tab of readers) {
    await shows(tab, "h1", "Minutes");
    await shows(tab, "#whole", "ready: Minutes");
  }
  await writer.evaluate(() => {
    window.doc.change((draft) => void (draft.other = 1));
    window.doc.change((draft) => void draft.tasks.push({ done: true, id: "c", text: "done already" }));
  });
  await settled(tabs);
  await until(readers[1], () => window.doc.value.tasks.length === 3);
  const after = await counts();
  for (const [n, { title, open, parts }] of after.entries()) {
    // Strict mode renders twice.
    assert.equal(title - before[n].title, 2, "the title was rendered once");
    assert.equal(open - before[n].open, 0, "open tasks are the same");
    assert.equal(parts - before[n].parts, 0, "what only has a handle renders for no change");
  }
  // And the other way.
  await readers[1].evaluate(() => document.getElementById("whole").click());
  await until(writer, () => window.doc.value.title === "Minutes!");
  await shows(readers[0], "h1", "Minutes!");
  await close();
});

test("React: a handle is open while a component shows it, and no longer", async () => {
  const { tabs, url, close } = await bench.tabsOf({ title: "Board", tasks: [] });
  const tab = tabs[1];
  await mount(tab, url, "one");
  await shows(tab, "h1", "Board");
  const handles = () => tab.evaluate(() => window.handles);
  assert.deepEqual(await handles(), { opened: 1, closed: 0 }, "one for all components, in strict mode too");
  // A second tree goes, and the first stays.
  await tab.evaluate(() => {
    const second = window.page.mount(window.props, document.body.appendChild(document.createElement("div")));
    setTimeout(() => second.end(), 50);
  });
  await new Promise((later) => setTimeout(later, 1_500));
  assert.deepEqual(await handles(), { opened: 1, closed: 0 });
  await tabs[2].evaluate(() => window.doc.change((draft) => void (draft.title = "still followed")));
  await shows(tab, "h1", "still followed");
  // Another document in its place, then none.
  const other = await tab.evaluate(() => {
    const made = window.client.create({ title: "Other", tasks: [] });
    window.root.again({ ...window.props, url: made.url });
    return made.url;
  });
  assert.notEqual(other, url);
  await shows(tab, "h1", "Other");
  await until(tab, () => window.handles.opened === 2 && window.handles.closed === 1);
  await tab.evaluate(() => window.root.end());
  await until(tab, () => window.handles.closed === 2);
  await new Promise((later) => setTimeout(later, 200));
  assert.deepEqual(await handles(), { opened: 2, closed: 2 });
  await close();
});

test("React: what was rendered and never committed leaves nothing open; a server renders without a client", async () => {
  const { tabs, url, close } = await bench.tabsOf({ title: "Board", tasks: [] });
  const tab = tabs[1];
  await mount(tab, url, "one");
  await shows(tab, "h1", "Board");
  await tab.evaluate(() => window.root.end());
  await until(tab, () => window.handles.closed === 1);
  const { rendered } = await tab.evaluate(() => {
    window.hydrated = window.page.hydrate(window.props);
    return window.hydrated;
  });
  assert.match(rendered, /<h1>…<\/h1>/);
  assert.match(rendered, /loading: …/);
  await shows(tab, "h1", "Board");
  assert.deepEqual(await tab.evaluate(() => window.hydrated.faults), []);
  await tab.evaluate(() => window.hydrated.end());
  await until(tab, () => window.handles.opened === window.handles.closed);
  await close();
});
