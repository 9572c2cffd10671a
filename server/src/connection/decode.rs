//! From a sync message's bytes to a document's input: bounded decoding, parsing, checksums.
//!
//! This is done by the connection, not by the document, so that a peer that sends much work holds up
//! itself and no one else, and so that it spreads over the cores. What takes long (document chunks,
//! big blobs of changes) goes to blocking threads, few at a time.

use std::sync::Arc;

use automerge::sync::Message;
use bytes::Bytes;
use concord_shared::change::{self, Change, Chunk, ChunkError};
use concord_shared::code::ErrorCode;
use concord_shared::limits::Limits;
use concord_shared::sync::{self, SyncError, SyncMessage};
use tokio::sync::Semaphore;

/// Messages up to this size, in bytes, are parsed where they arrive (about 0.3 ms of keystrokes).
const INLINE_PARSE_BYTES: usize = 16 << 10;

/// Ops that are checked where they arrive, at about 200 ns each. Run lengths can claim a million in
/// 55 bytes, so the size alone bounds nothing.
const INLINE_PARSE_OPS: u64 = 2_000;

/// Big messages decoded at a time, per server. Each may hold a whole document in memory.
pub const CONCURRENT_DECODES: usize = 2;

/// A sync message taken apart.
#[derive(Debug)]
pub struct Decoded {
    /// Everything but the changes.
    pub sync: Message,
    /// The changes, in the order they came.
    pub changes: Vec<Change>,
    /// When they are all of one document chunk: that chunk.
    pub snapshot: Option<Bytes>,
}

/// Why a sync message was not taken.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The message itself.
    #[error(transparent)]
    Sync(#[from] SyncError),
    /// A chunk in it.
    #[error(transparent)]
    Chunk(#[from] ChunkError),
    /// The decoder panicked: the message is refused, nothing of it was kept.
    #[error("decoding panicked")]
    Panicked,
}

impl DecodeError {
    /// The stable code a peer sees.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Sync(error) => error.code(),
            Self::Chunk(error) => error.code(),
            Self::Panicked => ErrorCode::BadDocument,
        }
    }
}

/// Decodes a sync message, on a blocking thread when it is big or holds a document.
pub async fn decode(
    data: Bytes,
    limits: Limits,
    heavy: &Arc<Semaphore>,
) -> Result<Decoded, DecodeError> {
    if data.len() <= INLINE_PARSE_BYTES
        && let Some(decoded) = decode_small(&data, &limits)?
    {
        return Ok(decoded);
    }
    let permit = Arc::clone(heavy).acquire_owned().await;
    let task = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        decode_any(&data, &limits)
    });
    task.await.unwrap_or(Err(DecodeError::Panicked))
}

/// `None` when the message turns out to be much work.
fn decode_small(data: &Bytes, limits: &Limits) -> Result<Option<Decoded>, DecodeError> {
    let small = Limits {
        ops_per_change: limits.ops_per_change.min(INLINE_PARSE_OPS),
        ops_per_message: limits.ops_per_message.min(INLINE_PARSE_OPS),
        inflated_bytes: limits.inflated_bytes.min(INLINE_PARSE_BYTES),
        ..*limits
    };
    let SyncMessage { message, changes } = sync::split(data, limits)?;
    match change::parse_message(&changes, &small) {
        Ok(chunks) if chunks.iter().any(|c| matches!(c, Chunk::Document(_))) => Ok(None),
        Ok(chunks) => resolve(message, chunks, limits).map(Some),
        Err(error)
            if matches!(
                error.code(),
                ErrorCode::TooManyOps | ErrorCode::ChangeTooLarge
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// Decodes a sync message of any size. Blocks.
pub fn decode_any(data: &Bytes, limits: &Limits) -> Result<Decoded, DecodeError> {
    let SyncMessage { message, changes } = sync::split(data, limits)?;
    let chunks = change::parse_message(&changes, limits)?;
    resolve(message, chunks, limits)
}

fn resolve(sync: Message, chunks: Vec<Chunk>, limits: &Limits) -> Result<Decoded, DecodeError> {
    let mut changes = Vec::with_capacity(chunks.len());
    let mut snapshot = None;
    let alone = chunks.len() == 1;
    for chunk in chunks {
        match chunk {
            Chunk::Change(change) => changes.push(change),
            Chunk::Document(bytes) => {
                changes.extend(change::decode_document(&bytes, limits)?);
                snapshot = alone.then_some(bytes);
            }
        }
    }
    Ok(Decoded {
        sync,
        changes,
        snapshot,
    })
}
