//! A document brought to a JSON value: only what differs is written.

use std::time::Instant;

use automerge::transaction::Transactable;
use automerge::{AutomergeError, ObjId, ObjType, Prop, ReadDoc, ScalarValue, Value, hydrate};
use serde_json::{Map, Value as Json};

use super::scalars::{self, Over};
use super::work::{MOST_OPS, Size, Work};
use super::{Types, from_json, lists, tagged, texts};

/// Why an edit could not be made. The transaction is to be rolled back.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// Automerge refused it.
    #[error(transparent)]
    Automerge(Box<AutomergeError>),
    /// A document is a map.
    #[error("the root of a document is an object")]
    RootIsAMap,
    /// The change would be refused.
    #[error("a change has at most {MOST_OPS} ops; each letter of a text is one")]
    TooManyOps,
}

impl From<AutomergeError> for EditError {
    fn from(error: AutomergeError) -> Self {
        Self::Automerge(Box::new(error))
    }
}

/// A transaction that is being filled.
#[derive(Debug)]
pub struct Edit<'a, T> {
    /// The transaction. What it reads is the version that the author of the JSON saw.
    pub tx: &'a mut T,
    /// How the JSON is to be read.
    pub types: Types,
    /// Until then the smallest difference of long lists and texts is looked for; after that a larger one is
    /// taken. What comes of it is the same value.
    pub deadline: Option<Instant>,
    /// What patches may still do.
    pub work: Work,
}

/// Brings the whole document to a JSON object.
pub fn update<T: Transactable + ReadDoc>(
    edit: &mut Edit<'_, T>,
    json: &Json,
) -> Result<(), EditError> {
    let Some(object) = edit.object(json) else {
        return Err(EditError::RootIsAMap);
    };
    edit.map(&automerge::ROOT, object)
}

impl<T: Transactable + ReadDoc> Edit<'_, T> {
    /// The entries, if the JSON says a map.
    pub(super) fn object<'j>(&self, json: &'j Json) -> Option<&'j Map<String, Json>> {
        tagged::object(json, self.types)
    }

    /// Brings what is at a key or position to a JSON value. A position must be one of the list's; a key may be new.
    pub(super) fn put(&mut self, object: &ObjId, prop: Prop, json: &Json) -> Result<(), EditError> {
        match (self.tx.get(object, prop.clone())?, json) {
            (Some((Value::Object(ObjType::Map), id)), _) => match self.object(json) {
                Some(entries) => self.map(&id, entries),
                None => self.replace(object, prop, json),
            },
            (Some((Value::Object(ObjType::List), id)), Json::Array(elements)) => {
                lists::update(self, &id, elements)
            }
            (Some((Value::Object(ObjType::Text), id)), Json::String(to)) => {
                let from = self.tx.text(&id)?;
                if from != *to && texts::is_token(&from) && texts::is_token(to) {
                    return self.replace(object, prop, json);
                }
                texts::update(self, &id, &from, to)
            }
            (Some((Value::Scalar(scalar), _)), _) => {
                let scalar = scalar.into_owned();
                self.over_scalar(object, prop, &scalar, json)
            }
            _ => self.replace(object, prop, json),
        }
    }

    fn over_scalar(
        &mut self,
        object: &ObjId,
        prop: Prop,
        scalar: &ScalarValue,
        json: &Json,
    ) -> Result<(), EditError> {
        let over = match self.types {
            Types::Plain => scalars::over(scalar, json),
            Types::Tagged => over_tagged(scalar, json),
        };
        match over {
            Over::Unchanged => {}
            Over::Increment(by) => self.tx.increment(object, prop, by)?,
            Over::Scalar(scalar) => self.tx.put(object, prop, scalar)?,
            Over::Other => self.replace(object, prop, json)?,
        }
        Ok(())
    }

    fn replace(&mut self, object: &ObjId, prop: Prop, json: &Json) -> Result<(), EditError> {
        match self.new_value(json)? {
            hydrate::Value::Scalar(scalar) => self.tx.put(object, prop, scalar)?,
            made => {
                self.tx.batch_create_object(object, prop, &made, false)?;
            }
        }
        Ok(())
    }

    /// Inserts into a list.
    pub(super) fn insert(
        &mut self,
        list: &ObjId,
        index: usize,
        json: &Json,
    ) -> Result<(), EditError> {
        match self.new_value(json)? {
            hydrate::Value::Scalar(scalar) => self.tx.insert(list, index, scalar)?,
            made => {
                self.tx.batch_create_object(list, index, &made, true)?;
            }
        }
        Ok(())
    }

    fn new_value(&self, json: &Json) -> Result<hydrate::Value, EditError> {
        self.has_room(Size::of(json, self.types).ops())?;
        Ok(from_json(json, self.types, self.tx.text_encoding()))
    }

    /// Whether so many ops more make a change that is taken. Asked before they are made: an op takes a microsecond or two,
    /// and several to be undone.
    pub(super) fn has_room(&self, ops: usize) -> Result<(), EditError> {
        if self.tx.pending_ops().saturating_add(ops) > MOST_OPS {
            return Err(EditError::TooManyOps);
        }
        Ok(())
    }

    fn map(&mut self, map: &ObjId, entries: &Map<String, Json>) -> Result<(), EditError> {
        let gone: Vec<String> = self
            .tx
            .keys(map)
            .filter(|key| !entries.contains_key(key))
            .collect();
        for key in gone {
            self.tx.delete(map, key)?;
        }
        for (key, json) in entries {
            self.put(map, Prop::Map(key.clone()), json)?;
        }
        Ok(())
    }
}

/// As [`scalars::over`], where the JSON names its type: another type is another value.
fn over_tagged(scalar: &ScalarValue, json: &Json) -> Over {
    if super::is_same(&scalars::to_json(scalar, Types::Tagged), json) {
        return Over::Unchanged;
    }
    match (scalar, tagged::read(json)) {
        (ScalarValue::Counter(counter), Some(tagged::Tagged::Scalar(ScalarValue::Counter(to)))) => {
            let by = i64::from(&to).checked_sub(i64::from(counter));
            by.map_or(Over::Other, Over::Increment)
        }
        _ => Over::Other,
    }
}
