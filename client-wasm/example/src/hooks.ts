/** Hooks of the app's own, beside those of `@concord/client/react`. */
import type { Client, ClientStatus } from "@concord/client";
import { type RefObject, useEffect, useRef, useState, useSyncExternalStore } from "react";

import type { Board } from "./model.js";

export function useClientStatus(client: Client): ClientStatus {
  return useSyncExternalStore(
    (changed) => client.on("status", changed),
    () => client.status,
  );
}

/** The keys that take back one's own changes, wherever the focus is; an editor has its own, which do the same. */
export function useUndoKeys(board: Board): void {
  useEffect(() => {
    const pressed = (event: KeyboardEvent): void => {
      const key = event.key.toLowerCase();
      if (!(event.ctrlKey || event.metaKey) || event.altKey || event.defaultPrevented || (key !== "z" && key !== "y")) {
        return;
      }
      event.preventDefault();
      if (key === "y" || event.shiftKey) {
        board.redo();
      } else {
        board.undo();
      }
    };
    addEventListener("keydown", pressed);
    return () => removeEventListener("keydown", pressed);
  }, [board]);
}

/** A short glow on an element whenever a value is another than before, and not because of who writes there. */
export function useGlow<E extends HTMLElement>(value: unknown): RefObject<E | null> {
  const element = useRef<E>(null);
  const last = useRef(value);
  useEffect(() => {
    if (last.current !== value) {
      last.current = value;
      if (element.current === null || element.current === document.activeElement) {
        return;
      }
      const isCalm = matchMedia("(prefers-reduced-motion: reduce)").matches;
      element.current.animate([{ backgroundColor: "var(--glow)" }, { backgroundColor: "var(--glow)", offset: 0.4 }, {}], {
        duration: isCalm ? 0 : 1600,
      });
    }
  }, [value]);
  return element;
}

/** The value, once it has been the same for some time. */
export function useCalm<T>(value: T, ms: number): T {
  const [calm, setCalm] = useState(value);
  useEffect(() => {
    const timer = setTimeout(() => setCalm(value), ms);
    return () => clearTimeout(timer);
  }, [value, ms]);
  return calm;
}
