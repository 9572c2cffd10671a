//! Open documents by id: opening, finding, unloading.
//!
//! At most one [`task`](super::task) runs per document: the map's entry is made before the task starts
//! and removed, under the same lock, only when nobody but the map holds a handle and its inbox is
//! empty. A sender that has a handle therefore has a task behind it.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use automerge::ChangeHash;
use concord_shared::access::{AccessList, Role};
use concord_shared::ids::{DocumentId, StorageId};
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::actor::{Input, Policy};
use super::graph::{Index, Stretch};
use super::task::{self, Link};
use super::{ConnectionId, assemble};
use crate::access::Grant;
use crate::access::grants::Deletion;
use crate::config::Config;
use crate::limits::ledger::{Ledger, OverQuota};
use crate::metrics::Metrics;
use crate::store::{ACCESS_ENTRY_MAX_BYTES, Committer, Store};

/// Messages that may wait for a document before its connections wait in turn.
const INBOX_MESSAGES_PER_DOCUMENT: usize = 128;

/// Open documents may take one part in this many beyond the memory budget before further ones are refused:
/// until then, those that nobody has open get the time to go.
const BUDGET_SLACK_SHARE: usize = 4;

/// Large uploads made into snapshots at a time, per server: as many as are decoded.
const CONCURRENT_LARGE_UPLOADS: usize = 2;

/// What all documents share.
#[derive(Debug)]
pub struct Shared {
    /// Where documents are kept.
    pub store: Arc<dyn Store>,
    /// The one way to write.
    pub committer: Committer,
    /// Bounds work that may hold a whole document in memory. Closed: nothing is compacted.
    pub heavy: Arc<Semaphore>,
    /// Bounds large uploads that are made into snapshots, which may hold a whole document in memory. Those who
    /// create documents don't wait for compactions.
    pub uploads: Arc<Semaphore>,
    /// Bounds reads for joiners.
    pub fetches: Arc<Semaphore>,
    /// What each document is to do.
    pub policy: Policy,
    /// Time without peers after which a document is unloaded.
    pub idle: std::time::Duration,
    /// Bytes of memory open documents may take before those that nobody has open go at once.
    pub memory_budget: usize,
    /// What is stored of whose documents, and how much there may be.
    pub ledger: Arc<Ledger>,
    /// Bytes they take.
    pub memory: AtomicUsize,
    /// Documents opened so far.
    pub opened: AtomicU64,
    /// Wakes documents that nobody has open when memory gets short.
    pub pressure: Notify,
    /// Cancelled when the server stops.
    pub stop: CancellationToken,
    /// Counters.
    pub metrics: Metrics,
}

/// See the module's docs.
#[derive(Debug, Clone)]
pub struct Registry {
    shared: Arc<Shared>,
    open: Arc<Mutex<HashMap<DocumentId, DocumentHandle>>>,
    tasks: TaskTracker,
}

/// The way to an open document. Cheap to clone; holding one keeps the document open.
#[derive(Debug, Clone)]
pub struct DocumentHandle {
    inbox: mpsc::Sender<Delivery>,
    /// Of no other that this process ever opens. From 1 on.
    number: u64,
}

/// What goes through a document's inbox.
#[derive(Debug)]
pub enum Delivery {
    /// A connection opens the document; comes before its first input.
    Open(ConnectionId, Box<Link>),
    /// What somebody may do who has it open is to be seen anew: they showed another token.
    Regrant(ConnectionId, Grant),
    /// For the document itself.
    Input(Input),
    /// Somebody is about to make the document: whose it is, is decided when this is answered.
    Claim(Grant, Hold, oneshot::Sender<Hold>),
    /// Somebody was about to, and is not any more.
    Released,
    /// Somebody says who may do what.
    SetList(Box<NewList>),
    /// Somebody deletes the document: told once that is durable, or that they may not.
    Delete(Grant, oneshot::Sender<bool>),
    /// Somebody is about to write, and asks whether there may be more of the document.
    Room(oneshot::Sender<Result<(), OverQuota>>),
    /// Somebody takes back that the document was deleted: told once that is durable, or that it is not deleted.
    Undelete(Box<Deletion>, oneshot::Sender<bool>),
    /// Somebody asks for the heads of all that is visible.
    Heads(oneshot::Sender<Vec<ChangeHash>>),
    /// Somebody asks which changes are visible at these places, as many as [`Stretch`] has room for.
    Stretch(Range<Index>, oneshot::Sender<Stretch>),
    /// Somebody asks for the place of a visible change.
    Place(ChangeHash, oneshot::Sender<Option<Index>>),
}

