/**
 * The tabs of one origin that share a name: Web Locks elect the leader, a BroadcastChannel carries messages.
 *
 * **Who leads.** Whoever holds the lock `<name>:lead`. All others wait for it, so a leader that closes or
 * crashes is followed by the next at once. A leader that is stopped still holds it: followers that need the
 * leader ask for a sign of life (`liveness.ts`) and at last steal the lock.
 *
 * **Terms.** A leader begins with a term that is higher than all it heard of and at least the Unix time in
 * milliseconds, says so (`lead`), and every envelope carries the highest term its sender knows. The claim with
 * the higher term counts, and of equal ones that of the greater id. A tab that leads and hears of a higher claim
 * gives the lock back, even one that nobody took; the next in the queue then begins a still higher term. So a
 * wrong or forged claim costs a change of leader, and never leaves two.
 *
 * **Two lock managers.** When site data are cleared, Chromium gives the tabs that are opened afterwards another lock
 * manager, and the channel they still share. Each side grants its own lock at once to whoever was robbed by the
 * other's word, for ever. So a tab that was robbed several times in a row, right after it began, stays alone.
 *
 * **A leader that runs again after it was robbed** has tasks waiting, in no certain order: messages, and the loss
 * of its lock. Both end its leadership first: each message is checked for its term before it is looked at
 * (`#receive`), and the loss is the rejection of its lock request (`#robbed`). Between the thaw and the first of
 * these, at most about as long as one message takes, it may believe to lead: a task of the page that is neither
 * can run in that time. Followers ignore its claims, and `Tabs.term` lets whoever is told something by two
 * leaders tell them apart. Where the browser announces that it stops the page (`freeze`, `pagehide`), leadership
 * is given up before. A tab that was stopped while its turn came does not lead before it asked the lock manager
 * once more (`#confirm`): were the lock stolen from it, that news would come first.
 *
 * **Who is there** is told by one lock per tab (`presence.ts`).
 *
 * Pages of one origin are not protected from each other: they can steal locks and forge envelopes. Rubbish does
 * no harm; a page that means harm can cause changes of leader.
 */

import { stayAlone } from "./alone.js";
import { Claim } from "./claim.js";
import { type Body, type Envelope, PROTOCOL_VERSION, readEnvelope } from "./envelope.js";
import { Liveness, type Step } from "./liveness.js";
import { type Channel, type PageEvent, type Platform, browserPlatform } from "./platform.js";
import { Presence } from "./presence.js";
import type { AloneReason, Role, Tabs, TabsEvents } from "./tabs.js";

/** Messages that a tab keeps while it waits for its own lock: milliseconds, or long where a lock manager is busy. */
export const MAX_OUTBOX = 1_024;
/** A tab that was robbed of the lead so often, each time after less than so many milliseconds, gives up on it. */
export const MAX_SHORT_LEADS = 5;
const SHORT_LEAD_MS = 5_000;

/**
 * Joins the tabs of this origin that use the same name, or stays alone where that can't be. Never throws and
 * never leaves a rejection unhandled. `platform`: the browser's, unless a test brings its own.
 */
export function joinTabs(name: string, events: TabsEvents, platform = browserPlatform()): Tabs {
  return platform === undefined ? stayAlone(events, "unsupported") : new Group(name, events, platform);
}

/** Where a tab is in its life. */
type Phase =
  /** Waits for its own lock; messages go to the outbox. */
  | "joining"
  | "present"
  /** Left for the back/forward cache. */
  | "away"
  /** Closed, or alone. */
  | "over";

class Group implements Tabs {
  readonly id: string;
  readonly #name: string;
  readonly #events: TabsEvents;
  readonly #platform: Platform;
  readonly #liveness = new Liveness();
  readonly #stopPageEvents: () => void;
  #phase: Phase = "joining";
  #frozen = false;
  #role: Role = "follower";
  #told: Role | undefined;
  #reason: AloneReason | undefined;
  #leader: string | undefined;
  #term = 0;
  /** When this tab began to lead, and how often in a row that was not for long. */
  #leadsSince = 0;
  #shortLeads = 0;
  /** The last wrong claim that this tab answered. */
  #refuted = "";
  #channel: Channel | undefined;
  #presence: Presence | undefined;
  /** This tab's place in the queue for the leader's lock, or that lock. */
  #seat: Claim | undefined;
  #outbox: { readonly message: unknown; readonly to: string | undefined }[] = [];
  /** There were too many for the outbox: none of them was sent. */
  #hasLost = false;
  #cancelTimer: (() => void) | undefined;

