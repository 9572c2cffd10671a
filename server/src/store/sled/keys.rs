//! Keys of the sled tree.
//!
//! ```text
//! 00 "concord"                                     the directory's format (one byte)
//! 01 00 <key, UTF-8>                               a value of the server's own
//! 01 01 <id> 00 10                                 document record
//! 01 01 <id> 00 20 <generation> <piece>            snapshot
//! 01 01 <id> 00 30 <generation> <piece>            graph
//! 01 01 <id> 00 38 <generation> <piece>            arrivals
//! 01 01 <id> 00 40 <first index>                   log record
//! 01 01 <id> 00 50 <first index> <piece>           body of a log record too long for one value
//! 01 01 <id> 00 60 <number>                        access entry
//! 01 01 <id> 00 70 <number> <piece>                body of an access entry too long for one value
//! 01 01 <id> 00 80 <label, 16 bytes>               a label of the document
//! 01 02 <id>                                       tombstone
//! 01 03 <label, 16 bytes> <id>                     a document that is found by the label
//! ```
//!
//! The directory's format is 1 until the first access entry or tombstone is written, and 3 from then on: a build that
//! knows only 1 would serve a document without asking who may see it, and deleted ones, so it must not open the
//! directory. 2 is the same without labels, which one that knows no more would not keep up to date.
//!
//! Generation, index and number are big-endian u64, pieces big-endian u32. An id has no byte 00 (it has no control
//! characters), so no id's keys lie among another's, and documents come in the order of their ids. The
//! document record is a document's lowest key, which lets a listing seek from one to the next. An access log may be
//! there without a document record: a listing passes over it.

use concord_shared::ids::DocumentId;

use crate::store::{Ids, LABEL_BYTES, Label, Part};

/// First byte of every key and value.
pub(super) const FORMAT: u8 = 1;
/// The directory's format while nothing is in it that older builds would pass over.
pub(super) const PLAIN_DIRECTORY: u8 = 1;
/// The directory's format once it has access entries or tombstones.
pub(super) const GUARDED_DIRECTORY: u8 = 3;
/// Key of the one value that tells the directory's format, the same in every format.
pub(super) const FORMAT_KEY: &[u8] = b"\x00concord";

const SPACE_META: u8 = 0x00;
const SPACE_DOCUMENTS: u8 = 0x01;
const SPACE_TOMBSTONES: u8 = 0x02;
const SPACE_LABELLED: u8 = 0x03;

const END_OF_ID: u8 = 0x00;

const KIND_RECORD: u8 = 0x10;
const KIND_SNAPSHOT: u8 = 0x20;
const KIND_GRAPH: u8 = 0x30;
const KIND_ARRIVALS: u8 = 0x38;
const KIND_LOG: u8 = 0x40;
const KIND_BODY: u8 = 0x50;
const KIND_ACCESS: u8 = 0x60;
const KIND_ACCESS_PIECE: u8 = 0x70;
const KIND_LABEL: u8 = 0x80;
/// Above every kind.
const KIND_END: u8 = 0xf0;

/// Key of one of the server's own values.
pub(super) fn meta(key: &str) -> Vec<u8> {
    [&[FORMAT, SPACE_META], key.as_bytes()].concat()
}

/// Lower and upper bound (exclusive) of all documents' keys.
pub(super) fn all_documents() -> ([u8; 2], [u8; 2]) {
    ([FORMAT, SPACE_DOCUMENTS], [FORMAT, SPACE_DOCUMENTS + 1])
}

/// Lower and upper bound (exclusive) of all keys of the documents whose ids are among these.
pub(super) fn documents_among(ids: &Ids) -> (Vec<u8>, Vec<u8>) {
    let key = |id: &[u8]| [&[FORMAT, SPACE_DOCUMENTS], id].concat();
    let bounds = ids.bounds();
    (key(bounds.start), key(bounds.end))
}

/// Key of a document's tombstone.
pub(super) fn tombstone(document: &DocumentId) -> Vec<u8> {
    [&[FORMAT, SPACE_TOMBSTONES], document.as_str().as_bytes()].concat()
}

/// The document that a tombstone's key names.
pub(super) fn tombstone_of(key: &[u8]) -> Option<DocumentId> {
    let id = key.strip_prefix(&[FORMAT, SPACE_TOMBSTONES])?;
    DocumentId::new(std::str::from_utf8(id).ok()?).ok()
}

/// Lower and upper bound (exclusive) of all tombstones' keys.
pub(super) fn all_tombstones() -> ([u8; 2], [u8; 2]) {
    ([FORMAT, SPACE_TOMBSTONES], [FORMAT, SPACE_TOMBSTONES + 1])
}

/// Key by which a label finds a document.
pub(super) fn labelled(label: Label, document: &DocumentId) -> Vec<u8> {
    [all_labelled_so(label).0, document.as_str().into()].concat()
}

