//! The difference of two lists.
//!
//! Elements that are objects with an `id` (or `_id`, or `key`) that none of their list shares are the same
//! element wherever they stand: what changed in one is written into it. Automerge does not move elements: one that
//! changed its place is removed here and made there. Other elements are matched by what they are, in order; what is left between
//! two matches is paired by position.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use automerge::transaction::Transactable;
use automerge::{ObjId, Prop, ReadDoc};
use serde_json::Value as Json;
use similar::{Algorithm, DiffOp, capture_diff_slices_deadline};

use super::read;
use super::update::{Edit, EditError};

/// What names an element within its list, the first that names all of them.
const KEYS: [&str; 3] = ["id", "_id", "key"];

/// A step from one list to another. Those of [`steps`] are carried out one after the other: each position is right
/// when its turn has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// The element at this position goes.
    Remove(usize),
    /// At the first position comes what is at the second in the new list.
    Insert(usize, usize),
    /// The element at the first position, which it has in the old list, too, becomes what is at the second in the new.
    Put(usize, usize),
}

/// What leads from one list to another. Until `deadline` the shortest way is looked for.
pub(super) fn steps(from: &[Json], to: &[Json], deadline: Option<Instant>) -> Vec<Step> {
    let key = KEYS
        .into_iter()
        .find(|key| names_all(from, key) && names_all(to, key));
    // Numbers for what is the same: they are quick to compare.
    let mut numbers = HashMap::new();
    let mut number = |json: &Json| {
        let name = key.and_then(|key| json.get(key)).unwrap_or(json);
        let next = numbers.len();
        *numbers.entry(canonical(name)).or_insert(next)
    };
    let from_numbers: Vec<usize> = from.iter().map(&mut number).collect();
    let to_numbers: Vec<usize> = to.iter().map(&mut number).collect();
    let ops = capture_diff_slices_deadline(Algorithm::Myers, &from_numbers, &to_numbers, deadline);
    let mut steps = Vec::new();
    let remove = |steps: &mut Vec<Step>, at: usize, count: usize| {
        steps.extend((at..at + count).rev().map(Step::Remove));
    };
    let insert = |steps: &mut Vec<Step>, at: usize, new: usize, count: usize| {
        steps.extend((0..count).map(|n| Step::Insert(at + n, new + n)));
    };
    let put = |steps: &mut Vec<Step>, at: usize, new: usize, count: usize| {
        steps.extend((0..count).map(|n| Step::Put(at + n, new + n)));
    };
    // From the end, so that positions before an op stay what they were.
    for op in ops.into_iter().rev() {
        match op {
            DiffOp::Equal {
                old_index,
                new_index,
                len,
            } => {
                if key.is_some() {
                    put(&mut steps, old_index, new_index, len);
                }
            }
            DiffOp::Delete {
                old_index, old_len, ..
            } => remove(&mut steps, old_index, old_len),
            DiffOp::Insert {
                old_index,
                new_index,
                new_len,
            } => insert(&mut steps, old_index, new_index, new_len),
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
                remove(&mut steps, old_rest, old_len - paired);
                insert(&mut steps, old_rest, new_rest, new_len - paired);
                put(&mut steps, old_index, new_index, paired);
            }
        }
    }
    steps
}

pub(super) fn update<T: Transactable + ReadDoc>(
    edit: &mut Edit<'_, T>,
    list: &ObjId,
    to: &[Json],
) -> Result<(), EditError> {
    let elements = edit.tx.values(list);
    let from = elements.map(|found| read(edit.tx, &found, None, edit.types));
    let from = from.collect::<Result<Vec<Json>, _>>()?;
    for step in steps(&from, to, edit.deadline) {
        match step {
            Step::Remove(at) => edit.tx.delete(list, at)?,
            Step::Insert(at, new) => {
                if let Some(json) = to.get(new) {
                    edit.insert(list, at, json)?;
                }
            }
            Step::Put(at, new) => {
                if let Some(json) = to.get(new) {
                    edit.put(list, Prop::Seq(at), json)?;
                }
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
