// What is asked of the server. Addresses are relative to the page's.

import { doubts, headers, within } from "./token.js";

/** What the server answered instead, or `away` if it did not. */
export class Problem extends Error {
  constructor(code, detail, status) {
    super(detail || code);
    this.code = code;
    this.status = status;
  }
}

const BASE = new URL("../v1/", document.baseURI);

/** The address of a document, with what is behind it. */
export function addressOf(id, rest = "", parameters = {}) {
  const url = new URL(`documents/${encodeURIComponent(id)}${rest}`, BASE);
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== null && value !== undefined) url.searchParams.set(name, value);
  }
  return url;
}

/** The address of a value. */
export const addressOfValue = (id, pointer, parameters) => addressOf(id, pointer === "" ? "" : `/value${pointer.split("/").map(encodeURIComponent).join("/")}`, parameters);

/** JSON; an answer that is none of success is thrown. */
export async function get(url, signal) {
  let response, text;
  try {
    response = await fetch(url, { signal, headers: { accept: "application/json", ...headers() } });
    text = await response.text();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("away", "the server does not answer");
  }
  let json;
  try {
    json = parseJson(text);
  } catch {
    throw new Problem("bad-answer", `the answer is not JSON (status ${response.status})`, response.status);
  }
  if (!response.ok) {
    if (response.status === 401) doubts.dispatchEvent(new CustomEvent("doubt", { detail: json }));
    throw new Problem(String(json?.code ?? "bad-answer"), String(json?.detail ?? ""), response.status);
  }
  return json;
}

/** JSON with whole numbers as they are: those that JavaScript's have no room for are `BigInt`. */
export function parseJson(text) {
  if (!/\d{16}/.test(text)) return JSON.parse(text);
  return JSON.parse(text, (_, value, context) =>
    typeof value === "number" && !Number.isSafeInteger(value) && /^-?\d+$/.test(context?.source ?? "") ? BigInt(context.source) : value,
  );
}

/** A page of documents: `{documents, next}`. */
export const documents = (parameters, signal) => {
  const url = new URL("documents", BASE);
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== null) url.searchParams.set(name, value);
  }
  return get(url, signal);
};

/** A page of a document's changes. */
export const changes = (id, parameters, signal) => get(addressOf(id, "/changes", parameters), signal);

/** A change with what it did. */
export const change = (id, hash, signal) => get(addressOf(id, `/changes/${encodeURIComponent(hash)}`, { types: "tagged" }), signal);

/** Which version a document had when so many changes and one more had been admitted. */
export const versionOf = async (id, place, signal) => (await get(addressOf(id, `/versions/${place}`), signal)).version;

/** A document as it was. */
export const value = (id, version, signal) => get(addressOf(id, "", { at: version, types: "tagged" }), signal);

/** What was refused last. */
export const refusals = (id, signal) => {
  const url = new URL("refusals", BASE);
  if (id !== null) url.searchParams.set("document", id);
  return get(url, signal);
};

/** The address of a document's events. */
export const events = (id, since) => within(addressOf(id, "/events", { types: "tagged", since }));
