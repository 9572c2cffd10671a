//! The task of one open document: feeds the pure [`Document`] and carries out its effects.
//!
//! Waiting goes one way only. The task waits for room at the committer, and while it does its inbox
//! fills and connections wait for it. It never waits for a connection: outboxes take frames at once
//! (`connection::outbox`). Completions come over a channel of their own with a slot reserved for each
//! write, so the committer never waits for the task.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::{Arc, Weak};
use std::time::Instant;

use concord_shared::access::AccessList;
use concord_shared::code::ErrorCode;
use concord_shared::ids::{DocumentId, PeerId};
use concord_shared::wire::SyncFrame;
use rustc_hash::FxHashMap;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tracing::{debug, error};

use super::ConnectionId;
use super::actor::{Document, Effects, Input};
use super::assemble::{AssembleError, FetchId, Fetched};
use super::compaction::{Built, CompactError};
use super::opening::Sizes;
use super::registry::{Delivery, DocumentHandle, NotListed, Registry, Shared};
use crate::access::Grant;
use crate::access::grants::{Claim, Deletion};
use crate::connection::Goodbye;
use crate::connection::caller::Caller;
use crate::connection::outbox::Outbox;
use crate::limits::ledger::Bill;
use crate::store::{DocumentWriter, Ticket, Tickets, Write, WriteFailed};

pub use self::work::TASK_BYTES;

mod access;
mod quotas;
mod start;
#[cfg(test)]
mod tests;
mod work;

/// Inputs taken in before messages are made: what came together goes out together.
const INPUTS_PER_FLUSH: usize = 64;

/// A connection, as a document sees it.
#[derive(Debug)]
pub struct Link {
    /// Where its frames go.
    pub outbox: Arc<Outbox>,
    /// Who this server is.
    pub server: PeerId,
    /// Who the frames are for.
    pub peer: PeerId,
    /// Makes its sync frames.
    pub sync_frame: SyncFrame,
    /// The way back here, for when the outbox has room again.
    pub document: DocumentHandle,
    /// What whoever is there may do.
    pub grant: Grant,
    /// The peer is to be told of the document, without its asking: it asked before it had a role.
    pub is_to_begin: bool,
}

/// A write on its way to the disk.
#[derive(Debug)]
enum Pending {
    /// Whose the document is.
    Claim(Grant),
    /// That it is deleted.
    Deletion(Grant, oneshot::Sender<bool>),
    /// That it is not deleted any more.
    Undeletion(Undone),
    /// Who may do what.
    List {
        grant: Grant,
        number: u64,
        list: AccessList,
        give: oneshot::Sender<Result<u64, NotListed>>,
    },
    Append {
        end: u32,
        bytes: u64,
    },
    Upload {
        end: u32,
        snapshot_bytes: u64,
    },
    Compaction {
        base: u64,
        snapshot_bytes: u64,
        covered_bytes: u64,
    },
}

/// What ends a blocking job.
enum Done {
    Fetched(FetchId, Result<Fetched, AssembleError>),
    Compacted(Result<Built, CompactError>),
}

/// Why the task ends.
enum End {
    /// Nobody needs the document.
    Idle,
    /// It was deleted, or is there again: whoever opens it from here on finds that in the store.
    Over(Option<Undone>),
    /// The server stops.
    Stopped,
    /// A write failed: what is in memory may not be what is on disk, so it is dropped.
    WriteFailed(WriteFailed),
}

/// That it is deleted is taken back, and who is told.
type Undone = (Box<Deletion>, oneshot::Sender<bool>);

#[expect(clippy::struct_excessive_bools, reason = "independent facts")]
struct Task {
    id: DocumentId,
    shared: Arc<Shared>,
    document: Document,
    links: FxHashMap<ConnectionId, Link>,
    /// Tells when what peers may do has changed: the grant of one of them, whichever came first.
    grant: Option<Grant>,
    /// Whose the document is, while there is nothing of it: to be written before what comes first.
    claim: Option<Claim>,
    /// Those who hold on to that, and have sent nothing yet.
    holds: Vec<Weak<()>>,
    /// To be written before any change that is not yet: who may do what, and that it is not deleted any more.
    said: Vec<(Write, Pending)>,
    /// To be written behind all changes, of which none comes any more: that it is deleted.
    deletion: Option<(Write, Grant, oneshot::Sender<bool>)>,
    /// It is deleted, or not any more; nothing more is taken in.
    is_over: bool,
    undone: Option<Undone>,
    /// The number of the last of these, written or not.
    last_said: Option<u64>,
    /// Who was on connections that went, until what came from them before has been judged.
    left: Vec<(ConnectionId, Arc<Caller>)>,
    writer: DocumentWriter,
    tickets: Tickets,
    pending: VecDeque<(Ticket, Pending)>,
    jobs: JoinSet<Done>,
    sizes: Sizes,
    /// What the document takes, with what is on its way.
    bill: Bill,
    /// And with what may come of messages that were not judged yet.
    has_promised: bool,
    compacting: bool,
    /// A compaction failed: not tried again before the document is opened anew.
    no_compaction: bool,
    wake_at_ms: Option<u64>,
    last_active: Instant,
    memory: usize,
    in_budget: bool,
    rested: bool,
    /// Somebody other than its view has had the document open, and may come back.
    had_peers: bool,
    started: Instant,
}

