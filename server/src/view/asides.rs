//! Who makes the changes that are made [aside](super::Core::change_aside).
//!
//! An actor's changes are one line, so who writes at a version that does not have the last one of it needs another
//! actor. Each one costs every replica a little for ever, so they are used again where that can be.

use automerge::{ActorId, Automerge, ChangeHash};
use rustc_hash::FxHashMap;

/// What the names end with, behind the view's own and before a number. Automerge's, for what is written in place at old
/// versions, begin with bytes of their own.
const SUFFIX: &[u8] = b"aside";

/// The actors of one view's process and document, each with its last change.
#[derive(Debug, Default)]
pub(super) struct Asides(FxHashMap<ActorId, ChangeHash>);

impl Asides {
    /// Those that an earlier view of the same document made, too: its actor was the same.
    pub(super) fn of(doc: &Automerge) -> Self {
        let prefix = [doc.get_actor().to_bytes(), SUFFIX].concat();
        let mut asides = Self::default();
        // In causal order, so the last one of each stays.
        for change in doc.get_changes_meta(&[]) {
            if change.actor.to_bytes().starts_with(&prefix) {
                asides.0.insert(change.actor.into_owned(), change.hash);
            }
        }
        asides
    }

    /// One that can write in a document: it has all of the actor's changes.
    pub(super) fn actor(&self, own: &ActorId, then: &Automerge) -> ActorId {
        let has = |hash| then.get_change_meta_by_hash(hash).is_some();
        let free = self.0.iter().find(|(_, last)| has(last));
        let new = || {
            let number = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
            ActorId::from([own.to_bytes(), SUFFIX, &number.to_be_bytes()].concat())
        };
        free.map_or_else(new, |(actor, _)| actor.clone())
    }

    /// It made this change.
    pub(super) fn made(&mut self, actor: ActorId, change: ChangeHash) {
        self.0.insert(actor, change);
    }
}
