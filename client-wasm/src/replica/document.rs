//! One document on a client: the Automerge document and its sync state with one server.
//!
//! Applying remote changes costs a pass over every object they touch, whether one change came or a
//! thousand. So what arrives is collected, and applied in one go when the owner says so.

use automerge::{
    ActorId, AutoCommit, AutomergeError, ChangeHash, LoadOptions, TextEncoding,
    sync::{self, MessageFlags, SyncDoc},
};
use bytes::Bytes;
use concord_shared::{
    change::{ChunkError, has_document},
    ids::DocumentId,
    limits::Limits,
    sync::{SyncError, SyncMessage, split},
};

use super::{
    intake::{Judged, own_limits},
    receive::{receive, receive_part},
    session::Open,
    undo::Aliases,
};

/// What can go wrong on a replica.
#[derive(Debug, thiserror::Error)]
pub enum ReplicaError {
    /// The server's bytes are no sync message within the limits.
    #[error("sync message for {document}")]
    Message {
        /// The document that was addressed.
        document: DocumentId,
        /// What the decoder found.
        source: SyncError,
    },
    /// A chunk that is out of bounds, or that no Automerge writes. Judged before Automerge sees it.
    #[error("changes of {document}")]
    Chunk {
        /// The document that was addressed.
        document: DocumentId,
        /// What is wrong with it.
        source: Box<ChunkError>,
    },
    /// A document chunk was applied, and the document does not have the heads that the chunk names: Automerge left
    /// it out without a word, or it was made by hand.
    #[error(
        "{bytes} bytes of changes of {document}: a document chunk without the heads that it names"
    )]
    Document {
        /// The document that was addressed.
        document: DocumentId,
        /// How many bytes of changes were to be applied.
        bytes: usize,
    },
    /// The message is well formed, but its changes can't be applied.
    #[error("applying {bytes} bytes of changes to {document}")]
    Apply {
        /// The document that was addressed.
        document: DocumentId,
        /// How many bytes of changes were to be applied.
        bytes: usize,
        /// What Automerge found.
        source: Box<AutomergeError>,
    },
    /// Stored bytes that are no document.
    #[error("loading {document} from {bytes} bytes")]
    Load {
        /// The document that was to be loaded.
        document: DocumentId,
        /// How many bytes there were.
        bytes: usize,
        /// What Automerge found.
        source: Box<AutomergeError>,
    },
    /// A sync message came while the replica was not connected.
    #[error("sync message for {document}, which is not connected")]
    NotConnected {
        /// The document that was addressed.
        document: DocumentId,
    },
}

/// A document that can be edited at any time and catches up with its server while connected.
///
/// Calls come in this order:
///
/// - at any time: [`change`](Self::change), [`doc`](Self::doc), [`save`](Self::save), and what is known of
///   the server: [`synced`](Self::synced), [`unacknowledged`](Self::unacknowledged);
/// - on every new connection: [`connect`](Self::connect), then [`next_message`](Self::next_message) until it
///   returns `None`, and again after every `change`, `receive` and `apply_pending`;
/// - for every sync message from the server: [`receive`](Self::receive); then, when convenient (at the next
///   frame, or when nothing more is waiting on the socket), [`apply_pending`](Self::apply_pending);
/// - when the connection is gone: [`disconnect`](Self::disconnect).
///
/// ```
/// use automerge::{ActorId, ROOT, transaction::Transactable};
/// use concord_client_wasm::Replica;
/// use concord_shared::ids::DocumentId;
///
/// let id = DocumentId::from_uuid([7; 16]);
/// let mut replica = Replica::new(id, ActorId::from([1u8; 16]));
/// replica.change(|doc| doc.put(ROOT, "title", "Minutes"))?;
/// assert!(!replica.synced());
///
/// replica.connect();
/// assert!(replica.next_message().is_some());
/// assert!(replica.next_message().is_none());
/// # Ok::<(), automerge::AutomergeError>(())
/// ```
#[derive(Debug)]
pub struct Replica {
    document: DocumentId,
    doc: AutoCommit,
    link: Link,
    aliases: Aliases,
}

