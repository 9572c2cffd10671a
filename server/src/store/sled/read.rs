//! Reads that take more than one key.

use std::ops::Range;
use std::sync::PoisonError;

use bytes::Bytes;
use concord_shared::ids::DocumentId;

use super::{
    DocumentKeys, DocumentRecord, End, SledStore, keys,
    keys::Place,
    read_failed,
    values::{self, Assembly, Body},
};
use crate::store::{
    Allowance, DocumentInfo, DocumentSummary, LogRecord, Part, Problem, StoreError, StoredDocument,
    Unlisted,
};

/// A read of one document: the store itself failed, or what is there is wrong.
#[derive(Debug)]
pub(super) enum Fail {
    Store(StoreError),
    Problem(Problem),
}

impl From<Problem> for Fail {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl From<::sled::Error> for Fail {
    fn from(error: ::sled::Error) -> Self {
        match error {
            // Of this document: others lie elsewhere in the file.
            ::sled::Error::Corruption { .. } => Self::Problem(Problem::Unreadable),
            error => Self::Store(read_failed(error)),
        }
    }
}

impl Fail {
    pub(super) fn of(self, document: &DocumentId) -> StoreError {
        match self {
            Self::Store(error) => error,
            Self::Problem(problem) => StoreError::Corrupt {
                document: document.clone(),
                problem,
            },
        }
    }
}

/// Whether a log record's body lacks its beginning because an older build's sweep stopped within it: it had removed the
/// pieces in order, and only of records that lie wholly below `keep_from`.
pub(super) fn is_swept(document: &DocumentRecord, first: u64, problem: &Problem) -> bool {
    let missing = Problem::Missing {
        part: Part::Body { first, piece: 0 },
    };
    first < document.keep_from && *problem == missing
}

impl SledStore {
    /// Runs a read that looks at several keys so that it sees one state.
    ///
    /// sled offers no snapshot of a tree, and holding off the committer during every big read would
    /// delay everybody's changes. So `read` runs beside it; only if it found something wrong, or the
    /// document record changed meanwhile, it runs again with batches and sweeps held off. What is
    /// wrong then is really damaged.
    ///
    /// Appends alone need no second run: a reader that sees a log's end one record earlier or later
    /// sees a log.
    pub(super) fn settled<T>(
        &self,
        document: &DocumentId,
        read: impl Fn(&mut DocumentKeys, Option<DocumentRecord>) -> Result<T, Fail>,
    ) -> Result<T, StoreError> {
        let mut keys = DocumentKeys::new(document);
        let once = |keys: &mut DocumentKeys| {
            let before = self.read_record(keys)?;
            let value = read(keys, before)?;
            Ok((value, self.read_record(keys)? == before))
        };
        match once(&mut keys) {
            Ok((value, true)) => return Ok(value),
            Err(Fail::Store(error)) => return Err(error),
            Ok((_, false)) | Err(Fail::Problem(_)) => {}
        }
        let _quiet = self.changing.read().unwrap_or_else(PoisonError::into_inner);
        once(&mut keys)
            .map(|(value, _)| value)
            .map_err(|fail| fail.of(document))
    }

    pub(super) fn read_record(
        &self,
        keys: &mut DocumentKeys,
    ) -> Result<Option<DocumentRecord>, Fail> {
        let key = keys.at(Place::Record);
        let Some(value) = self.db.get(key)? else {
            return Ok(None);
        };
        let payload = values::unseal(key, &value, Part::Document)?;
        Ok(Some(DocumentRecord::decode(payload)?))
    }

    /// All that [`Store::open`](crate::store::Store::open) tells.
    pub(super) fn read_document(
        &self,
        keys: &mut DocumentKeys,
        record: &DocumentRecord,
    ) -> Result<StoredDocument, Fail> {
        let generation = record.generation;
        let graph = if generation > 0 {
            let place = |piece| Place::Graph { generation, piece };
            Some(self.read_pieces(keys, record.graph_len, place)?)
        } else {
            None
        };
        Ok(StoredDocument {
            created_at_ms: record.created_at_ms,
            base: record.base,
            graph,
            snapshot_bytes: record.snapshot_len,
            retained_from: record.keep_from,
            tail: self.read_tail(keys, record)?,
        })
    }

