//! What was added, found again.

use automerge::legacy::{Key, ObjectId, OpId};
use automerge::{Automerge, AutomergeError, Change, ChangeHash, Cursor, ObjId, ROOT, ReadDoc};

use crate::path::Path;

/// What [`Edit::append_at`](super::Edit::append_at) added, wherever it is.
#[derive(Debug, Clone)]
pub struct Added {
    to: ObjId,
    element: Element,
}

#[derive(Debug, Clone)]
enum Element {
    /// Under a key, by the op that put it there.
    Key(String, String),
    Position(Cursor),
}

impl Added {
    /// What a change added, of which that was all: its first op made it. `None` if it has none.
    pub fn by(document: &Automerge, change: &Change) -> Result<Option<Self>, AutomergeError> {
        let id = |OpId(counter, actor)| format!("{counter}@{actor}");
        let Some(first) = change.decode().operations.into_iter().next() else {
            return Ok(None);
        };
        let op = id(OpId(change.start_op().get(), change.actor_id().clone()));
        let to = match first.obj {
            ObjectId::Root => ROOT,
            ObjectId::Id(object) => document.import(&id(object))?.0,
        };
        let element = match first.key {
            Key::Map(key) => Element::Key(key.to_string(), op),
            Key::Seq(_) => Element::Position(Cursor::try_from(op)?),
        };
        Ok(Some(Self { to, element }))
    }

    /// Where it is now or was at a version; `None` where it is not there, or is another value.
    pub fn place(
        &self,
        document: &Automerge,
        heads: Option<&[ChangeHash]>,
    ) -> Result<Option<Path>, AutomergeError> {
        let parents = match heads {
            Some(heads) => document.parents_at(&self.to, heads),
            None => document.parents(&self.to),
        };
        let Some(parents) = parents?.visible_path() else {
            return Ok(None);
        };
        let steps = parents.into_iter().map(|(_, prop)| prop);
        let path = steps.fold(Path::root(), |path, prop| path.with(prop.to_string()));
        Ok(match &self.element {
            Element::Key(key, op) => {
                let there = match heads {
                    Some(heads) => document.get_at(&self.to, key.as_str(), heads),
                    None => document.get(&self.to, key.as_str()),
                };
                let is_it = there?.is_some_and(|(_, there)| there.to_string() == *op);
                is_it.then(|| path.with(key))
            }
            Element::Position(cursor) => {
                // Of an element that was removed it is the position of the next one.
                let index = document.get_cursor_position(&self.to, cursor, heads)?;
                let length = match heads {
                    Some(heads) => document.length_at(&self.to, heads),
                    None => document.length(&self.to),
                };
                let is_there =
                    index < length && document.get_cursor(&self.to, index, heads)? == *cursor;
                is_there.then(|| path.with(index.to_string()))
            }
        })
    }
}
