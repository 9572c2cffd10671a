//! The difference of two lists.
//!
//! An element that is an object with an `id` (or `_id`, or `key`) that no other of its list has is the same element
//! wherever it stands: what changed in it is written into it. Automerge does not move elements: one that changed its place
//! is removed here and made there. The others between two that stayed are matched by what they are, in order; what is
//! left between two of these is paired by position, but never with what has another name.

use std::collections::HashMap;
use std::ops::Range;

use automerge::transaction::Transactable;
use automerge::{ObjId, Prop, ReadDoc};
use serde_json::Value as Json;
use similar::DiffOp;

use super::canonical::canonical;
use super::names::{Name, Names};
use super::search::{Search, in_order};
use super::update::{Edit, EditError};
use super::{is_same, read};

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
    let mut steps = Vec::new();
    let (mut old_end, mut new_end) = (from.len(), to.len());
    // From the end, so that positions before a step stay what they were. Before the first of both there is nothing.
    let kept = kept(from, to, search).into_iter().map(Some);
    for kept in kept.rev().chain([None]) {
        let (old, new) = kept.map_or((0, 0), |kept| (kept.old + 1, kept.new + 1));
        // What comes does so behind what goes, and before it goes: to find its place, Automerge looks at all that are gone
        // between the one before it and the one behind it.
        if new < new_end {
            steps.push(Step::Insert(old_end, new, new_end - new));
        }
        steps.extend((old..old_end).rev().map(Step::Remove));
        if let Some(Kept { old, new, is_equal }) = kept {
            if !is_equal {
                steps.push(Step::Put(old, new));
            }
            (old_end, new_end) = (old, new);
        }
    }
    steps
}

/// An element that stays where it is, by its positions in both lists.
#[derive(Debug, Clone, Copy)]
struct Kept {
    old: usize,
    new: usize,
    is_equal: bool,
}

/// In the order of both.
fn kept(from: &[Json], to: &[Json], search: &mut Search) -> Vec<Kept> {
    let names = Names::of(from, to);
    let mut kept = Vec::new();
    let (mut old, mut new) = (0, 0);
    let staying = in_order(&names.same()).into_iter().map(Some);
    for stays in staying.chain([None]) {
        let (old_end, new_end) = stays.unwrap_or((from.len(), to.len()));
        let others = Others {
            old: others(from, &names.old, old..old_end),
            new: others(to, &names.new, new..new_end),
        };
        kept.extend(others.kept(search));
        let both = stays.and_then(|(old, new)| Some((from.get(old)?, to.get(new)?)));
        if let Some((before, after)) = both {
            kept.push(Kept {
                old: old_end,
                new: new_end,
                is_equal: is_same(before, after),
            });
        }
        (old, new) = (old_end + 1, new_end + 1);
    }
    kept
}

/// An element that is not known by its name.
struct Other<'a> {
    at: usize,
    json: &'a Json,
    name: &'a Name,
}

fn others<'a>(elements: &'a [Json], names: &'a [Name], within: Range<usize>) -> Vec<Other<'a>> {
    // Asked for between each two that stay: without going through those before.
    let both = elements.get(within.clone()).into_iter().flatten();
    let both = both.zip(names.get(within.clone()).into_iter().flatten());
    let others = within.zip(both).filter_map(|(at, (json, name))| {
        let is_other = matches!(name, Name::Nothing | Name::Shared(_));
        is_other.then_some(Other { at, json, name })
    });
    others.collect()
}

/// Those between two that stay.
struct Others<'a> {
    old: Vec<Other<'a>>,
    new: Vec<Other<'a>>,
}

impl Others<'_> {
    fn kept(&self, search: &mut Search) -> Vec<Kept> {
        let mut kept = Vec::new();
        let (mut old, mut new) = (0, 0);
        let equal = same_values(&self.old, &self.new, search)
            .into_iter()
            .map(Some);
        for equal in equal.chain([None]) {
            let (old_end, new_end) = equal.unwrap_or((self.old.len(), self.new.len()));
            let here = self.old.get(old..old_end).unwrap_or_default().iter();
            let there = self.new.get(new..new_end).unwrap_or_default();
            let paired = here.zip(there).filter(|(old, new)| old.name == new.name);
            kept.extend(paired.map(|(old, new)| Kept {
                old: old.at,
                new: new.at,
                is_equal: false,
            }));
            let both = equal.and_then(|(old, new)| Some((self.old.get(old)?, self.new.get(new)?)));
            kept.extend(both.map(|(old, new)| Kept {
                old: old.at,
                new: new.at,
                is_equal: true,
            }));
            (old, new) = (old_end + 1, new_end + 1);
        }
        kept
    }
}

/// Indexes of equal elements, in order.
fn same_values(from: &[Other<'_>], to: &[Other<'_>], search: &mut Search) -> Vec<(usize, usize)> {
    if from.is_empty() || to.is_empty() {
        return Vec::new();
    }
    // Numbers for what is the same: they are quick to compare. In lists within lists all that is in them is written out
    // at each level.
    let mut numbers = HashMap::new();
    let mut number = |other: &Other<'_>| {
        let next = numbers.len();
        *numbers.entry(canonical(other.json)).or_insert(next)
    };
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
