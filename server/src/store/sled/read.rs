//! Reads that take more than one key.

use std::ops::Range;
use std::sync::PoisonError;

use bytes::Bytes;
use concord_shared::ids::DocumentId;

use super::{
    Database, DocumentKeys, DocumentRecord, End, Standing,
    keys::Place,
    read_failed,
    values::{self, Assembly, Body},
};
use crate::store::{Allowance, LogRecord, Part, Problem, StoreError, StoredDocument, check::Life};

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

impl Database {
    /// Runs a read that looks at several keys so that it sees one state.
    ///
    /// sled offers no snapshot of a tree, and holding off the committer during every big read would
    /// delay everybody's changes. So `read` runs beside it; only if it found something wrong, or the
    /// document record changed meanwhile, it runs again with batches and sweeps held off. What is
    /// wrong then is really damaged.
    ///
    /// Appends alone need no second run: a reader that sees a log's end one record earlier or later
    /// sees a log.
    ///
    /// A deleted document has no record here.
    pub(super) fn settled<T>(
        &self,
        document: &DocumentId,
        read: impl Fn(&mut DocumentKeys, Option<DocumentRecord>) -> Result<T, Fail>,
    ) -> Result<T, StoreError> {
        let visible = |keys: &mut DocumentKeys| {
            if self.is_deleted(document)? {
                return Ok(None);
            }
            self.read_record(keys)
        };
        self.settled_by(document, visible, read)
    }

    /// [`settled`](Self::settled), by another state than the document record, which `read` is given.
    pub(super) fn settled_by<S: PartialEq + Copy, T>(
        &self,
        document: &DocumentId,
        state: impl Fn(&mut DocumentKeys) -> Result<S, Fail>,
        read: impl Fn(&mut DocumentKeys, S) -> Result<T, Fail>,
    ) -> Result<T, StoreError> {
        let mut keys = DocumentKeys::new(document);
        let once = |keys: &mut DocumentKeys| {
            let before = state(keys)?;
            let value = read(keys, before)?;
            Ok((value, state(keys)? == before))
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
                if !allowance.admits(record.bytes()) {
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
        let part = Part::Log { first };
        let body = match values::locate(part, values::unseal(key, value, part)?)? {
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

    /// Reads of an access log, as long as its document is not purged.
    pub(super) fn settled_access<T: Default>(
        &self,
        document: &DocumentId,
        read: impl Fn(&mut DocumentKeys) -> Result<T, Fail>,
    ) -> Result<T, StoreError> {
        let is_purged = |_: &mut DocumentKeys| {
            let tombstone = self.read_tombstone(document)?;
            Ok(tombstone.is_some_and(|tombstone| tombstone.purged))
        };
        self.settled_by(document, is_purged, |keys, is_purged| {
            if is_purged {
                return Ok(T::default());
            }
            read(keys)
        })
    }

    /// Up to `limit` access entries in order, from number `from` on.
    pub(super) fn read_access_log(
        &self,
        keys: &mut DocumentKeys,
        from: u64,
        limit: usize,
        most_bytes: u64,
    ) -> Result<Vec<(u64, Bytes)>, Fail> {
        let mut found = Vec::new();
        let mut allowance = Allowance::new(most_bytes);
        let low = keys.at(Place::Access { number: from }).to_vec();
        let high = keys.end_of_access().to_vec();
        let mut number = from;
        for entry in self.db.range(low..high).take(limit) {
            let (key, value) = entry?;
            let place = Place::Access { number };
            if keys.parse(&key) != Some(place) {
                return Err(Problem::Missing { part: place.part() }.into());
            }
            let entry = self.read_access(keys, number, &key, &value)?;
            if !allowance.admits(entry.len() as u64) {
                break;
            }
            found.push((number, entry));
            number = number.saturating_add(1);
        }
        Ok(found)
    }

    /// The newest access entry.
    pub(super) fn read_newest_access(
        &self,
        keys: &mut DocumentKeys,
    ) -> Result<Option<(u64, Bytes)>, Fail> {
        let Some((number, key, value)) = self.newest_access(keys)? else {
            return Ok(None);
        };
        let entry = self.read_access(keys, number, &key, &value)?;
        Ok(Some((number, entry)))
    }

    fn newest_access(
        &self,
        keys: &mut DocumentKeys,
    ) -> Result<Option<(u64, ::sled::IVec, ::sled::IVec)>, Fail> {
        let low = keys.at(Place::Access { number: 0 }).to_vec();
        let high = keys.end_of_access();
        let last = self.db.range(low.as_slice()..high).next_back();
        match last.transpose()? {
            None => Ok(None),
            Some((key, value)) => match keys.parse(&key) {
                Some(Place::Access { number }) => Ok(Some((number, key, value))),
                _ => Err(Problem::Stray { part: Part::Stray }.into()),
            },
        }
    }

    fn read_access(
        &self,
        keys: &mut DocumentKeys,
        number: u64,
        key: &[u8],
        value: &[u8],
    ) -> Result<Bytes, Fail> {
        let part = Part::Access { number };
        match values::locate(part, values::unseal(key, value, part)?)? {
            Body::Inline(entry) => Ok(entry),
            Body::Apart { len } => {
                self.read_pieces(keys, len, |piece| Place::AccessPiece { number, piece })
            }
        }
    }

    /// Where a document stands, for the writer.
    pub(super) fn read_standing(&self, document: &DocumentId) -> Result<Standing, StoreError> {
        let tombstone = self.read_tombstone(document);
        let tombstone = tombstone.map_err(|fail| fail.of(document))?;
        if Life::of(tombstone.as_ref()) == Life::Purged {
            // Half of it may be swept.
            return Ok(Standing {
                tombstone,
                ..Standing::default()
            });
        }
        let mut keys = DocumentKeys::new(document);
        let newest = self.newest_access(&mut keys);
        let newest = newest.map_err(|fail| fail.of(document))?;
        let (end, damage) = match self.read_end(document) {
            Ok(end) => (end, None),
            // sled can't write either where it can't read.
            Err(StoreError::Corrupt { problem, .. }) if problem != Problem::Unreadable => {
                (None, Some(problem))
            }
            Err(error) => return Err(error),
        };
        Ok(Standing {
            end,
            next_access: newest.map_or(0, |(number, ..)| number.saturating_add(1)),
            tombstone,
            damage,
        })
    }

    /// Where a document ends, for the writer, also where it is deleted: `None` if it is not there.
    pub(super) fn read_end(&self, document: &DocumentId) -> Result<Option<End>, StoreError> {
        let mut keys = DocumentKeys::new(document);
        let end = self
            .read_record(&mut keys)
            .and_then(|record| self.end(&mut keys, record));
        end.map_err(|fail| fail.of(document))
    }

    pub(super) fn end(
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
}
