//! What one patch may cost.
//!
//! A body's bounds say nothing of a JSON Patch: its operations make values of each other. A `copy` into what it copies
//! doubles the depth or the size each time, and reads something large for a few bytes. So what is read, written and gone
//! through is counted, and refused before it is built. Nor does a body say what it takes to remove what is not in it.

use std::time::{Duration, Instant};

use automerge::transaction::Transactable;
use automerge::{ObjId, ObjType, ReadDoc, Value};
use serde_json::{Map, Value as Json};

use super::update::Edit;
use super::{Types, WriteError, scalars, tagged};
use crate::limits::OPS_PER_CHANGE;

/// Values that a patch may write, and as many that it may read. A body has no more; so a patch is never refused for
/// what it brings itself, or for tests that succeed.
pub const MOST_VALUES: usize = 250_000;

/// Bytes of keys and strings that a patch may write, and as many that it may read; as [`MOST_VALUES`].
pub const MOST_BYTES: usize = 8 << 20;

/// Ops of one edit: a change with more is refused wherever it comes from. A letter of a text is one.
pub(super) const MOST_OPS: usize = OPS_PER_CHANGE;

/// Steps of paths that a patch may walk, all operations together. Each looks a key up, in 1 to 2 µs. It is eight for
/// each of the most operations that a body has room for.
pub(super) const MOST_WALKED: usize = 500_000;

/// Elements of arrays that a patch may go through to find positions in them. Automerge counts all of an array's elements to
/// say how many they are, in 3 to 7 ns each.
pub(super) const MOST_COUNTED: usize = 300_000_000;

/// How long an edit may take. What comes to more without coming to more than is counted goes through elements that are not
/// there any more, which nobody can count: Automerge looks at all of them that lie behind where it makes a new one.
const MOST_TIME: Duration = Duration::from_secs(30);

/// An edit comes to more than one may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TooMuch {
    /// Values that are written.
    #[error("a patch writes at most {MOST_VALUES} values")]
    Written,
    /// Bytes that are written.
    #[error("a patch writes at most {MOST_BYTES} bytes of keys and strings")]
    BytesWritten,
    /// Values that are copied, moved or tested.
    #[error("a patch copies, moves and tests at most {MOST_VALUES} values")]
    Read,
    /// Bytes that are copied, moved or tested.
    #[error("a patch copies, moves and tests at most {MOST_BYTES} bytes of keys and strings")]
    BytesRead,
    /// Paths of operations.
    #[error("the paths of a patch have at most {MOST_WALKED} steps in all")]
    Walked,
    /// Elements before positions.
    #[error("the positions of a patch are too many in too large arrays; it takes less time by PUT")]
    Counted,
    /// Seconds.
    #[error("what is to be written would take more than {} s", MOST_TIME.as_secs())]
    Time,
}

/// What an edit may still do; most of it is a patch's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Work {
    written: usize,
    bytes_written: usize,
    read: usize,
    bytes_read: usize,
    walked: usize,
    counted: usize,
    until: Instant,
}

impl Default for Work {
    /// All that one request may.
    fn default() -> Self {
        Self {
            written: MOST_VALUES,
            bytes_written: MOST_BYTES,
            read: MOST_VALUES,
            bytes_read: MOST_BYTES,
            walked: MOST_WALKED,
            counted: MOST_COUNTED,
            until: Instant::now() + MOST_TIME,
        }
    }
}

impl Work {
    /// A value is about to be written.
    pub(super) fn write(&mut self, size: &Size) -> Result<(), TooMuch> {
        take(&mut self.written, size.values, TooMuch::Written)?;
        take(&mut self.bytes_written, size.bytes, TooMuch::BytesWritten)
    }

    /// A path is about to be walked.
    pub(super) fn walk(&mut self, steps: usize) -> Result<(), TooMuch> {
        self.go_on()?;
        take(&mut self.walked, steps, TooMuch::Walked)
    }

    /// Arrays with so many elements were gone through to find a place.
    pub(super) fn count(&mut self, elements: usize) -> Result<(), TooMuch> {
        take(&mut self.counted, elements, TooMuch::Counted)
    }

    /// A step of many is about to be carried out.
    pub(super) fn go_on(&self) -> Result<(), TooMuch> {
        if Instant::now() > self.until {
            return Err(TooMuch::Time);
        }
        Ok(())
    }

