//! The framing of chunks: magic, checksum, type, length, data.

use std::io::Read as _;

use automerge::ChangeHash;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::header::read_change;
use super::{Change, ChunkError};
use crate::Limits;
use crate::reader::{ReadError, Reader, push_uleb};

const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];
/// Where type, length and data begin: what the hash is computed over.
const HASHED_FROM: usize = 8;

pub(super) const DOCUMENT: u8 = 0;
const CHANGE: u8 = 1;
const COMPRESSED_CHANGE: u8 = 2;

/// One chunk, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "nearly all are changes")]
pub enum Chunk {
    /// A change. If it was sent compressed, its bytes no longer are.
    Change(Change),
    /// A document chunk with a good checksum, for [`decode_document`](super::decode_document).
    Document(Bytes),
}

/// Reads concatenated chunks, up to the end: garbage after a good chunk is an error, and so is the
/// chunk before it. As [`parse_message`] of one blob.
pub fn parse_chunks(data: &Bytes, limits: &Limits) -> Result<Vec<Chunk>, ChunkError> {
    parse_message(std::slice::from_ref(data), limits)
}

/// Reads all that the list of changes of one sync message holds: blobs of concatenated chunks.
///
/// Time is proportional to the bytes after inflating and to the ops; both are bounded by `limits` over all
/// blobs together, and so are the numbers of chunks and of document chunks. A caller that must not be held up gives smaller limits
/// first, and does it again elsewhere on [`ErrorCode::TooManyOps`](crate::ErrorCode::TooManyOps) or
/// [`ErrorCode::ChangeTooLarge`](crate::ErrorCode::ChangeTooLarge).
pub fn parse_message(blobs: &[Bytes], limits: &Limits) -> Result<Vec<Chunk>, ChunkError> {
    Chunks::new(blobs, limits).collect()
}

/// The chunks of some blobs one by one, each checked when its turn comes: for whoever need not hold what all
/// of them refer to at once. The bounds are those of [`parse_message`].
///
/// What comes after an error is worth reading where the sender is trusted not to mean harm: after a chunk
/// that is bad in itself comes the next, after bytes that no chunk begins with the next blob. Whoever reads on
/// ends where an error [is beyond a bound](ChunkError::is_beyond_a_bound): what was spent on it is not counted.
pub struct Chunks<'a> {
    blobs: std::slice::Iter<'a, Bytes>,
    blob: Option<(&'a Bytes, Reader<'a>)>,
    taken: usize,
    budget: Budget,
    limits: &'a Limits,
}

impl<'a> Chunks<'a> {
    /// Of these blobs.
    pub fn new(blobs: &'a [Bytes], limits: &'a Limits) -> Self {
        Self {
            blobs: blobs.iter(),
            blob: None,
            taken: 0,
            budget: Budget {
                inflated_bytes: limits.inflated_bytes,
                ops: limits.ops_per_message,
                refs_bytes: limits.refs_bytes,
                documents: limits.documents,
            },
            limits,
        }
    }

    fn check(&mut self, raw: Result<RawChunk, ChunkError>) -> Result<Chunk, ChunkError> {
        within("chunks", self.taken, self.limits.chunks)?;
        self.taken += 1;
        let raw = raw?;
        match raw.kind {
            DOCUMENT => {
                within("document chunks", 0, self.budget.documents)?;
                self.budget.documents -= 1;
                raw.check_hash(&raw.bytes)?;
                Ok(Chunk::Document(raw.bytes))
            }
            CHANGE | COMPRESSED_CHANGE => {
                let change = raw.into_change(&mut self.budget, self.limits)?;
                Ok(Chunk::Change(change))
            }
            found => Err(ChunkError::UnsupportedType { found }),
        }
    }
}

impl Iterator for Chunks<'_> {
    type Item = Result<Chunk, ChunkError>;

    fn next(&mut self) -> Option<Self::Item> {
        let raw = loop {
            match &mut self.blob {
                Some((blob, rest)) if !rest.is_empty() => break RawChunk::read(rest, blob),
                _ => {
                    let blob = self.blobs.next()?;
                    self.blob = Some((blob, Reader::new(blob)));
                }
            }
        };
        if raw.is_err() {
            self.blob = None;
        }
        Some(self.check(raw))
    }
}

/// Cuts concatenated chunks apart by their lengths, without a look at what is in them, up to the end or to
/// the first error.
pub fn split_chunks(data: &Bytes) -> impl Iterator<Item = Result<Bytes, ChunkError>> + '_ {
    raw_chunks(data).map(|raw| Ok(raw?.bytes))
}

/// Whether there is a document chunk with a good checksum among them. Changes are not looked at.
pub fn has_document(blobs: &[Bytes]) -> bool {
    let mut raw = blobs.iter().flat_map(raw_chunks).flatten();
    raw.any(|raw| raw.kind == DOCUMENT && raw.check_hash(&raw.bytes).is_ok())
}

fn raw_chunks(data: &Bytes) -> impl Iterator<Item = Result<RawChunk, ChunkError>> + '_ {
    let mut rest = Reader::new(data);
    let mut failed = false;
    std::iter::from_fn(move || {
        if failed || rest.is_empty() {
            return None;
        }
        let chunk = RawChunk::read(&mut rest, data);
        failed = chunk.is_err();
        Some(chunk)
    })
}

