/** The page of one board: what is on top of it, the list of companies and meetings, and what is chosen of them. */
import type { Client, Frozen } from "@concord/client";
import { useStatus, useValue } from "@concord/client/react";
import { type ReactNode, useEffect, useState } from "react";

import { CompanyPage, Overview } from "./company.js";
import { showShort } from "./dates.js";
import { useGlow, useUndoKeys } from "./hooks.js";
import { MeetingPage } from "./meeting.js";
import { addCompany, addMeeting, type Board, byName, type Company, inOrder, type ReadMeeting, type User } from "./model.js";
import { Avatar, colorOf, type Person, useAnnounce, useName, useOthers } from "./people.js";
import { address, go, type Route } from "./route.js";
import { OfflineSwitch, Status } from "./status.js";

interface BoardProps {
  readonly client: Client;
  readonly board: Board;
  readonly route: Route;
}

export function BoardPage({ client, board, route }: BoardProps): ReactNode {
  const { state, readOnly } = useStatus(board);
  if (state !== "ready") {
    return <Waiting state={state} />;
  }
  if (!isBoard(board.value)) {
    return <Waiting state="other" />;
  }
  return (
    <>
      {readOnly && <p role="alert">You may look at this board, but not change it.</p>}
      <Shown client={client} board={board} route={route} />
    </>
  );
}

function Shown({ client, board, route }: BoardProps): ReactNode {
  const user = useValue(board);
  const [name, setName] = useName();
  const others = useOthers(board);
  useUndoKeys(board);
  useAnnounce(board, name, { ...(route.company && { company: route.company }), ...(route.meeting && { meeting: route.meeting }) });
  const company = route.company === undefined ? undefined : user.companies[route.company];
  const meeting = route.meeting === undefined ? undefined : company?.meetings[route.meeting];
  const title = meeting?.title ?? company?.name ?? "All meetings";
  useEffect(() => {
    document.title = `${title} – Board`;
  }, [title]);
  return (
    <div className={`page ${route.company === undefined ? "shows-list" : "shows-one"}`}>
      <header>
        <a className="brand" href={address(board.id)}>
          <img src="icon.svg" alt="" width="28" height="28" />
          Board <span className="of">of {user.name}</span>
        </a>
        <People name={name} setName={setName} others={others} user={user} />
        <OfflineSwitch client={client} />
        <Status board={board} client={client} />
      </header>
      <Hint />
      <div className="columns">
        <Sidebar board={board} user={user} route={route} others={others} />
        <main>
          {route.company !== undefined && company === undefined ? (
            <Gone what="company" home={address(board.id)} />
          ) : route.meeting !== undefined && meeting === undefined ? (
            <Gone what="meeting" home={address(board.id, route.company)} />
          ) : company !== undefined && meeting !== undefined ? (
            <MeetingPage
              // What one did in a meeting, such as looking at its history, ends with it.
              key={route.meeting}
              board={board}
              place={{ company: route.company as string, meeting: route.meeting as string }}
              meeting={meeting}
              companyName={company.name}
              others={others}
              name={name}
            />
          ) : company !== undefined ? (
            <CompanyPage key={route.company} board={board} id={route.company as string} company={company} />
          ) : (
            <Overview board={board} user={user} />
          )}
        </main>
      </div>
    </div>
  );
}

/** What a newcomer should try. */
function Hint(): ReactNode {
  const [isShown, setShown] = useState(true);
  return (
    isShown && (
      <p className="try">
        <span>
          <strong>Try it:</strong> open another tab and change a date, or write into an agenda. Both tabs change at once, even
          offline.
        </span>
        {/* Without a link to this one, the other tab is somebody else. */}
        <a className="button primary" href={location.href} target="_blank" rel="noopener" onClick={(event) => (event.currentTarget.href = location.href)}>
          Open another tab
        </a>
        <button type="button" className="quiet" aria-label="Hide this hint" onClick={() => setShown(false)}>
          <span aria-hidden="true">×</span>
        </button>
      </p>
    )
  );
}

