/**
 * When a follower asks whether the leader lives, and when it gives it up: a pure state machine, the owner keeps
 * its one timer.
 *
 * The leader's timers play no part: hidden tabs' timers run once a second or once a minute, while messages still
 * arrive. A leader answers a ping from its message handler, and whoever needs it asks: a tab that is visible, or
 * that sent something. What counts is the number of pings without an answer, not the time: after a follower was
 * stopped itself its timer may run before the answers that wait in its queue, but those are read before its next.
 */

/** A leader that was heard of within this many milliseconds is not asked. */
export const QUIET_MS = 2_000;
/** Milliseconds that the leader has to answer a ping, before the next. */
export const ANSWER_MS = 1_000;
/** Pings that the leader may leave unanswered before it loses the lock. */
export const MAX_UNANSWERED = 3;
/** Up to so many milliseconds are added to the last wait, so that of several followers one is the first. */
export const JITTER_MS = 1_000;

/** What a follower has to do. */
export interface Step {
  readonly action: "none" | "ping" | "steal";
  /** Milliseconds until {@link Liveness.timer} is to be called, in place of the timer before; `undefined`: never. */
  readonly timerMs: number | undefined;
}

/** What a follower knows of the leader's life. Times are Unix milliseconds; steps back of the clock do no harm. */
export class Liveness {
  #heard = 0;
  #unanswered = 0;
  /** Something was sent since the leader was last heard of. */
  #sent = false;

  /** Everything begins anew: this tab began to follow, runs again, or became visible or hidden. */
  start(visible: boolean, jitter: number): Step {
    this.#unanswered = 0;
    return visible || this.#sent ? this.#ping(jitter) : IDLE;
  }

  /** The leader was heard of. The step only when the timer is to be set anew. */
  heard(now: number, visible: boolean): Step | undefined {
    this.#heard = now;
    this.#sent = false;
    if (this.#unanswered === 0) return undefined;
    this.#unanswered = 0;
    return visible ? { action: "none", timerMs: QUIET_MS } : IDLE;
  }

  /** Something was sent that the leader should get. The step only when the timer is to be set anew. */
  sent(visible: boolean): Step | undefined {
    const waits = this.#sent || visible || this.#unanswered > 0;
    this.#sent = true;
    return waits ? undefined : { action: "none", timerMs: ANSWER_MS };
  }

  /** The timer ran. `jitter` in [0, 1). */
  timer(now: number, visible: boolean, jitter: number): Step {
    if (this.#unanswered === 0) {
      if (!visible && !this.#sent) return IDLE;
      const ago = now - this.#heard;
      if (visible && !this.#sent && ago >= 0 && ago < QUIET_MS) return { action: "none", timerMs: QUIET_MS - ago };
      return this.#ping(jitter);
    }
    if (this.#unanswered < MAX_UNANSWERED) return this.#ping(jitter);
    // Should the lock not be granted, which no browser does, it begins anew.
    this.#unanswered = 0;
    this.#heard = now;
    return { action: "steal", timerMs: QUIET_MS };
  }

  #ping(jitter: number): Step {
    this.#unanswered += 1;
    const last = this.#unanswered === MAX_UNANSWERED;
    return { action: "ping", timerMs: ANSWER_MS + (last ? Math.floor(jitter * JITTER_MS) : 0) };
  }
}

const IDLE: Step = { action: "none", timerMs: undefined };
