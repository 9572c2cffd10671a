//! A value of a document that is watched: each change of it as JSON Patch (RFC 6902).
//!
//! Automerge tells what an apply changed as patches of its own. Of them only *where* something changed is taken,
//! a map's key, a text, a list; *what* is there now is read from the document, once, so that a hundred splices of a
//! text are one `replace` and an object that is new is one `add`. What it costs is in proportion to what changed,
//! but for a list of which elements came or went or were replaced: then the ids of all its elements are compared, as
//! the positions in patches are not always right. An apply, too, goes through the whole list.
//!
//! - [`Watched`]: the value; holds its JSON as it last was.
//! - `walk`: goes down to what changed; `runs`: what has become of a list's elements; `conflicts`: of what the
//!   patches leave out.

use std::collections::HashSet;

use automerge::{Automerge, ChangeHash, ObjId, Patch, PatchAction, Value};
use json_patch::jsonptr::PointerBuf;
use json_patch::{PatchOperation, ReplaceOperation};
use serde_json::Value as Json;

use super::Types;
use crate::path::Path;
use conflicts::Conflicts;

mod conflicts;
mod runs;
mod walk;

/// An operation of RFC 6902: only `add`, `remove` and `replace` are made. Its path begins at what is watched.
pub type Operation = PatchOperation;

/// The value at a path, as JSON; brought from version to version.
///
/// [`Self::new`], then for every batch of changes that the document takes, none left out, [`Self::step`] with
/// Automerge's patches for it, even if there are none; [`Self::json`] in between as often as wished. Where a batch's
/// patches are not at hand, [`Self::renew`].
///
/// One thing is missed, as Automerge has no patch for it: in a list, a counter that shows up because the value that
/// hid it was deleted, when it is incremented in the same batch by numbers whose sum is 0. It is put right when
/// anything else in that list changes.
#[derive(Debug)]
pub struct Watched {
    path: Path,
    types: Types,
    /// `None` where there is nothing at the path.
    there: Option<There>,
}

/// What is at the path.
#[derive(Debug)]
struct There {
    json: Json,
    /// The version that it is of.
    heads: Vec<ChangeHash>,
    /// `None` for a scalar.
    object: Option<ObjId>,
    conflicts: Conflicts,
}

/// What a batch of changes did to what is watched.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub enum Step {
    /// It is the same.
    Nothing,
    /// These operations, in this order, lead from the last JSON to the present one. Another value altogether is a
    /// `replace` of the path `""`.
    Patch(Vec<Operation>),
    /// There was nothing at the path, and now there is: [`Watched::json`].
    Appeared,
    /// There is nothing at the path any more, which is not the same as `null`. The path is still watched:
    /// [`Step::Appeared`] may follow.
    Gone,
}

impl Watched {
    /// Begins to watch a path at the document's present version. There may be nothing yet.
    pub fn new(document: &Automerge, path: Path, types: Types) -> Self {
        let there =
            found(document, &path).map(|(value, id)| There::read(document, &value, &id, types));
        Self { path, types, there }
    }

    /// The path.
    pub const fn path(&self) -> &Path {
        &self.path
    }

    /// What was there as of the last step. `None`: there was nothing.
    pub fn json(&self) -> Option<&Json> {
        self.there.as_ref().map(|there| &there.json)
    }

    /// Goes to the document's present version. `patches` must be those of
    /// [`make_patches`](Automerge::make_patches) or [`diff`](Automerge::diff), called with the document as it is
    /// now, of all that changed since the last step.
    pub fn step(&mut self, document: &Automerge, patches: &[Patch]) -> Step {
        let now = found(document, &self.path);
        let (Some(there), Some((value, id))) = (&mut self.there, &now) else {
            return self.put(document, now);
        };
        let put = put(patches);
        if there.object.as_ref() != Some(id) || put.contains(id) {
            return self.put(document, now);
        }
        match there.walk(document, id, patches, &put, self.types) {
            Ok(operations) if operations.is_empty() => Step::Nothing,
            Ok(operations) => Step::Patch(operations),
            Err(walk::Lost) => {
                // Half-changed, so there is nothing to compare with.
                *there = There::read(document, value, id, self.types);
                Step::Patch(vec![replaced(&there.json)])
            }
        }
    }

    /// Goes to the document's present version without patches: reads the whole value and compares it.
    pub fn renew(&mut self, document: &Automerge) -> Step {
        let now = found(document, &self.path);
        self.put(document, now)
    }

    fn put(&mut self, document: &Automerge, now: Option<(Value<'_>, ObjId)>) -> Step {
        let now = now.map(|(value, id)| There::read(document, &value, &id, self.types));
        let step = match (&self.there, &now) {
            (None, None) => Step::Nothing,
            (None, Some(_)) => Step::Appeared,
            (Some(_), None) => Step::Gone,
            (Some(before), Some(now)) if before.json == now.json => Step::Nothing,
            (Some(_), Some(now)) => Step::Patch(vec![replaced(&now.json)]),
        };
        self.there = now;
        step
    }
}

impl There {
    fn read(document: &Automerge, value: &Value<'_>, id: &ObjId, types: Types) -> Self {
        let mut conflicts = Conflicts::default();
        // What was just found is there.
        let json = conflicts.read(document, value, id, types);
        Self {
            json: json.unwrap_or(Json::Null),
            heads: document.get_heads(),
            object: value.is_object().then(|| id.clone()),
            conflicts,
        }
    }

    fn walk(
        &mut self,
        document: &Automerge,
        id: &ObjId,
        patches: &[Patch],
        put: &HashSet<&ObjId>,
        types: Types,
    ) -> Result<Vec<Operation>, walk::Lost> {
        let left_out = self.conflicts.left_out(document)?;
        let root = walk::Node::gather(id, patches.iter().chain(&left_out));
        let mut walk = walk::Walk {
            document,
            types,
            heads: &self.heads,
            put,
            conflicts: &mut self.conflicts,
            at: PointerBuf::new(),
            operations: Vec::new(),
        };
        walk.node(&root, &mut self.json)?;
        let operations = walk.operations;
        self.heads = document.get_heads();
        Ok(operations)
    }
}

/// What is at a path now.
fn found<'d>(document: &'d Automerge, path: &Path) -> Option<(Value<'d>, ObjId)> {
    path.value(document, None).ok().flatten()
}

fn replaced(json: &Json) -> Operation {
    Operation::Replace(ReplaceOperation {
        path: PointerBuf::new(),
        value: json.clone(),
    })
}

/// The objects that are put somewhere by the patches. One that was there and was hidden in between is among them,
/// and its patches make it from nothing.
fn put(patches: &[Patch]) -> HashSet<&ObjId> {
    let mut put = HashSet::new();
    for patch in patches {
        match &patch.action {
            PatchAction::PutMap { value, .. } | PatchAction::PutSeq { value, .. } => {
                put.extend(value.0.is_object().then_some(&value.1));
            }
            PatchAction::Insert { values, .. } => {
                let objects = values.iter().filter(|(value, ..)| value.is_object());
                put.extend(objects.map(|(_, id, _)| id));
            }
            _ => {}
        }
    }
    put
}

#[cfg(test)]
mod tests;
