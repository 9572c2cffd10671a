//! What each connection's socket carries, counted where it is read and written.
//!
//! Above the socket only whole messages are seen, and a message can be tens of megabytes: whether a peer
//! is alive, takes what it is sent and gets on with what it sends shows in bytes alone. They are counted
//! by the socket in [`listener`](crate::listener) and judged by
//! [`connection::patience`](crate::connection::patience).
//!
//! The messages that are still arriving, or have arrived and were not acted on, are all that a peer can
//! make the server hold without getting past a decoder; so their sum is bounded here.
//!
//! Where the server speaks TLS there are two kinds of bytes. What *arrives* and what is *written* is counted on TCP,
//! encrypted: whether a peer lives and takes what it is sent shows there, and a record of 16 KiB that comes slowly shows
//! nowhere else until it is whole. What is *read* is counted decrypted, since it is held against what messages are made
//! of: if the 22 bytes around each record were in it, a tab that only answers pings would look like one that has begun a
//! message and does not go on. What TLS itself holds of a peer's bytes is a record or a handshake message, some tens of
//! kilobytes for each connection, which is bounded by the number of these.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// The largest messages, so many of them, are what all connections together may have in flight.
pub const LARGEST_MESSAGES_IN_FLIGHT_PER_SERVER: u64 = 16;

/// One caller's connections together may have so much of that: one part in this many.
const CALLERS: u64 = 2;

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
    arrived: AtomicU64,
    read: AtomicU64,
    /// Of those read, the ones that are acted on. The rest is in flight.
    settled: AtomicU64,
    all: Arc<InFlight>,
    /// Those of all connections of whoever is there, once that is known.
    caller: OnceLock<Arc<AtomicU64>>,
}

impl Traffic {
    /// Of a new connection.
    pub fn new(all: Arc<InFlight>) -> Self {
        Self(Arc::new(Counters {
            written: AtomicU64::new(0),
            arrived: AtomicU64::new(0),
            read: AtomicU64::new(0),
            settled: AtomicU64::new(0),
            all,
            caller: OnceLock::new(),
        }))
    }

    /// It is known whose connection this is: what is in flight on it counts with what else they have there. Once, and by
    /// the connection's own task.
    pub fn belongs_to(&self, caller: &Arc<AtomicU64>) {
        if self.0.caller.set(Arc::clone(caller)).is_ok() {
            let own = self.read() - self.0.settled.load(Ordering::Relaxed);
            caller.fetch_add(own, Ordering::Relaxed);
        }
    }

    /// Bytes written to TCP. As the kernel holds few of them, they grow only if the peer takes
    /// them.
    pub fn written(&self) -> u64 {
        self.0.written.load(Ordering::Relaxed)
    }

    /// Bytes that came over TCP, whatever they are for.
    pub fn arrived(&self) -> u64 {
        self.0.arrived.load(Ordering::Relaxed)
    }

    /// Bytes of requests and messages that were read.
    pub fn read(&self) -> u64 {
        self.0.read.load(Ordering::Relaxed)
    }

    /// The first `read` bytes are acted on. For the connection's reader alone, which is also the only one
    /// to read.
    pub fn settle(&self, read: u64) {
        let before = self.0.settled.swap(read, Ordering::Relaxed);
        self.0.all.bytes.fetch_sub(read - before, Ordering::Relaxed);
        if let Some(caller) = self.0.caller.get() {
            caller.fetch_sub(read - before, Ordering::Relaxed);
        }
    }

    /// Counts bytes that were written.
    pub(crate) fn add_written(&self, bytes: usize) {
        self.0.written.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Counts bytes that came.
    pub(crate) fn add_arrived(&self, bytes: usize) {
        self.0.arrived.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Counts bytes that were read. An error ends the connection.
    pub(crate) fn add_read(&self, bytes: usize) -> io::Result<()> {
        let bytes = bytes as u64;
        let read = self.0.read.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let all = self.0.all.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let own = read - self.0.settled.load(Ordering::Relaxed);
        let caller = self.0.caller.get();
        let callers = caller.map_or(0, |caller| {
            caller.fetch_add(bytes, Ordering::Relaxed) + bytes
        });
        let most = self.0.all.most;
        if (all > most || callers > most / CALLERS) && own > SMALL_BYTES_PER_CONNECTION {
            return Err(io::Error::other(TooMuchInFlight));
        }
        Ok(())
    }
}

impl Drop for Counters {
    fn drop(&mut self) {
        let left = *self.read.get_mut() - *self.settled.get_mut();
        self.all.bytes.fetch_sub(left, Ordering::Relaxed);
        if let Some(caller) = self.caller.get() {
            caller.fetch_sub(left, Ordering::Relaxed);
        }
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
    fn one_caller_has_half_of_it_on_however_many_connections() {
        let all = InFlight::new(LARGEST);
        let greedy = Arc::new(AtomicU64::new(0));
        let of = |caller: &Arc<AtomicU64>| {
            let traffic = Traffic::new(Arc::clone(&all));
            // Its first bytes come before it is known whose they are.
            traffic.add_read(10).expect("is little");
            traffic.belongs_to(caller);
            traffic
        };
        let mut large = Vec::new();
        for _ in 0..LARGEST_MESSAGES_IN_FLIGHT_PER_SERVER / CALLERS {
            let traffic = of(&greedy);
            assert!(traffic.add_read(LARGEST - 10).is_ok());
            large.push(traffic);
        }
        assert!(of(&greedy).add_read(LARGEST).is_err());
        // Keystrokes go on, and so do others.
        assert!(of(&greedy).add_read(1000).is_ok());
        assert!(of(&Arc::default()).add_read(LARGEST).is_ok());
        let one = large.pop().expect("some");
        one.settle(one.read());
        assert!(of(&greedy).add_read(LARGEST - 20).is_ok());
        drop((one, large));
        assert_eq!(greedy.load(Ordering::Relaxed), 0);
        assert_eq!(all.bytes(), 0);
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
