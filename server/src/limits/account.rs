//! What is counted of one caller, and of one address.

use std::fmt;
use std::num::NonZeroU32;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::bucket::{Bucket, Rate};
use super::{Limit, Limited, Settings};
use crate::metrics::Metrics;
use crate::permit::{Permit, turn};

/// Bytes are counted by so many, which is less than any message has.
pub const BYTES_PER_CELL: u64 = 64;

/// How many a caller may have of the permits that all share, at a time. Who wants more waits for their own, not before
/// others: behind one caller's hundred uploads somebody else's is third.
const SHARE: usize = 2;
/// The same, of those of which there are two.
const SMALL_SHARE: usize = 1;

/// Who waits for so long for a turn of their own has more going on than somebody who reloads a few pages.
const LONG_WAIT: Duration = Duration::from_secs(1);

/// TCP connections of an address for which there is a slot when others get none: as many as a few tabs have, and a proxy's
/// look whether the server is well.
const FEW_CONNECTIONS_PER_ADDRESS: usize = 16;

/// Turns at what only so many may do at a time, of which one caller has a share.
#[derive(Debug)]
pub struct Share(Arc<Semaphore>);

/// A turn: everybody's, and the caller's own.
#[derive(Debug)]
pub struct Turn {
    _all: Permit,
    _own: Permit,
}

impl Share {
    /// So many.
    pub fn of(permits: usize) -> Self {
        Self(Arc::new(Semaphore::new(permits)))
    }

    /// Waits for a turn of one's own, at what nobody else has to wait for.
    pub async fn own_turn(&self) -> Permit {
        let mut own = pin!(turn(&self.0));
        if let Ok(own) = timeout(LONG_WAIT, &mut own).await {
            return own;
        }
        Metrics::limited(Limit::Turns);
        own.await
    }

    /// Waits for a turn at what all share: for one of one's own first.
    pub async fn turn(&self, all: &Arc<Semaphore>) -> Turn {
        let own = self.own_turn().await;
        Turn {
            _all: turn(all).await,
            _own: own,
        }
    }
}

/// See the module's docs. Shared by all connections and requests of a caller.
pub struct Account {
    requests: Bucket,
    messages: Bucket,
    bytes: Bucket,
    changes: Bucket,
    new_documents: Bucket,
    connections: Arc<Semaphore>,
    open_documents: Arc<Semaphore>,
    /// Bytes that have come and were not acted on.
    pub in_flight: Arc<AtomicU64>,
    /// Of the large bodies that are parsed and written.
    pub bodies: Share,
    /// Of the documents that are imported.
    pub imports: Share,
    /// Of the large documents that are read at old versions.
    pub pasts: Share,
    /// Of the pages of the list of documents, and of the lists of roles that are said.
    pub lists: Share,
    /// Of the medium messages that are decoded.
    pub medium: Share,
    /// Of the large ones.
    pub large: Share,
}

impl Account {
    /// Of somebody who is not remembered.
    pub fn new(settings: &Settings) -> Self {
        Self {
            requests: Bucket::new(settings.requests),
            messages: Bucket::new(settings.messages),
            bytes: Bucket::new(settings.bytes),
            changes: Bucket::new(settings.changes),
            new_documents: Bucket::new(settings.new_documents),
            connections: cap(settings.connections),
            open_documents: cap(settings.open_documents),
            in_flight: Arc::default(),
            bodies: Share::of(SHARE),
            imports: Share::of(SMALL_SHARE),
            pasts: Share::of(SMALL_SHARE),
            lists: Share::of(SMALL_SHARE),
            medium: Share::of(SHARE),
            large: Share::of(SMALL_SHARE),
        }
    }

    /// Of the server itself.
    pub fn unlimited() -> Self {
        Self::new(&Settings::default())
    }

    /// A connection that stays, until what this gives is dropped.
    pub fn connection(&self) -> Option<OwnedSemaphorePermit> {
        one_of(&self.connections, Limit::Connections)
    }

    /// A document that is open on a connection, or not there for it, until what this gives is dropped.
    pub fn open_document(&self) -> Option<OwnedSemaphorePermit> {
        one_of(&self.open_documents, Limit::OpenDocuments)
    }

    /// A request.
    pub fn request(&self) -> Result<(), Limited> {
        take(&self.requests, 1, Limit::Requests)
    }

    /// A document that is made.
    pub fn new_document(&self) -> Result<(), Limited> {
        take(&self.new_documents, 1, Limit::NewDocuments)
    }

    /// Waits until a message of so many bytes is due, but no longer than `most` for each of the two.
    pub async fn message(&self, bytes: usize, most: Duration) -> Result<(), Limited> {
        let cells = (bytes as u64).div_ceil(BYTES_PER_CELL);
        wait(&self.messages, 1, most, Limit::Messages).await?;
        wait(&self.bytes, cells, most, Limit::Bytes).await
    }

    /// The same, for what costs as much as so many messages.
    pub async fn messages(&self, number: usize, most: Duration) -> Result<(), Limited> {
        wait(&self.messages, number as u64, most, Limit::Messages).await
    }

    /// Waits until so many changes are due.
    pub async fn changes(&self, number: usize, most: Duration) -> Result<(), Limited> {
        wait(&self.changes, number as u64, most, Limit::Changes).await
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account").finish_non_exhaustive()
    }
}

/// What is counted of an address, or of a network, before it is known who is there.
pub struct Door {
    arrivals: Bucket,
    open: Arc<Semaphore>,
    most_open: usize,
    /// Connections that are few.
    few_open: usize,
    unauthenticated: Bucket,
    open_requests: Bucket,
}

