//! Changes wrong in one way each, on top of a small good history, and whether Automerge survives them.
//!
//! What is written down here of each is held by the test `forge_facts`, for the oracle and for admission;
//! others send the same to a server.

#![allow(
    clippy::wildcard_imports,
    reason = "lists of cases, in the words of this module"
)]

#[path = "facts/contents.rs"]
mod contents;
#[path = "facts/headers.rs"]
mod headers;
#[path = "facts/overwriting.rs"]
mod overwriting;
#[path = "facts/references.rs"]
mod references;

use super::model::{ChangeModel, OpModel, action::*, hash};

const COUNTER: u64 = 8;
const INT: u64 = 4;
const TEXT: u64 = 6;
/// The counter after the last op of the good change.
const NEXT: u64 = 21;

/// A case: what is wrong, whether Automerge survives it, and the changes.
pub type Case = (&'static str, bool, Vec<ChangeModel>);

/// All cases, by the actor `[2]`.
pub fn cases() -> Vec<Case> {
    let all = [
        references::cases(),
        overwriting::cases(),
        contents::cases(),
        headers::cases(),
    ];
    all.into_iter().flatten().collect()
}

/// What all cases are on top of, by actor 1. Ops are numbered from 1.
pub fn good() -> ChangeModel {
    let own = |mut op: OpModel| {
        op.obj_actor = op.obj_actor.map(|_| 0);
        op.key_actor = op.key_actor.map(|_| 0);
        op
    };
    let ops = vec![
        root("map", MAKE_MAP),
        root("list", MAKE_LIST),
        root("text", MAKE_TEXT),
        root("counter", SET).value(COUNTER, &[1]),
        root("n", SET).value(INT, &[5]),
        element(2, None, SET).inserting().value(TEXT, b"x"),
        element(2, Some(6), SET).inserting().value(COUNTER, &[1]),
        element(3, None, SET).inserting().value(TEXT, b"a"),
        element(3, Some(8), SET).inserting().value(TEXT, b"b"),
        at_key(1, "k", SET).value(TEXT, b"v"),
        element(3, Some(9), SET).inserting().value(TEXT, b"c"),
        root("gone", SET).value(INT, &[1]),
        root("gone", DELETE).over(&[(0, 12)]),
        root("counter", INCREMENT).value(INT, &[2]).over(&[(0, 4)]),
        begin((0, 3), Some((0, 8))),
        end((0, 3), Some((0, 9))),
        element(3, Some(11), DELETE).over(&[(0, 11)]),
        root("dead list", MAKE_LIST),
        root("dead list", SET).value(INT, &[1]).over(&[(0, 18)]),
        root("last", SET).value(INT, &[5]),
    ];
    ChangeModel {
        actor: vec![1],
        seq: 1,
        start_op: 1,
        ops: ops.into_iter().map(own).collect(),
        ..ChangeModel::default()
    }
}

/// A change concurrent to that of the case, by actor 3.
pub fn concurrent() -> ChangeModel {
    ChangeModel {
        deps: vec![hash(&good().encode())],
        actor: vec![3],
        seq: 1,
        start_op: NEXT,
        ops: vec![
            root("concurrent", SET).value(COUNTER, &[1]),
            root("concurrent list", MAKE_LIST),
            OpModel::at_element((0, NEXT + 1), None, SET)
                .inserting()
                .value(INT, &[1]),
        ],
        ..ChangeModel::default()
    }
}

fn root(key: &str, action: u64) -> OpModel {
    OpModel::at_key(None, key, action)
}

/// In the object that op `object` of the good change made.
fn element(object: u64, element: Option<u64>, action: u64) -> OpModel {
    OpModel::at_element((1, object), element.map(|counter| (1, counter)), action)
}

fn at_key(object: u64, key: &str, action: u64) -> OpModel {
    OpModel::at_key(Some((1, object)), key, action)
}

fn begin(object: (u64, u64), at: Option<(u64, u64)>) -> OpModel {
    let mut op = OpModel::at_element(object, at, MARK)
        .inserting()
        .value(2, b"");
    op.mark_name = Some("bold".to_owned());
    op
}

fn end(object: (u64, u64), at: Option<(u64, u64)>) -> OpModel {
    OpModel::at_element(object, at, MARK).inserting()
}

/// The change of a case, by actor 2 from op 21. Index 1 is the good change's author, 2 the concurrent one's.
fn change(ops: &[OpModel]) -> ChangeModel {
    let mut model = ChangeModel {
        deps: vec![hash(&good().encode())],
        actor: vec![2],
        seq: 1,
        start_op: NEXT,
        other_actors: vec![vec![1], vec![3]],
        ops: ops.to_vec(),
        ..ChangeModel::default()
    };
    model.drop_unused_actors();
    model
}

fn header(set: impl FnOnce(&mut ChangeModel)) -> Vec<ChangeModel> {
    let mut model = change(&[root("x", SET).value(INT, &[1])]);
    set(&mut model);
    vec![model]
}

fn ops(ops: &[OpModel]) -> Vec<ChangeModel> {
    vec![change(ops)]
}

/// The change, and one by the same actor on top of it that depends on it as usual.
fn then(first: ChangeModel, ops: &[OpModel]) -> Vec<ChangeModel> {
    let mut second = change(ops);
    second.seq = first.seq + 1;
    second.start_op = first.end_op();
    second.deps = vec![hash(&first.encode())];
    vec![first, second]
}

/// Set to an int.
fn int(op: OpModel) -> OpModel {
    op.value(INT, &[7])
}

/// Key "n" of the root set over an op of the good change.
fn put(counter: i64) -> OpModel {
    int(root("n", SET)).over(&[(1, counter)])
}
