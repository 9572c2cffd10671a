/** What is saved and synced, and the switch that takes this browser off the network. */
import type { Client, ClientStatus, DocumentStatus } from "@concord/client";
import { useStatus } from "@concord/client/react";
import type { ReactNode } from "react";

import { useCalm, useClientStatus } from "./hooks.js";
import type { Board } from "./model.js";

/** Typing makes a change with every key; what is said aloud waits until that is over, milliseconds. */
const CALM_MS = 1_500;

interface Shown {
  readonly kind: "good" | "busy" | "away" | "bad";
  readonly text: string;
  /** Left out where there is little room. */
  readonly more?: string;
}

export function Status({ board, client }: { board: Board; client: Client }): ReactNode {
  const document = useStatus(board);
  const connection = useClientStatus(client);
  const saved = showSaved(document, connection);
  const synced = showSynced(document, connection);
  const said = useCalm(`${saved.text}${saved.more ?? ""}, ${synced.text}`, CALM_MS);
  return (
    <div className="status">
      <Pill shown={saved} />
      <Pill shown={synced} />
      <span className="unseen" role="status">
        {said}
      </span>
    </div>
  );
}

export function OfflineSwitch({ client }: { client: Client }): ReactNode {
  const isOffline = useClientStatus(client).connection === "offline";
  return (
    <button
      type="button"
      role="switch"
      aria-checked={isOffline}
      className="switch"
      title="Takes all tabs of this browser off the network, or back"
      onClick={() => client.setOffline(!isOffline)}
    >
      <span className="track" aria-hidden="true" />
      Work offline
    </button>
  );
}

function Pill({ shown: { kind, text, more } }: { shown: Shown }): ReactNode {
  return (
    <span className={`pill ${kind}`} aria-hidden="true">
      {text}
      {more !== undefined && <span className="more">{more}</span>}
    </span>
  );
}

function showSaved(document: DocumentStatus, { storage }: ClientStatus): Shown {
  if (storage === "memory") {
    return { kind: "away", text: "Kept in this tab only" };
  }
  if (document.saved) {
    return { kind: "good", text: "Saved", more: " in this browser" };
  }
  return document.error === undefined ? { kind: "busy", text: "Saving…" } : { kind: "bad", text: "Not saved" };
}

function showSynced({ unsynced }: DocumentStatus, { connection }: ClientStatus): Shown {
  const waiting = unsynced === 0 ? "" : ` · ${unsynced} ${unsynced === 1 ? "change waits" : "changes wait"}`;
  switch (connection) {
    case "open":
      return unsynced === 0 ? { kind: "good", text: "Synced" } : { kind: "busy", text: `Syncing ${unsynced}…` };
    case "offline":
      return { kind: "away", text: `Offline${waiting}` };
    case "connecting":
      return { kind: "busy", text: "Connecting…" };
    case "waiting":
      return { kind: "away", text: `Server not reached${waiting}` };
  }
}
