/**
 * The tabs of one browser as one client: one of them leads, and holds the connection to the server.
 * {@link joinTabs} (`group.ts`) is the real one, {@link stayAlone} (`alone.ts`) the stated fallback.
 */

/** What a tab is to the others. */
export type Role =
  /** Holds the connection. */
  | "leader"
  /** Reaches the server through the leader. */
  | "follower"
  /** Can't use the web APIs for this, or was told not to: connects by itself, and hears of no others. */
  | "alone";

/** Why a tab is alone; the page can be told. */
export type AloneReason =
  /** The page wanted it so. */
  | "asked"
  /** No Web Locks or no BroadcastChannel here: an old browser, or not a secure context. */
  | "unsupported"
  /**
   * The Web Locks API refused (an opaque origin, storage switched off), something broke this tab's own lock, or the
   * lead was taken from this tab again and again.
   */
  | "locks"
  /** The channel could not be opened or used. */
  | "channel"
  /** A message arrived that could not be read (`messageerror`), so what others say can't be relied upon. */
  | "unreadable"
  /** Somebody claimed a term so high that none could follow. */
  | "term";

/**
 * What happens to a tab. None is called before `joinTabs` returned, nor after `close`. They may throw: that is
 * reported (`reportError`), and nothing else comes of it.
 */
export interface TabsEvents {
  /** Called whenever it changes; the first time soon after the start. On `"follower"` after `"leader"`, stop
   * what only a leader may do before returning: another one may lead already. */
  role(role: Role): void;
  /** Another tab leads, or this one does (just before `role` says so); `undefined`: none is known just now. What
   * the leader before had not answered is to be asked again. */
  leader(tab: string | undefined): void;
  /** A message of another tab of the same group: once, and in the order in which that tab sent it. */
  message(message: unknown, from: string): void;
  /**
   * A tab closed, crashed, or went to the back/forward cache. Messages that were on their way may come after
   * that, and it is then called again.
   */
  gone(tab: string): void;
  /**
   * Messages were lost: those of the others while this tab was in the back/forward cache, or some of its own, or of
   * another tab's, that were more than a tab keeps before it has joined. Whoever lacks something is to ask for it.
   */
  missed(): void;
}

/** A tab among others. */
export interface Tabs {
  /** This tab's name among the others; new whenever a page loads. */
  readonly id: string;
  /** Before the first `role` event: `"follower"`. */
  readonly role: Role;
  /** Why `role` is `"alone"`. */
  readonly reason: AloneReason | undefined;
  /** The leader's id, as far as it is known. */
  readonly leader: string | undefined;
  /**
   * The leader's term, 0 when none was heard of: it grows whenever another tab begins to lead, so that what an
   * earlier leader did can be told from what the present one does.
   */
  readonly term: number;
  /**
   * To all other tabs, or to one; anything that structured clone takes (else throws `DataCloneError`). Tabs that
   * open later don't get it; it is lost when alone or closed, and with a tab that is gone. Before this tab has
   * joined, messages wait; of too many all are lost, and everybody is told that (`missed`).
   */
  post(message: unknown, to?: string): void;
  /** Steps down, says goodbye; no event comes after that. Again: does nothing. */
  close(): void;
}
