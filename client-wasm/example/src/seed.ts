/**
 * `node seed.mjs SERVER KNOWN`: puts the sample board on a server, once, and prints its id. KNOWN is a file that
 * remembers the id; a board that it names and the server still has is used again.
 */
import { readFile, writeFile } from "node:fs/promises";

import { type Client, connect } from "@concord/client";

import type { User } from "./model.js";
import { sample } from "./sample.js";

/** A server on this machine has answered by then, milliseconds. */
const PATIENCE_MS = 20_000;

const [server, known] = process.argv.slice(2);
if (server === undefined || known === undefined) {
  throw new Error("usage: node seed.mjs SERVER KNOWN");
}
const deadline = setTimeout(() => {
  console.error(`seed: ${server} did not answer`);
  process.exit(1);
}, PATIENCE_MS);
const client = await connect({ url: server });
const id = (await find(client, known)) ?? (await make(client, known));
clearTimeout(deadline);
await client.close();
console.log(id);

async function find(client: Client, known: string): Promise<string | undefined> {
  const id = await readFile(known, "utf8").then(
    (text) => text.trim(),
    () => undefined,
  );
  if (id === undefined) {
    return undefined;
  }
  const board = client.open<User>(id);
  return new Promise((found) => {
    const look = (): void => {
      const { state } = board.status;
      const isAsked = client.status.connection === "open";
      if (state === "ready") {
        found(board.id);
      } else if (state !== "loading" && isAsked) {
        found(undefined);
      }
    };
    board.on("status", look);
    look();
  });
}

async function make(client: Client, known: string): Promise<string> {
  const board = client.create<User>(sample(new Date()));
  await board.whenSynced();
  await writeFile(known, `${board.id}\n`);
  return board.id;
}