    /// The log from the snapshot's base on.
    pub(super) fn read_tail(
        &self,
        keys: &mut DocumentKeys,
        record: &DocumentRecord,
    ) -> Result<Vec<LogRecord>, Fail> {
        let expected = record.base;
        let tail = self.read_log(keys, record, expected..u64::MAX, u64::MAX)?;
        match tail.first() {
            Some(record) if record.first != expected => Err(Problem::Gap {
                expected,
                found: record.first,
            }
            .into()),
            _ => Ok(tail),
        }
    }

    pub(super) fn read_snapshot(
        &self,
        keys: &mut DocumentKeys,
        record: &DocumentRecord,
    ) -> Result<Bytes, Fail> {
        let generation = record.generation;
        self.read_pieces(keys, record.snapshot_len, |piece| Place::Snapshot {
            generation,
            piece,
        })
    }

    /// `None` where there are none.
    pub(super) fn read_arrivals(
        &self,
        keys: &mut DocumentKeys,
        record: &DocumentRecord,
    ) -> Result<Option<Bytes>, Fail> {
        if record.arrivals_len == 0 {
            return Ok(None);
        }
        let generation = record.generation;
        let place = |piece| Place::Arrivals { generation, piece };
        self.read_pieces(keys, record.arrivals_len, place).map(Some)
    }

    /// The changes of a range, as far as they are there and `most_bytes` reach.
    pub(super) fn read_log(
        &self,
        keys: &mut DocumentKeys,
        document: &DocumentRecord,
        Range {
            start: from,
            end: to,
        }: Range<u64>,
        most_bytes: u64,
    ) -> Result<Vec<LogRecord>, Fail> {
        let mut records = Vec::new();
        let mut allowance = Allowance::new(most_bytes);
        if from >= to {
            return Ok(records);
        }
        // The record that holds `from` may start before it.
        let low = keys.at(Place::Log { first: 0 }).to_vec();
        let high = keys.at(Place::Log { first: from });
        let holder = self
            .db
            .range(low.as_slice()..=high)
            .keys()
            .next_back()
            .transpose()?;
        let low = holder.as_deref().map_or(low, <[u8]>::to_vec);
        let mut expected = None;
        for entry in self.db.range(low.as_slice()..keys.end_of_log()) {
            let (key, value) = entry?;
            let Some(Place::Log { first }) = keys.parse(&key) else {
                return Err(Problem::Stray { part: Part::Stray }.into());
            };
            if let Some(expected) = expected
                && expected != first
            {
                return Err(Problem::Gap {
                    expected,
                    found: first,
                }
                .into());
            }
            if first >= to {
                break;
            }
            let read = self.read_log_record(keys, document, first, &key, &value)?;
            expected = read.as_deref().and_then(<[_]>::last).map(LogRecord::end);
            for record in read
                .into_iter()
                .flatten()
                .filter_map(|record| record.cut(from, to))
            {
                if !allowance.admits(&record) {
                    return Ok(records);
                }
                records.push(record);
            }
        }
        Ok(records)
    }

    /// `None` where the body is swept: all of the record is in the snapshot then, which ends where the record does, or
    /// behind it.
    fn read_log_record(
        &self,
        keys: &mut DocumentKeys,
        document: &DocumentRecord,
        first: u64,
        key: &[u8],
        value: &[u8],
    ) -> Result<Option<Vec<LogRecord>>, Fail> {
        let payload = values::unseal(key, value, Part::Log { first })?;
        let body = match values::read_log(first, payload)? {
            Body::Inline(body) => body,
            Body::Apart { len } => {
                match self.read_pieces(keys, len, |piece| Place::Body { first, piece }) {
                    Err(Fail::Problem(problem)) if is_swept(document, first, &problem) => {
                        return Ok(None);
                    }
                    body => body?,
                }
            }
        };
        Ok(Some(values::read_body(first, body)?))
    }

