//! The same changes by other authors, so that one document can have them more than once.

use std::collections::HashMap;

use super::model::ChangeModel;

/// Changes, each after its deps, with every actor renamed; what they say of each other is kept. Deps on
/// others stay what they are. The names must keep their order, as Automerge sorts them within a change.
pub fn renamed(changes: &[ChangeModel], name: impl Fn(&[u8]) -> Vec<u8>) -> Vec<ChangeModel> {
    let mut hashes = HashMap::new();
    let rename = |change: &ChangeModel| {
        let mut new = change.clone();
        new.actor = name(&change.actor);
        new.other_actors = change.other_actors.iter().map(|a| name(a)).collect();
        for dep in &mut new.deps {
            *dep = hashes.get(dep).copied().unwrap_or(*dep);
        }
        if change.deps.is_sorted() {
            new.deps.sort_unstable();
        }
        hashes.insert(change.hash(), new.hash());
        new
    };
    changes.iter().map(rename).collect()
}
