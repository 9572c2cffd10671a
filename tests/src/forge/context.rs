//! What there is in a history for a wrong change to refer to.

use automerge::{Change, ChangeHash};

use super::model::{ChangeModel, OpModel, action};
use super::source::Source;

/// An op's id: its author and its counter.
pub type Id = (Vec<u8>, u64);

/// An op of the history, with its references by actor instead of by index.
#[derive(Debug, Clone)]
pub struct Known {
    /// Its id.
    pub id: Id,
    /// Its object; none for the root.
    pub object: Option<Id>,
    /// The element it names, or that it makes; none for map keys and the head.
    pub element: Option<Id>,
    /// As it stands in its change.
    pub op: OpModel,
}

/// All that a history has.
#[derive(Debug, Clone, Default)]
pub struct Context {
    /// Its ops.
    pub ops: Vec<Known>,
    /// Its actors.
    pub actors: Vec<Vec<u8>>,
    /// Keys of its maps.
    pub keys: Vec<String>,
    /// Its changes.
    pub hashes: Vec<ChangeHash>,
}

impl Context {
    /// Of these changes.
    pub fn new(changes: &[Change]) -> Self {
        let mut context = Self::default();
        for change in changes {
            context.add(&ChangeModel::decode(change.raw_bytes()), change.hash());
        }
        insert_sorted(&mut context.keys, "never used".to_owned());
        context
    }

    /// Takes in one more change.
    pub fn add(&mut self, model: &ChangeModel, hash: ChangeHash) {
        let id =
            |actor: Option<u64>, counter: u64| Some((model.actor_at(actor?)?.to_vec(), counter));
        for (op, counter) in model.ops.iter().zip(model.start_op..) {
            let own = (model.actor.clone(), counter);
            let named = id(op.key_actor, op.key_counter.unwrap_or(0) as u64);
            let element = if op.insert { Some(own.clone()) } else { named };
            self.ops.push(Known {
                id: own,
                object: id(op.obj_actor, op.obj_counter.unwrap_or(0)),
                element,
                op: op.clone(),
            });
            if let Some(key) = &op.key_text {
                insert_sorted(&mut self.keys, key.clone());
            }
        }
        insert_sorted(&mut self.actors, model.actor.clone());
        self.hashes.push(hash);
    }

    /// An id, by its index among a change's actors, as any op may name one: of an op of the history
    /// or of the change itself, or of none.
    pub fn id(&self, model: &mut ChangeModel, source: &mut Source<'_>) -> (u64, u64) {
        let own = model.ops.len() as u64;
        match source.below(12) {
            0..=7 if !self.ops.is_empty() => {
                let known = &self.ops[source.below(self.ops.len())];
                (model.actor_index(&known.id.0), known.id.1)
            }
            8 | 9 => (
                0,
                model
                    .start_op
                    .wrapping_add(source.below(own as usize + 1) as u64),
            ),
            10 => {
                let counter = [
                    0,
                    model.start_op.wrapping_sub(1),
                    u64::from(u32::MAX),
                    1 << 32,
                ];
                let actor = self.actor(model, source);
                (actor, source.pick(&counter))
            }
            _ => {
                let actor = self.actor(model, source);
                (
                    actor,
                    source.below((model.start_op as usize).saturating_add(3)) as u64,
                )
            }
        }
    }

    /// As [`Context::id`], of an object if there is one.
    pub fn object(&self, model: &mut ChangeModel, source: &mut Source<'_>) -> (u64, u64) {
        let objects: Vec<_> = self.ops.iter().filter(|known| is_make(&known.op)).collect();
        match objects.len() {
            0 => self.id(model, source),
            objects_len => {
                let known = objects[source.below(objects_len)];
                (model.actor_index(&known.id.0), known.id.1)
            }
        }
    }

    /// An op of the history in the same object as this op, if there is one.
    pub fn beside(
        &self,
        model: &ChangeModel,
        op: &OpModel,
        source: &mut Source<'_>,
    ) -> Option<&Known> {
        let object = op.obj_actor.and_then(|actor| model.actor_at(actor));
        let object = object.map(|actor| (actor.to_vec(), op.obj_counter.unwrap_or(0)));
        let beside = self.ops.iter().filter(|known| known.object == object);
        let beside: Vec<_> = beside.collect();
        (!beside.is_empty()).then(|| beside[source.below(beside.len())])
    }

    /// One of the change's actors, one of the history's, one that nobody knows.
    fn actor(&self, model: &mut ChangeModel, source: &mut Source<'_>) -> u64 {
        match source.below(4) {
            0 => 0,
            1 => model.actor_index(&[0x77, 0x77]),
            _ if self.actors.is_empty() => 0,
            _ => model.actor_index(&self.actors[source.below(self.actors.len())]),
        }
    }
}

/// Keeps the order independent of that of the changes.
fn insert_sorted<T: Ord>(into: &mut Vec<T>, value: T) {
    if let Err(at) = into.binary_search(&value) {
        into.insert(at, value);
    }
}

/// Whether the op makes an object.
pub fn is_make(op: &OpModel) -> bool {
    matches!(
        op.action,
        action::MAKE_MAP | action::MAKE_LIST | action::MAKE_TEXT | action::MAKE_TABLE
    )
}
