/** A company and its meetings; and the meetings of all companies. */
import type { Frozen } from "@concord/client";
import type { ReactNode } from "react";

import { showDay } from "./dates.js";
import { ConfirmButton, TextField } from "./fields.js";
import { useGlow } from "./hooks.js";
import { addMeeting, type Board, byName, type Company, inOrder, type ReadMeeting, removeCompany, type User } from "./model.js";
import { address, go } from "./route.js";
import { Toolbar } from "./toolbar.js";

export function CompanyPage({ board, id, company }: { board: Board; id: string; company: Frozen<Company> }): ReactNode {
  const meetings = inOrder(company);
  return (
    <article aria-labelledby="company-title">
      <Toolbar board={board} crumb={<a href={address(board.id)}>All meetings</a>}>
        <button type="button" className="primary" onClick={() => go(address(board.id, id, addMeeting(board, id)))}>
          Add meeting
        </button>
        <ConfirmButton
          what="company"
          question={`Delete it and its meetings (${meetings.length}) for everybody?`}
          onConfirm={() => {
            removeCompany(board, id);
            go(address(board.id));
          }}
        />
      </Toolbar>
      <h1 id="company-title" className="unseen">
        {company.name}
      </h1>
      <TextField board={board} path={["companies", id, "name"]} value={company.name} label="Name of the company" className="title" isBare />
      {meetings.length === 0 ? (
        <p className="empty">No meetings yet.</p>
      ) : (
        <ul className="cards">
          {meetings.map(([meeting, value]) => (
            <Card key={meeting} href={address(board.id, id, meeting)} meeting={value} />
          ))}
        </ul>
      )}
    </article>
  );
}

/** What a user begins with: all meetings, next first. */
export function Overview({ board, user }: { board: Board; user: Frozen<User> }): ReactNode {
  const all = byName(user).flatMap(([company, { name, ...rest }]) =>
    inOrder({ name, ...rest }).map(([meeting, value]) => ({ company, meeting, value, name })),
  );
  all.sort((one, other) => `${one.value.date} ${one.value.time}`.localeCompare(`${other.value.date} ${other.value.time}`));
  return (
    <article aria-labelledby="overview-title">
      <Toolbar board={board} crumb={`${all.length} meetings of ${Object.keys(user.companies).length} companies`} />
      <h1 id="overview-title">All meetings</h1>
      {all.length === 0 ? (
        <p className="empty">No meetings yet. Add a company first.</p>
      ) : (
        <ul className="cards">
          {all.map(({ company, meeting, value, name }) => (
            <Card key={meeting} href={address(board.id, company, meeting)} meeting={value} of={name} />
          ))}
        </ul>
      )}
    </article>
  );
}

function Card({ href, meeting, of }: { href: string; meeting: ReadMeeting; of?: string }): ReactNode {
  const glow = useGlow<HTMLLIElement>(`${meeting.date} ${meeting.time}`);
  return (
    <li ref={glow}>
      <a href={href}>
        <span className="card-when">
          <time dateTime={`${meeting.date}T${meeting.time}`}>{showDay(meeting.date)}</time>
          <span>{meeting.time}</span>
        </span>
        <span className="card-what">
          <strong>{meeting.title || "Untitled"}</strong>
          <span>{[of, meeting.place].filter(Boolean).join(" · ")}</span>
        </span>
      </a>
    </li>
  );
}
