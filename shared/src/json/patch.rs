//! Edits that others describe: JSON Patch (RFC 6902) and merge patch (RFC 7396), and writing at a path.
//!
//! An operation of a JSON Patch is carried out as what it says: `add` into an array is an insertion there, so two
//! patches to one array merge by their operations, not by a guess at what they were.

use automerge::transaction::Transactable;
use automerge::{AutomergeError, ChangeHash, Cursor, ObjId, ObjType, Prop, ReadDoc, Value};
use json_patch::{Patch, PatchOperation};
use serde_json::Value as Json;

use super::update::{Edit, EditError};
use super::{Types, is_same, read};
use crate::path::{NoPlace, ParsePathError, Path, Place};

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
}

impl From<AutomergeError> for WriteError {
    fn from(error: AutomergeError) -> Self {
        Self::Edit(error.into())
    }
}

impl<T: Transactable + ReadDoc> Edit<'_, T> {
    /// Brings what is at a path to a JSON value; the last step may be a new key.
    pub fn put_at(&mut self, at: &Path, json: &Json) -> Result<(), WriteError> {
        match self.place(at)? {
            Place::Root => super::update(self, json)?,
            Place::In { object, prop } => {
                self.must_be_there_in_a_list(at, &prop)?;
                self.put(&object, prop, json)?;
            }
        }
        Ok(())
    }

    /// Removes what is at a path.
    pub fn delete_at(&mut self, at: &Path) -> Result<(), WriteError> {
        let Place::In { object, prop } = self.place(at)? else {
            return Err(WriteError::Root);
        };
        self.value(at)?;
        Ok(self.tx.delete(&object, prop)?)
    }

    /// Adds to what is at a path: at the end of an array, or in an object under `key`. See [`Added`].
    pub fn append_at(&mut self, at: &Path, key: &str, json: &Json) -> Result<(), WriteError> {
        match self.value(at)? {
            (Value::Object(ObjType::List), list) => {
                let index = self.tx.length(&list);
                Ok(self.insert(&list, index, json)?)
            }
            (Value::Object(ObjType::Map | ObjType::Table), map) => {
                Ok(self.put(&map, Prop::Map(key.to_owned()), json)?)
            }
            (Value::Object(ObjType::Text) | Value::Scalar(_), _) => {
                Err(WriteError::NotAContainer { at: at.clone() })
            }
        }
    }

    /// Carries out a merge patch (RFC 7396) on what is at a path.
    pub fn merge_at(&mut self, at: &Path, patch: &Json) -> Result<(), WriteError> {
        let Some(entries) = patch.as_object() else {
            return self.put_at(at, patch);
        };
        let object = match self.place(at)? {
            Place::Root => automerge::ROOT,
            Place::In { object, prop } => {
                self.must_be_there_in_a_list(at, &prop)?;
                let there = self.tx.get(&object, prop.clone())?;
                let Some((Value::Object(ObjType::Map), id)) = there else {
                    // What is no object is replaced by one.
                    self.put(&object, prop, &made_of_nothing(patch))?;
                    return Ok(());
                };
                id
            }
        };
        for (key, value) in entries {
            if !value.is_null() {
                self.merge_at(&at.with(key), value)?;
            } else if self.tx.get(&object, key.as_str())?.is_some() {
                self.tx.delete(&object, key.as_str())?;
            }
        }
        Ok(())
    }

    /// Carries out a JSON Patch (RFC 6902) whose paths begin at a path.
    pub fn patch_at(&mut self, at: &Path, patch: &Patch) -> Result<(), WriteError> {
        for (index, operation) in patch.0.iter().enumerate() {
            let pointer = Path::parse(operation.path().as_str());
            let target = pointer.map(|pointer| at.join(&pointer));
            let done = match &target {
                Ok(target) => self.operation(at, target, operation),
                Err(error) => Err(error.clone().into()),
            };
            done.map_err(|reason| WriteError::Operation {
                index,
                at: target.unwrap_or_else(|_| at.clone()),
                reason: Box::new(reason),
            })?;
        }
        Ok(())
    }

    fn operation(
        &mut self,
        base: &Path,
        at: &Path,
        operation: &PatchOperation,
    ) -> Result<(), WriteError> {
        match operation {
            PatchOperation::Add(add) => self.add(at, &add.value),
            PatchOperation::Remove(_) => self.delete_at(at),
            PatchOperation::Replace(replace) => {
                self.value(at)?;
                self.put_at(at, &replace.value)
            }
            PatchOperation::Test(test) => {
                let there = self.json(at, self.types)?;
                if is_same(&there, &test.value) {
                    Ok(())
                } else {
                    Err(WriteError::TestFailed { at: at.clone() })
                }
            }
            PatchOperation::Copy(copy) => {
                let from = base.join(&Path::parse(copy.from.as_str())?);
                let value = self.json(&from, Types::Tagged)?;
                self.with_types(Types::Tagged, |edit| edit.add(at, &value))
            }
            PatchOperation::Move(step) => {
                let from = base.join(&Path::parse(step.from.as_str())?);
                if from == *at {
                    return self.value(at).map(drop);
                }
                if at.is_below(&from) {
                    return Err(WriteError::IntoItself {
                        from,
                        at: at.clone(),
                    });
                }
                let value = self.json(&from, Types::Tagged)?;
                self.delete_at(&from)?;
                self.with_types(Types::Tagged, |edit| edit.add(at, &value))
            }
        }
    }

    /// The `add` of RFC 6902: into an array, or at a key whether it is there or not.
    fn add(&mut self, at: &Path, json: &Json) -> Result<(), WriteError> {
        match self.place(at)? {
            Place::In {
                object,
                prop: Prop::Seq(index),
            } => Ok(self.insert(&object, index, json)?),
            _ => self.put_at(at, json),
        }
    }

    fn place(&self, at: &Path) -> Result<Place, NoPlace> {
        at.find(self.tx, None)
    }

    /// What is at a path.
    fn value(&self, at: &Path) -> Result<(Value<'static>, ObjId), WriteError> {
        let there = at.value(self.tx, None)?;
        let (value, id) = there.ok_or_else(|| NoPlace::Nothing { at: at.clone() })?;
        Ok((value.into_owned(), id))
    }

    /// A list has no place for a value that is not put into it.
    fn must_be_there_in_a_list(&self, at: &Path, prop: &Prop) -> Result<(), WriteError> {
        match prop {
            Prop::Seq(_) => self.value(at).map(drop),
            Prop::Map(_) => Ok(()),
        }
    }

    fn json(&self, at: &Path, types: Types) -> Result<Json, WriteError> {
        Ok(read(self.tx, &self.value(at)?, None, types)?)
    }

    fn with_types<R>(&mut self, types: Types, edit: impl FnOnce(&mut Self) -> R) -> R {
        let before = std::mem::replace(&mut self.types, types);
        let made = edit(self);
        self.types = before;
        made
    }
}

