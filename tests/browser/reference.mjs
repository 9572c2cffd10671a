// What random.test.mjs compares documents with: what each operation did, and what of it must, or may, be there.
//
// Each insertion brings a token. What happens to a token afterwards is its life: it is removed, or its insertion is
// undone (taken away), or one of these is taken back (brought back). A page knows what it did itself, in order; what
// pages do to one token at the same time may come to either, and is not guessed at.

import assert from "node:assert/strict";

/** Kinds of operation that bring a token. */
const BRINGING = ["map", "list", "text", "nested", "inside", "line"];
/** Kinds that are letters in one text, and may be a step together. */
const TYPING = ["text", "untext"];

/** All tokens that a document shows. */
export const tokensOf = (value) => [
  ...value.list,
  ...Object.keys(value.map),
  ...value.text.split(";").slice(0, -1),
  ...value.lines[0].text.split(";").slice(0, -1),
  ...Object.values(value.nested).flatMap(({ deep }) => deep.tokens),
];

/** The steps of one page in one document, as undo and redo are to take them; each is a list of operations. */
export class Steps {
  done = [];
  undone = [];
  /** Nobody can tell any more which step comes next. */
  isBlind = false;
  #isTyping = false;

  made(name, { kind }, goesOn) {
    const isTyping = TYPING.includes(kind);
    if (goesOn && isTyping && this.#isTyping) {
      this.done.at(-1).push(name);
    } else {
      this.done.push([name]);
    }
    this.#isTyping = isTyping;
    this.undone = [];
  }

  tookBack() {
    this.#isTyping = false;
  }
}

/** See the file's comment. */
export class Reference {
  /** By name: what it did, where, in which page, and whether it was saved. */
  operations = new Map();

  /** An operation that is about to be made. */
  add(kind, url, page) {
    const name = `t${this.operations.size}.`;
    // Where it went is not known before the page tells, and one that crashes does not.
    const isLoose = kind === "inside";
    this.operations.set(name, { kind, url, page, saved: false, removed: undefined, by: 0, life: [], isLoose });
    return name;
  }

  /** What the page told of it; nothing if there was nothing to do. */
  tell(name, told) {
    const made = this.operations.get(name);
    Object.assign(made, told === undefined ? { kind: "nothing" } : { ...told, isLoose: false });
    if (made.removed !== undefined) {
      this.#lives(made.removed, made.page, name, false);
    }
  }

