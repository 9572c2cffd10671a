//! From the root of what is watched down to what changed.
//!
//! Parents come before children, and a parent's children are visited only once it is as it shall be: then the
//! paths of Automerge's patches, which are those of the document as it is now, are the right ones. A child that
//! was put or inserted anew has been read as a whole by then, and its own patches are passed over.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use automerge::{
    Automerge, AutomergeError, ChangeHash, ObjId, ObjType, Patch, PatchAction, Prop, ReadDoc as _,
    ScalarValueRef, ValueRef,
};
use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, RemoveOperation, ReplaceOperation};
use serde_json::{Map, Value as Json};

use super::Operation;
use super::conflicts::Conflicts;
use super::runs::{self, Run};
use crate::json::{Types, tagged};

/// An object in or under which something changed.
#[derive(Debug)]
pub(super) struct Node<'p> {
    id: ObjId,
    /// What changed in the object itself, in order.
    actions: Vec<&'p PatchAction>,
    children: BTreeMap<Prop, Node<'p>>,
}

impl<'p> Node<'p> {
    /// The patches at or under an object. They must come with paths of one version of the document.
    pub(super) fn gather(root: &ObjId, patches: impl Iterator<Item = &'p Patch>) -> Self {
        let mut gathered = Self::new(root);
        for patch in patches {
            let steps = patch.path.iter().map(|(object, prop)| (object, Some(prop)));
            let steps = steps.chain([(&patch.obj, None)]);
            let mut steps = steps.skip_while(|(object, _)| *object != root);
            if let Some((_, step)) = steps.next() {
                let mut node = &mut gathered;
                let mut step = step;
                for (object, next) in steps {
                    if let Some(prop) = step {
                        let children = &mut node.children;
                        node = children
                            .entry(prop.clone())
                            .or_insert_with(|| Self::new(object));
                    }
                    step = next;
                }
                node.actions.push(&patch.action);
            }
        }
        gathered
    }

    fn new(id: &ObjId) -> Self {
        Self {
            id: id.clone(),
            actions: Vec::new(),
            children: BTreeMap::new(),
        }
    }
}

/// The patches do not fit the JSON: it is to be read anew.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Lost;

impl From<AutomergeError> for Lost {
    fn from(_: AutomergeError) -> Self {
        Self
    }
}

/// One walk; collects the operations.
#[derive(Debug)]
pub(super) struct Walk<'d> {
    pub(super) document: &'d Automerge,
    pub(super) types: Types,
    /// The version that the JSON is of.
    pub(super) heads: &'d [ChangeHash],
    /// The objects that the patches put somewhere: whole, and not as a difference to what was there.
    pub(super) put: &'d HashSet<&'d ObjId>,
    pub(super) conflicts: &'d mut Conflicts,
    /// Where the walk is.
    pub(super) at: PointerBuf,
    pub(super) operations: Vec<Operation>,
}

