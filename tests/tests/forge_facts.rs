//! Promise: the oracle sees what harms Automerge, and which wrong changes do not is written down here.
//!
//! Each case is one change, wrong in one way, on top of a small good history. It can't pass by
//! accident: both lists are compared, so a case that changes sides fails, be it by the oracle or by
//! another Automerge.

use automerge::ChangeHash;
use bytes::Bytes;
use concord_tests::forge::model::{ChangeModel, OpModel, action::*, hash};
use concord_tests::forge::mutate::author;
use concord_tests::forge::oracle::survives;
use concord_tests::forge::source::Source;

/// How often the oracle is asked: its orders are random.
const TRIES: u64 = 24;

const COUNTER: u64 = 8;
const INT: u64 = 4;
const TEXT: u64 = 6;

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

/// What all cases are on top of, by actor 1. Ops are numbered from 1.
fn good() -> ChangeModel {
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

const NEXT: u64 = 21;

/// A change concurrent to that of the case, by actor 3.
fn concurrent() -> ChangeModel {
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

fn cases() -> Vec<(&'static str, bool, Vec<ChangeModel>)> {
    let int = |op: OpModel| op.value(INT, &[7]);
    let put = |counter: i64| int(root("n", SET)).over(&[(1, counter)]);
    let expanding = |mut op: OpModel| {
        op.expand = true;
        op
    };
    let named = |mut op: OpModel| {
        op.mark_name = Some("bold".to_owned());
        op
    };
    let text = (1, 3);
    let mut without_deps = change(&[int(at_key(1, "k", SET)).over(&[(1, 10)])]);
    without_deps.deps = vec![];
    let mut uses_concurrent = change(&[int(root("concurrent", SET)).over(&[(2, 21)])]);
    let mut unrelated = uses_concurrent.clone();
    unrelated.ops = vec![int(OpModel::at_element((2, 22), None, SET)).inserting()];
    uses_concurrent.start_op = 30;
    unrelated.start_op = 30;
    let mut without_deps_pred = change(&[put(5)]);
    without_deps_pred.deps = vec![];
    let mut two_authors = change(&[int(root("x", SET))]);
    two_authors.extra = author(b"one");
    let mut second_author = then(two_authors.clone(), &[int(root("y", SET))]);
    second_author[1].extra = author(b"one");
    let mut late_author = then(change(&[int(root("x", SET))]), &[int(root("y", SET))]);
    late_author[1].extra = author(b"one");
    let mut two_in_one = change(&[int(root("x", SET))]);
    two_in_one.extra = [author(b"one"), author(b"two")].concat();
    let table = || change(&[root("table", MAKE_TABLE)]);
    vec![
        // (what, whether Automerge survives it, the change)
        ("a good change", true, ops(&[put(5)])),
        (
            "object: does not exist",
            false,
            ops(&[int(at_key(99, "k", SET))]),
        ),
        ("object: of an actor that does not exist", false, {
            let mut model = change(&[int(OpModel::at_key(Some((1, 1)), "k", SET))]);
            model.other_actors = vec![vec![9]];
            vec![model]
        }),
        (
            "object: is a scalar",
            false,
            ops(&[int(at_key(5, "k", SET))]),
        ),
        (
            "object: is a delete",
            false,
            ops(&[int(at_key(13, "k", SET))]),
        ),
        (
            "object: made later in the same change",
            true,
            ops(&[
                int(OpModel::at_key(Some((0, 22)), "k", SET)),
                root("m", MAKE_MAP),
            ]),
        ),
        (
            "object: itself",
            false,
            ops(&[OpModel::at_key(Some((0, 21)), "k", MAKE_MAP)]),
        ),
        ("object: concurrent, not in deps", false, vec![unrelated]),
        (
            "object: deps leave out its maker",
            false,
            vec![without_deps],
        ),
        (
            "object: overwritten",
            true,
            ops(&[int(element(18, None, SET)).inserting()]),
        ),
        (
            "object: ops before an op on an object of lower id",
            true,
            ops(&[int(at_key(1, "z", SET)), int(root("z", SET))]),
        ),
        (
            "map: key missing, element given",
            true,
            ops(&[int(OpModel::at_element((1, 1), Some((1, 6)), SET)).inserting()]),
        ),
        (
            "map: head given",
            true,
            ops(&[int(OpModel::at_element((1, 1), None, SET)).inserting()]),
        ),
        (
            "map: insert with a key",
            false,
            ops(&[int(at_key(1, "k", SET)).inserting()]),
        ),
        ("list: key given", false, ops(&[int(at_key(2, "k", SET))])),
        ("text: key given", false, ops(&[int(at_key(3, "k", SET))])),
        (
            "root: head given",
            false,
            ops(&[{
                let mut op = int(root("x", SET)).inserting();
                op.key_text = None;
                op.key_counter = Some(0);
                op
            }]),
        ),
        (
            "element: does not exist",
            false,
            ops(&[int(element(2, Some(99), SET)).inserting()]),
        ),
        (
            "element: of another object",
            false,
            ops(&[int(element(2, Some(8), SET)).inserting()]),
        ),
        (
            "element: is an update",
            false,
            ops(&[
                int(element(2, Some(6), SET)).over(&[(1, 6)]),
                int(OpModel::at_element((1, 2), Some((0, 21)), SET)).inserting(),
            ]),
        ),
        (
            "element: later in the same change",
            false,
            ops(&[
                int(OpModel::at_element((1, 2), Some((0, 22)), SET)).inserting(),
                int(element(2, None, SET)).inserting(),
            ]),
        ),
        (
            "element: itself",
            false,
            ops(&[int(OpModel::at_element((1, 2), Some((0, 21)), SET)).inserting()]),
        ),
        (
            "element: deleted",
            true,
            ops(&[OpModel::at_element(text, Some((1, 11)), SET)
                .inserting()
                .value(TEXT, b"z")]),
        ),
        (
            "element: a mark",
            true,
            ops(&[OpModel::at_element(text, Some((1, 15)), SET)
                .inserting()
                .value(TEXT, b"z")]),
        ),
        (
            "element: update of one that does not exist",
            false,
            ops(&[int(element(2, Some(99), SET)).over(&[(1, 6)])]),
        ),
        (
            "element: update of the head",
            false,
            ops(&[int(element(2, None, SET))]),
        ),
        (
            "element: update without preds",
            true,
            ops(&[int(element(2, Some(6), SET))]),
        ),
        (
            "element: update of a deleted one without preds",
            true,
            ops(&[OpModel::at_element(text, Some((1, 11)), SET).value(TEXT, b"z")]),
        ),
        (
            "element: update of a mark",
            true,
            ops(&[OpModel::at_element(text, Some((1, 15)), SET)
                .value(TEXT, b"z")
                .over(&[(1, 15)])]),
        ),
        (
            "element: delete of a mark",
            true,
            ops(&[OpModel::at_element(text, Some((1, 15)), DELETE).over(&[(1, 15)])]),
        ),
        ("pred: does not exist", false, ops(&[put(99)])),
        ("pred: counter 0", false, ops(&[put(0)])),
        ("pred: of another key", false, ops(&[put(4)])),
        ("pred: of another object", false, ops(&[put(10)])),
        (
            "pred: of another element",
            false,
            ops(&[int(element(2, Some(6), SET)).over(&[(1, 7)])]),
        ),
        (
            "pred: itself",
            false,
            ops(&[int(root("n", SET)).over(&[(0, 21)])]),
        ),
        (
            "pred: later in the same change",
            false,
            ops(&[int(root("n", SET)).over(&[(0, 22)]), put(5)]),
        ),
        (
            "pred: earlier in the same change",
            true,
            ops(&[put(5), int(root("n", SET)).over(&[(0, 21)])]),
        ),
        (
            "pred: concurrent, not in deps",
            false,
            vec![uses_concurrent],
        ),
        (
            "pred: deps leave out its maker",
            false,
            vec![without_deps_pred],
        ),
        (
            "pred: a delete",
            false,
            ops(&[int(root("gone", SET)).over(&[(1, 13)])]),
        ),
        (
            "pred: already deleted",
            true,
            ops(&[int(root("gone", SET)).over(&[(1, 12)])]),
        ),
        (
            "pred: an increment",
            true,
            ops(&[int(root("counter", SET)).over(&[(1, 14)])]),
        ),
        (
            "pred: a counter and its increment",
            true,
            ops(&[int(root("counter", SET)).over(&[(1, 4), (1, 14)])]),
        ),
        (
            "pred: twice the same",
            true,
            ops(&[int(root("n", SET)).over(&[(1, 5), (1, 5)])]),
        ),
        (
            "pred: of two ops of one change",
            true,
            ops(&[put(5), put(5)]),
        ),
        (
            "pred: none where there is a value",
            true,
            ops(&[int(root("n", SET))]),
        ),
        (
            "pred: not ascending",
            false,
            ops(&[
                int(root("n", SET)),
                int(root("n", SET)).over(&[(0, 21), (1, 5)]),
            ]),
        ),
        (
            "pred: ascending by actor index, not by counter",
            false,
            ops(&[
                int(root("n", SET)),
                int(root("n", SET)),
                int(root("n", SET)).over(&[(0, 22), (0, 21)]),
            ]),
        ),
        (
            "pred: with insert",
            false,
            ops(&[int(element(2, Some(6), SET)).inserting().over(&[(1, 6)])]),
        ),
        ("delete: without preds", false, ops(&[root("n", DELETE)])),
        ("delete: of nothing", false, ops(&[root("nothing", DELETE)])),
        (
            "delete: with insert",
            false,
            ops(&[element(2, Some(6), DELETE).inserting()]),
        ),
        (
            "delete: with a value",
            false,
            ops(&[root("n", DELETE).value(INT, &[1]).over(&[(1, 5)])]),
        ),
        (
            "delete: of a deleted",
            true,
            ops(&[root("gone", DELETE).over(&[(1, 12)])]),
        ),
        (
            "delete: twice in one change",
            true,
            ops(&[
                root("n", DELETE).over(&[(1, 5)]),
                root("n", DELETE).over(&[(1, 5)]),
            ]),
        ),
        (
            "make: with a value",
            true,
            ops(&[root("m", MAKE_MAP).value(INT, &[1])]),
        ),
        (
            "make: with a value, in a text",
            false,
            ops(&[element(3, Some(9), MAKE_LIST)
                .inserting()
                .value(TEXT, "𝄞".as_bytes())]),
        ),
        ("make: table", true, vec![table()]),
        (
            "make: table, ops in it",
            false,
            then(table(), &[int(OpModel::at_key(Some((0, 21)), "row", SET))]),
        ),
        (
            "increment: good",
            true,
            ops(&[root("counter", INCREMENT).value(INT, &[1]).over(&[(1, 4)])]),
        ),
        (
            "increment: of no counter",
            true,
            ops(&[root("n", INCREMENT).value(INT, &[1]).over(&[(1, 5)])]),
        ),
        (
            "increment: of an object",
            true,
            ops(&[root("map", INCREMENT).value(INT, &[1]).over(&[(1, 1)])]),
        ),
        (
            "increment: of a counter and another value",
            true,
            then(
                change(&[int(root("counter", SET))]),
                &[root("counter", INCREMENT)
                    .value(INT, &[1])
                    .over(&[(1, 4), (0, 21)])],
            ),
        ),
        (
            "increment: without preds",
            true,
            ops(&[root("counter", INCREMENT).value(INT, &[1])]),
        ),
        (
            "increment: of a deleted counter",
            true,
            ops(&[
                root("counter", DELETE).over(&[(1, 4)]),
                root("counter", INCREMENT).value(INT, &[1]).over(&[(1, 4)]),
            ]),
        ),
        (
            "increment: of an increment",
            true,
            ops(&[root("counter", INCREMENT).value(INT, &[1]).over(&[(1, 14)])]),
        ),
        (
            "increment: with insert",
            true,
            ops(&[element(2, Some(7), INCREMENT).inserting().value(INT, &[1])]),
        ),
        (
            "increment: by text",
            false,
            ops(&[root("counter", INCREMENT).value(TEXT, b"1").over(&[(1, 4)])]),
        ),
        (
            "increment: by null",
            false,
            ops(&[root("counter", INCREMENT).over(&[(1, 4)])]),
        ),
        (
            "increment: by an unsigned",
            true,
            ops(&[root("counter", INCREMENT).value(3, &[1]).over(&[(1, 4)])]),
        ),
        (
            "increment: by a counter",
            false,
            ops(&[root("counter", INCREMENT)
                .value(COUNTER, &[1])
                .over(&[(1, 4)])]),
        ),
        (
            "increment: by the most there is",
            true,
            ops(&[root("counter", INCREMENT)
                .value(INT, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00")
                .over(&[(1, 4)])]),
        ),
        (
            "increment: in a list",
            true,
            ops(&[element(2, Some(7), INCREMENT)
                .value(INT, &[1])
                .over(&[(1, 7)])]),
        ),
        (
            "increment: in a text",
            false,
            ops(&[
                element(3, Some(9), SET).inserting().value(COUNTER, &[1]),
                OpModel::at_element(text, Some((0, 21)), INCREMENT)
                    .value(INT, &[1])
                    .over(&[(0, 21)]),
            ]),
        ),
        (
            "increment: in a text, a later change",
            false,
            then(
                change(&[element(3, Some(9), SET).inserting().value(COUNTER, &[1])]),
                &[OpModel::at_element(text, Some((0, 21)), INCREMENT)
                    .value(INT, &[1])
                    .over(&[(0, 21)])],
            ),
        ),
        (
            "value: unknown type 10",
            true,
            ops(&[root("x", SET).value(10, b"abc")]),
        ),
        (
            "value: unknown type 15",
            true,
            ops(&[root("x", SET).value(15, b"")]),
        ),
        (
            "value: overlong uint",
            false,
            ops(&[root("x", SET).value(3, b"\x85\x00")]),
        ),
        (
            "value: overlong int",
            false,
            ops(&[root("x", SET).value(INT, b"\xff\x7f")]),
        ),
        (
            "value: uint past 64 bits",
            false,
            ops(&[root("x", SET).value(3, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f")]),
        ),
        (
            "value: bytes after an int",
            false,
            ops(&[root("x", SET).value(INT, &[1, 2])]),
        ),
        (
            "value: null with bytes",
            false,
            ops(&[root("x", SET).value(0, &[1])]),
        ),
        (
            "value: short float",
            false,
            ops(&[root("x", SET).value(5, &[1])]),
        ),
        (
            "value: NaN with a payload",
            true,
            ops(&[root("x", SET).value(5, b"\x01\0\0\0\0\0\xf8\x7f")]),
        ),
        (
            "value: bad UTF-8",
            false,
            ops(&[root("x", SET).value(TEXT, b"\xff")]),
        ),
        (
            "text: an empty string",
            true,
            ops(&[element(3, Some(8), SET).inserting().value(TEXT, b"")]),
        ),
        (
            "text: several characters",
            true,
            ops(&[element(3, Some(8), SET).inserting().value(TEXT, b"several")]),
        ),
        (
            "text: an int",
            true,
            ops(&[int(element(3, Some(8), SET)).inserting()]),
        ),
        (
            "text: a list",
            true,
            ops(&[element(3, Some(8), MAKE_LIST).inserting()]),
        ),
        (
            "text: update of a character",
            true,
            ops(&[element(3, Some(8), SET).value(TEXT, b"z").over(&[(1, 8)])]),
        ),
        (
            "text: update of a character without preds",
            true,
            ops(&[element(3, Some(8), SET).value(TEXT, b"z")]),
        ),
        (
            "mark: good",
            true,
            ops(&[begin(text, Some((1, 8))), end(text, Some((1, 9)))]),
        ),
        ("mark: begin alone", true, ops(&[begin(text, Some((1, 8)))])),
        ("mark: end alone", false, ops(&[end(text, Some((1, 9)))])),
        (
            "mark: end before its begin",
            false,
            ops(&[begin(text, Some((1, 9))), end(text, Some((1, 8)))]),
        ),
        (
            "mark: end at the head",
            false,
            ops(&[begin(text, Some((1, 9))), end(text, None)]),
        ),
        (
            "mark: empty",
            true,
            ops(&[begin(text, Some((1, 8))), end(text, Some((0, 21)))]),
        ),
        (
            "mark: end and begin in the other order of ops",
            false,
            ops(&[end(text, Some((1, 9))), begin(text, Some((1, 8)))]),
        ),
        (
            "mark: an op between",
            false,
            ops(&[
                begin(text, Some((1, 8))),
                int(root("x", SET)),
                end(text, Some((1, 9))),
            ]),
        ),
        (
            "mark: end in another text",
            false,
            ops(&[
                root("t", MAKE_TEXT),
                begin(text, Some((1, 8))),
                end((0, 21), None),
            ]),
        ),
        (
            "mark: end in the next change",
            true,
            then(
                change(&[begin(text, Some((1, 8)))]),
                &[end(text, Some((1, 9)))],
            ),
        ),
        (
            "mark: end has a value",
            true,
            ops(&[
                begin(text, Some((1, 8))),
                end(text, Some((1, 9))).value(INT, &[1]),
            ]),
        ),
        (
            "mark: begins nested",
            false,
            ops(&[
                begin(text, Some((1, 8))),
                begin(text, Some((1, 8))),
                end(text, Some((1, 9))),
                end(text, Some((1, 9))),
            ]),
        ),
        (
            "mark: in a list",
            false,
            ops(&[begin((1, 2), Some((1, 6))), end((1, 2), Some((1, 7)))]),
        ),
        ("mark: in a map", false, ops(&[named(root("x", MARK))])),
        (
            "mark: without insert",
            false,
            ops(&[
                {
                    let mut op = begin(text, Some((1, 8)));
                    op.insert = false;
                    op
                },
                end(text, Some((1, 9))),
            ]),
        ),
        (
            "mark: with preds",
            false,
            ops(&[
                begin(text, Some((1, 8))).over(&[(1, 8)]),
                end(text, Some((1, 9))),
            ]),
        ),
        (
            "mark: on marks",
            true,
            ops(&[begin(text, Some((1, 15))), end(text, Some((1, 16)))]),
        ),
        (
            "mark: a name on a set",
            true,
            ops(&[named(int(root("x", SET)))]),
        ),
        (
            "mark: a name on a delete",
            false,
            ops(&[named(root("n", DELETE)).over(&[(1, 5)])]),
        ),
        (
            "mark: a name on a make",
            true,
            ops(&[named(root("x", MAKE_MAP))]),
        ),
        (
            "mark: expand on a set",
            true,
            ops(&[expanding(int(root("x", SET)))]),
        ),
        (
            "mark: expand on a delete",
            false,
            ops(&[expanding(root("n", DELETE)).over(&[(1, 5)])]),
        ),
        (
            "mark: expand on a make",
            true,
            ops(&[expanding(root("x", MAKE_MAP))]),
        ),
        (
            "mark: an unknown value type",
            true,
            ops(&[
                begin(text, Some((1, 8))).value(10, b"abc"),
                end(text, Some((1, 9))),
            ]),
        ),
        (
            "header: start op after a gap, no ops",
            false,
            header(|m| (m.start_op, m.ops) = (NEXT + 1, vec![])),
        ),
        (
            "header: start op after a gap that a concurrent change fills, no ops",
            false,
            header(|m| (m.start_op, m.ops) = (NEXT + 3, vec![])),
        ),
        ("header: no ops", true, header(|m| m.ops = vec![])),
        (
            "header: start op far above",
            true,
            header(|m| m.start_op = 1 << 30),
        ),
        (
            "header: start op of the last ids",
            false,
            header(|m| m.start_op = u64::from(u32::MAX) - 1),
        ),
        (
            "header: start op not above its deps",
            false,
            header(|m| m.start_op = 20),
        ),
        ("header: start op 1", false, header(|m| m.start_op = 1)),
        ("header: seq with a gap", false, header(|m| m.seq = 2)),
        ("header: an author", true, vec![two_authors]),
        ("header: two authors in one change", true, vec![two_in_one]),
        (
            "header: an author again in the actor's next change",
            false,
            second_author,
        ),
        (
            "header: an author in an actor's second change, and none before",
            false,
            late_author,
        ),
        (
            "header: an author of a length that is not there",
            true,
            header(|m| m.extra = vec![1, 9, 1]),
        ),
        (
            "header: extra bytes that are no footer",
            true,
            header(|m| m.extra = vec![9, 9]),
        ),
        (
            "header: one extra byte",
            true,
            header(|m| m.extra = vec![1]),
        ),
        (
            "header: an endless LEB128 in the extra bytes",
            true,
            header(|m| m.extra = vec![0xff; 12]),
        ),
        (
            "header: time at the end",
            false,
            header(|m| m.time = i64::MIN),
        ),
        (
            "header: another actor that no op names",
            false,
            header(|m| m.other_actors = vec![vec![1]]),
        ),
        (
            "header: the same dep twice",
            true,
            header(|m| m.deps = vec![m.deps[0]; 2]),
        ),
        ("header: an ancestor among the deps", true, {
            let first = change(&[int(root("x", SET))]);
            let mut both = then(first, &[int(root("y", SET))]);
            both[1].deps.push(hash(&good().encode()));
            both[1].deps.sort_unstable();
            both
        }),
        (
            "header: a dep that is not there",
            false,
            header(|m| m.deps.push(ChangeHash([0xff; 32]))),
        ),
    ]
}

/// What the oracle says of a case, the different things.
fn failures(models: &[ChangeModel]) -> Vec<String> {
    let mut all: Vec<Bytes> = vec![good().encode(), concurrent().encode()];
    all.extend(models.iter().map(ChangeModel::encode));
    let failure = |seed| survives(&all, &mut Source::seeded(seed)).err();
    let mut failures: Vec<_> = (0..TRIES).filter_map(failure).collect();
    failures.sort();
    failures.dedup();
    failures
}

#[test]
fn what_harms_automerge_and_what_does_not() {
    let mut wrong = Vec::new();
    for (what, harmless, models) in cases() {
        let failures = failures(&models);
        println!(
            "{what}: {}",
            if failures.is_empty() {
                "harmless"
            } else {
                "HARMFUL"
            }
        );
        for failure in failures.iter().take(3) {
            println!("    {}", failure.chars().take(160).collect::<String>());
        }
        if failures.is_empty() != harmless {
            wrong.push(what);
        }
    }
    assert!(wrong.is_empty(), "not as written down: {wrong:#?}");
}
