//! Deleted documents are erased: after a while, or at once where that was asked for.
//!
//! It takes two steps. What is *purged* is gone from the store with a commit, and its keys are swept bit by bit
//! (`store/sled/sweep.rs`). Its bytes leave the files when the database is *written anew* (`store/sled/rewrite.rs`): soon
//! where somebody asked for erasure at once, and else once a day at most, since it is as much work as reading and writing all there
//! is. [`Pace`] says when.
//!
//! Nothing has to be kept of who waits for what: each tombstone says what there is still. So after a restart the first look
//! through them finds what was not done, and it is done then.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use concord_shared::ids::{DocumentId, PrincipalId};
use tokio::sync::{Mutex, OwnedMutexGuard, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use self::pace::{Pace, Wish};
use crate::audit::event::Event;
use crate::audit::{Audit, Trail};
use crate::clock::unix_ms;
use crate::document::task::Report;
use crate::limits::ledger::{Kept, Ledger};
use crate::metrics::Metrics;
use crate::store::{
    Committer, Remains, Rewritten, Store, StoreError, Tombstone, Write, WriteFailed,
};

mod pace;
#[cfg(test)]
mod tests;

/// How often it is looked at what is due, unless documents are kept for less than that.
const LOOK_INTERVAL: Duration = Duration::from_mins(1);

/// Tombstones that are looked at in one go.
const TOMBSTONES_PER_LOOK: usize = 1000;

/// How long is waited before the next of them: however many there are, it costs a few milliseconds a second.
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

/// See the module's docs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Eraser {
    /// What is deleted is known to it.
    store: Arc<dyn Store>,
    /// And erased through this.
    committer: Committer,
    /// Where it is recorded.
    audit: Audit,
    /// Counts what is kept.
    ledger: Arc<Ledger>,
    /// Whether the database is to be written anew.
    wish: Arc<watch::Sender<Wish>>,
    /// How long what is deleted is kept, if that is known here.
    keep: Option<Duration>,
    turns: Arc<Turns>,
}

/// Why something was not erased.
#[derive(Debug, thiserror::Error)]
enum EraseError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Write(#[from] WriteFailed),
    #[error("the store panicked")]
    Panicked,
}

/// While it is held nobody else purges the document, nor is its deletion taken back: the store would refuse one of them, and
/// what is in the same commit with it.
#[derive(Debug)]
pub struct Turn {
    document: DocumentId,
    _held: OwnedMutexGuard<()>,
}

/// Those of different documents do not wait for each other: their purges share a commit.
#[derive(Debug, Default)]
struct Turns(std::sync::Mutex<HashMap<DocumentId, Weak<Mutex<()>>>>);

impl Turns {
    fn of(&self, document: &DocumentId) -> Arc<Mutex<()>> {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // As many are left as are waited for.
        turns.retain(|_, turn| turn.strong_count() > 0);
        let turn = turns.get(document).and_then(Weak::upgrade);
        turn.unwrap_or_else(|| {
            let turn = Arc::default();
            turns.insert(document.clone(), Arc::downgrade(&turn));
            turn
        })
    }
}

/// How far the look through all tombstones has come.
#[derive(Debug, Default)]
struct Round {
    after: Option<DocumentId>,
    /// Whether something of what was purged is in the files still.
    has_remains: bool,
}

impl Eraser {
    /// For documents that are kept so long after they were deleted. `None`: that is not known here, and none is due.
    pub fn new(
        store: Arc<dyn Store>,
        committer: Committer,
        audit: Audit,
        ledger: Arc<Ledger>,
        keep: Option<Duration>,
    ) -> Self {
        Self {
            store,
            committer,
            audit,
            ledger,
            wish: Arc::new(watch::Sender::new(Wish::Nothing)),
            keep,
            turns: Arc::default(),
        }
    }

    /// When what was deleted then is erased, in milliseconds since the Unix epoch, if that is known.
    pub fn due_ms(&self, deleted_at_ms: u64) -> Option<u64> {
        let keep_ms = u64::try_from(self.keep?.as_millis()).unwrap_or(u64::MAX);
        Some(deleted_at_ms.saturating_add(keep_ms))
    }

    /// Waits for the turn of a document.
    pub async fn turn(&self, document: &DocumentId) -> Turn {
        Turn {
            document: document.clone(),
            _held: self.turns.of(document).lock_owned().await,
        }
    }

    /// Purges a document that is deleted and not purged, durably, and sees to it that its bytes leave the files soon: its
    /// tombstone says when they have.
    pub async fn purge_now(
        &self,
        turn: &Turn,
        by: PrincipalId,
        trail: &Trail,
    ) -> Result<(), WriteFailed> {
        self.purge(turn, Some(by), trail).await?;
        self.want(Wish::Soon);
        Ok(())
    }

    /// Erases what was deleted long enough ago, until the server stops.
    pub async fn run(self, stop: CancellationToken) {
        let looking = stop.run_until_cancelled(self.look_all_the_time());
        tokio::join!(looking, self.rewrite_when_it_is_due(&stop));
    }

    async fn purge(
        &self,
        Turn { document, .. }: &Turn,
        by: Option<PrincipalId>,
        trail: &Trail,
    ) -> Result<(), WriteFailed> {
        // Before: whose it is goes with it.
        let kept = self.kept(document.clone()).await;
        let (mut writer, mut tickets) = self.committer.document();
        let write = Write::Purge {
            document: document.clone(),
            by,
        };
        let ticket = writer.submit(write).await?;
        tickets.done(ticket).await?;
        if let Some(kept) = kept {
            self.ledger.purged(&kept);
        }
        trail.record(&Event::Purged { document });
        Ok(())
    }