    /// Where a document ends, for the writer: `None` if it is not there.
    pub(super) fn read_end(&self, document: &DocumentId) -> Result<Option<End>, StoreError> {
        let mut keys = DocumentKeys::new(document);
        let end = self
            .read_record(&mut keys)
            .and_then(|record| self.end(&mut keys, record));
        end.map_err(|fail| fail.of(document))
    }

    fn end(
        &self,
        keys: &mut DocumentKeys,
        record: Option<DocumentRecord>,
    ) -> Result<Option<End>, Fail> {
        let low = keys.at(Place::Log { first: 0 }).to_vec();
        let last = self
            .db
            .range(low.as_slice()..keys.end_of_log())
            .next_back()
            .transpose()?;
        let end = match last {
            Some((key, value)) => match keys.parse(&key) {
                Some(Place::Log { first }) => {
                    let document = record.unwrap_or(DocumentRecord::new(0));
                    let records = self.read_log_record(keys, &document, first, &key, &value)?;
                    records.as_deref().and_then(<[_]>::last).map(LogRecord::end)
                }
                _ => return Err(Problem::Stray { part: Part::Stray }.into()),
            },
            None => None,
        };
        match (record, end) {
            // A log that was given up is swept from its beginning, so what is left of it ends here, too.
            (Some(record), end) => {
                let next = end.unwrap_or(record.base);
                if next < record.base {
                    return Err(Problem::Gap {
                        expected: next,
                        found: record.base,
                    }
                    .into());
                }
                Ok(Some(End { record, next }))
            }
            (None, None) => Ok(None),
            // A document can't begin anew above the remains of another.
            (None, Some(_)) => Err(Problem::Missing {
                part: Part::Document,
            }
            .into()),
        }
    }

    fn read_pieces(
        &self,
        keys: &mut DocumentKeys,
        len: u64,
        place: impl Fn(u32) -> Place,
    ) -> Result<Bytes, Fail> {
        let mut assembly = Assembly::new(len);
        let low = keys.at(place(0)).to_vec();
        let high = keys.at(place(u32::MAX));
        let mut entries = self.db.range(low.as_slice()..=high);
        while let Some(piece) = assembly.wants() {
            let wanted = place(piece);
            let part = wanted.part();
            match entries.next().transpose()? {
                Some((key, value)) if keys.parse(&key) == Some(wanted) => {
                    assembly.push(values::unseal(&key, &value, part)?, part)?;
                }
                _ => return Err(Problem::Missing { part }.into()),
            }
        }
        Ok(assembly.finish())
    }

    /// Goes from document to document by seeking past each one's last key.
    pub(super) fn list(
        &self,
        after: Option<&DocumentId>,
        limit: usize,
    ) -> Result<Vec<DocumentInfo>, StoreError> {
        let mut walk = self.walk(after);
        let mut found = Vec::new();
        while found.len() < limit {
            let Some(document) = walk.next_document() else {
                break;
            };
            let summary = self.settled(&document, |keys, record| {
                let end = self.end(keys, record)?;
                Ok(end.map(|End { record, next }| DocumentSummary {
                    created_at_ms: record.created_at_ms,
                    base: record.base,
                    changes: next,
                    snapshot_bytes: record.snapshot_len,
                }))
            });
            let summary = match summary {
                Ok(Some(summary)) => Ok(summary),
                // Only something staged, which a crash left behind.
                Ok(None) => continue,
                Err(StoreError::Corrupt { problem, .. }) => Err(problem),
                Err(error) => return Err(error),
            };
            found.push(DocumentInfo { document, summary });
        }
        Ok(found)
    }

    /// The stretches that [`list`](Self::list) passes over.
    pub(super) fn find_unlisted(&self) -> Vec<Unlisted> {
        let mut walk = self.walk(None);
        while walk.next_document().is_some() {}
        walk.unlisted
    }

