/** The editor of a meeting's agenda, which several people may write into. */
import { collaborate } from "@concord/client/codemirror";
import { EditorView } from "@codemirror/view";
import { type ReactNode, useEffect, useId, useRef } from "react";

import { type Board, pathTo, type Place } from "./model.js";
import { colorOf } from "./people.js";

interface AgendaProps {
  readonly board: Board;
  readonly place: Place;
  /** Who writes here, as the others see it beside the caret. */
  readonly name: string;
}

export function Agenda({ board, place, name }: AgendaProps): ReactNode {
  const parent = useRef<HTMLDivElement>(null);
  const label = useId();
  const { company, meeting } = place;
  useEffect(() => {
    const view = new EditorView({
      ...(parent.current === null ? {} : { parent: parent.current }),
      extensions: [
        collaborate(board, [...pathTo({ company, meeting }), "agenda"], { presence: { name, color: colorOf(name) } }),
        EditorView.lineWrapping,
        EditorView.contentAttributes.of({ "aria-labelledby": label, spellcheck: "true" }),
      ],
    });
    return () => view.destroy();
  }, [board, company, meeting, name, label]);
  return (
    <div className="field agenda">
      <span id={label} className="label">
        Agenda
      </span>
      <div ref={parent} />
    </div>
  );
}