/// A TCP connection's place among those of its address. Who has one is not forgotten.
#[derive(Debug)]
pub struct Place {
    _open: OwnedSemaphorePermit,
    _door: Arc<Door>,
}

impl Door {
    /// Of one that is not remembered, and may have so many times as much as an address.
    pub fn new(settings: &Settings, times: NonZeroU32) -> Self {
        let bucket = |rate: Option<Rate>| Bucket::new(rate.map(|rate| rate.times(times)));
        let most_open = settings.open_of(times);
        Self {
            arrivals: bucket(settings.arrivals),
            open: cap(Some(most_open)),
            most_open,
            few_open: FEW_CONNECTIONS_PER_ADDRESS.saturating_mul(times.get() as usize),
            unauthenticated: bucket(settings.unauthenticated),
            open_requests: bucket(settings.open_requests),
        }
    }

    /// A TCP connection, until what this gives is dropped. None: there are too many. And whether they come too fast.
    pub fn arrive(self: &Arc<Self>) -> Option<(Place, bool)> {
        let place = Place {
            _open: one_of(&self.open, Limit::OpenConnections)?,
            _door: Arc::clone(self),
        };
        let is_fast = take(&self.arrivals, 1, Limit::Arrivals).is_err();
        Some((place, is_fast))
    }

    /// Whether few connections are open, as those have who look at a document.
    pub fn has_few(&self) -> bool {
        self.most_open - self.open.available_permits() <= self.few_open
    }

    /// A request that brought no token that is believed.
    pub fn unauthenticated(&self) -> Result<(), Limited> {
        take(&self.unauthenticated, 1, Limit::Unauthenticated)
    }

    /// A request for what is open to all.
    pub fn open_request(&self) -> Result<(), Limited> {
        take(&self.open_requests, 1, Limit::OpenRequests)
    }
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").finish_non_exhaustive()
    }
}

fn cap(most: Option<usize>) -> Arc<Semaphore> {
    let most = most.unwrap_or(Semaphore::MAX_PERMITS);
    Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)))
}

fn one_of(permits: &Arc<Semaphore>, limit: Limit) -> Option<OwnedSemaphorePermit> {
    let permit = Arc::clone(permits).try_acquire_owned();
    permit.map_err(|_| Metrics::limited(limit)).ok()
}

fn take(bucket: &Bucket, number: u64, limit: Limit) -> Result<(), Limited> {
    bucket.take(number).map_err(|wait| {
        Metrics::limited(limit);
        Limited { limit, wait }
    })
}

async fn wait(bucket: &Bucket, number: u64, most: Duration, limit: Limit) -> Result<(), Limited> {
    let waited = bucket.wait(number, most, || Metrics::limited(limit));
    // Who comes back by then waits behind nobody who waits now.
    waited.await.map_err(|_| Limited { limit, wait: most })
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use metrics_exporter_prometheus::PrometheusBuilder;
    use tokio::time::sleep;

    use super::*;

    #[tokio::test]
    async fn one_caller_has_a_share_of_the_turns_and_others_the_rest() {
        let all = Arc::new(Semaphore::new(2 * SHARE));
        let (greedy, other) = (Account::unlimited(), Account::unlimited());
        let mut has = Vec::new();
        for _ in 0..SHARE {
            has.push(greedy.bodies.turn(&all).await);
        }
        let mut more = Box::pin(greedy.bodies.turn(&all));
        assert!((&mut more).now_or_never().is_none(), "has all of them");
        let others = other.bodies.turn(&all).now_or_never();
        assert!(others.is_some(), "has to wait for somebody else");
        has.pop();
        assert!(more.now_or_never().is_some());
    }

    #[test]
    fn only_long_waits_are_counted() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let metrics = recorder.handle();
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().build().unwrap();
        let waits = |time| {
            let turns = async {
                let large = Share::of(1);
                let has = large.own_turn().await;
                let ends = async {
                    sleep(time).await;
                    drop(has);
                };
                tokio::join!(large.own_turn(), ends);
            };
            metrics::with_local_recorder(&recorder, || runtime.block_on(turns));
            metrics.render()
        };
        let counted = "concord_limited_total{limit=\"turns\"} 1";
        assert!(!waits(LONG_WAIT / 4).contains(counted));
        assert!(waits(LONG_WAIT * 5 / 4).contains(counted));
    }

    #[tokio::test]
    async fn who_waits_for_a_share_of_their_own_is_not_in_others_way() {
        let all = Arc::new(Semaphore::new(1));
        let (greedy, other) = (Account::unlimited(), Account::unlimited());
        let has = greedy.large.turn(&all).await;
        let mut more: Vec<_> = (0..50).map(|_| Box::pin(greedy.large.turn(&all))).collect();
        for turn in &mut more {
            assert!(turn.as_mut().now_or_never().is_none());
        }
        let mut others = Box::pin(other.large.turn(&all));
        assert!(others.as_mut().now_or_never().is_none());
        drop(has);
        // Behind one of theirs at most, not behind fifty.
        let mut waited = 0;
        while others.as_mut().now_or_never().is_none() {
            waited += 1;
            assert!(waited <= 1, "is behind {waited} of somebody else's");
            let first = more
                .iter_mut()
                .position(|turn| turn.as_mut().now_or_never().is_some());
            drop(more.remove(first.expect("somebody has it")));
        }
    }
}
