//! What the task does with deliveries, effects and finished jobs.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use concord_shared::code::ErrorCode;
use concord_shared::ids::DocumentId;
use concord_shared::wire::{Message, RemoteHeads};
use tokio::sync::mpsc;
use tracing::{error, info, trace, warn};

use super::{Done, End, Link, Pending, Report, Task, WriteFailed};
use crate::audit::event::Event;
use crate::clock::unix_ms;
use crate::connection::Goodbye;
use crate::connection::caller::Refused;
use crate::connection::outbox::Pushed;
use crate::document::actor::{Effects, Frame, Input, Rejection};
use crate::document::append::Append;
use crate::document::aside::aside;
use crate::document::assemble::{AssembleError, Fetch};
use crate::document::compaction::{self, Built, CompactError, Occasion};
use crate::document::opening::Sizes;
use crate::document::registry::{Delivery, Registry};
use crate::document::remote_heads::Moved;
use crate::document::{ConnectionId, Now};
use crate::permit::turn;
use crate::store::{Progress, Write};

/// What an open document takes besides its history and its peers, roughly, in bytes: measured by
/// `cargo xtask bench`, as the memory of small documents.
pub const TASK_BYTES: usize = 12 << 10;

/// Changes of an upload that take more, in bytes, wait for a permit before they are made into a snapshot. Every
/// document that a client creates is an upload; most are hundreds of bytes.
const SMALL_UPLOAD_BYTES: usize = 256 << 10;

impl Task {
    pub(super) fn deliver(&mut self, delivery: Delivery, effects: &mut Effects) {
        match delivery {
            Delivery::Open(connection, link) => {
                self.had_peers |= connection != ConnectionId::VIEW;
                self.welcome(connection, *link, effects);
            }
            Delivery::Regrant(connection, grant) => self.regrant(connection, grant, effects),
            Delivery::Claim(grant, hold, give) => {
                self.claim(&grant, hold.watch(), effects);
                let _gone = give.send(hold);
            }
            Delivery::Released => {}
            Delivery::SetList(new) => self.set_list(*new),
            Delivery::Delete(grant, give) => self.delete(&grant, give, effects),
            Delivery::Room(give) => {
                let _gone = give.send(self.room());
            }
            Delivery::Undelete(deletion, give) => self.undelete((deletion, give)),
            Delivery::Heads(give) => {
                // Whoever asked may have gone.
                let _gone = give.send(self.document.graph().visible_heads().to_vec());
            }
            Delivery::Stretch(places, give) => {
                let _gone = give.send(self.document.graph().stretch(places));
            }
            Delivery::Place(hash, give) => {
                let graph = self.document.graph();
                let place = graph.find(&hash);
                let _gone = give.send(place.filter(|place| *place < graph.visible()));
            }
            Delivery::Input(input) => {
                if let Input::Leave(connection) = &input
                    && let Some(link) = self.links.remove(connection)
                {
                    let caller = Arc::clone(link.outbox.caller());
                    self.left.push((*connection, caller));
                }
                let from = match &input {
                    Input::Message(from, _) => Some(*from),
                    _ => None,
                };
                if let Some(input) = self.permitted(input, effects) {
                    self.input(input, effects);
                }
                if let Some(from) = from {
                    self.notice_congestion(from, effects);
                }
            }
        }
        self.nothing_came_of_it();
    }

    /// A connection that is full of other documents' frames gets no answer before it has room.
    fn notice_congestion(&mut self, connection: ConnectionId, effects: &mut Effects) {
        if let Some(link) = self.links.get(&connection)
            && !self.document.is_congested(connection)
            && link.outbox.is_congested(&link.document)
        {
            self.input(Input::Congested(connection), effects);
        }
    }

    pub(super) fn input(&mut self, input: Input, effects: &mut Effects) {
        self.document.handle(self.now(), input, effects);
    }

