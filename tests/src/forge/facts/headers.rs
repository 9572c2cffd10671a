//! What comes before and after the ops.

use automerge::ChangeHash;

use super::super::headers::author;
use super::*;

pub(super) fn cases() -> Vec<Case> {
    let mut two_authors = change(&[int(root("x", SET))]);
    two_authors.extra = author(b"one");
    let mut second_author = then(two_authors.clone(), &[int(root("y", SET))]);
    second_author[1].extra = author(b"one");
    let mut late_author = then(change(&[int(root("x", SET))]), &[int(root("y", SET))]);
    late_author[1].extra = author(b"one");
    let mut two_in_one = change(&[int(root("x", SET))]);
    two_in_one.extra = [author(b"one"), author(b"two")].concat();
    vec![
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
