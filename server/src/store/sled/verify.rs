//! Reads everything of a document and tells all that is wrong, not only the first.
//!
//! What the document record does not refer to is no problem: a former generation that is still to be
//! swept, or something staged that a crash left behind.

use std::sync::PoisonError;

use bytes::Bytes;
use concord_shared::ids::DocumentId;

use super::{
    Database, DocumentKeys, DocumentRecord,
    keys::{self, Place},
    read::{Fail, is_swept},
    values::{self, Assembly, Body},
};
use crate::store::{LogRecord, Part, Problem, StoreError};

impl Database {
    /// Checks what is there; a document that looks damaged is looked at again with batches and sweeps
    /// held off, since one that went by would look just like it.
    pub(super) fn verify_document(
        &self,
        document: &DocumentId,
    ) -> Result<Vec<Problem>, StoreError> {
        let once = || self.survey(document).map_err(|fail| fail.of(document));
        let problems = once()?;
        if problems.is_empty() {
            return Ok(problems);
        }
        let _quiet = self.changing.read().unwrap_or_else(PoisonError::into_inner);
        once()
    }

    fn survey(&self, document: &DocumentId) -> Result<Vec<Problem>, Fail> {
        let mut survey = Survey {
            database: self,
            document,
            keys: DocumentKeys::new(document),
            problems: Vec::new(),
        };
        let is_deleted = match self.read_tombstone(document) {
            Ok(Some(tombstone)) if tombstone.purged => return Ok(survey.problems),
            Ok(tombstone) => tombstone.is_some(),
            Err(Fail::Problem(problem)) => {
                survey.problems.push(problem);
                return Ok(survey.problems);
            }
            Err(fail) => return Err(fail),
        };
        let record = match self.read_record(&mut survey.keys) {
            Ok(record) => record,
            Err(Fail::Problem(problem)) => {
                survey.problems.push(problem);
                survey.log(None)?;
                survey.access()?;
                survey.labels()?;
                return Ok(survey.problems);
            }
            Err(fail) => return Err(fail),
        };
        let any_log = survey.log(record)?;
        let any_access = survey.access()?;
        match record {
            Some(record) => survey.generation(&record)?,
            None if any_log => survey.problems.push(Problem::Missing {
                part: Part::Document,
            }),
            None if any_access || is_deleted => {}
            None => {
                return Err(Fail::Store(StoreError::Unknown {
                    document: document.clone(),
                }));
            }
        }
        survey.labels()?;
        survey.strays()?;
        Ok(survey.problems)
    }
}

struct Survey<'s> {
    database: &'s Database,
    document: &'s DocumentId,
    keys: DocumentKeys,
    problems: Vec<Problem>,
}

