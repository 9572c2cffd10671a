//! From "this peer lacks these changes" to the bytes of a sync message.
//!
//! Live peers are served from memory ([`message`]). Others need the store ([`Fetch`]): a joiner gets
//! the stored snapshot and what came after it, as they are; a peer a little behind gets raw records;
//! only one that is behind a compaction, but not by much, costs loading the snapshot to take single
//! changes out of it.

use automerge::sync::{ChunkList, Have, Message, MessageFlags, MessageVersion};
use automerge::{Automerge, ChangeHash, ReadDoc as _};
use bytes::Bytes;
use concord_shared::ids::DocumentId;
use rustc_hash::FxHashMap;

use super::ConnectionId;
use super::graph::Index;
use super::sync::Outgoing;
use crate::store::{Store, StoreError};

/// A peer that lacks at least one in this many changes of a document is sent all of it: the snapshot
/// is far smaller than its changes. `automerge::sync` draws the line at the same third.
const WHOLE_DOCUMENT_SHARE: usize = 3;

/// Fetches that run at a time, per server: each holds what it reads in memory.
pub const CONCURRENT_FETCHES: usize = 4;

/// Work for the store on behalf of one peer; run it on a blocking thread.
#[derive(Debug)]
pub struct Fetch {
    /// Whose.
    pub connection: ConnectionId,
    /// The message to complete.
    pub outgoing: Outgoing,
    /// Sorted heads as of the message.
    pub heads: Vec<ChangeHash>,
    /// What it must carry.
    pub wanted: Wanted,
}

/// What a message must carry.
#[derive(Debug)]
pub enum Wanted {
    /// Every change below [`Outgoing::to`].
    Everything,
    /// These, in index order.
    These(Vec<(Index, ChangeHash)>),
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
    #[error("change {hash} ({index}) is not in the store")]
    Missing {
        /// Its index.
        index: Index,
        /// Its hash.
        hash: ChangeHash,
    },
}

/// The encoded sync message that carries `chunks`: change chunks, or a document chunk and changes.
pub fn message(outgoing: &Outgoing, heads: &[ChangeHash], chunks: &[Bytes]) -> Bytes {
    let mut flags = MessageFlags::new();
    flags.set(MessageFlags::SUPPORTS_SYNC_RESET);
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
    let have = outgoing.have.clone().unwrap_or_else(|| Have {
        last_sync: heads.to_vec(),
        ..Have::default()
    });
    let message = Message {
        heads: heads.to_vec(),
        need: outgoing.need.clone(),
        have: vec![have],
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

impl Fetch {
    /// Reads what is wanted and makes the message. Blocks.
    pub fn run(&self, store: &dyn Store, document: &DocumentId) -> Result<Bytes, AssembleError> {
        let chunks = match &self.wanted {
            Wanted::Everything => self.everything(store, document)?,
            Wanted::These(wanted) => self.these(store, document, wanted)?,
        };
        Ok(message(&self.outgoing, &self.heads, &chunks))
    }

    fn everything(
        &self,
        store: &dyn Store,
        document: &DocumentId,
    ) -> Result<Vec<Bytes>, AssembleError> {
        let to = u64::from(self.outgoing.to);
        // In one read: between two, a compaction might take away what comes after the first one's base.
        let Some(contents) = store.contents(document)? else {
            return Ok(Vec::new());
        };
        let mut chunks = match contents.snapshot {
            None => Vec::new(),
            // A compaction may have overtaken us and cover more than `to`; the peer's heads then run
            // ahead of what this message says, which it and we take as it comes.
            Some(bytes) if self.outgoing.v2 => vec![bytes],
            Some(bytes) => {
                // A peer that can't read document chunks gets them as changes.
                let changes = crate::materialise::load(&[bytes])?;
                let changes = changes.get_changes(&[]);
                changes
                    .iter()
                    .map(|c| Bytes::copy_from_slice(c.raw_bytes()))
                    .collect()
            }
        };
        let tail = contents.tail.into_iter().flat_map(|record| record.changes);
        chunks.extend((contents.base..to).zip(tail).map(|(_, change)| change));
        Ok(chunks)
    }

    fn these(
        &self,
        store: &dyn Store,
        document: &DocumentId,
        wanted: &[(Index, ChangeHash)],
    ) -> Result<Vec<Bytes>, AssembleError> {
        let (Some((first, _)), Some((last, _))) = (wanted.first(), wanted.last()) else {
            return Ok(Vec::new());
        };
        let mut found: FxHashMap<u64, Bytes> = FxHashMap::default();
        for record in store.log(document, u64::from(*first), u64::from(*last) + 1, u64::MAX)? {
            found.extend((record.first..).zip(record.changes));
        }
        if wanted
            .iter()
            .all(|(index, _)| found.contains_key(&u64::from(*index)))
        {
            return Ok(wanted
                .iter()
                .filter_map(|(i, _)| found.remove(&u64::from(*i)))
                .collect());
        }
        if wanted.len() * WHOLE_DOCUMENT_SHARE > self.outgoing.to as usize {
            return self.everything(store, document);
        }
        let compacted = match store.snapshot(document)? {
            Some((_, snapshot)) => crate::materialise::load(&[snapshot])?,
            None => Automerge::new(),
        };
        wanted
            .iter()
            .map(|(index, hash)| {
                found
                    .remove(&u64::from(*index))
                    .or_else(|| {
                        let change = compacted.get_change_by_hash(hash)?;
                        Some(Bytes::copy_from_slice(change.raw_bytes()))
                    })
                    .ok_or(AssembleError::Missing {
                        index: *index,
                        hash: *hash,
                    })
            })
            .collect()
    }
}