    fn is_due(&self, tombstone: &Tombstone) -> bool {
        let due = self.due_ms(tombstone.at_ms);
        !tombstone.purged && due.is_some_and(|due| due <= unix_ms())
    }

    /// Purges what was due when it was looked at; whether it is so still. It may have been brought back meanwhile, and even
    /// deleted again, or somebody was faster.
    async fn purge_if_due(&self, document: &DocumentId) -> Result<bool, EraseError> {
        let turn = self.turn(document).await;
        let (store, id) = (Arc::clone(&self.store), document.clone());
        let reading = tokio::task::spawn_blocking(move || store.tombstone(&id)).await;
        let tombstone = reading.map_err(|_| EraseError::Panicked)??;
        let is_due = tombstone.is_some_and(|tombstone| self.is_due(&tombstone));
        if is_due {
            info!(%document, "erasing a deleted document");
            self.purge(&turn, None, &self.audit.own()).await?;
        }
        Ok(is_due)
    }

    /// What a document counts for whoever made it. That it can't be read keeps nobody from erasing it.
    async fn kept(&self, document: DocumentId) -> Option<Kept> {
        let (ledger, store) = (Arc::clone(&self.ledger), Arc::clone(&self.store));
        let id = document.clone();
        let reading = tokio::task::spawn_blocking(move || ledger.kept(&*store, &id)).await;
        let kept = reading.map_or(Err(EraseError::Panicked), |read| Ok(read?));
        kept.unwrap_or_else(|error| {
            warn!(%document, error = %Report(&error), "counts for its maker until the next start");
            None
        })
    }

    async fn look_all_the_time(&self) {
        let mut round = Round::default();
        loop {
            let is_over = match self.look(&mut round).await {
                Ok(is_over) => is_over,
                Err(error) => {
                    error!(error = %Report(&error), "what is deleted can't be read");
                    true
                }
            };
            if is_over {
                if round.has_remains {
                    self.want(Wish::Sometime);
                }
                round = Round::default();
                let keep = self.keep.unwrap_or(LOOK_INTERVAL);
                sleep(LOOK_INTERVAL.min(keep.max(BETWEEN_LOOKS))).await;
            } else {
                sleep(BETWEEN_LOOKS).await;
            }
        }
    }

    /// Looks at the next few tombstones, and purges what is due; whether these were the last. What can't be purged does not
    /// keep the others from it, and is tried again in the next round.
    async fn look(&self, round: &mut Round) -> Result<bool, EraseError> {
        let (store, after) = (Arc::clone(&self.store), round.after.clone());
        let reading = tokio::task::spawn_blocking(move || {
            store.tombstones(after.as_ref(), TOMBSTONES_PER_LOOK)
        });
        let some = reading.await.map_err(|_| EraseError::Panicked)??;
        let is_over = some.len() < TOMBSTONES_PER_LOOK;
        round.after = some.last().map(|(last, _)| last.clone());
        for (document, tombstone) in some {
            if tombstone.purged {
                round.has_remains |= tombstone.remains != Remains::Nothing;
            } else if self.is_due(&tombstone) {
                match self.purge_if_due(&document).await {
                    Ok(true) => {
                        Metrics::purged(true);
                        round.has_remains = true;
                    }
                    Ok(false) => {}
                    // Nothing is written any more: the committer says so.
                    Err(_) if self.committer.is_poisoned() => {
                        return Err(StoreError::Poisoned.into());
                    }
                    Err(error) => {
                        Metrics::purged(false);
                        error!(%document, error = %Report(&error), "a deleted document was not erased");
                    }
                }
            }
        }
        Ok(is_over)
    }

    fn want(&self, wish: Wish) {
        self.wish.send_if_modified(|wanted| {
            let is_more = wish > *wanted;
            if is_more {
                *wanted = wish;
            }
            is_more
        });
    }

    async fn rewrite_when_it_is_due(&self, stop: &CancellationToken) {
        let mut wishes = self.wish.subscribe();
        let mut pace = Pace::default();
        loop {
            let wish = *wishes.borrow_and_update();
            let due = pace.due(wish, Instant::now());
            tokio::select! {
                () = stop.cancelled() => return,
                // The sender is held here.
                _ = wishes.changed() => continue,
                () = at(due) => {}
            }
            // What is wished for from here on is for another one: what was purged meanwhile may be in the copy.
            self.wish.send_replace(Wish::Nothing);
            let started = Instant::now();
            let rewritten = self.rewrite(stop).await;
            let took = started.elapsed();
            if stop.is_cancelled() && rewritten.is_err() {
                return;
            }
            pace.ended(rewritten.is_ok(), started, took);
            Metrics::rewritten(rewritten.as_ref().ok().map(|done| (took, done.pause)));
            match rewritten {
                Ok(Rewritten {
                    erased,
                    bytes_before,
                    bytes_after,
                    pause,
                }) => info!(
                    erased,
                    bytes_before,
                    bytes_after,
                    ?took,
                    ?pause,
                    "the database was written anew: what was purged is in no file"
                ),
                Err(error) => {
                    error!(error = %Report(&error), ?took, "the database was not written anew: what was purged is in its files still");
                    self.want(wish);
                }
            }
        }
    }

    async fn rewrite(&self, stop: &CancellationToken) -> Result<Rewritten, EraseError> {
        let (store, stop) = (Arc::clone(&self.store), stop.clone());
        let rewriting =
            tokio::task::spawn_blocking(move || store.rewrite(&|| !stop.is_cancelled()));
        Ok(rewriting.await.map_err(|_| EraseError::Panicked)??)
    }
}

async fn at(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}
