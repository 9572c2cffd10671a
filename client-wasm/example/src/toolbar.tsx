/** What stands above each page: where one is, taking back, and what can be done with what is shown. */
import { useStatus } from "@concord/client/react";
import type { ReactNode } from "react";

import type { Board } from "./model.js";

export function Toolbar({ board, crumb, children }: { board: Board; crumb: ReactNode; children?: ReactNode }): ReactNode {
  const { canUndo, canRedo } = useStatus(board);
  return (
    <div className="toolbar">
      <span className="crumb">{crumb}</span>
      <span className="pair" role="group" aria-label="Own changes">
        <button type="button" onClick={() => board.undo()} disabled={!canUndo}>
          Undo
        </button>
        <button type="button" onClick={() => board.redo()} disabled={!canRedo}>
          Redo
        </button>
      </span>
      {children}
    </div>
  );
}
