//! Bringing a document up, and serving joiners meanwhile.

use std::sync::Arc;

use bytes::Bytes;
use concord_shared::access::Role;
use concord_shared::ids::DocumentId;
use rustc_hash::{FxHashMap, FxHashSet};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::warn;

use super::{Link, Task};
use crate::document::ConnectionId;
use crate::document::actor::{Effects, Frame, Input};
use crate::document::aside::aside;
use crate::document::early::{self, Whole};
use crate::document::graph::Index;
use crate::document::opening::{self, OpenError, Opened};
use crate::document::registry::{Delivery, Shared};
use crate::limits::ledger::Said;
use crate::permit::turn;
use crate::store::{DocumentWriter, Health, SubmitError, Tickets, WriteFailed};

/// Deliveries taken in while the document is being opened; further ones wait in the inbox.
const DELIVERIES_WHILE_OPENING: usize = 128;

/// Why a document could not be brought up.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("opening panicked")]
    Panicked,
    #[error(transparent)]
    Write(#[from] WriteFailed),
}

/// A document found in the store, and the way to write to it.
pub(super) struct Started {
    pub(super) opened: Opened,
    pub(super) writer: DocumentWriter,
    pub(super) tickets: Tickets,
    /// Who answers for what is stored of it, and how much was said of it.
    pub(super) said: Said,
}

/// A stored document for joiners, read ahead. `None` when they have to wait for the document after all.
type Read = Option<Whole>;

/// Opens a document. Deliveries that come in the meantime wait in `waiting`, but joiners are served: all of
/// them with what is read once, and before the opening goes on, which reads more and would only slow that. The task, and
/// whether what these deliveries wanted to write could be.
pub(super) async fn start(
    shared: &Arc<Shared>,
    id: &DocumentId,
    deliveries: &mut mpsc::Receiver<Delivery>,
    waiting: &mut Vec<Delivery>,
) -> Result<(Box<Task>, Result<(), WriteFailed>), StartError> {
    // What a failed write left in the store may not be on the disk: nobody may be told of it, joiners who are served
    // ahead of the opening least of all.
    if let Health::Poisoned(error) = &*shared.committer.health().borrow() {
        return Err(WriteFailed::Refused(SubmitError::Poisoned(Arc::clone(error))).into());
    }
    let opening = async {
        // Somebody's first message is right behind.
        tokio::task::yield_now().await;
        open(shared, id).await
    };
    tokio::pin!(opening);
    let mut reading: JoinSet<Read> = JoinSet::new();
    let mut read: Option<Read> = None;
    // For those who may write, and for those who may not: made when the first of them is there.
    let mut messages: [Option<Bytes>; 2] = [None, None];
    let mut joiners: Vec<ConnectionId> = Vec::new();
    let mut spoken = FxHashSet::default();
    let mut served: FxHashMap<ConnectionId, Index> = FxHashMap::default();
    let started = loop {
        if let Some(Some(whole)) = &read {
            for joiner in joiners.drain(..) {
                // Who has no room, or no role any more, is for the document.
                if let Some(link) = link_of(waiting, joiner)
                    && let role @ (Role::Reader | Role::Writer | Role::Owner) = link.grant.role()
                    && !link.outbox.is_congested(&link.document)
                {
                    let [writers, readers] = &mut messages;
                    let read_only = role == Role::Reader;
                    let message = if read_only { readers } else { writers };
                    let message = message.get_or_insert_with(|| aside(|| whole.message(read_only)));
                    let frame = link.frame(id, &Frame::Sync(message.clone()));
                    link.outbox.push(frame, Some(&link.document));
                    served.insert(joiner, whole.to);
                }
            }
        }
        tokio::select! {
            biased;
            Some(whole) = reading.join_next() => read = Some(whole.ok().flatten()),
            Some(delivery) = deliveries.recv(), if waiting.len() < DELIVERIES_WHILE_OPENING => {
                if let Delivery::Input(Input::Message(connection, message)) = &delivery
                    && spoken.insert(*connection)
                    && early::is_joiner(message)
                {
                    joiners.push(*connection);
                    if read.is_none() && reading.is_empty() {
                        read_for_joiners(&mut reading, shared, id);
                    }
                }
                waiting.push(delivery);
            }
            started = &mut opening, if reading.is_empty() => break started?,
        }
    };
    // Joiners that were not served by now are served by the document, as any other peer.
    let mut task = Box::new(Task::new(shared, id.clone(), started));
    let mut effects = Effects::default();
    for delivery in waiting.drain(..) {
        let sender = match &delivery {
            Delivery::Input(Input::Message(connection, _)) => Some(*connection),
            _ => None,
        };
        task.deliver(delivery, &mut effects);
        if let Some(connection) = sender
            && let Some(to) = served.remove(&connection)
        {
            task.input(Input::Served(connection, to), &mut effects);
        }
    }
    let settled = task.settle(&mut effects).await;
    Ok((task, settled))
}

fn link_of(waiting: &[Delivery], of: ConnectionId) -> Option<&Link> {
    waiting.iter().find_map(|delivery| match delivery {
        Delivery::Open(connection, link) if *connection == of => Some(&**link),
        _ => None,
    })
}

fn read_for_joiners(reading: &mut JoinSet<Read>, shared: &Arc<Shared>, id: &DocumentId) {
    let store = Arc::clone(&shared.store);
    let permits = Arc::clone(&shared.fetches);
    let most_bytes = shared.policy.message_bytes;
    let id = id.clone();
    reading.spawn(async move {
        let permit = turn(&permits).await;
        let whole = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            early::whole(&*store, &id, most_bytes)
        });
        whole.await.ok()?.ok().flatten()
    });
}

async fn open(shared: &Arc<Shared>, id: &DocumentId) -> Result<Started, StartError> {
    let store = Arc::clone(&shared.store);
    let document = id.clone();
    let ledger = Arc::clone(&shared.ledger);
    let opening = tokio::task::spawn_blocking(move || {
        let opened = opening::open(&*store, &document)?;
        // What is deleted is counted by its tombstone. There is nothing to be opened of it.
        let is_deleted = opened.sizes.bytes() == 0 && store.tombstone(&document)?.is_some();
        let said = if is_deleted {
            Said::default()
        } else {
            ledger.said(&*store, &document)?
        };
        Ok::<_, OpenError>((opened, said))
    });
    let (mut opened, said) = opening.await.map_err(|_| StartError::Panicked)??;
    let (mut writer, mut tickets) = shared.committer.document();
    if let Some(repair) = opened.repair.take() {
        warn!(document = %id, "stored change graph was unusable: rebuilt from the snapshot");
        let ticket = writer.submit(repair).await.map_err(WriteFailed::from)?;
        tickets.done(ticket).await?;
    }
    Ok(Started {
        opened,
        writer,
        tickets,
        said,
    })
}