/// A document stays whose it was said to be, though there is nothing of it yet, while somebody has this.
#[derive(Debug)]
pub struct Hold {
    document: DocumentHandle,
    held: Option<Arc<()>>,
}

impl Hold {
    /// On this one.
    pub fn of(document: &DocumentHandle) -> Self {
        let document = document.clone();
        let held = Some(Arc::default());
        Self { document, held }
    }

    /// Upgrades for as long as this is there.
    pub fn watch(&self) -> Weak<()> {
        self.held.as_ref().map(Arc::downgrade).unwrap_or_default()
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        drop(self.held.take());
        // If there is no room other deliveries are on their way, and it is seen with each of them.
        let _full = self.document.inbox.try_send(Delivery::Released);
    }
}

/// Who may do what from now on.
#[derive(Debug)]
pub struct NewList {
    /// Of whoever says so.
    pub grant: Grant,
    /// What.
    pub list: AccessList,
    /// What it is to replace, if they care.
    pub replaces: Option<Replaces>,
    /// Told once it is durable, and holds: the number of what was said.
    pub give: oneshot::Sender<Result<u64, NotListed>>,
}

/// What somebody saw who says something new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replaces {
    /// Nothing was said before.
    Nothing,
    /// Something was, whatever it is.
    Something,
    /// What has this number.
    Number(u64),
}

/// Why who may do what is as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotListed {
    /// Nobody has to say who they are, so nobody can be named; or an application decides.
    #[error("no list says here who may do what")]
    NoLists,
    /// The document may not be there, or they may do something with it, but not that.
    #[error("they are {0} of this document, and no owner")]
    NotOwner(Role),
    /// It was changed since.
    #[error("who may do what was changed since")]
    Changed,
    /// Above [`ACCESS_ENTRY_MAX_BYTES`], which many names can come to, and those with characters that are escaped.
    #[error("as it is stored the list has more than {} KiB", ACCESS_ENTRY_MAX_BYTES >> 10)]
    TooLarge,
    /// Too much was said before.
    #[error(transparent)]
    OverQuota(#[from] OverQuota),
}

/// The document's task has ended: after a failed write, or because the server stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the document is closing")]
pub struct DocumentGone;

/// Documents that peers have open take all the memory they may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("open documents take all the memory they may")]
pub struct OutOfMemoryBudget;

impl DocumentHandle {
    /// Tells what comes from this open document from what comes from others.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Of a document that nobody runs.
    #[cfg(test)]
    pub(crate) fn lone(number: u64) -> Self {
        let (inbox, _nobody) = mpsc::channel(1);
        Self { inbox, number }
    }

    /// Delivers, waiting while the inbox is full.
    pub async fn send(&self, delivery: Delivery) -> Result<(), DocumentGone> {
        self.inbox.send(delivery).await.map_err(|_| DocumentGone)
    }

    /// The heads of all that is durable when the document comes to this.
    pub async fn heads(&self) -> Result<Vec<ChangeHash>, DocumentGone> {
        self.ask(Delivery::Heads).await
    }

    /// The place of a durable change.
    pub async fn place(&self, hash: ChangeHash) -> Result<Option<Index>, DocumentGone> {
        self.ask(|give| Delivery::Place(hash, give)).await
    }

    /// Says who may do what, and waits until that holds, and is durable.
    pub async fn set_list(
        &self,
        grant: Grant,
        list: AccessList,
        replaces: Option<Replaces>,
    ) -> Result<Result<u64, NotListed>, DocumentGone> {
        let new = |give| NewList {
            grant,
            list,
            replaces,
            give,
        };
        self.ask(|give| Delivery::SetList(Box::new(new(give))))
            .await
    }

    /// Delivers what is to be answered, and waits for the answer.
    pub async fn ask<T>(
        &self,
        delivery: impl FnOnce(oneshot::Sender<T>) -> Delivery,
    ) -> Result<T, DocumentGone> {
        let (give, given) = oneshot::channel();
        self.send(delivery(give)).await?;
        given.await.map_err(|_| DocumentGone)
    }

    /// Waits until the document's task has ended.
    pub async fn closed(&self) {
        self.inbox.closed().await;
    }

    /// Tells the document that the connection has room again. Does not wait.
    pub fn drained(self, connection: ConnectionId) {
        let delivery = Delivery::Input(Input::Drained(connection));
        if let Err(mpsc::error::TrySendError::Full(delivery)) = self.inbox.try_send(delivery) {
            // The inbox is full of work; this waits in line without holding up the writer. At most
            // one per congestion of a connection and document.
            tokio::spawn(async move { self.send(delivery).await });
        }
    }
}

