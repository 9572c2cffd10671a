//! Changes whose place in the history is right and whose ops are anything: arbitrary ops in valid
//! framing.
//!
//! Where [`mutate`](super::mutate) starts from an op that was right, here each field is drawn by
//! itself, from what there is in the history, in the change itself, or nowhere. So that some of it is
//! admitted, an op is mostly put where another was, over that or beside it.

use automerge::ChangeHash;
use bytes::Bytes;

use super::context::{Context, Id};
use super::model::{ChangeModel, OpModel, action, hash};
use super::mutate::VALUES;
use super::source::Source;

/// Most ops, or pairs of a mark's, in a change.
const MOST_OPS: usize = 6;

/// An actor that no history has, as [`Context::id`] names it.
const NOBODY: [u8; 2] = [0x77, 0x77];

/// A change on top of these, chunks that [`ChangeModel::decode`] takes; `context` is of them. The
/// simplest is by somebody who saw everything.
pub fn change(source: &mut Source<'_>, history: &[Bytes], context: &Context) -> ChangeModel {
    let earlier: Vec<_> = history
        .iter()
        .map(|chunk| (hash(chunk), ChangeModel::decode(chunk)))
        .collect();
    let mut model = framing(source, &earlier, context);
    // All actors at once: one that comes in between moves the indices of those behind it.
    for actor in &context.actors {
        model.actor_index(actor);
    }
    model.actor_index(&NOBODY);
    for _ in 0..=source.below(MOST_OPS) {
        if source.chance(8) {
            mark(source, &mut model, context);
        } else {
            let op = op(source, &mut model, context);
            model.ops.push(op);
        }
    }
    model.drop_unused_actors();
    model
}

/// A change without ops: mostly right in all that the change graph asks for.
fn framing(
    source: &mut Source<'_>,
    earlier: &[(ChangeHash, ChangeModel)],
    context: &Context,
) -> ChangeModel {
    let actor = match source.below(8) {
        0..=5 if !context.actors.is_empty() => source.pick(&context.actors),
        6 => vec![0],
        _ => vec![0x55; 3],
    };
    let mut own = earlier.iter().filter(|(_, model)| model.actor == actor);
    let seq = own.clone().count() as u64 + 1;
    let mut deps = if source.chance(3) && !earlier.is_empty() {
        // An old branch, and what the actor made itself.
        let branch = earlier[source.below(earlier.len())].0;
        let last = own.next_back().map(|(hash, _)| *hash);
        let mut deps = vec![branch];
        deps.extend(last);
        deps
    } else {
        heads(earlier)
    };
    deps.sort_unstable();
    deps.dedup();
    let of_deps = earlier.iter().filter(|(hash, _)| deps.contains(hash));
    let start_op = of_deps.map(|(_, model)| model.end_op()).max().unwrap_or(1);
    let mut model = ChangeModel {
        deps,
        actor,
        seq,
        start_op: start_op.max(1),
        ..ChangeModel::default()
    };
    if source.chance(16) {
        model.seq = source.below(9) as u64;
    }
    if source.chance(16) {
        let near = model.start_op;
        model.start_op = source.pick(&[near + 3, near.saturating_sub(1), 1, 1 << 30]);
    }
    model
}

fn heads(changes: &[(ChangeHash, ChangeModel)]) -> Vec<ChangeHash> {
    let is_head = |hash: &ChangeHash| !changes.iter().any(|(_, model)| model.deps.contains(hash));
    let hashes = changes.iter().map(|(hash, _)| *hash);
    hashes.filter(is_head).collect()
}

/// An op, field by field.
fn op(source: &mut Source<'_>, model: &mut ChangeModel, context: &Context) -> OpModel {
    let action = source.below(9) as u64;
    let mut op = placed(source, model, context, action);
    let with_value = matches!(action, action::SET | action::INCREMENT) != source.chance(12);
    if action == action::INCREMENT && !source.chance(4) {
        op = op.value(4, &[3]);
    } else if with_value {
        op = if source.chance(4) {
            let kind = source.below(16) as u64;
            let length = source.below(10);
            let bytes: Vec<u8> = (0..length).map(|_| source.below(256) as u8).collect();
            op.value(kind, &bytes)
        } else {
            let (kind, bytes) = source.pick(VALUES);
            op.value(kind, bytes)
        };
    }
    if source.chance(24) {
        op.expand = true;
    }
    if source.chance(24) {
        op.mark_name = Some("name".to_owned());
    }
    if source.chance(24) {
        // Half an id, two keys or none.
        match source.below(4) {
            0 => op.obj_actor = op.obj_actor.xor(Some(0)),
            1 => op.key_actor = op.key_actor.xor(Some(0)),
            2 => (op.key_text, op.key_counter) = (None, None),
            _ => op.key_text = Some("two".to_owned()),
        }
    }
    op
}