    fn walk(&self, after: Option<&DocumentId>) -> Walk<'_> {
        let (low, high) = keys::all_documents();
        Walk {
            db: &self.db,
            from: match after {
                Some(document) => DocumentKeys::new(document).end().to_vec(),
                None => low.to_vec(),
            },
            high: high.to_vec(),
            last: after.cloned(),
            unlisted: Vec::new(),
        }
    }
}

/// Goes from document to document, past what can't be read.
struct Walk<'s> {
    db: &'s ::sled::Db,
    from: Vec<u8>,
    high: Vec<u8>,
    last: Option<DocumentId>,
    unlisted: Vec<Unlisted>,
}

/// Longer than any document's prefix and what sled may cut its leaves by behind it.
const PROBE_BYTES: usize = 96;

/// Lowest byte in an id: see [`DocumentId`].
const LOWEST_IN_ID: u8 = 0x20;

impl Walk<'_> {
    /// The next document of which any key can be read.
    fn next_document(&mut self) -> Option<DocumentId> {
        let mut passed_over = false;
        let found = loop {
            match self.first_from(&self.from) {
                Ok(Some(key)) => {
                    if let Some(document) = keys::document_of(&key) {
                        break Some(document);
                    }
                    // Must not hide the documents after it.
                    tracing::error!(key = ?&*key, "unknown key in the store");
                    self.from = [&*key, &[0]].concat();
                }
                Ok(None) => break None,
                Err(error) => {
                    tracing::error!(%error, "a part of the listing can't be read");
                    passed_over = true;
                    self.from = self.readable_after(&self.from);
                }
            }
        };
        if passed_over {
            self.unlisted.push(Unlisted {
                after: self.last.clone(),
                before: found.clone(),
            });
        }
        match &found {
            Some(document) => self.from = DocumentKeys::new(document).end().to_vec(),
            None => self.from.clone_from(&self.high),
        }
        self.last.clone_from(&found);
        found
    }

    fn first_from(&self, from: &[u8]) -> Result<Option<::sled::IVec>, ::sled::Error> {
        self.db
            .range(from..self.high.as_slice())
            .keys()
            .next()
            .transpose()
    }

    /// Where reading goes on after `from`, which can't be read. sled names no bounds of what it can't read, so it is
    /// found by trying: in ever longer steps up to a place that can be read, and back from there by halves.
    fn readable_after(&self, from: &[u8]) -> Vec<u8> {
        let mut bad = from.to_vec();
        let mut good = self.high.clone();
        let id_starts = keys::all_documents().0.len();
        let padded = [from, &[0]].concat();
        'steps: for depth in (id_starts..padded.len()).rev() {
            let (kept, rest) = padded.split_at(depth);
            let next = rest.first().map_or(u8::MAX, |byte| byte.saturating_add(1));
            for byte in next.max(LOWEST_IN_ID)..=u8::MAX {
                let key = [kept, &[byte]].concat();
                if key <= bad {
                    continue;
                }
                if self.first_from(&key).is_ok() {
                    good = key;
                    break 'steps;
                }
                bad = key;
            }
        }
        bad.resize(PROBE_BYTES, 0);
        good.resize(PROBE_BYTES, 0);
        loop {
            let middle = middle(&bad, &good);
            if middle == bad {
                return good;
            }
            if self.first_from(&middle).is_ok() {
                good = middle;
            } else {
                bad = middle;
            }
        }
    }
}

/// Halfway between two strings of one length, taken as numbers.
fn middle(low: &[u8], high: &[u8]) -> Vec<u8> {
    let mut sum: Vec<u8> = Vec::with_capacity(low.len());
    let mut carry = 0;
    for (low, high) in low.iter().zip(high).rev() {
        let [byte, over] = (u16::from(*low) + u16::from(*high) + carry).to_le_bytes();
        sum.push(byte);
        carry = u16::from(over);
    }
    let mut half = Vec::with_capacity(sum.len());
    for byte in sum.iter().rev() {
        let [low, _] = ((carry << 8 | u16::from(*byte)) >> 1).to_le_bytes();
        half.push(low);
        carry = u16::from(*byte) & 1;
    }
    half
}
