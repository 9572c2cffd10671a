/** Inputs for what several people may write at once. */
import { type Prop, updateText } from "@concord/client";
import { type ReactNode, useId, useLayoutEffect, useRef, useState } from "react";

import { useGlow } from "./hooks.js";
import type { Board } from "./model.js";

interface FieldProps {
  readonly label: string;
  /** The label is there for screen readers only. */
  readonly isBare?: boolean;
  readonly className?: string;
}

interface TextFieldProps extends FieldProps {
  readonly board: Board;
  readonly path: readonly Prop[];
  readonly value: string;
}

/** A text of the document in one line. What others write into it meanwhile does not move the caret. */
export function TextField({ board, path, value, label, isBare = false, className }: TextFieldProps): ReactNode {
  const id = useId();
  const input = useGlow<HTMLInputElement>(value);
  const seen = useRef({ value, start: 0, end: 0 });
  const remember = (): void => {
    const { selectionStart, selectionEnd } = input.current ?? {};
    seen.current = { value: input.current?.value ?? value, start: selectionStart ?? 0, end: selectionEnd ?? 0 };
  };
  useLayoutEffect(() => {
    const { value: before, start, end } = seen.current;
    if (before !== value && document.activeElement === input.current) {
      input.current?.setSelectionRange(moved(start, before, value), moved(end, before, value));
    }
    remember();
  }, [value]);
  return (
    <div className={`field ${className ?? ""}`}>
      <label htmlFor={id} className={isBare ? "unseen" : undefined}>
        {label}
      </label>
      <input
        id={id}
        ref={input}
        type="text"
        autoComplete="off"
        value={value}
        onSelect={remember}
        onChange={(event) => {
          remember();
          const text = event.target.value;
          board.change((draft) => updateText(draft, path, text));
        }}
      />
    </div>
  );
}

interface WhenFieldProps extends FieldProps {
  readonly type: "date" | "time";
  readonly value: string;
  readonly onValue: (value: string) => void;
}

/** A date or a time. While somebody types one, only what is one is kept. */
export function WhenField({ type, value, onValue, label }: WhenFieldProps): ReactNode {
  const id = useId();
  const input = useGlow<HTMLInputElement>(value);
  const [typed, setTyped] = useState<string>();
  // What somebody else chose meanwhile is shown.
  useLayoutEffect(() => setTyped(undefined), [value]);
  return (
    <div className="field">
      <label htmlFor={id}>{label}</label>
      <input
        id={id}
        ref={input}
        type={type}
        required
        value={typed ?? value}
        onBlur={() => setTyped(undefined)}
        onChange={({ target }) => {
          setTyped(target.value);
          // The year 2027 is typed as 0002, 0020, 0202, 2027.
          const isMeant = target.value !== "" && (type === "time" || target.value >= "1900");
          if (isMeant && target.value !== value) {
            onValue(target.value);
          }
        }}
      />
    </div>
  );
}

/** A button that asks once more before it does what can't be seen to be undone. */
export function ConfirmButton({ what, question, onConfirm }: { what: string; question: string; onConfirm: () => void }): ReactNode {
  const [state, setState] = useState<"idle" | "asking" | "kept">("idle");
  if (state !== "asking") {
    // Whoever keeps it goes on from where they were.
    return (
      <button type="button" className="quiet danger" autoFocus={state === "kept"} onClick={() => setState("asking")}>
        <span>
          Delete<span className="more"> {what}</span>
        </span>
      </button>
    );
  }
  return (
    <span className="confirm" role="group" aria-label={question}>
      <span>{question}</span>
      <button type="button" className="danger" onClick={onConfirm}>
        Delete
      </button>
      <button type="button" className="quiet" autoFocus onClick={() => setState("kept")}>
        Keep
      </button>
    </span>
  );
}

/** Where a position is after a text was replaced by another: what is the same at both ends stays where it is. */
function moved(position: number, before: string, after: string): number {
  const most = Math.min(before.length, after.length);
  let start = 0;
  while (start < most && before[start] === after[start]) {
    start += 1;
  }
  let end = 0;
  while (end < most - start && before[before.length - 1 - end] === after[after.length - 1 - end]) {
    end += 1;
  }
  if (position <= start) {
    return position;
  }
  return Math.max(start, position + after.length - before.length);
}
