//! A document as a value, and what is known of its relay.
//!
//! Use: [`Core::hello`] once, to be sent, and [`Core::opened`]; then [`Core::take_in`] for each message of the relay's,
//! and between any two of them reads and [`Core::change`]. Each change is in [`Core::take_outgoing`] afterwards, to be
//! sent in that order, and is durable once [`Core::waits_for`] is false.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use automerge::sync::{ChunkList, Message, MessageFlags, MessageVersion};
use automerge::transaction::{CommitOptions, Transaction};
use automerge::{ActorId, Automerge, AutomergeError, ChangeHash, PatchLog, ReadDoc as _};
use bytes::Bytes;
use concord_shared::change::{self, Chunk, ChunkError};
use concord_shared::code::ErrorCode;
use concord_shared::ids::PrincipalId;
use concord_shared::limits::Limits;
use concord_shared::sync::{self, SyncError, SyncMessage};
use rustc_hash::FxHashSet;

use super::feed::Events;
use super::marks::{Done, Mark, Marks};
use super::rebase::Earlier;
use super::watch::{Event, News, Place, TooManyPlaces, Watcher, Watches};
use crate::document::actor::PeerMessage;
use crate::document::admission::MAX_ACTORS;

/// Why a view can't go on.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The relay's message can't be read: a bug.
    #[error("a message of the relay's can't be read")]
    Message(#[from] SyncError),
    /// The relay's changes can't be applied: a bug, or a damaged store.
    #[error("changes of the relay's can't be applied")]
    Apply(#[from] AutomergeError),
    /// A change that was made here would not be admitted.
    #[error("the change would be refused: {0}")]
    Refused(#[source] ChunkError),
    /// Automerge made no change of a transaction, or another one: a bug.
    #[error("what was written is no change")]
    NoChange,
    /// Automerge panicked, or whoever used it.
    #[error("the view panicked")]
    Panicked,
}

impl Failure {
    /// The stable code that whoever asked is told.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Refused(error) => error.code(),
            Self::Message(_) | Self::Apply(_) | Self::NoChange | Self::Panicked => {
                ErrorCode::Internal
            }
        }
    }
}

/// Who writes, and what they say of it.
#[derive(Debug, Clone)]
pub struct Author {
    /// As whom the relay knows them.
    pub principal: PrincipalId,
    /// Kept with the change.
    pub message: Option<String>,
    /// Milliseconds since 1970.
    pub at_ms: i64,
}

impl Author {
    fn options(&self) -> CommitOptions {
        let options = CommitOptions::default().with_time(self.at_ms);
        match &self.message {
            Some(message) => options.with_message(message.clone()),
            None => options,
        }
    }
}

/// What a view takes besides its document's history.
const BYTES_PER_VIEW: usize = 32 << 10;
/// What each op adds, besides its value.
const BYTES_PER_OP: usize = 32;
/// What an op adds to what is shown, if it has next to no value: `null,`.
const SHOWN_BYTES_PER_OP: usize = 5;
/// What each change adds.
const BYTES_PER_CHANGE: usize = 200;

/// Heads of a document that its versions name. Each takes 65 bytes of a header, and those have a few thousand.
const MOST_HEADS: usize = 64;

/// Changes that were sent on together.
#[derive(Debug)]
struct Upload {
    all: FxHashSet<ChangeHash>,
    /// The ones that no other builds on: these are waited for.
    last: Vec<ChangeHash>,
}

/// See the module's docs.
#[derive(Debug)]
pub struct Core {
    doc: Automerge,
    /// Bytes of its ops and their values, roughly: as Automerge would write them, and what came since.
    bytes: usize,
    /// What the relay said that it has, and so what is durable.
    durable: Vec<ChangeHash>,
    /// Changes here that are not known to be durable: own ones, and those that were read from the store before they were.
    pending: FxHashSet<ChangeHash>,
    outgoing: Vec<PeerMessage>,
    /// Once somebody asked for them.
    marks: Option<Marks>,
    /// Once somebody has written at an old version.
    earlier: Option<Box<Earlier>>,
    /// Those that are not known to be durable.
    uploads: Vec<Upload>,
    watches: Watches,
    news: News,
    /// What is here is not what the relay has: the view is of no use any more.
    failed: Option<Failure>,
}

impl Core {
    /// Over the stored document. `actor` makes the changes: no other view in the world may have it.
    pub fn new(mut doc: Automerge, actor: ActorId) -> Self {
        doc.set_actor(actor);
        Self {
            bytes: doc.save_nocompress().len(),
            doc,
            durable: Vec::new(),
            pending: FxHashSet::default(),
            outgoing: Vec::new(),
            marks: None,
            earlier: None,
            uploads: Vec::new(),
            watches: Watches::default(),
            news: News::new(),
            failed: None,
        }
    }