/// Runs a document from opening to unloading.
pub async fn run(
    shared: Arc<Shared>,
    registry: Registry,
    id: DocumentId,
    mut deliveries: mpsc::Receiver<Delivery>,
) {
    let mut waiting = Vec::new();
    // Boxed, here and below: what is needed at the beginning and at the end should not take memory
    // between.
    let mut is_over = false;
    let mut undone = None;
    let started = Box::pin(start::start(&shared, &id, &mut deliveries, &mut waiting)).await;
    match started {
        Ok((mut task, settled)) => {
            let end = match settled {
                Ok(()) => task.live(&registry, &mut deliveries).await,
                Err(failed) => End::WriteFailed(failed),
            };
            task.shared.account(task.memory, 0);
            task.give_back_claim();
            if task.document.graph().is_empty() {
                shared.ledger.never_made(&mut task.bill);
            }
            match end {
                End::Idle => {
                    debug!(document = %id, "document unloaded");
                    return;
                }
                End::Over(of) => (is_over, undone) = (true, of),
                End::Stopped => {}
                End::WriteFailed(failed) => {
                    if let Some(grant) = &task.grant {
                        grant.doubt().await;
                    }
                    error!(document = %id, error = %Report(&failed), "write failed: document closed");
                    // As far as is known: what was written all the same counts when the server starts anew.
                    task.bill.is(task.sizes.bytes());
                    if task.sizes.bytes() == 0 {
                        shared.ledger.never_made(&mut task.bill);
                    }
                    task.close_all(ErrorCode::StorageFailed);
                }
            }
        }
        Err(error) => {
            shared.account(TASK_BYTES, 0);
            error!(document = %id, error = %Report(&error), "document can't be opened");
        }
    }
    // Out of the map first: who opens it from here on gets a new task. Then those who wait already, and
    // those who were on the way.
    registry.forget(&id);
    deliveries.close();
    let code = if shared.stop.is_cancelled() {
        ErrorCode::ShuttingDown
    } else if is_over {
        // Who comes again finds what there is.
        ErrorCode::Closed
    } else {
        ErrorCode::StorageFailed
    };
    for delivery in waiting {
        turn_away(delivery, code);
    }
    while let Some(delivery) = deliveries.recv().await {
        turn_away(delivery, code);
    }
    // Only now: who may have it again would come to this task, and be turned away.
    if let Some((deletion, give)) = undone {
        if let Err(error) = deletion.now_undone().await {
            error!(document = %id, error = %Report(&error), "access can't be read: it is there again at the next start");
        } else {
            let _gone = give.send(true);
        }
    }
}

/// Closes the connection of somebody who wanted to open the document.
fn turn_away(delivery: Delivery, code: ErrorCode) {
    if let Delivery::Open(_, link) = delivery {
        link.outbox.close(Goodbye::new(code));
    }
}

impl Task {
    fn new(shared: &Arc<Shared>, id: DocumentId, started: start::Started) -> Self {
        let start::Started {
            opened,
            writer,
            tickets,
            said,
        } = started;
        let bill = shared.ledger.bill(&said, opened.sizes.bytes());
        Self {
            id,
            shared: Arc::clone(shared),
            document: Document::new(opened.history, shared.policy.clone()),
            links: FxHashMap::default(),
            grant: None,
            claim: None,
            holds: Vec::new(),
            said: Vec::new(),
            deletion: None,
            is_over: false,
            undone: None,
            last_said: None,
            left: Vec::new(),
            writer,
            tickets,
            pending: VecDeque::new(),
            jobs: JoinSet::new(),
            sizes: opened.sizes,
            bill,
            has_promised: false,
            compacting: false,
            no_compaction: false,
            wake_at_ms: None,
            last_active: Instant::now(),
            memory: TASK_BYTES,
            in_budget: true,
            rested: false,
            had_peers: false,
            started: Instant::now(),
        }
    }

    async fn live(
        &mut self,
        registry: &Registry,
        deliveries: &mut mpsc::Receiver<Delivery>,
    ) -> End {
        let stop = self.shared.stop.clone();
        let mut batch = Vec::new();
        let mut effects = Effects::default();
        loop {
            let wait = self.next_timer();
            let step: Result<(), WriteFailed> = tokio::select! {
                biased;
                progress = self.tickets.changed(), if !self.pending.is_empty() => {
                    self.progressed(&progress, &mut effects)
                }
                Some(done) = self.jobs.join_next(), if !self.jobs.is_empty() => match done {
                    Ok(done) => self.done(done, &mut effects).await,
                    Err(panicked) => {
                        error!(document = %self.id, error = %panicked, "blocking job panicked");
                        self.close_all(ErrorCode::Internal);
                        return End::Stopped;
                    }
                },
                // Before what would go to whoever may not have it any more.
                () = changed(&mut self.grant) => {
                    self.look_at_roles(&mut effects);
                    Ok(())
                }
                _ = deliveries.recv_many(&mut batch, INPUTS_PER_FLUSH) => {
                    self.last_active = Instant::now();
                    self.rested = false;
                    for delivery in batch.drain(..) {
                        self.deliver(delivery, &mut effects);
                    }
                    Ok(())
                }
                () = self.shared.pressure.notified(), if self.is_unused() => Ok(()),
                () = tokio::time::sleep(wait) => {
                    self.input(Input::Tick, &mut effects);
                    Ok(())
                }
                () = stop.cancelled(), if self.may_stop() => {
                    return Box::pin(self.stop(deliveries, &mut effects)).await;
                }
            };
            if let Err(failed) = step {
                return End::WriteFailed(failed);
            }
            if let Err(failed) = self.settle(&mut effects).await {
                return End::WriteFailed(failed);
            }
            if let ControlFlow::Break(end) = self.housekeeping(registry, deliveries) {
                return end;
            }
        }
    }
}

/// Waits until what somebody may do has changed. Cancel safe.
async fn changed(grant: &mut Option<Grant>) {
    match grant {
        Some(grant) => grant.changed().await,
        None => std::future::pending().await,
    }
}

/// An error with its causes on one line.
pub(crate) struct Report<'a>(pub(crate) &'a dyn std::error::Error);

impl std::fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}