/// Whether there is a session with the server, and what of it outlives the session.
#[derive(Debug)]
enum Link {
    /// The encoded sync state: the heads both sides are known to have.
    Down {
        kept: Vec<u8>,
    },
    Up(Box<Session>),
}

#[derive(Debug)]
struct Session {
    state: sync::State,
    pending: Option<Pending>,
    /// A replica without a single change asks for the document, once a session, instead of announcing it.
    asked: bool,
    /// The first changes of what is pending were applied, and the rest of it was not.
    is_behind: bool,
}

/// Received messages that carry changes, merged into one: all of their changes, the last one's view.
#[derive(Debug)]
struct Pending {
    last: sync::Message,
    changes: Judged,
    reset: bool,
}

impl Replica {
    /// An empty document. `actor` must be new: two replicas that share one fork the document.
    pub fn new(document: DocumentId, actor: ActorId) -> Self {
        let doc = AutoCommit::new_with_encoding(TextEncoding::Utf16CodeUnit).with_actor(actor);
        Self::with_document(document, doc)
    }

    /// A replica over `doc`, whatever its text encoding; nothing is known yet of what the server has.
    pub fn with_document(document: DocumentId, doc: AutoCommit) -> Self {
        let kept = sync::State::new().encode();
        Self {
            document,
            doc,
            link: Link::Down { kept },
            aliases: Aliases::default(),
        }
    }

    /// A replica from what [`save`](Self::save) and [`sync_state`](Self::sync_state) gave, for the next
    /// session of the same application. A sync state that can't be read only costs a fuller first exchange.
    pub fn load(
        document: DocumentId,
        actor: ActorId,
        saved: &[u8],
        sync_state: &[u8],
    ) -> Result<Self, ReplicaError> {
        let options = LoadOptions::new().text_encoding(TextEncoding::Utf16CodeUnit);
        let doc =
            AutoCommit::load_with_options(saved, options).map_err(|source| ReplicaError::Load {
                document: document.clone(),
                bytes: saved.len(),
                source: Box::new(source),
            })?;
        let mut replica = Self::with_document(document, doc.with_actor(actor));
        replica.restore_sync_state(sync_state);
        Ok(replica)
    }

    /// The document's id.
    pub fn document(&self) -> &DocumentId {
        &self.document
    }

    /// The document, to read. Edits go through [`change`](Self::change).
    pub fn doc(&mut self) -> &mut AutoCommit {
        &mut self.doc
    }

    /// Runs `edit` and commits it as one change. On error nothing of it stays.
    ///
    /// Returns what `edit` returned; whether it made a change shows in [`heads`](Self::heads).
    pub fn change<T, E>(
        &mut self,
        edit: impl FnOnce(&mut AutoCommit) -> Result<T, E>,
    ) -> Result<T, E> {
        self.doc.commit();
        let result = edit(&mut self.doc);
        match &result {
            Ok(_) => drop(self.doc.commit()),
            Err(_) => drop(self.doc.rollback()),
        }
        result
    }

    /// The document, and what undoing remembers of it.
    pub(super) fn parts(&mut self) -> (&mut AutoCommit, &mut Aliases) {
        (&mut self.doc, &mut self.aliases)
    }

    /// The document's heads, sorted.
    pub fn heads(&mut self) -> Vec<ChangeHash> {
        let mut heads = self.doc.get_heads();
        heads.sort_unstable();
        heads
    }

