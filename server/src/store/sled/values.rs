//! Values of the sled tree.
//!
//! Every value is `format (1 byte) ‖ payload ‖ crc32 (4 bytes)`; the checksum covers the key too, so that a value
//! under the wrong key is found. Numbers are little-endian. What is longer than [`PIECE_MAX_BYTES`] is cut into
//! pieces under successive keys; all but the last are of exactly that length.
//!
//! ```text
//! document record   created at, ms u64 ‖ generation u64 ‖ base u64 ‖ snapshot length u64 ‖ graph length u64
//! snapshot, graph   the bytes; their length is in the document record
//! log record        length of what follows u64 ‖ one or more entries
//! entry             received at, ms u64 ‖ length u16, principal ‖ count u32 ‖ count × length u32 ‖ the changes
//! ```

use bytes::{Buf, Bytes, BytesMut};
use concord_shared::ids::PrincipalId;

use super::keys::FORMAT;
use crate::store::{LogRecord, Part, Problem};

/// Most payload bytes in one value.
///
/// sled keeps up to 17 values, after a merge 20 and a few more, in one leaf, and writes a leaf of more than a quarter
/// of a segment (128 KiB) to a file of its own, which it neither syncs nor reliably removes. With keys of at most
/// 144 bytes, 35 values of this size stay below that.
pub(super) const PIECE_MAX_BYTES: usize = 3_584;

const CHECKSUM_BYTES: usize = 4;

/// Number of pieces that `len` bytes take; nothing still takes one.
pub(super) fn piece_count(len: u64) -> u64 {
    len.div_ceil(PIECE_MAX_BYTES as u64).max(1)
}

fn checksum(key: &[u8], format_and_payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(format_and_payload);
    hasher.finalize()
}

/// Ends a value that begins with its format byte.
pub(super) fn seal(key: &[u8], mut value: Vec<u8>) -> Vec<u8> {
    let sum = checksum(key, &value);
    value.extend(sum.to_le_bytes());
    value
}

/// The payload of a value, if it is what was written under `key`.
pub(super) fn unseal<'v>(key: &[u8], value: &'v [u8], part: Part) -> Result<&'v [u8], Problem> {
    let (body, sum) = value
        .split_last_chunk::<CHECKSUM_BYTES>()
        .ok_or(Problem::Checksum { part })?;
    if checksum(key, body) != u32::from_le_bytes(*sum) {
        return Err(Problem::Checksum { part });
    }
    match body.split_first() {
        Some((&FORMAT, payload)) => Ok(payload),
        Some((&found, _)) => Err(Problem::Format { part, found }),
        None => Err(Problem::Malformed { part }),
    }
}

/// A value of one piece.
pub(super) fn single(key: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(1 + payload.len() + CHECKSUM_BYTES);
    value.push(FORMAT);
    value.extend_from_slice(payload);
    seal(key, value)
}

/// Cuts a stream of bytes into values, each copied once.
pub(super) struct PieceWriter<F> {
    emit: F,
    value: Vec<u8>,
    piece: u32,
    /// Bytes still to come, to size the next value.
    left: usize,
}

/// `emit` gets each piece's number and its value, format byte included, still to be sealed.
impl<F: FnMut(u32, Vec<u8>)> PieceWriter<F> {
    /// For exactly `len` bytes.
    pub(super) fn new(len: usize, emit: F) -> Self {
        let mut writer = Self {
            emit,
            value: Vec::new(),
            piece: 0,
            left: len,
        };
        writer.start();
        writer
    }

    fn start(&mut self) {
        self.value = Vec::with_capacity(1 + self.left.min(PIECE_MAX_BYTES) + CHECKSUM_BYTES);
        self.value.push(FORMAT);
    }

    pub(super) fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = (1 + PIECE_MAX_BYTES).saturating_sub(self.value.len());
            if room == 0 {
                let full = std::mem::take(&mut self.value);
                (self.emit)(self.piece, full);
                self.piece += 1;
                self.start();
                continue;
            }
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.value.extend_from_slice(now);
            self.left = self.left.saturating_sub(now.len());
            bytes = later;
        }
    }

    pub(super) fn finish(mut self) {
        (self.emit)(self.piece, self.value);
    }
}

/// The document record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DocumentRecord {
    pub(super) created_at_ms: u64,
    /// Number of the valid snapshot generation, from 1 on; 0: no snapshot.
    pub(super) generation: u64,
    pub(super) base: u64,
    pub(super) snapshot_len: u64,
    pub(super) graph_len: u64,
}

impl DocumentRecord {
    pub(super) fn encode(&self) -> Vec<u8> {
        [
            self.created_at_ms,
            self.generation,
            self.base,
            self.snapshot_len,
            self.graph_len,
        ]
        .iter()
        .flat_map(|number| number.to_le_bytes())
        .collect()
    }

