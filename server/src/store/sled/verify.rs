//! Reads everything of a document and tells all that is wrong, not only the first.

use std::sync::PoisonError;

use concord_shared::ids::DocumentId;

use super::{
    DocumentKeys, DocumentRecord, SledStore,
    batch::pieces_of,
    keys::Place,
    read_failed,
    values::{self, Assembly},
};
use crate::store::{LogRecord, Part, Problem, StoreError};

impl SledStore {
    /// Checks what is there; a document that looks damaged is looked at again with batches held off, since one
    /// that went by would look just like it.
    pub(super) fn verify_document(
        &self,
        document: &DocumentId,
    ) -> Result<Vec<Problem>, StoreError> {
        let problems = self.survey(document)?;
        if problems.is_empty() {
            return Ok(problems);
        }
        let _no_batch = self.batches.read().unwrap_or_else(PoisonError::into_inner);
        self.survey(document)
    }

    fn survey(&self, document: &DocumentId) -> Result<Vec<Problem>, StoreError> {
        let mut keys = DocumentKeys::new(document);
        let low = keys.at(Place::Record).to_vec();
        let mut survey = Survey::default();
        let mut any = false;
        for entry in self.db.range(low.as_slice()..keys.end()) {
            let (key, value) = entry.map_err(read_failed)?;
            any = true;
            let Some(place) = keys.parse(&key) else {
                survey.problems.push(Problem::Stray { part: Part::Stray });
                continue;
            };
            match values::unseal(&key, &value, place.part()) {
                Ok(payload) => survey.value(place, payload),
                Err(problem) => survey.damaged(place, problem),
            }
        }
        if any {
            Ok(survey.finish())
        } else {
            Err(StoreError::Unknown {
                document: document.clone(),
            })
        }
    }
}

/// What has been seen of a document, in the order of its keys: record, snapshot, graph, log.
#[derive(Default)]
struct Survey {
    problems: Vec<Problem>,
    record: Option<DocumentRecord>,
    /// The document record is there but unreadable: nothing can be said of what it refers to.
    record_damaged: bool,
    snapshot: Pieces,
    graph: Pieces,
    log: Log,
}

/// Which pieces of the valid generation have been seen.
#[derive(Default)]
struct Pieces {
    next: u32,
    bytes: u64,
    damaged: bool,
}

#[derive(Default)]
struct Log {
    /// A record some of whose pieces are still to come; `None` inside: damaged, skip its pieces.
    open: Option<(u64, Option<Assembly>)>,
    /// Index that comes next; `None` before the first record and after a damaged one.
    next: Option<u64>,
    started: bool,
}

impl Survey {
    fn value(&mut self, place: Place, payload: &[u8]) {
        match place {
            Place::Record => match DocumentRecord::decode(payload) {
                Ok(record) => self.record = Some(record),
                Err(problem) => self.damaged(place, problem),
            },
            Place::Snapshot { generation, piece } => {
                if self.is_valid(generation, place) {
                    self.snapshot
                        .piece(&mut self.problems, piece, payload.len(), place);
                }
            }
            Place::Graph { generation, piece } => {
                if self.is_valid(generation, place) {
                    self.graph
                        .piece(&mut self.problems, piece, payload.len(), place);
                }
            }
            Place::Log { first, piece } => self.log_piece(first, piece, Some(payload)),
        }
    }

    fn damaged(&mut self, place: Place, problem: Problem) {
        self.problems.push(problem);
        match place {
            Place::Record => self.record_damaged = true,
            Place::Snapshot { piece, .. } => self.snapshot.skip(piece),
            Place::Graph { piece, .. } => self.graph.skip(piece),
            Place::Log { first, piece } => self.log_piece(first, piece, None),
        }
    }

    fn is_valid(&mut self, generation: u64, place: Place) -> bool {
        let valid = self
            .record
            .is_some_and(|record| record.generation == generation);
        if !valid && !self.record_damaged {
            self.problems.push(Problem::Stray { part: place.part() });
        }
        valid
    }

    fn base(&self) -> Option<u64> {
        self.record.map(|record| record.base)
    }

