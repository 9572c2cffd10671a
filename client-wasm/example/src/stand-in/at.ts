/** Stands in for `handle.at(heads)`: a value out of the steps that lead to it from nothing. */
import type { Patch } from "@concord/client";

type Node = { [key: string | number]: unknown };

export function replayed(patches: readonly Patch[]): unknown {
  const root: Node = {};
  for (const patch of patches) {
    const last = patch.path.at(-1);
    if (last === undefined) {
      continue;
    }
    const way = patch.path.slice(0, -1);
    switch (patch.action) {
      case "put":
        found(root, way)[last] = copied(patch.value);
        break;
      case "insert":
        (found(root, way) as unknown as unknown[]).splice(last as number, 0, ...patch.values.map(copied));
        break;
      case "splice": {
        // Its path ends with a position in the text.
        const key = way.at(-1) as string | number;
        const holder = found(root, way.slice(0, -1));
        const text = holder[key] as string;
        holder[key] = text.slice(0, last as number) + patch.value + text.slice(last as number);
        break;
      }
      default:
        break;
    }
  }
  return root;
}

function found(root: Node, way: readonly (string | number)[]): Node {
  return way.reduce<Node>((node, key) => node[key] as Node, root);
}

/** What comes empty and is filled by later steps must not be the frozen one of the patch. */
function copied(value: unknown): unknown {
  if (Array.isArray(value)) {
    return [...(value as unknown[])];
  }
  return typeof value === "object" && value !== null && Object.getPrototypeOf(value) === Object.prototype ? { ...value } : value;
}
