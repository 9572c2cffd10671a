//! What was added, found again.

use automerge::{AutomergeError, ChangeHash, Cursor, ObjId, ObjType, ReadDoc, Value};

use crate::path::{NoPlace, Path};

/// What [`Edit::append_at`](super::Edit::append_at) added, wherever it is now.
#[derive(Debug, Clone)]
pub struct Added {
    /// Where it was, in the version in which it was added.
    then: Path,
    to: ObjId,
    element: Element,
}

#[derive(Debug, Clone)]
enum Element {
    /// Under a key, by what was put there: an object, or the op of a scalar.
    Key(String, ObjId),
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
                let Some((_, value)) = document.get_at(&map, key, heads)? else {
                    return Ok(None);
                };
                let element = Element::Key(key.to_owned(), value);
                (key.to_owned(), map, element)
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
            Element::Key(key, value) => {
                let there = document.get(&self.to, key.as_str())?;
                let is_it = there.is_some_and(|(_, now)| now == *value);
                is_it.then(|| path.with(key))
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
