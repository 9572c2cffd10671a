//! The edits that take a step back: [`Inverse`]. Here objects are gone through and keys looked after; lists and texts
//! are planned in `sequence`, and what returns is written in `copy`.

use std::collections::HashMap;

use automerge::{
    ActorId, AutoCommit, AutomergeError, ObjType, Prop, ReadDoc, ScalarValue, Value,
    transaction::Transactable,
};

use super::{
    alias::{Aliases, Id, internal},
    item::id_of,
    step::{Slot, Slots, Step},
};

pub(super) type Done = Result<(), AutomergeError>;

/// Makes the inverse edits in the open transaction.
pub(super) struct Inverse<'a> {
    pub(super) doc: &'a mut AutoCommit,
    pub(super) aliases: &'a mut Aliases,
    pub(super) step: &'a Step,
    pub(super) own: ActorId,
    /// Objects that this undo restored, to how they were before which change.
    pub(super) restored: HashMap<Id, usize>,
}

impl<'a> Inverse<'a> {
    pub(super) fn new(doc: &'a mut AutoCommit, aliases: &'a mut Aliases, step: &'a Step) -> Self {
        let own = doc.get_actor().clone();
        Self {
            doc,
            aliases,
            step,
            own,
            restored: HashMap::new(),
        }
    }

    /// Objects that the step deleted return on the way, so those that can't be seen yet are tried again; those
    /// that others deleted are left.
    pub(super) fn run(mut self) -> Done {
        let step = self.step;
        let mut waiting: Vec<_> = step.objects.iter().collect();
        loop {
            let before = waiting.len();
            let mut hidden = Vec::new();
            for one in waiting {
                let (object, slots) = one;
                let target = object.as_ref().map(|object| self.aliases.value(object));
                if self.is_visible(target.as_ref()) {
                    self.undo_object(object.as_ref(), target.as_ref(), slots)?;
                } else {
                    hidden.push(one);
                }
            }
            if hidden.is_empty() || hidden.len() == before {
                return Ok(());
            }
            waiting = hidden;
        }
    }

    fn is_visible(&self, object: Option<&Id>) -> bool {
        let parents = self.doc.parents(id_of(object));
        parents.is_ok_and(|mut parents| parents.all(|parent| parent.visible))
    }

    /// `object` is what the step called it, `target` what it is now.
    fn undo_object(&mut self, object: Option<&Id>, target: Option<&Id>, slots: &Slots) -> Done {
        let until = object.and_then(|object| self.restored.get(object));
        let until = until.copied().unwrap_or(usize::MAX);
        match self.doc.object_type(id_of(target))? {
            ObjType::Map | ObjType::Table => {
                for (key, slot) in &slots.keys {
                    self.undo_key(object, target, key, slot, until)?;
                }
                Ok(())
            }
            kind @ (ObjType::List | ObjType::Text) => {
                self.undo_sequence(object, target, kind, slots, until)
            }
        }
    }

    fn undo_key(
        &mut self,
        object: Option<&Id>,
        target: Option<&Id>,
        key: &str,
        slot: &Slot,
        until: usize,
    ) -> Done {
        let at = id_of(target);
        let now = self.doc.get(&at, key)?;
        let now = now.and_then(|(value, id)| Some((value.into_owned(), internal(&id)?)));
        let net = slot.net(until);
        if !net.replaced {
            if let Some((Value::Scalar(scalar), winner)) = now
                && let Some(by) = self.counted(slot, &scalar, &winner, until)
            {
                self.doc.increment(&at, key, by)?;
            }
            return Ok(());
        }
        let ours = match &now {
            Some((_, winner)) => !net.deleted && winner.0 == self.own,
            None => net.deleted,
        };
        if !ours {
            return Ok(());
        }
        let former = match net.former {
            None => None,
            Some(former) => {
                let heads = self.step.heads(former.change);
                let all = self.doc.get_all_at(id_of(object), key, heads)?;
                former
                    .winner(all)
                    .map(|(value, winner)| (value, winner, former.change))
            }
        };
        match former {
            Some((value, winner, change)) => {
                let prop = Prop::Map(key.to_owned());
                let value = uncounted(&value, &winner, change, slot);
                self.restore(target, prop, &value, &winner, change)
            }
            None if now.is_some() => self.doc.delete(&at, key),
            None => Ok(()),
        }
    }

    /// How much takes back what the step added to the counter that is there now, if it is the same.
    pub(super) fn counted(
        &self,
        slot: &Slot,
        now: &ScalarValue,
        winner: &Id,
        until: usize,
    ) -> Option<i64> {
        let is = |id: &Id| self.aliases.value(id) == *winner;
        let sum = slot.sum(until, is);
        (matches!(now, ScalarValue::Counter(_)) && sum != 0).then_some(sum.wrapping_neg())
    }
}

/// The value before `change`, without what earlier changes of the step added to it.
pub(super) fn uncounted(
    value: &Value<'static>,
    winner: &Id,
    change: usize,
    slot: &Slot,
) -> Value<'static> {
    if let Some(ScalarValue::Counter(counter)) = value.as_scalar() {
        let ours = slot.sum(change, |id| id == winner);
        return Value::counter(i64::from(counter).wrapping_sub(ours));
    }
    value.clone()
}
