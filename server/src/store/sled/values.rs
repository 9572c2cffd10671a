//! Values of the sled tree.
//!
//! Every value is `format (1 byte) ‖ payload ‖ crc32 (4 bytes)`; the checksum covers the key too, so
//! that a value under the wrong key is found. Numbers are little-endian. What is longer than
//! [`PIECE_MAX_BYTES`] is cut into pieces under successive keys; all but the last have exactly that
//! length.
//!
//! ```text
//! document record   u64 each: created at (ms), generation, base, keep from, snapshot length, graph length, and
//!                   arrivals' length, if there are any
//! snapshot, graph,
//! arrivals          the bytes; their length is in the document record
//! log record        00 ‖ body; or 01 ‖ u64 length of the body, which lies in pieces under its own keys
//! body              one or more entries of a log
//! access entry      00 ‖ the entry; or 01 ‖ u64 length of the entry, which lies in pieces under its own keys
//! label, and its
//! entry             nothing
//! entry (of a log)  received at, ms u64 ‖ length u16, principal ‖ count u32 ‖ count × length u32 ‖ changes
//! ```

use bytes::{Buf, Bytes, BytesMut};
use concord_shared::ids::PrincipalId;

use super::keys::FORMAT;
use crate::store::{LogRecord, Part, Problem};

/// Most payload bytes in one value.
///
/// sled keeps up to 17 values, after a merge 20 and a few more, in one leaf, writes the whole leaf
/// anew every ten changes to it, and writes a leaf of more than a quarter of a segment to a file of
/// its own, which it neither syncs nor reliably removes. So this is small: an append to a document
/// may rewrite a leaf that holds pieces of its graph.
pub(super) const PIECE_MAX_BYTES: usize = 3_584;

/// Longest body of a log record or access entry that lies in the record itself.
pub(super) const INLINE_MAX_BYTES: usize = PIECE_MAX_BYTES - 1;

const BODY_INLINE: u8 = 0;
const BODY_APART: u8 = 1;

const CHECKSUM_BYTES: usize = 4;

/// Numbers of the pieces that `len` bytes lie in; nothing still takes one.
pub(super) fn pieces_of(len: u64) -> std::ops::Range<u32> {
    let count = len.div_ceil(PIECE_MAX_BYTES as u64).max(1);
    0..u32::try_from(count).unwrap_or(u32::MAX)
}

/// The pieces of some bytes, as payloads.
pub(super) fn pieces(bytes: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    let nothing = bytes.is_empty().then_some(bytes);
    (0..).zip(bytes.chunks(PIECE_MAX_BYTES).chain(nothing))
}

fn checksum(key: &[u8], format_and_payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(format_and_payload);
    hasher.finalize()
}

/// Ends a value that begins with its format byte.
fn finish(key: &[u8], mut value: Vec<u8>) -> Vec<u8> {
    let sum = checksum(key, &value);
    value.extend(sum.to_le_bytes());
    value
}

/// A value.
pub(super) fn seal(key: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(1 + payload.len() + CHECKSUM_BYTES);
    value.push(FORMAT);
    value.extend_from_slice(payload);
    finish(key, value)
}

/// The payload of a value, if it is what was written under `key`.
pub(super) fn unseal<'v>(key: &[u8], value: &'v [u8], part: Part) -> Result<&'v [u8], Problem> {
    let damaged = Problem::Checksum { part };
    let (body, sum) = value
        .split_last_chunk::<CHECKSUM_BYTES>()
        .ok_or(damaged.clone())?;
    if checksum(key, body) != u32::from_le_bytes(*sum) {
        return Err(damaged);
    }
    match body.split_first() {
        Some((&FORMAT, payload)) => Ok(payload),
        Some((&found, _)) => Err(Problem::Format { part, found }),
        None => Err(Problem::Malformed { part }),
    }
}

/// The document record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DocumentRecord {
    pub(super) created_at_ms: u64,
    /// Number of the valid snapshot generation, from 1 on; 0: no snapshot.
    pub(super) generation: u64,
    pub(super) base: u64,
    /// The log below this is not part of the document any more; what is left of it is swept later.
    pub(super) keep_from: u64,
    pub(super) snapshot_len: u64,
    pub(super) graph_len: u64,
    /// 0: there are none. Older builds wrote none, nor this.
    pub(super) arrivals_len: u64,
}

