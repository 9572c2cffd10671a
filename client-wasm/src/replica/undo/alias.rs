//! What came back under another name: an element or object that was deleted can't return, a copy takes its
//! place. Earlier steps name the first one, so [`Aliases`] leads from it to the copy.

use std::collections::BTreeMap;

use automerge::{ActorId, ObjId};

/// Runs of ids that are remembered, twice: beyond it the older half is forgotten, and steps from before then
/// leave alone what was restored. A restored paste is one run, so this is thousands of undone steps.
pub(super) const MAX_RUNS: usize = 16_384;

/// An op's id: the id of the element or object that it made.
pub(super) type Id = (ActorId, u64);

/// An op's id as Automerge's methods take it.
pub(super) fn external((actor, counter): &Id) -> ObjId {
    ObjId::Id(*counter, actor.clone(), 0)
}

/// The id inside of Automerge's; nothing for the root.
pub(super) fn internal(id: &ObjId) -> Option<Id> {
    match id {
        ObjId::Root => None,
        ObjId::Id(counter, actor, _) => Some((actor.clone(), *counter)),
    }
}

/// An element, in the object it is an element of: asking Automerge for one in another object is a panic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) object: Option<Id>,
    pub(super) id: Id,
}

/// Consecutive ids and their copies.
#[derive(Clone, Debug)]
struct Run {
    length: u64,
    object: Option<Id>,
    to: Id,
}

type Runs = BTreeMap<Id, Run>;

/// From what is gone to what came in its place.
#[derive(Debug, Default)]
pub(crate) struct Aliases {
    elements: Table,
    /// Objects and counters. Apart from elements, since one id names both an element and the object that was
    /// inserted as its first value, and the object can return while the element never went.
    values: Table,
}

#[derive(Debug, Default)]
struct Table {
    old: Runs,
    young: Runs,
    /// Of the transaction that is being made.
    fresh: Runs,
}

impl Aliases {
    /// The last copy of the element `from` is now `to`.
    pub(super) fn add_element(&mut self, from: Place, to: &Place) {
        let last = self.elements.last(from);
        if last != *to {
            self.elements.add(&last.id, to);
        }
    }

    /// The last copy of the object or counter `from` is now `to`.
    pub(super) fn add_value(&mut self, from: &Id, to: &Id) {
        let last = self.value(from);
        if last != *to {
            let to = Place {
                object: None,
                id: to.clone(),
            };
            self.values.add(&last, &to);
        }
    }

    /// Where an object or counter is now; itself when it was never restored.
    pub(super) fn value(&self, id: &Id) -> Id {
        let place = Place {
            object: None,
            id: id.clone(),
        };
        self.values.last(place).id
    }

    /// Where an element is now, or the last of its copies; nothing when it did not come along into the copy
    /// of its object.
    pub(super) fn element(&self, place: Place) -> Option<Place> {
        let object = place.object.as_ref().map(|id| self.value(id));
        let last = self.elements.last(place);
        (last.object == object).then_some(last)
    }

    /// The transaction became a change.
    pub(super) fn keep(&mut self) {
        self.elements.keep();
        self.values.keep();
    }

    /// The transaction was rolled back: its ids will mean something else.
    pub(super) fn forget(&mut self) {
        self.elements.fresh.clear();
        self.values.fresh.clear();
    }
}

impl Table {
    /// The copy of `from`, which had none yet, is `to`.
    fn add(&mut self, from: &Id, to: &Place) {
        let last = self.fresh.range_mut(..=from).next_back();
        if let Some((start, run)) = last
            && start.0 == from.0
            && run.to.0 == to.id.0
            && run.object == to.object
            && start.1 + run.length == from.1
            && run.to.1 + run.length == to.id.1
        {
            run.length += 1;
            return;
        }
        let run = Run {
            length: 1,
            object: to.object.clone(),
            to: to.id.clone(),
        };
        self.fresh.insert(from.clone(), run);
    }

    fn keep(&mut self) {
        self.young.append(&mut self.fresh);
        if self.young.len() > MAX_RUNS {
            self.old = std::mem::take(&mut self.young);
        }
    }

    /// Copies have greater counters than what they are copies of, so following them ends.
    fn last(&self, mut place: Place) -> Place {
        while let Some(next) = self.next(&place.id) {
            place = next;
        }
        place
    }

    fn next(&self, id: &Id) -> Option<Place> {
        [&self.fresh, &self.young, &self.old]
            .into_iter()
            .find_map(|runs| {
                let (start, run) = runs.range(..=id).next_back()?;
                let offset = id.1.checked_sub(start.1)?;
                (start.0 == id.0 && offset < run.length).then(|| Place {
                    object: run.object.clone(),
                    id: (run.to.0.clone(), run.to.1 + offset),
                })
            })
    }
}