  constructor(name: string, events: TabsEvents, platform: Platform) {
    this.id = platform.newId();
    this.#name = name;
    this.#events = events;
    this.#platform = platform;
    this.#stopPageEvents = platform.onPage((event) => this.#page(event));
    // No event before `joinTabs` returned.
    queueMicrotask(() => this.#join());
  }

  get role(): Role {
    return this.#role;
  }

  get reason(): AloneReason | undefined {
    return this.#reason;
  }

  get leader(): string | undefined {
    return this.#leader;
  }

  get term(): number {
    return this.#term;
  }

  post(message: unknown, to?: string): void {
    if (to === this.id) return;
    if (this.#phase === "joining") {
      // Also of one that is forgotten the caller is told when it can't be sent.
      const copy = structuredClone(message);
      if (this.#outbox.length === MAX_OUTBOX) this.#hasLost = true;
      // Some without those before them would be no better than none.
      if (this.#hasLost) this.#outbox = [];
      else this.#outbox.push({ message: copy, to });
    } else if (this.#phase === "present") {
      this.#send({ type: "message", message }, to);
      if (this.#follows()) this.#do(this.#liveness.sent(this.#platform.visible()));
    }
  }

  close(): void {
    if (this.#phase === "over") return;
    this.#depart("over");
    this.#role = "follower";
    this.#stopPageEvents();
  }

  // Coming and going.

  #join(): void {
    if (this.#phase !== "joining") return;
    try {
      this.#channel = this.#platform.openChannel(
        this.#name,
        (data) => this.#receive(data),
        () => this.#fail("unreadable"),
      );
    } catch {
      this.#fail("channel");
      return;
    }
    this.#presence = new Presence(this.#platform.locks, this.#name, this.id, {
      present: () => this.#joined(),
      gone: (tab) => this.#gone(tab),
      failed: () => this.#fail("locks"),
    });
  }

  #joined(): void {
    this.#phase = "present";
    this.#send({ type: "hello" });
    const outbox = this.#outbox;
    this.#outbox = [];
    for (const { message, to } of outbox) this.#send({ type: "message", message }, to);
    if (this.#hasLost) {
      this.#hasLost = false;
      this.#send({ type: "lost" });
      this.#emit(() => this.#events.missed());
    }
    this.#stand();
  }

  /** Gives up all that this tab has in the group; the role is the caller's. */
  #depart(phase: "away" | "over"): void {
    const wasPresent = this.#phase === "present";
    this.#phase = phase;
    try {
      if (wasPresent) this.#channel?.post(this.#envelope({ type: "bye" }));
    } catch {
      // The others learn of it by the lock.
    }
    this.#do({ action: "none", timerMs: undefined });
    this.#outbox = [];
    this.#hasLost = false;
    this.#leader = undefined;
    this.#seat?.release();
    this.#presence?.leave();
    this.#channel?.close();
    this.#channel = undefined;
  }

  #fail(reason: AloneReason): void {
    if (this.#phase === "over") return;
    this.#reason = reason;
    this.#depart("over");
    this.#stopPageEvents();
    this.#become("alone");
  }

  #page(event: PageEvent): void {
    switch (event) {
      case "visibility":
        // A browser that shows a page runs it, whether it said so or not.
        if (this.#platform.visible()) this.#thaw();
        if (this.#follows()) this.#do(this.#liveness.start(this.#platform.visible(), this.#platform.random()));
        return;
      case "freeze":
        this.#frozen = true;
        this.#stepDown();
        this.#seat?.release();
        this.#do({ action: "none", timerMs: undefined });
        return;
      case "resume":
        this.#thaw();
        return;
      case "leave":
        if (this.#phase === "away") return;
        this.#stepDown();
        if (!this.#over()) this.#depart("away");
        return;
      case "return":
        this.#frozen = false;
        if (this.#phase !== "away") return;
        this.#phase = "joining";
        this.#emit(() => this.#events.missed());
        this.#join();
    }
  }

  #thaw(): void {
    if (!this.#frozen) return;
    this.#frozen = false;
    this.#stand();
  }

  // Leading and following.

  #stand(): void {
    if (this.#phase === "present" && !this.#frozen) this.#claimSeat("try");
  }

  #queue(): void {
    if (this.#phase !== "present" || this.#frozen) return;
    this.#claimSeat("wait");
    this.#do(this.#liveness.start(this.#platform.visible(), this.#platform.random()));
    if (!this.#over()) this.#become("follower");
  }

  #claimSeat(kind: "try" | "wait" | "steal"): void {
    this.#seat?.release();
    const seat = new Claim(this.#platform.locks, `${this.#name}:lead`, kind, {
      granted: () => this.#confirm(seat),
      refused: () => this.#queue(),
      lost: () => this.#robbed(),
      failed: () => this.#fail("locks"),
    });
    this.#seat = seat;
  }

  /** Leads, unless the lock was lost before this tab got to know that it had it. */
  #confirm(seat: Claim): void {
    const check = new Claim(this.#platform.locks, `${this.#name}:check:${this.id}`, "share", {
      granted: () => {
        check.release();
        if (this.#seat === seat && !seat.over) this.#lead();
      },
      lost: () => {},
      failed: () => this.#fail("locks"),
    });
  }

  #lead(): void {
    const term = Math.max(this.#term + 1, this.#platform.now());
    if (!Number.isSafeInteger(term)) {
      this.#fail("term");
      return;
    }
    this.#term = term;
    this.#leadsSince = this.#platform.now();
    this.#do({ action: "none", timerMs: undefined });
    this.#send({ type: "lead" });
    this.#follow(this.id);
    if (!this.#over()) this.#become("leader");
  }

  /** From leader to follower. The page is told before the lock is free. */
  #stepDown(): void {
    if (this.#role !== "leader") return;
    this.#become("follower");
    this.#seat?.release();
    this.#follow(undefined);
  }

  /** Another tab leads: by the lock, or by its word. */
  #robbed(): void {
    if (this.#role === "leader") {
      this.#shortLeads = this.#platform.now() - this.#leadsSince < SHORT_LEAD_MS ? this.#shortLeads + 1 : 0;
    }
    this.#stepDown();
    if (this.#shortLeads < MAX_SHORT_LEADS) this.#queue();
    else this.#fail("locks");
  }

  #follows(): boolean {
    return this.#phase === "present" && this.#role === "follower" && !this.#frozen;
  }

  #do(step: Step | undefined): void {
    if (step === undefined) return;
    this.#cancelTimer?.();
    this.#cancelTimer =
      step.timerMs === undefined
        ? undefined
        : this.#platform.setTimer(step.timerMs, () => {
            this.#cancelTimer = undefined;
            const platform = this.#platform;
            if (!this.#follows()) return;
            this.#do(this.#liveness.timer(platform.now(), platform.visible(), platform.random()));
          });
    if (step.action === "ping") this.#send({ type: "ping" });
    if (step.action === "steal") this.#claimSeat("steal");
  }

