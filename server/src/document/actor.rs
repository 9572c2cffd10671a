//! One open document as a pure machine: inputs and the time go in, effects come out.
//!
//! Use: [`Document::handle`] for each input of a batch, then [`Document::flush`] once, then carry out
//! the [`Effects`]. Nothing here waits, reads a clock or touches the store.
//!
//! The order of events is the promise "nothing is shown before it is kept": an admitted change enters
//! the graph at once, so that what builds on it can be judged, and leaves as an [`Append`]; only
//! [`Input::Committed`], which the store's commit brings about, makes it visible, and sync messages
//! are made of visible changes alone. A driver that loses the append (a crash) loses a change that
//! nobody was told of.

use std::collections::BTreeMap;
use std::sync::Arc;

use automerge::ChangeHash;
use automerge::sync::Message;
use bytes::Bytes;
use concord_shared::change::Change;
use concord_shared::code::ErrorCode;
use concord_shared::ids::{PrincipalId, StorageId};
use rustc_hash::{FxHashMap, FxHashSet};

use super::admission::{Admission, Outcome, ParkingLimits, Refusal, Sender};
use super::append::Append;
use super::assemble::{self, Fetch, FetchId, Fetched, Wanted};
use super::ephemeral::{Ephemeral, Heard};
use super::graph::{Graph, Index};
use super::history::History;
use super::recent::{RECENT_BYTES_PER_DOCUMENT, Recent};
use super::remote_heads::{Moved, Subscriptions};
use super::sync::{Changes, Haves, Outgoing, Session, TooDemanding};
use super::{ConnectionId, Now};

/// Settings of a document.
#[derive(Debug, Clone)]
pub struct Policy {
    /// How long a `request` for a document that is not here waits for it to appear before the peer is
    /// told that it is unavailable, in milliseconds.
    pub request_grace_ms: u64,
    /// Bounds on changes waiting for their deps.
    pub parking: ParkingLimits,
    /// This server's own storage, to whose heads peers may subscribe.
    pub storage: StorageId,
    /// Bytes of single changes that one message may carry; what is over comes with the next.
    pub message_bytes: usize,
}

/// What a document can be told.
#[derive(Debug)]
pub enum Input {
    /// A peer's `request` or `sync`, decoded, its changes parsed.
    Message(ConnectionId, Box<PeerMessage>),
    /// A peer's ephemeral message, for the other peers.
    Ephemeral(ConnectionId, Arc<Ephemeral>),
    /// The peer now wants to hear of the heads at these storages.
    Subscribe(ConnectionId, Arc<FxHashSet<StorageId>>),
    /// The peer may write from now on, or may not any more.
    Permit(ConnectionId, bool),
    /// A peer that asked for the document before it could have it is told of it now.
    Begin(ConnectionId),
    /// The peer closed the document or its connection.
    Leave(ConnectionId),
    /// The connection's outbox is full: make no more messages for it.
    Congested(ConnectionId),
    /// It has room again.
    Drained(ConnectionId),
    /// While the document was being opened the peer, which had nothing, was sent every change below
    /// this index. Comes right behind its first message.
    Served(ConnectionId, Index),
    /// Every change below this index is durable.
    Committed(Index),
    /// A [`Fetch`] came back, with nothing when it failed.
    Fetched(FetchId, Option<Box<Fetched>>),
    /// The time that [`Effects::wake_at_ms`] named has come.
    Tick,
}

/// A decoded `request` or `sync` message.
#[derive(Debug)]
pub struct PeerMessage {
    /// Who sent it.
    pub principal: PrincipalId,
    /// The peer's storage, when it has one that lasts.
    pub storage: Option<StorageId>,
    /// The peer asks whether the document exists.
    pub is_request: bool,
    /// Everything but the changes.
    pub sync: Message,
    /// The changes, parsed.
    pub changes: Vec<Change>,
    /// Whether `changes` are all of one uploaded document.
    pub is_document: bool,
    /// Whether who sent it may write: else the changes are not looked at.
    pub may_write: bool,
}

