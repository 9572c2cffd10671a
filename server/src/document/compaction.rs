//! Making a snapshot of what is stored, to replace the changes it stands for.
//!
//! A compaction works on the store alone: it reads snapshot and tail, loads them, and gives the
//! [`Write`] that puts the new generation in the place of the old one. Appends that are committed in
//! the meantime come after its `base` and are not touched. Nothing is deleted before its replacement
//! is there (the write is one batch) and was seen to be good (the new snapshot is loaded again and has
//! the same heads and number of changes as the graph).

use automerge::ReadDoc;
use bytes::Bytes;
use concord_shared::ids::DocumentId;

use super::arrivals;
use super::opening::{self, OpenError, Sizes};
use crate::materialise::{self, LoadError};
use crate::store::{LogRecord, Store, StoreError, Write, changes_of};

/// Raw changes kept below a small snapshot, in bytes per document.
pub const LEAST_RETAINED_BYTES_PER_DOCUMENT: u64 = 128 << 10;

/// While a document is being edited, a tail below this is left alone, in bytes. Loading it costs a server
/// that has much to do more than parsing it costs who opens the document: some 0.1 s.
const SMALLEST_TAIL_WHEN_BUSY_BYTES: u64 = 4 << 20;

/// When nobody has the document open, a tail below this is not worth a compaction, in bytes.
const SMALLEST_TAIL_WHEN_RESTING_BYTES: u64 = 16 << 10;

/// While a document is being edited, its tail may grow to this many times its snapshot. A compaction
/// costs O(document); this keeps its share of the cost of a keystroke constant.
const TAIL_TO_SNAPSHOT_WHEN_BUSY: u64 = 16;

/// But to no more bytes than this, unless the snapshot is larger: who opens the document reads and parses
/// all of the tail.
const LARGEST_TAIL_WHEN_BUSY_BYTES: u64 = 16 << 20;

/// Why there is no new snapshot. What is stored stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum CompactError {
    /// What is stored can't be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// What is stored can't be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is stored, or the new snapshot, does not load.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A bug, here or in a loader.
    #[error("compaction panicked")]
    Panicked,
    /// The new snapshot holds something else than what it stands for.
    #[error("the new snapshot does not equal what it would replace: keeping the old one")]
    Unequal,
}

/// When a document should be compacted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    /// It is being edited.
    Busy,
    /// Nobody has it open, or the server stops.
    Resting,
}

/// Whether a compaction is due.
pub fn is_due(sizes: Sizes, occasion: Occasion) -> bool {
    let bound = match occasion {
        Occasion::Busy => (sizes.snapshot_bytes * TAIL_TO_SNAPSHOT_WHEN_BUSY)
            .min(LARGEST_TAIL_WHEN_BUSY_BYTES.max(sizes.snapshot_bytes)),
        Occasion::Resting => sizes.snapshot_bytes / 16,
    };
    let smallest = match occasion {
        Occasion::Busy => SMALLEST_TAIL_WHEN_BUSY_BYTES,
        Occasion::Resting => SMALLEST_TAIL_WHEN_RESTING_BYTES,
    };
    sizes.tail_bytes > bound.max(smallest)
}

/// What [`build`] found and made.
#[derive(Debug)]
pub struct Built {
    /// What puts the new snapshot in the place of the old one. `None` when there is no tail.
    pub write: Option<Write>,
    /// Bytes of the tail that the write stands for.
    pub covered_bytes: u64,
}

/// Builds the next snapshot generation of a stored document. Blocks, for as long as loading the document
/// takes twice.
pub fn build(store: &dyn Store, document: &DocumentId, now_ms: u64) -> Result<Built, CompactError> {
    let opened = opening::open(store, document)?;
    if let Some(repair) = opened.repair {
        return Ok(Built {
            write: Some(repair),
            covered_bytes: 0,
        });
    }
    let nothing_to_do = Built {
        write: None,
        covered_bytes: 0,
    };
    if opened.sizes.tail_bytes == 0 {
        return Ok(nothing_to_do);
    }
    let Some(contents) = store.contents(document)? else {
        return Ok(nothing_to_do);
    };
    // Changes that were appended between the two reads stay in the tail.
    let base = u64::from(opened.history.graph().len());
    let tail = contents.tail.into_iter();
    let tail: Vec<LogRecord> = tail.filter_map(|record| record.cut(0, base)).collect();
    // All that is in the log, what was kept below the former snapshot too.
    let below = store.log(document, 0, contents.base, u64::MAX)?;
    // What the log has is surely of these changes.
    let logged_from = below.first().map_or(contents.base, |record| record.first);
    let mut arrivals = arrivals::stored(store, document)?.resized(logged_from);
    for record in below.iter().chain(&tail) {
        arrivals.push_record(record);
    }
    let tail: Vec<Bytes> = changes_of(tail).collect();
    let mut chunks = Vec::from_iter(contents.snapshot);
    chunks.extend_from_slice(&tail);
    let snapshot = Bytes::from(materialise::load(&chunks)?.save());

    // Equal heads are equal histories; the count guards against a loader that skips.
    let reloaded = materialise::load(std::slice::from_ref(&snapshot))?;
    let mut heads = reloaded.get_heads();
    heads.sort_unstable();
    if heads != opened.history.graph().visible_heads() || reloaded.stats().num_changes != base {
        return Err(CompactError::Unequal);
    }

    let most = retained_bytes(snapshot.len() as u64);
    let mut keep_from = base;
    let mut kept = 0;
    for change in changes_of(below).chain(tail).rev() {
        kept += change.len() as u64;
        if kept > most {
            break;
        }
        keep_from -= 1;
    }
    Ok(Built {
        write: Some(Write::Snapshot {
            document: document.clone(),
            base,
            keep_from,
            received_at_ms: now_ms,
            snapshot,
            graph: opened.history.encode(),
            arrivals: arrivals.encode(),
        }),
        covered_bytes: opened.sizes.tail_bytes,
    })
}

