/** Who has the board open, and what they look at. */
import type { PeerPresence } from "@concord/client";
import { usePresence } from "@concord/client/react";
import { type ReactNode, useEffect, useState } from "react";

import type { Board, Place } from "./model.js";

export interface Person {
  readonly key: string;
  readonly name: string;
  readonly color: string;
  readonly company: string | undefined;
  readonly meeting: string | undefined;
}

/** Dark enough for white letters. */
const COLORS = ["#c2410c", "#0f766e", "#7c3aed", "#be185d", "#1d4ed8", "#4d7c0f", "#a16207", "#0e7490"];
const NAMES = (
  "Ada Bruno Chidi Dana Edda Farid Greta Hugo Ines Joris Kaja Luca Mira Nils Olga Pablo Quinn Rosa Sven Tara Ugo Vera Wim Yara"
).split(" ");
const NAME_KEY = "concord-board-name";
/** Letters of a name that is shown; names come from anybody. */
const MAX_NAME = 40;

/** One's own name, kept for this tab: two tabs are two people here. */
export function useName(): [name: string, setName: (name: string) => void] {
  const [name, setName] = useState(() => kept() ?? pick(NAMES, Math.floor(Math.random() * NAMES.length)));
  useEffect(() => {
    try {
      sessionStorage.setItem(NAME_KEY, name);
    } catch {
      // It is kept while the page is there.
    }
  }, [name]);
  return [name, setName];
}

/** Tells the others who we are and where. */
export function useAnnounce(board: Board, name: string, place: Partial<Place>): void {
  const { company, meeting } = place;
  useEffect(() => {
    board.presence.set({ name, color: colorOf(name), company: company ?? null, meeting: meeting ?? null });
  }, [board, name, company, meeting]);
}

export function useOthers(board: Board): Person[] {
  return usePresence(board).peers.map(asPerson);
}

export function Avatar({ person, note }: { person: Pick<Person, "name" | "color">; note?: string }): ReactNode {
  const told = note === undefined ? person.name : `${person.name}, ${note}`;
  return (
    <span className="avatar" style={{ backgroundColor: person.color }} title={told}>
      <span aria-hidden="true">{initials(person.name)}</span>
      <span className="unseen">{told}</span>
    </span>
  );
}

export function colorOf(name: string): string {
  const sum = [...name].reduce((sum, letter) => sum + (letter.codePointAt(0) ?? 0), 0);
  return pick(COLORS, sum);
}

function asPerson({ peer, state }: PeerPresence): Person {
  const text = (value: unknown): string | undefined => (typeof value === "string" && value !== "" ? value.slice(0, MAX_NAME) : undefined);
  const name = text(state["name"]) ?? "Somebody";
  return { key: peer, name, color: colorOf(name), company: text(state["company"]), meeting: text(state["meeting"]) };
}

function initials(name: string): string {
  const words = name.trim().split(/\s+/);
  return words
    .slice(0, 2)
    .map((word) => [...word][0] ?? "")
    .join("")
    .toUpperCase();
}

function kept(): string | undefined {
  try {
    return sessionStorage.getItem(NAME_KEY) ?? undefined;
  } catch {
    return undefined;
  }
}

function pick<T>(list: readonly T[], index: number): T {
  return list[index % list.length] as T;
}
