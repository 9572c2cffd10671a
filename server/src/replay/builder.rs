//! Putting changes together to a recording.

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use automerge::{Change, ChangeHash};
use bytes::Bytes;
use concord_shared::change::{Chunk, ChunkError, change_hash, parse_chunks};
use concord_shared::ids::{DocumentId, PrincipalId};
use concord_shared::limits::Limits;

use super::recording::{Recorded, Recording};

/// Puts changes together, each after its deps.
#[derive(Debug, Default)]
pub struct Builder {
    recording: Recording,
    known: HashSet<ChangeHash>,
    /// Changes that came early, by a dep that they lack.
    early: HashMap<ChangeHash, Vec<Recorded>>,
}

impl Builder {
    /// Nothing yet.
    pub fn new(document: Option<DocumentId>) -> Self {
        let mut builder = Self::default();
        builder.recording.document = document;
        builder
    }

    /// Adds a change chunk, whose deps must be there. It is judged by itself first, as the server does: Automerge panics
    /// on some changes, and takes all memory for others.
    pub fn push(
        &mut self,
        bytes: &Bytes,
        arrived_ms: Option<u64>,
        principal: Option<PrincipalId>,
    ) -> Result<(), ChangeError> {
        let chunks = parse_chunks(bytes, &Limits::unbounded());
        let mut chunks = chunks.map_err(|error| ChangeError::Chunk(Box::new(error)))?;
        let (Some(Chunk::Change(change)), true) = (chunks.pop(), chunks.is_empty()) else {
            return Err(ChangeError::NotAChange);
        };
        self.add(automerge_change(&change.bytes)?, arrived_ms, principal)
    }

    /// Adds a change that Automerge has read, and whose deps must be there.
    pub fn add(
        &mut self,
        change: Change,
        arrived_ms: Option<u64>,
        principal: Option<PrincipalId>,
    ) -> Result<(), ChangeError> {
        let hash = change.hash();
        if let Some(dep) = self.missing_dep(&change) {
            return Err(ChangeError::MissingDep { hash, dep });
        }
        if !self.known.insert(hash) {
            return Err(ChangeError::Twice { hash });
        }
        self.recording.changes.push(Recorded {
            change,
            arrived_ms,
            principal,
        });
        Ok(())
    }

    /// Adds a change from where deps need not come first: it waits for them, and takes its place behind them. One
    /// that is there already is left out.
    pub fn insert(&mut self, change: Change, arrived_ms: Option<u64>) {
        let mut ready = vec![Recorded {
            change,
            arrived_ms,
            principal: None,
        }];
        while let Some(recorded) = ready.pop() {
            let hash = recorded.hash();
            if let Some(dep) = self.missing_dep(&recorded.change) {
                self.early.entry(dep).or_default().push(recorded);
            } else if self.known.insert(hash) {
                self.recording.changes.push(recorded);
                ready.extend(self.early.remove(&hash).unwrap_or_default());
            }
        }
    }

    /// As [`insert`](Self::insert), of a change chunk that was judged already.
    pub(crate) fn insert_bytes(
        &mut self,
        bytes: &Bytes,
        arrived_ms: Option<u64>,
    ) -> Result<(), ChangeError> {
        self.insert(automerge_change(bytes)?, arrived_ms);
        Ok(())
    }

    /// How many changes wait for others.
    pub fn early(&self) -> usize {
        self.early.values().map(Vec::len).sum()
    }

    /// What has its place so far.
    pub fn changes(&self) -> &[Recorded] {
        &self.recording.changes
    }

    /// Whether a change has its place.
    pub fn has(&self, hash: &ChangeHash) -> bool {
        self.known.contains(hash)
    }

    /// A dep of the change that is not there.
    fn missing_dep(&self, change: &Change) -> Option<ChangeHash> {
        let mut deps = change.deps().iter();
        deps.find(|dep| !self.has(dep)).copied()
    }

    /// The recording; an error if a change still waits for a dep.
    pub fn finish(self) -> Result<Recording, ChangeError> {
        let early = self.early.iter();
        let lacking = early.flat_map(|(dep, early)| early.iter().map(move |at| (at.hash(), *dep)));
        match lacking.min() {
            None => Ok(self.recording),
            Some((hash, dep)) => Err(ChangeError::MissingDep { hash, dep }),
        }
    }
}

/// What was judged already, as Automerge's own type.
fn automerge_change(bytes: &Bytes) -> Result<Change, ChangeError> {
    // Judging keeps out what makes Automerge panic; this is the second line.
    match catch_unwind(AssertUnwindSafe(|| Change::from_bytes(bytes.to_vec()))) {
        Ok(Ok(change)) => Ok(change),
        Ok(Err(_)) | Err(_) => Err(ChangeError::Unreadable {
            hash: change_hash(bytes),
        }),
    }
}

/// Why bytes are no change that can be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// They are out of form.
    #[error(transparent)]
    Chunk(Box<ChunkError>),
    /// They are no change, or more than one.
    #[error("not a single change")]
    NotAChange,
    /// Automerge does not read what we read.
    #[error("Automerge can't read change {hash}")]
    Unreadable {
        /// Its hash.
        hash: ChangeHash,
    },
    /// A change comes before one that it depends on.
    #[error("change {hash} depends on {dep}, which does not come before it")]
    MissingDep {
        /// The change's hash.
        hash: ChangeHash,
        /// What it depends on.
        dep: ChangeHash,
    },
    /// A change comes twice.
    #[error("change {hash} comes twice")]
    Twice {
        /// Its hash.
        hash: ChangeHash,
    },
}
