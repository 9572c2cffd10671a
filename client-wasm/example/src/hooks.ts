/** The client's documents and states as React sees them. */
import type { Client, ClientStatus, DocumentStatus, Frozen, PeerPresence } from "@concord/client";
import { type RefObject, useEffect, useReducer, useRef, useState, useSyncExternalStore } from "react";

import type { Board, User } from "./model.js";

/** Unchanged parts keep their identity, and what did not change is not rendered again. */
export function useValue(board: Board): Frozen<User> {
  return useSyncExternalStore(
    (changed) => board.subscribe(changed),
    () => board.value,
  );
}

export function useStatus(board: Board): DocumentStatus {
  return useSyncExternalStore(
    (changed) => board.on("status", changed),
    () => board.status,
  );
}

export function useClientStatus(client: Client): ClientStatus {
  return useSyncExternalStore(
    (changed) => client.on("status", changed),
    () => client.status,
  );
}

export function usePeers(board: Board): readonly PeerPresence[] {
  return useSyncExternalStore(
    (changed) => board.presence.on("change", changed),
    () => board.presence.peers,
  );
}

/** Taking back one's own changes, where the package can. */
export interface Undoing {
  readonly canUndo: boolean;
  readonly canRedo: boolean;
  undo(): void;
  redo(): void;
}

type MayUndo = { [name in "undo" | "redo" | "canUndo" | "canRedo"]?: unknown };

export function useUndo(board: Board): Undoing | undefined {
  const [, again] = useReducer((count: number) => count + 1, 0);
  useEffect(() => board.subscribe(again), [board]);
  useEffect(() => {
    // An editor has its own keys, which do the same.
    const pressed = (event: KeyboardEvent): void => {
      const key = event.key.toLowerCase();
      if (!(event.ctrlKey || event.metaKey) || event.altKey || event.defaultPrevented || (key !== "z" && key !== "y")) {
        return;
      }
      const member = (board as MayUndo)[key === "y" || event.shiftKey ? "redo" : "undo"];
      if (typeof member === "function") {
        event.preventDefault();
        member.call(board);
        again();
      }
    };
    addEventListener("keydown", pressed);
    return () => removeEventListener("keydown", pressed);
  }, [board]);
  const may = board as MayUndo;
  const call = (name: keyof MayUndo): unknown => {
    const member = may[name];
    return typeof member === "function" ? member.call(board) : member;
  };
  if (typeof may.undo !== "function" || typeof may.redo !== "function") {
    return undefined;
  }
  return {
    canUndo: call("canUndo") === true,
    canRedo: call("canRedo") === true,
    undo: () => {
      call("undo");
      again();
    },
    redo: () => {
      call("redo");
      again();
    },
  };
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