/// The hash of an uncompressed chunk, by which others name a change: not looked at otherwise.
pub fn change_hash(chunk: &[u8]) -> ChangeHash {
    let hashed = chunk.get(HASHED_FROM..).unwrap_or_default();
    ChangeHash(Sha256::digest(hashed).into())
}

/// Whether there is room for one more.
fn within(what: &'static str, so_far: usize, limit: usize) -> Result<(), ChunkError> {
    if so_far < limit {
        return Ok(());
    }
    Err(ChunkError::Read(ReadError::TooMany {
        what,
        count: so_far as u64 + 1,
        limit: limit as u64,
    }))
}

/// What the chunks of one message may still use.
pub(super) struct Budget {
    pub(super) inflated_bytes: usize,
    /// Ops, or predecessors, whichever are more in each change.
    pub(super) ops: u64,
    pub(super) refs_bytes: usize,
    pub(super) documents: usize,
}

/// A chunk cut out by its length, nothing more.
pub(super) struct RawChunk {
    pub(super) kind: u8,
    /// The whole chunk.
    pub(super) bytes: Bytes,
    /// Where its data begins.
    pub(super) data_from: usize,
    checksum: [u8; 4],
}

impl RawChunk {
    /// Cuts the next chunk. `all` is what `rest` was made from.
    pub(super) fn read(rest: &mut Reader<'_>, all: &Bytes) -> Result<Self, ChunkError> {
        let from = rest.offset();
        if rest.array("chunk magic")? != MAGIC {
            return Err(ChunkError::NoMagic { offset: from });
        }
        let checksum = rest.array("chunk checksum")?;
        let kind = rest.u8("chunk type")?;
        let length = rest.uleb("chunk length")?;
        let data_from = rest.offset() - from;
        rest.take(length, "chunk data")?;
        Ok(Self {
            kind,
            bytes: all.slice(from..rest.offset()),
            data_from,
            checksum,
        })
    }

    pub(super) fn data(&self) -> &[u8] {
        self.bytes.get(self.data_from..).unwrap_or_default()
    }

    /// The hash of a chunk, whose beginning must be the checksum.
    pub(super) fn check_hash(&self, chunk: &[u8]) -> Result<ChangeHash, ChunkError> {
        let hash = change_hash(chunk);
        let [a, b, c, d, ..] = hash.0;
        if [a, b, c, d] != self.checksum {
            return Err(ChunkError::Checksum {
                found: self.checksum,
                computed: [a, b, c, d],
            });
        }
        Ok(hash)
    }

    /// Reads a change, compressed or not.
    pub(super) fn into_change(
        self,
        budget: &mut Budget,
        limits: &Limits,
    ) -> Result<Change, ChunkError> {
        let (bytes, data_from) = if self.kind == COMPRESSED_CHANGE {
            let inflated = inflate(self.data(), limits.change_bytes, budget)?;
            self.rebuild(&inflated)
        } else {
            (self.bytes.clone(), self.data_from)
        };
        let hash = self.check_hash(&bytes)?;
        let data = bytes.slice(data_from..);
        let allowed = Limits {
            ops_per_change: limits.ops_per_change.min(budget.ops),
            preds_per_change: limits.preds_per_change.min(budget.ops),
            refs_bytes: budget.refs_bytes,
            ..*limits
        };
        let read = read_change(bytes, &data, hash, &allowed).map_err(|error| error.of(hash))?;
        budget.ops -= read.change.ops.max(read.preds);
        budget.refs_bytes -= read.refs_bytes;
        Ok(read.change)
    }

    /// The uncompressed chunk around `data`. Its checksum is the compressed one's: that is always
    /// of the uncompressed data.
    fn rebuild(&self, data: &[u8]) -> (Bytes, usize) {
        const LONGEST_HEADER: usize = HASHED_FROM + 1 + 10;
        let mut chunk = Vec::with_capacity(LONGEST_HEADER + data.len());
        chunk.extend_from_slice(&MAGIC);
        chunk.extend_from_slice(&self.checksum);
        chunk.push(CHANGE);
        push_uleb(&mut chunk, data.len() as u64);
        let data_from = chunk.len();
        chunk.extend_from_slice(data);
        (chunk.into(), data_from)
    }
}

/// Inflates at most as many bytes as a change may have and the budget has left.
fn inflate(
    deflated: &[u8],
    change_bytes: usize,
    budget: &mut Budget,
) -> Result<Vec<u8>, ChunkError> {
    let limit = change_bytes.min(budget.inflated_bytes);
    let mut inflated = Vec::new();
    let mut decoder = flate2::bufread::DeflateDecoder::new(deflated);
    let whole = decoder
        .by_ref()
        .take((limit as u64).saturating_add(1))
        .read_to_end(&mut inflated);
    if inflated.len() > limit {
        return Err(ChunkError::TooLarge {
            what: "inflated changes",
            bytes: inflated.len(),
            limit,
        });
    }
    if whole.is_err() || decoder.total_in() != deflated.len() as u64 {
        return Err(ChunkError::Inflate {
            inflated: inflated.len(),
        });
    }
    budget.inflated_bytes -= inflated.len();
    Ok(inflated)
}
