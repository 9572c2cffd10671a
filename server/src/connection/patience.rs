//! How long a peer is waited for: to take what is written to it, and to answer a ping.
//!
//! Both are deadlines of progress. A document can be one frame of 30 MB, which a slow link takes
//! minutes for, and the ping that is written behind it is answered after that. And a peer that has
//! answered is not to blame while this side is too busy to read the answer.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

/// Once a connection is to end, a peer that takes nothing for this long is not told why. Its socket
/// and what is queued for it are held no longer.
pub const LAST_WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// A peer may be this slow to take what was written to it, before a ping behind that counts as
/// unanswered: about what an old mobile link carries.
pub const SLOWEST_PEER_BYTES_PER_SECOND: u32 = 16 << 10;

/// How often in the time that a peer has it is looked whether it took something.
const LOOKS_PER_TIMEOUT: u32 = 8;

/// The peer took nothing in the time it had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stalled;

/// Waits for `write` as long as the peer takes something at least every `stall`, by what `taken` says.
/// From when `closing` is cancelled it must do so every [`LAST_WRITE_TIMEOUT`].
pub async fn while_taken<T>(
    write: impl Future<Output = T>,
    taken: impl Fn() -> u64,
    stall: Duration,
    closing: &CancellationToken,
) -> Result<T, Stalled> {
    let mut write = pin!(write);
    let mut patience = stall;
    let mut is_closing = false;
    let mut before = taken();
    let mut since = Instant::now();
    loop {
        tokio::select! {
            biased;
            written = &mut write => return Ok(written),
            () = closing.cancelled(), if !is_closing => {
                is_closing = true;
                patience = stall.min(LAST_WRITE_TIMEOUT);
                since = Instant::now();
            }
            () = sleep(patience / LOOKS_PER_TIMEOUT) => {}
        }
        let now = taken();
        if now != before {
            before = now;
            since = Instant::now();
        } else if since.elapsed() >= patience {
            return Err(Stalled);
        }
    }
}

/// Until when a peer may be busy taking what was written to it. What is written is in buffers along
/// the way, where nobody sees it move; so it is reckoned as if the peer were the slowest there may be.
#[derive(Debug)]
pub struct Backlog {
    taken: u64,
    until: Instant,
    most: Duration,
}

impl Backlog {
    /// None yet; and never more than `most`, after which any peer that takes nothing is gone.
    pub fn new(most: Duration) -> Self {
        Self {
            taken: 0,
            until: Instant::now(),
            most,
        }
    }

    /// How long from `now` a peer may need to take what was written, `taken` bytes in all so far.
    pub fn left(&mut self, taken: u64, now: Instant) -> Duration {
        let written = u32::try_from(taken - self.taken).unwrap_or(u32::MAX);
        self.taken = taken;
        let needed = Duration::from_secs(1) * written / SLOWEST_PEER_BYTES_PER_SECOND;
        self.until = (self.until.max(now) + needed).min(now + self.most);
        self.until - now
    }
}

/// A ping that was written.
#[derive(Debug, Clone, Copy)]
pub struct Ping {
    /// When.
    pub at: Instant,
    /// The time that the peer has to answer.
    pub patience: Duration,
}

/// Resolves when the peer has not answered a ping in time, for a reader that has been waiting at its
/// socket since `waiting`. Earlier pings don't count: their answers may lie unread behind what the
/// reader was busy with. The caller must look at its socket first when both are ready, since after a
/// pause of the whole process an answer and its deadline come together.
pub async fn unanswered(pings: &mut watch::Receiver<Option<Ping>>, waiting: Instant) {
    let later = |ping: &Option<Ping>| ping.is_some_and(|ping| ping.at >= waiting);
    let ping = pings.wait_for(later).await.ok().and_then(|ping| *ping);
    match ping {
        Some(ping) => sleep_until(ping.at + ping.patience).await,
        // The writer has ended, and the connection with it.
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use tokio::time::timeout;

    use super::*;

    const STALL: Duration = Duration::from_secs(1);

    #[tokio::test]
    async fn a_write_may_take_long_while_the_peer_takes_something() {
        let taken = AtomicU64::new(0);
        let write = async {
            for _ in 0..25 {
                sleep(STALL / 10).await;
                taken.fetch_add(1, Ordering::Relaxed);
            }
        };
        let closing = CancellationToken::new();
        let written = while_taken(write, || taken.load(Ordering::Relaxed), STALL, &closing);
        assert_eq!(written.await, Ok(()));
    }

    #[tokio::test]
    async fn a_peer_that_takes_nothing_is_given_up_in_time() {
        let start = Instant::now();
        let closing = CancellationToken::new();
        let written = while_taken(std::future::pending::<()>(), || 7, STALL, &closing);
        assert_eq!(written.await, Err(Stalled));
        let took = start.elapsed();
        assert!(took >= STALL && took < 3 * STALL, "{took:?}");
    }

    #[tokio::test]
    async fn less_is_waited_for_once_the_connection_is_to_end() {
        let hour = Duration::from_secs(3600);
        let closing = CancellationToken::new();
        let write = std::future::pending::<()>();
        let mut written = pin!(while_taken(write, || 7, hour, &closing));
        let waiting = timeout(Duration::from_millis(100), &mut written).await;
        assert!(waiting.is_err(), "{waiting:?}");
        closing.cancel();
        let start = Instant::now();
        assert_eq!(written.await, Err(Stalled));
        let took = start.elapsed();
        assert!(
            took >= LAST_WRITE_TIMEOUT && took < 3 * LAST_WRITE_TIMEOUT,
            "{took:?}"
        );
    }

    #[test]
    fn a_backlog_is_what_the_slowest_peer_may_still_be_taking() {
        let second = Duration::from_secs(1);
        let rate = u64::from(SLOWEST_PEER_BYTES_PER_SECOND);
        let mut backlog = Backlog::new(60 * second);
        let start = Instant::now();
        assert_eq!(backlog.left(0, start), Duration::ZERO);
        assert_eq!(backlog.left(10 * rate, start), 10 * second);
        assert_eq!(backlog.left(10 * rate, start + 4 * second), 6 * second);
        assert_eq!(backlog.left(12 * rate, start + 5 * second), 7 * second);
        let later = start + 100 * second;
        assert_eq!(backlog.left(13 * rate, later), second);
        assert_eq!(backlog.left(u64::MAX, later), 60 * second);
    }

    #[tokio::test]
    async fn only_a_ping_that_the_reader_was_waiting_for_counts() {
        let patience = Duration::from_millis(200);
        let ping = |at| Some(Ping { at, patience });
        let (sent, mut pings) = watch::channel(ping(Instant::now()));
        sleep(2 * patience).await;
        // The reader was busy when that ping's time ran out.
        let waiting = Instant::now();
        let mut missed = pin!(unanswered(&mut pings, waiting));
        assert!(timeout(2 * patience, &mut missed).await.is_err());
        let at = Instant::now();
        sent.send_replace(ping(at));
        missed.await;
        assert!(at.elapsed() >= patience);
    }
}
