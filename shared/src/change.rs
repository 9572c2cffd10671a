//! Change and document chunks, read without trusting a byte of them.
//!
//! The relay needs of a change its place in the history (hash, deps, actor, seq, start op and op count),
//! and admission what it refers to. [`parse_message`] gives that, and refuses what would hurt some
//! Automerge later:
//!
//! - a checksum that is not that of the bytes, which `automerge::Change::from_bytes` lets pass;
//! - run lengths that claim more ops than the bounds allow, read without expanding them;
//! - compressed changes that inflate beyond the bounds;
//! - bytes that Automerge would write differently. A saved document does not keep its changes but
//!   makes them again from its ops when it loads, and checks that their hashes add up to its heads:
//!   one change with, say, a run split in two makes the document unreadable for ever;
//! - ops that no Automerge writes, or that refer to what their own change does not make.
//!
//! Whether the ops refer to what exists in the document is not seen here: [`Ops`] lists what is left to
//! judge for whoever knows the document, and what the document then has more.
//!
//! The chunk format is that of <https://automerge.org/automerge-binary-format-spec/>.

mod chunk;
mod column;
mod document;
mod error;
mod header;
mod needs;
mod op_error;
mod ops;
mod spec;
mod value;
mod walk;

pub use chunk::{
    Chunk, Chunks, change_hash, has_document, parse_chunks, parse_message, split_chunks,
};
pub use document::{check_document, decode_document, have_same_ops};
pub use error::ChunkError;
pub use needs::{
    Container, ElementRef, Made, Need, ObjectKind, ObjectRef, OpRef, Ops, Place, What,
};
pub use op_error::OpError;

use automerge::{ActorId, ChangeHash};
use bytes::Bytes;

/// [Work](Change::work) for each byte of changes that is in proportion: a run of ops is a few bytes to send, but
/// takes time and memory wherever it is applied. Text has one op for each byte or less.
pub const WORK_PER_BYTE: u64 = 16;

/// One change as the change graph knows it, with its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The whole chunk, always uncompressed (type 1), as stored and relayed.
    pub bytes: Bytes,
    /// SHA-256 over type, length and data.
    pub hash: ChangeHash,
    /// Hashes of the changes that were the author's heads, ascending.
    pub deps: Vec<ChangeHash>,
    /// The author's replica.
    pub actor: ActorId,
    /// Which of the actor's changes this is, from 1. Fits a `u32`.
    pub seq: u64,
    /// Counter of the first op's id, from 1. `start_op + ops` fits a `u32`.
    pub start_op: u64,
    /// How many ops there are. A change may have none.
    pub ops: u64,
    /// What they need to find in the document, and what they make.
    pub refs: Ops,
}

impl Change {
    /// Counter of the last op's id; for a change without ops, the one before `start_op`.
    pub fn max_op(&self) -> u64 {
        (self.start_op + self.ops).saturating_sub(1)
    }

    /// How much work this is to whoever applies it, in ops that make something: more for each mark, since
    /// Automerge looks at all marks of a text for each; less for deletions and increments, which take few
    /// bytes in an honest change, too.
    pub fn work(&self) -> u64 {
        const WORK_OF_A_MARK: u64 = 16;
        const OTHERS_FOR_ONE: u64 = 16;
        let (mut made, mut work) = (0, 0_u64);
        for run in &self.refs.made {
            let count = u64::from(run.count);
            made += count;
            work += match run.what {
                What::Mark => WORK_OF_A_MARK * count,
                _ => count,
            };
        }
        work + self.ops.saturating_sub(made) / OTHERS_FOR_ONE
    }

    /// Bytes of memory that this takes, roughly: run lengths can claim much that its bytes do not show.
    pub fn memory(&self) -> usize {
        self.bytes.len() + self.refs.memory() + self.deps.capacity() * size_of::<ChangeHash>()
    }
}

#[cfg(test)]
mod tests;
