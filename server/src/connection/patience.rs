//! How long a peer is waited for: to take what is written to it, to answer a ping, and to go on with
//! a message that it has begun.
//!
//! All are deadlines of progress. A document can be one frame of 30 MB, which a slow link takes
//! minutes for, either way; the ping that is written behind it is answered after that, and so is one
//! that comes while the peer's own frame is on its way. And a peer that has answered is not to blame
//! while this side is too busy to read the answer.

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

/// What a peer must bring of a message that it has begun: a quarter of what the slowest takes, since
/// uplinks are slower. What has arrived of a message is held until it is whole.
pub const SLOWEST_MESSAGE_BYTES_PER_SECOND: u32 = 4 << 10;

/// Bytes of pongs that a connection may be owed. tungstenite answers each ping into a buffer without
/// bounds, so a peer that pings and takes nothing would fill the memory.
pub const OWED_PONG_BYTES_PER_CONNECTION: u64 = 64 << 10;

/// Bytes of a frame's header, from this side and from a client's, which has a mask, when its payload has
/// at most 125, as all control frames have.
const SHORT_HEADER_BYTES: u64 = 2;
const MASKED_SHORT_HEADER_BYTES: u64 = 6;

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
    /// Bytes that had come from it before. Any more, of whatever, show that it is alive.
    pub arrived: u64,
}

/// Resolves when the time to answer a ping is over, for a reader that has been waiting at its
/// socket since `waiting`. Earlier pings don't count: their answers may lie unread behind what the
/// reader was busy with. The caller must look at its socket first when both are ready, since after a
/// pause of the whole process an answer and its deadline come together.
pub async fn unanswered(pings: &mut watch::Receiver<Option<Ping>>, waiting: Instant) -> Ping {
    let later = |ping: &Option<Ping>| ping.is_some_and(|ping| ping.at >= waiting);
    let ping = pings.wait_for(later).await.ok().and_then(|ping| *ping);
    match ping {
        Some(ping) => {
            sleep_until(ping.at + ping.patience).await;
            ping
        }
        // The writer has ended, and the connection with it.
        None => std::future::pending().await,
    }
}

/// The message that is arriving, if there is one: how much of it has come, and when it last got on.
#[derive(Debug)]
pub struct Arriving {
    /// Bytes read that are no part of it.
    others: u64,
    /// Its bytes when it was last found to have got on, and when that was.
    before: u64,
    since: Instant,
    /// The time in which it must get on.
    stall: Duration,
}

impl Arriving {
    /// Nothing yet, after `read` bytes. A message must bring its due in each `stall`.
    pub fn new(read: u64, stall: Duration) -> Self {
        Self {
            others: read,
            before: 0,
            since: Instant::now(),
            stall,
        }
    }

    /// A message is whole. What was read of the next one by now, at most a read buffer, is not counted.
    pub fn whole(&mut self, read: u64) {
        self.others = read;
        self.before = 0;
    }

    /// A control frame with so much in it came, perhaps in the middle of a message: no part of that.
    pub fn control(&mut self, payload: usize) {
        self.others += MASKED_SHORT_HEADER_BYTES + payload as u64;
    }

    /// The reader looks at its socket again. Until now it was not the peer who was waited for.
    pub fn resume(&mut self, now: Instant) {
        self.since = now;
    }

    /// How often to [`look`](Self::look).
    pub fn pace(&self) -> Duration {
        self.stall / LOOKS_PER_TIMEOUT
    }

    /// Whether a message that has begun gets on, after `read` bytes in all.
    pub fn look(&mut self, read: u64, now: Instant) -> Result<(), Stalled> {
        let bytes = read.saturating_sub(self.others);
        let due = u64::from(SLOWEST_MESSAGE_BYTES_PER_SECOND).saturating_mul(self.stall.as_secs());
        if bytes == 0 || bytes.saturating_sub(self.before) >= due {
            self.before = bytes;
            self.since = now;
        } else if now - self.since >= self.stall {
            return Err(Stalled);
        }
        Ok(())
    }
}