    pub(super) fn decode(mut payload: &[u8]) -> Result<Self, Problem> {
        let part = Part::Document;
        let mut next = || {
            payload
                .try_get_u64_le()
                .map_err(|_| Problem::Malformed { part })
        };
        let record = Self {
            created_at_ms: next()?,
            generation: next()?,
            base: next()?,
            snapshot_len: next()?,
            graph_len: next()?,
        };
        if payload.is_empty() {
            Ok(record)
        } else {
            Err(Problem::Malformed { part })
        }
    }
}

/// What an entry of a log record is made of, borrowed from the write.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry<'w> {
    pub(super) received_at_ms: u64,
    pub(super) principal: &'w PrincipalId,
    pub(super) changes: &'w [Bytes],
}

impl Entry<'_> {
    pub(super) fn len(&self) -> usize {
        let changes: usize = self.changes.iter().map(|change| 4 + change.len()).sum();
        8 + 2 + self.principal.as_str().len() + 4 + changes
    }

    /// The lengths fit their fields: ids are bounded, and an append was checked before.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "checked by `Extent::after`, and by `PrincipalId`"
    )]
    fn write<F: FnMut(u32, Vec<u8>)>(&self, out: &mut PieceWriter<F>) {
        let principal = self.principal.as_str().as_bytes();
        out.push(&self.received_at_ms.to_le_bytes());
        out.push(&(principal.len() as u16).to_le_bytes());
        out.push(principal);
        out.push(&(self.changes.len() as u32).to_le_bytes());
        for change in self.changes {
            out.push(&(change.len() as u32).to_le_bytes());
        }
        for change in self.changes {
            out.push(change);
        }
    }
}