/// The label, and the document that it finds, that a key names.
pub(super) fn labelled_of(key: &[u8]) -> Option<(Label, DocumentId)> {
    let rest = key.strip_prefix(&[FORMAT, SPACE_LABELLED])?;
    let (label, id) = rest.split_first_chunk::<LABEL_BYTES>()?;
    let id = DocumentId::new(std::str::from_utf8(id).ok()?).ok()?;
    Some((Label(*label), id))
}

/// Lower and upper bound (exclusive) of all keys by which a label finds documents: no id has a byte ff.
pub(super) fn all_labelled_so(label: Label) -> (Vec<u8>, Vec<u8>) {
    let low = [&[FORMAT, SPACE_LABELLED], &label.0[..]].concat();
    let high = [&low[..], &[u8::MAX]].concat();
    (low, high)
}

/// Lower and upper bound (exclusive) of all keys by which labels find documents.
pub(super) fn all_labelled() -> ([u8; 2], [u8; 2]) {
    ([FORMAT, SPACE_LABELLED], [FORMAT, SPACE_LABELLED + 1])
}

/// What a key below a document's prefix holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Record,
    Snapshot { generation: u64, piece: u32 },
    Graph { generation: u64, piece: u32 },
    Arrivals { generation: u64, piece: u32 },
    Log { first: u64 },
    Body { first: u64, piece: u32 },
    Access { number: u64 },
    AccessPiece { number: u64, piece: u32 },
    Label(Label),
}

impl Place {
    /// The name of this place in an error.
    pub(super) fn part(self) -> Part {
        match self {
            Self::Record => Part::Document,
            Self::Snapshot { piece, .. } => Part::Snapshot { piece },
            Self::Graph { piece, .. } => Part::Graph { piece },
            Self::Arrivals { piece, .. } => Part::Arrivals { piece },
            Self::Log { first } => Part::Log { first },
            Self::Body { first, piece } => Part::Body { first, piece },
            Self::Access { number } => Part::Access { number },
            Self::AccessPiece { number, piece } => Part::AccessPiece { number, piece },
            Self::Label(_) => Part::Label,
        }
    }
}

/// A document's keys, written one after the other into one buffer.
#[derive(Debug, Clone)]
pub(super) struct DocumentKeys {
    key: Vec<u8>,
    prefix_len: usize,
}

impl DocumentKeys {
    pub(super) fn new(document: &DocumentId) -> Self {
        let id = document.as_str().as_bytes();
        // Kind follows, and number and piece, or a label.
        let mut key = Vec::with_capacity(id.len() + 3 + 1 + LABEL_BYTES);
        key.extend([FORMAT, SPACE_DOCUMENTS]);
        key.extend_from_slice(id);
        key.push(END_OF_ID);
        let prefix_len = key.len();
        Self { key, prefix_len }
    }

    pub(super) fn at(&mut self, place: Place) -> &[u8] {
        match place {
            Place::Record => self.build(KIND_RECORD, None, None),
            Place::Snapshot { generation, piece } => {
                self.build(KIND_SNAPSHOT, Some(generation), Some(piece))
            }
            Place::Graph { generation, piece } => {
                self.build(KIND_GRAPH, Some(generation), Some(piece))
            }
            Place::Arrivals { generation, piece } => {
                self.build(KIND_ARRIVALS, Some(generation), Some(piece))
            }
            Place::Log { first } => self.build(KIND_LOG, Some(first), None),
            Place::Body { first, piece } => self.build(KIND_BODY, Some(first), Some(piece)),
            Place::Access { number } => self.build(KIND_ACCESS, Some(number), None),
            Place::AccessPiece { number, piece } => {
                self.build(KIND_ACCESS_PIECE, Some(number), Some(piece))
            }
            Place::Label(label) => {
                self.build(KIND_LABEL, None, None);
                self.key.extend(label.0);
                &self.key
            }
        }
    }

    /// Above every log record of the document.
    pub(super) fn end_of_log(&mut self) -> &[u8] {
        self.build(KIND_LOG + 1, None, None)
    }

    /// Above every access entry of the document.
    pub(super) fn end_of_access(&mut self) -> &[u8] {
        self.build(KIND_ACCESS + 1, None, None)
    }

    /// Lower and upper bound (exclusive) of the document's labels.
    pub(super) fn all_labels(&mut self) -> (Vec<u8>, &[u8]) {
        let low = self.build(KIND_LABEL, None, None).to_vec();
        (low, self.build(KIND_LABEL + 1, None, None))
    }

    /// Below every key of the document.
    pub(super) fn start(&mut self) -> &[u8] {
        self.key.truncate(self.prefix_len);
        &self.key
    }

