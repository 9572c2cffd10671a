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
  | { readonly t: "deleted"; readonly id: string };

/** The message, if it is one: other versions of a page may be open on the same origin. */
export function asTabMessage(value: unknown): TabMessage | undefined {
  if (typeof value !== "object" || value === null) {
    return undefined;
  }
  const message = value as { readonly [field: string]: unknown };
  const hasId = typeof message["id"] === "string";
  switch (message["t"]) {
    case "want":
      return Array.isArray(message["documents"]) && message["documents"].every(isWanted)
        ? (message as TabMessage)
        : undefined;
    case "unwant":
    case "deleted":
      return hasId ? (message as TabMessage) : undefined;
    case "who":
      return { t: "who" };
    case "changes":
      return hasId && message["bytes"] instanceof Uint8Array && isHeads(message["heads"])
        ? (message as TabMessage)
        : undefined;
    case "server":
      return hasId && isNews(message["news"]) ? (message as TabMessage) : undefined;
    case "offline":
      return typeof message["offline"] === "boolean" ? (message as TabMessage) : undefined;
    case "connection":
      return STATES.has(message["state"]) && isFault(message["fault"]) ? (message as TabMessage) : undefined;
    case "ephemeral":
      return isEphemeral(message["message"]) ? (message as TabMessage) : undefined;
    default:
      return undefined;
  }
}

function isWanted(value: unknown): boolean {
  const wanted = value as { id?: unknown; heads?: unknown } | null;
  return typeof wanted?.id === "string" && isHeads(wanted.heads);
}

function isNews(value: unknown): boolean {
  const news = value as Partial<Record<keyof ServerNews, unknown>> | null;
  return isHeads(news?.synced) && typeof news?.unavailable === "boolean" && typeof news.readOnly === "boolean";
}

const STATES = new Set<unknown>(["connecting", "open", "waiting", "offline"] satisfies ConnectionState[]);

function isFault(value: unknown): boolean {
  const fault = value as { code?: unknown; message?: unknown } | null | undefined;
  return fault === undefined || (typeof fault?.code === "string" && typeof fault.message === "string");
}

function isEphemeral(value: unknown): boolean {
  const message = value as Partial<Record<keyof Ephemeral, unknown>> | null;
  return (
    typeof message?.id === "string" &&
    typeof message.author === "string" &&
    typeof message.session === "string" &&
    Number.isSafeInteger(message.count) &&
    (message.count as number) > 0 &&
    message.data instanceof Uint8Array &&
    message.data.length > 0
  );
}

const HASH = /^[0-9a-f]{64}$/;

function isHeads(value: unknown): value is readonly string[] {
  return Array.isArray(value) && value.every((hash) => typeof hash === "string" && HASH.test(hash));
}
