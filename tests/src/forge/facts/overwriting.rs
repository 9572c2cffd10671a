//! What ops overwrite, and with what action.

use super::*;

pub(super) fn cases() -> Vec<Case> {
    let text = (1, 3);
    let mut uses_concurrent = change(&[int(root("concurrent", SET)).over(&[(2, 21)])]);
    uses_concurrent.start_op = 30;
    let mut without_deps_pred = change(&[put(5)]);
    without_deps_pred.deps = vec![];
    let table = || change(&[root("table", MAKE_TABLE)]);
    vec![
        ("a good change", true, ops(&[put(5)])),
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
    ]
}
