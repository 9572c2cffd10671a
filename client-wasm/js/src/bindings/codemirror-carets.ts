/** The cursors and selections of others in an editor. What they tell of themselves is not trusted. */
import type { Range } from "@codemirror/state";
import { Decoration, type DecorationSet, EditorView, WidgetType } from "@codemirror/view";

import type { Prop } from "../wasm.js";

/** @internal What an editor tells of its selection: cursors of the document, or null for the text's end. */
export type OwnCaret = { readonly path: readonly Prop[]; readonly anchor: string | null; readonly head: string | null };

/** @internal Somebody's selection in this editor. */
export interface Caret {
  readonly peer: string;
  readonly name: unknown;
  readonly color: unknown;
  readonly anchor: number;
  readonly head: number;
}

/** So many others are drawn at most. */
const MAX_CARETS = 100;
/** Code units of a name that are shown. */
const MAX_NAME_UNITS = 40;
const COLOR = "#6b7280";

/** @internal Decorations for those who are there. */
export function drawPeers(carets: readonly Caret[]): DecorationSet {
  const ranges: Range<Decoration>[] = [];
  for (const { peer, name, color, anchor, head } of carets.slice(0, MAX_CARETS)) {
    // A value of CSS and nothing more, or whoever sends it styles our page.
    const safe = typeof color === "string" && CSS.supports("color", color) ? color : COLOR;
    const label = typeof name === "string" ? name.slice(0, MAX_NAME_UNITS) : "";
    if (anchor !== head) {
      const style = `background-color: color-mix(in srgb, ${safe} 25%, transparent)`;
      const mark = Decoration.mark({ class: "cm-concord-selection", attributes: { style } });
      ranges.push(mark.range(Math.min(anchor, head), Math.max(anchor, head)));
    }
    ranges.push(Decoration.widget({ widget: new CaretWidget(peer, label, safe), side: 1 }).range(head));
  }
  return ranges.length === 0 ? Decoration.none : Decoration.set(ranges, true);
}

class CaretWidget extends WidgetType {
  constructor(
    readonly peer: string,
    readonly name: string,
    readonly color: string,
  ) {
    super();
  }

  override eq(other: CaretWidget): boolean {
    return other.peer === this.peer && other.name === this.name && other.color === this.color;
  }

  override toDOM(): HTMLElement {
    const caret = document.createElement("span");
    caret.className = "cm-concord-caret";
    caret.style.color = this.color;
    caret.setAttribute("aria-hidden", "true");
    const label = document.createElement("span");
    label.className = "cm-concord-name";
    // No text of the page's: else it would be read, found and copied with the editor's.
    label.dataset["name"] = this.name;
    caret.append("\u2060", label, "\u2060");
    return caret;
  }

  override ignoreEvent(): boolean {
    return true;
  }
}

/** @internal How they look, unless a page says otherwise. */
export const caretTheme = EditorView.baseTheme({
  ".cm-concord-caret": {
    position: "relative",
    borderLeft: "2px solid currentColor",
    marginLeft: "-1px",
    marginRight: "-1px",
    pointerEvents: "none",
  },
  ".cm-concord-name": { position: "absolute", bottom: "100%", left: "-1px", backgroundColor: "currentColor", whiteSpace: "nowrap" },
  ".cm-concord-name::after": {
    content: "attr(data-name)",
    color: "#fff",
    padding: "0 3px",
    fontSize: "0.75em",
    fontFamily: "sans-serif",
  },
});