impl Registry {
    /// A registry without open documents.
    #[expect(
        clippy::too_many_arguments,
        reason = "parts of the server, each made elsewhere"
    )]
    pub fn new(
        store: Arc<dyn Store>,
        committer: Committer,
        config: &Config,
        storage: StorageId,
        heavy: Arc<Semaphore>,
        ledger: Arc<Ledger>,
        stop: CancellationToken,
        metrics: Metrics,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                store,
                committer,
                heavy,
                uploads: Arc::new(Semaphore::new(CONCURRENT_LARGE_UPLOADS)),
                fetches: Arc::new(Semaphore::new(assemble::CONCURRENT_FETCHES)),
                policy: Policy {
                    request_grace_ms: config.request_grace_ms,
                    parking: super::admission::ParkingLimits::default(),
                    storage,
                    message_bytes: assemble::MOST_BYTES_PER_MESSAGE,
                },
                idle: std::time::Duration::from_secs(config.idle_seconds),
                memory_budget: config.documents_mib << 20,
                ledger,
                memory: AtomicUsize::new(0),
                opened: AtomicU64::new(0),
                pressure: Notify::new(),
                stop,
                metrics,
            }),
            open: Arc::default(),
            tasks: TaskTracker::new(),
        }
    }

    /// The document, opened if need be and if there is memory for it. Never waits: what the store has of
    /// it is read by its task.
    pub fn open(&self, document: &DocumentId) -> Result<DocumentHandle, OutOfMemoryBudget> {
        let mut open = self.lock();
        if let Some(handle) = open.get(document) {
            return Ok(handle.clone());
        }
        if self.shared.is_full() {
            return Err(OutOfMemoryBudget);
        }
        let (inbox, deliveries) = mpsc::channel(INBOX_MESSAGES_PER_DOCUMENT);
        let number = self.shared.opened.fetch_add(1, Ordering::Relaxed) + 1;
        let handle = DocumentHandle { inbox, number };
        open.insert(document.clone(), handle.clone());
        drop(open);
        // Not only when it has been read: many that are asked for at once would all be let in.
        self.shared.account(0, task::TASK_BYTES);
        self.shared.metrics.documents_open.increment(1);
        let task = task::run(
            Arc::clone(&self.shared),
            self.clone(),
            document.clone(),
            deliveries,
        );
        self.tasks.spawn(task);
        Ok(handle)
    }

    /// Waits until open documents take more memory than they may.
    pub async fn pressed(&self) {
        self.shared.pressure.notified().await;
    }

    /// Whether nothing can be written any more.
    pub fn is_poisoned(&self) -> bool {
        self.shared.committer.is_poisoned()
    }

    /// Documents in memory.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    /// Waits until all documents have closed; call after cancelling `stop`.
    pub async fn closed(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Whether nobody holds a document's handle, and nothing is on its way to it. The map holds one.
    pub(super) fn is_left(deliveries: &mpsc::Receiver<Delivery>) -> bool {
        deliveries.is_empty() && deliveries.sender_strong_count() <= 1
    }

    /// Called by a task that wants to end because it is idle: `true` if it may, and is forgotten.
    pub(super) fn forget_if_unused(
        &self,
        document: &DocumentId,
        deliveries: &mpsc::Receiver<Delivery>,
    ) -> bool {
        let mut open = self.lock();
        // With the lock held nobody can get another handle.
        let unused = Self::is_left(deliveries);
        if unused {
            open.remove(document);
            self.shared.metrics.documents_open.decrement(1);
        }
        unused
    }

    /// Called by a task that must end now: later openers get a new one.
    pub(super) fn forget(&self, document: &DocumentId) {
        self.lock().remove(document);
        self.shared.metrics.documents_open.decrement(1);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<DocumentId, DocumentHandle>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// Replaces a document's share of the memory in use; `true` while all together are in budget.
    pub(super) fn account(&self, before: usize, now: usize) -> bool {
        let all = self
            .memory
            .fetch_add(now, Ordering::Relaxed)
            .wrapping_add(now);
        self.memory.fetch_sub(before, Ordering::Relaxed);
        let in_budget = all.wrapping_sub(before) <= self.memory_budget;
        if !in_budget {
            self.pressure.notify_waiters();
        }
        in_budget
    }

    /// Whether memory is so short that no further document may be opened, though those that nobody has
    /// open went.
    fn is_full(&self) -> bool {
        let most = self
            .memory_budget
            .saturating_add(self.memory_budget / BUDGET_SLACK_SHARE);
        self.memory.load(Ordering::Relaxed) > most
    }
}