/// What a document wants done, in order of the fields.
#[derive(Debug, Default)]
pub struct Effects {
    /// To write; each answered by [`Input::Committed`].
    pub appends: Vec<Append>,
    /// To put in connections' outboxes.
    pub frames: Vec<(ConnectionId, Frame)>,
    /// To run against the store; each answered by [`Input::Fetched`].
    pub fetches: Vec<Fetch>,
    /// Peers to tell why and disconnect.
    pub rejected: Vec<(ConnectionId, Rejection)>,
    /// When to call with [`Input::Tick`]; replaces the last one.
    pub wake_at_ms: Option<u64>,
}

/// A message for a peer, but for the addresses.
#[derive(Debug, Clone)]
pub enum Frame {
    /// A sync message, shared by all who get the same.
    Sync(Bytes),
    /// The document is not here.
    Unavailable,
    /// Another peer's ephemeral message.
    Ephemeral(Arc<Ephemeral>),
    /// Heads at a storage the peer subscribed to.
    RemoteHeads(Moved),
}

/// Why a peer is cut off.
#[derive(Debug, thiserror::Error)]
pub enum Rejection {
    /// A change of its was refused.
    #[error(transparent)]
    Change(#[from] Refusal),
    /// It wastes our time.
    #[error(transparent)]
    Demands(#[from] TooDemanding),
    /// What it needs could not be read from the store.
    #[error("the document's stored changes could not be read")]
    Unreadable,
}

impl Rejection {
    /// The stable code a peer sees.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Change(refusal) => refusal.code(),
            Self::Demands(_) => ErrorCode::Overloaded,
            Self::Unreadable => ErrorCode::StorageFailed,
        }
    }
}

/// How long a peer that asked for a document that is not here has been answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waiting {
    /// It isn't: normal sync.
    No,
    /// Told `doc-unavailable` at this time unless the document appears first.
    UntilMs(u64),
    /// It was told.
    Told,
}

#[derive(Debug)]
struct Peer {
    session: Session,
    waiting: Waiting,
    /// A fetch is under way: nothing may overtake it.
    fetching: Option<FetchId>,
    congested: bool,
    storage: Option<StorageId>,
    subscriptions: Subscriptions,
}

impl Peer {
    /// Boxed, as a map's nodes have room for eleven.
    fn new() -> Box<Self> {
        Box::new(Self {
            session: Session::new(),
            waiting: Waiting::No,
            fetching: None,
            congested: false,
            storage: None,
            subscriptions: Subscriptions::default(),
        })
    }
}

/// What a peer takes besides its session, roughly, in bytes: its links and what the maps add.
const PEER_BYTES: usize = 512;

/// See the module's docs.
#[derive(Debug)]
pub struct Document {
    policy: Policy,
    history: History,
    admission: Admission,
    peers: BTreeMap<ConnectionId, Box<Peer>>,
    /// Cut off, and not gone yet: what was on its way from them is not looked at.
    rejected: FxHashSet<ConnectionId>,
    recent: Recent,
    heard: Heard,
    /// Peers with subscriptions: while there are none, remote heads cost nothing.
    subscribers: usize,
    /// So far.
    fetches: u64,
}

impl Document {
    /// A document whose stored changes are those of `history`, all visible.
    pub fn new(history: History, policy: Policy) -> Self {
        Self {
            recent: Recent::starting_at(history.graph().len()),
            admission: Admission::new(policy.parking),
            policy,
            history,
            peers: BTreeMap::new(),
            rejected: FxHashSet::default(),
            heard: Heard::default(),
            subscribers: 0,
            fetches: 0,
        }
    }

    /// The change graph.
    pub fn graph(&self) -> &Graph {
        self.history.graph()
    }

    /// The graph, and what the ops made.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Number of peers that have the document open.
    pub fn peers(&self) -> usize {
        self.peers.len()
    }

    /// Whether no messages are made for the peer until it has room. `false` for a stranger.
    pub fn is_congested(&self, connection: ConnectionId) -> bool {
        let peer = self.peers.get(&connection);
        peer.is_some_and(|peer| peer.congested)
    }

    /// Whether appends are under way.
    pub fn is_settled(&self) -> bool {
        self.history.graph().visible() == self.history.graph().len()
    }

