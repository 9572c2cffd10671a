//! What is judged of changes before Automerge sees them.
//!
//! Automerge believes whoever sends it changes: run lengths in 54 bytes hold a page up for a minute and then
//! take all its memory, and a panic ends the module for every document of the page. So each chunk is judged by
//! itself first, as the server judges what clients send it (`concord_shared::change`): changes op by op,
//! documents by what they claim. Neither costs more than the chunk's bytes and ops.
//!
//! What a change refers to in the document is not judged here: that takes the server's index. A server that
//! means harm can still send a change of an object that is not there, on which Automerge panics.

use automerge::ChangeHash;
use automerge::sync::ChunkList;
use bytes::Bytes;
use concord_shared::change::{Chunk, ChunkError, Chunks, WORK_PER_BYTE, check_document};
use concord_shared::limits::Limits;

/// How much more there may be in a document than a server takes as an upload: it grows after it was taken.
/// At twice that it takes some 2 GiB for a moment, of the 4 GiB that a browser's module has.
const GROWN: usize = 2;

/// Work of a message's changes beyond what is in proportion to their bytes, in ops: as much as one change may
/// have. A server holds a document's changes to a quarter of it, so a message seldom has any; a run of a million
/// takes some seconds to apply.
const FREE_WORK: u64 = 1_000_000;

/// Bytes of received changes that wait to be applied; beyond it, or beyond [`FREE_WORK`], they are applied at once.
pub const MAX_PENDING_BYTES: usize = 8 << 20;

/// Bytes of what this browser made itself, inflated: a change, or a document. What it holds otherwise must fit
/// beside that.
const OWN_BYTES: usize = 512 << 20;

/// Bounds on what a server may send: what it lets in from one client in one message, and documents that grew.
pub fn server_limits() -> Limits {
    let taken = Limits::default();
    let grown = GROWN as u64;
    Limits {
        // A catch-up has the changes of many messages in one; they can't be more than a document's.
        ops_per_message: taken.document_ops,
        document_memory_bytes: GROWN * taken.document_memory_bytes,
        document_changes: grown * taken.document_changes,
        document_ops: grown * taken.document_ops,
        document_ops_per_byte: grown * taken.document_ops_per_byte,
        ..taken
    }
}

/// Bounds on what comes out of storage and from other tabs. What this browser made is not lost because a server
/// would not take it: a larger paste, a commit message of a megabyte. It is bounded by what can be loaded at all.
pub fn own_limits() -> Limits {
    let sent = server_limits();
    Limits {
        chunks: usize::MAX,
        documents: usize::MAX,
        change_bytes: OWN_BYTES,
        inflated_bytes: OWN_BYTES,
        document_bytes: OWN_BYTES,
        ops_per_change: sent.document_ops,
        ops_per_message: sent.document_ops,
        preds_per_change: sent.document_ops,
        message_bytes: OWN_BYTES,
        extra_bytes: OWN_BYTES,
        document_ops_in_a_few_bytes: sent.document_ops,
        ..sent
    }
}

/// Chunks that Automerge may see.
#[derive(Debug, Default)]
pub(super) struct Judged {
    bytes: Vec<u8>,
    /// Where each chunk ends.
    ends: Vec<usize>,
    heads: Vec<ChangeHash>,
    work: u64,
}

impl Judged {
    /// All chunks of these blobs, or what is wrong with the first bad one.
    pub(super) fn all(blobs: &[Bytes], limits: &Limits) -> Result<Self, ChunkError> {
        let mut judged = Self::default();
        for chunk in Chunks::new(blobs, limits) {
            judged.take(&chunk?, limits)?;
        }
        let limit = FREE_WORK + WORK_PER_BYTE * judged.bytes.len() as u64;
        if judged.work > limit {
            return Err(ChunkError::TooManyOps {
                what: "the changes of a message, for their bytes",
                ops: judged.work,
                limit,
            });
        }
        Ok(judged)
    }

    /// The good ones among the chunks, and what is wrong with the first bad one.
    pub(super) fn good_ones(chunks: &Bytes, limits: &Limits) -> (Self, Option<ChunkError>) {
        let mut judged = Self::default();
        let mut bad = None;
        for chunk in Chunks::new(std::slice::from_ref(chunks), limits) {
            let taken = chunk.and_then(|chunk| judged.take(&chunk, limits));
            let Err(error) = taken else { continue };
            // The next may cost as much.
            let is_enough = error.is_beyond_a_bound();
            bad = bad.or(Some(error));
            if is_enough {
                break;
            }
        }
        (judged, bad)
    }

    fn take(&mut self, chunk: &Chunk, limits: &Limits) -> Result<(), ChunkError> {
        let bytes = match chunk {
            // Inflated as it is now: it need not be done again.
            Chunk::Change(change) => {
                self.work = self.work.saturating_add(change.work());
                &change.bytes
            }
            Chunk::Document(document) => {
                self.heads.extend(check_document(document, limits)?);
                document
            }
        };
        self.bytes.extend_from_slice(bytes);
        self.ends.push(self.bytes.len());
        Ok(())
    }

    /// The chunks, one after the other.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Heads of the document chunks among them: they are in a document to which these chunks were applied.
    pub(super) fn heads(&self) -> &[ChangeHash] {
        &self.heads
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Whether this is much to apply at once.
    pub(super) fn is_much(&self) -> bool {
        self.bytes.len() > MAX_PENDING_BYTES || self.work > FREE_WORK
    }

    /// The first of them: about `most` bytes, at least one chunk. What is left depends on them, and not they on it.
    pub(super) fn take_first(&mut self, most: usize) -> Vec<u8> {
        let fitting = self.ends.partition_point(|&end| end <= most);
        let count = fitting.max(1).min(self.ends.len());
        let length = self.ends.drain(..count).next_back().unwrap_or(0);
        for end in &mut self.ends {
            *end -= length;
        }
        let left = self.bytes.split_off(length);
        std::mem::replace(&mut self.bytes, left)
    }

    /// Adds what came later.
    pub(super) fn append(&mut self, mut later: Self) {
        self.work = self.work.saturating_add(later.work);
        let before = self.bytes.len();
        self.ends.extend(later.ends.iter().map(|end| before + end));
        self.bytes.append(&mut later.bytes);
        self.heads.append(&mut later.heads);
    }

    /// As the changes of a sync message.
    pub(super) fn into_list(self) -> ChunkList {
        if self.is_empty() {
            ChunkList::empty()
        } else {
            ChunkList::from(self.bytes)
        }
    }
}
