//! Which views are open. Within a budget of memory: beyond it those go that nobody is using.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use automerge::ActorId;
use concord_shared::code::ErrorCode;
use concord_shared::ids::{DocumentId, PeerId};
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::core::Core;
use super::task::{self, Job};
use crate::access::Grant;
use crate::document::registry::Registry;
use crate::store::Store;

/// Jobs that may wait for a view before those who ask wait in turn.
const JOBS_PER_VIEW: usize = 64;

/// Views loaded from the store at a time, per server.
const CONCURRENT_LOADS: usize = 2;

/// A view could not do what was asked, with what its caller is told. Where it was to change something that may have
/// happened all the same, unless the code is about a change, or `overloaded`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the document can't be shown or written: {0}")]
pub struct ViewError(pub ErrorCode);

/// What all views share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) store: Arc<dyn Store>,
    pub(super) registry: Registry,
    pub(super) server: PeerId,
    /// Of which the actors are made that make the views' changes.
    actors: [RandomState; 2],
    pub(super) loads: Arc<Semaphore>,
    /// Bytes that all views may take, and take.
    memory_budget: usize,
    memory: AtomicUsize,
    /// What those of them take that can't go, since somebody watches.
    watched: AtomicUsize,
    /// Bytes of long events that their readers have not taken yet.
    pub(super) told: Arc<AtomicUsize>,
    /// Wakes views that may go when memory gets short.
    pub(super) pressure: Notify,
    pub(super) stop: CancellationToken,
}

/// A view's share of the memory in use.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Share {
    pub(super) bytes: usize,
    pub(super) is_watched: bool,
}

impl Share {
    fn watched(self) -> usize {
        if self.is_watched { self.bytes } else { 0 }
    }
}

impl Shared {
    /// Who makes the changes of a document's view. New with each process: a store that was set back to an older state
    /// must not see the same actor go on in another way. And of each document another: a fork has the changes of
    /// the actors of what it was forked from, and is merged with that again, perhaps.
    pub(super) fn actor(&self, document: &DocumentId) -> ActorId {
        let halves = self.actors.each_ref();
        let halves = halves.map(|half| half.hash_one(document).to_le_bytes());
        ActorId::from(halves.as_flattened())
    }

    /// Replaces a view's share.
    pub(super) fn account(&self, before: Share, now: Share) {
        self.watched.fetch_add(now.watched(), Ordering::Relaxed);
        self.watched.fetch_sub(before.watched(), Ordering::Relaxed);
        self.memory.fetch_add(now.bytes, Ordering::Relaxed);
        let all = self.memory.fetch_sub(before.bytes, Ordering::Relaxed) - before.bytes;
        if all > self.memory_budget {
            self.pressure.notify_one();
        }
    }
}

/// See the module's docs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Views {
    shared: Arc<Shared>,
    open: Arc<Mutex<HashMap<DocumentId, mpsc::Sender<Job>>>>,
    tasks: TaskTracker,
}

impl Views {
    /// No views.
    pub fn new(
        store: Arc<dyn Store>,
        registry: Registry,
        server: PeerId,
        memory_budget: usize,
        stop: CancellationToken,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                store,
                registry,
                server,
                actors: [RandomState::new(), RandomState::new()],
                loads: Arc::new(Semaphore::new(CONCURRENT_LOADS)),
                memory_budget,
                memory: AtomicUsize::new(0),
                watched: AtomicUsize::new(0),
                told: Arc::default(),
                pressure: Notify::new(),
                stop,
            }),
            open: Arc::default(),
            tasks: TaskTracker::new(),
        }
    }

    /// Runs `job` on the document, on a blocking thread; what it gives is given once all that it made or saw is durable. It
    /// sees every change that any client had been told of when this was called. A document that is not there is empty. What
    /// the grant allows may be less than what the job does: that is looked at by the job, when its turn comes.
    pub async fn run<R: Send + 'static>(
        &self,
        grant: &Grant,
        job: impl FnOnce(&mut Core) -> R + Send + 'static,
    ) -> Result<R, ViewError> {
        let (give, given) = oneshot::channel();
        let (done, result) = oneshot::channel();
        let job = Job {
            // Who asked may have gone.
            run: Box::new(move |core| {
                let _gone = give.send(job(core));
            }),
            answer: Box::new(|answer| {
                let _gone = done.send(answer);
            }),
            tries: 0,
        };
        self.send(grant.document(), job).await;
        let gone = |_| ViewError(ErrorCode::Internal);
        result.await.map_err(gone)??;
        given.await.map_err(gone)
    }

    /// Sends a job to the document's view, which answers it.
    pub(super) async fn send(&self, document: &DocumentId, mut job: Job) {
        // A view that ended meanwhile gives the job back.
        while let Err(mpsc::error::SendError(back)) = self.open(document).send(job).await {
            job = back;
            tokio::task::yield_now().await;
        }
    }

    /// Whether the document is open, so that it may have changes that are not in the store yet.
    pub fn is_open(&self, document: &DocumentId) -> bool {
        self.lock().contains_key(document)
    }

    /// Bytes of memory that views take, roughly.
    pub fn memory(&self) -> usize {
        self.shared.memory.load(Ordering::Relaxed)
    }

    /// Whether one more document may be watched: what is watched stays in memory.
    pub fn can_be_watched(&self) -> bool {
        let taken = [&self.shared.watched, &self.shared.told];
        let taken = taken.map(|bytes| bytes.load(Ordering::Relaxed));
        taken.into_iter().fold(0, usize::saturating_add) < self.shared.memory_budget
    }

    /// Waits until all views have ended; call after cancelling `stop`.
    pub async fn closed(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn open(&self, document: &DocumentId) -> mpsc::Sender<Job> {
        let mut open = self.lock();
        if let Some(jobs) = open.get(document) {
            return jobs.clone();
        }
        let (jobs, waiting) = mpsc::channel(JOBS_PER_VIEW);
        open.insert(document.clone(), jobs.clone());
        drop(open);
        self.tasks
            .spawn(task::run(self.clone(), document.clone(), waiting));
        jobs
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Called by a view that must end: who asks later gets a new one.
    pub(super) fn forget(&self, document: &DocumentId) {
        self.lock().remove(document);
    }

    /// Called by a view that would end: `true` if it may, and is forgotten.
    pub(super) fn forget_if_unused(
        &self,
        document: &DocumentId,
        jobs: &mpsc::Receiver<Job>,
    ) -> bool {
        let mut open = self.lock();
        // The map holds one sender; with the lock held nobody can get another.
        let unused = jobs.is_empty() && jobs.sender_strong_count() <= 1;
        if unused {
            open.remove(document);
        }
        unused
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<DocumentId, mpsc::Sender<Job>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