    /// Applies changes that did not come from the server: out of local storage, or from another tab. Chunks of any
    /// kind, one after the other; changes whose deps are missing wait inside the document.
    ///
    /// Bad ones are left out, and the first of them is the error: the good ones are worth having.
    pub fn apply_chunks(&mut self, chunks: &[u8]) -> Result<(), ReplicaError> {
        let (changes, bad) = Judged::good_ones(&Bytes::copy_from_slice(chunks), &own_limits());
        let applied = self.doc.load_incremental(changes.bytes());
        applied.map_err(|source| self.cant_apply(chunks.len(), source))?;
        self.check_taken(changes.heads(), chunks.len())?;
        bad.map_or(Ok(()), |bad| Err(self.refused(bad)))
    }

    /// The whole document, compact, for local storage.
    pub fn save(&mut self) -> Vec<u8> {
        self.doc.save()
    }

    /// What is worth keeping of the sync state between sessions, encoded.
    pub fn sync_state(&self) -> Vec<u8> {
        match &self.link {
            Link::Down { kept } => kept.clone(),
            Link::Up(session) => session.state.encode(),
        }
    }

    /// Takes what [`sync_state`](Self::sync_state) of an earlier replica of this document gave, before the first
    /// session. One that can't be read only costs a fuller first exchange.
    pub fn restore_sync_state(&mut self, state: &[u8]) {
        if let Link::Down { kept } = &mut self.link
            && sync::State::decode(state).is_ok()
        {
            *kept = state.to_vec();
        }
    }

    /// Starts a session on a new connection. Of an earlier one only the shared heads are used.
    pub fn connect(&mut self) {
        let kept = self.sync_state();
        // Our own encoding always decodes; a fresh state would be correct too, and only cost bytes.
        let state = sync::State::decode(&kept).unwrap_or_default();
        self.link = Link::Up(Box::new(Session {
            state,
            pending: None,
            asked: false,
            is_behind: false,
        }));
    }

    /// The connection is gone. What was received and not applied goes with it: the server sends it again.
    pub fn disconnect(&mut self) {
        self.link = Link::Down {
            kept: self.sync_state(),
        };
    }

    /// Whether there is a session.
    pub fn is_connected(&self) -> bool {
        matches!(self.link, Link::Up(_))
    }

    /// Takes one sync message from the server.
    ///
    /// Its changes are judged now, each by itself: if one is bad, nothing of the message is taken. A message
    /// without changes takes effect now; changes wait for [`apply_pending`](Self::apply_pending)
    /// unless there are [many](super::intake::MAX_PENDING_BYTES) already. After an error the session is of no use:
    /// disconnect.
    pub fn receive(&mut self, data: &[u8], limits: &Limits) -> Result<(), ReplicaError> {
        if !self.is_connected() {
            return Err(self.not_connected());
        }
        let data = Bytes::copy_from_slice(data);
        let SyncMessage { message, changes } =
            split(&data, limits).map_err(|source| ReplicaError::Message {
                document: self.document.clone(),
                source,
            })?;
        let changes = Judged::all(&changes, limits).map_err(|bad| self.refused(bad))?;
        let Link::Up(session) = &mut self.link else {
            return Err(self.not_connected());
        };
        // A server that lost everything says so by empty heads, which undoes what came before it: the
        // one message that must not be merged with others.
        if message.heads.is_empty() || (session.pending.is_none() && changes.is_empty()) {
            self.apply_pending()?;
            return self.apply(message, changes);
        }
        let pending = match session.pending.take() {
            Some(earlier) => earlier.merged(message, changes),
            None => Pending {
                reset: resets(&message),
                last: message,
                changes,
            },
        };
        let full = pending.changes.is_much();
        session.pending = Some(pending);
        if full {
            self.apply_pending().map(drop)
        } else {
            Ok(())
        }
    }

    /// Applies everything received so far, in one batch. Returns whether there was anything.
    pub fn apply_pending(&mut self) -> Result<bool, ReplicaError> {
        let Link::Up(session) = &mut self.link else {
            return Ok(false);
        };
        let Some(pending) = session.pending.take() else {
            return Ok(false);
        };
        let (message, changes) = pending.into_parts();
        self.apply(message, changes).map(|()| true)
    }

