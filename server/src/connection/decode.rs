//! From a sync message's bytes to a document's input: bounded decoding, parsing, checksums.
//!
//! This is done by the connection, not by the document, so that a peer that sends much work holds up
//! itself and no one else, and so that it spreads over the cores. What is small is decoded where it
//! arrives, the rest on blocking threads, few at a time: what is medium apart from what is large, so that
//! a paste does not wait behind uploads. How much work a message is shows only in decoding it, since
//! run lengths can claim a million ops in 55 bytes. So each size has its limits, a message is tried by
//! those of the smaller one first, and a try that fails is cheap.

use std::sync::Arc;

use automerge::ChangeHash;
use automerge::sync::Message;
use bytes::Bytes;
use concord_shared::change::{self, Change, Chunk, ChunkError};
use concord_shared::code::ErrorCode;
use concord_shared::limits::Limits;
use concord_shared::sync::{self, SyncError, SyncMessage};
use tokio::sync::Semaphore;

use crate::limits::account::{Account, Turn};

/// Bytes of a small message, before and after inflating (about 0.3 ms of keystrokes).
const SMALL_BYTES: usize = 16 << 10;

/// Ops of a small message, at about 200 ns each.
const SMALL_OPS: u64 = 2_000;

/// Bytes of a medium message, before and after inflating: a paste of some pages, a new document, a
/// train ride offline.
const MEDIUM_BYTES: usize = 512 << 10;

/// Bytes of memory that the ops of a small message may refer to.
const SMALL_REFS_BYTES: usize = 256 << 10;

/// Ops of a medium message, and changes of a document in one, so that it takes some 50 ms.
const MEDIUM_OPS: u64 = 100_000;
const MEDIUM_DOCUMENT_CHANGES: u64 = 4_000;
const MEDIUM_REFS_BYTES: usize = 16 << 20;

/// Medium messages decoded at a time, per server: as many as keep a small machine busy, so that one
/// of them is soon done.
const CONCURRENT_MEDIUM_DECODES: usize = 4;

/// Large messages decoded at a time, per server. Each may hold a whole document in memory.
const CONCURRENT_LARGE_DECODES: usize = 2;

/// Permits for decoding. Those who wait for one get it in the order in which they came.
#[derive(Debug)]
pub struct Decoders {
    medium: Arc<Semaphore>,
    large: Arc<Semaphore>,
}

impl Default for Decoders {
    fn default() -> Self {
        Self {
            medium: Arc::new(Semaphore::new(CONCURRENT_MEDIUM_DECODES)),
            large: Arc::new(Semaphore::new(CONCURRENT_LARGE_DECODES)),
        }
    }
}

impl Decoders {
    /// Waits for a turn of [`medium`].
    pub async fn medium(&self, account: &Account) -> Turn {
        account.medium.turn(&self.medium).await
    }

    /// Waits for a turn of [`large`].
    pub async fn large(&self, account: &Account) -> Turn {
        account.large.turn(&self.large).await
    }
}

/// A sync message taken apart.
#[derive(Debug)]
pub struct Decoded {
    /// Everything but the changes.
    pub sync: Message,
    /// The changes, in the order they came.
    pub changes: Vec<Change>,
    /// Whether they are all of one document chunk.
    pub is_document: bool,
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

    /// The change that it is about, if that is known.
    pub fn hash(&self) -> Option<ChangeHash> {
        match self {
            Self::Chunk(error) => error.hash(),
            Self::Sync(_) | Self::Panicked => None,
        }
    }
}

/// Decodes a small sync message here and now; `None` when it is more work.
pub fn at_once(data: &Bytes, limits: &Limits) -> Result<Option<Decoded>, DecodeError> {
    if data.len() > SMALL_BYTES {
        return Ok(None);
    }
    let small = Limits {
        // Loading a document is not bounded by its ops alone.
        documents: 0,
        ops_per_change: limits.ops_per_change.min(SMALL_OPS),
        ops_per_message: limits.ops_per_message.min(SMALL_OPS),
        inflated_bytes: limits.inflated_bytes.min(SMALL_BYTES),
        refs_bytes: limits.refs_bytes.min(SMALL_REFS_BYTES),
        ..*limits
    };
    within(data, &small)
}

/// Decodes a medium sync message on a blocking thread; `None` when it is more work.
pub async fn medium(
    permit: Turn,
    data: Bytes,
    limits: Limits,
) -> Result<Option<Decoded>, DecodeError> {
    if data.len() > MEDIUM_BYTES {
        return Ok(None);
    }
    let medium = Limits {
        ops_per_change: limits.ops_per_change.min(MEDIUM_OPS),
        ops_per_message: limits.ops_per_message.min(MEDIUM_OPS),
        inflated_bytes: limits.inflated_bytes.min(MEDIUM_BYTES),
        refs_bytes: limits.refs_bytes.min(MEDIUM_REFS_BYTES),
        document_bytes: limits.document_bytes.min(MEDIUM_BYTES),
        document_ops: limits.document_ops.min(MEDIUM_OPS),
        document_changes: limits.document_changes.min(MEDIUM_DOCUMENT_CHANGES),
        ..limits
    };
    on_blocking_thread(permit, move || within(&data, &medium)).await
}

