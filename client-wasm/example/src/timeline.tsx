/** A slider over a meeting's earlier versions, which shows them read-only. */
import { ImmutableString, updateText } from "@concord/client";
import { useValue } from "@concord/client/react";
import { type ReactNode, useDeferredValue, useId, useMemo, useState } from "react";

import { showDay, showMoment } from "./dates.js";
import { told, versionsOf } from "./history.js";
import { type Board, FIELDS, type Meeting, meetingOf, pathTo, type Place, type ReadMeeting } from "./model.js";

interface TimelineProps {
  readonly board: Board;
  readonly place: Place;
  readonly onClose: () => void;
}

export function Timeline({ board, place, onClose }: TimelineProps): ReactNode {
  const { company, meeting } = place;
  const value = useDeferredValue(useValue(board));
  const versions = useMemo(() => versionsOf(board, { company, meeting }), [board, company, meeting, value]);
  const latest = versions.length - 1;
  // Whoever looks at the latest goes on doing so.
  const [chosen, setChosen] = useState<number>();
  const index = Math.min(chosen ?? latest, latest);
  const version = versions[index];
  const then = useMemo(() => version && board.at(version.heads).companies?.[company]?.meetings[meeting], [board, version, company, meeting]);
  const id = useId();
  if (version === undefined) {
    return <p>There are no versions of this meeting.</p>;
  }
  const name = `Version ${index + 1} of ${versions.length}`;
  const about = `${showMoment(version.time)}: ${told(version)}`;
  return (
    <>
      <section className="timeline" aria-label="Earlier versions">
        <div className="timeline-head">
          <label htmlFor={id}>{name}</label>
          <span aria-hidden="true">{about}</span>
        </div>
        <input
          id={id}
          type="range"
          min={0}
          max={latest}
          value={index}
          disabled={latest === 0}
          autoFocus
          aria-valuetext={`${name}, ${about}`}
          onChange={({ target }) => setChosen(Number(target.value) === latest ? undefined : Number(target.value))}
        />
        <div className="row">
          <button type="button" className="primary" onClick={onClose}>
            Back to now
          </button>
          {then !== undefined && index < latest && (
            <button
              type="button"
              onClick={() => {
                bringBack(board, place, then);
                onClose();
              }}
            >
              Bring this version back
            </button>
          )}
        </div>
      </section>
      {then === undefined ? <p className="empty">The meeting was not there.</p> : <Then meeting={then} changed={version.changed} />}
    </>
  );
}

/** A meeting as it was. */
function Then({ meeting, changed }: { meeting: ReadMeeting; changed: readonly (keyof Meeting)[] }): ReactNode {
  const shown: Record<keyof Meeting, ReactNode> = {
    title: meeting.title,
    date: showDay(meeting.date),
    time: meeting.time,
    place: meeting.place || "–",
    participants: meeting.participants.length === 0 ? "–" : meeting.participants.join(", "),
    agenda: meeting.agenda || "–",
  };
  return (
    <dl className="then">
      {(Object.keys(FIELDS) as (keyof Meeting)[]).map((field) => (
        <div key={field} className={`then-${field}${changed.includes(field) ? " changed" : ""}`}>
          <dt>
            {FIELDS[field]}
            {changed.includes(field) && <em> changed here</em>}
          </dt>
          <dd>{shown[field]}</dd>
        </div>
      ))}
    </dl>
  );
}

/** As an ordinary change: what happened since stays in the history, and others' undo is not touched. */
function bringBack(board: Board, place: Place, then: ReadMeeting): void {
  board.change(
    (draft) => {
      const meeting = meetingOf(draft, place);
      for (const field of ["title", "place", "agenda"] as const) {
        updateText(draft, [...pathTo(place), field], then[field]);
      }
      for (const field of ["date", "time"] as const) {
        if (String(meeting[field]) !== then[field]) {
          meeting[field] = new ImmutableString(then[field]);
        }
      }
      if (JSON.stringify(meeting.participants) !== JSON.stringify(then.participants)) {
        meeting.participants.splice(0, meeting.participants.length, ...then.participants);
      }
    },
    { message: "An earlier version was brought back" },
  );
}