    /// Flushes the document and carries out what it wants.
    pub(super) async fn settle(&mut self, effects: &mut Effects) -> Result<(), WriteFailed> {
        self.document.flush(self.now(), effects);
        // Destructured in full, so that a new effect can't be forgotten.
        let Effects {
            appends,
            frames,
            fetches,
            rejected,
            wake_at_ms,
        } = std::mem::take(effects);
        self.wake_at_ms = wake_at_ms;
        let was_promised = !appends.is_empty() || self.has_promised;
        // In this order: nothing is ever stored of a document that is nobody's, and whose it is is said first.
        if let Some(claim) = self.claim.take_if(|_| !appends.is_empty()) {
            let (write, by) = claim.into_write();
            self.submit(write, Pending::Claim(by)).await?;
        }
        for (write, pending) in std::mem::take(&mut self.said) {
            self.submit(write, pending).await?;
        }
        if !appends.is_empty() {
            // Boxed: the many documents where nothing happens should not hold its room.
            Box::pin(self.append(appends)).await?;
        }
        if was_promised {
            self.settle_bill();
        }
        if let Some((write, grant, give)) = self.deletion.take() {
            self.submit(write, Pending::Deletion(grant, give)).await?;
        }
        for (connection, frame) in frames {
            self.send(connection, &frame, effects);
        }
        for fetch in fetches {
            self.fetch(fetch);
        }
        for (connection, rejection) in rejected {
            self.reject(connection, &rejection);
        }
        self.left.clear();
        Ok(())
    }

    async fn append(&mut self, appends: Vec<Append>) -> Result<(), WriteFailed> {
        for append in appends {
            let (end, id) = (append.end(), self.id.clone());
            let (changes, bytes) = (append.count(), append.bytes());
            let write = match append {
                upload @ Append::Upload { .. } => {
                    let _permit = if bytes > SMALL_UPLOAD_BYTES {
                        turn(&self.shared.uploads).await
                    } else {
                        None
                    };
                    aside(|| upload.into_write(id))
                }
                changes @ Append::Changes { .. } => changes.into_write(id),
            };
            let pending = match &write {
                Write::Snapshot { snapshot, .. } => Pending::Upload {
                    end,
                    snapshot_bytes: snapshot.len() as u64,
                },
                _ => Pending::Append {
                    end,
                    bytes: bytes as u64,
                },
            };
            self.shared.metrics.changes_in.increment(u64::from(changes));
            self.submit(write, pending).await?;
        }
        Ok(())
    }

    async fn submit(&mut self, write: Write, pending: Pending) -> Result<(), WriteFailed> {
        let ticket = self.writer.submit(write).await?;
        self.pending.push_back((ticket, pending));
        Ok(())
    }

    /// Writes on their way have arrived, or failed.
    pub(super) fn progressed(
        &mut self,
        progress: &Progress,
        effects: &mut Effects,
    ) -> Result<(), WriteFailed> {
        while let Some((ticket, pending)) = self.pending.pop_front() {
            if ticket > progress.committed {
                self.pending.push_front((ticket, pending));
                break;
            }
            self.committed(pending, effects);
        }
        match &progress.failed {
            None => Ok(()),
            Some(error) => Err(WriteFailed::Failed(Arc::clone(error))),
        }
    }