/// Decodes a sync message of any size on a blocking thread.
pub async fn large(permit: Turn, data: Bytes, limits: Limits) -> Result<Decoded, DecodeError> {
    on_blocking_thread(permit, move || decode_any(&data, &limits)).await
}

async fn on_blocking_thread<T: Send + 'static>(
    permit: Turn,
    decode: impl FnOnce() -> Result<T, DecodeError> + Send + 'static,
) -> Result<T, DecodeError> {
    let task = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        decode()
    });
    task.await.unwrap_or(Err(DecodeError::Panicked))
}

/// `None` when the message is beyond these limits, which are not those that refuse it.
fn within(data: &Bytes, limits: &Limits) -> Result<Option<Decoded>, DecodeError> {
    match decode_any(data, limits) {
        Ok(decoded) => Ok(Some(decoded)),
        Err(error)
            if matches!(
                error.code(),
                ErrorCode::TooManyOps | ErrorCode::ChangeTooLarge | ErrorCode::DocumentTooLarge
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Decodes a sync message of any size. Blocks.
pub fn decode_any(data: &Bytes, limits: &Limits) -> Result<Decoded, DecodeError> {
    let SyncMessage { message, changes } = sync::split(data, limits)?;
    let chunks = change::parse_message(&changes, limits)?;
    Ok(Decoded {
        sync: message,
        is_document: matches!(chunks[..], [Chunk::Document(_)]),
        changes: changes_of(chunks, limits)?,
    })
}

/// Decodes a document as it is saved: a document chunk, single changes, or one and then the others. Blocks.
pub fn saved(data: &Bytes, limits: &Limits) -> Result<Vec<Change>, DecodeError> {
    changes_of(change::parse_chunks(data, limits)?, limits)
}

fn changes_of(chunks: Vec<Chunk>, limits: &Limits) -> Result<Vec<Change>, DecodeError> {
    let mut changes = Vec::with_capacity(chunks.len());
    for chunk in chunks {
        match chunk {
            Chunk::Change(change) => changes.push(change),
            Chunk::Document(bytes) => changes.extend(change::decode_document(&bytes, limits)?),
        }
    }
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use automerge::sync::SyncDoc as _;
    use automerge::transaction::Transactable as _;
    use automerge::{AutoCommit, ObjType, ROOT};

    use super::*;

    /// The message that uploads a document with so many letters, a thousand in each change.
    fn upload(thousands: usize) -> Bytes {
        let mut doc = AutoCommit::new();
        let text = doc.put_object(ROOT, "text", ObjType::Text).expect("a text");
        for n in 0..thousands {
            doc.splice_text(&text, n, 0, &"abcdefghij".repeat(100))
                .expect("letters");
            doc.commit();
        }
        message(&mut doc)
    }

    fn message(doc: &mut AutoCommit) -> Bytes {
        let mut peer = automerge::sync::State::new();
        let mut nobody = AutoCommit::new();
        let asked = nobody
            .sync()
            .generate_sync_message(&mut automerge::sync::State::new());
        doc.sync()
            .receive_sync_message(&mut peer, asked.expect("a first message"))
            .expect("is taken");
        let message = doc.sync().generate_sync_message(&mut peer);
        message.expect("the changes").encode().into()
    }

    #[tokio::test]
    async fn a_paste_and_a_small_document_do_not_wait_behind_uploads() {
        let limits = Limits::default();
        let decoders = Decoders::default();
        let account = Account::unlimited();
        let mut busy = Vec::new();
        for _ in 0..CONCURRENT_LARGE_DECODES {
            // Each is another caller's.
            busy.push(decoders.large(&Account::unlimited()).await);
        }
        for thousands in [20, 90] {
            let data = upload(thousands);
            assert!(at_once(&data, &limits).expect("is good").is_none());
            let permit = decoders.medium(&account).await;
            let decoded = medium(permit, data, limits).await.expect("is good");
            assert_eq!(decoded.expect("is medium").changes.len(), thousands);
        }
        // And what is large takes none of their time.
        let data = upload(110);
        assert!(at_once(&data, &limits).expect("is good").is_none());
        let permit = decoders.medium(&account).await;
        assert!(
            medium(permit, data.clone(), limits)
                .await
                .expect("is good")
                .is_none()
        );
        busy.clear();
        let decoded = large(decoders.large(&account).await, data, limits).await;
        assert_eq!(decoded.expect("is good").changes.len(), 110);
    }
}
