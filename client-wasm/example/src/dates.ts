/** Dates for people. */

const DAY = new Intl.DateTimeFormat("en-GB", { weekday: "short", day: "numeric", month: "short", year: "numeric" });
const SHORT = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });
const MOMENT = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", second: "2-digit" });

/** `Thu, 3 Dec 2026` */
export function showDay(date: string): string {
  return shown(DAY, date);
}

/** `3 Dec` */
export function showShort(date: string): string {
  return shown(SHORT, date);
}

/** When a change was made, by its author's clock. */
export function showMoment(unixMs: number): string {
  return unixMs === 0 ? "at an unknown time" : MOMENT.format(unixMs);
}

function shown(format: Intl.DateTimeFormat, date: string): string {
  const parsed = new Date(`${date}T00:00`);
  return Number.isNaN(parsed.getTime()) ? date : format.format(parsed);
}
