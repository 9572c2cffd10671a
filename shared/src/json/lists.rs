//! The difference of two lists.
//!
//! Elements that are objects with an `id` (or `_id`, or `key`) that none of their list shares are the same
//! element wherever they stand: what changed in one is written into it. Automerge does not move elements: one that
//! changed its place is removed here and made there. Other elements are matched by what they are, in order; what is left between
//! two matches is paired by position.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;

use automerge::transaction::Transactable;
use automerge::{ObjId, Prop, ReadDoc};
use serde_json::Value as Json;
use similar::DiffOp;

use super::search::{Search, in_order};
use super::update::{Edit, EditError};
use super::{is_same, read};

/// What names an element within its list, the first that names all of them.
const KEYS: [&str; 3] = ["id", "_id", "key"];

/// A step from one list to another. Those of [`steps`] are carried out one after the other: each position is right
/// when its turn has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// The element at this position goes.
    Remove(usize),
    /// At the first position come so many that begin at the second in the new list.
    Insert(usize, usize, usize),
    /// The element at the first position, which it has in the old list, too, becomes what is at the second in the new.
    Put(usize, usize),
}

/// What leads from one list to another.
pub(super) fn steps(from: &[Json], to: &[Json], search: &mut Search) -> Vec<Step> {
    let key = KEYS
        .into_iter()
        .find(|key| names_all(from, key) && names_all(to, key));
    let same = match key {
        Some(key) => same_names(from, to, key),
        None => same_values(from, to, search),
    };
    let mut steps = Vec::new();
    let (mut old_end, mut new_end) = (from.len(), to.len());
    // From the end, so that positions before a step stay what they were. Before the first of both there is nothing.
    let same = same.into_iter().map(Some).rev().chain([None]);
    for same in same {
        let (old, new) = same.map_or((0, 0), |(old, new)| (old + 1, new + 1));
        // Those that have names are others.
        let paired = match key {
            Some(_) => 0,
            None => (old_end - old).min(new_end - new),
        };
        // What comes does so behind what goes, and before it goes: to find its place, Automerge looks at all that are gone
        // between the one before it and the one behind it.
        if new + paired < new_end {
            steps.push(Step::Insert(old_end, new + paired, new_end - new - paired));
        }
        steps.extend((old + paired..old_end).rev().map(Step::Remove));
        steps.extend((0..paired).map(|nth| Step::Put(old + nth, new + nth)));
        let both = same.and_then(|(old, new)| Some((old, from.get(old)?, new, to.get(new)?)));
        // Those that have no names are the same because they are equal.
        if let Some((old, before, new, after)) = both
            && key.is_some()
            && !is_same(before, after)
        {
            steps.push(Step::Put(old, new));
        }
        (old_end, new_end) = same.unwrap_or_default();
    }
    steps
}

/// Positions of elements that have the same name and stay where they are: as many as can.
fn same_names(from: &[Json], to: &[Json], key: &str) -> Vec<(usize, usize)> {
    let name = |json: &Json| json.get(key).map(canonical);
    let old = from.iter().enumerate();
    let old: HashMap<_, _> = old.map(|(at, json)| (name(json), at)).collect();
    let new = to.iter().enumerate();
    let same = new.filter_map(|(at, json)| Some((*old.get(&name(json))?, at)));
    in_order(&same.collect::<Vec<_>>())
}

/// Positions of equal elements, in order.
fn same_values(from: &[Json], to: &[Json], search: &mut Search) -> Vec<(usize, usize)> {
    // Numbers for what is the same: they are quick to compare.
    let mut numbers = HashMap::new();
    let mut number = |json: &Json| {
        let next = numbers.len();
        *numbers.entry(canonical(json)).or_insert(next)
    };
    // In lists within lists all that is in them is written out at each level.
    let numbered = search.timed(|| {
        let from: Vec<usize> = from.iter().map(&mut number).collect();
        let to: Vec<usize> = to.iter().map(&mut number).collect();
        (from, to)
    });
    let Some((from, to)) = numbered else {
        return Vec::new();
    };
    let mut same = Vec::new();
    for op in search.ops(&from, &to) {
        if let DiffOp::Equal { .. } = op {
            same.extend(op.old_range().zip(op.new_range()));
        }
    }
    same
}

pub(super) fn update<T: Transactable + ReadDoc>(
    edit: &mut Edit<'_, T>,
    list: &ObjId,
    to: &[Json],
) -> Result<(), EditError> {
    let elements = edit.tx.values(list);
    let from = elements.map(|found| read(edit.tx, &found, None, edit.types));
    let from = from.collect::<Result<Vec<Json>, _>>()?;
    for step in steps(&from, to, &mut edit.search) {
        edit.work.go_on()?;
        match step {
            Step::Remove(at) => {
                edit.has_room(1)?;
                edit.tx.delete(list, at)?;
            }
            Step::Insert(at, new, count) => {
                edit.insert(list, at, to.get(new..new + count).unwrap_or_default())?;
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
    let mut text = String::new();
    write_canonical(json, &mut text);
    text
}

fn write_canonical(json: &Json, text: &mut String) {
    match json {
        Json::Null => text.push('n'),
        Json::Bool(value) => text.push(if *value { 't' } else { 'f' }),
        Json::Number(number) => match (number.as_i128(), number.as_f64()) {
            (None, Some(float)) if float.fract() == 0.0 => {
                // To a string it never fails.
                let _written = write!(text, "{:.0}", float + 0.0);
            }
            _ => text.push_str(&number.to_string()),
        },
        Json::String(string) => write_string(string, text),
        Json::Array(values) => {
            text.push('[');
            for value in values {
                write_canonical(value, text);
                text.push(',');
            }
            text.push(']');
        }
        Json::Object(object) => {
            text.push('{');
            for (key, value) in object {
                write_string(key, text);
                write_canonical(value, text);
                text.push(',');
            }
            text.push('}');
        }
    }
}

/// Behind its length, so that nothing in it can be taken for what comes next.
fn write_string(string: &str, text: &mut String) {
    text.push_str(&string.len().to_string());
    text.push('"');
    text.push_str(string);
}