    /// One value more was found, without what is in it, with so many bytes.
    fn read(&mut self, bytes: usize) -> Result<(), TooMuch> {
        take(&mut self.read, 1, TooMuch::Read)?;
        self.read_bytes(bytes)
    }

    fn read_bytes(&mut self, bytes: usize) -> Result<(), TooMuch> {
        take(&mut self.bytes_read, bytes, TooMuch::BytesRead)
    }
}

fn take(left: &mut usize, much: usize, error: TooMuch) -> Result<(), TooMuch> {
    *left = left.checked_sub(much).ok_or(error)?;
    Ok(())
}

impl<T: Transactable + ReadDoc> Edit<'_, T> {
    /// As [`read`](super::read), as far as the work allows. What it reads is no deeper than a document may be.
    pub(super) fn read(
        &mut self,
        (value, id): (Value<'_>, ObjId),
        types: Types,
    ) -> Result<Json, WriteError> {
        read_within(self.tx, &mut self.work, (value, id), types)
    }
}

fn read_within<D: ReadDoc>(
    document: &D,
    work: &mut Work,
    (value, id): (Value<'_>, ObjId),
    types: Types,
) -> Result<Json, WriteError> {
    let kind = match value {
        Value::Scalar(scalar) => {
            let json = scalars::to_json(&scalar, types);
            work.read(bytes(&json))?;
            return Ok(json);
        }
        Value::Object(kind) => kind,
    };
    work.read(0)?;
    match kind {
        ObjType::Text => {
            // However it is counted, of that there are no more than bytes.
            let length = document.length(&id);
            work.read_bytes(length)?;
            let text = document.text(&id)?;
            work.read_bytes(text.len().saturating_sub(length))?;
            Ok(Json::String(text))
        }
        ObjType::List => {
            let elements = document.list_range(&id, ..).map(|element| {
                let id = element.id();
                let found = (Value::from(element.value), id);
                read_within(document, work, found, types)
            });
            Ok(Json::Array(elements.collect::<Result<_, _>>()?))
        }
        ObjType::Map | ObjType::Table => {
            let mut object = Map::new();
            for entry in document.map_range(&id, ..) {
                work.read_bytes(entry.key.len())?;
                let id = entry.id();
                let found = (Value::from(entry.value), id);
                let json = read_within(document, work, found, types)?;
                object.insert(entry.key.into_owned(), json);
            }
            Ok(match types {
                Types::Plain => Json::Object(object),
                Types::Tagged => tagged::escaped(object),
            })
        }
    }
}

/// Of strings; a scalar's tag is not counted.
fn bytes(json: &Json) -> usize {
    match json {
        Json::String(text) => text.len(),
        Json::Object(entries) => entries.values().map(bytes).sum(),
        _ => 0,
    }
}

/// The key that JavaScript takes for something else: changes with it are refused, wherever they come from.
pub(super) const PROTO: &str = "__proto__";

/// How large a value is.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Size {
    /// Arrays and objects within each other.
    pub(super) levels: usize,
    /// All that it holds, and itself.
    values: usize,
    /// Of keys and strings.
    bytes: usize,
    /// Letters of texts: each is an op.
    letters: usize,
    /// Whether it has a key that no document may have.
    pub(super) has_proto: bool,
}

impl Size {
    /// Of what a JSON value becomes: tags are no levels. The JSON must not be deeper than a body may be, or what was read.
    pub(super) fn of(json: &Json, types: Types) -> Self {
        let object = tagged::object(json, types);
        let mut size = Self {
            values: 1,
            ..Self::default()
        };
        if let Some(object) = object {
            size.levels = 1;
            for (key, value) in object {
                size.bytes += key.len();
                size.has_proto |= key == PROTO;
                size.hold(&Self::of(value, types));
            }
        } else if let Json::Array(elements) = json {
            size.levels = 1;
            for element in elements {
                size.hold(&Self::of(element, types));
            }
        } else {
            size.bytes = bytes(json);
            size.letters = json.as_str().map_or(0, |text| text.chars().count());
        }
        size
    }

    /// That make it.
    pub(super) fn ops(&self) -> usize {
        self.values + self.letters
    }

    fn hold(&mut self, inner: &Self) {
        self.levels = self.levels.max(inner.levels + 1);
        self.values += inner.values;
        self.bytes += inner.bytes;
        self.letters += inner.letters;
        self.has_proto |= inner.has_proto;
    }
}
