//! What two replicas of a document must agree on, as values that can be compared.

use std::fmt::Write as _;

use automerge::{
    Automerge, AutomergeError, ObjId, ObjType, ROOT, ReadDoc as _, ScalarValue, Value,
};
use concord_shared::path::escaped;

/// Characters of a value that a difference shows.
const SHOWN_CHARACTERS: usize = 60;

/// All that can be read of a document: every value with its op id and those that it is in conflict with, every text
/// with its marks. Two replicas with equal contents show the same to everybody, and edits mean the same in both.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Content(Vec<Entry>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    /// A JSON Pointer (RFC 6901).
    path: String,
    value: String,
}

impl Content {
    /// Of a document. Walks without recursion: a hostile document can be nested as deep as it likes.
    pub fn of(document: &Automerge) -> Result<Self, AutomergeError> {
        let mut content = Self::default();
        let mut todo = vec![(String::new(), ROOT, ObjType::Map)];
        while let Some((path, object, kind)) = todo.pop() {
            content.object(document, &path, &object, kind, &mut todo)?;
        }
        Ok(content)
    }

    fn object(
        &mut self,
        document: &Automerge,
        path: &str,
        object: &ObjId,
        kind: ObjType,
        todo: &mut Vec<(String, ObjId, ObjType)>,
    ) -> Result<(), AutomergeError> {
        let mut at = |path: String, all: Vec<(Value<'_>, ObjId)>| {
            let mut value = String::new();
            for (one, id) in all {
                if let Value::Object(kind) = one {
                    todo.push((path.clone(), id.clone(), kind));
                }
                let _infallible = write!(value, " {}@{id}", shown(&one));
            }
            self.0.push(Entry { path, value });
        };
        match kind {
            ObjType::Map | ObjType::Table => {
                for item in document.map_range(object, ..) {
                    let path = format!("{path}/{}", escaped(&item.key));
                    if item.conflict {
                        at(path, document.get_all(object, item.key.as_ref())?);
                    } else {
                        at(path, vec![(item.value.clone().into_value(), item.id())]);
                    }
                }
            }
            ObjType::List | ObjType::Text => {
                for item in document.list_range(object, ..) {
                    let value = item.value.clone().into_value();
                    // A text's letters are told by the text: an op id for each would be a hundred times as much.
                    if kind == ObjType::Text && !item.conflict && value.is_scalar() {
                        continue;
                    }
                    let path = format!("{path}/{}", item.index);
                    if item.conflict {
                        at(path, document.get_all(object, item.index)?);
                    } else {
                        at(path, vec![(value, item.id())]);
                    }
                }
            }
        }
        if kind == ObjType::Text {
            let mut value = document.text(object)?;
            for mark in document.marks(object)? {
                let (start, end, name) = (mark.start, mark.end, &mark.name);
                let shown = scalar(&mark.value);
                let _infallible = write!(value, "\n{start}..{end} {name} {shown}");
            }
            self.0.push(Entry {
                path: path.to_owned(),
                value,
            });
        }
        Ok(())
    }

    /// Where and how two contents first differ, for people.
    pub fn difference(&self, other: &Self) -> Option<String> {
        let mut entries = self.0.iter().zip(&other.0);
        if let Some((one, other)) = entries.find(|(one, other)| one != other) {
            if one.path != other.path {
                let (one, other) = (&one.path, &other.path);
                return Some(format!("one has {one:?} where the other has {other:?}"));
            }
            let (first, second) = cut_to_difference(&one.value, &other.value);
            return Some(format!("at {:?}: {first:?}, and {second:?}", one.path));
        }
        let longer = self.0.get(other.0.len()).or(other.0.get(self.0.len()))?;
        Some(format!("only one has {:?}", longer.path))
    }
}

fn shown(value: &Value<'_>) -> String {
    match value {
        Value::Object(kind) => kind.to_string(),
        Value::Scalar(value) => scalar(value),
    }
}

/// Floats to the bit: no two NaN are equal otherwise.
fn scalar(value: &ScalarValue) -> String {
    match value {
        ScalarValue::F64(float) => format!("{float} ({:016x})", float.to_bits()),
        other => format!("{other:?}"),
    }
}

/// A few characters of each, from shortly before they differ on.
fn cut_to_difference(one: &str, other: &str) -> (String, String) {
    let pairs = one.chars().zip(other.chars());
    let same = pairs.take_while(|(one, other)| one == other).count();
    let from = same.saturating_sub(SHOWN_CHARACTERS / 3);
    let cut = |text: &str| text.chars().skip(from).take(SHOWN_CHARACTERS).collect();
    (cut(one), cut(other))
}
