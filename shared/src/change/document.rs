//! Document chunks: whole documents, compacted. A first upload, a snapshot, a file.

use automerge::Automerge;
use bytes::Bytes;

use super::chunk::{Budget, RawChunk};
use super::{Change, ChunkError};
use crate::Limits;
use crate::reader::Reader;

/// Turns a document chunk into its changes, each after its deps.
pub fn decode_document(chunk: &Bytes, limits: &Limits) -> Result<Vec<Change>, ChunkError> {
    let loaded = std::panic::catch_unwind(|| {
        let document = Automerge::load(chunk)?;
        Ok(document.get_changes(&[]))
    });
    let changes = match loaded {
        Ok(Ok(changes)) => changes,
        Ok(Err(error)) => return Err(ChunkError::Load(Box::new(error))),
        Err(_panic) => return Err(ChunkError::LoadPanicked),
    };
    let mut budget = Budget {
        inflated_bytes: 0,
        ops: limits.document_ops,
    };
    changes
        .iter()
        .map(|change| {
            let bytes = Bytes::copy_from_slice(change.raw_bytes());
            RawChunk::read(&mut Reader::new(&bytes), &bytes)?.into_change(&mut budget, limits)
        })
        .collect()
}
