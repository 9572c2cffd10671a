//! Writing at old versions.
//!
//! Whoever writes at an old version means what was there then. So the edit is made in a document that ends there, and
//! its change is put behind all that came since: it keeps what it replaces, removes and stands beside, and gets the deps, the
//! actor and the op ids of one that is made now. What came since is not replaced by it, as if it had been made by a
//! replica that did not have that; where both wrote the same place, it is the later one.
//!
//! Automerge itself would make it a branch. That costs the document for ever: an actor for nearly each such change, a
//! head until somebody joins it, and the op ids of all that came since, of which a document may leave out only so many.
//! And it goes through an object from its beginning for each op.

use std::collections::BTreeSet;
use std::num::NonZeroU64;

use automerge::{ActorId, ReadDoc as _, legacy};
use automerge::{Automerge, AutomergeError, Change, ChangeHash, ExpandedChange};
use rustc_hash::{FxHashMap, FxHashSet};

/// Versions whose documents are kept: an earlier one, and the last that was asked for. Programs that go on from
/// different ones do not make each other load all of it again.
const KEPT: usize = 2;

/// So many changes behind the earlier one, it stays.
const CHANGES_BETWEEN: usize = 64;

/// As many changes are found one by one; more are quicker found with all that came since.
const SINGLE_CHANGES: usize = 16;

/// Places of which it is known what was put there last. Beyond that it is forgotten, which costs one value more at each.
const MOST_PLACES: usize = 1 << 16;
/// What each takes, with its key.
const BYTES_PER_PLACE: usize = 200;

/// The document as it was at versions that were asked for. The next one is one of them as a rule, or not much later.
#[derive(Debug)]
pub(super) struct Earlier {
    /// The earlier one comes first.
    kept: Vec<Automerge>,
    /// Who writes in them. Nobody else ever sees or can guess it: what has it in a change was made in that change.
    actor: ActorId,
    /// The last op that put something at a place of the document, of those that were put behind others.
    last: FxHashMap<(legacy::ObjectId, legacy::Key), legacy::OpId>,
}

impl Earlier {
    pub(super) fn new() -> Self {
        Self {
            kept: Vec::new(),
            actor: ActorId::random(),
            last: FxHashMap::default(),
        }
    }

    /// A document that ends at a version of `now`, to write in. Takes the time to load it, unless one that was asked
    /// for before is a part of it: then the time to take in what came since.
    pub(super) fn at(
        &mut self,
        now: &Automerge,
        version: &[ChangeHash],
    ) -> Result<Automerge, AutomergeError> {
        let parts = self.kept.iter().enumerate();
        let parts = parts.filter_map(|(at, doc)| Some((at, missing(now, doc, version)?)));
        let nearest = parts.min_by_key(|(_, missing)| missing.len());
        let (at, mut doc, since) = match nearest {
            // Others come with versions in between.
            Some((0, since)) if !since.is_empty() && since.len() <= CHANGES_BETWEEN => {
                let doc = self.kept.remove(0);
                let later = doc.clone();
                self.kept = vec![doc];
                (1, later, since)
            }
            Some((at, since)) => (at, self.kept.remove(at), since),
            None => {
                self.kept.truncate(KEPT - 1);
                let mut empty = Automerge::new_with_encoding(now.text_encoding());
                empty.set_actor(self.actor.clone());
                let all = missing(now, &empty, version);
                (0, empty, all.unwrap_or_default())
            }
        };
        let changes: Vec<Change> = if since.len() <= SINGLE_CHANGES {
            let changes = since.iter().map(|hash| now.get_change_by_hash(hash));
            changes.flatten().collect()
        } else {
            let changes = now.get_changes(&doc.get_heads()).into_iter();
            changes
                .filter(|change| since.contains(&change.hash()))
                .collect()
        };
        doc.apply_changes(changes)?;
        let then = doc.clone();
        self.kept.insert(at, doc);
        Ok(then)
    }