/// What [`Edit::append_at`] added, wherever it is now.
#[derive(Debug, Clone)]
pub struct Added {
    /// Where it was, in the version in which it was added.
    then: Path,
    to: ObjId,
    element: Element,
}

#[derive(Debug, Clone)]
enum Element {
    Key(String),
    Position(Cursor),
}

impl Added {
    /// What was added to what was `at` a path, under `key` if that is an object. `heads` is the version that the change
    /// made which added it, and of which it was all. `None` if nothing was.
    pub fn find<D: ReadDoc>(
        document: &D,
        at: &Path,
        key: &str,
        heads: &[ChangeHash],
    ) -> Result<Option<Self>, NoPlace> {
        let (last, to, element) = match at.value(document, Some(heads))? {
            Some((Value::Object(ObjType::List), list)) => {
                let Some(index) = document.length_at(&list, heads).checked_sub(1) else {
                    return Ok(None);
                };
                let cursor = document.get_cursor(&list, index, Some(heads))?;
                (index.to_string(), list, Element::Position(cursor))
            }
            Some((Value::Object(ObjType::Map | ObjType::Table), map)) => {
                (key.to_owned(), map, Element::Key(key.to_owned()))
            }
            _ => return Ok(None),
        };
        let then = at.with(last);
        Ok(Some(Self { then, to, element }))
    }

    /// Where it was, in the version in which it was added.
    pub fn then(&self) -> &Path {
        &self.then
    }

    /// Where it is now; `None` where it is not there any more, or is another value by now.
    pub fn now<D: ReadDoc>(&self, document: &D) -> Result<Option<Path>, AutomergeError> {
        let Some(parents) = document.parents(&self.to)?.visible_path() else {
            return Ok(None);
        };
        let steps = parents.into_iter().map(|(_, prop)| prop);
        let path = steps.fold(Path::root(), |path, prop| path.with(prop.to_string()));
        Ok(match &self.element {
            Element::Key(key) => {
                let there = document.get(&self.to, key.as_str())?;
                there.map(|_| path.with(key))
            }
            Element::Position(cursor) => {
                // Of an element that was removed it is the position of the next one.
                let index = document.get_cursor_position(&self.to, cursor, None)?;
                let is_there = index < document.length(&self.to)
                    && document.get_cursor(&self.to, index, None)? == *cursor;
                is_there.then(|| path.with(index.to_string()))
            }
        })
    }
}

/// What a merge patch makes of a value that is no object, or of nothing.
fn made_of_nothing(patch: &Json) -> Json {
    let mut made = Json::Null;
    json_patch::merge(&mut made, patch);
    made
}