  // Messages.

  #send(body: Body, to?: string): void {
    try {
      this.#channel?.post(this.#envelope(body, to));
    } catch (error) {
      if (body.type === "message" && error instanceof Error && error.name === "DataCloneError") throw error;
      this.#fail("channel");
    }
  }

  #envelope(body: Body, to?: string): Envelope {
    return { v: PROTOCOL_VERSION, from: this.id, ...(to === undefined ? {} : { to }), term: this.#term, body };
  }

  #receive(data: unknown): void {
    const envelope = readEnvelope(data);
    if (envelope === undefined || envelope.from === this.id || this.#over()) return;
    const { from, to, term, body } = envelope;
    // Before all else: this tab may have been stopped and robbed.
    this.#compareTerms(term, body.type === "lead" ? from : undefined);
    if (this.#over()) return;
    // Only its claim is a sign of life: a leader that was frozen and follows now still sends other messages.
    if (body.type === "lead" && from === this.#leader && this.#follows()) {
      this.#do(this.#liveness.heard(this.#platform.now(), this.#platform.visible()));
    }
    if (body.type !== "bye") this.#presence?.watch(from);
    if (to !== undefined && to !== this.id) return;
    switch (body.type) {
      case "hello":
        if (this.#role === "leader") this.#send({ type: "lead" });
        else if (this.#phase === "present") this.#send({ type: "here" }, from);
        return;
      case "ping":
        if (this.#role === "leader") this.#send({ type: "lead" });
        return;
      case "lost":
        this.#emit(() => this.#events.missed());
        return;
      case "bye":
        if (this.#presence?.unwatch(from)) this.#gone(from);
        return;
      case "message":
        this.#emit(() => this.#events.message(body.message, from));
        return;
      case "here":
      case "lead":
    }
  }

  /** Takes note of a term, and of the tab that claims to lead in it. */
  #compareTerms(term: number, claimant: string | undefined): void {
    const greater = claimant !== undefined && (this.#leader === undefined || claimant > this.#leader);
    if (term > this.#term || (term === this.#term && greater)) {
      this.#term = term;
      if (this.#role === "leader") this.#robbed();
      this.#follow(claimant);
    } else if (claimant !== undefined && this.#role === "leader" && this.#refuted !== `${term} ${claimant}`) {
      // Somebody who was stopped. Once: two who answer each other's backlog would not come to an end.
      this.#refuted = `${term} ${claimant}`;
      this.#send({ type: "lead" });
    }
  }

  #gone(tab: string): void {
    this.#emit(() => this.#events.gone(tab));
    if (this.#leader === tab) this.#follow(undefined);
  }

  /** A method, so that the compiler does not take the answer of before a callback for the one after it. */
  #over(): boolean {
    return this.#phase === "over";
  }

  #become(role: Role): void {
    this.#role = role;
    if (this.#told === role) return;
    this.#told = role;
    this.#emit(() => this.#events.role(role));
  }

  #follow(leader: string | undefined): void {
    if (this.#leader === leader || this.#over()) return;
    this.#leader = leader;
    this.#emit(() => this.#events.leader(leader));
  }

  #emit(call: () => void): void {
    try {
      call();
    } catch (error) {
      this.#platform.report(error);
    }
  }
}
