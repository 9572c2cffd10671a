//! Tokens, verified by keys that change: the IO around a [`Keyring`].
//!
//! Whoever verifies a token takes the keys of the moment, and waits for nothing. Who brings a token that names an unknown
//! key waits for what is being read, if something is: for a bounded time, and few at a time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::{Notify, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::source::{Source, SourceError};
use super::{Fresh, Keyring, Outcome, Pace};
use crate::access::keys::KeySet;
use crate::access::token::{Claims, Expected, TokenError, Tokens};
use crate::document::task::Report;
use crate::metrics::Metrics;

/// Why nobody could be believed.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// What is named wrongly stays wrong; so does a file.
    #[error("--auth-keys {from}: {}", Report(error))]
    Source {
        /// Which.
        from: String,
        /// Why it can't be used.
        error: SourceError,
    },
    /// No source had a key.
    #[error("no key could be had: {}", reasons.join("; "))]
    NoKey {
        /// Of each source.
        reasons: Vec<String>,
    },
}

/// See the module's docs. [`run`](Self::run) has to run beside it.
#[derive(Debug)]
pub struct LiveTokens {
    sources: Vec<Source>,
    pace: Pace,
    /// Held for a few operations, never across an await.
    ring: Mutex<Keyring>,
    /// Sent whenever a reading has ended, while the ring is locked: who saw there that nothing is being read finds all
    /// that was read here.
    tokens: watch::Sender<Arc<Tokens>>,
    /// Something may be due.
    wake: Notify,
    waiting: Semaphore,
}

impl LiveTokens {
    /// Reads all sources once. Files must be good, and there must be a key; what can't be fetched now may be later.
    pub async fn start(
        mut fixed: KeySet,
        named: Vec<Source>,
        expected: Expected,
        pace: Pace,
    ) -> Result<Self, StartError> {
        let at_source = |source: &Source, error| StartError::Source {
            from: source.to_string(),
            error,
        };
        let mut sources = Vec::new();
        for source in named {
            if source.is_fixed() {
                let read = source.read().await;
                let read = read.and_then(|read| Ok(fixed.extend(read.keys)?));
                read.map_err(|error| at_source(&source, error))?;
            } else {
                sources.push(source);
            }
        }
        let now = Instant::now();
        let mut ring = Keyring::new(fixed, sources.iter().map(Source::kind), pace, now);
        let due = ring.due(now);
        let reads = join_all(sources.iter().map(read)).await;
        let mut reasons = Vec::new();
        for (nth, (source, read)) in due.into_iter().zip(sources.iter().zip(reads)) {
            if let Err(error) = &read {
                reasons.push(format!("{source}: {}", Report(error)));
            }
            let read = match read {
                // One that has none is a mistake now, and may be meant later.
                Err(error) if matches!(source, Source::File(_)) => {
                    return Err(at_source(source, error));
                }
                read => read,
            };
            match ring.done(nth, Instant::now(), read) {
                Some(Outcome::Failed { error, .. }) if matches!(source, Source::File(_)) => {
                    return Err(at_source(source, error));
                }
                outcome => tell(source, outcome),
            }
        }
        let keys = believed(&ring);
        if keys.is_empty() {
            return Err(StartError::NoKey { reasons });
        }
        info!(
            keys = keys.described().join(", "),
            "callers have to bring tokens"
        );
        let tokens = Arc::new(Tokens { keys, expected });
        Ok(Self {
            sources,
            pace,
            ring: Mutex::new(ring),
            tokens: watch::Sender::new(tokens),
            wake: Notify::new(),
            waiting: Semaphore::new(pace.most_waiting),
        })
    }