    /// As [`apply_pending`](Self::apply_pending), but of what is much only the first changes: about `most` bytes of
    /// them, at least one. What is left waits, and what else the messages said waits with it.
    pub fn apply_some_pending(&mut self, most: usize) -> Result<(), ReplicaError> {
        let Link::Up(session) = &mut self.link else {
            return Ok(());
        };
        let first = match &mut session.pending {
            Some(pending) if pending.changes.bytes().len() > most => {
                pending.changes.take_first(most)
            }
            _ => return self.apply_pending().map(drop),
        };
        self.receive_part(&first)
    }

    /// What a sync message says besides its changes, as a message; `None` where none of them come as a document chunk,
    /// or where they can't be read.
    ///
    /// Whoever has most of a document takes as long to apply all of it as who has nothing, and in one piece. So its
    /// changes are taken out of it elsewhere, and what is new among them comes part by part with
    /// [`receive_part`](Self::receive_part); then comes the rest of the message, with [`receive`](Self::receive).
    pub fn without_snapshot(data: &[u8], limits: &Limits) -> Option<Vec<u8>> {
        let split = split(&Bytes::copy_from_slice(data), limits);
        let SyncMessage { message, changes } = split.ok()?;
        has_document(&changes).then(|| message.encode())
    }

    /// Applies changes of a message of the server's of which more comes, or the rest; until then there is nothing to
    /// say. They are not judged: Automerge read and wrote them elsewhere.
    pub fn receive_part(&mut self, changes: &[u8]) -> Result<(), ReplicaError> {
        let Link::Up(session) = &mut self.link else {
            return Err(self.not_connected());
        };
        session.is_behind = true;
        let taken = receive_part(&mut self.doc, &mut session.state, changes);
        taken.map_err(|source| self.cant_apply(changes.len(), source))
    }

    /// Whether changes were received that are not applied yet.
    pub fn has_pending(&self) -> bool {
        matches!(&self.link, Link::Up(session) if session.pending.is_some())
    }

    /// The next sync message for the server, or `None` when there is nothing to say (or no session), or when some of
    /// what it said still waits: half of it would look to it as if it were ours.
    pub fn next_message(&mut self) -> Option<Vec<u8>> {
        let Link::Up(session) = &mut self.link else {
            return None;
        };
        if session.is_behind {
            return None;
        }
        let resets = lacks_last_sync(&mut self.doc, &session.state);
        let message = self.doc.sync().generate_sync_message(&mut session.state);
        if resets {
            // Said once: Automerge says it each time that it is asked.
            session.state.their_have = None;
        }
        message.map(sync::Message::encode)
    }

    /// [`next_message`](Self::next_message) in the frame of an open connection: the first message of a
    /// replica without a single change asks for the document instead of announcing it.
    pub fn next_frame(&mut self, connection: &Open) -> Option<Bytes> {
        let empty = self.doc.is_empty();
        let data = self.next_message()?;
        let Link::Up(session) = &mut self.link else {
            return None;
        };
        let ask = empty && !std::mem::replace(&mut session.asked, true);
        Some(if ask {
            connection.request(&self.document, &data)
        } else {
            connection.sync(&self.document, &data)
        })
    }

    /// Whether the server is known to keep every change this replica has.
    ///
    /// The server advertises what it has made durable, so this is the "saved" of a user interface. What
    /// an earlier session learned counts while disconnected.
    pub fn synced(&mut self) -> bool {
        let heads = self.doc.get_heads();
        let shared = self.shared_heads();
        // Shared heads are changes of this document, and a head has no descendant but itself.
        heads.iter().all(|head| shared.contains(head))
    }

    /// How many of this replica's changes the server is not known to keep. Costs about that many steps.
    pub fn unacknowledged(&mut self) -> usize {
        let shared = self.shared_heads();
        self.doc.get_changes_meta(&shared).len()
    }

