//! A document brought to a JSON value: only what differs is written.

use std::slice;

use automerge::transaction::Transactable;
use automerge::{AutomergeError, ObjId, ObjType, Prop, ReadDoc, ScalarValue, Value, hydrate};
use serde_json::{Map, Value as Json};

use super::scalars::{self, Over};
use super::search::Search;
use super::work::{MOST_OPS, PROTO, Size, TooMuch, Work};
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
    /// It would be refused, too.
    #[error("no key may be {PROTO}")]
    ProtoKey,
    /// It comes to more than an edit may.
    #[error(transparent)]
    TooMuch(#[from] TooMuch),
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
    /// How long the smallest difference of long lists and texts may still be looked for.
    pub search: Search,
    /// What it may still do.
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
        if !matches!(over, Over::Unchanged) {
            self.has_room(1)?;
        }
        match over {
            Over::Unchanged => {}
            Over::Increment(by) => self.tx.increment(object, prop, by)?,
            Over::Scalar(scalar) => self.tx.put(object, prop, scalar)?,
            Over::Other => self.replace(object, prop, json)?,
        }
        Ok(())
    }

    fn replace(&mut self, object: &ObjId, prop: Prop, json: &Json) -> Result<(), EditError> {
        if matches!(&prop, Prop::Map(key) if key == PROTO) {
            return Err(EditError::ProtoKey);
        }
        self.may_make(slice::from_ref(json))?;
        match self.made(json) {
            hydrate::Value::Scalar(scalar) => self.tx.put(object, prop, scalar)?,
            made => {
                self.tx.batch_create_object(object, prop, &made, false)?;
            }
        }
        Ok(())
    }

    /// Inserts into a list, one behind the other. Only for the first does Automerge look for the place.
    pub(super) fn insert(
        &mut self,
        list: &ObjId,
        index: usize,
        elements: &[Json],
    ) -> Result<(), EditError> {
        self.may_make(elements)?;
        let made = elements.iter().map(|json| self.made(json));
        let made: Vec<hydrate::Value> = made.collect();
        Ok(self.tx.splice(list, index, 0, made)?)
    }

    /// Whether a change with these values is taken.
    fn may_make(&self, values: &[Json]) -> Result<(), EditError> {
        let mut ops = 0_usize;
        for json in values {
            let size = Size::of(json, self.types);
            if size.has_proto {
                return Err(EditError::ProtoKey);
            }
            ops = ops.saturating_add(size.ops());
        }
        self.has_room(ops)
    }

    fn made(&self, json: &Json) -> hydrate::Value {
        from_json(json, self.types, self.tx.text_encoding())
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
        self.has_room(gone.len())?;
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
