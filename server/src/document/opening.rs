//! From what the store holds of a document to its history. Blocks.

use automerge::Automerge;
use bytes::Bytes;
use concord_shared::change::{Change, Chunk, ChunkError, parse_chunks};
use concord_shared::ids::DocumentId;
use concord_shared::limits::Limits;

use super::history::{DecodeHistoryError, History, HistoryError};
use super::past::Steps;
use tracing::info;

use crate::materialise::{self, LoadError};
use crate::store::{Store, StoreError, StoredDocument, Write, changes_of};

/// Why a stored document could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The snapshot had to be loaded to rebuild the history, and does not load.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A stored change can't be read.
    #[error("stored change {index} is malformed")]
    Change {
        /// Its index.
        index: u64,
        /// What is wrong with it.
        source: ChunkError,
    },
    /// A stored change would not be admitted after those before it: it came before this was checked.
    #[error("stored change {index} does not fit the ones before it (see `concord repair`)")]
    Refused {
        /// Its index.
        index: u64,
        /// What is wrong with it.
        source: HistoryError,
    },
    /// What is stored at a change's place is something else.
    #[error("stored change {index} is not a single change")]
    NotAChange {
        /// The index.
        index: u64,
    },
}

/// A document as found in the store.
#[derive(Debug, Default)]
pub struct Opened {
    /// Its history, all of it visible.
    pub history: History,
    /// How much of it is where.
    pub sizes: Sizes,
    /// To be committed before anything else: the stored history was missing, unreadable or of another
    /// version, and the rebuilt one numbers the snapshot's changes anew.
    pub repair: Option<Write>,
}

/// Stored sizes of a document, for deciding when to compact.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Changes that the snapshot stands for.
    pub base: u64,
    /// Length of the snapshot in bytes.
    pub snapshot_bytes: u64,
    /// Bytes of the changes after it.
    pub tail_bytes: u64,
}

impl Sizes {
    /// Of both.
    pub fn bytes(&self) -> u64 {
        self.snapshot_bytes + self.tail_bytes
    }
}

/// Opens a document; one that is not in the store is empty.
pub fn open(store: &dyn Store, document: &DocumentId) -> Result<Opened, OpenError> {
    let Some(stored) = store.open(document)? else {
        return Ok(Opened::default());
    };
    let StoredDocument {
        created_at_ms,
        base,
        graph,
        snapshot_bytes,
        retained_from: _,
        tail,
    } = stored;
    let mut sizes = Sizes {
        base,
        snapshot_bytes,
        tail_bytes: 0,
    };
    let mut repair = None;
    let mut history = match graph.map(|bytes| decode(&bytes, base)) {
        None if base == 0 => History::new(),
        Some(Ok(history)) => history,
        unusable => {
            if let Some(Err(error)) = unusable {
                info!(%document, %error, "stored history is made again");
            }
            let history = rebuild(store, document)?;
            if let Some((base, snapshot)) = store.snapshot(document)? {
                repair = Some(Write::Snapshot {
                    document: document.clone(),
                    base,
                    keep_from: base,
                    received_at_ms: created_at_ms,
                    snapshot,
                    graph: history.encode(),
                    // They were known by their changes' places, which are others now.
                    arrivals: Bytes::new(),
                });
            }
            history
        }
    };
    let changes = changes_of(tail);
    for (index, bytes) in (base..).zip(changes) {
        sizes.tail_bytes += bytes.len() as u64;
        admit(&mut history, index, &stored_change(index, &bytes)?)?;
    }
    history.make_visible(history.graph().len());
    history.rest();
    Ok(Opened {
        history,
        sizes,
        repair,
    })
}

fn decode(bytes: &[u8], base: u64) -> Result<History, DecodeHistoryError> {
    let history = History::decode(bytes)?;
    let changes = u64::from(history.graph().len());
    if changes == base {
        Ok(history)
    } else {
        Err(DecodeHistoryError::OfOthers { changes, base })
    }
}

fn rebuild(store: &dyn Store, document: &DocumentId) -> Result<History, OpenError> {
    let snapshot = store.snapshot(document)?.map(|(_, snapshot)| snapshot);
    let loaded = materialise::load(&Vec::from_iter(snapshot))?;
    of_document(&loaded)
}

/// The history of a loaded document.
pub fn of_document(document: &Automerge) -> Result<History, OpenError> {
    let mut history = History::new();
    for (index, change) in (0..).zip(document.get_changes(&[])) {
        let bytes = Bytes::copy_from_slice(change.raw_bytes());
        admit(&mut history, index, &stored_change(index, &bytes)?)?;
    }
    history.make_visible(history.graph().len());
    Ok(history)
}

/// What was admitted once is within limits, whatever the limits are now.
pub(super) fn stored_change(index: u64, bytes: &Bytes) -> Result<Change, OpenError> {
    let mut chunks = parse_chunks(bytes, &Limits::unbounded())
        .map_err(|source| OpenError::Change { index, source })?;
    match (chunks.pop(), chunks.is_empty()) {
        (Some(Chunk::Change(change)), true) => Ok(change),
        _ => Err(OpenError::NotAChange { index }),
    }
}

fn admit(history: &mut History, index: u64, change: &Change) -> Result<(), OpenError> {
    // It was judged within bounds once, with others of its message.
    let mut steps = Steps::new(u64::MAX);
    match history.admit(change, &mut steps) {
        Ok(_) => Ok(()),
        Err(source) => Err(OpenError::Refused { index, source }),
    }
}
