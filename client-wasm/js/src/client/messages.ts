/** What the tabs of a browser tell each other. */
import type { ConnectionFault, ConnectionState } from "./uplink.js";

/** What the leader knows of a document from the server. */
export interface ServerNews {
  /** Heads that are durable there, as far as this browser has them. */
  readonly synced: readonly string[];
  /** The server has no such document, or does not show it to us. */
  readonly unavailable: boolean;
  readonly readOnly: boolean;
}

/** A message that is not stored: presence and the like. */
export interface Ephemeral {
  readonly id: string;
  readonly author: string;
  readonly session: string;
  readonly count: number;
  /** CBOR. */
  readonly data: Uint8Array;
}

/** A message between tabs. */
export type TabMessage =
  /** I show these documents, of which I have that much. Whoever has more says it; the leader keeps them in sync. */
  | { readonly t: "want"; readonly documents: readonly { readonly id: string; readonly heads: readonly string[] }[] }
  | { readonly t: "unwant"; readonly id: string }
  /** Who leads, and asks what everybody wants. */
  | { readonly t: "who" }
  /** Chunks, one after the other, and the heads of what they make. */
  | { readonly t: "changes"; readonly id: string; readonly bytes: Uint8Array; readonly heads: readonly string[] }
  | { readonly t: "server"; readonly id: string; readonly news: ServerNews }
  | { readonly t: "connection"; readonly state: ConnectionState; readonly fault: ConnectionFault | undefined }
  /** `fromServer`: the leader brings it; else it is a tab's own, and the leader is to send it. */
  | { readonly t: "ephemeral"; readonly message: Ephemeral; readonly fromServer: boolean }
  /** The page asked to be offline, or no longer. */
  | { readonly t: "offline"; readonly offline: boolean }
  | { readonly t: "deleted"; readonly id: string }
  /** All documents were removed from storage. */
  | { readonly t: "cleared" };

/** The message, if it is one: other versions of a page may be open on the same origin. */
export function asTabMessage(value: unknown): TabMessage | undefined {
  if (typeof value !== "object" || value === null) {
    return undefined;
  }
  const message = value as { readonly [field: string]: unknown };
  const hasId = typeof message["id"] === "string";
  switch (message["t"]) {
    case "want":
      return isListOf(message["documents"], isWanted)
        ? (message as TabMessage)
        : undefined;
    case "unwant":
    case "deleted":
      return hasId ? (message as TabMessage) : undefined;
    case "who":
      return { t: "who" };
    case "cleared":
      return { t: "cleared" };
    case "changes":
      return hasId && message["bytes"] instanceof Uint8Array && isHeads(message["heads"])
        ? (message as TabMessage)
        : undefined;
    case "server":
      return hasId && isNews(message["news"]) ? (message as TabMessage) : undefined;
    case "offline":
      return typeof message["offline"] === "boolean" ? (message as TabMessage) : undefined;
    case "connection":
      return isState(message["state"]) && isFault(message["fault"]) ? (message as TabMessage) : undefined;
    case "ephemeral":
      return isEphemeral(message["message"]) && typeof message["fromServer"] === "boolean"
        ? (message as TabMessage)
        : undefined;
    default:
      return undefined;
  }
}

function isWanted(value: unknown): boolean {
  const wanted = value as { id?: unknown; heads?: unknown } | null | undefined;
  return typeof wanted?.id === "string" && isHeads(wanted.heads);
}

function isNews(value: unknown): boolean {
  const news = value as { [Field in keyof ServerNews]?: unknown } | null | undefined;
  return isHeads(news?.synced) && typeof news.unavailable === "boolean" && typeof news.readOnly === "boolean";
}

function isEphemeral(value: unknown): boolean {
  const message = value as { [Field in keyof Ephemeral]?: unknown } | null | undefined;
  return (
    typeof message?.id === "string" &&
    typeof message.author === "string" &&
    typeof message.session === "string" &&
    isCount(message.count) &&
    message.data instanceof Uint8Array &&
    message.data.length > 0
  );
}

const STATES: { readonly [State in ConnectionState]: true } = { connecting: true, open: true, waiting: true, offline: true };

function isState(value: unknown): value is ConnectionState {
  return typeof value === "string" && Object.hasOwn(STATES, value);
}

function isFault(value: unknown): boolean {
  const fault = value as { [Field in keyof ConnectionFault]?: unknown } | null | undefined;
  return fault === undefined || (typeof fault?.code === "string" && typeof fault.message === "string");
}

/** What the wire format has room for, and JavaScript can compare. */
function isCount(value: unknown): boolean {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

const HASH = /^[0-9a-f]{64}$/;

function isHeads(value: unknown): value is readonly string[] {
  return isListOf(value, (hash) => typeof hash === "string" && HASH.test(hash));
}

/** `every` alone would pass over holes, which are `undefined` to whoever goes through the list. */
function isListOf(value: unknown, isOne: (one: unknown) => boolean): boolean {
  return Array.isArray(value) && Array.from<unknown>(value).every(isOne);
}
