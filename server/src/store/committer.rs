//! Turns many documents' writes into few synced batches, on one thread.
//!
//! Calling contract:
//!
//! * [`Committer::start`] spawns the thread; the handle is cheap to clone, [`CommitterThread::shutdown`] ends it.
//! * [`Committer::document`] gives one open document a [`DocumentWriter`] and a [`Tickets`]. Take a new pair, after
//!   reading the document from the store, whenever it is loaded; drop the old pair first, and only when all its
//!   tickets are done: two writers of one document would fight for the same index.
//! * [`DocumentWriter::submit`] waits for room in the queue, never for the disk, and gives a [`Ticket`].
//! * [`Tickets::changed`] tells how far the document's tickets have come, and [`Tickets::done`] waits for one of them. It never makes the committer wait: tickets
//!   of a document are done in order, so all there is to tell is the last one, and nothing can fill up.
//!
//! Under load many writes share a sync, since all that came during one go into the next batch; alone, a write
//! waits for one sync.
//!
//! When a commit fails:
//!
//! * A write that broke the log's rules ([`Severity::Rejected`]) fails its document; the rest of the batch is
//!   committed without it.
//! * Where it is not known what was written ([`Severity::Unknown`]), all documents of the batch fail.
//! * A failed document refuses all its later writes, queued ones too, or a hole would come into its log. It goes on
//!   when it is read again from the store and takes a new pair.
//! * After a failed sync ([`Severity::Fatal`]) nothing is written until the process starts anew. Trying again would
//!   be wrong: Linux marks the pages that it could not write as clean, so a second sync succeeds without having
//!   written them, and what is in memory, sled's cache included, is no longer what is on disk. Reading the files
//!   after a restart tells what is. ("fsyncgate" on the Postgres mailing list, 2018; Rebello et al., "Can Applications Recover from
//!   fsync Failures?", USENIX ATC 2020.)

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Instant,
};

use concord_shared::ids::DocumentId;
use metrics::{Counter, Histogram};
use tokio::sync::{
    OwnedSemaphorePermit, Semaphore,
    mpsc::{self, error::TryRecvError},
    watch,
};

use super::{Durability, Severity, Store, StoreError, Write};

/// Bounds and habits of a [`Committer`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommitterOptions {
    /// What a ticket that is done promises.
    pub durability: Durability,
    /// Bytes of writes, of all documents, that may wait or be in the making. A write that is larger waits until it is
    /// alone.
    pub queue_bytes: u32,
    /// Number of writes that may wait.
    pub queue_writes: usize,
    /// No further write is taken into a batch that has this many bytes: bounds how long a small write waits for big
    /// ones.
    pub batch_bytes: usize,
}

impl Default for CommitterOptions {
    fn default() -> Self {
        Self {
            durability: Durability::Strict,
            queue_bytes: 64 * 1024 * 1024,
            queue_writes: 16 * 1024,
            batch_bytes: 1024 * 1024,
        }
    }
}

/// What a write costs of a byte bound besides its payload: tiny writes take memory too, and make the store write
/// more than themselves.
const WRITE_OVERHEAD_BYTES: usize = 512;

/// What each label costs that comes with a write: a key of the document's own, and another that lies elsewhere.
const LABEL_COST_BYTES: usize = 768;

/// What a write costs that may take away the labels of an earlier one, of which there are some hundreds at most.
const LABELS_TAKEN_COST_BYTES: usize = 64 * 1024;

fn cost(write: &Write) -> usize {
    let labels = match write {
        Write::Access { number, labels, .. } => {
            let taken = if *number > 0 {
                LABELS_TAKEN_COST_BYTES
            } else {
                0
            };
            taken + labels.len() * LABEL_COST_BYTES
        }
        Write::Label { labels, .. } => LABELS_TAKEN_COST_BYTES + labels.len() * LABEL_COST_BYTES,
        _ => 0,
    };
    let payload = write.payload_bytes().saturating_add(labels);
    payload.saturating_add(WRITE_OVERHEAD_BYTES)
}

/// Counts a document's writes, from 1 on, in the order they were submitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Ticket(pub u64);

/// How far a document's writes have come.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    /// This ticket and all before it are committed; 0: none yet.
    pub committed: Ticket,
    /// Why all tickets after that have failed, and all to come will.
    pub failed: Option<Arc<StoreError>>,
}

