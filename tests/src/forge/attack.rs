//! Wrong changes within a history: one that was honest made wrong, or new ones on top.

use std::collections::HashMap;

use automerge::ChangeHash;
use bytes::Bytes;

use super::arbitrary;
use super::context::Context;
use super::model::{ChangeModel, hash};
use super::mutate::mutate;
use super::raw::mutate_bytes;
use super::source::Source;

/// Most changes of arbitrary ops that are put on top of a history.
const MOST_ON_TOP: usize = 3;

/// A history in which something is wrong.
#[derive(Debug, Clone)]
pub struct Attack {
    /// Its changes, uncompressed chunks in a causal order.
    pub changes: Vec<Bytes>,
    /// What was done to it.
    pub done: Vec<&'static str>,
}

/// Makes one change of a history wrong. The victim is replaced; what built on it builds on the wrong
/// one now.
///
/// `changes` are as [`ChangeModel::decode`] takes them, and `context` is of them.
pub fn attack(source: &mut Source<'_>, changes: &[Bytes], context: &Context) -> Attack {
    let victim = source.below(changes.len());
    let mut model = ChangeModel::decode(&changes[victim]);
    let (chunk, done) = if source.chance(8) {
        (mutate_bytes(source, &model), vec!["bytes"])
    } else {
        let done = mutate(source, &mut model, context);
        (model.encode(), done)
    };
    let mut renamed: HashMap<ChangeHash, ChangeHash> = HashMap::new();
    renamed.insert(hash(&changes[victim]), hash(&chunk));
    let mut all = changes[..victim].to_vec();
    all.push(chunk);
    for change in &changes[victim + 1..] {
        let mut model = ChangeModel::decode(change);
        for dep in &mut model.deps {
            if let Some(new) = renamed.get(dep) {
                *dep = *new;
            }
        }
        model.deps.sort_unstable();
        let chunk = model.encode();
        renamed.insert(hash(change), hash(&chunk));
        all.push(chunk);
    }
    Attack { changes: all, done }
}

/// Puts changes of [`arbitrary`] ops on top of a history, each in the context of those before it.
pub fn on_top(source: &mut Source<'_>, changes: &[Bytes], context: &mut Context) -> Attack {
    let mut all = changes.to_vec();
    for _ in 0..=source.below(MOST_ON_TOP) {
        let model = arbitrary::change(source, &all, context);
        let chunk = model.encode();
        context.add(&model, hash(&chunk));
        all.push(chunk);
    }
    let done = vec!["arbitrary ops"; all.len() - changes.len()];
    Attack { changes: all, done }
}