    /// The same, but for the long events of what is watched, which are counted where those of all views are.
    pub(super) fn counted_in(self, told: Arc<AtomicUsize>) -> Self {
        let watches = Watches::counted_in(told);
        Self { watches, ..self }
    }

    /// The first message: what is here.
    pub fn hello(&self) -> PeerMessage {
        self.message(PrincipalId::anonymous(), Vec::new())
    }

    /// What the relay says is durable, once the document was loaded and opened. What was loaded may be more: a store shows
    /// what was written before that is on the disk, and a crash may still take it away.
    pub fn opened(&mut self, durable: &[ChangeHash]) {
        // The relay's changes have one order, and each of the two is a beginning of it: where something of the relay's is
        // not here, all that is here is of the relay's.
        if self.has(durable) {
            let rest = self.doc.get_changes_meta(durable);
            self.pending.extend(rest.iter().map(|change| change.hash));
        }
    }

    /// The document as it is now.
    pub fn doc(&self) -> &Automerge {
        &self.doc
    }

    /// Its heads, sorted.
    pub fn heads(&self) -> Vec<ChangeHash> {
        let mut heads = self.doc.get_heads();
        heads.sort_unstable();
        heads
    }

    /// Whether all of these versions are part of the document.
    pub fn has(&self, heads: &[ChangeHash]) -> bool {
        let mut heads = heads.iter();
        heads.all(|head| self.doc.get_change_meta_by_hash(head).is_some())
    }

    /// Takes in the data of one of the relay's sync messages.
    pub fn take_in(&mut self, data: &Bytes) -> Result<(), Failure> {
        let SyncMessage { message, changes } = sync::split(data, &Limits::unbounded())?;
        if !changes.is_empty() {
            let changes = changes.concat();
            self.doc.load_incremental(&changes)?;
            self.bytes = self.bytes.saturating_add(changes.len());
        }
        self.durable = message.heads;
        if !self.pending.is_empty() {
            // Those that the relay's heads do not cover.
            let rest = self.doc.get_changes_meta(&self.durable);
            let rest: FxHashSet<ChangeHash> = rest.iter().map(|change| change.hash).collect();
            self.pending.retain(|hash| rest.contains(hash));
            let pending = &self.pending;
            self.uploads.retain(|upload| {
                let mut last = upload.last.iter();
                last.any(|hash| pending.contains(hash))
            });
        }
        Ok(())
    }

