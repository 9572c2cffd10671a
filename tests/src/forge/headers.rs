//! Mutations of what comes before and after a change's ops.

use automerge::ChangeHash;

use super::columns::{prefixed, uleb};
use super::mutate::Mutation;

/// All of them.
pub(super) const HEADERS: &[Mutation] = &[
    ("header: seq", |model, _, source| {
        model.seq = source.pick(&[
            0,
            1,
            model.seq.wrapping_add(1),
            model.seq.wrapping_sub(1),
            u64::from(u32::MAX),
            u64::MAX,
        ]);
        true
    }),
    ("header: start op", |model, _, source| {
        let near = model.start_op;
        let far = u64::from(u32::MAX) - model.ops.len() as u64;
        model.start_op = source.pick(&[
            near.wrapping_sub(1),
            near.wrapping_add(1),
            near.wrapping_add(1000),
            1,
            0,
            far,
            far.wrapping_add(1),
            u64::MAX,
        ]);
        true
    }),
    (
        "header: start op, and what refers to the ops",
        |model, _, source| {
            let by = source.pick(&[1, 5, 1 << 20, (1 << 32) - 1 - model.end_op().min(1 << 31)]);
            let own = model.start_op..model.end_op();
            let moved =
                |actor: Option<u64>, counter: u64| actor == Some(0) && own.contains(&counter);
            for op in &mut model.ops {
                if let Some(counter) = &mut op.obj_counter
                    && moved(op.obj_actor, *counter)
                {
                    *counter = counter.wrapping_add(by);
                }
                if let Some(counter) = &mut op.key_counter
                    && moved(op.key_actor, *counter as u64)
                {
                    *counter = counter.wrapping_add(by as i64);
                }
                for (actor, counter) in &mut op.preds {
                    if moved(Some(*actor), *counter as u64) {
                        *counter = counter.wrapping_add(by as i64);
                    }
                }
            }
            model.start_op = model.start_op.wrapping_add(by);
            true
        },
    ),
    ("header: time", |model, _, source| {
        model.time = source.pick(&[i64::MIN, i64::MAX, -1, 1 << 53]);
        true
    }),
    ("header: message", |model, _, source| {
        model.message = source.pick(&[&b""[..], b"other", b"\xff", b"\0"]).to_vec();
        true
    }),
    ("header: a dep less", |model, _, source| {
        let at = source.below(model.deps.len());
        let there = at < model.deps.len();
        if there {
            model.deps.remove(at);
        }
        there
    }),
    ("header: a dep more", |model, context, source| {
        model.deps.push(source.pick(&context.hashes));
        model.deps.sort_unstable();
        true
    }),
    (
        "header: deps doubled, unknown, in another order",
        |model, _, source| {
            match source.below(3) {
                0 => model.deps.reverse(),
                1 => model.deps.push(ChangeHash([source.below(256) as u8; 32])),
                _ => model.deps.extend(model.deps.first().copied()),
            }
            true
        },
    ),
    ("header: actor", |model, context, source| {
        model.actor = source.pick(&context.actors);
        true
    }),
    ("header: other actors", |model, _, source| {
        match source.below(4) {
            0 => model.other_actors.reverse(),
            1 => model.other_actors.push(vec![0xfe, 0xfe]),
            2 => model
                .other_actors
                .extend(model.other_actors.first().cloned()),
            _ => model.other_actors.push(model.actor.clone()),
        }
        true
    }),
    ("header: extra bytes", |model, _, source| {
        model.extra = match source.below(5) {
            0 => author(b"someone"),
            1 => [author(b"someone"), author(b"other")].concat(),
            2 => author(b""),
            3 => vec![1, 0xff, 0xff, 0xff, 0x7f],
            _ => vec![0xff; 11],
        };
        true
    }),
];

/// The extra bytes of an author's first change.
pub fn author(author: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    uleb(&mut bytes, 1);
    prefixed(&mut bytes, author);
    bytes
}
