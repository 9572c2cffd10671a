//! Values and marks.

use super::*;

pub(super) fn cases() -> Vec<Case> {
    let expanding = |mut op: OpModel| {
        op.expand = true;
        op
    };
    let named = |mut op: OpModel| {
        op.mark_name = Some("bold".to_owned());
        op
    };
    let text = (1, 3);
    vec![
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
    ]
}