impl DocumentRecord {
    /// Of a document without a snapshot.
    pub(super) fn new(created_at_ms: u64) -> Self {
        Self {
            created_at_ms,
            generation: 0,
            base: 0,
            keep_from: 0,
            snapshot_len: 0,
            graph_len: 0,
            arrivals_len: 0,
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let Self {
            created_at_ms,
            generation,
            base,
            keep_from,
            snapshot_len,
            graph_len,
            arrivals_len,
        } = *self;
        let arrivals_len = (arrivals_len > 0).then_some(arrivals_len);
        [
            created_at_ms,
            generation,
            base,
            keep_from,
            snapshot_len,
            graph_len,
        ]
        .iter()
        .chain(&arrivals_len)
        .flat_map(|number| number.to_le_bytes())
        .collect()
    }

    pub(super) fn decode(mut payload: &[u8]) -> Result<Self, Problem> {
        let malformed = Problem::Malformed {
            part: Part::Document,
        };
        let mut next = || payload.try_get_u64_le().map_err(|_| malformed.clone());
        let mut record = Self {
            created_at_ms: next()?,
            generation: next()?,
            base: next()?,
            keep_from: next()?,
            snapshot_len: next()?,
            graph_len: next()?,
            arrivals_len: 0,
        };
        if !payload.is_empty() {
            record.arrivals_len = payload.try_get_u64_le().map_err(|_| malformed.clone())?;
        }
        let sound = payload.is_empty() && record.keep_from <= record.base;
        if sound { Ok(record) } else { Err(malformed) }
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

    #[expect(
        clippy::cast_possible_truncation,
        reason = "lengths are bounded by `Extent::after` and by `PrincipalId`"
    )]
    fn write(&self, out: &mut Vec<u8>) {
        let principal = self.principal.as_str().as_bytes();
        out.extend(self.received_at_ms.to_le_bytes());
        out.extend((principal.len() as u16).to_le_bytes());
        out.extend_from_slice(principal);
        out.extend((self.changes.len() as u32).to_le_bytes());
        for change in self.changes {
            out.extend((change.len() as u32).to_le_bytes());
        }
        for change in self.changes {
            out.extend_from_slice(change);
        }
    }
}

/// The value of a log record with its body in it, which must be at most [`INLINE_MAX_BYTES`] long.
pub(super) fn log_inline(key: &[u8], entries: &[Entry<'_>]) -> Vec<u8> {
    let len: usize = entries.iter().map(Entry::len).sum();
    let mut value = Vec::with_capacity(2 + len + CHECKSUM_BYTES);
    value.extend([FORMAT, BODY_INLINE]);
    for entry in entries {
        entry.write(&mut value);
    }
    finish(key, value)
}

/// The value of an access entry, which must be at most [`INLINE_MAX_BYTES`] long.
pub(super) fn inline(key: &[u8], body: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(2 + body.len() + CHECKSUM_BYTES);
    value.extend([FORMAT, BODY_INLINE]);
    value.extend_from_slice(body);
    finish(key, value)
}

/// The value of a log record or access entry whose body lies apart.
pub(super) fn apart(key: &[u8], len: u64) -> Vec<u8> {
    let mut value = vec![FORMAT, BODY_APART];
    value.extend(len.to_le_bytes());
    finish(key, value)
}

/// The body of a log record, to lie apart.
pub(super) fn body(entry: &Entry<'_>) -> Vec<u8> {
    let mut body = Vec::with_capacity(entry.len());
    entry.write(&mut body);
    body
}

/// Where the body of a log record or access entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Body {
    Inline(Bytes),
    Apart { len: u64 },
}

/// Reads the payload of `part`, a log record or access entry.
pub(super) fn locate(part: Part, payload: &[u8]) -> Result<Body, Problem> {
    let body = match payload.split_first() {
        Some((&BODY_INLINE, body)) => Some(Body::Inline(Bytes::copy_from_slice(body))),
        Some((&BODY_APART, len)) => len.try_into().ok().map(|len| Body::Apart {
            len: u64::from_le_bytes(len),
        }),
        _ => None,
    };
    body.ok_or(Problem::Malformed { part })
}

/// Reads a log record's body: at least one record, each with at least one change.
pub(super) fn read_body(first: u64, mut body: Bytes) -> Result<Vec<LogRecord>, Problem> {
    read_entries(first, &mut body)
        .filter(|records| !records.is_empty())
        .ok_or(Problem::Malformed {
            part: Part::Log { first },
        })
}