/// Pongs that are owed to a peer and may wait for it to take something.
#[derive(Debug, Default)]
pub struct Pongs {
    owed: u64,
    written: u64,
}

/// The peer asks for more pongs than it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flooded;

impl Pongs {
    /// A ping came, with so much in it, when `written` bytes had been written to the peer in all.
    ///
    /// What was written since the last ping is taken for pongs, whatever it was. So this can count too
    /// few, by what else was in the buffer: one frame, behind which they wait.
    pub fn owe(&mut self, payload: usize, written: u64) -> Result<(), Flooded> {
        self.owed = self.owed.saturating_sub(written - self.written);
        self.written = written;
        self.owed += SHORT_HEADER_BYTES + payload as u64;
        if self.owed > OWED_PONG_BYTES_PER_CONNECTION {
            return Err(Flooded);
        }
        Ok(())
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
        let hour = Duration::from_hours(1);
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
        let arrived = 0;
        let ping = |at| {
            Some(Ping {
                at,
                patience,
                arrived,
            })
        };
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

    #[test]
    fn a_message_must_get_on_once_it_has_begun() {
        let stall = Duration::from_secs(10);
        let due = 10 * u64::from(SLOWEST_MESSAGE_BYTES_PER_SECOND);
        let mut arriving = Arriving::new(1_000, stall);
        let start = arriving.since;
        let at = |seconds| start + Duration::from_secs(seconds);
        // There is none, however long.
        assert_eq!(arriving.look(1_000, at(100)), Ok(()));
        // It brings its due, late each time.
        assert_eq!(arriving.look(1_001, at(101)), Ok(()));
        assert_eq!(arriving.look(1_000 + due, at(109)), Ok(()));
        assert_eq!(arriving.look(1_000 + 2 * due, at(118)), Ok(()));
        // And then a little less.
        assert_eq!(arriving.look(1_000 + 3 * due - 1, at(127)), Ok(()));
        assert_eq!(arriving.look(1_000 + 3 * due - 1, at(128)), Err(Stalled));
        // The time in which nobody looked is not its fault, and no message is none.
        arriving.resume(at(200));
        assert_eq!(arriving.look(1_000 + 3 * due - 1, at(209)), Ok(()));
        arriving.whole(1_000 + 3 * due);
        assert_eq!(arriving.look(1_000 + 3 * due, at(300)), Ok(()));
    }

    #[test]
    fn control_frames_neither_begin_a_message_nor_carry_it_on() {
        let stall = Duration::from_secs(10);
        let mut arriving = Arriving::new(0, stall);
        let start = arriving.since;
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut read = 0;
        for n in 0..1_000 {
            read += 6 + 125;
            arriving.control(125);
            assert_eq!(arriving.look(read, at(n)), Ok(()));
        }
        read += 1;
        let ends = (1_000..1_020).find(|n| {
            read += 10_000 + 6;
            arriving.control(10_000);
            arriving.look(read, at(*n)).is_err()
        });
        assert_eq!(ends, Some(1_009));
    }

    #[test]
    fn pongs_are_owed_until_something_was_taken() {
        let mut pongs = Pongs::default();
        let each = 2 + 125;
        let most = OWED_PONG_BYTES_PER_CONNECTION / each;
        for _ in 0..most {
            assert_eq!(pongs.owe(125, 0), Ok(()));
        }
        assert_eq!(pongs.owe(125, 0), Err(Flooded));
        // As many again as were taken, the last one included.
        for _ in 0..9 {
            assert_eq!(pongs.owe(125, 10 * each), Ok(()));
        }
        assert_eq!(pongs.owe(125, 10 * each), Err(Flooded));
        // All at once, and each as it comes, for ever.
        for n in 0..10 * most {
            assert_eq!(pongs.owe(125, (2 * most + n) * each), Ok(()));
        }
    }
}
