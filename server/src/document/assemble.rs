//! From "this peer lacks these changes" to the bytes of a sync message.
//!
//! Live peers are served from memory ([`message`]). Others need the store ([`Fetch`]): a joiner gets
//! the stored snapshot and what came after it, as they are; a peer a little behind gets raw records;
//! only one that is behind a compaction, but not by much, costs loading the snapshot to take single
//! changes out of it.
//!
//! A message carries no more than [`MOST_BYTES_PER_MESSAGE`] of single changes, however far a peer is behind:
//! what is left over goes back to its session and comes with the next message. A snapshot is one chunk
//! and can't be cut.

use automerge::sync::{ChunkList, Have, Message, MessageFlags, MessageVersion};
use automerge::{Automerge, ChangeHash, ReadDoc as _};
use bytes::Bytes;
use concord_shared::ids::DocumentId;

use super::ConnectionId;
use super::graph::Index;
use super::opening;
use super::sync::{Haves, Outgoing};
use crate::store::{Store, StoreError, changes_of};

/// A peer that lacks at least one in this many changes of a document is sent all of it: the snapshot
/// is far smaller than its changes. `automerge::sync` draws the line at the same third.
const WHOLE_DOCUMENT_SHARE: usize = 3;

/// Fetches that run at a time, per server: each holds what it reads in memory.
pub const CONCURRENT_FETCHES: usize = 4;

/// Bytes of single changes in one message. Clients on tungstenite's defaults refuse frames above 16 MiB,
/// and a peer that is far behind should not take that much of our memory at once either.
pub const MOST_BYTES_PER_MESSAGE: usize = 4 << 20;

/// Changes further apart in the log than this are looked for one by one.
const SAME_RUN: Index = 64;

/// Whose fetch it is, and which: a document's views have one id ([`ConnectionId::VIEW`]), one after the other, and what
/// was fetched for one must not be taken for the next one's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchId {
    /// Whose.
    pub connection: ConnectionId,
    /// Within the document.
    pub number: u64,
}

/// Work for the store on behalf of one peer; run it on a blocking thread.
#[derive(Debug)]
pub struct Fetch {
    /// Comes back with what was fetched.
    pub id: FetchId,
    /// The message to complete.
    pub outgoing: Outgoing,
    /// Sorted heads as of the message.
    pub heads: Vec<ChangeHash>,
    /// What it must carry.
    pub wanted: Wanted,
    /// Bytes of single changes after which the rest is left for the next message.
    pub most_bytes: usize,
}

/// What a message must carry.
#[derive(Debug)]
pub enum Wanted {
    /// Every change below [`Outgoing::to`].
    Everything,
    /// These, in index order.
    These(Vec<Index>),
}

/// What a [`Fetch`] brought.
#[derive(Debug)]
pub struct Fetched {
    /// The message to complete.
    pub outgoing: Outgoing,
    /// Sorted heads as of the message, if it is sent whole.
    pub heads: Vec<ChangeHash>,
    /// What it carries: change chunks, or a document chunk and changes.
    pub chunks: Vec<Bytes>,
    /// What it should have carried besides, in index order.
    pub unsent: Vec<Index>,
    /// The snapshot had to be read.
    pub read_snapshot: bool,
}

