/** One meeting: everything in it can be changed, by several people at once. */
import { type ReactNode, useState } from "react";

import { Agenda } from "./editor.js";
import { ConfirmButton, TextField, WhenField } from "./fields.js";
import { addParticipant, type Board, pathTo, type Place, type ReadMeeting, removeMeeting, removeParticipant, setWhen } from "./model.js";
import { Avatar, type Person } from "./people.js";
import { address, go } from "./route.js";
import { Timeline } from "./timeline.js";
import { Toolbar } from "./toolbar.js";

interface MeetingProps {
  readonly board: Board;
  readonly place: Place;
  readonly meeting: ReadMeeting;
  readonly companyName: string;
  readonly others: readonly Person[];
  readonly name: string;
}

export function MeetingPage({ board, place, meeting, companyName, others, name }: MeetingProps): ReactNode {
  const [isPast, setPast] = useState(false);
  const path = pathTo(place);
  const here = others.filter((other) => other.meeting === place.meeting);
  return (
    <article aria-labelledby="meeting-title">
      <Toolbar
        board={board}
        crumb={
          <>
            <a href={address(board.id)}>All meetings</a>
            <span aria-hidden="true">›</span>
            <a href={address(board.id, place.company)}>{companyName || "Unnamed"}</a>
            <span className="people small">
              {here.length > 0 && <span className="hint">Also here</span>}
              {here.map((person) => (
                <Avatar key={person.key} person={person} />
              ))}
            </span>
          </>
        }
      >
        <button type="button" aria-pressed={isPast} onClick={() => setPast(!isPast)}>
          History
        </button>
        <ConfirmButton
          what="meeting"
          question="Delete it for everybody?"
          onConfirm={() => {
            removeMeeting(board, place);
            go(address(board.id, place.company));
          }}
        />
      </Toolbar>
      <h1 id="meeting-title" className={isPast ? undefined : "unseen"}>
        {meeting.title}
      </h1>
      {isPast ? (
        <Timeline board={board} place={place} onClose={() => setPast(false)} />
      ) : (
        <div className="form">
          <TextField board={board} path={[...path, "title"]} value={meeting.title} label="Title" className="title" isBare />
          <div className="when">
            <WhenField type="date" label="Date" value={meeting.date} onValue={(value) => setWhen(board, place, "date", value)} />
            <WhenField type="time" label="Time" value={meeting.time} onValue={(value) => setWhen(board, place, "time", value)} />
            <TextField board={board} path={[...path, "place"]} value={meeting.place} label="Place" />
          </div>
          <Participants board={board} place={place} participants={meeting.participants} />
          <Agenda board={board} place={place} name={name} />
        </div>
      )}
    </article>
  );
}

function Participants({ board, place, participants }: { board: Board; place: Place; participants: readonly string[] }): ReactNode {
  const [name, setName] = useState("");
  return (
    <fieldset className="field participants">
      <legend className="label">Participants</legend>
      <ul>
        {participants.map((participant, index) => (
          <li key={`${index} ${participant}`}>
            {participant}
            <button type="button" aria-label={`Remove ${participant}`} onClick={() => removeParticipant(board, place, index)}>
              <span aria-hidden="true">×</span>
            </button>
          </li>
        ))}
        <li className="adding">
          <form
            onSubmit={(event) => {
              event.preventDefault();
              if (name.trim() !== "") {
                addParticipant(board, place, name.trim());
                setName("");
              }
            }}
          >
            <input
              type="text"
              aria-label="Name of another participant"
              placeholder="Add a name"
              autoComplete="off"
              value={name}
              onChange={({ target }) => setName(target.value)}
            />
            <button type="submit" disabled={name.trim() === ""}>
              Add
            </button>
          </form>
        </li>
      </ul>
    </fieldset>
  );
}
