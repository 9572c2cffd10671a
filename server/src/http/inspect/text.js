// Texts as they can be shown: of whatever length, and with whatever in them. Pure.

/** What is not seen, or changes how its neighbours are seen: controls, half characters, directions. */
const UNSEEN = /[\p{Cc}\p{Cs}\p{Cf}\u2028\u2029]/gu;
const UNSEEN_BUT_LINES = /(?![\n\t])[\p{Cc}\p{Cs}\p{Cf}\u2028\u2029]/gu;
/** These two are parts of ordinary words and of emoji. */
const JOINERS = new Set(["\u200c", "\u200d"]);

/** With everything that can't be seen written out, `\u{202e}`; with `lines`, line ends and tabs stay. */
export function printable(text, lines = false) {
  return text.replace(lines ? UNSEEN_BUT_LINES : UNSEEN, (found) =>
    JOINERS.has(found) ? found : found === "\n" ? "⏎" : `\\u{${found.codePointAt(0).toString(16)}}`,
  );
}

/** The first `most` units of a text, without half a character at the end. */
export function cut(text, most) {
  if (text.length <= most) return text;
  const last = text.charCodeAt(most - 1);
  return text.slice(0, last >= 0xd800 && last < 0xdc00 ? most - 1 : most);
}

/** A number for people. */
export const number = (value) => value.toLocaleString("en");

/** `1 change`, `2 changes`. */
export const counted = (count, what) => `${number(count)} ${what}${count === 1 ? "" : "s"}`;

const dateTime = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });
const shortTime = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const shortDate = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric" });

/** A time by RFC 3339 as this machine's clock has it; what is none is shown as it is. */
export function moment(time) {
  const at = new Date(time ?? "");
  return Number.isNaN(at.getTime()) ? printable(String(time ?? "unknown")) : dateTime.format(at);
}

/** The same in few letters: the hour, if all of `others` are of one day. */
export function shortMoment(time, isOneDay) {
  const at = new Date(time ?? "");
  if (Number.isNaN(at.getTime())) return "?";
  return (isOneDay ? shortTime : shortDate).format(at);
}

/** Whether all times are of one day. */
export const ofOneDay = (times) => new Set(times.map((time) => shortDate.format(new Date(time)))).size <= 1;

/** How long ago, in words; `now` in milliseconds. */
export function ago(time, now) {
  const seconds = Math.max(0, Math.round((now - new Date(time).getTime()) / 1000));
  if (Number.isNaN(seconds)) return "";
  for (const [unit, size] of [["d", 86_400], ["h", 3600], ["min", 60]]) {
    if (seconds >= size) return `${Math.floor(seconds / size)} ${unit} ago`;
  }
  return `${seconds} s ago`;
}

/** The beginning of a hash or an actor, by which people tell them apart. */
export const short = (hex) => printable(cut(String(hex), 8));