impl Walk<'_> {
    /// Brings the JSON of an object that was there before to what it is now. After an error it may be anything.
    pub(super) fn node(&mut self, node: &Node<'_>, json: &mut Json) -> Result<(), Lost> {
        match self.document.object_type(&node.id)? {
            ObjType::Map | ObjType::Table => self.map(node, json),
            ObjType::List => self.list(node, json.as_array_mut().ok_or(Lost)?),
            ObjType::Text => self.text(node, json),
        }
    }

    fn text(&mut self, node: &Node<'_>, json: &mut Json) -> Result<(), Lost> {
        let is_spliced = |action: &&PatchAction| !matches!(action, PatchAction::Mark { .. });
        if node.actions.iter().any(is_spliced) {
            let text = Json::String(self.document.text(&node.id)?);
            self.replace(json, text);
        }
        Ok(())
    }

    /// A map's JSON, which may have to be escaped, or no longer.
    fn map(&mut self, node: &Node<'_>, json: &mut Json) -> Result<(), Lost> {
        if self.types == Types::Plain {
            return self.entries(node, json.as_object_mut().ok_or(Lost)?);
        }
        let begin = self.operations.len();
        let was_escaped = matches!(tagged::read(json), Some(tagged::Tagged::Map(_)));
        let inner = if was_escaped {
            json.get_mut(tagged::MAP).ok_or(Lost)?
        } else {
            &mut *json
        };
        if was_escaped {
            self.at.push_back(tagged::MAP);
        }
        self.entries(node, inner.as_object_mut().ok_or(Lost)?)?;
        if was_escaped {
            self.at.pop_back();
        }
        let is_escaped = tagged::read(inner).is_some();
        if is_escaped != was_escaped {
            let Json::Object(entries) = inner.take() else {
                return Err(Lost);
            };
            *json = tagged::escaped(entries);
            self.operations.truncate(begin);
            self.push_replace(json.clone());
        }
        Ok(())
    }

    fn entries(&mut self, node: &Node<'_>, entries: &mut Map<String, Json>) -> Result<(), Lost> {
        let touched = node.actions.iter().filter_map(|action| key_of(action));
        let touched: BTreeSet<&str> = touched.collect();
        for key in &touched {
            self.at.push_back(*key);
            self.conflicts.note(self.document, &node.id, key)?;
            match (self.read(&node.id, *key)?, entries.get_mut(*key)) {
                (Some(json), Some(before)) => self.replace(before, json),
                (Some(json), None) => {
                    self.push_add(json.clone());
                    entries.insert((*key).to_owned(), json);
                }
                (None, Some(_)) => {
                    self.push_remove();
                    entries.remove(*key);
                }
                (None, None) => {}
            }
            self.at.pop_back();
        }
        for (prop, child) in &node.children {
            let Prop::Map(key) = prop else {
                return Err(Lost);
            };
            if touched.contains(key.as_str()) {
                continue;
            }
            self.at.push_back(key);
            self.node(child, entries.get_mut(key).ok_or(Lost)?)?;
            self.at.pop_back();
        }
        Ok(())
    }

    fn list(&mut self, node: &Node<'_>, elements: &mut Vec<Json>) -> Result<(), Lost> {
        // That something changed in it is all that is taken from the patches of a list. Their positions are wrong
        // where an element is deleted whose value another author replaced.
        let runs = if node.actions.is_empty() {
            vec![Run::Kept {
                from: 0,
                len: elements.len(),
            }]
        } else {
            self.changed_list(&node.id, elements)?
        };
        let mut is_kept = runs::kept(&runs);
        for (prop, child) in &node.children {
            let Prop::Seq(index) = prop else {
                return Err(Lost);
            };
            if is_kept(*index) && !self.put.contains(&child.id) {
                self.at.push_back(*index);
                self.node(child, elements.get_mut(*index).ok_or(Lost)?)?;
                self.at.pop_back();
            }
        }
        Ok(())
    }

    fn changed_list(&mut self, list: &ObjId, elements: &mut Vec<Json>) -> Result<Vec<Run>, Lost> {
        let before = self.document.list_range_at(list, .., self.heads);
        let before: Vec<ObjId> = before.map(|item| item.id()).collect();
        if before.len() != elements.len() {
            return Err(Lost);
        }
        let mut now = Vec::with_capacity(before.len());
        let mut renewed = Vec::new();
        for item in self.document.list_range(list, ..) {
            let id = item.id();
            let is_counter = matches!(item.value, ValueRef::Scalar(ScalarValueRef::Counter(_)));
            if is_counter || self.put.contains(&id) {
                renewed.push(item.index);
            }
            now.push(id);
        }
        let runs = runs::runs(&before, &now);
        self.elements(list, &runs, elements)?;
        let mut is_kept = runs::kept(&runs);
        renewed.retain(|index| is_kept(*index));
        drop(is_kept);
        for index in renewed {
            let json = self.read(list, index)?.ok_or(Lost)?;
            self.at.push_back(index);
            self.replace(elements.get_mut(index).ok_or(Lost)?, json);
            self.at.pop_back();
        }
        Ok(runs)
    }

    /// Brings the elements to what the runs say. As everything before an element is as it shall be when the
    /// element is come to, its position is that in the document.
    fn elements(
        &mut self,
        list: &ObjId,
        runs: &[Run],
        elements: &mut Vec<Json>,
    ) -> Result<(), Lost> {
        let begin = self.operations.len();
        let untouched = match runs.first() {
            Some(Run::Kept { from: 0, len }) => *len,
            _ => 0,
        };
        let before = elements.len();
        let mut behind = elements.split_off(untouched).into_iter();
        let (mut taken, mut fresh) = (untouched, 0);
        // The end is as if there was something that is kept.
        let end = Run::Kept {
            from: before,
            len: 0,
        };
        let skipped = usize::from(untouched > 0);
        for run in runs.iter().skip(skipped).chain([&end]) {
            match run {
                Run::New { len } => fresh += len,
                Run::Kept { from, len } => {
                    let gone = from.checked_sub(taken).ok_or(Lost)?;
                    self.gap(list, behind.by_ref().take(gone), fresh, elements)?;
                    elements.extend(behind.by_ref().take(*len));
                    (taken, fresh) = (from + len, 0);
                }
            }
        }
        // A list that was emptied is not emptied one by one.
        if elements.is_empty() && self.operations.len() > begin + 1 {
            self.operations.truncate(begin);
            self.push_replace(Json::Array(Vec::new()));
        }
        Ok(())
    }

    /// Puts so many new elements at the end, in place of those that are gone.
    fn gap(
        &mut self,
        list: &ObjId,
        mut gone: impl Iterator<Item = Json>,
        fresh: usize,
        elements: &mut Vec<Json>,
    ) -> Result<(), Lost> {
        for _ in 0..fresh {
            let index = elements.len();
            let json = self.read(list, index)?.ok_or(Lost)?;
            self.at.push_back(index);
            if let Some(mut before) = gone.next() {
                self.replace(&mut before, json);
                elements.push(before);
            } else {
                self.push_add(json.clone());
                elements.push(json);
            }
            self.at.pop_back();
        }
        self.at.push_back(elements.len());
        gone.for_each(|_| self.push_remove());
        self.at.pop_back();
        Ok(())
    }

    fn read(&mut self, object: &ObjId, prop: impl Into<Prop>) -> Result<Option<Json>, Lost> {
        let Some((value, id)) = self.document.get(object, prop)? else {
            return Ok(None);
        };
        let (document, types) = (self.document, self.types);
        Ok(Some(self.conflicts.read(document, &value, &id, types)?))
    }

    fn replace(&mut self, before: &mut Json, now: Json) {
        if *before != now {
            self.push_replace(now.clone());
            *before = now;
        }
    }

    fn push_add(&mut self, value: Json) {
        let path = self.at.clone();
        self.operations
            .push(Operation::Add(AddOperation { path, value }));
    }

    fn push_replace(&mut self, value: Json) {
        let path = self.at.clone();
        let replace = ReplaceOperation { path, value };
        self.operations.push(Operation::Replace(replace));
    }

    fn push_remove(&mut self) {
        let path = self.at.clone();
        self.operations
            .push(Operation::Remove(RemoveOperation { path }));
    }
}

/// The key that may have another value. A conflict alone would leave it, but where a value is deleted and
/// another is put that was made earlier, Automerge says no more than that there is a conflict.
fn key_of(action: &PatchAction) -> Option<&str> {
    match action {
        PatchAction::PutMap { key, .. }
        | PatchAction::DeleteMap { key }
        | PatchAction::Increment {
            prop: Prop::Map(key),
            ..
        }
        | PatchAction::Conflict {
            prop: Prop::Map(key),
        } => Some(key),
        _ => None,
    }
}
