//! Automerge sync messages, checked before Automerge sees them.
//!
//! `type | heads | need | have | changes | [flags]`, numbers as unsigned LEB128; type 0x42 or 0x43;
//! heads and need: a count and that many hashes; have: a count of (hashes of the last sync, a length
//! and a bloom filter); changes: a count of (length, bytes); flags: a length and that many bytes.
//! The source is `automerge` 0.12, `sync.rs`. What follows the flags is ignored there, which is how
//! the flags themselves were added, and so it is here.
//!
//! `automerge::sync::Message::decode` trusts the bloom filter, whose parameters can make Automerge
//! panic or compute for hours on the next message that it generates.

use automerge::ChangeHash;
use automerge::sync::{BloomFilter, ChunkList, Have, Message, MessageFlags, MessageVersion};
use bytes::Bytes;

use crate::reader::{ReadError, Reader};
use crate::{ErrorCode, Limits};

const V1: u8 = 0x42;
const V2: u8 = 0x43;
/// Marks a byte of flags; those below are of older versions and say nothing.
const FLAGS: u8 = 0x80;

/// Why a sync message is refused.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// Too short, or a number out of bounds.
    #[error("bad sync message: {0}")]
    Read(#[from] ReadError),
    /// The first byte is not that of a sync message.
    #[error("a sync message of type {found:#04x}")]
    WrongType {
        /// The first byte.
        found: u8,
    },
    /// A bloom filter with parameters out of bounds, or with another size than they say.
    #[error(
        "a bloom filter of {entries} entries, {bits_per_entry} bits each, {probes} probes, \
         in {bytes} bytes"
    )]
    BadBloom {
        /// Hashes it claims to hold.
        entries: u64,
        /// Bits it claims for each.
        bits_per_entry: u64,
        /// Bits to look at for each.
        probes: u64,
        /// Bytes of bits that are there.
        bytes: usize,
    },
    /// Automerge can not read the bloom filter.
    #[error("Automerge refuses the bloom filter: {0}")]
    Automerge(#[from] automerge::sync::DecodeBloomError),
}

impl SyncError {
    /// What the peer is told.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Read(ReadError::TooMany { .. }) => ErrorCode::SyncMessageTooLarge,
            Self::Read(_) | Self::WrongType { .. } => ErrorCode::BadSyncMessage,
            Self::BadBloom { .. } | Self::Automerge(_) => ErrorCode::BadBloomFilter,
        }
    }
}

/// A sync message with its changes apart, so that they need not be copied.
#[derive(Debug, Clone, PartialEq)]
pub struct SyncMessage {
    /// The message, its list of changes empty.
    pub message: Message,
    /// What the list of changes held, as slices of the input: for
    /// [`parse_message`](crate::change::parse_message). V1: one change chunk each. V2: concatenated chunks, or a whole document chunk.
    pub changes: Vec<Bytes>,
}

/// Reads a sync message into Automerge's own type. Copies the changes; [`split`] does not.
pub fn decode(data: &[u8], limits: &Limits) -> Result<Message, SyncError> {
    let mut chunks = Vec::new();
    let mut message = read(data, limits, |chunk| chunks.push(chunk.to_vec()))?;
    message.changes = ChunkList::from(chunks);
    Ok(message)
}

/// Reads a sync message without copying its changes.
pub fn split(data: &Bytes, limits: &Limits) -> Result<SyncMessage, SyncError> {
    let mut changes = Vec::new();
    let message = read(data, limits, |chunk| changes.push(data.slice_ref(chunk)))?;
    Ok(SyncMessage { message, changes })
}

fn read<'a>(
    data: &'a [u8],
    limits: &Limits,
    mut chunk: impl FnMut(&'a [u8]),
) -> Result<Message, SyncError> {
    let mut data = Reader::new(data);
    let version = match data.u8("sync message type")? {
        V1 => MessageVersion::V1,
        V2 => MessageVersion::V2,
        found => return Err(SyncError::WrongType { found }),
    };
    let heads = read_hashes(&mut data, limits, "heads")?;
    let need = read_hashes(&mut data, limits, "need")?;
    let haves = data.count(limits.sync_haves as u64, "haves")?;
    let mut have = Vec::new();
    for _ in 0..haves {
        have.push(Have {
            last_sync: read_hashes(&mut data, limits, "last sync")?,
            bloom: read_bloom(&mut data, limits)?,
        });
    }
    for _ in 0..data.count(limits.chunks as u64, "changes")? {
        chunk(data.prefixed(limits.frame_bytes, "change")?);
    }
    let flags = if data.is_empty() {
        None
    } else {
        Some(read_flags(data.prefixed(limits.frame_bytes, "flags")?))
    };
    Ok(Message {
        heads,
        need,
        have,
        changes: ChunkList::empty(),
        flags,
        version,
    })
}

/// Ascending and without repeats, as Automerge writes them and as whoever compares heads needs them.
fn read_hashes(
    data: &mut Reader<'_>,
    limits: &Limits,
    what: &'static str,
) -> Result<Vec<ChangeHash>, SyncError> {
    let mut hashes = data.hashes(limits.sync_hashes, what)?;
    if !hashes.is_sorted_by(|a, b| a < b) {
        hashes.sort_unstable();
        hashes.dedup();
    }
    Ok(hashes)
}

fn read_bloom(data: &mut Reader<'_>, limits: &Limits) -> Result<BloomFilter, SyncError> {
    let bytes = data.prefixed(limits.bloom_bytes, "bloom filter")?;
    if bytes.is_empty() {
        return Ok(BloomFilter::default());
    }
    let mut bloom = Reader::new(bytes);
    let entries = bloom.uleb("bloom filter entries")?;
    let bits_per_entry = bloom.uleb("bloom filter bits per entry")?;
    let probes = bloom.uleb("bloom filter probes")?;
    let size = entries.saturating_mul(bits_per_entry).div_ceil(8);
    let good = u32::try_from(entries).is_ok()
        && (1..=u64::from(limits.bloom_bits_per_entry)).contains(&bits_per_entry)
        && (1..=u64::from(limits.bloom_probes)).contains(&probes)
        && size == bloom.remaining() as u64;
    if !good {
        return Err(SyncError::BadBloom {
            entries,
            bits_per_entry,
            probes,
            bytes: bloom.remaining(),
        });
    }
    Ok(BloomFilter::try_from(bytes)?)
}

fn read_flags(bytes: &[u8]) -> MessageFlags {
    let mut flags = MessageFlags::new();
    for byte in bytes {
        if byte & FLAGS != 0 {
            flags.set(byte & !FLAGS);
        }
    }
    flags
}

#[cfg(test)]
mod tests;