    /// Makes a change of the document as it is now. `None` for the hash where `edit` changed nothing; where it fails
    /// nothing stays of it.
    pub fn change<R, E>(
        &mut self,
        author: Author,
        edit: impl FnOnce(&mut Transaction<'_>) -> Result<R, E>,
    ) -> Result<Result<(R, Option<ChangeHash>), E>, Failure> {
        let made = carried_out(&mut self.doc, &author, edit)?;
        if let Ok((_, Some(hash))) = &made {
            self.made(*hash, author);
        }
        Ok(made)
    }

    /// Makes a change of the document as it was at `at`, whose changes must be here, and [puts](super::rebase) it behind what
    /// came since; else as [`change`](Self::change).
    pub fn change_at<R, E>(
        &mut self,
        author: Author,
        at: &[ChangeHash],
        edit: impl FnOnce(&mut Transaction<'_>) -> Result<R, E>,
    ) -> Result<Result<(R, Option<ChangeHash>), E>, Failure> {
        // Only here Automerge looks whether it has changes of that actor, unless it made them itself.
        self.doc.set_actor(self.doc.get_actor().clone());
        let doc = &self.doc;
        let earlier = self.earlier.get_or_insert_with(|| Box::new(Earlier::new()));
        let mut then = earlier.at(doc, at)?;
        let mut made = carried_out(&mut then, &author, edit)?;
        if let Ok((_, Some(hash))) = &mut made {
            let change = then.get_change_by_hash(hash).ok_or(Failure::NoChange)?;
            let change = earlier.rebased(&change, doc);
            *hash = change.hash();
            self.doc.apply_changes([change])?;
            self.made(*hash, author);
        }
        Ok(made)
    }

    /// Makes a change without ops: a document that was made empty is there, too.
    pub fn make_empty(&mut self, author: Author) {
        let hash = self.doc.empty_commit(author.options());
        self.made(hash, author);
    }

    /// A request with this key, if one was carried out on this document.
    pub fn done(&mut self, mark: &Mark) -> Option<Done> {
        let doc = &self.doc;
        self.marks.get_or_insert_with(|| Marks::of(doc)).get(mark)
    }

    /// Takes in changes that were made elsewhere, each after its deps, and sends them on as they are. They have been judged
    /// as those of any peer, or this is no place for them. `false` where another change has come since then that has the
    /// actor and number of one of them: nothing is taken in.
    pub fn import(
        &mut self,
        principal: PrincipalId,
        mut changes: Vec<change::Change>,
    ) -> Result<bool, Failure> {
        changes.retain(|change| self.doc.get_change_meta_by_hash(&change.hash).is_none());
        if changes.is_empty() {
            return Ok(true);
        }
        let bytes: Vec<&[u8]> = changes.iter().map(|change| &change.bytes[..]).collect();
        match self.doc.load_incremental(&bytes.concat()) {
            // Automerge looks at all of them before it takes any.
            Err(AutomergeError::DuplicateSeqNumber(..)) => return Ok(false),
            loaded => loaded?,
        };
        self.upload(principal, changes)?;
        Ok(true)
    }

    /// Takes in all of another document, whose changes these are. This must be empty.
    pub fn adopt(
        &mut self,
        principal: PrincipalId,
        mut doc: Automerge,
        changes: Vec<change::Change>,
    ) -> Result<(), Failure> {
        doc.set_actor(self.doc.get_actor().clone());
        self.doc = doc;
        self.upload(principal, changes)
    }

    /// Sends on changes that are here, as one upload.
    fn upload(
        &mut self,
        principal: PrincipalId,
        changes: Vec<change::Change>,
    ) -> Result<(), Failure> {
        // Where the last ones are durable, so is what they build on.
        let inner: FxHashSet<_> = changes.iter().flat_map(|change| &change.deps).collect();
        let last = changes.iter().map(|change| change.hash);
        let last: Vec<_> = last.filter(|hash| !inner.contains(hash)).collect();
        // Automerge leaves out what it can't read, without a word.
        if !self.has(&last) {
            return Err(Failure::NoChange);
        }
        self.pending.extend(&last);
        let all = changes.iter().map(|change| change.hash).collect();
        self.uploads.push(Upload { all, last });
        self.marks = None;
        let bytes = changes.iter().map(|change| change.bytes.len());
        self.bytes = bytes.fold(self.bytes, usize::saturating_add);
        let mut message = self.message(principal, changes);
        message.is_document = true;
        self.outgoing.push(message);
        Ok(())
    }

    /// The changes that are waited for and that are refused with this one.
    pub fn refused_with(&self, refused: ChangeHash) -> Vec<ChangeHash> {
        let mut uploads = self.uploads.iter();
        let upload = uploads.find(|upload| upload.all.contains(&refused));
        upload.map_or_else(|| vec![refused], |upload| upload.last.clone())
    }

    /// Joins heads of which there are so many that no version can be named any more: in a header, a link, a log. Where that
    /// would be refused, versions are as long as they are.
    pub fn join_heads(&mut self, at_ms: i64) {
        let heads = self.doc.get_heads().len();
        if self.failed.is_none() && heads > MOST_HEADS && is_joined(heads, self.actors()) {
            self.make_empty(Author {
                principal: PrincipalId::anonymous(),
                message: None,
                at_ms,
            });
        }
    }

    /// Others than the one that makes changes here.
    fn actors(&self) -> usize {
        let all = self.doc.stats().num_actors;
        let own = u64::from(self.doc.get_last_local_change().is_some());
        usize::try_from(all - own).unwrap_or(usize::MAX)
    }

    fn made(&mut self, hash: ChangeHash, author: Author) {
        let mark = author.message.as_deref().and_then(Mark::parse);
        if let (Some(marks), Some(mark)) = (&mut self.marks, mark) {
            marks.insert(mark, hash);
        }
        if let Err(failure) = self.send(hash, author.principal) {
            // It can't be taken back.
            self.fail(failure);
        }
    }

    fn send(&mut self, hash: ChangeHash, principal: PrincipalId) -> Result<(), Failure> {
        let change = self.doc.get_change_by_hash(&hash);
        let bytes = change.ok_or(Failure::NoChange)?.raw_bytes().to_vec();
        self.bytes = self.bytes.saturating_add(bytes.len());
        // As for any peer, before anything is done with it.
        let chunks = change::parse_message(&[Bytes::from(bytes)], &Limits::default());
        let mut changes = Vec::new();
        for chunk in chunks.map_err(Failure::Refused)? {
            match chunk {
                Chunk::Change(change) => changes.push(change),
                Chunk::Document(_) => return Err(Failure::NoChange),
            }
        }
        self.pending.insert(hash);
        let message = self.message(principal, changes);
        self.outgoing.push(message);
        Ok(())
    }

    /// What is to be sent to the relay, in this order.
    pub fn take_outgoing(&mut self) -> Vec<PeerMessage> {
        std::mem::take(&mut self.outgoing)
    }

    /// The changes that may still be lost: what is shown now must not be told before they can't.
    pub fn pending(&self) -> Vec<ChangeHash> {
        self.pending.iter().copied().collect()
    }

    /// Whether a change may still be lost.
    pub fn waits_for(&self, hash: &ChangeHash) -> bool {
        self.pending.contains(hash)
    }

    /// Whether any change may still be lost.
    pub fn is_waiting(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Begins to watch a place: the first event, which leads there from the version `seen`, if that is known and
    /// another one, else from nothing; and those that follow.
    pub fn watch(
        &mut self,
        place: &Place,
        seen: Option<&[ChangeHash]>,
        who: Watcher,
    ) -> Result<(Option<Arc<Event>>, Events), TooManyPlaces> {
        self.tell();
        let seen = seen.filter(|seen| self.has(seen));
        self.watches.add(&self.doc, place, seen, who)
    }

    /// Whether anybody watches.
    pub fn is_watched(&self) -> bool {
        self.watches.are_any()
    }

    /// Makes the events of what has changed since it was last called; it may be called any time.
    pub fn tell(&mut self) {
        self.watches.step(&self.doc, &mut self.news);
    }

    /// Events, and who is to be told, in order: not before what was [pending](Self::pending) after [`tell`](Self::tell)
    /// is durable.
    pub(super) fn take_news(&mut self) -> News {
        self.watches.end_batch();
        std::mem::take(&mut self.news)
    }

    /// Bytes of what there is in the document, roughly: no job shows more than so many. Ops take next to none of their own
    /// where many are the same, and are shown all the same.
    pub fn bytes(&self) -> usize {
        let ops = usize::try_from(self.doc.stats().num_ops).unwrap_or(usize::MAX);
        self.bytes.max(ops.saturating_mul(SHOWN_BYTES_PER_OP))
    }

    /// Bytes of memory that the document takes, by a rough estimate.
    pub fn memory(&self) -> usize {
        let of = |doc: &Automerge| {
            let stats = doc.stats();
            let ops = usize::try_from(stats.num_ops).unwrap_or(usize::MAX);
            let changes = usize::try_from(stats.num_changes).unwrap_or(usize::MAX);
            // What was there earlier has no more bytes than this.
            let [ops, changes] = [(ops, BYTES_PER_OP), (changes, BYTES_PER_CHANGE)]
                .map(|(count, each)| count.saturating_mul(each));
            self.bytes.saturating_add(ops).saturating_add(changes)
        };
        let earlier = self.earlier.as_ref();
        let earlier = earlier.map_or(0, |earlier| {
            let docs = earlier.docs().iter().map(of);
            docs.fold(earlier.memory(), usize::saturating_add)
        });
        BYTES_PER_VIEW
            .saturating_add(of(&self.doc))
            .saturating_add(earlier)
            .saturating_add(self.watches.memory())
    }

    /// Ends the view: what is here is not what the relay has.
    pub fn fail(&mut self, failure: Failure) {
        self.failed.get_or_insert(failure);
    }

    /// Why it can't go on, if it can't.
    pub fn failed(&self) -> Option<&Failure> {
        self.failed.as_ref()
    }

    /// What a view says of itself. It need not say what it has whenever that grows: the relay knows what it sent.
    fn message(&self, principal: PrincipalId, changes: Vec<change::Change>) -> PeerMessage {
        let mut flags = MessageFlags::new();
        flags.set(MessageFlags::SUPPORTS_SYNC_RESET);
        PeerMessage {
            principal,
            storage: None,
            is_request: false,
            sync: Message {
                heads: self.heads(),
                need: Vec::new(),
                have: Vec::new(),
                changes: ChunkList::empty(),
                flags: Some(flags),
                version: MessageVersion::V2,
            },
            changes,
            is_document: false,
            may_write: true,
        }
    }
}

/// Makes an edit, and its change if there is any of it.
fn carried_out<R, E>(
    doc: &mut Automerge,
    author: &Author,
    edit: impl FnOnce(&mut Transaction<'_>) -> Result<R, E>,
) -> Result<Result<(R, Option<ChangeHash>), E>, Failure> {
    let tx = doc.transaction_log_patches(PatchLog::inactive());
    let mut tx = tx.map_err(|_| Failure::NoChange)?;
    Ok(match edit(&mut tx) {
        Ok(made) => Ok((made, tx.commit_with(author.options()).0)),
        Err(error) => {
            tx.rollback();
            Err(error)
        }
    })
}

/// Whether a change that joins so many heads is taken, behind those of so many other actors.
pub(super) fn is_joined(heads: usize, actors: usize) -> bool {
    heads <= Limits::default().deps && actors < MAX_ACTORS
}
