//! Changes that are there already, judged as if they came now: for `concord verify --deep`,
//! `concord repair` and `concord inspect-change`.

use std::collections::HashSet;

use automerge::ChangeHash;
use bytes::Bytes;
use concord_shared::change::{Change, ChunkError, change_hash, have_same_ops};
use concord_shared::code::ErrorCode;
use concord_shared::ids::DocumentId;
use concord_shared::limits::Limits;

use super::history::{History, HistoryError};
use super::opening::{OpenError, stored_change};
use super::past::Steps;
use super::task::Report;
use crate::materialise::{self, LoadError};
use crate::store::{Store, StoreError, changes_of};

/// Why a document's changes can't be had.
#[derive(Debug, thiserror::Error)]
pub enum UnreadableError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The snapshot does not load.
    #[error(transparent)]
    Load(#[from] LoadError),
}

/// Why it can't be said whether a document is [as its changes say](is_as_its_changes_say).
#[derive(Debug, thiserror::Error)]
pub enum DisorderError {
    /// The document does not load.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// What Automerge saved can't be read.
    #[error("the document as Automerge saves it can't be read")]
    Chunk(#[from] ChunkError),
}

/// Why a change that is there would be refused.
#[derive(Debug, thiserror::Error)]
pub enum Objection {
    /// By itself.
    #[error(transparent)]
    Chunk(#[from] ChunkError),
    /// What is there is something else than a change.
    #[error("not a single change")]
    NotAChange,
    /// After those before it.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// It builds on one that would be refused.
    #[error("builds on refused change {on}")]
    BuildsOnRefused {
        /// That one.
        on: ChangeHash,
    },
}

impl Objection {
    /// The stable code that a peer would see.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Chunk(error) => error.code(),
            Self::NotAChange => ErrorCode::UnsupportedChunk,
            Self::History(error) => error.code(),
            Self::BuildsOnRefused { .. } => ErrorCode::BuildsOnRefused,
        }
    }
}

/// A change that would be refused.
#[derive(Debug)]
pub struct Refused {
    /// Its place among the changes, from 0.
    pub index: u64,
    /// Its hash.
    pub hash: ChangeHash,
    /// Why.
    pub why: Objection,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { index, hash, why } = self;
        write!(
            f,
            "change {index} ({hash}): {}: {}",
            why.code(),
            Report(why)
        )
    }
}

/// What became of a document's changes.
#[derive(Debug, Default)]
pub struct Judged {
    /// Of those that would be admitted.
    pub history: History,
    /// Those, in order.
    pub admitted: Vec<Bytes>,
    /// The others, in order.
    pub refused: Vec<Refused>,
}

/// All changes of a stored document, in the order in which it has them. Blocks, for as long as loading the
/// snapshot takes.
pub fn changes(store: &dyn Store, document: &DocumentId) -> Result<Vec<Bytes>, UnreadableError> {
    let Some(contents) = store.contents(document)? else {
        return Ok(Vec::new());
    };
    let mut changes = Vec::new();
    if let Some(snapshot) = contents.snapshot {
        let loaded = materialise::load(&[snapshot])?.get_changes(&[]);
        let compacted = loaded.iter();
        changes.extend(compacted.map(|change| Bytes::copy_from_slice(change.raw_bytes())));
    }
    changes.extend(changes_of(contents.tail));
    Ok(changes)
}

/// What is to be said of a document that is not [as its changes say](is_as_its_changes_say).
pub const OUT_OF_ORDER: &str = "its ops are stored in another order than its changes put them";

/// Whether the stored document is what its changes make. Who has the changes from elsewhere would see
/// another one if not. Blocks.
pub fn is_as_its_changes_say(
    store: &dyn Store,
    document: &DocumentId,
) -> Result<bool, DisorderError> {
    let Some(stored) = materialise::document(store, document)? else {
        return Ok(true);
    };
    // Automerge brings changes that come together into an order of its own, so those are in another one.
    let rebuilt = materialise::rebuilt(&stored)?.save().into();
    let stored = stored.save().into();
    Ok(have_same_ops(&stored, &rebuilt, &Limits::unbounded())?)
}

/// Judges changes, each after its deps, without the bounds that are there for strangers.
pub fn judge(changes: &[Bytes]) -> Judged {
    let mut judged = Judged::default();
    let mut refused: HashSet<ChangeHash> = HashSet::new();
    for (index, bytes) in (0..).zip(changes) {
        let (hash, why) = match admit(&mut judged.history, index, bytes, &refused) {
            Ok(()) => {
                judged.admitted.push(bytes.clone());
                continue;
            }
            Err(objection) => objection,
        };
        refused.insert(hash);
        judged.refused.push(Refused { index, hash, why });
    }
    let end = judged.history.graph().len();
    judged.history.make_visible(end);
    judged
}

fn admit(
    history: &mut History,
    index: u64,
    bytes: &Bytes,
    refused: &HashSet<ChangeHash>,
) -> Result<(), (ChangeHash, Objection)> {
    let change = stored_change(index, bytes).map_err(|error| {
        let why = match error {
            OpenError::Change { source, .. } => source.into(),
            _ => Objection::NotAChange,
        };
        (change_hash(bytes), why)
    })?;
    admit_parsed(history, &change, refused).map_err(|why| (change.hash, why))
}

fn admit_parsed(
    history: &mut History,
    change: &Change,
    refused: &HashSet<ChangeHash>,
) -> Result<(), Objection> {
    if let Some(on) = change.deps.iter().find(|dep| refused.contains(*dep)) {
        return Err(Objection::BuildsOnRefused { on: *on });
    }
    history.admit(change, &mut Steps::new(u64::MAX))?;
    Ok(())
}