    /// Bytes of memory held, roughly.
    pub fn memory(&self) -> usize {
        let peers = self.peers.values();
        let sessions: usize = peers.map(|peer| PEER_BYTES + peer.session.memory()).sum();
        self.history.memory() + self.recent.bytes() + self.admission.parked_bytes() + sessions
    }

    /// Gives back memory that only activity needs.
    pub fn rest(&mut self) {
        self.recent.trim(self.history.graph().visible(), 0);
        self.history.rest();
    }

    /// Takes in one input. See [`Self::flush`].
    pub fn handle(&mut self, now: Now, input: Input, effects: &mut Effects) {
        match input {
            Input::Message(from, message) => self.message(now, from, *message, effects),
            Input::Ephemeral(from, ephemeral) => {
                if !self.peers.contains_key(&from) || !self.heard.is_news(from, &ephemeral) {
                    return;
                }
                for (connection, peer) in &self.peers {
                    // To a peer that can't keep up a stale cursor position is no use: dropped.
                    if *connection != from && !peer.congested {
                        let frame = Frame::Ephemeral(Arc::clone(&ephemeral));
                        effects.frames.push((*connection, frame));
                    }
                }
            }
            Input::Subscribe(connection, storages) => {
                if let Some(peer) = self.peers.get_mut(&connection) {
                    peer.subscriptions.replace(storages);
                }
                self.count_subscribers();
            }
            Input::Permit(connection, may_write) => {
                if let Some(peer) = self.peers.get_mut(&connection) {
                    peer.session.set_read_only(!may_write);
                }
                if !may_write {
                    // What waits is written when what it waits for comes.
                    self.admission.forget(connection);
                }
            }
            Input::Begin(connection) => {
                let peer = self.peers.entry(connection).or_insert_with(Peer::new);
                peer.session.begin();
            }
            Input::Leave(connection) => {
                self.rejected.remove(&connection);
                self.leave(connection);
            }
            Input::Congested(connection) => {
                if let Some(peer) = self.peers.get_mut(&connection) {
                    peer.congested = true;
                }
            }
            Input::Drained(connection) => {
                if let Some(peer) = self.peers.get_mut(&connection) {
                    peer.congested = false;
                }
            }
            Input::Served(connection, to) => {
                if let Some(peer) = self.peers.get_mut(&connection)
                    && to <= self.history.graph().visible()
                {
                    peer.session.was_sent_up_to(to);
                }
            }
            Input::Committed(end) => self.history.make_visible(end),
            Input::Fetched(fetch, fetched) => self.fetched(fetch, fetched, effects),
            Input::Tick => {}
        }
    }

    /// Makes the messages that the inputs since the last flush call for. Peers that stand at the same
    /// place share one message, built and encoded once.
    pub fn flush(&mut self, now: Now, effects: &mut Effects) {
        let mut built: Vec<(Outgoing, Bytes)> = Vec::new();
        for (connection, peer) in &mut self.peers {
            if peer.fetching.is_some() || peer.congested || !may_sync(peer, self.history.graph()) {
                continue;
            }
            let Some(outgoing) = peer.session.next(self.history.graph()) else {
                continue;
            };
            let shared = outgoing.need.is_empty() && outgoing.have == Haves::Heads;
            if shared && let Some((_, message)) = built.iter().find(|(of, _)| *of == outgoing) {
                effects
                    .frames
                    .push((*connection, Frame::Sync(message.clone())));
                continue;
            }
            let most_bytes = self.policy.message_bytes;
            match assemble_from_memory(self.history.graph(), &self.recent, &outgoing, most_bytes) {
                Ok(message) => {
                    if shared {
                        built.push((outgoing, message.clone()));
                    }
                    effects.frames.push((*connection, Frame::Sync(message)));
                }
                Err(wanted) => {
                    self.fetches += 1;
                    let id = FetchId {
                        connection: *connection,
                        number: self.fetches,
                    };
                    peer.fetching = Some(id);
                    effects.fetches.push(Fetch {
                        id,
                        outgoing,
                        heads: self.history.graph().visible_heads().to_vec(),
                        wanted,
                        most_bytes,
                    });
                }
            }
        }
        self.recent
            .trim(self.history.graph().visible(), RECENT_BYTES_PER_DOCUMENT);
        if self.subscribers > 0 {
            self.tell_subscribers(now, effects);
        }
        self.answer_requests(now, effects);
    }

