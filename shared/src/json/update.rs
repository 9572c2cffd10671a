//! A document brought to a JSON value: only what differs is written.

use std::time::Instant;

use automerge::transaction::Transactable;
use automerge::{AutomergeError, ObjId, ObjType, Prop, ReadDoc, ScalarValue, Value, hydrate};
use serde_json::{Map, Value as Json};

use super::scalars::{self, Over};
use super::{Types, from_json, lists, tagged, texts, to_json};

/// Why an edit could not be made. The transaction is to be rolled back.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// Automerge refused it.
    #[error(transparent)]
    Automerge(Box<AutomergeError>),
    /// A document is a map.
    #[error("the root of a document is an object")]
    RootIsAMap,
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

/// Brings what is at a key or position to a JSON value. A position must be one of the list's; a key may be new.
pub fn put<T: Transactable + ReadDoc>(
    edit: &mut Edit<'_, T>,
    object: &ObjId,
    prop: Prop,
    json: &Json,
) -> Result<(), EditError> {
    edit.put(object, prop, json)
}

/// Inserts into a list.
pub fn insert<T: Transactable + ReadDoc>(
    edit: &mut Edit<'_, T>,
    list: &ObjId,
    index: usize,
    json: &Json,
) -> Result<(), EditError> {
    edit.insert(list, index, json)
}

/// Inserts at a list's end; gives the position.
pub fn append<T: Transactable + ReadDoc>(
    edit: &mut Edit<'_, T>,
    list: &ObjId,
    json: &Json,
) -> Result<usize, EditError> {
    let index = edit.tx.length(list);
    edit.insert(list, index, json)?;
    Ok(index)
}

/// Removes what is at a key or position.
pub fn delete<T: Transactable + ReadDoc>(
    edit: &mut Edit<'_, T>,
    object: &ObjId,
    prop: Prop,
) -> Result<(), EditError> {
    Ok(edit.tx.delete(object, prop)?)
}

impl<T: Transactable + ReadDoc> Edit<'_, T> {
    /// The entries, if the JSON says a map.
    fn object<'j>(&self, json: &'j Json) -> Option<&'j Map<String, Json>> {
        match (self.types, tagged::read(json)) {
            (Types::Tagged, Some(tagged::Tagged::Map(object))) => Some(object),
            (Types::Tagged, Some(tagged::Tagged::Scalar(_))) => None,
            _ => json.as_object(),
        }
    }

    pub(super) fn put(&mut self, object: &ObjId, prop: Prop, json: &Json) -> Result<(), EditError> {
        let there = self.tx.get(object, prop.clone())?;
        match there {
            Some((Value::Object(ObjType::Map), id)) if self.object(json).is_some() => {
                let entries = self.object(json);
                entries.map_or(Ok(()), |entries| self.map(&id, entries))
            }
            Some((Value::Object(ObjType::List), id)) if json.is_array() => {
                let elements = json.as_array().map_or(&[][..], Vec::as_slice);
                lists::update(self, &id, elements)
            }
            Some((Value::Object(ObjType::Text), id)) if json.is_string() => {
                let to = json.as_str().unwrap_or_default();
                let from = self.tx.text(&id)?;
                if from != to && texts::is_token(&from) && texts::is_token(to) {
                    return self.replace(object, prop, json);
                }
                texts::update(self, &id, &from, to)
            }
            Some((Value::Scalar(scalar), _)) => {
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
        match self.new_value(json) {
            hydrate::Value::Scalar(scalar) => self.tx.put(object, prop, scalar)?,
            made => {
                self.tx.batch_create_object(object, prop, &made, false)?;
            }
        }
        Ok(())
    }

    pub(super) fn insert(
        &mut self,
        list: &ObjId,
        index: usize,
        json: &Json,
    ) -> Result<(), EditError> {
        match self.new_value(json) {
            hydrate::Value::Scalar(scalar) => self.tx.insert(list, index, scalar)?,
            made => {
                self.tx.batch_create_object(list, index, &made, true)?;
            }
        }
        Ok(())
    }

    fn new_value(&self, json: &Json) -> hydrate::Value {
        from_json(json, self.types, self.tx.text_encoding())
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

/// What is at a place, as JSON to be compared with.
pub(super) fn json_of<T: ReadDoc>(tx: &T, value: &Value<'_>, id: &ObjId, types: Types) -> Json {
    match value {
        Value::Scalar(scalar) => scalars::to_json(scalar, types),
        // An object that was just listed is there.
        Value::Object(_) => tx
            .hydrate(id, None)
            .map_or(Json::Null, |value| to_json(&value, types)),
    }
}