    /// What is kept.
    pub(super) fn docs(&self) -> &[Automerge] {
        &self.kept
    }

    /// Bytes of memory that is taken besides them, roughly.
    pub(super) fn memory(&self) -> usize {
        self.last.len() * BYTES_PER_PLACE
    }

    /// The same change, made in a document as it is now.
    pub(super) fn rebased(&mut self, change: &Change, now: &Automerge) -> Change {
        let change = change.decode();
        let actor = now.get_actor().clone();
        let last = now.get_last_local_change();
        let deps = now.get_heads();
        let heads = deps.iter();
        let heads = heads.filter_map(|head| now.get_change_meta_by_hash(head));
        let highest = heads.map(|head| head.max_op).max().unwrap_or(0);
        let start_op = NonZeroU64::MIN.saturating_add(highest);
        // Its own ops are the only ones of its actor.
        let own = |legacy::OpId(counter, author): legacy::OpId| {
            let nth = counter.checked_sub(change.start_op.get());
            match nth.filter(|_| author == change.actor_id) {
                Some(nth) => legacy::OpId(start_op.get() + nth, actor.clone()),
                None => legacy::OpId(counter, author),
            }
        };
        let mut next = start_op.get();
        if self.last.len() >= MOST_PLACES {
            self.last = FxHashMap::default();
        }
        let operations = change.operations.into_iter().map(|op| {
            let op = legacy::Op {
                obj: match op.obj {
                    legacy::ObjectId::Id(id) => legacy::ObjectId::Id(own(id)),
                    legacy::ObjectId::Root => legacy::ObjectId::Root,
                },
                key: match op.key {
                    legacy::Key::Seq(legacy::ElementId::Id(id)) => {
                        legacy::Key::Seq(legacy::ElementId::Id(own(id)))
                    }
                    key => key,
                },
                pred: op.pred.into_iter().map(own).collect(),
                ..op
            };
            let id = legacy::OpId(next, actor.clone());
            next += 1;
            let is_new = matches!(&op.obj, legacy::ObjectId::Id(made) if made.0 >= start_op.get());
            if is_new { op } else { self.behind_last(op, id) }
        });
        Change::from(ExpandedChange {
            operations: operations.collect(),
            hash: None,
            seq: last.map_or(1, |last| last.seq() + 1),
            start_op,
            deps,
            actor_id: actor.clone(),
            ..change
        })
    }

    /// What was put there behind others the last time is replaced by what is put here now, though the version that is
    /// written at did not have it: else whatever a program writes at one version that it names again and again would
    /// stay, all of it side by side, and each later op would name all of it.
    fn behind_last(&mut self, op: legacy::Op, id: legacy::OpId) -> legacy::Op {
        let puts = matches!(op.action, legacy::OpType::Put(_) | legacy::OpType::Make(_));
        if op.insert || !puts {
            return op;
        }
        let place = (op.obj.clone(), op.key.clone());
        let Some(last) = self.last.insert(place, id) else {
            return op;
        };
        let pred: BTreeSet<_> = op.pred.into_iter().chain([last]).collect();
        legacy::Op {
            pred: pred.into_iter().collect(),
            ..op
        }
    }
}

/// The changes of a version of `now` that another document does not have, if all that it has is part of that version.
fn missing(
    now: &Automerge,
    earlier: &Automerge,
    version: &[ChangeHash],
) -> Option<FxHashSet<ChangeHash>> {
    let mut missing = FxHashSet::default();
    let mut met = FxHashSet::default();
    let mut left = version.to_vec();
    while let Some(hash) = left.pop() {
        if earlier.get_change_meta_by_hash(&hash).is_some() {
            met.insert(hash);
        } else if missing.insert(hash) {
            left.extend(now.get_change_meta_by_hash(&hash)?.deps.iter());
        }
    }
    // Whatever leads from the version to one of the heads meets nothing of the document before it.
    let mut heads = earlier.get_heads().into_iter();
    heads.all(|head| met.contains(&head)).then_some(missing)
}
