//! Single edits of a document, every kind that Automerge's API has.
//!
//! An edit that is not possible where it is tried is refused by Automerge and left out. Not among
//! them are `put` and `increment` on a text, which would overwrite a character in place or add to it:
//! nobody does that, and Automerge 0.12 panics on some of what comes of it.

use automerge::marks::{ExpandMark, Mark};
use automerge::transaction::Transactable;
use automerge::{AutomergeError, ObjId, ObjType, ScalarValue};

use super::honest::any_object;
use super::source::Source;

const KEYS: [&str; 7] = [
    "a",
    "b",
    "c",
    "",
    "ключ",
    "e\u{301}𝄞",
    "a long key, of more than 16 bytes",
];
const NAMES: [&str; 3] = ["bold", "", "комментарий"];
const TEXTS: [&str; 9] = [
    "a",
    "hello",
    "",
    "\n",
    "é",
    "𝄞",
    "👩‍👩‍👧",
    "e\u{301}",
    "много слов 𝄞 here",
];
const EXPANDS: [ExpandMark; 4] = [
    ExpandMark::None,
    ExpandMark::Before,
    ExpandMark::After,
    ExpandMark::Both,
];

/// A scalar of any type that the API can write.
pub fn scalar(source: &mut Source<'_>) -> ScalarValue {
    match source.below(16) {
        0 => ScalarValue::Int(source.below(100) as i64),
        1 => ScalarValue::Int(source.pick(&[i64::MAX, i64::MIN, -1, 63, 64, -64, -65])),
        2 => ScalarValue::Uint(source.pick(&[0, 127, 128, u64::MAX, 1 << 63])),
        3 => ScalarValue::F64(source.pick(&[0.5, -0.0, f64::NAN, f64::INFINITY, f64::MIN])),
        4 => ScalarValue::Timestamp(source.pick(&[0, i64::MIN, i64::MAX, 1_700_000_000_000])),
        5 => ScalarValue::Bytes(vec![source.below(256) as u8; source.below(40)]),
        6 => ScalarValue::Null,
        7 => ScalarValue::Boolean(false),
        8 => ScalarValue::Boolean(true),
        9 => ScalarValue::Str("".into()),
        10 => ScalarValue::Bytes(vec![7; source.pick(&[0, 1000, 5000])]),
        11 => ScalarValue::Str("long ".repeat(source.below(200)).into()),
        12 | 13 => ScalarValue::counter(source.pick(&[0, 1, -5, 1 << 40])),
        _ => ScalarValue::Str(source.pick(&TEXTS).into()),
    }
}

/// Makes one edit, or a few that belong together.
pub fn edit<D: Transactable>(
    document: &mut D,
    objects: &mut Vec<(ObjId, ObjType)>,
    source: &mut Source<'_>,
) {
    let (object, _) = any_object(objects, source);
    let _ = edit_object(document, &object, objects, source);
}

/// As [`edit`], in this object, and says why it was not possible.
pub fn edit_object<D: Transactable>(
    document: &mut D,
    object: &ObjId,
    objects: &mut Vec<(ObjId, ObjType)>,
    source: &mut Source<'_>,
) -> Result<(), AutomergeError> {
    match document.object_type(object)? {
        ObjType::Map | ObjType::Table => map(document, object, objects, source),
        ObjType::List => list(document, object, objects, source),
        ObjType::Text => text(document, object, objects, source),
    }
}

fn kind(source: &mut Source<'_>) -> ObjType {
    source.pick(&[ObjType::Text, ObjType::Map, ObjType::List])
}

/// Some edits in a new object at once, so that changes make, fill and perhaps delete it.
fn made<D: Transactable>(
    document: &mut D,
    made: (ObjId, ObjType),
    objects: &mut Vec<(ObjId, ObjType)>,
    source: &mut Source<'_>,
) {
    let object = made.0.clone();
    objects.push(made);
    for _ in 0..source.below(3) {
        let _ = edit_object(document, &object, objects, source);
    }
}

