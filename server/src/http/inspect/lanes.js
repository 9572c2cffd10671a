// Where changes and their deps go in a drawing. Pure.
//
// A change can name deps that others of its deps have in their past: authors name what they made last, too. Such a line is
// implied, and what has no other one than that is no merge.
//
// Time goes to the right, in the order of admission, in which deps come before what is made on them: so every line goes
// to the right, too. An actor has a lane. Changes that one actor made one after the other, each on nothing but the one
// before and nobody else's on any but the last, can be one node: most of a history is somebody typing.

/**
 * Lays out consecutive changes. `isEvery`: each change is a node of its own. Gives
 * - `lanes`: `{actor, changes}` in the order of their first change;
 * - `nodes`: `{column, lane, changes, isMerge}` from left to right, with one change or a run of them;
 * - `lines`: `{from, to, isImplied}`, numbers of nodes; `from` is `null` for deps to the left of what is laid out.
 */
export function layOut(changes, isEvery) {
  const lanes = [];
  const laneOf = new Map();
  const nodes = [];
  const nodeOf = new Map();
  const lines = [];
  const children = new Map();
  for (const change of changes) {
    for (const dep of change.deps) children.set(dep, (children.get(dep) ?? 0) + 1);
  }
  const pasts = new Map();
  for (const change of changes) {
    let lane = laneOf.get(change.actor);
    if (lane === undefined) {
      lane = lanes.length;
      laneOf.set(change.actor, lane);
      lanes.push({ actor: change.actor, changes: 0 });
    }
    lanes[lane].changes += 1;
    const implied = impliedDeps(change, pasts);
    const before = change.deps.length === 1 ? nodeOf.get(change.deps[0]) : undefined;
    const goesOn = before !== undefined && nodes[before].lane === lane && nodes[before].changes.at(-1).hash === change.deps[0] && children.get(change.deps[0]) === 1;
    if (!isEvery && goesOn) {
      nodes[before].changes.push(change);
      nodeOf.set(change.hash, before);
      continue;
    }
    const here = nodes.length;
    nodes.push({ column: here, lane, changes: [change], isMerge: change.deps.length - implied.size > 1 });
    nodeOf.set(change.hash, here);
    let isOutside = false;
    for (const dep of change.deps) {
      const from = nodeOf.get(dep);
      if (from === undefined) isOutside = true;
      else lines.push({ from, to: here, isImplied: implied.has(dep) });
    }
    if (isOutside) lines.push({ from: null, to: here, isImplied: false });
  }
  return { lanes, nodes, lines };
}

/**
 * Which deps others have in their past. `pasts` has what is known of each change's: how far each actor is in it, its own
 * apart, so that all changes of a chain share the rest.
 */
function impliedDeps({ hash, actor, seq, deps }, pasts) {
  const known = deps.map((dep) => pasts.get(dep)).filter((past) => past !== undefined);
  const farIn = (past, who) => (who === past.actor ? past.seq : (past.others.get(who) ?? 0));
  const implied = new Set();
  for (const past of known) {
    if (known.some((other) => other !== past && farIn(other, past.actor) >= past.seq)) implied.add(past.hash);
  }
  let others = known[0]?.others;
  if (known.length !== 1 || known[0].actor !== actor) {
    others = new Map();
    for (const past of known) {
      for (const who of [past.actor, ...past.others.keys()]) others.set(who, Math.max(farIn(past, who), others.get(who) ?? 0));
    }
  }
  pasts.set(hash, { hash, actor, seq, others });
  return implied;
}

/** The node that has the change at a place; -1 if none does. */
export function nodeAt(nodes, place) {
  // Runs overlap: a place between a run's ends can be another's.
  return nodes.findIndex(({ changes }) => changes[0].place <= place && changes.at(-1).place >= place && has(changes, place));
}

function has(changes, place) {
  let [low, high] = [0, changes.length - 1];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (changes[middle].place < place) low = middle + 1;
    else high = middle;
  }
  return changes[low].place === place;
}

/** The nearest node in the next lane that has any, up (-1) or down (1); `from` itself if there is none. */
export function beside(nodes, from, by) {
  let best = from;
  const better = (node, than) => {
    const [lane, other] = [Math.abs(node.lane - nodes[from].lane), Math.abs(than.lane - nodes[from].lane)];
    return lane === other ? Math.abs(node.column - from) < Math.abs(than.column - from) : lane < other;
  };
  for (const [n, node] of nodes.entries()) {
    if (Math.sign(node.lane - nodes[from].lane) === by && (best === from || better(node, nodes[best]))) best = n;
  }
  return best;
}
