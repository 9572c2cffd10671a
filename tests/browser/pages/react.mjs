// A page of React components for the tests of the bindings. Counts renderings by component.

import { createElement as h, memo, StrictMode, useEffect } from "react";
import { createRoot, hydrateRoot } from "react-dom/client";
import { renderToString } from "react-dom/server.browser";

import { useDocument, useHandle, usePresence, useStatus, useValue } from "@concord/client/react";

export const renders = {};
const count = (name) => {
  renders[name] = (renders[name] ?? 0) + 1;
};

const Title = memo(function Title({ handle }) {
  count("title");
  return h("h1", null, useValue(handle, (value) => value.title) ?? "…");
});

// A new array and a new selector at each rendering.
const Open = memo(function Open({ handle }) {
  count("open");
  const open = useValue(handle, (value) => (value.tasks ?? []).filter((task) => !task.done));
  return h("ul", { id: "open" }, open?.map((task) => h("li", { key: task.id }, task.text)));
});

const Status = memo(function Status({ handle }) {
  return h("p", { id: "state" }, useStatus(handle).state);
});

const Peers = memo(function Peers({ handle, name }) {
  const { peers, set } = usePresence(handle);
  useEffect(() => set({ name }), [set, name]);
  return h("p", { id: "peers" }, peers.map((peer) => peer.state.name).join());
});

function Parts({ client, url, name }) {
  count("parts");
  const handle = useHandle(client, url);
  return h("div", null, h(Title, { handle }), h(Open, { handle }), h(Status, { handle }), h(Peers, { handle, name }));
}

function Whole({ client, url }) {
  const { value, status, change } = useDocument(client, url);
  const shout = () => change((draft) => void (draft.title = `${value.title}!`));
  return h("button", { id: "whole", onClick: shout }, `${status.state}: ${value?.title ?? "…"}`);
}

const app = (props) => h(StrictMode, null, h(Whole, props), h(Parts, props));

/** Shows the document in strict mode; gives what takes it away. */
export function mount(props, into = document.getElementById("show")) {
  const root = createRoot(into);
  root.render(app(props));
  return { again: (other) => root.render(app(other)), end: () => root.unmount() };
}

/** What a server renders, and then this page on top of it. */
export function hydrate(props) {
  const into = document.getElementById("show");
  into.innerHTML = renderToString(app(props));
  const rendered = into.innerHTML;
  const faults = [];
  const root = hydrateRoot(into, app(props), { onRecoverableError: (error) => faults.push(String(error)) });
  return { rendered, faults, end: () => root.unmount() };
}
