//! What can be wrong with a chunk.

use automerge::ChangeHash;

use super::op_error::OpError;
use crate::ErrorCode;
use crate::reader::ReadError;

/// Why a chunk is refused.
#[derive(Debug, thiserror::Error)]
pub enum ChunkError {
    /// Too short, too long, or a number out of bounds.
    #[error("bad chunk: {0}")]
    Read(#[from] ReadError),
    /// The four bytes that every chunk begins with are not there.
    #[error("no chunk begins at byte {offset}")]
    NoMagic {
        /// Where in the input.
        offset: usize,
    },
    /// The checksum is not the beginning of the hash.
    #[error("the checksum is {found:02x?}, the bytes' is {computed:02x?}")]
    Checksum {
        /// As written.
        found: [u8; 4],
        /// As it should be.
        computed: [u8; 4],
    },
    /// A bundle (3), or a type that this version does not know.
    #[error("chunks of type {found} are not taken")]
    UnsupportedType {
        /// The chunk's type.
        found: u8,
    },
    /// A compressed change that is not DEFLATE, or does not end where its chunk ends.
    #[error("a compressed change does not inflate after {inflated} bytes")]
    Inflate {
        /// Bytes inflated before it failed.
        inflated: usize,
    },
    /// A whole change, or all compressed changes together, above the bound in bytes.
    #[error("{what}: {bytes} bytes or more, above {limit}")]
    TooLarge {
        /// What was measured.
        what: &'static str,
        /// As far as it was measured: inflating stops at the bound.
        bytes: usize,
        /// The bound.
        limit: usize,
    },
    /// More ops than the bound.
    #[error("{what}: {ops} ops are more than {limit}")]
    TooManyOps {
        /// Of the change, the message or the document.
        what: &'static str,
        /// What the run lengths claim.
        ops: u64,
        /// The bound.
        limit: u64,
    },
    /// A value that Automerge never writes.
    #[error("a change whose {what} is {value}")]
    BadValue {
        /// Which value.
        what: &'static str,
        /// What it is.
        value: u64,
    },
    /// Automerge would write the same content in other bytes, so that the hash would not survive a
    /// save.
    #[error("{what} at byte {offset} is not as Automerge writes it: {why}")]
    NotCanonical {
        /// The header field or column.
        what: &'static str,
        /// Where in the chunk's data.
        offset: usize,
        /// What is different.
        why: &'static str,
    },
    /// A column that no Automerge writes: its content would be lost at the next save.
    #[error("unknown column {spec}")]
    UnknownColumn {
        /// The column's specification: id, type and compression bits.
        spec: u64,
    },
    /// A column with more or fewer rows than the change has ops.
    #[error("{what} has {rows} rows, there are {expected} ops")]
    Rows {
        /// The column.
        what: &'static str,
        /// Rows that its run lengths claim.
        rows: u64,
        /// Rows that it should have.
        expected: u64,
    },
    /// What is wrong with a change whose checksum is right.
    #[error("change {hash}: {error}")]
    Change {
        /// Its hash.
        hash: ChangeHash,
        /// What is wrong.
        error: Box<ChunkError>,
    },
    /// An op that no Automerge writes, or that refers to what its own change does not make.
    #[error("op {counter}: {error}")]
    Op {
        /// Counter of its id.
        counter: u64,
        /// What is wrong with it.
        error: OpError,
    },
    /// A document whose columns inflate to more than the bound, or that would take more memory.
    #[error("{what} of a document: {bytes} bytes or more, above {limit}")]
    DocumentTooLarge {
        /// What was measured.
        what: &'static str,
        /// As far as it was measured.
        bytes: usize,
        /// The bound.
        limit: usize,
    },
    /// A document's dep, actor or row count that points to what is not there, or whose run lengths
    /// claim more than the bound. Source: as for a change.
    #[error("bad document: {0}")]
    Document(Box<ChunkError>),
    /// Automerge can not load the document.
    #[error("Automerge refuses the document: {0}")]
    Load(Box<automerge::AutomergeError>),
    /// Automerge panicked on the document.
    #[error("Automerge panicked on the document")]
    LoadPanicked,
}

impl ChunkError {
    /// This, of the change with this hash.
    pub(super) fn of(self, hash: ChangeHash) -> Self {
        Self::Change {
            hash,
            error: Box::new(self),
        }
    }

    /// The change that it is about, if that is known.
    pub fn hash(&self) -> Option<ChangeHash> {
        match self {
            Self::Change { hash, .. } => Some(*hash),
            _ => None,
        }
    }

    /// Whether it asks for more than the limits allow: of time and memory, not of sense.
    pub fn is_beyond_a_bound(&self) -> bool {
        matches!(
            self.code(),
            ErrorCode::ChangeTooLarge | ErrorCode::TooManyOps | ErrorCode::DocumentTooLarge
        )
    }

    /// What the peer is told.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Read(ReadError::TooMany { .. }) | Self::TooLarge { .. } => {
                ErrorCode::ChangeTooLarge
            }
            Self::Read(_) | Self::NoMagic { .. } | Self::Inflate { .. } => ErrorCode::BadChunk,
            Self::Checksum { .. } => ErrorCode::BadChecksum,
            Self::UnsupportedType { .. } => ErrorCode::UnsupportedChunk,
            Self::DocumentTooLarge { .. } => ErrorCode::DocumentTooLarge,
            Self::Document(error) => match error.code() {
                ErrorCode::ChangeTooLarge | ErrorCode::TooManyOps | ErrorCode::DocumentTooLarge => {
                    ErrorCode::DocumentTooLarge
                }
                _ => ErrorCode::BadDocument,
            },
            Self::TooManyOps { .. } => ErrorCode::TooManyOps,
            Self::BadValue { .. }
            | Self::NotCanonical { .. }
            | Self::UnknownColumn { .. }
            | Self::Rows { .. } => ErrorCode::BadChange,
            Self::Op { error, .. } => error.code(),
            Self::Change { error, .. } => error.code(),
            Self::Load(_) | Self::LoadPanicked => ErrorCode::BadDocument,
        }
    }
}
