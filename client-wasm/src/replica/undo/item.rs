//! Elements of lists and texts, as they are and as they were: [`Item`].

use std::collections::VecDeque;

use automerge::{
    ActorId, AutoCommit, ChangeHash, Cursor, ObjId, ObjType, ROOT, ReadDoc, ScalarValue,
    TextEncoding, Value,
};

use super::alias::{Id, external, internal};

/// An element as it is or was.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) element: Id,
    /// Of several values written at once, the one that is seen, and the op that wrote it.
    pub(super) value: Value<'static>,
    pub(super) winner: Id,
    pub(super) position: usize,
    pub(super) width: usize,
}

impl Item {
    /// An element that nobody wrote over, in a sequence of the kind `kind`.
    pub(super) fn new(
        winner: Id,
        value: Value<'static>,
        position: usize,
        kind: ObjType,
        encoding: TextEncoding,
    ) -> Self {
        Self {
            element: winner.clone(),
            width: width(&value, kind, encoding),
            value,
            winner,
            position,
        }
    }
}

/// All elements of a sequence. An element that was overwritten is known by its own id only if `exact`, which
/// costs a string each.
pub(super) fn items(
    doc: &AutoCommit,
    object: Option<&Id>,
    heads: Option<&[ChangeHash]>,
    exact: bool,
) -> Vec<Item> {
    let at = id_of(object);
    let kind = doc.object_type(&at).unwrap_or(ObjType::List);
    let encoding = doc.text_encoding();
    let range = match heads {
        Some(heads) => doc.list_range_at(&at, .., heads),
        None => doc.list_range(&at, ..),
    };
    let mut position = 0;
    let mut items: Vec<Item> = range
        .filter_map(|item| {
            let winner = internal(&item.id())?;
            let item = Item::new(winner, item.value.into_value(), position, kind, encoding);
            position += item.width;
            Some(item)
        })
        .collect();
    if exact {
        let keys = match heads {
            Some(heads) => doc.keys_at(&at, heads),
            None => doc.keys(&at),
        };
        let keys: Vec<_> = keys.filter_map(|key| parse(&key)).collect();
        if keys.len() == items.len() {
            for (item, key) in items.iter_mut().zip(keys) {
                item.element = key;
            }
        }
    }
    items
}

/// Those elements of a text as it was that `is_wanted` accepts, `wanted` of them at most, each with up to `neighbours`
/// others on either side, in order. The rest of the text is passed over without being copied.
pub(super) fn items_around(
    doc: &AutoCommit,
    object: Option<&Id>,
    heads: &[ChangeHash],
    neighbours: usize,
    mut wanted: usize,
    is_wanted: impl Fn(&Id) -> bool,
) -> Vec<Item> {
    let encoding = doc.text_encoding();
    let mut items: Vec<Item> = Vec::new();
    let mut before = VecDeque::with_capacity(neighbours);
    let mut after = 0;
    let mut end = 0;
    for one in doc.list_range_at(id_of(object), .., heads) {
        if wanted == 0 && after == 0 {
            break;
        }
        let Some(winner) = internal(&one.id()) else {
            continue;
        };
        let hit = is_wanted(&winner);
        if !hit && after == 0 {
            if before.len() == neighbours {
                before.pop_front();
            }
            before.push_back((winner, one.value));
            continue;
        }
        if hit {
            wanted = wanted.saturating_sub(1);
        }
        after = if hit { neighbours } else { after - 1 };
        for (winner, value) in before.drain(..).chain([(winner, one.value)]) {
            let item = Item::new(winner, value.into_value(), end, ObjType::Text, encoding);
            end += item.width;
            items.push(item);
        }
    }
    items
}

pub(super) fn is_counter(value: &Value<'_>) -> bool {
    value
        .as_scalar()
        .is_some_and(|scalar| matches!(scalar, ScalarValue::Counter(_)))
}

pub(super) fn id_of(object: Option<&Id>) -> ObjId {
    object.map_or(ROOT, external)
}

pub(super) fn cursor((actor, counter): &Id) -> Option<Cursor> {
    Cursor::try_from(format!("{counter}@{actor}")).ok()
}

fn parse(key: &str) -> Option<Id> {
    let (counter, actor) = key.split_once('@')?;
    Some((ActorId::try_from(actor).ok()?, counter.parse().ok()?))
}

/// How many positions an element takes.
pub(super) fn width(value: &Value<'_>, kind: ObjType, encoding: TextEncoding) -> usize {
    if kind != ObjType::Text {
        return 1;
    }
    let text = value.as_str().unwrap_or("\u{fffc}");
    match encoding {
        TextEncoding::Utf8CodeUnit => text.len(),
        TextEncoding::Utf16CodeUnit => text.encode_utf16().count(),
        TextEncoding::UnicodeCodePoint => text.chars().count(),
        // One element each, as Automerge splits what it inserts.
        TextEncoding::GraphemeCluster => usize::from(!text.is_empty()),
    }
}