    fn committed(&mut self, pending: Pending, effects: &mut Effects) {
        match pending {
            Pending::Claim(grant) => {
                grant.now_made();
                let list = grant.list().map(|(_, list)| list).unwrap_or_default();
                let (document, list) = (&self.id, &list);
                grant.trail().record(&Event::Made { document, list });
            }
            Pending::Deletion(grant, give) => {
                let document = &self.id;
                grant.trail().record(&Event::Deleted { document });
                let _gone = give.send(true);
            }
            Pending::Undeletion(undone) => {
                let document = &self.id;
                undone.0.trail().record(&Event::Undeleted { document });
                self.undone = Some(undone);
            }
            Pending::List {
                grant,
                number,
                list,
                give,
            } => {
                grant.now_listed(number, list);
                // The first who says something of a document that nobody made answers for it.
                if number == 0
                    && let Some(maker) = grant.principal()
                {
                    self.shared.ledger.charge(&mut self.bill, maker);
                }
                self.look_at_roles(effects);
                // Only now: who is told may rely on it.
                let _gone = give.send(Ok(number));
            }
            Pending::Append { end, bytes } => {
                self.sizes.tail_bytes += bytes;
                self.input(Input::Committed(end), effects);
            }
            Pending::Upload {
                end,
                snapshot_bytes,
            } => {
                self.sizes = Sizes {
                    base: u64::from(end),
                    snapshot_bytes,
                    tail_bytes: 0,
                };
                self.input(Input::Committed(end), effects);
            }
            Pending::Compaction {
                base,
                snapshot_bytes,
                covered_bytes,
            } => {
                let before = self.sizes;
                self.sizes = Sizes {
                    base,
                    snapshot_bytes,
                    tail_bytes: before.tail_bytes.saturating_sub(covered_bytes),
                };
                self.settle_bill();
                self.compacting = false;
                self.shared.metrics.compactions.increment(1);
                info!(
                    document = %self.id,
                    changes = base,
                    snapshot_bytes,
                    tail_bytes_before = before.tail_bytes,
                    "compacted"
                );
            }
        }
    }

    pub(super) async fn done(
        &mut self,
        done: Done,
        effects: &mut Effects,
    ) -> Result<(), WriteFailed> {
        match done {
            Done::Fetched(fetch, result) => {
                let fetched = result
                    .inspect_err(
                        |e| error!(document = %self.id, error = %Report(e), "fetch failed"),
                    )
                    .ok();
                self.input(Input::Fetched(fetch, fetched.map(Box::new)), effects);
            }
            Done::Compacted(Ok(built)) => Box::pin(self.compacted(built)).await?,
            Done::Compacted(Err(e)) => {
                warn!(document = %self.id, error = %Report(&e), "not compacted");
                self.compacting = false;
                self.no_compaction = true;
            }
        }
        Ok(())
    }

    async fn compacted(&mut self, built: Built) -> Result<(), WriteFailed> {
        let Built {
            write,
            covered_bytes,
        } = built;
        if let Some(write) = write
            && !self.is_over
            && let Write::Snapshot { base, snapshot, .. } = &write
        {
            let pending = Pending::Compaction {
                base: *base,
                snapshot_bytes: snapshot.len() as u64,
                covered_bytes,
            };
            return self.submit(write, pending).await;
        }
        // There was no tail, whatever we believed: or this would be tried again at once, for ever.
        self.sizes.tail_bytes = 0;
        self.compacting = false;
        Ok(())
    }

    fn send(&mut self, connection: ConnectionId, frame: &Frame, effects: &mut Effects) {
        let Some(link) = self.links.get(&connection) else {
            return;
        };
        let bytes = link.frame(&self.id, frame);
        trace!(connection = connection.0, bytes = bytes.len(), "sending");
        match link.outbox.push(bytes, Some(&link.document)) {
            Pushed::Queued | Pushed::Closed => {}
            Pushed::Congested => {
                self.shared.metrics.outbox_overflows.increment(1);
                self.input(Input::Congested(connection), effects);
            }
            Pushed::Overflowed => link.outbox.abandon(Goodbye::new(ErrorCode::Overloaded)),
        }
    }

