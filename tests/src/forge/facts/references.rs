//! What ops are about: objects, keys, elements.

use super::*;

pub(super) fn cases() -> Vec<Case> {
    let text = (1, 3);
    let mut without_deps = change(&[int(at_key(1, "k", SET)).over(&[(1, 10)])]);
    without_deps.deps = vec![];
    let mut uses_concurrent = change(&[int(root("concurrent", SET)).over(&[(2, 21)])]);
    let mut unrelated = uses_concurrent.clone();
    unrelated.ops = vec![int(OpModel::at_element((1, 22), None, SET)).inserting()];
    unrelated.other_actors = vec![vec![3]];
    uses_concurrent.start_op = 30;
    unrelated.start_op = 30;
    vec![
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
        // The highest counter that fits: one more would not.
        (
            "element: the last counter",
            false,
            ops(&[int(OpModel::at_element(
                text,
                Some((1, u64::from(u32::MAX))),
                SET,
            ))
            .inserting()]),
        ),
        (
            "pred: the last counter",
            false,
            ops(&[int(root("k", SET)).over(&[(1, i64::from(u32::MAX))])]),
        ),
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
    ]
}
