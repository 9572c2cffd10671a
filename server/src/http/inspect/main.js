// The inspector's page: what the address names is shown, and what is chosen is put into the address.

import { DocumentPage } from "./document.js";
import { Documents } from "./documents.js";
import { button, el } from "./dom.js";
import { listen } from "./keyboard.js";
import { Refusals } from "./refusals.js";
import { format, idOf, parse } from "./route.js";
import { cut, printable } from "./text.js";
import { doubts, lookAs, takeFromAddress } from "./token.js";

/** Between two writings of a place that is being slid over, milliseconds: browsers take only so many. */
const ADDRESS_MS = 250;

const STATES = { live: "live", away: "server away", gone: "no document" };

const documents = new Documents();
const open = el("input", { type: "search", class: "open", placeholder: "open: id or automerge: URL  ( / )", "aria-label": "Open a document by id or URL", spellcheck: "false", autocomplete: "off" });
const who = el("input", { type: "password", class: "who", placeholder: "token", "aria-label": "Your token", autocomplete: "off", hidden: true });
const state = el("span", { class: "state", role: "status" });
const content = el("div", { class: "content" });
let route = parse("");
let page = null;
let timer;

/** Goes to a page, so that Back leads here. */
function go(next) {
  clearTimeout(timer);
  const fragment = format(next);
  if (fragment === location.hash) return;
  history.pushState(null, "", fragment);
  show();
}

/** The same page at another place of the history. */
function goTo(at) {
  route = { ...route, at };
  page.show(at, route.view);
  clearTimeout(timer);
  timer = setTimeout(() => history.replaceState(null, "", format(route)), ADDRESS_MS);
}

function goView(view) {
  route = { ...route, view };
  clearTimeout(timer);
  history.replaceState(null, "", format(route));
  page.show(route.at, view);
}

function say(what) {
  state.textContent = STATES[what] ?? "";
  state.className = `state ${what}`;
}

function show() {
  clearTimeout(timer);
  const next = parse(location.hash);
  const isSame = page !== null && next.page === route.page && next.id === route.id;
  route = next;
  documents.current = route.page === "document" ? route.id : null;
  document.body.dataset.page = route.page;
  if (!isSame) {
    page?.close?.();
    page = null;
    say("");
    if (route.page === "document") page = new DocumentPage(route.id, goTo, goView, say);
    else if (route.page === "refusals") page = new Refusals(route.id, (id) => go({ page: "refusals", id: id === null ? null : idOf(id) }));
    document.title = `${route.page === "document" ? printable(cut(route.id, 12)) : route.page} · Concord inspector`;
    content.replaceChildren(page?.element ?? welcome());
  }
  if (route.page === "document") page.show(route.at, route.view);
}

const welcome = () => el("main", { class: "welcome" }, el("h1", {}, "Documents, as they are and as they were"), el("p", {}, "Choose a document, or paste its id. Nothing can be changed from here."));

open.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || idOf(open.value) === "") return;
  go({ page: "document", id: idOf(open.value) });
  open.value = "";
  open.blur();
});

who.addEventListener("keydown", (event) => {
  if (event.key !== "Enter") return;
  lookAs(who.value);
  location.reload();
});
doubts.addEventListener("doubt", ({ detail }) => {
  who.hidden = false;
  who.title = printable(String(detail?.detail ?? ""));
});

const parts = (name) => () => page?.parts?.[name]?.focus();
const help = listen({
  "/": () => open.focus(),
  1: () => documents.focus(),
  2: parts("timeline"),
  3: parts("tree"),
  4: parts("graph"),
  5: parts("change"),
  ",": () => page?.step?.(-1),
  ".": () => page?.step?.(1),
  n: () => route.page === "document" && goTo(null),
});

document.body.prepend(
  el(
    "header",
    { class: "top" },
    el("a", { class: "name", href: "#/" }, el("strong", {}, "Concord"), " inspector"),
    open,
    who,
    state,
    el("a", { href: format({ page: "refusals" }), class: "to-refusals" }, "refusals"),
    button("?", help, { "aria-label": "Keys", title: "keys ( ? )" }),
  ),
  el("div", { class: "page" }, documents.element, content),
);
takeFromAddress();
window.addEventListener("popstate", show);
// Another token: what is shown was for somebody else.
window.addEventListener("hashchange", () => takeFromAddress() && location.reload());
window.addEventListener("hashchange", () => format(parse(location.hash)) !== format(route) && show());
show();
void documents.load();
