// What differs between two texts, by words: for looking at, not for carrying out. Pure.

/** Words of each side between the common ends, up to which they are compared with each other. */
const MOST_WORDS = 600;

/** Letters that are looked through for a word's end. */
const LONGEST_WORD = 60;

/** Letters of what is equal that are shown beside what differs. */
const AROUND = 40;

/** Pieces `{kind: "same" | "old" | "new" | "skip", text}` that tell how one text became another. */
export function textPieces(before, after) {
  const most = Math.min(before.length, after.length);
  let start = 0;
  while (start < most && before.charCodeAt(start) === after.charCodeAt(start)) start += 1;
  let end = 0;
  while (end < most - start && before.charCodeAt(before.length - 1 - end) === after.charCodeAt(after.length - 1 - end)) end += 1;
  // Back to where a word begins and on to where one ends; so no character is cut either.
  const isInWord = (at) => at > 0 && at < before.length && WORD.test(before[at - 1]) && WORD.test(before[at]);
  const isInNewWord = (at) => at > 0 && at < after.length && WORD.test(after[at - 1]) && WORD.test(after[at]);
  for (let left = LONGEST_WORD; left > 0 && start > 0 && (isInWord(start) || isInNewWord(start)); left -= 1) start -= 1;
  for (let left = LONGEST_WORD; left > 0 && end > 0 && (isInWord(before.length - end) || isInNewWord(after.length - end)); left -= 1) end -= 1;
  const pieces = [];
  put(pieces, "same", before.slice(0, start));
  const [from, to] = [before.slice(start, before.length - end), after.slice(start, after.length - end)];
  const [olds, news] = [words(from), words(to)];
  if (olds.length > MOST_WORDS || news.length > MOST_WORDS) {
    put(pieces, "old", from);
    put(pieces, "new", to);
  } else {
    for (const [kind, word] of steps(olds, news)) put(pieces, kind, word);
  }
  put(pieces, "same", before.slice(before.length - end));
  return shortened(pieces);
}

/** Of a word, or half of a character: both are left whole. */
const WORD = /[\p{L}\p{N}\p{M}\p{Cs}_]/u;
const words = (text) => text.match(/[\p{L}\p{N}\p{M}_]+|\s+|[^]/gu) ?? [];

function put(pieces, kind, text) {
  if (text === "") return;
  if (pieces.at(-1)?.kind === kind) pieces.at(-1).text += text;
  else pieces.push({ kind, text });
}

/** By a longest common subsequence. */
function* steps(olds, news) {
  const width = news.length + 1;
  const common = new Uint16Array((olds.length + 1) * width);
  for (let i = olds.length - 1; i >= 0; i -= 1) {
    for (let j = news.length - 1; j >= 0; j -= 1) {
      common[i * width + j] = olds[i] === news[j] ? common[(i + 1) * width + j + 1] + 1 : Math.max(common[(i + 1) * width + j], common[i * width + j + 1]);
    }
  }
  let [i, j] = [0, 0];
  while (i < olds.length || j < news.length) {
    if (i < olds.length && j < news.length && olds[i] === news[j]) {
      yield ["same", olds[i]];
      i += 1;
      j += 1;
    } else if (j >= news.length || (i < olds.length && common[(i + 1) * width + j] >= common[i * width + j + 1])) {
      yield ["old", olds[i]];
      i += 1;
    } else {
      yield ["new", news[j]];
      j += 1;
    }
  }
}

/** Long equal parts are left out but for their ends. */
function shortened(pieces) {
  const all = [];
  for (const [n, { kind, text }] of pieces.entries()) {
    if (kind !== "same" || text.length <= 2 * AROUND + 20) {
      all.push({ kind, text });
      continue;
    }
    const [head, tail] = [n === 0 ? "" : text.slice(0, AROUND), n === pieces.length - 1 ? "" : text.slice(-AROUND)];
    if (head !== "") all.push({ kind, text: head });
    all.push({ kind: "skip", text: String(text.length - head.length - tail.length) });
    if (tail !== "") all.push({ kind, text: tail });
  }
  return all;
}