impl Survey<'_> {
    fn generation(&mut self, record: &DocumentRecord) -> Result<(), Fail> {
        let generation = record.generation;
        if generation > 0 {
            self.pieces(record.snapshot_len, |piece| Place::Snapshot {
                generation,
                piece,
            })?;
            self.pieces(record.graph_len, |piece| Place::Graph { generation, piece })?;
            if record.arrivals_len > 0 {
                self.pieces(record.arrivals_len, |piece| Place::Arrivals {
                    generation,
                    piece,
                })?;
            }
        }
        Ok(())
    }

    /// Reads the log; whether there is any. Without a document record only the records themselves and
    /// what lies between them can be checked.
    fn log(&mut self, document: Option<DocumentRecord>) -> Result<bool, Fail> {
        let keep_from = document.map_or(0, |document| document.keep_from);
        let low = self.keys.at(Place::Log { first: 0 }).to_vec();
        let high = self.keys.end_of_log().to_vec();
        let mut records = self.database.db.range(low.as_slice()..high.as_slice());
        let mut following = records.next().transpose()?;
        let any = following.is_some();
        // `None`: a damaged record left open where the next one starts.
        let mut expected = document.map(|document| document.keep_from);
        let mut started = false;
        while let Some((key, value)) = following {
            following = records.next().transpose()?;
            let Some(Place::Log { first }) = self.keys.parse(&key) else {
                continue;
            };
            let superfluous = following.as_ref().is_some_and(|(key, _)| {
                matches!(self.keys.parse(key), Some(Place::Log { first }) if first <= keep_from)
            });
            if superfluous {
                continue;
            }
            if let Some(expected) = expected
                && (first > expected || (started && first != expected))
            {
                self.problems.push(Problem::Gap {
                    expected,
                    found: first,
                });
            }
            started = true;
            let before = self.problems.len();
            expected = self.log_record(first, &key, &value)?;
            let problem = self.problems.get(before);
            if document
                .zip(problem)
                .is_some_and(|(document, problem)| is_swept(&document, first, problem))
            {
                self.problems.truncate(before);
            }
        }
        if let (Some(document), Some(expected)) = (document, expected)
            && expected < document.base
        {
            self.problems.push(Problem::Gap {
                expected,
                found: document.base,
            });
        }
        Ok(any)
    }

    /// Checks one log record; index after its last change.
    fn log_record(&mut self, first: u64, key: &[u8], value: &[u8]) -> Result<Option<u64>, Fail> {
        let part = Part::Log { first };
        let body = self.body(part, key, value, |piece| Place::Body { first, piece })?;
        match body.map(|body| values::read_body(first, body)) {
            Some(Ok(records)) => Ok(records.last().map(LogRecord::end)),
            Some(Err(problem)) => {
                self.problems.push(problem);
                Ok(None)
            }
            None => Ok(None),
        }
    }

    /// Reads the access log, which starts with entry 0 and leaves none out; whether there is any.
    fn access(&mut self) -> Result<bool, Fail> {
        let low = self.keys.at(Place::Access { number: 0 }).to_vec();
        let high = self.keys.end_of_access().to_vec();
        let mut next = 0;
        for entry in self.database.db.range(low.as_slice()..high.as_slice()) {
            let (key, value) = entry?;
            let Some(Place::Access { number }) = self.keys.parse(&key) else {
                continue;
            };
            if number != next {
                let part = Part::Access { number: next };
                self.problems.push(Problem::Missing { part });
            }
            next = number.saturating_add(1);
            let pieces = |piece| Place::AccessPiece { number, piece };
            self.body(Part::Access { number }, &key, &value, pieces)?;
        }
        Ok(next > 0)
    }

    /// Looks whether the document is found by each of its labels. By which others it is found can't be told from here:
    /// [`Database::find_mislabelled`].
    fn labels(&mut self) -> Result<(), Fail> {
        let (low, high) = self.keys.all_labels();
        let tags = self.database.db.range(low.as_slice()..high);
        for tag in tags.collect::<Result<Vec<_>, _>>()? {
            let Some(Place::Label(label)) = self.keys.parse(&tag.0) else {
                continue;
            };
            let entry = keys::labelled(label, self.document);
            let found = self.database.db.get(&entry)?;
            let part = Part::Labelled;
            let found = found.ok_or(Problem::Missing { part });
            let sound = [
                values::unseal(&tag.0, &tag.1, Part::Label).map(drop),
                found.and_then(|value| values::unseal(&entry, &value, part).map(drop)),
            ];
            self.problems
                .extend(sound.into_iter().filter_map(Result::err));
        }
        Ok(())
    }

    /// Reads a log record or access entry, and the pieces that it lies in; its body if nothing is wrong.
    fn body(
        &mut self,
        part: Part,
        key: &[u8],
        value: &[u8],
        place: impl Fn(u32) -> Place,
    ) -> Result<Option<Bytes>, Fail> {
        let payload = values::unseal(key, value, part);
        match payload.and_then(|payload| values::locate(part, payload)) {
            Ok(Body::Inline(body)) => Ok(Some(body)),
            Ok(Body::Apart { len }) => self.pieces(len, place),
            Err(problem) => {
                self.problems.push(problem);
                Ok(None)
            }
        }
    }

    /// Reads a blob's pieces, and all that is wrong with any of them; the blob if nothing is.
    fn pieces(&mut self, len: u64, place: impl Fn(u32) -> Place) -> Result<Option<Bytes>, Fail> {
        let before = self.problems.len();
        let mut assembly = Assembly::new(len);
        for piece in values::pieces_of(len) {
            let part = place(piece).part();
            let key = self.keys.at(place(piece));
            let piece = match self.database.db.get(key)? {
                Some(value) => match values::unseal(key, &value, part) {
                    // After a bad piece the blob can't be whole; go on only to find what else is bad.
                    Ok(payload) if self.problems.len() == before => assembly.push(payload, part),
                    Ok(_) => Ok(()),
                    Err(problem) => Err(problem),
                },
                None => Err(Problem::Missing { part }),
            };
            if let Err(problem) = piece {
                self.problems.push(problem);
            }
        }
        Ok((self.problems.len() == before).then(|| assembly.finish()))
    }

    fn strays(&mut self) -> Result<(), Fail> {
        let low = self.keys.at(Place::Record).to_vec();
        let high = self.keys.end().to_vec();
        for key in self
            .database
            .db
            .range(low.as_slice()..high.as_slice())
            .keys()
        {
            if self.keys.parse(&key?).is_none() {
                self.problems.push(Problem::Stray { part: Part::Stray });
            }
        }
        Ok(())
    }
}