    /// `payload` is `None` for a piece whose checksum did not match.
    fn log_piece(&mut self, first: u64, piece: u32, payload: Option<&[u8]>) {
        if self
            .log
            .open
            .as_ref()
            .is_none_or(|(open, _)| *open != first)
        {
            self.end_record();
            self.start_record(first);
            if piece > 0 {
                self.problems.push(Problem::Missing {
                    part: Part::Log { first, piece: 0 },
                });
            }
        }
        let Some((_, assembly)) = &mut self.log.open else {
            return;
        };
        let Some(payload) = payload else {
            *assembly = None;
            return;
        };
        if piece == 0 {
            match values::log_len(first, payload) {
                Ok(len) => *assembly = Some(Assembly::new(len)),
                Err(problem) => self.problems.push(problem),
            }
        }
        let part = Part::Log { first, piece };
        let result = match assembly {
            Some(open) if open.next_piece() == piece => open.push(payload, part),
            Some(open) => Err(Problem::Missing {
                part: Part::Log {
                    first,
                    piece: open.next_piece(),
                },
            }),
            None => return,
        };
        if let Err(problem) = result {
            self.problems.push(problem);
            *assembly = None;
        }
    }

    fn start_record(&mut self, first: u64) {
        let expected = if self.log.started {
            self.log.next
        } else {
            self.base()
        };
        // The log may begin below the snapshot's base, never above it.
        let fits = |expected| first == expected || (!self.log.started && first < expected);
        if let Some(expected) = expected.filter(|expected| !fits(*expected)) {
            self.problems.push(Problem::Gap {
                expected,
                found: first,
            });
        }
        self.log.started = true;
        self.log.next = None;
        self.log.open = Some((first, None));
    }

    fn end_record(&mut self) {
        let Some((first, Some(assembly))) = self.log.open.take() else {
            return;
        };
        if !assembly.is_complete() {
            let piece = assembly.next_piece();
            self.problems.push(Problem::Missing {
                part: Part::Log { first, piece },
            });
            return;
        }
        match values::read_log(first, assembly.finish()) {
            Ok(records) => self.log.next = records.last().map(LogRecord::end),
            Err(problem) => self.problems.push(problem),
        }
    }

    fn finish(mut self) -> Vec<Problem> {
        self.end_record();
        match self.record {
            Some(record) => {
                if let Some(expected) = self.log.next.filter(|next| *next < record.base) {
                    self.problems.push(Problem::Gap {
                        expected,
                        found: record.base,
                    });
                }
                if record.generation > 0 {
                    let part = |piece| Part::Snapshot { piece };
                    self.snapshot
                        .finish(&mut self.problems, record.snapshot_len, part);
                    let part = |piece| Part::Graph { piece };
                    self.graph
                        .finish(&mut self.problems, record.graph_len, part);
                }
            }
            None if !self.record_damaged => {
                self.problems.push(Problem::Missing {
                    part: Part::Document,
                });
            }
            None => {}
        }
        self.problems
    }
}

impl Pieces {
    fn piece(&mut self, problems: &mut Vec<Problem>, piece: u32, bytes: usize, place: Place) {
        for missing in self.next..piece {
            let part = match place {
                Place::Graph { .. } => Part::Graph { piece: missing },
                _ => Part::Snapshot { piece: missing },
            };
            problems.push(Problem::Missing { part });
            self.damaged = true;
        }
        self.next = piece.saturating_add(1);
        self.bytes += bytes as u64;
    }

    /// A damaged piece: reported already, and its length is not known.
    fn skip(&mut self, piece: u32) {
        self.next = piece.saturating_add(1);
        self.damaged = true;
    }

    fn finish(&self, problems: &mut Vec<Problem>, len: u64, part: impl Fn(u32) -> Part) {
        let pieces = pieces_of(len);
        problems
            .extend((self.next..pieces.end).map(|piece| Problem::Missing { part: part(piece) }));
        let complete = !self.damaged && self.next >= pieces.end;
        if complete && (self.next != pieces.end || self.bytes != len) {
            problems.push(Problem::Malformed {
                part: part(pieces.end - 1),
            });
        }
    }
}
