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

use std::num::NonZeroU64;

use automerge::{ActorId, legacy};
use automerge::{Automerge, AutomergeError, Change, ChangeHash, ExpandedChange};
use rustc_hash::FxHashSet;

/// What the actor that writes in old documents adds to the view's. Nobody else ever sees it.
const SUFFIX: &[u8] = b"then";

/// The document as it was at the version that was asked for last. The next one is the same as a rule, or not much later.
#[derive(Debug)]
pub(super) struct Earlier {
    doc: Automerge,
}

impl Earlier {
    pub(super) fn new(now: &Automerge) -> Self {
        Self { doc: empty(now) }
    }

    /// A document that ends at a version of `now`, to write in. Takes the time to load it, unless the one that was asked
    /// for last is a part of it: then the time to take in what came since.
    pub(super) fn at(
        &mut self,
        now: &Automerge,
        version: &[ChangeHash],
    ) -> Result<Automerge, AutomergeError> {
        let mut since = missing(now, &self.doc, version);
        if since.is_none() {
            self.doc = empty(now);
            since = missing(now, &self.doc, version);
        }
        let since = since.unwrap_or_default();
        if !since.is_empty() {
            let changes = now.get_changes(&self.doc.get_heads()).into_iter();
            let changes = changes.filter(|change| since.contains(&change.hash()));
            self.doc.apply_changes(changes)?;
        }
        Ok(self.doc.clone())
    }

    /// What is kept.
    pub(super) fn doc(&self) -> &Automerge {
        &self.doc
    }
}

fn empty(now: &Automerge) -> Automerge {
    let mut empty = Automerge::new_with_encoding(now.text_encoding());
    empty.set_actor(ActorId::from([now.get_actor().to_bytes(), SUFFIX].concat()));
    empty
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

/// The same change, made in a document as it is now.
pub(super) fn rebased(change: &Change, now: &Automerge) -> Change {
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
        if author == change.actor_id {
            let nth = counter - change.start_op.get();
            legacy::OpId(start_op.get() + nth, actor.clone())
        } else {
            legacy::OpId(counter, author)
        }
    };
    let operations = change.operations.into_iter().map(|op| legacy::Op {
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
