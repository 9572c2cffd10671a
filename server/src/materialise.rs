//! Documents loaded into `automerge`: for views, compaction and commands, never for the relay.
//!
//! Loading costs time and memory in proportion to the history, so every caller is on a blocking thread.

use std::panic::{AssertUnwindSafe, catch_unwind};

use automerge::{Automerge, LoadOptions, ObjId, ObjType, OnPartialLoad, ROOT, ReadDoc as _, Value};
use bytes::Bytes;
use concord_shared::ids::DocumentId;

use crate::store::{Store, StoreError, changes_of};

/// Why a stored document could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// `automerge` refuses what is stored.
    #[error("the stored document does not load")]
    Automerge(#[from] automerge::AutomergeError),
    /// Changes that others depend on are not there.
    #[error("{missing} changes that others depend on are missing")]
    MissingDeps {
        /// How many are known of.
        missing: usize,
    },
    /// `automerge` panicked on what is stored.
    #[error("automerge panicked on the stored document")]
    Panicked,
}

/// Loads chunks (document and change chunks) in order, as one batch that shares the cost of applying: all of them, or it
/// is an error. (`Automerge::load_incremental` into an empty document leaves out, without a word, all from the first
/// chunk on that it cannot read; and any loader keeps back changes that lack a dependency.)
pub fn load(chunks: &[Bytes]) -> Result<Automerge, LoadError> {
    // Admission keeps out what makes `automerge` panic; this is the second line. The half-built
    // document is dropped with the closure, so nothing that unwound is used again.
    catch_unwind(AssertUnwindSafe(|| {
        let options = LoadOptions::new().on_partial_load(OnPartialLoad::Error);
        let document = Automerge::load_with_options(&chunks.concat(), options)?;
        match document.get_missing_deps(&[]).len() {
            0 => Ok(document),
            missing => Err(LoadError::MissingDeps { missing }),
        }
    }))
    .unwrap_or(Err(LoadError::Panicked))
}

/// The document anew from its changes. Automerge does not look at the order in which a document chunk has its
/// ops: one could have a list's elements in another order than its changes put them, and who loads it would
/// part from who got the changes, under the same heads. So what came from elsewhere is never stored as it came.
pub fn rebuilt(document: &Automerge) -> Result<Automerge, LoadError> {
    let changes = document.get_changes(&[]);
    let changes = changes.iter();
    let chunks = changes.map(|change| Bytes::copy_from_slice(change.raw_bytes()));
    load(&chunks.collect::<Vec<_>>())
}

/// Loads a stored document: its snapshot and everything since. `None` if it is not there.
pub fn document(store: &dyn Store, document: &DocumentId) -> Result<Option<Automerge>, LoadError> {
    let Some(chunks) = chunks(store, document)? else {
        return Ok(None);
    };
    load(&chunks).map(Some)
}

/// A stored document's chunks: snapshot first, then the changes since.
pub fn chunks(store: &dyn Store, document: &DocumentId) -> Result<Option<Vec<Bytes>>, StoreError> {
    // In one read: between two, a compaction might take away what comes after the first one's base.
    let Some(contents) = store.contents(document)? else {
        return Ok(None);
    };
    let mut chunks = Vec::from_iter(contents.snapshot);
    chunks.extend(changes_of(contents.tail));
    Ok((!chunks.is_empty()).then_some(chunks))
}

/// Whether no object of the document lies deeper, so that what goes through it by recursion may.
pub fn nested_at_most(document: &Automerge, most: usize) -> bool {
    let mut level: Vec<ObjId> = vec![ROOT];
    for _ in 0..=most {
        let mut below = Vec::new();
        for object in &level {
            let values = document.values(object);
            below.extend(values.filter_map(|(value, id)| match value {
                Value::Object(ObjType::Text) | Value::Scalar(_) => None,
                Value::Object(_) => Some(id),
            }));
        }
        if below.is_empty() {
            return true;
        }
        level = below;
    }
    false
}