/// Why a message could not be made.
#[derive(Debug, thiserror::Error)]
pub enum AssembleError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The stored snapshot does not load.
    #[error(transparent)]
    Load(#[from] crate::materialise::LoadError),
    /// A bug, here or in a loader: what it read is not used.
    #[error("reading panicked")]
    Panicked,
    /// What is stored can't be read.
    #[error(transparent)]
    Open(#[from] super::opening::OpenError),
    /// The store lacks a change that the graph says it has.
    #[error("change {index} is not in the store")]
    Missing {
        /// Its index.
        index: Index,
    },
}

/// The encoded sync message that carries `chunks`: change chunks, or a document chunk and changes.
pub fn message(outgoing: &Outgoing, heads: &[ChangeHash], chunks: &[Bytes]) -> Bytes {
    let mut flags = MessageFlags::new();
    flags.set(MessageFlags::SUPPORTS_SYNC_RESET);
    if outgoing.read_only {
        flags.set(MessageFlags::READ_ONLY);
    }
    if outgoing.reset {
        flags.set(MessageFlags::SYNC_RESET);
    }
    let changes = if chunks.is_empty() {
        ChunkList::empty()
    } else if outgoing.v2 {
        ChunkList::from(chunks.concat())
    } else {
        ChunkList::from(
            chunks
                .iter()
                .map(|chunk| chunk.to_vec())
                .collect::<Vec<_>>(),
        )
    };
    let have = match &outgoing.have {
        Haves::Heads => vec![Have {
            last_sync: heads.to_vec(),
            ..Have::default()
        }],
        Haves::Filter(have) => vec![have.clone()],
        Haves::Withheld => Vec::new(),
    };
    let message = Message {
        heads: heads.to_vec(),
        need: outgoing.need.clone(),
        have,
        changes,
        flags: Some(flags),
        version: if outgoing.v2 {
            MessageVersion::V2
        } else {
            MessageVersion::V1
        },
    };
    Bytes::from(message.encode())
}

/// Chunks for one message, up to a bound.
struct Piece {
    chunks: Vec<Bytes>,
    bytes: usize,
    most_bytes: usize,
}

impl Piece {
    /// Takes the chunk, unless that would be too much; one is never too much.
    fn takes(&mut self, chunk: Bytes) -> bool {
        let bytes = self.bytes.saturating_add(chunk.len());
        let fits = self.chunks.is_empty() || bytes <= self.most_bytes;
        if fits {
            self.bytes = bytes;
            self.chunks.push(chunk);
        }
        fits
    }

    fn room(&self) -> usize {
        self.most_bytes.saturating_sub(self.bytes)
    }
}

impl Fetch {
    /// Reads what is wanted, or the first part of it. Blocks.
    pub fn run(self, store: &dyn Store, document: &DocumentId) -> Result<Fetched, AssembleError> {
        let mut piece = Piece {
            chunks: Vec::new(),
            bytes: 0,
            most_bytes: self.most_bytes,
        };
        let (unsent, read_snapshot) = match &self.wanted {
            Wanted::Everything => {
                let until = self.everything(store, document, &mut piece)?;
                ((until..self.outgoing.to).collect(), true)
            }
            Wanted::These(wanted) => match logged(store, document, wanted, &mut piece)? {
                0 if wanted.is_empty() => (Vec::new(), false),
                0 if wanted.len() * WHOLE_DOCUMENT_SHARE > self.outgoing.to as usize => {
                    let until = self.everything(store, document, &mut piece)?;
                    let unsent = wanted.iter().copied().filter(|index| *index >= until);
                    (unsent.collect(), true)
                }
                0 => {
                    let sent = compacted(store, document, wanted, &mut piece)?;
                    (wanted.get(sent..).unwrap_or_default().to_vec(), true)
                }
                sent => (wanted.get(sent..).unwrap_or_default().to_vec(), false),
            },
        };
        Ok(Fetched {
            outgoing: self.outgoing,
            heads: self.heads,
            chunks: piece.chunks,
            unsent,
            read_snapshot,
        })
    }

    /// The snapshot and the changes since, below the index it returns.
    fn everything(
        &self,
        store: &dyn Store,
        document: &DocumentId,
        piece: &mut Piece,
    ) -> Result<Index, AssembleError> {
        // In one read: between two, a compaction might take away what comes after the first one's base.
        let Some(contents) = store.contents(document)? else {
            return Ok(self.outgoing.to);
        };
        match contents.snapshot {
            None => {}
            // A compaction may have overtaken us and cover more than `to`; the peer's heads then run
            // ahead of what this message says, which it and we take as it comes.
            Some(bytes) if self.outgoing.v2 => {
                piece.takes(bytes);
            }
            // A peer that can't read document chunks gets them as changes, all in one message: their
            // order need not be the log's, so there is no saying where a piece ends.
            Some(bytes) => {
                let changes = crate::materialise::load(&[bytes])?;
                let changes = changes.get_changes(&[]);
                let chunks = changes
                    .iter()
                    .map(|c| Bytes::copy_from_slice(c.raw_bytes()));
                piece.chunks.extend(chunks);
            }
        }
        let base = Index::try_from(contents.base).unwrap_or(Index::MAX);
        let mut until = base;
        for (index, change) in (base..self.outgoing.to).zip(changes_of(contents.tail)) {
            if !piece.takes(change) {
                break;
            }
            until = index + 1;
        }
        Ok(until)
    }
}

/// Takes the first of `wanted` out of the log, as many as fit and, from the first on, are there; returns
/// how many.
fn logged(
    store: &dyn Store,
    document: &DocumentId,
    wanted: &[Index],
    piece: &mut Piece,
) -> Result<usize, StoreError> {
    let mut sent = 0;
    while let Some((first, last)) = wanted.get(sent..).and_then(first_run) {
        let before = sent;
        let most_bytes = piece.room() as u64;
        let records = store.log(document, first.into(), u64::from(last) + 1, most_bytes)?;
        let found = records
            .into_iter()
            .flat_map(|record| (record.first..).zip(record.changes));
        for (index, change) in found {
            if wanted.get(sent).map(|index| u64::from(*index)) == Some(index) {
                if !piece.takes(change) {
                    return Ok(sent);
                }
                sent += 1;
            }
        }
        if sent == before || piece.room() == 0 {
            break;
        }
    }
    Ok(sent)
}

/// The first and last of the changes at the beginning of `wanted` that are near each other in the log.
fn first_run(wanted: &[Index]) -> Option<(Index, Index)> {
    let first = wanted.first()?;
    let mut last = first;
    for index in wanted {
        if index - last > SAME_RUN {
            break;
        }
        last = index;
    }
    Some((*first, *last))
}

/// Takes the first of `wanted` out of the snapshot, as many as fit; returns how many.
fn compacted(
    store: &dyn Store,
    document: &DocumentId,
    wanted: &[Index],
    piece: &mut Piece,
) -> Result<usize, AssembleError> {
    let opened = opening::open(store, document)?;
    let graph = opened.history.graph();
    let snapshot = store.snapshot(document)?;
    let (base, compacted) = match snapshot {
        Some((base, snapshot)) => (base, crate::materialise::load(&[snapshot])?),
        None => (0, Automerge::new()),
    };
    let mut sent = 0;
    // What comes after the snapshot is in the log, for the next message.
    for index in wanted.iter().take_while(|index| u64::from(**index) < base) {
        let hash = graph.hash(*index);
        let change = hash.and_then(|hash| compacted.get_change_by_hash(hash));
        let change = change.ok_or(AssembleError::Missing { index: *index })?;
        if !piece.takes(Bytes::copy_from_slice(change.raw_bytes())) {
            break;
        }
        sent += 1;
    }
    match wanted.first() {
        Some(index) if sent == 0 => Err(AssembleError::Missing { index: *index }),
        _ => Ok(sent),
    }
}