/// Bytes of raw changes to keep below a snapshot, so that a peer that missed a little is sent just that.
/// Who missed more bytes than the snapshot has is better off with the snapshot.
fn retained_bytes(snapshot_bytes: u64) -> u64 {
    snapshot_bytes.max(LEAST_RETAINED_BYTES_PER_DOCUMENT)
}

#[cfg(test)]
mod tests {
    use automerge::transaction::Transactable as _;
    use automerge::{ActorId, AutoCommit, ROOT};
    use concord_shared::ids::PrincipalId;

    use super::*;
    use crate::document::arrivals::{Arrivals, between};
    use crate::store::{Durability, MemoryStore};

    /// Six changes of this many bytes are more than is kept below a small snapshot.
    const CHANGE_BYTES: usize = 40_000;
    const CHANGES: u64 = 6;

    fn known(store: &MemoryStore, document: &DocumentId) -> Vec<Option<(u64, String)>> {
        let arrivals = between(store, document, 0, 2 * CHANGES).unwrap();
        let arrivals = arrivals.into_iter();
        arrivals
            .map(|at| at.map(|at| (at.at_ms, at.principal.to_string())))
            .collect()
    }

    /// Compacts what is stored; gives the arrivals that it wrote.
    fn compact(store: &MemoryStore, document: &DocumentId) -> Bytes {
        let write = build(store, document, 9).unwrap().write.expect("a tail");
        let Write::Snapshot { arrivals, .. } = &write else {
            panic!("no snapshot");
        };
        let arrivals = arrivals.clone();
        store.commit(&[write], Durability::Strict).unwrap();
        arrivals
    }

    #[test]
    fn what_compactions_take_out_of_the_log_is_known_still() {
        let (store, document) = (MemoryStore::new(), DocumentId::from_uuid([1; 16]));
        let mut author = AutoCommit::new().with_actor(ActorId::from([1]));
        let mut state = 7_u32;
        let mut write = |n: u64| {
            let noise = std::iter::repeat_with(|| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                state.to_be_bytes()[0]
            });
            let bytes: Vec<u8> = noise.take(CHANGE_BYTES).collect();
            author.put(ROOT, "noise", bytes).unwrap();
            author.commit();
            let change = author.get_last_local_change().unwrap();
            let write = Write::Append {
                document: document.clone(),
                first: n,
                received_at_ms: 1000 + n * n,
                principal: PrincipalId::new(if n.is_multiple_of(3) { "ann" } else { "bo" })
                    .unwrap(),
                changes: vec![Bytes::copy_from_slice(change.raw_bytes())],
            };
            store.commit(&[write], Durability::Strict).unwrap();
        };
        (0..CHANGES).for_each(&mut write);
        let first = known(&store, &document);
        assert!(first[..6].iter().all(Option::is_some) && first[6..].iter().all(Option::is_none));
        compact(&store, &document);
        let from = store.open(&document).unwrap().unwrap().retained_from;
        assert!(0 < from && from < CHANGES, "{from}");
        assert_eq!(known(&store, &document), first);

        // Over and over, and read between.
        (CHANGES..2 * CHANGES).for_each(&mut write);
        let all = known(&store, &document);
        assert_eq!(all[..6], first[..6]);
        let stored = compact(&store, &document);
        assert_eq!(known(&store, &document), all);
        assert!(all.iter().all(Option::is_some));

        // Of a snapshot that an older build made, or one whose arrivals are damaged, that is known which the log has; and
        // the next compaction keeps it.
        let opened = opening::open(&store, &document).unwrap();
        let from = store.open(&document).unwrap().unwrap().retained_from;
        let (base, snapshot) = store.snapshot(&document).unwrap().unwrap();
        let mut damaged = stored.to_vec();
        damaged.truncate(stored.len() - 1);
        author.put(ROOT, "last", true).unwrap();
        author.commit();
        let last = author.get_last_local_change().unwrap();
        let last = Write::Append {
            document: document.clone(),
            first: 2 * CHANGES,
            received_at_ms: 5,
            principal: PrincipalId::new("cy").unwrap(),
            changes: vec![Bytes::copy_from_slice(last.raw_bytes())],
        };
        for arrivals in [Bytes::new(), damaged.into()] {
            let old = Write::Snapshot {
                document: document.clone(),
                base,
                keep_from: from,
                received_at_ms: 9,
                snapshot: snapshot.clone(),
                graph: opened.history.encode(),
                arrivals,
            };
            let store = store.crash(0);
            store.commit(&[old], Durability::Strict).unwrap();
            let from = usize::try_from(from).unwrap();
            let rest = known(&store, &document);
            assert!(rest[..from].iter().all(Option::is_none));
            assert_eq!(rest[from..], all[from..]);
            store
                .commit(std::slice::from_ref(&last), Durability::Strict)
                .unwrap();
            let stored = Arrivals::decode(&compact(&store, &document)).unwrap();
            assert_eq!(stored.changes(), 2 * CHANGES + 1);
            assert_eq!(known(&store, &document), rest);
        }
    }
}
