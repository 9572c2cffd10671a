/**
 * The tabs of one browser as one client: one of them leads, and holds the connection to the server.
 */

/** What a tab is to the others. */
export type Role =
  /** Holds the connection. */
  | "leader"
  /** Reaches the server through the leader. */
  | "follower"
  /** Can't use the web APIs for this, or was told not to: connects by itself, and hears of no others. */
  | "alone";

/** What happens to a tab. */
export interface TabsEvents {
  /** Called whenever it changes; the first time soon after the start. */
  role(role: Role): void;
  /** A message of another tab of the same group, in the order in which that tab sent it. */
  message(message: unknown, from: string): void;
  /** A tab said goodbye, or was not heard of for too long. */
  gone(tab: string): void;
}

/** A tab among others. */
export interface Tabs {
  /** This tab's name among the others; new whenever a page loads. */
  readonly id: string;
  readonly role: Role;
  /** The leader's id, as far as it is known. */
  readonly leader: string | undefined;
  /** To all other tabs; anything that structured clone takes. */
  post(message: unknown): void;
  /** Steps down, says goodbye. */
  close(): void;
}
