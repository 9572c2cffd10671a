/**
 * The board: one page over `@concord/client`. `?server=wss://…` names another server than the page's own.
 *
 * Which board is shown is in the address, behind the `#`. Without one it is the board that `board.json` names,
 * which `cargo xtask demo` puts beside the page; so tabs that are opened at once all show the same.
 */
import { type Client, connect, type DocumentHandle } from "@concord/client";
import { type ReactNode, useEffect, useState } from "react";
import { createRoot } from "react-dom/client";

import { BoardPage } from "./board.js";
import type { Board, User } from "./model.js";
import { address, go, replace, useRoute } from "./route.js";
import { sample } from "./sample.js";

const root = createRoot(document.getElementById("app") as HTMLElement);
try {
  const client = await connect({ url: new URLSearchParams(location.search).get("server") ?? location.origin });
  root.render(<App client={client} />);
} catch (error) {
  root.render(<Notice title="This browser can't run the board" text={String(error)} />);
}

function App({ client }: { client: Client }): ReactNode {
  const route = useRoute();
  const [isNamed, setNamed] = useState(true);
  const hasRoute = route !== undefined;
  useEffect(() => {
    if (!hasRoute) {
      void findBoard().then((id) => (id === undefined ? setNamed(false) : replace(address(id))));
    }
  }, [hasRoute]);
  const board = useBoard(client, route?.document);
  if (route === undefined) {
    return isNamed ? <Notice title="Opening the board…" /> : <Welcome client={client} />;
  }
  if (board === undefined) {
    return <Notice title="Opening the board…" />;
  }
  if (board instanceof Error) {
    return <Notice title="This address names no board" text={board.message} />;
  }
  return <BoardPage key={board.id} client={client} board={board} route={route} />;
}

/** The document, open for as long as it is shown. */
function useBoard(client: Client, id: string | undefined): Board | Error | undefined {
  const [board, setBoard] = useState<Board | Error>();
  useEffect(() => {
    setBoard(undefined);
    if (id === undefined) {
      return;
    }
    let opened: DocumentHandle<User>;
    try {
      opened = client.open<User>(id);
    } catch (error) {
      setBoard(error instanceof Error ? error : new Error(String(error)));
      return;
    }
    setBoard(opened);
    return () => opened.close();
  }, [client, id]);
  return board;
}

/** Nobody made a board yet that this server would know of. */
function Welcome({ client }: { client: Client }): ReactNode {
  const begin = (): void => go(address(client.create<User>(sample(new Date())).id));
  return (
    <Notice title="A board, together" text="Companies, their meetings, and what is on the agenda: for everybody who has the address of this page.">
      <button type="button" className="primary" onClick={begin}>
        Begin with an example
      </button>
    </Notice>
  );
}

function Notice({ title, text, children }: { title: string; text?: string; children?: ReactNode }): ReactNode {
  return (
    <main className="notice">
      <h1>{title}</h1>
      {text !== undefined && <p>{text}</p>}
      {children}
    </main>
  );
}

async function findBoard(): Promise<string | undefined> {
  try {
    const answer = await fetch("board.json");
    const { document } = (await answer.json()) as { document?: unknown };
    return typeof document === "string" ? document : undefined;
  } catch {
    return undefined;
  }
}
