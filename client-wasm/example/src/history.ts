/** Earlier versions of a meeting, out of the document's history. */
import type { ChangeInfo, Heads, Patch } from "@concord/client";

import { type Board, FIELDS, type Meeting, pathTo, type Place } from "./model.js";

/** What the document was after some of its changes. */
export interface Version {
  readonly heads: Heads;
  /** Unix milliseconds, by the clock of whoever made its last change. */
  readonly time: number;
  /** Fields of the meeting that are not as in the version before. */
  readonly changed: readonly (keyof Meeting)[];
  /** The meeting was made, or brought back. */
  readonly isNew: boolean;
}

/** Changes of one person that follow each other as closely are one step, milliseconds. */
const ONE_STEP_MS = 3_000;
/** At most so many steps are looked through, from the latest back: each is compared with the one before. */
const MAX_STEPS = 500;

/** The versions in which this meeting was another than before, oldest first. */
export function versionsOf(board: Board, place: Place): Version[] {
  const path = pathTo(place);
  const versions: Version[] = [];
  let before: Heads = [];
  for (const { heads, time } of steps(board.history())) {
    const patches = board.diff(before, heads).filter((patch) => concerns(patch, path));
    before = heads;
    if (patches.length > 0) {
      const isNew = patches.some((patch) => patch.path.length <= path.length);
      versions.push({ heads, time, isNew, changed: isNew ? [] : fieldsIn(patches, path.length) });
    }
  }
  return versions;
}

/** What happened in a version, in words. */
export function told({ isNew, changed }: Version): string {
  if (isNew) {
    return "meeting added";
  }
  const names = changed.map((field) => FIELDS[field].toLowerCase());
  return names.length === 0 ? "changed" : `${names.join(", ")} changed`;
}

/**
 * The history in steps, each with the version after it. The changes that were passed so far hold everything they
 * build upon, so those of them that no other builds upon are a version.
 */
function steps(changes: readonly ChangeInfo[]): { heads: Heads; time: number }[] {
  const found: { heads: Heads; time: number; actor: string }[] = [];
  const heads = new Set<string>();
  for (const { hash, deps, time, actor } of changes) {
    for (const dep of deps) {
      heads.delete(dep);
    }
    heads.add(hash);
    const step = { heads: [...heads].sort(), time, actor };
    const last = found.at(-1);
    if (last !== undefined && last.actor === actor && Math.abs(time - last.time) <= ONE_STEP_MS) {
      found.pop();
    }
    found.push(step);
  }
  return found.slice(-MAX_STEPS);
}

function concerns({ path }: Patch, meeting: readonly string[]): boolean {
  return meeting.every((key, depth) => path.length <= depth || path[depth] === key);
}

function fieldsIn(patches: readonly Patch[], depth: number): (keyof Meeting)[] {
  const keys = new Set(patches.map(({ path }) => path[depth]));
  return (Object.keys(FIELDS) as (keyof Meeting)[]).filter((field) => keys.has(field));
}