fn read_entries(mut first: u64, body: &mut Bytes) -> Option<Vec<LogRecord>> {
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

/// Puts pieces together again.
///
/// Memory grows with what is there, not with what a damaged length claims.
#[derive(Debug)]
pub(super) struct Assembly {
    len: u64,
    next: u32,
    bytes: BytesMut,
}

impl Assembly {
    pub(super) fn new(len: u64) -> Self {
        Self {
            len,
            next: 0,
            bytes: BytesMut::new(),
        }
    }

    /// Number of the piece that comes next; `None` when all are there.
    pub(super) fn wants(&self) -> Option<u32> {
        (self.next < pieces_of(self.len).end).then_some(self.next)
    }

    /// Adds the next piece; all but the last must be full.
    pub(super) fn push(&mut self, payload: &[u8], part: Part) -> Result<(), Problem> {
        let left = self.len.saturating_sub(self.bytes.len() as u64);
        if payload.len() as u64 != left.min(PIECE_MAX_BYTES as u64) {
            return Err(Problem::Malformed { part });
        }
        self.bytes.extend_from_slice(payload);
        self.next += 1;
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

    #[test]
    fn golden_document_record() {
        let record = DocumentRecord {
            created_at_ms: 0x0196_0000_0000,
            generation: 2,
            base: 259_778,
            keep_from: 259_000,
            snapshot_len: 129_114,
            graph_len: 7,
            arrivals_len: 0,
        };
        let value = seal(b"key", &record.encode());
        assert_eq!(
            hex::encode(&value),
            "01\
             0000000096010000\
             0200000000000000\
             c2f6030000000000\
             b8f3030000000000\
             5af8010000000000\
             0700000000000000\
             201eaf12"
        );
        let payload = unseal(b"key", &value, Part::Document).unwrap();
        assert_eq!(DocumentRecord::decode(payload).unwrap(), record);
        assert!(DocumentRecord::decode(&payload[..47]).is_err());
        assert!(DocumentRecord::decode(&[payload, &[0]].concat()).is_err());

        let with_arrivals = DocumentRecord {
            arrivals_len: 0x0102,
            ..record
        };
        let payload = [payload, &[2, 1, 0, 0, 0, 0, 0, 0]].concat();
        assert_eq!(with_arrivals.encode(), payload);
        assert_eq!(DocumentRecord::decode(&payload).unwrap(), with_arrivals);
        assert!(DocumentRecord::decode(&payload[..55]).is_err());
        assert!(DocumentRecord::decode(&[&payload[..], &[0]].concat()).is_err());
    }

    #[test]
    fn golden_access_entries() {
        let part = Part::Access { number: 3 };
        let value = inline(b"key", b"entry");
        assert_eq!(hex::encode(&value), "0100656e74727978b81224");
        let payload = unseal(b"key", &value, part).unwrap();
        let body = Bytes::from_static(b"entry");
        assert_eq!(locate(part, payload), Ok(Body::Inline(body)));
        assert_eq!(locate(part, &[7]), Err(Problem::Malformed { part }));
    }

    #[test]
    fn golden_log_records() {
        const PART: Part = Part::Log { first: 9 };
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
        let value = log_inline(b"key", &entries);
        assert_eq!(
            hex::encode(&value),
            "0100\
             0500000000000000\
             0300616e6e\
             02000000\
             0300000005000000\
             6f6e657468726565\
             0600000000000000\
             0200626f\
             01000000\
             03000000\
             6f6e65\
             e0fe3c7c"
        );
        let payload = unseal(b"key", &value, PART).unwrap();
        let Body::Inline(body) = locate(PART, payload).unwrap() else {
            panic!("not inline")
        };
        let record = |first, received_at_ms, principal, changes: &[Bytes]| LogRecord {
            first,
            received_at_ms,
            principal,
            changes: changes.to_vec(),
        };
        let read = read_body(9, body).unwrap();
        assert_eq!(
            read,
            [
                record(9, 5, ann, &changes),
                record(11, 6, bo, &changes[..1])
            ]
        );

        let value = apart(b"key", 0x0102_0304);
        assert_eq!(hex::encode(&value), "01010403020100000000b0b763ee");
        let payload = unseal(b"key", &value, PART).unwrap();
        assert_eq!(locate(PART, payload), Ok(Body::Apart { len: 0x0102_0304 }));
        assert!(locate(PART, &payload[..8]).is_err());
        assert!(locate(PART, &[2]).is_err());
        assert!(locate(PART, &[]).is_err());
    }

    #[test]
    fn a_flipped_bit_anywhere_is_found() {
        let value = seal(b"key", b"payload");
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
        let value = finish(b"key", vec![9, 1, 2]);
        let found = unseal(b"key", &value, Part::Meta);
        assert_eq!(
            found,
            Err(Problem::Format {
                part: Part::Meta,
                found: 9
            })
        );
    }

    #[test]
    fn a_claimed_length_takes_no_memory() {
        let mut assembly = Assembly::new(u64::MAX);
        assembly.push(&[0; PIECE_MAX_BYTES], Part::Meta).unwrap();
        assert!(assembly.bytes.capacity() < 2 * PIECE_MAX_BYTES);
        assert!(assembly.push(&[0; 10], Part::Meta).is_err());
    }

    proptest! {
        #[test]
        fn pieces_go_together_again(len in 0_usize..20_000) {
            let data: Vec<u8> = (0..=250_u8).cycle().take(len).collect();
            let mut assembly = Assembly::new(len as u64);
            for (number, piece) in pieces(&data) {
                prop_assert_eq!(assembly.wants(), Some(number));
                assembly.push(piece, Part::Meta).unwrap();
            }
            prop_assert_eq!(assembly.wants(), None);
            prop_assert_eq!(assembly.finish(), data);
        }

        #[test]
        fn damaged_bodies_are_refused_without_harm(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            flips in proptest::collection::vec((0_usize..60, any::<u8>()), 0..4),
        ) {
            let principal = PrincipalId::new("ann").unwrap();
            let changes = [Bytes::from_static(b"one"), Bytes::from_static(b"three")];
            let mut body = body(&Entry { received_at_ms: 5, principal: &principal, changes: &changes });
            for (at, byte) in flips {
                if let Some(there) = body.get_mut(at) {
                    *there = byte;
                }
            }
            for bytes in [bytes, body] {
                if let Ok(records) = read_body(u64::MAX - 2, bytes.into()) {
                    prop_assert!(records.iter().all(|record| !record.changes.is_empty()));
                }
            }
        }
    }
}
