//! Changes made wrong by a little.
//!
//! Mutations aim at near misses: what they put in is mostly something that is there, in another
//! place. What they leave of a change is written as Automerge writes changes; for what it would not
//! write at all there is [`mutate_bytes`](super::raw::mutate_bytes).

use super::context::Context;
use super::headers::HEADERS;
use super::model::{ChangeModel, OpModel, action};
use super::source::Source;

/// A kind of mutation and what does it; false if there was nothing to do it to.
pub(super) type Mutation = (
    &'static str,
    fn(&mut ChangeModel, &Context, &mut Source<'_>) -> bool,
);

/// Those of ops. They are drawn four times as often as those of headers.
const OPS: &[Mutation] = &[
    ("object: another", |model, context, source| {
        let object = context.object(model, source);
        with_op(model, source, |op, _| set_object(op, Some(object)))
    }),
    ("object: any id", |model, context, source| {
        let id = context.id(model, source);
        with_op(model, source, |op, _| set_object(op, Some(id)))
    }),
    ("object: the root", |model, _, source| {
        with_op(model, source, |op, _| set_object(op, None))
    }),
    ("element: any id", |model, context, source| {
        let id = context.id(model, source);
        with_op(model, source, |op, _| set_element(op, Some(id)))
    }),
    (
        "element: another of the object",
        |model, context, source| {
            with_beside(model, context, source, |model, op, known| {
                let Some((actor, counter)) = &known.element else {
                    return;
                };
                set_element(op, Some((model.actor_index(actor), *counter)));
            })
        },
    ),
    ("element: the head", |model, _, source| {
        with_op(model, source, |op, _| set_element(op, None))
    }),
    ("key: another", |model, context, source| {
        let key = source.pick(&context.keys);
        with_op(model, source, |op, _| set_key(op, &key))
    }),
    (
        "key: beside an element, or neither",
        |model, context, source| {
            let key = source.pick(&context.keys);
            with_op(model, source, |op, source| match source.below(4) {
                0 => op.key_text = None,
                1 => (op.key_actor, op.key_counter) = (None, None),
                2 => op.key_actor = None,
                _ => op.key_text = Some(key),
            })
        },
    ),
    ("insert: flipped", |model, _, source| {
        with_op(model, source, |op, _| op.insert = !op.insert)
    }),
    ("action: another", |model, _, source| {
        with_op(model, source, |op, source| {
            op.action = source.below(9) as u64;
        })
    }),
    ("value: another type", |model, _, source| {
        with_op(model, source, |op, source| {
            op.value_meta = op.value_meta & !15 | source.below(16) as u64;
        })
    }),
    ("value: another value", |model, _, source| {
        with_op(model, source, |op, source| {
            let (kind, bytes) = source.pick(VALUES);
            op.value_meta = (bytes.len() as u64) << 4 | kind;
            op.value = bytes.to_vec();
        })
    }),
    ("value: another length", |model, _, source| {
        with_op(model, source, |op, source| {
            let length = source.pick(&[0, 1, op.value.len() + 1, op.value.len() / 2]);
            op.value.resize(length, source.pick(&[0, 0x80, 0xff, b'a']));
            op.value_meta = op.value_meta & 15 | (length as u64) << 4;
        })
    }),
    ("value: other bytes", |model, _, source| {
        with_op(model, source, |op, source| {
            let at = source.below(op.value.len());
            if let Some(byte) = op.value.get_mut(at) {
                *byte ^= 1 << source.below(8);
            }
        })
    }),
    ("preds: any id more", |model, context, source| {
        let (actor, counter) = context.id(model, source);
        with_op(model, source, |op, source| {
            let at = source.below(op.preds.len() + 1);
            op.preds.insert(at, (actor, counter as i64));
        })
    }),
    ("preds: one of the object more", |model, context, source| {
        with_beside(model, context, source, |model, op, known| {
            op.preds
                .push((model.actor_index(&known.id.0), known.id.1 as i64));
            sort_preds(model, op);
        })
    }),
    (
        "preds: one of the object instead",
        |model, context, source| {
            with_beside(model, context, source, |model, op, known| {
                op.preds = vec![(model.actor_index(&known.id.0), known.id.1 as i64)];
            })
        },
    ),
    ("preds: one less", |model, _, source| {
        with_op(model, source, |op, source| {
            if !op.preds.is_empty() {
                op.preds.remove(source.below(op.preds.len()));
            }
        })
    }),
    ("preds: one doubled", |model, _, source| {
        with_op(model, source, |op, source| {
            if !op.preds.is_empty() {
                let at = source.below(op.preds.len());
                op.preds.insert(at, op.preds[at]);
            }
        })
    }),
    ("preds: another order", |model, _, source| {
        with_op(model, source, |op, _| op.preds.reverse())
    }),
    ("mark: expands otherwise", |model, _, source| {
        with_op(model, source, |op, _| op.expand = !op.expand)
    }),
    ("mark: another name, or none", |model, _, source| {
        with_op(model, source, |op, source| {
            op.mark_name = source
                .pick(&[None, Some(""), Some("bold"), Some("other")])
                .map(str::to_owned);
        })
    }),
    ("mark: made of another op", |model, _, source| {
        with_op(model, source, |op, source| {
            op.action = action::MARK;
            op.mark_name = source.pick(&[None, Some("bold")]).map(str::to_owned);
        })
    }),
    ("ops: one less", |model, _, source| {
        let at = source.below(model.ops.len());
        let there = at < model.ops.len();
        if there {
            model.ops.remove(at);
        }
        there
    }),
    ("ops: one doubled", |model, _, source| {
        let at = source.below(model.ops.len());
        let Some(op) = model.ops.get(at).cloned() else {
            return false;
        };
        let to = source.below(model.ops.len() + 1);
        model.ops.insert(to, op);
        true
    }),
    ("ops: two swapped", |model, _, source| {
        let (a, b) = (source.below(model.ops.len()), source.below(model.ops.len()));
        if a != b {
            model.ops.swap(a, b);
        }
        a != b
    }),
    ("ops: one more", more),
    ("ops: one more", more),
];

/// Values as one could write them, good and bad.
pub(super) const VALUES: &[(u64, &[u8])] = &[
    (0, b""),
    (1, b""),
    (2, b""),
    (3, b"\x05"),
    (3, b"\x85\x00"),
    (3, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
    (3, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f"),
    (4, b"\x7f"),
    (4, b"\xff\x7f"),
    (4, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00"),
    (5, b"\0\0\0\0\0\0\xf8\x7f"),
    (5, b"\x01\0\0\0\0\0\xf8\x7f"),
    (6, b""),
    (6, b"several characters"),
    (6, b"\xff"),
    (6, "\u{fffc}".as_bytes()),
    (7, b""),
    (7, b"bytes"),
    (8, b"\x01"),
    (8, b"\x80\x00"),
    (8, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00"),
    (9, b"\x01"),
    (9, b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x7f"),
    (10, b""),
    (10, b"unknown"),
    (15, b"\0"),
];

/// Makes a change wrong in one to three ways, and says in which. Most of what the change no longer
/// refers to is taken out of its actors, so that it is wrong in that way alone.
pub fn mutate(
    source: &mut Source<'_>,
    model: &mut ChangeModel,
    context: &Context,
) -> Vec<&'static str> {
    let wanted = source.pick(&[1, 1, 1, 2, 3]);
    let mut done = Vec::new();
    for _ in 0..wanted * 4 {
        if done.len() == wanted {
            break;
        }
        let kinds = if source.chance(5) { HEADERS } else { OPS };
        let (name, mutation) = source.pick(kinds);
        let before = model.clone();
        if mutation(model, context, source) && *model != before {
            done.push(name);
        }
    }
    if !done.contains(&"header: other actors") && !source.chance(20) {
        model.drop_unused_actors();
    }
    done
}

/// An op more on something that is there: over an op of the history, in its place, as it would be
/// written by someone who does not ask what the op is.
fn more(model: &mut ChangeModel, context: &Context, source: &mut Source<'_>) -> bool {
    if context.ops.is_empty() {
        return false;
    }
    let known = &context.ops[source.below(context.ops.len())];
    let mut op = OpModel::default();
    if let Some((actor, counter)) = &known.object {
        set_object(&mut op, Some((model.actor_index(actor), *counter)));
    }
    // An actor that was added since moves the indices of those behind it: look them all up again.
    let pred = (model.actor_index(&known.id.0), known.id.1 as i64);
    let element = known.element.as_ref();
    let element = element.map(|(actor, counter)| (model.actor_index(actor), *counter));
    if let Some((actor, _)) = &known.object {
        op.obj_actor = Some(model.actor_index(actor));
    }
    match (&known.op.key_text, element) {
        (Some(key), _) => set_key(&mut op, key),
        (None, element) => set_element(&mut op, element),
    }
    op.action = source.pick(&[1, 3, 5, 0, 2, 4, 6, 7]);
    op.insert = known.op.key_text.is_none() && source.chance(3);
    if !op.insert && !source.chance(4) {
        op.preds = vec![(model.actor_index(&known.id.0), pred.1)];
    }
    if matches!(op.action, action::SET | action::INCREMENT) || source.chance(8) {
        let (kind, bytes) = source.pick(VALUES);
        op = op.value(kind, bytes);
    }
    if op.action == action::INCREMENT && !source.chance(4) {
        op = op.value(4, &[3]);
    }
    if op.action == action::MARK && source.chance(2) {
        op.mark_name = Some("bold".to_owned());
    }
    let at = source.pick(&[0, model.ops.len(), model.ops.len()]);
    model.ops.insert(at, op);
    true
}

fn with_op(
    model: &mut ChangeModel,
    source: &mut Source<'_>,
    change: impl FnOnce(&mut OpModel, &mut Source<'_>),
) -> bool {
    let at = source.below(model.ops.len());
    let Some(op) = model.ops.get_mut(at) else {
        return false;
    };
    change(op, source);
    true
}

/// Changes an op by what there is beside it in its object.
fn with_beside(
    model: &mut ChangeModel,
    context: &Context,
    source: &mut Source<'_>,
    change: impl FnOnce(&mut ChangeModel, &mut OpModel, &super::context::Known),
) -> bool {
    let at = source.below(model.ops.len());
    let Some(op) = model.ops.get(at) else {
        return false;
    };
    let Some(known) = context.beside(model, op, source) else {
        return false;
    };
    // First the actors, so that they are not moved while the op is apart.
    model.actor_index(&known.id.0);
    if let Some((actor, _)) = &known.element {
        model.actor_index(actor);
    }
    let mut op = model.ops[at].clone();
    change(model, &mut op, known);
    model.ops[at] = op;
    true
}

/// As Automerge writes them: by counter, then by actor.
fn sort_preds(model: &ChangeModel, op: &mut OpModel) {
    op.preds
        .sort_by_key(|(actor, counter)| (*counter, model.actor_at(*actor).map(<[u8]>::to_vec)));
}

fn set_object(op: &mut OpModel, object: Option<(u64, u64)>) {
    op.obj_actor = object.map(|(actor, _)| actor);
    op.obj_counter = object.map(|(_, counter)| counter);
}

fn set_element(op: &mut OpModel, element: Option<(u64, u64)>) {
    op.key_text = None;
    op.key_actor = element.map(|(actor, _)| actor);
    op.key_counter = Some(element.map_or(0, |(_, counter)| counter as i64));
}

fn set_key(op: &mut OpModel, key: &str) {
    (op.key_actor, op.key_counter) = (None, None);
    op.key_text = Some(key.to_owned());
}
