// What the address says: which document, at which place of its history, and which part of the page. Pure.
//
//   #/                          documents
//   #/d/ID?at=PLACE&view=graph  a document; without `at` as it is now; `at` may also be a change's hash
//   #/refusals?document=ID      what was refused

/** Parts of a document's page; on narrow screens one is shown at a time. */
export const VIEWS = ["value", "graph", "change"];

/** What an address's fragment names: `{page, id, at, view}`. */
export function parse(fragment) {
  const [path, query = ""] = fragment.replace(/^#/, "").split("?", 2);
  const parameters = new URLSearchParams(query);
  const [, page, id] = path.split("/");
  if (page === "refusals") return { page: "refusals", id: parameters.get("document"), at: null, view: null };
  const named = page === "d" ? decoded(id ?? "") : "";
  if (named === "") return { page: "documents", id: null, at: null, view: null };
  const at = parameters.get("at") ?? "";
  const view = parameters.get("view");
  return {
    page: "document",
    id: named,
    at: /^\d{1,9}$/.test(at) ? Number(at) : /^[0-9a-f]{64}$/.test(at) ? at : null,
    view: VIEWS.includes(view) ? view : VIEWS[0],
  };
}

/** The fragment that names it. */
export function format({ page, id = null, at = null, view = null }) {
  const parameters = new URLSearchParams();
  if (page === "refusals") {
    if (id !== null) parameters.set("document", id);
    return `#/refusals${query(parameters)}`;
  }
  if (page !== "document") return "#/";
  if (at !== null) parameters.set("at", at);
  if (view !== null && view !== VIEWS[0]) parameters.set("view", view);
  return `#/d/${encodeURIComponent(id)}${query(parameters)}`;
}

const query = (parameters) => (parameters.size === 0 ? "" : `?${parameters}`);

/** Also of an address that somebody made by hand. */
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** The id in what somebody typed or pasted: an id, an `automerge:` URL, or this page's or a value's address. */
export function idOf(text) {
  const trimmed = text.trim();
  const inAddress = /\/v1\/documents\/([^/?#\s]+)/.exec(trimmed) ?? /#\/d\/([^/?#\s]+)/.exec(trimmed);
  if (inAddress !== null) return decoded(inAddress[1]);
  return trimmed.replace(/^automerge:/, "").replace(/[#?].*$/, "");
}