    fn message(
        &mut self,
        now: Now,
        from: ConnectionId,
        message: PeerMessage,
        effects: &mut Effects,
    ) {
        if self.rejected.contains(&from) {
            return;
        }
        let PeerMessage {
            principal,
            storage,
            is_request,
            sync,
            mut changes,
            is_document,
            may_write,
        } = message;
        let peer = self.peers.entry(from).or_insert_with(Peer::new);
        peer.storage = storage;
        peer.session.set_read_only(!may_write);
        if !may_write {
            changes.clear();
        }
        if is_request && sync.heads.is_empty() {
            if !matches!(peer.waiting, Waiting::UntilMs(_)) {
                peer.waiting = Waiting::UntilMs(now.monotonic_ms + self.policy.request_grace_ms);
            }
        } else {
            peer.waiting = Waiting::No;
        }
        let brought = changes.len();
        let first = self.history.graph().len();
        let sender = Sender {
            connection: from,
            principal,
        };
        let outcome = self.admission.admit(&mut self.history, &sender, changes);
        let repeated = brought > 0 && outcome.known == brought && self.is_settled();
        let refused = !outcome.refused.is_empty();
        // All of an uploaded document and nothing else, into an empty one: to be kept in compact form.
        let is_upload = is_document
            && (first == 0 && brought > 0)
            && (outcome.known == 0 && outcome.admitted.len() == brought && !refused);
        self.append(now, first, outcome, is_upload, effects);
        // Unless it is cut off now. What was refused may be others', parked until now.
        if let Some(peer) = self.peers.get_mut(&from) {
            let missing = if may_write {
                self.admission
                    .missing_for(self.history.graph(), &sync.heads)
            } else {
                Vec::new()
            };
            if let Err(error) =
                peer.session
                    .received(self.history.graph(), &sync, missing, repeated)
            {
                self.reject(from, error.into(), effects);
            }
        }
    }

    fn append(
        &mut self,
        now: Now,
        first: Index,
        outcome: Outcome,
        is_upload: bool,
        effects: &mut Effects,
    ) {
        let Outcome {
            admitted,
            refused,
            known: _,
        } = outcome;
        let received_at_ms = now.unix_ms;
        if is_upload && let Some((principal, _)) = admitted.first() {
            self.recent = Recent::starting_at(self.history.graph().len());
            effects.appends.push(Append::Upload {
                received_at_ms,
                principal: principal.clone(),
                changes: admitted.iter().map(|(_, c)| c.bytes.clone()).collect(),
                graph: self.history.encode(),
            });
        } else {
            // One append for each run of changes of one principal.
            for (index, (principal, change)) in (first..).zip(admitted) {
                self.recent.push(change.bytes.clone());
                let run = effects.appends.last_mut();
                if !run.is_some_and(|run| run.takes(index, &principal, &change.bytes)) {
                    effects.appends.push(Append::Changes {
                        first: index,
                        received_at_ms,
                        principal,
                        changes: vec![change.bytes],
                    });
                }
            }
        }
        for (connection, refusal) in refused {
            self.reject(connection, refusal.into(), effects);
        }
    }

    fn reject(&mut self, connection: ConnectionId, why: Rejection, effects: &mut Effects) {
        if self.peers.contains_key(&connection) {
            self.leave(connection);
            self.rejected.insert(connection);
            effects.rejected.push((connection, why));
        }
    }

    fn leave(&mut self, connection: ConnectionId) {
        self.peers.remove(&connection);
        self.heard.forget(connection);
        self.admission.forget(connection);
        self.count_subscribers();
    }

    fn count_subscribers(&mut self) {
        let peers = self.peers.values();
        self.subscribers = peers.filter(|peer| !peer.subscriptions.is_empty()).count();
    }