    fn fetch(&mut self, fetch: Fetch) {
        let store = Arc::clone(&self.shared.store);
        let id = self.id.clone();
        let permits = Arc::clone(&self.shared.fetches);
        let of = fetch.id;
        let outbox = self.links.get(&of.connection);
        let outbox = outbox.map(|link| Arc::clone(&link.outbox));
        let stop = self.shared.stop.clone();
        self.jobs.spawn(async move {
            // Who does not take what was made for them already gets nothing large made besides.
            let permit = loop {
                if let Some(outbox) = &outbox {
                    tokio::select! {
                        () = outbox.room() => {}
                        () = stop.cancelled() => {}
                    }
                }
                let permit = turn(&permits).await;
                let has_room = outbox.as_ref().is_none_or(|outbox| outbox.has_room());
                if has_room || stop.is_cancelled() {
                    break permit;
                }
            };
            let run = tokio::task::spawn_blocking(move || {
                let _permit = permit;
                fetch.run(&*store, &id)
            });
            Done::Fetched(of, run.await.unwrap_or(Err(AssembleError::Panicked)))
        });
    }

    fn reject(&mut self, connection: ConnectionId, rejection: &Rejection) {
        let code = rejection.code();
        let (hash, reason): (_, &dyn std::error::Error) = match rejection {
            Rejection::Change(refusal) => (Some(&refusal.hash), &refusal.reason),
            other => (None, other),
        };
        let link = self.links.remove(&connection);
        // Who sends and goes before it is judged was refused all the same.
        let caller = match &link {
            Some(link) => Some(link.outbox.caller()),
            None => self
                .left
                .iter()
                .find_map(|(id, caller)| (*id == connection).then_some(caller)),
        };
        if let Some(caller) = caller {
            caller.refused(Refused {
                code,
                document: Some(&self.id),
                hash,
                reason: &Report(reason),
            });
        }
        if let Some(link) = link {
            link.outbox.close(Goodbye {
                detail: rejection.to_string(),
                hash: hash.copied(),
                is_recorded: true,
                ..Goodbye::new(code)
            });
        }
    }

    pub(super) fn close_all(&mut self, code: ErrorCode) {
        for (_, link) in self.links.drain() {
            link.outbox.close(Goodbye::new(code));
        }
    }

