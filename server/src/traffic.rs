//! What each connection's socket carries, counted where it is read and written.
//!
//! Above the socket only whole messages are seen, and a message can be tens of megabytes: whether a peer
//! is alive, takes what it is sent and gets on with what it sends shows in bytes alone. They are counted
//! by the socket in [`listener`](crate::listener) and judged by
//! [`connection::patience`](crate::connection::patience).
//!
//! The messages that are still arriving, or have arrived and were not acted on, are all that a peer can
//! make the server hold without getting past a decoder; so their sum is bounded here.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The largest messages, so many of them, are what all connections together may have in flight.
pub const LARGEST_MESSAGES_IN_FLIGHT_PER_SERVER: u64 = 16;

/// A connection with no more than this in flight is never cut for what others have: keystrokes and the
/// like go on.
const SMALL_BYTES_PER_CONNECTION: u64 = 64 << 10;

/// Bytes of messages that were read and not acted on, of all connections together.
#[derive(Debug)]
pub struct InFlight {
    bytes: AtomicU64,
    most: u64,
}

impl InFlight {
    /// For a server whose largest message has so many bytes.
    pub fn new(largest_message: usize) -> Arc<Self> {
        Arc::new(Self {
            bytes: AtomicU64::new(0),
            most: LARGEST_MESSAGES_IN_FLIGHT_PER_SERVER.saturating_mul(largest_message as u64),
        })
    }

    /// How many there are.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// All connections together have too much in flight, and this one has part in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too much is arriving at once")]
pub struct TooMuchInFlight;

/// One connection's bytes. Clones count the same ones.
#[derive(Debug, Clone)]
pub struct Traffic(Arc<Counters>);

#[derive(Debug)]
struct Counters {
    written: AtomicU64,
    read: AtomicU64,
    /// Of those read, the ones that are acted on. The rest is in flight.
    settled: AtomicU64,
    all: Arc<InFlight>,
}

impl Traffic {
    /// Of a new connection.
    pub fn new(all: Arc<InFlight>) -> Self {
        Self(Arc::new(Counters {
            written: AtomicU64::new(0),
            read: AtomicU64::new(0),
            settled: AtomicU64::new(0),
            all,
        }))
    }

    /// Bytes written to the socket. As the kernel holds few of them, they grow only if the peer takes
    /// them.
    pub fn written(&self) -> u64 {
        self.0.written.load(Ordering::Relaxed)
    }

    /// Bytes read from the socket.
    pub fn read(&self) -> u64 {
        self.0.read.load(Ordering::Relaxed)
    }

    /// The first `read` bytes are acted on. For the connection's reader alone, which is also the only one
    /// to read.
    pub fn settle(&self, read: u64) {
        let before = self.0.settled.swap(read, Ordering::Relaxed);
        self.0.all.bytes.fetch_sub(read - before, Ordering::Relaxed);
    }

    /// Counts bytes that were written.
    pub(crate) fn add_written(&self, bytes: usize) {
        self.0.written.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Counts bytes that were read. An error ends the connection.
    pub(crate) fn add_read(&self, bytes: usize) -> io::Result<()> {
        let bytes = bytes as u64;
        let read = self.0.read.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let all = self.0.all.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let own = read - self.0.settled.load(Ordering::Relaxed);
        if all > self.0.all.most && own > SMALL_BYTES_PER_CONNECTION {
            return Err(io::Error::other(TooMuchInFlight));
        }
        Ok(())
    }
}

impl Drop for Counters {
    fn drop(&mut self) {
        let left = *self.read.get_mut() - *self.settled.get_mut();
        self.all.bytes.fetch_sub(left, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGEST: usize = 1 << 20;

    #[test]
    fn all_together_may_have_so_much_in_flight_and_small_ones_always_a_little() {
        let all = InFlight::new(LARGEST);
        let connection = || Traffic::new(Arc::clone(&all));
        let large: Vec<_> = (0..LARGEST_MESSAGES_IN_FLIGHT_PER_SERVER)
            .map(|_| connection())
            .collect();
        for traffic in &large {
            assert!(traffic.add_read(LARGEST).is_ok());
        }
        assert!(connection().add_read(LARGEST).is_err());
        assert!(connection().add_read(1000).is_ok());
        assert_eq!(
            all.bytes(),
            LARGEST as u64 * LARGEST_MESSAGES_IN_FLIGHT_PER_SERVER
        );
        let first = large.first().expect("some");
        let error = first.add_read(1).expect_err("one too many");
        let inner = error.get_ref().expect("says why");
        assert!(inner.is::<TooMuchInFlight>());
    }

    #[test]
    fn what_was_acted_on_and_who_has_gone_do_not_count() {
        let all = InFlight::new(LARGEST);
        let traffic = Traffic::new(Arc::clone(&all));
        traffic.add_read(700).expect("is little");
        traffic.settle(500);
        assert_eq!(all.bytes(), 200);
        drop(traffic.clone());
        assert_eq!(all.bytes(), 200);
        drop(traffic);
        assert_eq!(all.bytes(), 0);
    }
}
