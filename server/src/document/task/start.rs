//! Bringing a document up, and serving joiners meanwhile.

use std::sync::Arc;

use bytes::Bytes;
use concord_shared::ids::DocumentId;
use rustc_hash::{FxHashMap, FxHashSet};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::warn;

use super::{Link, Task, WriteFailed};
use crate::document::ConnectionId;
use crate::document::actor::{Effects, Frame, Input};
use crate::document::early;
use crate::document::graph::Index;
use crate::document::opening::{self, OpenError, Opened};
use crate::document::registry::{Delivery, Shared};
use crate::store::{DocumentWriter, Tickets};

/// Deliveries taken in while the document is being opened; further ones wait in the inbox.
const DELIVERIES_WHILE_OPENING: usize = 128;

/// Why a document could not be brought up.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("the store failed: no document is opened until the server is started anew")]
    Poisoned,
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
}

/// A joiner's whole document, read ahead: how many changes, and the sync message. `None` when it has
/// to wait for the document after all.
type Read = (ConnectionId, Option<(Index, Bytes)>);

/// Opens a document. Deliveries that come in the meantime wait, but joiners are served.
pub(super) async fn start(
    shared: &Arc<Shared>,
    id: &DocumentId,
    deliveries: &mut mpsc::Receiver<Delivery>,
) -> Result<Task, StartError> {
    let opening = open(shared, id);
    tokio::pin!(opening);
    let mut waiting = Vec::new();
    let mut reading: JoinSet<Read> = JoinSet::new();
    let mut joiners = FxHashSet::default();
    let mut served: FxHashMap<ConnectionId, Index> = FxHashMap::default();
    let started = loop {
        tokio::select! {
            biased;
            Some(Ok((connection, whole))) = reading.join_next() => {
                if let Some((to, message)) = whole
                    && let Some(link) = link_of(&waiting, connection)
                {
                    let frame = link.frame(id, &Frame::Sync(message));
                    link.outbox.push(frame, None);
                    served.insert(connection, to);
                }
            }
            started = &mut opening => break started?,
            Some(delivery) = deliveries.recv(), if waiting.len() < DELIVERIES_WHILE_OPENING => {
                if let Delivery::Input(Input::Message(connection, message)) = &delivery
                    && joiners.insert(*connection)
                    && early::is_joiner(message)
                {
                    read_for(&mut reading, shared, id, *connection);
                }
                waiting.push(delivery);
            }
        }
    };
    // Joiners that were not served by now are served by the document, as any other peer.
    let mut task = Task::new(shared, id.clone(), started);
    let mut effects = Effects::default();
    for delivery in waiting {
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
    task.settle(&mut effects).await?;
    Ok(task)
}

fn link_of(waiting: &[Delivery], of: ConnectionId) -> Option<&Link> {
    waiting.iter().find_map(|delivery| match delivery {
        Delivery::Open(connection, link) if *connection == of => Some(&**link),
        _ => None,
    })
}

fn read_for(
    reading: &mut JoinSet<Read>,
    shared: &Arc<Shared>,
    id: &DocumentId,
    connection: ConnectionId,
) {
    let store = Arc::clone(&shared.store);
    let id = id.clone();
    reading.spawn_blocking(move || {
        let whole = early::whole(&*store, &id);
        (connection, whole.ok().flatten())
    });
}

async fn open(shared: &Arc<Shared>, id: &DocumentId) -> Result<Started, StartError> {
    // The store still reads, and gives back what it could not make durable: nobody may be shown that.
    if shared.committer.is_poisoned() {
        return Err(StartError::Poisoned);
    }
    let store = Arc::clone(&shared.store);
    let document = id.clone();
    let opening = tokio::task::spawn_blocking(move || opening::open(&*store, &document));
    let mut opened = opening.await.map_err(|_| StartError::Panicked)??;
    let (mut writer, mut tickets) = shared.committer.document();
    if let Some(repair) = opened.repair.take() {
        warn!(document = %id, "stored change graph was unusable: rebuilt from the snapshot");
        writer.submit(repair).await.map_err(WriteFailed::from)?;
        if let Some(error) = tickets.changed().await.failed {
            return Err(WriteFailed::Failed(error).into());
        }
    }
    Ok(Started {
        opened,
        writer,
        tickets,
    })
}