    /// Compacts, rests or ends, when it is time to.
    pub(super) fn housekeeping(
        &mut self,
        registry: &Registry,
        deliveries: &mpsc::Receiver<Delivery>,
    ) -> ControlFlow<End> {
        let memory = TASK_BYTES + self.document.memory();
        self.in_budget = self.shared.account(self.memory, memory);
        self.memory = memory;
        if self.is_over && self.is_at_rest() {
            return ControlFlow::Break(End::Over(self.undone.take()));
        }
        if compaction::is_due(self.sizes, Occasion::Busy) {
            self.compact();
        }
        let quiet = self.last_active.elapsed() >= self.shared.idle;
        if quiet && !self.rested {
            self.rested = true;
            self.document.rest();
        }
        if self.is_unused() && (quiet || self.is_not_kept()) {
            if compaction::is_due(self.sizes, Occasion::Resting) {
                self.compact();
            }
            if self.is_at_rest() && Registry::is_left(deliveries) {
                // Who comes from here on, to this task or to the next one, claims it anew.
                self.give_back_claim();
                if registry.forget_if_unused(&self.id, deliveries) {
                    return ControlFlow::Break(End::Idle);
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn compact(&mut self) {
        let is_wanted = !self.compacting && !self.no_compaction && !self.shared.heavy.is_closed();
        if !is_wanted || !self.document.is_settled() {
            return;
        }
        self.compacting = true;
        let store = Arc::clone(&self.shared.store);
        let id = self.id.clone();
        let permits = Arc::clone(&self.shared.heavy);
        let now = self.now();
        self.jobs.spawn(async move {
            let permit = turn(&permits).await;
            let run = tokio::task::spawn_blocking(move || {
                let _permit = permit;
                compaction::build(&*store, &id, now.unix_ms)
            });
            Done::Compacted(run.await.unwrap_or(Err(CompactError::Panicked)))
        });
    }

    /// Whether nobody has the document open.
    pub(super) fn is_unused(&self) -> bool {
        self.links.is_empty() && self.document.peers() == 0
    }

    /// Whether it goes as soon as nobody has it open: memory is short, or only its view had it open, which was kept
    /// for a while already, with all that the document has here and more.
    fn is_not_kept(&self) -> bool {
        !self.in_budget || !self.had_peers
    }

    fn is_at_rest(&self) -> bool {
        self.pending.is_empty() && self.jobs.is_empty() && self.document.is_settled()
    }

    /// Stopping waits for what is on its way to the disk, so that it can still be acknowledged.
    pub(super) fn may_stop(&self) -> bool {
        self.pending.is_empty() && self.document.is_settled()
    }

    /// Takes in what connections had read before they stopped, makes it durable, acknowledges it, and
    /// leaves the store compact for whoever opens the document next.
    pub(super) async fn stop(
        &mut self,
        deliveries: &mut mpsc::Receiver<Delivery>,
        effects: &mut Effects,
    ) -> End {
        while let Ok(delivery) = deliveries.try_recv() {
            self.deliver(delivery, effects);
        }
        if compaction::is_due(self.sizes, Occasion::Resting) {
            self.compact();
        }
        loop {
            if let Err(failed) = self.settle(effects).await {
                return End::WriteFailed(failed);
            }
            let step = if self.pending.is_empty() {
                match self.jobs.join_next().await {
                    None | Some(Err(_)) => return End::Stopped,
                    Some(Ok(done)) => self.done(done, effects).await,
                }
            } else {
                let progress = self.tickets.changed().await;
                self.progressed(&progress, effects)
            };
            if let Err(failed) = step {
                return End::WriteFailed(failed);
            }
        }
    }

    /// How long nothing is due.
    pub(super) fn next_timer(&self) -> std::time::Duration {
        // Who goes may have to wait for somebody to drop their handle.
        const BETWEEN_TRIES: std::time::Duration = std::time::Duration::from_millis(100);
        let housekeeping = if self.is_unused() && self.is_not_kept() {
            BETWEEN_TRIES
        } else if self.rested && !self.links.is_empty() {
            std::time::Duration::from_hours(1)
        } else {
            let left = self.shared.idle.saturating_sub(self.last_active.elapsed());
            left.max(BETWEEN_TRIES)
        };
        match self.wake_at_ms {
            Some(at) => {
                let wait = at.saturating_sub(self.now().monotonic_ms);
                housekeeping.min(std::time::Duration::from_millis(wait))
            }
            None => housekeeping,
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "milliseconds fit 64 bits")]
    pub(super) fn now(&self) -> Now {
        Now {
            monotonic_ms: self.started.elapsed().as_millis() as u64,
            unix_ms: unix_ms(),
        }
    }
}

impl Link {
    /// A frame for this connection: only the addresses differ from peer to peer.
    pub(super) fn frame(&self, document: &DocumentId, frame: &Frame) -> Bytes {
        let document = document.clone();
        let sender = self.server.clone();
        let target = self.peer.clone();
        let message = match frame {
            Frame::Sync(data) => return self.sync_frame.with(data),
            Frame::Unavailable => Message::DocUnavailable {
                document,
                sender,
                target,
            },
            Frame::Ephemeral(ephemeral) => Message::Ephemeral {
                document,
                sender: ephemeral.sender.clone(),
                target,
                count: ephemeral.count,
                session: ephemeral.session.clone(),
                data: ephemeral.data.clone(),
            },
            Frame::RemoteHeads(Moved {
                storage,
                heads,
                at_ms,
            }) => Message::RemoteHeadsChanged {
                document,
                sender,
                target,
                new_heads: vec![RemoteHeads {
                    storage_id: storage.clone(),
                    heads: heads.to_vec(),
                    #[expect(clippy::cast_precision_loss, reason = "exact until the year 287396")]
                    timestamp_ms: *at_ms as f64,
                }],
            },
        };
        message.encode()
    }
}