    /// Above every key of the document.
    pub(super) fn end(&mut self) -> &[u8] {
        self.build(KIND_END, None, None)
    }

    fn build(&mut self, kind: u8, number: Option<u64>, piece: Option<u32>) -> &[u8] {
        self.key.truncate(self.prefix_len);
        self.key.push(kind);
        if let Some(number) = number {
            self.key.extend(number.to_be_bytes());
        }
        if let Some(piece) = piece {
            self.key.extend(piece.to_be_bytes());
        }
        &self.key
    }

    /// What `key` holds, if it is a key of this document.
    pub(super) fn parse(&self, key: &[u8]) -> Option<Place> {
        let prefix = self.key.get(..self.prefix_len)?;
        let (&kind, rest) = key.strip_prefix(prefix)?.split_first()?;
        if rest.is_empty() {
            return (kind == KIND_RECORD).then_some(Place::Record);
        }
        if kind == KIND_LABEL {
            return Some(Place::Label(Label(rest.try_into().ok()?)));
        }
        let (number, rest) = rest.split_first_chunk::<8>()?;
        let number = u64::from_be_bytes(*number);
        if rest.is_empty() {
            return match kind {
                KIND_LOG => Some(Place::Log { first: number }),
                KIND_ACCESS => Some(Place::Access { number }),
                _ => None,
            };
        }
        let piece = u32::from_be_bytes(rest.try_into().ok()?);
        let (generation, first) = (number, number);
        match kind {
            KIND_SNAPSHOT => Some(Place::Snapshot { generation, piece }),
            KIND_GRAPH => Some(Place::Graph { generation, piece }),
            KIND_ARRIVALS => Some(Place::Arrivals { generation, piece }),
            KIND_BODY => Some(Place::Body { first, piece }),
            KIND_ACCESS_PIECE => Some(Place::AccessPiece { number, piece }),
            _ => None,
        }
    }
}

