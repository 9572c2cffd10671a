//! A history step by step, with the document after each.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use automerge::{Automerge, AutomergeError};
use concord_shared::json::{MOST_LEVELS, Types, to_json};
use serde_json::Value as Json;

use super::file::Ending;
use super::recording::{LoadError, Loaded, Recorded, Recording};
use crate::materialise::nested_at_most;

/// A document that is made again, change by change, in the order in which the changes arrived.
///
/// - to get one: [`load`](Self::load) from a file, or [`new`](Self::new);
/// - to go on: [`step`](Self::step), or [`seek`](Self::seek) to anywhere;
/// - to look: [`json`](Self::json), [`document`](Self::document), [`position`](Self::position), at any time.
///
/// ```
/// use automerge::{AutoCommit, ROOT, transaction::Transactable as _};
/// use concord_server::replay::{Recording, Replay};
///
/// let mut document = AutoCommit::new();
/// for title in ["Draft", "Minutes"] {
///     document.put(ROOT, "title", title)?;
///     document.commit();
/// }
/// let mut replay = Replay::new(Recording::from_automerge(document.save())?);
/// let mut titles = Vec::new();
/// while let Some(step) = replay.step()? {
///     titles.push(step.json()?["title"].clone());
/// }
/// assert_eq!(titles, ["Draft", "Minutes"]);
///
/// replay.seek(1)?;
/// assert_eq!(replay.json()?["title"], "Draft");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Replay {
    recording: Recording,
    document: Automerge,
    position: usize,
}

/// One change that was just applied.
#[derive(Debug)]
pub struct Step<'a> {
    /// Its place in the recording, from 0.
    pub place: usize,
    /// The change.
    pub change: &'a Recorded,
    /// The document after it.
    pub document: &'a Automerge,
}

/// Why a replay does not go on.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The history can't be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The recording is not whole: it was cut, or its writer was killed.
    #[error("the recording is not whole: {ending}")]
    NotWhole {
        /// How it ended.
        ending: Ending,
    },
    /// Automerge does not take a change.
    #[error("applying change {place}")]
    Apply {
        /// Its place in the recording, or that of the last of those applied with it.
        place: usize,
        /// Why.
        source: Box<AutomergeError>,
    },
    /// Automerge panicked on a change; the document is empty again.
    #[error("automerge panicked on change {place}")]
    Panicked {
        /// Its place in the recording, or that of the last of those applied with it.
        place: usize,
    },
    /// The document is nested too deep to be read as JSON.
    #[error("the document has more than {MOST_LEVELS} levels of nesting")]
    TooDeep,
    /// There is no such place.
    #[error("there are {changes} changes, and no change {asked}")]
    Beyond {
        /// How many there are.
        changes: usize,
        /// The place that was asked for.
        asked: usize,
    },
}

impl Replay {
    /// At the beginning: no change is applied.
    pub fn new(recording: Recording) -> Self {
        Self {
            recording,
            document: Automerge::new(),
            position: 0,
        }
    }

    /// From an `.automerge` file or a recording that is whole. For one that is cut, or still being written:
    /// [`Recording::load`] gives what is there.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ReplayError> {
        let Loaded { recording, ending } = Recording::load(path.as_ref())?;
        match ending {
            Ending::Closed => Ok(Self::new(recording)),
            ending => Err(ReplayError::NotWhole { ending }),
        }
    }

    /// What is replayed.
    pub fn recording(&self) -> &Recording {
        &self.recording
    }

    /// How many changes are applied.
    pub fn position(&self) -> usize {
        self.position
    }

    /// Applies the next change; `None` at the end.
    pub fn step(&mut self) -> Result<Option<Step<'_>>, ReplayError> {
        let place = self.position;
        if place >= self.recording.len() {
            return Ok(None);
        }
        self.forward(place + 1)?;
        let change = self.recording.changes().get(place);
        Ok(change.map(|change| Step {
            place,
            change,
            document: &self.document,
        }))
    }

    /// Goes to where the first so many changes are applied, as one batch; back from the beginning.
    pub fn seek(&mut self, changes: usize) -> Result<(), ReplayError> {
        if changes > self.recording.len() {
            return Err(ReplayError::Beyond {
                changes: self.recording.len(),
                asked: changes,
            });
        }
        if changes < self.position {
            self.document = Automerge::new();
            self.position = 0;
        }
        self.forward(changes)
    }

    /// The document.
    pub fn document(&self) -> &Automerge {
        &self.document
    }

    /// The document as plain JSON (see [`concord_shared::json`]). Costs a pass over the document.
    pub fn json(&self) -> Result<Json, ReplayError> {
        json(&self.document)
    }

    fn forward(&mut self, to: usize) -> Result<(), ReplayError> {
        let changes = self.recording.changes().get(self.position..to);
        let changes = changes.into_iter().flatten();
        let changes: Vec<_> = changes.map(|change| change.change().clone()).collect();
        let place = to.saturating_sub(1);
        let document = &mut self.document;
        // Judging keeps out most of what makes Automerge panic; it does not know what a change refers to.
        match catch_unwind(AssertUnwindSafe(|| document.apply_changes(changes))) {
            Ok(Ok(())) => {
                self.position = to;
                Ok(())
            }
            Ok(Err(source)) => Err(ReplayError::Apply {
                place,
                source: Box::new(source),
            }),
            Err(_panic) => {
                self.document = Automerge::new();
                self.position = 0;
                Err(ReplayError::Panicked { place })
            }
        }
    }
}

impl Step<'_> {
    /// The document after this change, as plain JSON. Costs a pass over the document.
    pub fn json(&self) -> Result<Json, ReplayError> {
        json(self.document)
    }
}

fn json(document: &Automerge) -> Result<Json, ReplayError> {
    if !nested_at_most(document, MOST_LEVELS) {
        return Err(ReplayError::TooDeep);
    }
    Ok(to_json(&document.hydrate(None), Types::Plain))
}
