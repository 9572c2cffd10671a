// What random.test.mjs runs inside of its pages.

import { Counter, splice } from "/client/index.js";

/** Documents of this page by URL. */
export const documents = new Map();
/** Versions that were `synced` at some moment, by URL. */
export const believed = new Map();

function watch(doc) {
  documents.set(doc.url, doc);
  const heads = new Set();
  believed.set(doc.url, heads);
  const look = () => {
    if (doc.status.state === "ready" && doc.status.synced) {
      for (const head of doc.heads) {
        heads.add(head);
      }
    }
  };
  doc.on("status", look);
  look();
}

export function open(url) {
  if (!documents.has(url)) {
    watch(window.client.open(url));
  }
}

const EMPTY = { title: "", list: [], map: {}, nested: {}, text: "", lines: [{ text: "", n: 0 }] };

export function create(operation) {
  const doc = window.client.create({ ...EMPTY, count: new Counter(0) });
  watch(doc);
  report(doc, operation);
  return doc.url;
}

/** Tells the test when an operation is saved; says nothing when the page ends before. */
function report(doc, operation) {
  doc.whenSaved().then(() => window.reportSaved(operation));
}

/** Between the tokens of a text, each of which ends with a semicolon. */
function places(text) {
  const all = [0];
  for (let at = text.indexOf(";"); at >= 0; at = text.indexOf(";", at + 1)) {
    all.push(at + 1);
  }
  return all;
}

const pick = (list, random) => list[Math.floor(random * list.length)];

/** Longer than two changes of a text may be apart to be one step, milliseconds. */
const NEXT_STEP_MS = 5_000;
/** By URL: when this page's last change of it was made. */
const clocks = new Map();

/** Runs `work` at this time: which changes are one step must not hang on the machine. */
function atTime(time, work) {
  const { now } = Date;
  Date.now = () => time;
  try {
    work();
  } finally {
    Date.now = now;
  }
}

/**
 * Makes one change, which brings the token `operation`, or removes one that is there. What it did, or nothing where
 * there is nothing to do it to. `random`: two numbers in [0, 1). `goesOn`: right after the one before.
 */
export function edit(url, kind, operation, random, goesOn) {
  const doc = documents.get(url);
  if (doc?.status.state !== "ready") {
    return undefined;
  }
  let removed;
  let into;
  const change = (draft) => {
    switch (kind) {
      case "title":
        draft.title = operation;
        break;
      case "map":
        draft.map[operation] = { at: new Date(0), of: "acme" };
        break;
      case "list":
        draft.list.splice(Math.floor(random[0] * (draft.list.length + 1)), 0, operation);
        break;
      case "text":
        splice(draft, ["text"], pick(places(doc.value.text), random[0]), 0, `${operation};`);
        break;
      case "nested":
        draft.nested[operation] = { deep: { tokens: [operation], note: "é😀" } };
        break;
      case "inside": {
        const key = pick(Object.keys(doc.value.nested).sort(), random[0]);
        if (key === undefined) {
          draft.nested[operation] = { deep: { tokens: [operation], note: "" } };
        } else {
          draft.nested[key].deep.tokens.unshift(operation);
          into = key;
        }
        break;
      }
      case "line":
        splice(draft, ["lines", 0, "text"], pick(places(doc.value.lines[0].text), random[0]), 0, `${operation};`);
        draft.lines[0].n = Math.floor(random[1] * 1e6);
        break;
      case "count":
        draft.count.increment(1 + Math.floor(random[0] * 9));
        break;
      case "unmap":
        removed = pick(Object.keys(doc.value.map).sort(), random[0]);
        if (removed !== undefined) {
          delete draft.map[removed];
        }
        break;
      case "unlist": {
        const at = Math.floor(random[0] * doc.value.list.length);
        removed = doc.value.list[at];
        if (removed !== undefined) {
          draft.list.splice(at, 1);
        }
        break;
      }
      case "untext": {
        const { text } = doc.value;
        const begin = pick(places(text).slice(0, -1), random[0]);
        if (begin !== undefined) {
          const end = text.indexOf(";", begin);
          removed = text.slice(begin, end);
          splice(draft, ["text"], begin, end + 1 - begin, "");
        }
        break;
      }
    }
  };
  const time = (clocks.get(url) ?? Date.now()) + (goesOn ? 1 : NEXT_STEP_MS);
  atTime(time, () => doc.change(change));
  if (kind.startsWith("un") && removed === undefined) {
    return undefined;
  }
  clocks.set(url, time);
  report(doc, operation);
  return { removed, into, by: kind === "count" ? 1 + Math.floor(random[0] * 9) : 0 };
}

/** Undoes or redoes; what was shown before and after, or nothing where nothing is shown. */
export function takeBack(url, what, operation) {
  const doc = documents.get(url);
  if (doc?.status.state !== "ready") {
    return undefined;
  }
  const before = canonical(doc.value);
  const did = doc[what]();
  report(doc, operation);
  return { did, before: JSON.parse(before), after: JSON.parse(canonical(doc.value)) };
}

/** As text; keys have no order of their own. */
export function canonical(value) {
  const sorted = (_, part) =>
    typeof part === "object" && part !== null && !Array.isArray(part)
      ? Object.fromEntries(Object.entries(part).sort(([one], [other]) => (one < other ? -1 : 1)))
      : part;
  return JSON.stringify(value, sorted);
}

/** What the test compares. */
export function look() {
  return [...documents].map(([url, doc]) => ({ url, value: canonical(doc.value), heads: doc.heads.join(), status: doc.status }));
}

export function valueOf(url) {
  return JSON.parse(canonical(documents.get(url).value));
}

/** All that was believed to be on the server. */
export function beliefs() {
  return [...believed].map(([url, heads]) => [url, [...heads]]);
}

/** Heads of `wanted` that are not in the history of the document. */
export function lacks(url, wanted) {
  const known = new Set(documents.get(url).history().map((change) => change.hash));
  return wanted.filter((head) => !known.has(head));
}
