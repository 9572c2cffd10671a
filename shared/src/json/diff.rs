//! The difference of two JSON values as JSON Patch (RFC 6902).
//!
//! Objects are compared by their keys, arrays as [`lists`] compares them: by what names all of their elements,
//! or by what is equal, in order. Whatever else differs is replaced as a whole, texts too.

use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, PatchOperation, RemoveOperation, ReplaceOperation};
use serde_json::Value as Json;

use super::lists::{self, Step};
use super::search::Search;
use super::{Types, is_same, tagged};

/// Operations that lead from one value to another, in this order; only `add`, `remove` and `replace` are made. `types` is
/// how the values are written: what a tag says is one value, and is not taken apart.
pub fn diff(from: &Json, to: &Json, types: Types, search: Search) -> Vec<PatchOperation> {
    let mut diff = Diff {
        types,
        search,
        at: PointerBuf::new(),
        operations: Vec::new(),
    };
    diff.walk(from, to);
    diff.operations
}

struct Diff {
    types: Types,
    search: Search,
    at: PointerBuf,
    operations: Vec<PatchOperation>,
}

impl Diff {
    fn walk(&mut self, from: &Json, to: &Json) {
        match (from, to) {
            (Json::Object(before), Json::Object(after))
                if !self.is_tagged(from) && !self.is_tagged(to) =>
            {
                for key in before.keys().filter(|key| !after.contains_key(*key)) {
                    self.below(key, Self::remove);
                }
                for (key, value) in after {
                    match before.get(key) {
                        Some(before) => self.below(key, |diff| diff.walk(before, value)),
                        None => self.below(key, |diff| diff.add(value)),
                    }
                }
            }
            (Json::Array(before), Json::Array(after)) => {
                for step in lists::steps(before, after, &mut self.search) {
                    match step {
                        Step::Remove(at) => self.below(&at.to_string(), Self::remove),
                        Step::Insert(at, new, count) => {
                            let values = after.get(new..new + count).unwrap_or_default();
                            for (at, value) in (at..).zip(values) {
                                self.below(&at.to_string(), |diff| diff.add(value));
                            }
                        }
                        Step::Put(at, new) => {
                            if let (Some(before), Some(value)) = (before.get(at), after.get(new)) {
                                self.below(&at.to_string(), |diff| diff.walk(before, value));
                            }
                        }
                    }
                }
            }
            _ if is_same(from, to) => {}
            _ => {
                let (path, value) = (self.at.clone(), to.clone());
                let replaced = ReplaceOperation { path, value };
                self.operations.push(PatchOperation::Replace(replaced));
            }
        }
    }

    fn is_tagged(&self, json: &Json) -> bool {
        self.types == Types::Tagged && tagged::read(json).is_some()
    }

    fn below(&mut self, step: &str, go: impl FnOnce(&mut Self)) {
        self.at.push_back(step);
        go(self);
        self.at.pop_back();
    }

    fn remove(&mut self) {
        let path = self.at.clone();
        let removed = RemoveOperation { path };
        self.operations.push(PatchOperation::Remove(removed));
    }

    fn add(&mut self, value: &Json) {
        let (path, value) = (self.at.clone(), value.clone());
        let added = AddOperation { path, value };
        self.operations.push(PatchOperation::Add(added));
    }
}
