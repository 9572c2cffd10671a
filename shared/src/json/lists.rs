//! The difference of two lists.
//!
//! Elements that are objects with an `id` (or `_id`, or `key`) that none of their list shares are the same
//! element wherever they stand: what changed in one is written into it. Automerge does not move elements: one that
//! changed its place is removed here and made there. Other elements are matched by what they are, in order; what is left between
//! two matches is paired by position.

use std::collections::{HashMap, HashSet};

use automerge::transaction::Transactable;
use automerge::{ObjId, Prop, ReadDoc};
use serde_json::Value as Json;
use similar::{Algorithm, DiffOp, capture_diff_slices_deadline};

use super::read;
use super::update::{Edit, EditError};

/// What names an element within its list, the first that names all of them.
const KEYS: [&str; 3] = ["id", "_id", "key"];

pub(super) fn update<T: Transactable + ReadDoc>(
    edit: &mut Edit<'_, T>,
    list: &ObjId,
    to: &[Json],
) -> Result<(), EditError> {
    let elements = edit.tx.values(list);
    let from = elements.map(|found| read(edit.tx, &found, None, edit.types));
    let from = from.collect::<Result<Vec<Json>, _>>()?;
    let key = KEYS
        .into_iter()
        .find(|key| names_all(&from, key) && names_all(to, key));
    // Numbers for what is the same: they are quick to compare.
    let mut numbers = HashMap::new();
    let mut number = |json: &Json| {
        let name = key.and_then(|key| json.get(key)).unwrap_or(json);
        let next = numbers.len();
        *numbers.entry(canonical(name)).or_insert(next)
    };
    let from_numbers: Vec<usize> = from.iter().map(&mut number).collect();
    let to_numbers: Vec<usize> = to.iter().map(&mut number).collect();
    let ops =
        capture_diff_slices_deadline(Algorithm::Myers, &from_numbers, &to_numbers, edit.deadline);
    // From the end, so that positions before an op stay what they were.
    for op in ops.into_iter().rev() {
        match op {
            DiffOp::Equal {
                old_index,
                new_index,
                len,
            } => {
                if key.is_some() {
                    edit.put_all(list, old_index, to, new_index, len)?;
                }
            }
            DiffOp::Delete {
                old_index, old_len, ..
            } => edit.remove(list, old_index, old_len)?,
            DiffOp::Insert {
                old_index,
                new_index,
                new_len,
            } => {
                edit.insert_all(list, old_index, to, new_index, new_len)?;
            }
            DiffOp::Replace {
                old_index,
                old_len,
                new_index,
                new_len,
            } => {
                // Those that have names are others.
                let paired = if key.is_some() {
                    0
                } else {
                    old_len.min(new_len)
                };
                let (old_rest, new_rest) = (old_index + paired, new_index + paired);
                edit.remove(list, old_rest, old_len - paired)?;
                edit.insert_all(list, old_rest, to, new_rest, new_len - paired)?;
                edit.put_all(list, old_index, to, new_index, paired)?;
            }
        }
    }
    Ok(())
}

/// Whether all have a string or number there, each another.
fn names_all(elements: &[Json], key: &str) -> bool {
    let mut seen = HashSet::new();
    elements.iter().all(|element| match element.get(key) {
        Some(name @ (Json::String(_) | Json::Number(_))) => seen.insert(canonical(name)),
        _ => false,
    })
}

/// The same text for values that are the same by [`super::is_same`].
fn canonical(json: &Json) -> String {
    match json {
        Json::Number(number) => match (number.as_i128(), number.as_f64()) {
            (None, Some(float)) if float.fract() == 0.0 => format!("{:.0}", float + 0.0),
            _ => number.to_string(),
        },
        Json::Array(values) => {
            let values: Vec<String> = values.iter().map(canonical).collect();
            format!("[{}]", values.join(","))
        }
        Json::Object(object) => {
            let entries = object.iter();
            let entries = entries
                .map(|(key, value)| format!("{}:{}", Json::from(key.as_str()), canonical(value)));
            format!("{{{}}}", entries.collect::<Vec<_>>().join(","))
        }
        _ => json.to_string(),
    }
}

impl<T: Transactable + ReadDoc> Edit<'_, T> {
    fn remove(&mut self, list: &ObjId, at: usize, count: usize) -> Result<(), EditError> {
        for index in (at..at + count).rev() {
            self.tx.delete(list, index)?;
        }
        Ok(())
    }

    fn insert_all(
        &mut self,
        list: &ObjId,
        at: usize,
        to: &[Json],
        first: usize,
        count: usize,
    ) -> Result<(), EditError> {
        placed(at, to, first, count).try_for_each(|(index, json)| self.insert(list, index, json))
    }

    fn put_all(
        &mut self,
        list: &ObjId,
        at: usize,
        to: &[Json],
        first: usize,
        count: usize,
    ) -> Result<(), EditError> {
        placed(at, to, first, count)
            .try_for_each(|(index, json)| self.put(list, Prop::Seq(index), json))
    }
}

/// So many of the values from the first on, each with its position, of which the first is `at`.
fn placed(
    at: usize,
    to: &[Json],
    first: usize,
    count: usize,
) -> impl Iterator<Item = (usize, &Json)> {
    (at..).zip(to.iter().skip(first).take(count))
}