/// Whether the committer still writes.
#[derive(Debug, Clone, Default)]
pub enum Health {
    /// It does.
    #[default]
    Well,
    /// It refuses everything until the process is started anew.
    Poisoned(Arc<StoreError>),
}

/// Why a write was not taken.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SubmitError {
    /// A write of this document failed before: read it again from the store.
    #[error("an earlier write of this document failed")]
    Failed(#[source] Arc<StoreError>),
    /// Nothing is written until the process is started anew.
    #[error("the store refuses writes after an earlier failure")]
    Poisoned(#[source] Arc<StoreError>),
    /// The committer was shut down.
    #[error("the server is shutting down")]
    Closed,
}

/// A write that was not taken, or taken and not committed.
#[derive(Debug, thiserror::Error)]
pub enum WriteFailed {
    /// It was not taken.
    #[error(transparent)]
    Refused(#[from] SubmitError),
    /// It was, and failed.
    #[error("a write failed")]
    Failed(#[source] Arc<StoreError>),
}

/// Handle to the committing thread.
#[derive(Debug, Clone)]
pub struct Committer {
    queue: mpsc::Sender<Item>,
    room: Arc<Semaphore>,
    queue_bytes: u32,
    health: watch::Receiver<Health>,
}

/// The committing thread itself, to be [shut down](Self::shutdown).
#[derive(Debug)]
pub struct CommitterThread {
    queue: mpsc::Sender<Item>,
    thread: JoinHandle<Result<(), StoreError>>,
}

/// Submits one document's writes.
#[derive(Debug)]
pub struct DocumentWriter {
    committer: Committer,
    progress: Arc<watch::Sender<Progress>>,
    last: Ticket,
}

/// Tells how far one document's writes have come.
#[derive(Debug)]
pub struct Tickets {
    progress: watch::Receiver<Progress>,
}

impl Committer {
    /// Spawns the committing thread. It ends by [`CommitterThread::shutdown`], or when all handles are gone.
    pub fn start(
        store: Arc<dyn Store>,
        options: CommitterOptions,
    ) -> io::Result<(Self, CommitterThread)> {
        let (queue, items) = mpsc::channel(options.queue_writes.max(1));
        let (health, health_seen) = watch::channel(Health::Well);
        let queue_bytes = options.queue_bytes.max(1);
        let worker = Worker {
            store,
            options,
            items,
            health,
            batch_changes: metrics::histogram!("concord_commit_batch_changes"),
            commit_seconds: metrics::histogram!("concord_commit_seconds"),
            failures: metrics::counter!("concord_commit_failures_total"),
        };
        let thread = thread::Builder::new()
            .name("committer".to_owned())
            .spawn(move || worker.run())?;
        let committer = Self {
            queue: queue.clone(),
            room: Arc::new(Semaphore::new(queue_bytes as usize)),
            queue_bytes,
            health: health_seen,
        };
        Ok((committer, CommitterThread { queue, thread }))
    }

    /// For a document that was just read from the store.
    pub fn document(&self) -> (DocumentWriter, Tickets) {
        let (progress, seen) = watch::channel(Progress::default());
        let writer = DocumentWriter {
            committer: self.clone(),
            progress: Arc::new(progress),
            last: Ticket::default(),
        };
        (writer, Tickets { progress: seen })
    }

    /// Whether the committer still writes; a change to [`Health::Poisoned`] is for good.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.health.clone()
    }

    /// Whether nothing is written any more. Whoever has learned from a ticket that the store gave up finds it so here.
    ///
    /// What the store reads back is then not to be shown: it may be the batch that could not be made durable.
    pub fn is_poisoned(&self) -> bool {
        // An error: the thread is gone, and with it the other end.
        matches!(&*self.health.borrow(), Health::Poisoned(_)) || self.health.has_changed().is_err()
    }
}

impl DocumentWriter {
    /// Queues a write, which must be of this writer's document.
    ///
    /// Waits for room only. Cancel safe: dropped before it is ready, it has queued nothing.
    pub async fn submit(&mut self, write: Write) -> Result<Ticket, SubmitError> {
        let committer = &self.committer;
        let bytes = u32::try_from(cost(&write))
            .unwrap_or(u32::MAX)
            .min(committer.queue_bytes);
        let room = Arc::clone(&committer.room);
        let room = room
            .acquire_many_owned(bytes)
            .await
            .map_err(|_| SubmitError::Closed)?;
        let slot = committer
            .queue
            .reserve()
            .await
            .map_err(|_| SubmitError::Closed)?;
        // Only now: what failed while this waited must not be followed by a write.
        if let Health::Poisoned(error) = &*committer.health.borrow() {
            return Err(SubmitError::Poisoned(Arc::clone(error)));
        }
        if let Some(error) = &self.progress.borrow().failed {
            return Err(SubmitError::Failed(Arc::clone(error)));
        }
        self.last = Ticket(self.last.0 + 1);
        let pending = Pending {
            ticket: self.last,
            progress: Arc::clone(&self.progress),
            done: false,
            _room: room,
        };
        slot.send(Item::Write(write, pending));
        Ok(self.last)
    }
}

impl Tickets {
    /// Waits until there is something new to tell. Cancel safe.
    ///
    /// Once a document has failed nothing new will come.
    pub async fn changed(&mut self) -> Progress {
        if self.progress.changed().await.is_err() {
            // Neither the writer nor a write is left that could change anything; told already.
            std::future::pending::<()>().await;
        }
        self.progress.borrow_and_update().clone()
    }

    /// Waits until this write, and all before it, are committed. Cancel safe.
    pub async fn done(&mut self, ticket: Ticket) -> Result<(), WriteFailed> {
        let mut progress = self.progress.borrow_and_update().clone();
        loop {
            if progress.committed >= ticket {
                return Ok(());
            }
            if let Some(error) = progress.failed {
                return Err(WriteFailed::Failed(error));
            }
            progress = self.changed().await;
        }
    }
}

impl CommitterThread {
    /// Commits all that was submitted, syncs, and ends the thread. Writes submitted after this are refused.
    pub async fn shutdown(self) -> Result<(), StoreError> {
        // An error means that the thread has ended already: joining tells why.
        let _ = self.queue.send(Item::Stop).await;
        drop(self.queue);
        let joined = tokio::task::spawn_blocking(|| self.thread.join()).await;
        match joined {
            Ok(Ok(result)) => result,
            _ => Err(StoreError::Broken(io::Error::other(
                "the committing thread panicked",
            ))),
        }
    }
}

#[derive(Debug)]
enum Item {
    Write(Write, Pending),
    Stop,
}

/// A write's ticket on its way. Whatever becomes of it, its document learns: dropped unfinished, it fails.
#[derive(Debug)]
struct Pending {
    ticket: Ticket,
    progress: Arc<watch::Sender<Progress>>,
    done: bool,
    /// Given back when the write is done.
    _room: OwnedSemaphorePermit,
}

impl Pending {
    fn has_failed(&self) -> bool {
        self.progress.borrow().failed.is_some()
    }

    fn commit(mut self) {
        self.done = true;
        self.progress.send_if_modified(|progress| {
            let news = progress.committed < self.ticket;
            if news {
                progress.committed = self.ticket;
            }
            news
        });
    }

    fn fail(mut self, error: &Arc<StoreError>) {
        self.done = true;
        fail(&self.progress, error);
    }
}

fn fail(progress: &watch::Sender<Progress>, error: &Arc<StoreError>) {
    progress.send_if_modified(|progress| {
        let news = progress.failed.is_none();
        if news {
            progress.failed = Some(Arc::clone(error));
        }
        news
    });
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.done {
            fail(&self.progress, &Arc::new(StoreError::Poisoned));
        }
    }
}

/// What runs on the thread.
struct Worker {
    store: Arc<dyn Store>,
    options: CommitterOptions,
    items: mpsc::Receiver<Item>,
    health: watch::Sender<Health>,
    batch_changes: Histogram,
    commit_seconds: Histogram,
    failures: Counter,
}

/// Writes in the order they came, each with its ticket at the same place.
#[derive(Default)]
struct Batch {
    writes: Vec<Write>,
    pending: Vec<Pending>,
    bytes: usize,
}

impl Worker {
    fn run(mut self) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        // Whether the store has housekeeping left, at the start perhaps from before a crash; a little is done after
        // each batch, and the rest while nothing waits.
        let mut untidy = true;
        loop {
            let first = match self.items.try_recv() {
                Err(TryRecvError::Empty) if untidy => {
                    untidy = self.tidy();
                    continue;
                }
                Ok(item) => Some(item),
                Err(_) => self.items.blocking_recv(),
            };
            let Some(first) = first else { break };
            self.fill(&mut batch, first);
            if !batch.writes.is_empty() {
                self.commit(&mut batch);
                untidy = self.tidy();
            }
        }
        if matches!(&*self.health.borrow(), Health::Poisoned(_)) {
            return Err(StoreError::Poisoned);
        }
        match self.options.durability {
            Durability::Strict => Ok(()),
            Durability::Relaxed => self.store.commit(&[], Durability::Strict),
        }
    }

    /// Takes what waits, up to the byte cap.
    fn fill(&mut self, batch: &mut Batch, first: Item) {
        let mut next = Some(first);
        while let Some(item) = next {
            match item {
                Item::Write(write, pending) => self.take(batch, write, pending),
                // No write is taken from here on; those that were are still to come out.
                Item::Stop => self.items.close(),
            }
            let full = batch.bytes >= self.options.batch_bytes;
            next = if full {
                None
            } else {
                self.items.try_recv().ok()
            };
        }
    }

    /// Lets the store do some housekeeping; whether it has more.
    fn tidy(&self) -> bool {
        if matches!(&*self.health.borrow(), Health::Poisoned(_)) {
            return false;
        }
        let tidy = catch_unwind(AssertUnwindSafe(|| self.store.tidy()));
        match tidy.unwrap_or_else(|_| Err(panicked())) {
            Ok(more) => more,
            Err(error) => {
                tracing::error!(%error, source = ?error, "housekeeping failed");
                if error.severity() == Severity::Fatal {
                    self.health.send_replace(Health::Poisoned(Arc::new(error)));
                }
                false
            }
        }
    }

    fn take(&self, batch: &mut Batch, write: Write, pending: Pending) {
        if let Health::Poisoned(error) = &*self.health.borrow() {
            pending.fail(error);
        } else if !pending.has_failed() {
            batch.bytes += cost(&write);
            batch.writes.push(write);
            batch.pending.push(pending);
        }
    }

    /// Commits the batch and leaves it empty.
    fn commit(&self, batch: &mut Batch) {
        while !batch.writes.is_empty() {
            let started = Instant::now();
            let Err(error) = self.try_commit(&batch.writes) else {
                self.commit_seconds.record(started.elapsed());
                self.batch_changes.record(batch.changes());
                batch.writes.clear();
                // The last of a document's tickets stands for those before it.
                batch.pending.drain(..).rev().for_each(Pending::commit);
                break;
            };
            self.failures.increment(1);
            let error = Arc::new(error);
            match (error.severity(), error.document()) {
                (Severity::Rejected, Some(document)) => {
                    tracing::error!(%error, "a write was refused by the store");
                    batch.fail_document(document, &error);
                }
                (Severity::Rejected | Severity::Unknown, _) => {
                    tracing::error!(%error, source = ?error, "a commit failed");
                    batch.fail_all(&error);
                }
                (Severity::Fatal, _) => {
                    tracing::error!(%error, source = ?error, "the store gave up");
                    // First this: a document that learns of its failure is opened anew at once, and must not show
                    // what the store then reads back.
                    self.health
                        .send_replace(Health::Poisoned(Arc::clone(&error)));
                    batch.fail_all(&error);
                }
            }
        }
        batch.bytes = 0;
    }

    /// sled has assertions: a panic in it must not leave the documents waiting.
    fn try_commit(&self, writes: &[Write]) -> Result<(), StoreError> {
        let commit = || self.store.commit(writes, self.options.durability);
        catch_unwind(AssertUnwindSafe(commit)).unwrap_or_else(|_| Err(panicked()))
    }
}

impl Batch {
    #[expect(clippy::cast_precision_loss, reason = "a figure for a histogram")]
    fn changes(&self) -> f64 {
        self.writes.iter().map(Write::changes).sum::<usize>() as f64
    }

    /// Fails one document's tickets and takes its writes out.
    fn fail_document(&mut self, document: &DocumentId, error: &Arc<StoreError>) {
        let writes = std::mem::take(&mut self.writes);
        let pending = std::mem::take(&mut self.pending);
        for (write, pending) in writes.into_iter().zip(pending) {
            if write.document() == document {
                pending.fail(error);
            } else {
                self.writes.push(write);
                self.pending.push(pending);
            }
        }
    }

    fn fail_all(&mut self, error: &Arc<StoreError>) {
        self.writes.clear();
        self.pending
            .drain(..)
            .for_each(|pending| pending.fail(error));
    }
}

fn panicked() -> StoreError {
    StoreError::Broken(io::Error::other("the store panicked"))
}

#[cfg(test)]
mod tests;
