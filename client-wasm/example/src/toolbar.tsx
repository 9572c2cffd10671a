/** What stands above each page: where one is, taking back, and what can be done with what is shown. */
import type { ReactNode } from "react";

import { useUndo } from "./hooks.js";
import type { Board } from "./model.js";

export function Toolbar({ board, crumb, children }: { board: Board; crumb: ReactNode; children?: ReactNode }): ReactNode {
  const undoing = useUndo(board);
  return (
    <div className="toolbar">
      <span className="crumb">{crumb}</span>
      {undoing !== undefined && (
        <span className="pair" role="group" aria-label="Own changes">
          <button type="button" onClick={undoing.undo} disabled={!undoing.canUndo}>
            Undo
          </button>
          <button type="button" onClick={undoing.redo} disabled={!undoing.canRedo}>
            Redo
          </button>
        </span>
      )}
      {children}
    </div>
  );
}
