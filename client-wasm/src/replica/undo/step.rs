//! What a step did, slot by slot: [`Step`].

use std::collections::{BTreeMap, HashSet};

use automerge::{
    ActorId, AutoCommit, ChangeHash, ObjId, Value,
    legacy::{ElementId, Key, ObjectId, Op, OpId, OpType},
};

use super::{
    UndoError,
    alias::{Id, internal},
};

/// The net effect of some changes.
#[derive(Debug)]
pub(super) struct Step {
    /// Of each change, the version it was made on.
    pub(super) before: Vec<Vec<ChangeHash>>,
    /// What was touched in objects that were there before the step, in the order of first touch.
    pub(super) objects: Vec<(Option<Id>, Slots)>,
}

/// What was touched in one object.
#[derive(Debug, Default)]
pub(super) struct Slots {
    pub(super) keys: BTreeMap<String, Slot>,
    pub(super) elements: BTreeMap<Id, Slot>,
}

/// What happened to one key or element.
#[derive(Debug, Default)]
pub(super) struct Slot {
    /// The element was inserted in the step: it has no value from before.
    pub(super) inserted: bool,
    /// What was written or deleted, in order.
    writes: Vec<Write>,
    /// By which change, which counters, by how much.
    pub(super) increments: Vec<(usize, Vec<Id>, i64)>,
}

#[derive(Debug)]
struct Write {
    change: usize,
    deletes: bool,
    /// Of the values that it overwrote, those from outside of the step, if there are any.
    former: Option<Vec<Id>>,
}

/// What a slot's writes come to.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Net<'a> {
    /// A value was written or deleted.
    pub(super) replaced: bool,
    /// The last that happened was a deletion.
    pub(super) deleted: bool,
    /// The last value from outside of the step that was overwritten.
    pub(super) former: Option<Former<'a>>,
}

/// A value that the step overwrote.
#[derive(Clone, Copy, Debug)]
pub(super) struct Former<'a> {
    /// The change that did, whose deps have the value.
    pub(super) change: usize,
    /// The values, several if they were written at once; of the step's own, which may have won, there is none.
    pub(super) ids: &'a [Id],
}

impl Former<'_> {
    /// Of all values that were there, the one to give back: Automerge lists them with the winner last.
    pub(super) fn winner(&self, all: Vec<(Value<'_>, ObjId)>) -> Option<(Value<'static>, Id)> {
        let mut all = all.into_iter().rev();
        all.find_map(|(value, id)| {
            let id = internal(&id).filter(|id| self.ids.contains(id))?;
            Some((value.into_owned(), id))
        })
    }
}

impl Step {
    /// Reads the changes, which must be our own: of others' it is not known that they can be decoded.
    pub(super) fn read(doc: &mut AutoCommit, hashes: &[ChangeHash]) -> Result<Self, UndoError> {
        let own = doc.get_actor().clone();
        let mut step = Self {
            before: Vec::new(),
            objects: Vec::new(),
        };
        let mut made = HashSet::new();
        let mut places = BTreeMap::new();
        for (index, hash) in hashes.iter().enumerate() {
            let change = doc
                .get_change_by_hash(hash)
                .ok_or(UndoError::Missing { hash: *hash })?;
            if *change.actor_id() != own {
                return Err(UndoError::NotOwn { hash: *hash });
            }
            step.before.push(change.deps().to_vec());
            for (counter, op) in (change.start_op().get()..).zip(change.decode().operations) {
                let id = (own.clone(), counter);
                let object = match &op.obj {
                    ObjectId::Root => None,
                    ObjectId::Id(id) => Some(plain(id)),
                };
                if object.as_ref().is_none_or(|object| !made.contains(object)) {
                    let place = *places.entry(object.clone()).or_insert_with(|| {
                        step.objects.push((object, Slots::default()));
                        step.objects.len() - 1
                    });
                    if let Some((_, slots)) = step.objects.get_mut(place) {
                        slots.note(index, &id, &op, &made);
                    }
                }
                made.insert(id);
            }
        }
        Ok(step)
    }

    /// The version that a change was made on.
    pub(super) fn heads(&self, change: usize) -> &[ChangeHash] {
        self.before.get(change).map_or(&[], Vec::as_slice)
    }
}

impl Slots {
    fn note(&mut self, change: usize, id: &Id, op: &Op, made: &HashSet<Id>) {
        if matches!(op.action, OpType::MarkBegin(_) | OpType::MarkEnd(_)) {
            return;
        }
        let slot = match &op.key {
            Key::Map(key) => self.keys.entry(key.to_string()).or_default(),
            _ if op.insert => {
                self.elements.entry(id.clone()).or_default().inserted = true;
                return;
            }
            Key::Seq(ElementId::Id(element)) => self.elements.entry(plain(element)).or_default(),
            Key::Seq(ElementId::Head) => return,
        };
        let mut ids: Vec<Id> = op.pred.iter().map(plain).collect();
        if let OpType::Increment(by) = op.action {
            slot.increments.push((change, ids, by));
            return;
        }
        ids.retain(|id| !made.contains(id));
        slot.writes.push(Write {
            change,
            deletes: op.action == OpType::Delete,
            former: (!ids.is_empty()).then_some(ids),
        });
    }
}

impl Slot {
    /// What the changes before `until` did: an object that this undo restored is as it was before that one.
    pub(super) fn net(&self, until: usize) -> Net<'_> {
        let mut net = Net::default();
        for write in self.writes.iter().filter(|write| write.change < until) {
            net.replaced = true;
            net.deleted = write.deletes;
            if let Some(ids) = &write.former {
                let change = write.change;
                net.former = Some(Former { change, ids });
            }
        }
        net
    }

    /// What the step added before its change `until`, to those counters that `is` names.
    pub(super) fn sum(&self, until: usize, is: impl Fn(&Id) -> bool) -> i64 {
        let ours = self.increments.iter();
        ours.filter(|(change, ids, _)| *change < until && ids.iter().any(&is))
            .fold(0, |sum, (_, _, by)| sum.wrapping_add(*by))
    }
}

fn plain(OpId(counter, actor): &OpId) -> (ActorId, u64) {
    (actor.clone(), *counter)
}