function People({ name, setName, others, user }: { name: string; setName: (name: string) => void; others: readonly Person[]; user: Frozen<User> }): ReactNode {
  const at = ({ company, meeting }: Person): string => {
    const there = company === undefined ? undefined : user.companies[company];
    const title = meeting === undefined ? undefined : there?.meetings[meeting]?.title;
    return `looks at ${title ?? there?.name ?? "all meetings"}`;
  };
  return (
    <div className="who">
      <ul aria-label="Who is here" className="people">
        {others.map((person) => (
          <li key={person.key}>
            <Avatar person={person} note={at(person)} />
          </li>
        ))}
      </ul>
      <label className="me">
        <span className="avatar" style={{ backgroundColor: colorOf(name) }} aria-hidden="true">
          {[...name][0]?.toUpperCase()}
        </span>
        <span className="unseen">Your name</span>
        <input type="text" value={name} maxLength={40} autoComplete="off" onChange={({ target }) => setName(target.value)} />
      </label>
    </div>
  );
}

function Sidebar({ board, user, route, others }: { board: Board; user: Frozen<User>; route: Route; others: readonly Person[] }): ReactNode {
  return (
    <nav aria-label="Companies and meetings">
      {byName(user).map(([id, company]) => (
        <CompanyEntry key={id} board={board} id={id} company={company} route={route} others={others} />
      ))}
      <button type="button" className="wide" onClick={() => go(address(board.id, addCompany(board)))}>
        Add company
      </button>
    </nav>
  );
}

interface CompanyEntryProps {
  readonly board: Board;
  readonly id: string;
  readonly company: Frozen<Company>;
  readonly route: Route;
  readonly others: readonly Person[];
}

function CompanyEntry({ board, id, company, route, others }: CompanyEntryProps): ReactNode {
  const isHere = route.company === id && route.meeting === undefined;
  return (
    <section>
      <div className="company">
        <h2>
          <a href={address(board.id, id)} aria-current={isHere ? "page" : undefined}>
            {company.name || "Unnamed"}
          </a>
        </h2>
        <button
          type="button"
          className="quiet"
          aria-label={`Add a meeting of ${company.name}`}
          title="Add a meeting"
          onClick={() => go(address(board.id, id, addMeeting(board, id)))}
        >
          <span aria-hidden="true">+</span>
        </button>
      </div>
      <ul>
        {inOrder(company).map(([meeting, value]) => (
          <MeetingEntry
            key={meeting}
            href={address(board.id, id, meeting)}
            meeting={value}
            isHere={route.meeting === meeting}
            others={others.filter((other) => other.meeting === meeting)}
          />
        ))}
      </ul>
    </section>
  );
}

function MeetingEntry({ href, meeting, isHere, others }: { href: string; meeting: ReadMeeting; isHere: boolean; others: readonly Person[] }): ReactNode {
  const glow = useGlow<HTMLTimeElement>(meeting.date);
  return (
    <li>
      <a href={href} aria-current={isHere ? "page" : undefined}>
        <time ref={glow} dateTime={meeting.date}>
          {showShort(meeting.date)}
        </time>
        <span className="name">{meeting.title || "Untitled"}</span>
        <span className="people small">
          {others.map((person) => (
            <Avatar key={person.key} person={person} note="is here" />
          ))}
        </span>
      </a>
    </li>
  );
}

function Gone({ what, home }: { what: string; home: string }): ReactNode {
  return (
    <div className="notice" role="alert">
      <h1>This {what} is not there</h1>
      <p>Somebody deleted it, or the address is wrong.</p>
      <a className="button" href={home}>
        Go on
      </a>
    </div>
  );
}

/** Any Automerge document may be behind an address. */
function isBoard({ companies }: { readonly companies?: unknown }): boolean {
  return typeof companies === "object" && companies !== null;
}

const REASONS = {
  loading: ["Opening the board…", ""],
  unavailable: ["This board is not here", "Neither this browser nor the server has it. It appears as soon as somebody brings it."],
  deleted: ["Deleted", "This board was deleted in this browser. Load the page again to fetch it from the server."],
  other: ["This is no board", "The address names a document of another kind."],
  failed: ["Something went wrong", "What was saved is safe. Load the page again."],
} as const;

function Waiting({ state }: { state: keyof typeof REASONS }): ReactNode {
  const [title, text] = REASONS[state];
  return (
    <main className="notice" role="status">
      <h1>{title}</h1>
      {text !== "" && <p>{text}</p>}
      {state === "unavailable" && (
        <a className="button" href="#">
          Start
        </a>
      )}
    </main>
  );
}