fn map<D: Transactable>(
    document: &mut D,
    object: &ObjId,
    objects: &mut Vec<(ObjId, ObjType)>,
    source: &mut Source<'_>,
) -> Result<(), AutomergeError> {
    let key = source.pick(&KEYS);
    match source.below(10) {
        0..=2 => document.put(object, key, scalar(source)),
        3 | 4 => {
            let kind = kind(source);
            let new = document.put_object(object, key, kind)?;
            made(document, (new, kind), objects, source);
            Ok(())
        }
        5 => document.delete(object, key),
        6 => document.put(object, key, ScalarValue::counter(source.below(9) as i64)),
        7 | 8 => {
            let by = source.pick(&[1, -1, 1000, 1 << 40, 0]);
            document.increment(object, key, by)
        }
        _ => {
            // Several ops on one key.
            document.put(object, key, scalar(source))?;
            document.put(object, key, scalar(source))?;
            if source.chance(2) {
                document.delete(object, key)?;
            }
            Ok(())
        }
    }
}

fn list<D: Transactable>(
    document: &mut D,
    object: &ObjId,
    objects: &mut Vec<(ObjId, ObjType)>,
    source: &mut Source<'_>,
) -> Result<(), AutomergeError> {
    let length = document.length(object);
    let at = source.below(length + 1);
    match source.below(11) {
        0..=2 => document.insert(object, at, scalar(source)),
        3 => document.put(object, at, scalar(source)),
        4 => document.delete(object, at),
        5 => {
            let kind = kind(source);
            let new = document.insert_object(object, at, kind)?;
            made(document, (new, kind), objects, source);
            Ok(())
        }
        6 => {
            let kind = kind(source);
            let new = document.put_object(object, at, kind)?;
            made(document, (new, kind), objects, source);
            Ok(())
        }
        7 => {
            let delete = source.below(length - at + 1) as isize;
            let values: Vec<_> = (0..source.below(5)).map(|_| scalar(source)).collect();
            document.splice(object, at, delete, values)
        }
        8 => document.put(object, at, ScalarValue::counter(5)),
        _ => document.increment(object, at, source.pick(&[1, -3, 7])),
    }
}

fn text<D: Transactable>(
    document: &mut D,
    object: &ObjId,
    objects: &mut Vec<(ObjId, ObjType)>,
    source: &mut Source<'_>,
) -> Result<(), AutomergeError> {
    let length = document.length(object);
    let at = source.below(length + 1);
    let rest = length - at;
    match source.below(19) {
        0..=5 => document.splice_text(object, at, 0, source.pick(&TEXTS)),
        6 => {
            let delete = source.below(rest.min(4) + 1) as isize;
            document.splice_text(object, at, delete, source.pick(&TEXTS))
        }
        7 => {
            let delete = source.below(rest.min(4) + 1) as isize;
            document.splice_text(object, at, delete, "")
        }
        8..=10 => {
            let end = at + source.below(rest + 1);
            let name = source.pick(&NAMES).to_owned();
            let mark = Mark::new(name, scalar(source), at, end);
            document.mark(object, mark, source.pick(&EXPANDS))
        }
        11 => {
            let end = at + source.below(rest + 1);
            let expand = source.pick(&EXPANDS);
            document.unmark(object, source.pick(&NAMES), at, end, expand)
        }
        12 => {
            let block = document.split_block(object, at)?;
            made(document, (block, ObjType::Map), objects, source);
            Ok(())
        }
        13 => document.join_block(object, at),
        14 => {
            let block = document.replace_block(object, at)?;
            objects.push((block, ObjType::Map));
            Ok(())
        }
        15 => document.insert(object, at, scalar(source)),
        16 => {
            let kind = kind(source);
            let new = document.insert_object(object, at, kind)?;
            made(document, (new, kind), objects, source);
            Ok(())
        }
        17 => document.delete(object, at),
        _ => document.update_text(object, source.pick(&TEXTS)),
    }
}
