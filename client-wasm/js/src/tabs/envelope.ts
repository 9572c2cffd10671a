/**
 * What tabs send each other. Other versions of this code, and other code, may use the same channel: whatever
 * is not an envelope of this version is ignored.
 */

/** Of the envelope and of what the messages in it mean. */
export const PROTOCOL_VERSION = 1;
/** Characters of a tab's id. */
export const MAX_ID_CHARS = 64;

/** What is in an envelope. */
export type Body =
  /** "I am here now": the leader answers `lead`, the others `here`. */
  | { readonly type: "hello" }
  /** "So am I": to a tab that said hello. */
  | { readonly type: "here" }
  /** "I lead in this term": when it begins, and as the answer to `hello`, `ping` and a wrong `lead`. */
  | { readonly type: "lead" }
  /** "Does the leader live?" */
  | { readonly type: "ping" }
  /** "I had more to say than I could keep until I was here": what it said before is to be asked for. */
  | { readonly type: "lost" }
  /** "I leave." */
  | { readonly type: "bye" }
  /** A message of the page. */
  | { readonly type: "message"; readonly message: unknown };

/** One message on the channel. */
export interface Envelope {
  readonly v: typeof PROTOCOL_VERSION;
  /** The sender's id. */
  readonly from: string;
  /** The only tab that it is for; without it, all. */
  readonly to?: string;
  /** The highest term that the sender knew. */
  readonly term: number;
  readonly body: Body;
}

/** The envelope, if it is one of this version. Extra fields are ignored. */
export function readEnvelope(data: unknown): Envelope | undefined {
  if (!isRecord(data) || data["v"] !== PROTOCOL_VERSION) return undefined;
  const { from, to, term, body } = data;
  if (!isId(from) || !(to === undefined || isId(to))) return undefined;
  if (typeof term !== "number" || !Number.isSafeInteger(term) || term < 0) return undefined;
  const read = readBody(body);
  if (read === undefined) return undefined;
  return { v: PROTOCOL_VERSION, from, ...(to === undefined ? {} : { to }), term, body: read };
}

function readBody(body: unknown): Body | undefined {
  if (!isRecord(body)) return undefined;
  switch (body["type"]) {
    case "hello":
    case "here":
    case "lead":
    case "ping":
    case "lost":
    case "bye":
      return { type: body["type"] };
    case "message":
      return "message" in body ? { type: "message", message: body["message"] } : undefined;
    default:
      return undefined;
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}

function isId(value: unknown): value is string {
  return typeof value === "string" && value.length > 0 && value.length <= MAX_ID_CHARS;
}
