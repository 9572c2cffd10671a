// Which version a document has after each of its changes. Pure.

/** Gives changes that follow each other their versions; `before`: that before the first. */
export function versions(changes, before) {
  const heads = new Set(before === "" ? [] : before.split("."));
  for (const change of changes) {
    for (const dep of change.deps) heads.delete(dep);
    heads.add(change.hash);
    change.version = [...heads].sort().join(".");
  }
}