/// The document that a key belongs to.
pub(super) fn document_of(key: &[u8]) -> Option<DocumentId> {
    let rest = key.strip_prefix(&[FORMAT, SPACE_DOCUMENTS])?;
    let end = rest.iter().position(|byte| *byte == END_OF_ID)?;
    let id = rest.get(..end)?;
    DocumentId::new(std::str::from_utf8(id).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> DocumentId {
        DocumentId::new(text).unwrap()
    }

    #[test]
    fn golden_keys() {
        let mut keys = DocumentKeys::new(&id("4NMN"));
        let mut golden = |place, bytes: &[u8]| assert_eq!(keys.at(place), bytes);
        golden(Place::Record, b"\x01\x014NMN\x00\x10");
        golden(
            Place::Snapshot {
                generation: 2,
                piece: 3,
            },
            b"\x01\x014NMN\x00\x20\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x03",
        );
        golden(
            Place::Graph {
                generation: 0x0102_0304_0506_0708,
                piece: 0x0a0b_0c0d,
            },
            b"\x01\x014NMN\x00\x30\x01\x02\x03\x04\x05\x06\x07\x08\x0a\x0b\x0c\x0d",
        );
        golden(
            Place::Arrivals {
                generation: 2,
                piece: 1,
            },
            b"\x01\x014NMN\x00\x38\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x01",
        );
        golden(
            Place::Log { first: 259_778 },
            b"\x01\x014NMN\x00\x40\x00\x00\x00\x00\x00\x03\xf6\xc2",
        );
        golden(
            Place::Body { first: 1, piece: 2 },
            b"\x01\x014NMN\x00\x50\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x02",
        );
        golden(
            Place::Access { number: 258 },
            b"\x01\x014NMN\x00\x60\x00\x00\x00\x00\x00\x00\x01\x02",
        );
        golden(
            Place::AccessPiece {
                number: 1,
                piece: 2,
            },
            b"\x01\x014NMN\x00\x70\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x02",
        );
        let label = Label(*b"0123456789abcdef");
        golden(Place::Label(label), b"\x01\x014NMN\x00\x800123456789abcdef");
        let found = b"\x01\x030123456789abcdef4NMN";
        assert_eq!(labelled(label, &id("4NMN")), found);
        assert_eq!(labelled_of(found), Some((label, id("4NMN"))));
        assert_eq!(labelled_of(b"\x01\x030123456789abcdef"), None);
        assert_eq!(labelled_of(b"\x01\x020123456789abcdef4NMN"), None);
        assert_eq!(tombstone(&id("4NMN")), b"\x01\x024NMN");
        assert_eq!(tombstone_of(b"\x01\x024NMN"), Some(id("4NMN")));
        assert_eq!(tombstone_of(b"\x01\x014NMN"), None);
        assert_eq!(meta("peer-id"), b"\x01\x00peer-id");
        assert_eq!(FORMAT_KEY, b"\x00concord");
    }

    #[test]
    fn keys_read_back_and_are_ordered_like_ids() {
        let texts = [" ", "  ", "a", "a ", "ab", "a\u{10ffff}", "b"];
        let mut last: Vec<u8> = Vec::new();
        for text in texts {
            let mut keys = DocumentKeys::new(&id(text));
            for place in [
                Place::Record,
                Place::Snapshot {
                    generation: 1,
                    piece: 0,
                },
                Place::Graph {
                    generation: u64::MAX,
                    piece: u32::MAX,
                },
                Place::Arrivals {
                    generation: 0,
                    piece: 0,
                },
                Place::Log { first: 0 },
                Place::Log { first: u64::MAX },
            ] {
                let key = keys.at(place).to_vec();
                assert!(last < key, "{text:?} {place:?}");
                assert_eq!(keys.parse(&key), Some(place));
                assert_eq!(document_of(&key), Some(id(text)));
                last = key;
            }
            assert!(last.as_slice() < keys.end_of_log());
            let body = Place::Body {
                first: u64::MAX,
                piece: u32::MAX,
            };
            let key = keys.at(body).to_vec();
            assert!(keys.end_of_log() < key.as_slice());
            assert_eq!(keys.parse(&key), Some(body));
            last = key;
            for place in [
                Place::Access { number: 0 },
                Place::Access { number: u64::MAX },
                Place::AccessPiece {
                    number: u64::MAX,
                    piece: u32::MAX,
                },
            ] {
                let key = keys.at(place).to_vec();
                assert!(last < key, "{text:?} {place:?}");
                assert_eq!(keys.parse(&key), Some(place));
                assert_eq!(
                    key.as_slice() < keys.end_of_access(),
                    matches!(place, Place::Access { .. })
                );
                last = key;
            }
            for byte in [0, u8::MAX] {
                let label = Label([byte; LABEL_BYTES]);
                let key = keys.at(Place::Label(label)).to_vec();
                assert!(last < key, "{text:?} {byte}");
                assert_eq!(keys.parse(&key), Some(Place::Label(label)));
                let (low, high) = keys.all_labels();
                assert!(low < key && key.as_slice() < high);
                let found = labelled(label, &id(text));
                let (low, high) = all_labelled_so(label);
                assert!(low < found && found < high);
                assert!(all_labelled().0.as_slice() < found.as_slice());
                assert!(found.as_slice() < all_labelled().1.as_slice());
                last = key;
            }
            assert!(last.as_slice() < keys.end());
            let tombstone = tombstone(&id(text));
            let (low, high) = all_tombstones();
            assert!(last < low.to_vec() && low.as_slice() < tombstone.as_slice());
            assert!(tombstone.as_slice() < high.as_slice());
            last = keys.end().to_vec();
        }
        let (low, high) = all_documents();
        assert!(low.as_slice() < last.as_slice() && last.as_slice() < high.as_slice());
        assert!(high <= all_tombstones().0 && all_tombstones().1 <= all_labelled().0);
        // Where ids lie among others, their keys do.
        for ids in [
            Ids::all(),
            Ids::beginning_with("a"),
            Ids::only("a"),
            Ids::all().behind(&id("a")),
            Ids::between(b"a ", b"b"),
        ] {
            let (low, high) = documents_among(&ids);
            for text in texts {
                let mut keys = DocumentKeys::new(&id(text));
                let is_among = ids.contain(&id(text));
                for place in [Place::Record, Place::Label(Label([u8::MAX; LABEL_BYTES]))] {
                    let key = keys.at(place);
                    assert_eq!(low.as_slice() <= key && key < high.as_slice(), is_among);
                }
            }
        }
    }

    #[test]
    fn a_key_of_another_document_or_kind_is_not_ones_own() {
        let mut other = DocumentKeys::new(&id("ab"));
        let keys = DocumentKeys::new(&id("a"));
        assert_eq!(keys.parse(other.at(Place::Record)), None);
        assert_eq!(keys.parse(b"\x01\x01a\x00\x40\x00"), None);
        assert_eq!(keys.parse(b"\x01\x01a\x00\x68\0\0\0\0\0\0\0\0"), None);
        assert_eq!(keys.parse(b"\x01\x01a\x00\x80\0\0\0\0\0\0\0\0"), None);
        assert_eq!(
            keys.parse(b"\x01\x01a\x00\x60\0\0\0\0\0\0\0\0\0\0\0\0"),
            None
        );
        assert_eq!(keys.parse(b"\x01\x01a\x00\x70\0\0\0\0\0\0\0\0"), None);
        assert_eq!(
            keys.parse(b"\x01\x01a\x00\x40\0\0\0\0\0\0\0\0\0\0\0\0"),
            None
        );
        assert_eq!(keys.parse(b"\x01\x01a\x00\x50\0\0\0\0\0\0\0\0"), None);
    }
}