  #lives(token, page, name, isThere) {
    this.operations.get(token).life.push({ page, name, isThere });
  }

  #isSaved(name) {
    return this.operations.get(name).saved;
  }

  /** What an object holds may be gone with it, or come back in another one, whoever wrote it. */
  #isLoose({ isLoose, into }) {
    return isLoose || (into !== undefined && this.operations.get(into).life.length > 0);
  }

  /** Whether a page that takes back what it did to a token must succeed: nobody else touched it. */
  #isAlone(token, page) {
    const made = this.operations.get(token);
    return !this.#isLoose(made) && made.life.every((event) => event.page === page);
  }

  /** Whether a token may be there, in the end, and whether it may be missing, or be there twice. */
  #fate(token) {
    const { life, ...made } = this.operations.get(token);
    const pages = new Set(life.map(({ page }) => page));
    // Who brought it back, and who took it away, may not have known of each other: then either may be, and where
    // two brought it back it is there for each.
    if (this.#isLoose(made) || (pages.size > 1 && life.some(({ isThere }) => isThere))) {
      return { present: true, absent: true, twice: true };
    }
    if (pages.size > 1) {
      return { present: !life.some(({ name }) => this.#isSaved(name)), absent: true, twice: false };
    }
    // What a page did last may be lost with it, unless it was saved.
    const states = [{ name: token, isThere: true }, ...life];
    const last = states.findLastIndex(({ name }) => this.#isSaved(name));
    const left = states.slice(Math.max(last, 0));
    return { present: left.some(({ isThere }) => isThere), absent: last < 0 || left.some(({ isThere }) => !isThere), twice: false };
  }

  /** Compares a document in the end with what was done. */
  check(url, value) {
    const tokens = tokensOf(value);
    const mine = [...this.operations].filter(([, made]) => made.url === url);
    for (const token of tokens) {
      assert.equal(this.operations.get(token)?.url, url, `${token} was never made here`);
    }
    for (const [token, made] of mine.filter(([, { kind }]) => BRINGING.includes(kind))) {
      const copies = tokens.filter((one) => one === token).length;
      const { present, absent, twice } = this.#fate(token);
      assert.ok(copies <= 1 || twice, `${token} (${made.kind}) is there ${copies} times`);
      assert.ok(copies > 0 || absent, `${token} (${made.kind}) was saved, and is lost`);
      assert.ok(copies === 0 || present, `${token} (${made.kind}) was removed, and is back`);
    }
    this.#checkCount(mine, value.count);
    this.#checkTitle(mine, value.title);
  }

  #checkCount(mine, count) {
    const sum = (of) => of.reduce((all, [, { by }]) => all + by, 0);
    const sure = sum(mine.filter(([, made]) => made.saved));
    const unsure = mine.filter(([, made]) => !made.saved);
    const least = sure + sum(unsure.filter(([, { by }]) => by < 0));
    // What a crashing tab did may not be known to us.
    const isUnknown = mine.some(([, { kind, by }]) => kind === "count" && by === 0);
    const most = isUnknown ? Infinity : sure + sum(unsure.filter(([, { by }]) => by > 0));
    assert.ok(least <= count && count <= most, `${count} is not in ${least} to ${most}`);
  }

  #checkTitle(mine, title) {
    const titles = mine.filter(([, { kind }]) => kind === "title");
    if (title === "") {
      // Whoever undoes theirs writes what was there before it, which may win over another's that came meanwhile.
      const isUndone = titles.some(([, { life }]) => life.length > 0);
      assert.ok(isUndone || titles.every(([, { saved }]) => !saved), "there is no title");
    } else {
      assert.ok(titles.some(([token]) => token === title), `${title} is no title of anybody's`);
    }
  }

  /**
   * A page undid or redid something: `before` and `after` are what it showed. That was the last of its steps of which
   * anything was left, all of that, and nothing else.
   */
  tookBack(name, steps, { did, before, after }) {
    const { kind, page } = this.operations.get(name);
    const isUndo = kind === "undo";
    const [from, to] = isUndo ? [steps.done, steps.undone] : [steps.undone, steps.done];
    const seen = { isUndo, page, before, after, ...difference(before, after) };
    const skipped = [];
    for (let step = from.pop(); step !== undefined; step = from.pop()) {
      if (step.some((one) => this.#shows(one, step, seen))) {
        assert.ok(did, `${kind} did something, and says that it did not`);
        this.#checkStep(step, seen);
        this.#note(name, step, seen);
        to.push(step);
        steps.tookBack();
        return;
      }
      assert.ok(!step.some((one) => this.#must(one, step, seen)), `${kind} left ${step} as it was`);
      skipped.push(step);
    }
    assert.deepEqual(different(seen), [], `${kind} changed what was none of its own`);
    if (did) {
      // What it changed can't be seen, such as a title that was lost to another's: it may have been any of them.
      assert.ok(skipped.length > 0, `${kind} did something, where there was nothing to do`);
      this.#forget(name, steps, skipped);
    }
  }

  /** Which of the steps it was is not known, nor what will be the next. */
  #forget(name, steps, skipped) {
    steps.isBlind = true;
    for (const made of skipped.flat().map((one) => this.operations.get(one))) {
      made.isLoose = true;
      made.life.push({ page: made.page, name, isThere: true });
      if (made.removed !== undefined) {
        this.operations.get(made.removed).isLoose = true;
      }
    }
  }

  /** What of a step is the token of an operation, and whether taking the step back brings it; nothing for others. */
  #token(one, step, isUndo) {
    const { kind, removed } = this.operations.get(one);
    const token = removed ?? (BRINGING.includes(kind) ? one : undefined);
    if (token === undefined) {
      return undefined;
    }
    const isBrought = step.includes(token);
    const isRemoved = step.some((other) => this.operations.get(other).removed === token);
    return { token, isThere: isUndo ? isRemoved && !isBrought : isBrought && !isRemoved };
  }

  #shows(one, step, { isUndo, before, after, changed }) {
    const made = this.operations.get(one);
    if (made.kind === "title") {
      return before.title !== after.title && (isUndo ? before.title : after.title) === one;
    }
    if (made.kind === "count") {
      return after.count - before.count === (isUndo ? -made.by : made.by);
    }
    const { token, isThere } = this.#token(one, step, isUndo);
    return changed.get(token) === isThere;
  }

  /** Whether taking the step back must show in what this operation did. */
  #must(one, step, { isUndo, page, before }) {
    const { kind, url } = this.operations.get(one);
    if (kind === "title") {
      // Who undid or redid another one may have written this one again, and then it is theirs.
      return isUndo && before.title === one && !this.#isRewritten(url, page);
    }
    if (kind === "count") {
      return true;
    }
    const { token, isThere } = this.#token(one, step, isUndo);
    return tokensOf(before).includes(token) !== isThere && this.#isAlone(token, page);
  }

  /** Whether a title was undone or redone in another page. */
  #isRewritten(url, page) {
    const titles = [...this.operations.values()].filter((made) => made.kind === "title" && made.url === url);
    return titles.some(({ life }) => life.some((event) => event.page !== page));
  }

  #checkStep(step, seen) {
    for (const one of step) {
      assert.ok(!this.#must(one, step, seen) || this.#shows(one, step, seen), `of ${step} ${one} was left as it was`);
    }
    const kinds = step.map((one) => this.operations.get(one).kind);
    const its = (token) =>
      step.includes(token) || step.some((one) => this.operations.get(one).removed === token) || step.includes(this.operations.get(token)?.into);
    const others = different(seen).filter((what) => !its(what) && !kinds.includes(what));
    assert.deepEqual(others, [], `not of ${step} (${kinds}), and changed with it`);
  }

  #note(name, step, { isUndo, page, before, after }) {
    this.operations.get(name).by = after.count - before.count;
    for (const one of step) {
      const found = this.#token(one, step, isUndo);
      this.#lives(found?.token ?? one, page, name, found?.isThere ?? !isUndo);
    }
  }
}

/** By token: whether there is one more of it. Those of which there are as many are left out. */
function difference(before, after) {
  const changed = new Map();
  const [then, now] = [before, after].map(tokensOf);
  for (const token of new Set([...then, ...now])) {
    const count = (all) => all.filter((one) => one === token).length;
    if (count(then) !== count(now)) {
      changed.set(token, count(now) > count(then));
    }
  }
  return { changed };
}

/** All that is different: tokens, and names of kinds. */
const different = ({ changed, before, after }) => [
  ...changed.keys(),
  ...(before.title === after.title ? [] : ["title"]),
  ...(before.count === after.count ? [] : ["count"]),
];
