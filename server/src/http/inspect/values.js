// How single values look, wherever one is shown.

import { el } from "./dom.js";
import { read, sizeOf } from "./model.js";
import { counted, cut, number, printable } from "./text.js";

/** Letters of a text in one line. */
const LINE = 240;
/** Letters of a key in one line. */
const KEY = 120;
/** Of what is in a closed object. */
const INSIDE = 90;

/** A key or position, in one line; that of no letters is seen, too. */
export const keyText = (key) => (key === "" ? "“”" : printable(cut(String(key), KEY)) + (String(key).length > KEY ? "…" : ""));

/** A value in one line; whatever is in it, it is a line. */
export function line(json, { inside = true } = {}) {
  const { kind, value } = read(json);
  if (kind === "object" || kind === "array") {
    const size = sizeOf({ kind, value });
    const what = kind === "array" ? counted(size, "item") : counted(size, "key");
    const seen = inside ? insideOf(kind, value) : "";
    return el("span", { class: `value ${kind}` }, el("span", { class: "size" }, what), seen === "" ? null : el("bdi", { class: "inside" }, seen));
  }
  return el("bdi", { class: `value ${kind}` }, lineText(kind, value));
}

/** The same as a text. */
export function lineText(kind, value, most = LINE) {
  switch (kind) {
    case "text":
    case "string": {
      const more = value.length > most ? "…" : "";
      return `“${printable(cut(value, most))}${more}”${more === "" ? "" : ` ${number(value.length)} letters`}`;
    }
    case "bytes":
      return `${cut(printable(String(value)), 60)}${value.length > 60 ? "…" : ""} (${counted(Math.floor((value.replace(/=+$/, "").length * 3) / 4), "byte")})`;
    case "object":
      return `{${counted(sizeOf({ kind, value }), "key")}}`;
    case "array":
      return `[${counted(sizeOf({ kind, value }), "item")}]`;
    default:
      return printable(cut(String(value), LINE));
  }
}

/** What is in a closed object, as far as it is a word or two. */
function insideOf(kind, container) {
  let text = "";
  const keys = kind === "array" ? container.keys() : Object.keys(container);
  let looked = 0;
  for (const key of keys) {
    looked += 1;
    if (text.length > INSIDE || looked > 12) return `${text} …`;
    const { kind: inner, value } = read(container[key]);
    if (inner === "object" || inner === "array") {
      if (kind === "array") return "";
      continue;
    }
    const shown = lineText(inner, value, 40);
    text += `${text === "" ? "" : " · "}${kind === "array" ? "" : `${printable(cut(String(key), 30))}: `}${shown}`;
  }
  return text;
}

/** JSON for people, until there is enough of it. */
export function pretty(json, most) {
  const parts = [];
  let length = 0;
  const put = (text) => {
    parts.push(text);
    length += text.length;
  };
  const walk = (inner, indent) => {
    if (length > most) return;
    const { kind, value } = read(inner);
    if (kind === "text" || kind === "string") put(JSON.stringify(cut(value, most - length + 1)));
    else if (kind !== "object" && kind !== "array") put(String(value));
    else {
      const [open, close] = kind === "array" ? "[]" : "{}";
      const keys = kind === "array" ? value.keys() : Object.keys(value);
      let first = true;
      put(open);
      for (const key of keys) {
        if (length > most) return;
        put(`${first ? "" : ","}\n${indent}  ${kind === "array" ? "" : `${JSON.stringify(cut(key, 1000))}: `}`);
        walk(value[key], `${indent}  `);
        first = false;
      }
      put(first ? close : `\n${indent}${close}`);
    }
  };
  walk(json, "");
  const text = parts.join("");
  return printable(text.length > most ? `${cut(text, most)}…` : text, true);
}

/** The name of a kind, for people. */
export const kindName = (kind) => ({ number: "number", boolean: "true/false", null: "null", text: "text", string: "string", timestamp: "time" })[kind] ?? kind;