    /// Who brings the token, at this time in seconds since 1970.
    pub async fn verify(&self, token: &str, now_s: u64) -> Result<Claims, TokenError> {
        let tokens = Arc::clone(&self.tokens.borrow());
        let verified = tokens.verify(token, now_s);
        if verified != Err(TokenError::UnknownKey) {
            return verified;
        }
        let Ok(_place) = self.waiting.try_acquire() else {
            return verified;
        };
        let found = tokio::time::timeout(self.pace.wait, self.find(token, now_s));
        found.await.unwrap_or(verified)
    }

    /// Until the token's key is there, or nothing is being read.
    async fn find(&self, token: &str, now_s: u64) -> Result<Claims, TokenError> {
        let mut latest = self.tokens.subscribe();
        self.ring().unknown_key(Instant::now());
        self.wake.notify_one();
        loop {
            let tokens = Arc::clone(&latest.borrow_and_update());
            let verified = tokens.verify(token, now_s);
            if verified != Err(TokenError::UnknownKey) {
                return verified;
            }
            // In this order: what ended before the first was looked at is seen by the second.
            let is_looking = self.ring().is_looking(Instant::now());
            if !is_looking && !latest.has_changed().unwrap_or(false) {
                return verified;
            }
            let _sender_is_here = latest.changed().await;
        }
    }

    /// Keeps the keys current, until the server stops.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut reads = FuturesUnordered::new();
        loop {
            for (nth, source) in self.due() {
                reads.push(async move { (nth, read(source).await) });
            }
            let wake_at = self.ring().wake_at();
            let sleep = async {
                match wake_at {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                Some((nth, read)) = reads.next() => self.take(nth, read),
                () = self.wake.notified() => {}
                () = sleep => {}
            }
        }
    }

    /// Gives up what is too old, and says what is to be read.
    fn due(&self) -> Vec<(usize, &Source)> {
        let now = Instant::now();
        let mut ring = self.ring();
        for source in self.sources_of(ring.give_up(now)) {
            warn!(source = %source.1, "keys are not believed any more: they could not be read anew for too long");
            self.publish(&ring);
        }
        self.sources_of(ring.due(now))
    }

    fn sources_of(&self, numbers: Vec<usize>) -> Vec<(usize, &Source)> {
        let numbers = numbers.into_iter();
        let sources = numbers.filter_map(|nth| Some((nth, self.sources.get(nth)?)));
        sources.collect()
    }

    fn take(&self, nth: usize, read: Result<Fresh, SourceError>) {
        let mut ring = self.ring();
        let outcome = ring.done(nth, Instant::now(), read);
        self.publish(&ring);
        drop(ring);
        if let Some(source) = self.sources.get(nth) {
            tell(source, outcome);
        }
    }

    fn publish(&self, ring: &Keyring) {
        let before = Arc::clone(&self.tokens.borrow());
        let keys = believed(ring);
        if keys.described() != before.keys.described() {
            info!(keys = keys.described().join(", "), "the keys have changed");
        }
        let expected = before.expected.clone();
        self.tokens
            .send_replace(Arc::new(Tokens { keys, expected }));
    }

    fn ring(&self) -> MutexGuard<'_, Keyring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Too many together are none, but the ring takes no more than there may be.
fn believed(ring: &Keyring) -> KeySet {
    ring.keys().unwrap_or_default()
}

/// What others wrote is parsed there. If that panicked here, keys would stay as they are for good.
async fn read(source: &Source) -> Result<Fresh, SourceError> {
    let source = source.clone();
    let reading = tokio::spawn(async move { source.read().await });
    reading.await.unwrap_or(Err(SourceError::Panic))
}

fn tell(source: &Source, outcome: Option<Outcome>) {
    let is_read = matches!(outcome, Some(Outcome::Read { .. }));
    Metrics::keys_read(source.kind(), is_read);
    match outcome {
        Some(Outcome::Read { was_failing: true }) => info!(%source, "keys can be read again"),
        Some(Outcome::Failed {
            error,
            is_first: true,
        }) => warn!(
            %source, error = %Report(&error),
            "keys can't be read; those of before, if there are any, are believed for a while"
        ),
        _ => {}
    }
}