/// Writes a log record as pieces, each still to be sealed.
pub(super) fn write_log(entries: &[Entry<'_>], emit: impl FnMut(u32, Vec<u8>)) {
    let len: usize = entries.iter().map(Entry::len).sum();
    let mut out = PieceWriter::new(8 + len, emit);
    out.push(&(len as u64).to_le_bytes());
    for entry in entries {
        entry.write(&mut out);
    }
    out.finish();
}

/// Reads a log record from its pieces' payloads, put together.
pub(super) fn read_log(first: u64, mut body: Bytes) -> Result<Vec<LogRecord>, Problem> {
    decode_entries(first, &mut body).ok_or(Problem::Malformed {
        part: Part::Log { first, piece: 0 },
    })
}

fn decode_entries(mut first: u64, body: &mut Bytes) -> Option<Vec<LogRecord>> {
    let len = usize::try_from(body.try_get_u64_le().ok()?).ok()?;
    if len != body.len() || len == 0 {
        return None;
    }
    let mut records = Vec::new();
    while !body.is_empty() {
        let received_at_ms = body.try_get_u64_le().ok()?;
        let principal = usize::from(body.try_get_u16_le().ok()?);
        let principal = take(body, principal)?;
        let principal = PrincipalId::new(std::str::from_utf8(&principal).ok()?).ok()?;
        let count = usize::try_from(body.try_get_u32_le().ok()?).ok()?;
        let mut lengths = take(body, count.checked_mul(4)?)?;
        let mut changes = Vec::with_capacity(count);
        while let Ok(len) = lengths.try_get_u32_le() {
            changes.push(take(body, usize::try_from(len).ok()?)?);
        }
        let record = LogRecord {
            first,
            received_at_ms,
            principal,
            changes,
        };
        first = first.checked_add(u64::try_from(count).ok().filter(|count| *count > 0)?)?;
        records.push(record);
    }
    Some(records)
}

fn take(bytes: &mut Bytes, len: usize) -> Option<Bytes> {
    (len <= bytes.len()).then(|| bytes.split_to(len))
}

/// Length in bytes of a log record's pieces put together, from the payload of its first.
pub(super) fn log_len(first: u64, mut payload: &[u8]) -> Result<u64, Problem> {
    let malformed = Problem::Malformed {
        part: Part::Log { first, piece: 0 },
    };
    let len = payload
        .try_get_u64_le()
        .ok()
        .and_then(|len| len.checked_add(8));
    len.ok_or(malformed)
}

/// Puts pieces together again.
///
/// Memory grows with what is there, not with what a damaged length claims.
#[derive(Debug)]
pub(super) struct Assembly {
    len: u64,
    bytes: BytesMut,
}

impl Assembly {
    pub(super) fn new(len: u64) -> Self {
        let capacity = usize::try_from(len)
            .unwrap_or(usize::MAX)
            .min(PIECE_MAX_BYTES);
        Self {
            len,
            bytes: BytesMut::with_capacity(capacity),
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.bytes.len() as u64 == self.len
    }

    /// Number of the piece that comes next.
    pub(super) fn next_piece(&self) -> u32 {
        u32::try_from(self.bytes.len() / PIECE_MAX_BYTES).unwrap_or(u32::MAX)
    }

    /// Adds the next piece; all but the last must be full.
    pub(super) fn push(&mut self, payload: &[u8], part: Part) -> Result<(), Problem> {
        let left = self.len.saturating_sub(self.bytes.len() as u64);
        if payload.len() as u64 != left.min(PIECE_MAX_BYTES as u64) {
            return Err(Problem::Malformed { part });
        }
        self.bytes.extend_from_slice(payload);
        Ok(())
    }

    pub(super) fn finish(self) -> Bytes {
        self.bytes.freeze()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pieces(entries: &[Entry<'_>]) -> Vec<Vec<u8>> {
        let mut pieces = Vec::new();
        write_log(entries, |piece, value| {
            assert_eq!(piece as usize, pieces.len());
            pieces.push(value);
        });
        pieces
    }

    #[test]
    fn golden_values() {
        let record = DocumentRecord {
            created_at_ms: 0x0196_0000_0000,
            generation: 2,
            base: 259_778,
            snapshot_len: 129_114,
            graph_len: 7,
        };
        let value = single(b"key", &record.encode());
        assert_eq!(
            hex::encode(&value),
            "01\
             0000000096010000\
             0200000000000000\
             c2f6030000000000\
             5af8010000000000\
             0700000000000000\
             b08b70b4"
        );
        let payload = unseal(b"key", &value, Part::Document).unwrap();
        assert_eq!(DocumentRecord::decode(payload).unwrap(), record);

        let (ann, bo) = (
            PrincipalId::new("ann").unwrap(),
            PrincipalId::new("bo").unwrap(),
        );
        let changes = [Bytes::from_static(b"one"), Bytes::from_static(b"three")];
        let entries = [
            Entry {
                received_at_ms: 5,
                principal: &ann,
                changes: &changes,
            },
            Entry {
                received_at_ms: 6,
                principal: &bo,
                changes: &changes[..1],
            },
        ];
        let mut written = pieces(&entries);
        assert_eq!(
            hex::encode(&written[0]),
            "01\
             3800000000000000\
             0500000000000000\
             0300616e6e\
             02000000\
             0300000005000000\
             6f6e657468726565\
             0600000000000000\
             0200626f\
             01000000\
             03000000\
             6f6e65"
        );
        let body = Bytes::from(written.remove(0).split_off(1));
        let read = read_log(9, body).unwrap();
        assert_eq!(
            read,
            [
                LogRecord {
                    first: 9,
                    received_at_ms: 5,
                    principal: ann,
                    changes: changes.to_vec()
                },
                LogRecord {
                    first: 11,
                    received_at_ms: 6,
                    principal: bo,
                    changes: changes[..1].to_vec()
                },
            ]
        );
    }

    #[test]
    fn a_flipped_bit_anywhere_is_found() {
        let value = single(b"key", b"payload");
        for bit in 0..value.len() * 8 {
            let mut bad = value.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(unseal(b"key", &bad, Part::Meta).is_err(), "bit {bit}");
        }
        assert!(unseal(b"kex", &value, Part::Meta).is_err());
        assert!(unseal(b"key", &value[..3], Part::Meta).is_err());
        assert!(unseal(b"key", b"", Part::Meta).is_err());
    }

    #[test]
    fn another_format_is_named() {
        let value = seal(b"key", vec![9, 1, 2]);
        let found = unseal(b"key", &value, Part::Meta);
        assert_eq!(
            found,
            Err(Problem::Format {
                part: Part::Meta,
                found: 9
            })
        );
    }

    proptest! {
        #[test]
        fn pieces_go_together_again(len in 0_usize..20_000, chunk in 1_usize..9_000) {
            let data: Vec<u8> = (0..=250_u8).cycle().take(len).collect();
            let mut values = Vec::new();
            let mut writer = PieceWriter::new(len, |_, value| values.push(value));
            data.chunks(chunk).for_each(|chunk| writer.push(chunk));
            writer.finish();
            prop_assert_eq!(values.len() as u64, piece_count(len as u64));

            let mut assembly = Assembly::new(len as u64);
            for (i, value) in values.iter().enumerate() {
                prop_assert_eq!(assembly.next_piece() as usize, i);
                prop_assert!(value.len() <= 1 + PIECE_MAX_BYTES);
                assembly.push(&value[1..], Part::Meta).unwrap();
            }
            prop_assert!(assembly.is_complete());
            prop_assert_eq!(assembly.finish(), data);
        }

        #[test]
        fn damaged_log_records_are_refused_without_harm(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), honest in any::<bool>()) {
            if honest {
                // A right length gets the decoder past its first check.
                let len = (bytes.len() as u64).to_le_bytes();
                bytes.splice(..0, len);
            }
            if let Ok(records) = read_log(u64::MAX - 2, bytes.into()) {
                prop_assert!(records.iter().all(|record| !record.changes.is_empty()));
            }
        }
    }
}
