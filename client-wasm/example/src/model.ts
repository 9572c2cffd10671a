/**
 * What the board's document holds: User → Companies → Meetings. Companies and meetings are kept in maps by an id
 * of their own, not in lists: two people who add one at the same time both keep theirs, and an address that names
 * a meeting goes on naming it.
 */
import { type DocumentHandle, type Frozen, ImmutableString } from "@concord/client";

export interface User {
  name: string;
  companies: Record<string, Company>;
}

export interface Company {
  name: string;
  meetings: Record<string, Meeting>;
}

export interface Meeting {
  title: string;
  /** `2026-12-03`. Replaced as a whole: letters of two dates would make a third. */
  date: ImmutableString;
  /** `14:30` */
  time: ImmutableString;
  place: string;
  participants: string[];
  agenda: string;
}

export type Board = DocumentHandle<User>;
export type ReadMeeting = Frozen<Meeting>;

/** Where a meeting is. */
export interface Place {
  readonly company: string;
  readonly meeting: string;
}

/** The fields of a meeting as they are shown, in that order. */
export const FIELDS = {
  title: "Title",
  date: "Date",
  time: "Time",
  place: "Place",
  participants: "Participants",
  agenda: "Agenda",
} as const satisfies Record<keyof Meeting, string>;

export function pathTo({ company, meeting }: Place): string[] {
  return ["companies", company, "meetings", meeting];
}

/** A company's meetings in the order of their dates. */
export function inOrder(company: Frozen<Company>): [id: string, meeting: ReadMeeting][] {
  const at = ({ date, time }: ReadMeeting): string => `${date} ${time}`;
  return Object.entries(company.meetings).sort(([, one], [, other]) => at(one).localeCompare(at(other)));
}

/** Companies in the order of their names. */
export function byName(user: Frozen<User>): [id: string, company: Frozen<Company>][] {
  return Object.entries(user.companies).sort(([, one], [, other]) => one.name.localeCompare(other.name));
}

export function addCompany(board: Board): string {
  const id = newId();
  board.change((draft) => {
    draft.companies[id] = { name: "New company", meetings: {} };
  });
  return id;
}

export function addMeeting(board: Board, company: string): string {
  const id = newId();
  board.change((draft) => {
    companyOf(draft, company).meetings[id] = {
      title: "New meeting",
      date: new ImmutableString(isoDate(new Date())),
      time: new ImmutableString("10:00"),
      place: "",
      participants: [],
      agenda: "",
    };
  });
  return id;
}

export function removeCompany(board: Board, company: string): void {
  board.change((draft) => {
    delete draft.companies[company];
  });
}

export function removeMeeting(board: Board, { company, meeting }: Place): void {
  board.change((draft) => {
    delete companyOf(draft, company).meetings[meeting];
  });
}

export function setWhen(board: Board, place: Place, field: "date" | "time", value: string): void {
  board.change((draft) => {
    meetingOf(draft, place)[field] = new ImmutableString(value);
  });
}

export function addParticipant(board: Board, place: Place, name: string): void {
  board.change((draft) => {
    meetingOf(draft, place).participants.push(name);
  });
}

export function removeParticipant(board: Board, place: Place, index: number): void {
  board.change((draft) => {
    meetingOf(draft, place).participants.splice(index, 1);
  });
}

/** In a change: the draft of a meeting, which must be there. */
export function meetingOf(draft: User, { company, meeting }: Place): Meeting {
  const found = companyOf(draft, company).meetings[meeting];
  if (found === undefined) {
    throw new RangeError("the meeting is gone");
  }
  return found;
}

function companyOf(draft: User, company: string): Company {
  const found = draft.companies[company];
  if (found === undefined) {
    throw new RangeError("the company is gone");
  }
  return found;
}

/** Short, and random enough for the ids of one document. */
function newId(): string {
  return [...crypto.getRandomValues(new Uint8Array(6))].map((byte) => byte.toString(36).padStart(2, "0")).join("");
}

export function isoDate(date: Date): string {
  const two = (number: number): string => String(number).padStart(2, "0");
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
}