    fn fetched(&mut self, fetch: FetchId, fetched: Option<Box<Fetched>>, effects: &mut Effects) {
        let connection = fetch.connection;
        let Some(peer) = self.peers.get_mut(&connection) else {
            return;
        };
        if peer.fetching != Some(fetch) {
            return;
        }
        peer.fetching = None;
        let Some(fetched) = fetched else {
            self.reject(connection, Rejection::Unreadable, effects);
            return;
        };
        let Fetched {
            outgoing,
            mut heads,
            chunks,
            unsent,
            read_snapshot,
        } = *fetched;
        if !unsent.is_empty() {
            // Heads that the peer can reach with what it is sent now, or it would ask for the rest.
            heads = self.history.graph().heads_without(outgoing.to, &unsent);
            peer.session.was_not_sent(unsent);
        }
        let message = assemble::message(&outgoing, &heads, &chunks);
        effects.frames.push((connection, Frame::Sync(message)));
        if read_snapshot && let Err(error) = peer.session.read_snapshot() {
            self.reject(connection, error.into(), effects);
        }
    }

    /// Tells peers whose grace is over that the document is not here, and when to look again.
    fn answer_requests(&mut self, now: Now, effects: &mut Effects) {
        let mut wake_at: Option<u64> = None;
        for (connection, peer) in &mut self.peers {
            let Waiting::UntilMs(deadline) = peer.waiting else {
                continue;
            };
            if self.history.graph().visible() > 0 {
                peer.waiting = Waiting::No;
            } else if now.monotonic_ms >= deadline {
                peer.waiting = Waiting::Told;
                effects.frames.push((*connection, Frame::Unavailable));
            } else {
                wake_at = Some(wake_at.map_or(deadline, |at| at.min(deadline)));
            }
        }
        effects.wake_at_ms = wake_at;
    }

    /// Sends heads to those who subscribed to them, when they moved: this server's, and those that
    /// peers with a storage of their own acknowledged.
    fn tell_subscribers(&mut self, now: Now, effects: &mut Effects) {
        let mut heads: FxHashMap<StorageId, Arc<[ChangeHash]>> = FxHashMap::default();
        heads.insert(
            self.policy.storage.clone(),
            self.history.graph().visible_heads().into(),
        );
        for peer in self.peers.values() {
            let acknowledged = peer.session.acknowledged();
            // A peer has its own changes before they are durable here; nobody is told of those.
            let visible = |head| {
                self.history
                    .graph()
                    .find(head)
                    .is_some_and(|i| i < self.history.graph().visible())
            };
            // What is here is not for a peer to say.
            if let Some(storage) = &peer.storage
                && *storage != self.policy.storage
                && acknowledged.iter().all(visible)
            {
                heads.insert(storage.clone(), acknowledged.into());
            }
        }
        // Who can't keep up hears the latest when there is room again.
        let ready = self.peers.iter_mut().filter(|(_, peer)| !peer.congested);
        for (connection, peer) in ready {
            let news = peer.subscriptions.news(now, &heads).into_iter();
            let frames = news.map(|moved| (*connection, Frame::RemoteHeads(moved)));
            effects.frames.extend(frames);
        }
    }
}

/// A peer that asked whether the document exists is not told of an empty one.
fn may_sync(peer: &Peer, graph: &Graph) -> bool {
    peer.waiting == Waiting::No || graph.visible() > 0
}

/// The message, if memory holds what it carries; else what has to be fetched for it.
fn assemble_from_memory(
    graph: &Graph,
    recent: &Recent,
    outgoing: &Outgoing,
    most_bytes: usize,
) -> Result<Bytes, Wanted> {
    let these: Vec<Index> = match &outgoing.changes {
        Changes::Nothing => Vec::new(),
        Changes::Since(0) if recent.start() > 0 => return Err(Wanted::Everything),
        Changes::Since(from) => (*from..outgoing.to).collect(),
        Changes::Picked(picked) => picked.clone(),
    };
    let mut chunks = Vec::with_capacity(these.len());
    let mut bytes = 0;
    for index in &these {
        match recent.get(*index) {
            // What is too long for one message the store gives piece by piece.
            Some(chunk) if chunks.is_empty() || bytes + chunk.len() <= most_bytes => {
                bytes += chunk.len();
                chunks.push(chunk.clone());
            }
            _ => return Err(Wanted::These(these)),
        }
    }
    Ok(assemble::message(outgoing, graph.visible_heads(), &chunks))
}
