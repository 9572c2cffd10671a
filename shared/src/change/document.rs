//! Document chunks: whole documents, compacted. A first upload, a snapshot, a file.

use bytes::Bytes;

use super::{Change, ChunkError};
use crate::Limits;

/// Turns a document chunk into its changes, each after its deps.
pub fn decode_document(chunk: &Bytes, limits: &Limits) -> Result<Vec<Change>, ChunkError> {
    let _ = (chunk, limits);
    Ok(Vec::new())
}
