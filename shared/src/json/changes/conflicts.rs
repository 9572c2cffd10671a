//! Keys of maps that have more than one value, of which one is shown.
//!
//! The patches of an apply do not tell all of them. Automerge compares the value that was shown with one that came
//! with the changes, and when a third was there as well, then of these it says nothing: the shown one was deleted, or
//! is a counter that was incremented, and a value came that was put earlier; a counter shows up behind a deleted
//! value, with increments that come to 0. (`map_process` in its `op_set2/change/batch.rs`, of version 0.12.)
//! All of it takes a key that had more than one value before. There are few of those, so they are looked at.

use std::collections::{BTreeMap, HashMap};

use automerge::{
    Automerge, AutomergeError, ObjId, Patch, PatchAction, Prop, ReadDoc, ScalarValue, Value,
    hydrate,
};
use serde_json::Value as Json;

use crate::json::{Types, scalars, to_json};

/// The keys with conflicts of all maps that were read. Those of maps that are no longer to be seen may be among them.
#[derive(Debug, Default)]
pub(super) struct Conflicts(HashMap<ObjId, BTreeMap<String, Shown>>);

/// The value of a key that is to be seen.
#[derive(Debug, PartialEq)]
struct Shown {
    put_by: ObjId,
    /// `None` for an object, which says itself what changes in it.
    scalar: Option<ScalarValue>,
}

impl Conflicts {
    /// A value as JSON; what conflicts are within is remembered.
    pub(super) fn read(
        &mut self,
        document: &Automerge,
        value: &Value<'_>,
        id: &ObjId,
        types: Types,
    ) -> Result<Json, AutomergeError> {
        if let Value::Scalar(scalar) = value {
            return Ok(scalars::to_json(scalar, types));
        }
        let whole = ReadDoc::hydrate(document, id, None)?;
        let mut within = Vec::new();
        conflicts(&whole, &mut Vec::new(), &mut within);
        for (path, key) in within {
            let mut object = id.clone();
            for prop in path {
                match document.get(&object, prop)? {
                    Some((_, child)) => object = child,
                    None => break,
                }
            }
            self.note(document, &object, &key)?;
        }
        Ok(to_json(&whole, types))
    }

    /// Remembers what a key shows, if it has more than one value.
    pub(super) fn note(
        &mut self,
        document: &Automerge,
        map: &ObjId,
        key: &str,
    ) -> Result<(), AutomergeError> {
        let is_conflict = document.get_all(map, key)?.len() > 1;
        match shown(document, map, key)?.filter(|_| is_conflict) {
            Some(shown) => {
                let keys = self.0.entry(map.clone()).or_default();
                keys.insert(key.to_owned(), shown);
            }
            None => {
                if let Some(keys) = self.0.get_mut(map) {
                    keys.remove(key);
                    if keys.is_empty() {
                        self.0.remove(map);
                    }
                }
            }
        }
        Ok(())
    }

    /// Patches for the keys that show something else than they did.
    pub(super) fn left_out(&self, document: &Automerge) -> Result<Vec<Patch>, AutomergeError> {
        let mut patches = Vec::new();
        for (map, keys) in &self.0 {
            for (key, before) in keys {
                if shown(document, map, key)?.as_ref() == Some(before) {
                    continue;
                }
                if let Some(path) = path_to(document, map)? {
                    let prop = Prop::Map(key.clone());
                    patches.push(Patch {
                        obj: map.clone(),
                        path,
                        action: PatchAction::Conflict { prop },
                    });
                }
            }
        }
        Ok(patches)
    }
}

fn shown(document: &Automerge, map: &ObjId, key: &str) -> Result<Option<Shown>, AutomergeError> {
    let there = document.get(map, key)?;
    Ok(there.map(|(value, put_by)| Shown {
        put_by,
        scalar: value.as_scalar().cloned(),
    }))
}

/// The way from the root to an object, if it is to be seen.
fn path_to(
    document: &Automerge,
    object: &ObjId,
) -> Result<Option<Vec<(ObjId, Prop)>>, AutomergeError> {
    let Some(path) = document.parents(object)?.visible_path() else {
        return Ok(None);
    };
    let children = path.iter().skip(1).map(|(child, _)| child);
    for ((parent, prop), child) in path.iter().zip(children.chain([object])) {
        let there = document.get(parent, prop.clone())?;
        if there.is_none_or(|(_, id)| id != *child) {
            return Ok(None);
        }
    }
    Ok(Some(path))
}

/// The keys with conflicts within a value: the ways to their maps, and the keys.
fn conflicts(value: &hydrate::Value, at: &mut Vec<Prop>, found: &mut Vec<(Vec<Prop>, String)>) {
    match value {
        hydrate::Value::Map(map) => {
            for (key, entry) in map.iter() {
                if entry.conflict {
                    found.push((at.clone(), key.clone()));
                }
                if !matches!(entry.value, hydrate::Value::Scalar(_)) {
                    at.push(Prop::from(key));
                    conflicts(&entry.value, at, found);
                    at.pop();
                }
            }
        }
        hydrate::Value::List(list) => {
            for (index, element) in list.iter().enumerate() {
                at.push(Prop::from(index));
                conflicts(&element.value, at, found);
                at.pop();
            }
        }
        hydrate::Value::Scalar(_) | hydrate::Value::Text(_) => {}
    }
}