    /// Changes that both sides are known to have, with all of their ancestors.
    pub fn shared_heads(&self) -> Vec<ChangeHash> {
        match &self.link {
            Link::Up(session) => session.state.shared_heads.clone(),
            Link::Down { kept } => sync::State::decode(kept)
                .map(|state| state.shared_heads)
                .unwrap_or_default(),
        }
    }

    /// The heads the server last advertised in this session.
    pub fn server_heads(&self) -> Option<&[ChangeHash]> {
        match &self.link {
            Link::Up(session) => session.state.their_heads.as_deref(),
            Link::Down { .. } => None,
        }
    }

    /// Whether the server said that it takes no changes from us. It may change its mind.
    pub fn is_read_only(&self) -> bool {
        matches!(&self.link, Link::Up(session) if session.state.is_peer_read_only())
    }

    fn apply(&mut self, mut message: sync::Message, changes: Judged) -> Result<(), ReplicaError> {
        let Link::Up(session) = &mut self.link else {
            return Err(self.not_connected());
        };
        let was_behind = std::mem::take(&mut session.is_behind);
        let bytes = changes.bytes().len();
        let heads = changes.heads().to_vec();
        message.changes = changes.into_list();
        let received = receive(&mut self.doc, &mut session.state, message);
        if was_behind {
            // The rest of a message may have no changes, and is to be answered for those that came before it.
            session.state.last_sent_heads.clear();
        }
        received.map_err(|source| self.cant_apply(bytes, source))?;
        self.check_taken(&heads, bytes)
    }

    /// Automerge may leave out a document chunk without a word, whose `heads` then are not here. A change it
    /// does not: all that it looks at in reading one was judged.
    fn check_taken(&mut self, heads: &[ChangeHash], bytes: usize) -> Result<(), ReplicaError> {
        let is_here = |head| self.doc.get_change_meta_by_hash(head).is_some();
        if heads.iter().all(is_here) {
            return Ok(());
        }
        Err(ReplicaError::Document {
            document: self.document.clone(),
            bytes,
        })
    }

    fn refused(&self, source: ChunkError) -> ReplicaError {
        ReplicaError::Chunk {
            document: self.document.clone(),
            source: Box::new(source),
        }
    }

    fn cant_apply(&self, bytes: usize, source: AutomergeError) -> ReplicaError {
        ReplicaError::Apply {
            document: self.document.clone(),
            bytes,
            source: Box::new(source),
        }
    }

    fn not_connected(&self) -> ReplicaError {
        ReplicaError::NotConnected {
            document: self.document.clone(),
        }
    }
}

impl Pending {
    fn merged(mut self, mut next: sync::Message, changes: Judged) -> Self {
        self.changes.append(changes);
        self.reset |= resets(&next);
        // A need that a later message no longer repeats may have been named only once.
        next.need.append(&mut self.last.need);
        next.need.sort_unstable();
        next.need.dedup();
        next.flags = next.flags.or(self.last.flags);
        self.last = next;
        self
    }

    fn into_parts(self) -> (sync::Message, Judged) {
        let mut message = self.last;
        if self.reset {
            message
                .flags
                .get_or_insert_default()
                .set(MessageFlags::SYNC_RESET);
        }
        (message, self.changes)
    }
}

fn resets(message: &sync::Message) -> bool {
    message
        .flags
        .is_some_and(|flags| flags.contains(MessageFlags::SYNC_RESET))
}

/// Whether the server believes to share something with us that we do not have.
fn lacks_last_sync(doc: &mut AutoCommit, state: &sync::State) -> bool {
    let have = state.their_have.as_ref().and_then(|have| have.first());
    have.is_some_and(|have| {
        let is_here = |hash| doc.get_change_meta_by_hash(hash).is_some();
        !have.last_sync.iter().all(is_here)
    })
}
