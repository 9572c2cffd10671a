//! Edits that others describe: JSON Patch (RFC 6902) and merge patch (RFC 7396), and writing at a path.
//!
//! An operation of a JSON Patch is carried out as what it says: `add` into an array is an insertion there, so two
//! patches to one array merge by their operations, not by a guess at what they were. What operations come to is bounded
//! by [`Work`](super::Work).

use std::slice;

use automerge::transaction::Transactable;
use automerge::{AutomergeError, ObjId, ObjType, Prop, ReadDoc, Value};
use json_patch::{Patch, PatchOperation};
use serde_json::{Map, Value as Json};

use super::update::{Edit, EditError};
use super::work::{Size, TooMuch};
use super::{MOST_LEVELS, Types, is_same, tagged};
use crate::path::{self, NoPlace, ParsePathError, Path, Place};

/// Why an edit at a path could not be made. The transaction is to be rolled back.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The path leads nowhere.
    #[error(transparent)]
    NoPlace(#[from] NoPlace),
    /// What was to be written.
    #[error(transparent)]
    Edit(#[from] EditError),
    /// Only arrays and objects can be added to.
    #[error("{at} is no object and no array")]
    NotAContainer {
        /// Where.
        at: Path,
    },
    /// The whole document can't be removed from itself.
    #[error("the root of a document can't be removed")]
    Root,
    /// An operation of a patch.
    #[error("operation {index} at {at}: {reason}")]
    Operation {
        /// Which, from 0.
        index: usize,
        /// Where it was to be carried out.
        at: Path,
        /// Why it was not.
        reason: Box<WriteError>,
    },
    /// What a `test` operation was to find is not there.
    #[error("the value at {at} is another")]
    TestFailed {
        /// Where.
        at: Path,
    },
    /// A value was to be moved into itself.
    #[error("{from} can't be moved into itself, to {at}")]
    IntoItself {
        /// The value.
        from: Path,
        /// Where it was to be put.
        at: Path,
    },
    /// A pointer of a patch.
    #[error(transparent)]
    BadPointer(#[from] ParsePathError),
    /// There would be more levels than a document may have.
    #[error("with what was to be put at {at} there would be more than {MOST_LEVELS} levels")]
    TooDeep {
        /// Where.
        at: Path,
    },
}

impl From<AutomergeError> for WriteError {
    fn from(error: AutomergeError) -> Self {
        Self::Edit(error.into())
    }
}

impl From<TooMuch> for WriteError {
    fn from(error: TooMuch) -> Self {
        Self::Edit(error.into())
    }
}

impl<T: Transactable + ReadDoc> Edit<'_, T> {
    /// Brings what is at a path to a JSON value; the last step may be a new key. The value and the path together must not
    /// have more than [`MOST_LEVELS`] levels.
    pub fn put_at(&mut self, at: &Path, json: &Json) -> Result<(), WriteError> {
        let place = at.find(self.tx, None)?;
        if let Place::In { object, prop } = &place {
            self.must_be_there_in_a_list(at.steps(), object, prop)?;
        }
        Ok(self.write(place, json)?)
    }

    /// Removes what is at a path.
    pub fn delete_at(&mut self, at: &Path) -> Result<(), WriteError> {
        self.remove(at.steps())
    }

    /// Adds to what is at a path: at the end of an array, or in an object under `key`. See [`Added`](super::Added).
    pub fn append_at(&mut self, at: &Path, key: &str, json: &Json) -> Result<(), WriteError> {
        // What is added lies one level below what it is added to.
        let below = at.steps().len() + 1;
        if below + Size::of(json, self.types).levels > MOST_LEVELS {
            return Err(WriteError::TooDeep { at: at.clone() });
        }
        match self.value(at.steps())? {
            (Value::Object(ObjType::List), list) => {
                let index = self.tx.length(&list);
                Ok(self.insert(&list, index, slice::from_ref(json))?)
            }
            (Value::Object(ObjType::Map | ObjType::Table), map) => {
                Ok(self.put(&map, Prop::Map(key.to_owned()), json)?)
            }
            (Value::Object(ObjType::Text) | Value::Scalar(_), _) => {
                Err(WriteError::NotAContainer { at: at.clone() })
            }
        }
    }

    /// Carries out a merge patch (RFC 7396) on what is at a path. The patch and the path together must not have more than
    /// [`MOST_LEVELS`] levels.
    pub fn merge_at(&mut self, at: &Path, patch: &Json) -> Result<(), WriteError> {
        match at.find(self.tx, None)? {
            Place::Root => match self.object(patch) {
                Some(entries) => self.merge_entries(&automerge::ROOT, entries),
                None => Err(EditError::RootIsAMap.into()),
            },
            Place::In { object, prop } => {
                self.must_be_there_in_a_list(at.steps(), &object, &prop)?;
                self.merge(&object, prop, patch)
            }
        }
    }

    /// A merge patch of what is at a key or position, which must be one of the list's.
    fn merge(&mut self, object: &ObjId, prop: Prop, patch: &Json) -> Result<(), WriteError> {
        let Some(entries) = self.object(patch) else {
            return Ok(self.put(object, prop, patch)?);
        };
        match self.tx.get(object, prop.clone())? {
            Some((Value::Object(ObjType::Map), map)) => self.merge_entries(&map, entries),
            // What is no object is replaced by one.
            _ => Ok(self.put(object, prop, &self.made_of_nothing(patch))?),
        }
    }

    fn merge_entries(
        &mut self,
        map: &ObjId,
        entries: &Map<String, Json>,
    ) -> Result<(), WriteError> {
        for (key, value) in entries {
            if !value.is_null() {
                self.merge(map, Prop::Map(key.clone()), value)?;
            } else if self.tx.get(map, key.as_str())?.is_some() {
                self.has_room(1)?;
                self.tx.delete(map, key.as_str())?;
            }
        }
        Ok(())
    }

    /// What a merge patch makes of a value that is no object, or of nothing. What is left of an object must not be taken
    /// for a tag.
    fn made_of_nothing(&self, patch: &Json) -> Json {
        let Some(entries) = self.object(patch) else {
            return patch.clone();
        };
        let entries = entries.iter().filter(|(_, value)| !value.is_null());
        let made = entries
            .map(|(key, value)| (key.clone(), self.made_of_nothing(value)))
            .collect();
        match self.types {
            Types::Plain => Json::Object(made),
            Types::Tagged => tagged::escaped(made),
        }
    }

    /// Carries out a JSON Patch (RFC 6902) whose paths begin at a path, within what [`Self::work`] leaves.
    pub fn patch_at(&mut self, at: &Path, patch: &Patch) -> Result<(), WriteError> {
        for (index, operation) in patch.0.iter().enumerate() {
            let failed = |at, reason| WriteError::Operation {
                index,
                at,
                reason: Box::new(reason),
            };
            let pointer = Path::parse(operation.path().as_str());
            let pointer = pointer.map_err(|error| failed(at.clone(), error.into()))?;
            let target = joined(at, &pointer);
            self.operation(at, &target, operation)
                .map_err(|reason| failed(path(&target), reason))?;
        }
        Ok(())
    }

    fn operation(
        &mut self,
        base: &Path,
        at: &[&str],
        operation: &PatchOperation,
    ) -> Result<(), WriteError> {
        self.work.walk(at.len())?;
        match operation {
            PatchOperation::Add(add) => self.add(at, &add.value),
            PatchOperation::Remove(_) => self.remove(at),
            PatchOperation::Replace(replace) => {
                self.may_write(at, &replace.value)?;
                let place = self.place(at)?;
                if let Place::In { object, prop } = &place {
                    self.there(at, object, prop)?;
                }
                Ok(self.write(place, &replace.value)?)
            }
            PatchOperation::Test(test) => {
                if is_same(&self.json(at, self.types)?, &test.value) {
                    Ok(())
                } else {
                    let at = path(at);
                    Err(WriteError::TestFailed { at })
                }
            }
            PatchOperation::Copy(copy) => {
                let from = Path::parse(copy.from.as_str())?;
                let from = joined(base, &from);
                self.work.walk(from.len())?;
                let value = self.json(&from, Types::Tagged)?;
                self.with_types(Types::Tagged, |edit| edit.add(at, &value))
            }
            PatchOperation::Move(step) => {
                let from = Path::parse(step.from.as_str())?;
                let from = joined(base, &from);
                self.work.walk(from.len())?;
                if from == at {
                    return self.value(at).map(drop);
                }
                if at.starts_with(&from) {
                    let (from, at) = (path(&from), path(at));
                    return Err(WriteError::IntoItself { from, at });
                }
                let value = self.json(&from, Types::Tagged)?;
                self.remove(&from)?;
                self.with_types(Types::Tagged, |edit| edit.add(at, &value))
            }
        }
    }

    /// The `add` of RFC 6902: into an array, or at a key whether it is there or not.
    fn add(&mut self, at: &[&str], json: &Json) -> Result<(), WriteError> {
        self.may_write(at, json)?;
        match self.place(at)? {
            Place::In {
                object,
                prop: Prop::Seq(index),
            } => self.insert(&object, index, slice::from_ref(json))?,
            place => self.write(place, json)?,
        }
        Ok(())
    }

    /// Brings what is at a place to a JSON value. A position must be one of the list's.
    fn write(&mut self, place: Place, json: &Json) -> Result<(), EditError> {
        match place {
            Place::Root => super::update(self, json),
            Place::In { object, prop } => self.put(&object, prop, json),
        }
    }

    fn remove(&mut self, at: &[impl AsRef<str>]) -> Result<(), WriteError> {
        let Place::In { object, prop } = self.place(at)? else {
            return Err(WriteError::Root);
        };
        self.there(at, &object, &prop)?;
        self.has_room(1)?;
        Ok(self.tx.delete(&object, prop)?)
    }

    /// Whether a document and a patch have room for a value at a place. To be asked before anything is made of it.
    fn may_write(&mut self, at: &[&str], json: &Json) -> Result<(), WriteError> {
        let size = Size::of(json, self.types);
        if at.len() + size.levels > MOST_LEVELS {
            return Err(WriteError::TooDeep { at: path(at) });
        }
        Ok(self.work.write(&size)?)
    }

    fn place(&mut self, at: &[impl AsRef<str>]) -> Result<Place, WriteError> {
        let mut counted = 0;
        let place = path::find(self.tx, at, None, &mut counted);
        self.work.count(counted)?;
        Ok(place?)
    }

    /// What is at a path.
    fn value(&mut self, at: &[impl AsRef<str>]) -> Result<(Value<'static>, ObjId), WriteError> {
        match self.place(at)? {
            Place::Root => Ok((Value::Object(ObjType::Map), automerge::ROOT)),
            Place::In { object, prop } => {
                let (value, id) = self.there(at, &object, &prop)?;
                Ok((value.into_owned(), id))
            }
        }
    }

    /// What is at a path, as JSON.
    fn json(&mut self, at: &[&str], types: Types) -> Result<Json, WriteError> {
        let there = self.value(at)?;
        self.read(there, types)
    }

    /// A list has no place for a value that is not put into it.
    fn must_be_there_in_a_list(
        &self,
        at: &[impl AsRef<str>],
        object: &ObjId,
        prop: &Prop,
    ) -> Result<(), WriteError> {
        match prop {
            Prop::Seq(_) => self.there(at, object, prop).map(drop),
            Prop::Map(_) => Ok(()),
        }
    }

    /// What is at a key or position, which the path has led to.
    fn there(
        &self,
        at: &[impl AsRef<str>],
        object: &ObjId,
        prop: &Prop,
    ) -> Result<(Value<'_>, ObjId), WriteError> {
        let there = self.tx.get(object, prop.clone())?;
        there.ok_or_else(|| NoPlace::Nothing { at: path(at) }.into())
    }

    fn with_types<R>(&mut self, types: Types, edit: impl FnOnce(&mut Self) -> R) -> R {
        let before = std::mem::replace(&mut self.types, types);
        let made = edit(self);
        self.types = before;
        made
    }
}

/// A path, and from there another, without copying what may be long.
fn joined<'p>(base: &'p Path, further: &'p Path) -> Vec<&'p str> {
    let steps = base.steps().iter().chain(further.steps());
    steps.map(String::as_str).collect()
}

fn path(steps: &[impl AsRef<str>]) -> Path {
    steps.iter().map(AsRef::as_ref).collect()
}