/// Both ends of a mark, behind any two elements.
fn mark(source: &mut Source<'_>, model: &mut ChangeModel, context: &Context) {
    let mut begin = placed(source, model, context, action::MARK);
    begin.insert = true;
    begin.preds.clear();
    let mut end = begin.clone();
    begin.mark_name = Some(source.pick(&["bold", ""]).to_owned());
    begin = begin.value(2, b"");
    begin.expand = source.chance(2);
    end.expand = source.chance(2);
    let other = context.beside(model, &begin, source);
    let other = other.and_then(|known| known.element.clone());
    let (actor, counter) = match other {
        Some(other) if !source.chance(4) => index(model, &other),
        _ => (0, model.end_op()),
    };
    (end.key_actor, end.key_counter) = (Some(actor), Some(counter as i64));
    model.ops.push(begin);
    if !source.chance(16) {
        model.ops.push(end);
    }
}

/// Where an op is and what it overwrites.
fn placed(
    source: &mut Source<'_>,
    model: &mut ChangeModel,
    context: &Context,
    action: u64,
) -> OpModel {
    let mut op = match source.below(8) {
        // Where another op of the history is, over it or behind it.
        0..=3 if !context.ops.is_empty() => {
            let known = &context.ops[source.below(context.ops.len())];
            let object = known.object.as_ref().map(|id| index(model, id));
            let element = known.element.as_ref().map(|id| index(model, id));
            let mut op = at(object, known.op.key_text.as_deref(), element, action);
            op.insert = known.op.key_text.is_none() && source.chance(2);
            if !op.insert && !source.chance(4) {
                let (actor, counter) = index(model, &known.id);
                op.preds = vec![(actor, counter as i64)];
            }
            op
        }
        // Where the op before is, or in what it made.
        4 | 5 if !model.ops.is_empty() => {
            let counter = model.end_op() - 1;
            let last = &model.ops[model.ops.len() - 1];
            let mut op = OpModel {
                action,
                ..OpModel::default()
            };
            if source.chance(2) {
                (op.obj_actor, op.obj_counter) = (Some(0), Some(counter));
                if source.chance(2) {
                    op.key_text = Some(source.pick(&context.keys));
                } else {
                    op.key_counter = Some(0);
                    op.insert = true;
                }
            } else {
                (op.obj_actor, op.obj_counter) = (last.obj_actor, last.obj_counter);
                if last.key_text.is_some() {
                    op.key_text.clone_from(&last.key_text);
                    op.preds = vec![(0, counter as i64)];
                } else {
                    (op.key_actor, op.key_counter) = (Some(0), Some(counter as i64));
                    op.insert = source.chance(2);
                    if !op.insert {
                        op.preds = vec![(0, counter as i64)];
                    }
                }
            }
            op
        }
        6 => {
            let object = context.object(model, source);
            let key = source.chance(2).then(|| source.pick(&context.keys));
            let element = (!source.chance(3)).then(|| context.id(model, source));
            let mut op = at(Some(object), key.as_deref(), element, action);
            op.insert = source.chance(2);
            op
        }
        _ => {
            let object = source.chance(3).then(|| context.id(model, source));
            let key = source.pick(&context.keys);
            let mut op = at(object, Some(&key), None, action);
            op.insert = source.chance(12);
            op
        }
    };
    if source.chance(8) {
        let (actor, counter) = context.id(model, source);
        op.preds.push((actor, counter as i64));
    }
    op
}

fn at(
    object: Option<(u64, u64)>,
    key: Option<&str>,
    element: Option<(u64, u64)>,
    action: u64,
) -> OpModel {
    match (key, object) {
        (Some(key), object) => OpModel::at_key(object, key, action),
        (None, Some(object)) => OpModel::at_element(object, element, action),
        (None, None) => OpModel {
            obj_actor: None,
            obj_counter: None,
            ..OpModel::at_element((0, 0), element, action)
        },
    }
}

fn index(model: &mut ChangeModel, (actor, counter): &Id) -> (u64, u64) {
    (model.actor_index(actor), *counter)
}
