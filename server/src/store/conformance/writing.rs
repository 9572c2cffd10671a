//! What commits keep, and what they refuse.

use bytes::Bytes;

use super::{
    Bench, append, arrivals, changes, flatten, id, open, principal, snapshot, strict, tidy,
};
use crate::store::{Durability, LogRecord, Severity, Store, StoreError, Write};

pub(crate) fn append_and_read_back<B: Bench>() {
    let (bench, store) = B::create();
    strict(&store, &[append("a", 0..3)]);
    strict(&store, &[append("a", 3..4)]);
    let store = bench.reopen(store);
    let document = open(&store, "a");
    assert_eq!(document.created_at_ms, 1_000);
    assert_eq!(
        (document.base, document.retained_from, document.next()),
        (0, 0, 4)
    );
    assert_eq!((document.graph, document.snapshot_bytes), (None, 0));
    assert_eq!(
        document.tail,
        [
            LogRecord {
                first: 0,
                received_at_ms: 1_000,
                principal: principal("ann"),
                changes: changes(0..3)
            },
            LogRecord {
                first: 3,
                received_at_ms: 1_003,
                principal: principal("ann"),
                changes: changes(3..4)
            },
        ]
    );
    // The writer must find the log's end after reopening, too.
    strict(&store, &[append("a", 4..6)]);
    assert_eq!(open(&store, "a").next(), 6);
}

pub(crate) fn a_large_first_upload_is_a_snapshot<B: Bench>() {
    let (bench, store) = B::create();
    strict(&store, &[snapshot("a", 259_778, 259_778)]);
    strict(&store, &[append("a", 259_778..259_780)]);
    let store = bench.reopen(store);
    let document = open(&store, "a");
    assert_eq!(document.created_at_ms, 5_000 + 259_778);
    assert_eq!((document.base, document.retained_from), (259_778, 259_778));
    assert_eq!(document.graph, Some(Bytes::from("graph of 0..259778")));
    assert_eq!(document.snapshot_bytes, "snapshot at 259778".len() as u64);
    assert_eq!(flatten(&document.tail, 259_778), changes(259_778..259_780));
    let stored = store.snapshot(&id("a")).unwrap();
    assert_eq!(stored, Some((259_778, Bytes::from("snapshot at 259778"))));
    // The first upload may also be of nothing.
    strict(&store, &[snapshot("empty", 0, 0)]);
    strict(&store, &[append("empty", 0..1)]);
    assert_eq!(open(&store, "empty").next(), 1);
}

pub(crate) fn appends_must_be_contiguous<B: Bench>() {
    let (_bench, store) = B::create();
    let refused = |write: Write, wanted: u64| {
        let error = store.commit(&[write], Durability::Strict).unwrap_err();
        assert_eq!(error.severity(), Severity::Rejected);
        assert_eq!(error.document(), Some(&id("a")));
        assert!(matches!(error, StoreError::OutOfOrder { expected, .. } if expected == wanted));
    };
    refused(append("a", 1..2), 0);
    assert_eq!(store.open(&id("a")).unwrap(), None);
    strict(&store, &[append("a", 0..3)]);
    refused(append("a", 2..4), 3);
    refused(append("a", 4..5), 3);
    refused(append("a", 0..3), 3);
    let nothing = store
        .commit(&[append("a", 3..3)], Durability::Strict)
        .unwrap_err();
    assert!(matches!(nothing, StoreError::BadAppend { changes: 0, .. }));
    assert_eq!(flatten(&open(&store, "a").tail, 0), changes(0..3));
    strict(&store, &[append("a", 3..4)]);
}

pub(crate) fn snapshots_stay_within_the_log<B: Bench>() {
    let (_bench, store) = B::create();
    strict(&store, &[append("a", 0..10), snapshot("a", 6, 2)]);
    for (base, keep_from) in [(11, 11), (5, 5), (8, 9)] {
        let error = store
            .commit(&[snapshot("a", base, keep_from)], Durability::Strict)
            .unwrap_err();
        assert_eq!(error.severity(), Severity::Rejected);
        assert!(matches!(
            error,
            StoreError::BadSnapshot {
                former_base: 6,
                next: 10,
                ..
            }
        ));
    }
    assert_eq!(open(&store, "a").base, 6);
    // The same base again is allowed: a better snapshot of the same changes.
    strict(&store, &[snapshot("a", 6, 6)]);
    strict(&store, &[snapshot("a", 10, 10)]);
    assert_eq!(open(&store, "a").next(), 10);
}

pub(crate) fn a_refused_batch_writes_nothing<B: Bench>() {
    let (bench, store) = B::create();
    strict(&store, &[append("a", 0..1)]);
    let batch = [
        append("a", 1..2),
        append("new", 0..1),
        snapshot("a", 2, 2),
        append("b", 7..8),
    ];
    let error = store.commit(&batch, Durability::Strict).unwrap_err();
    assert_eq!(error.document(), Some(&id("b")));
    let check = |store: &B::Store| {
        assert_eq!(flatten(&open(store, "a").tail, 0), changes(0..1));
        assert_eq!(open(store, "a").base, 0);
        assert_eq!(store.open(&id("new")).unwrap(), None);
    };
    check(&store);
    let store = bench.reopen(store);
    check(&store);
    // Nor may the refused batch have left its mark on what comes next.
    strict(&store, &batch[..3]);
    assert_eq!(open(&store, "a").base, 2);
}

pub(crate) fn a_batch_spans_documents_and_kinds<B: Bench>() {
    let (bench, store) = B::create();
    strict(
        &store,
        &[
            append("a", 0..2),
            append("b", 0..1),
            append("a", 2..5),
            snapshot("c", 9, 9),
            append("c", 9..10),
            append("a", 5..6),
        ],
    );
    let store = bench.reopen(store);
    assert_eq!(flatten(&open(&store, "a").tail, 0), changes(0..6));
    assert_eq!(flatten(&open(&store, "b").tail, 0), changes(0..1));
    assert_eq!(flatten(&open(&store, "c").tail, 9), changes(9..10));
    // What came together keeps its own time and principal.
    let times: Vec<u64> = open(&store, "a")
        .tail
        .iter()
        .map(|record| record.received_at_ms)
        .collect();
    assert_eq!(times, [1_000, 1_002, 1_005]);
}

pub(crate) fn a_snapshot_replaces_the_records_below_keep_from<B: Bench>() {
    let (bench, store) = B::create();
    for first in (0..100).step_by(10) {
        strict(&store, &[append("a", first..first + 10)]);
    }
    strict(&store, &[append("b", 0..5)]);
    // 42 lies within the record 40..50.
    strict(&store, &[snapshot("a", 75, 42)]);
    let check = |store: &B::Store| {
        let document = open(store, "a");
        assert_eq!(
            (document.base, document.retained_from, document.next()),
            (75, 42, 100)
        );
        assert_eq!(flatten(&document.tail, 75), changes(75..100));
        assert_eq!(
            flatten(&store.log(&id("a"), 0, 75, u64::MAX).unwrap(), 42),
            changes(42..75)
        );
        assert_eq!(flatten(&open(store, "b").tail, 0), changes(0..5));
    };
    check(&store);
    let store = bench.reopen(store);
    check(&store);
    tidy(&store);
    check(&store);
    // Up to a record's very end; and what was given up does not come back.
    for keep_from in [50, 45] {
        strict(&store, &[snapshot("a", 80, keep_from)]);
        tidy(&store);
        assert_eq!(open(&store, "a").retained_from, 50);
        assert_eq!(
            flatten(&store.log(&id("a"), 0, 60, u64::MAX).unwrap(), 50),
            changes(50..60)
        );
    }
    // All of it.
    strict(&store, &[snapshot("a", 100, 100)]);
    let document = open(&store, "a");
    assert_eq!(
        (document.base, document.retained_from, document.next()),
        (100, 100, 100)
    );
    assert!(document.tail.is_empty());
    assert!(
        store
            .log(&id("a"), 0, u64::MAX, u64::MAX)
            .unwrap()
            .is_empty()
    );
    let store = {
        // A crash before the housekeeping leaves remains, which must not be taken for the document's end.
        let store = bench.reopen(store);
        assert_eq!(open(&store, "a").next(), 100);
        assert_eq!(store.verify(&id("a")).unwrap(), []);
        store
    };
    strict(&store, &[append("a", 100..101)]);
    tidy(&store);
    assert_eq!(open(&store, "a").retained_from, 100);
    assert_eq!(
        flatten(&store.log(&id("a"), 0, 200, u64::MAX).unwrap(), 100),
        changes(100..101)
    );
    assert_eq!(store.verify(&id("a")).unwrap(), []);
}

pub(crate) fn a_snapshot_in_the_batch_of_what_it_replaces<B: Bench>() {
    let (bench, store) = B::create();
    strict(&store, &[append("a", 0..4)]);
    strict(
        &store,
        &[
            append("a", 4..6),
            snapshot("a", 6, 6),
            append("a", 6..7),
            snapshot("a", 7, 6),
            append("a", 7..9),
        ],
    );
    let store = bench.reopen(store);
    let document = open(&store, "a");
    assert_eq!(
        (document.base, document.retained_from, document.next()),
        (7, 6, 9)
    );
    assert_eq!(flatten(&document.tail, 7), changes(7..9));
    assert_eq!(
        store.snapshot(&id("a")).unwrap(),
        Some((7, Bytes::from("snapshot at 7")))
    );
    assert_eq!(store.verify(&id("a")).unwrap(), []);
}

pub(crate) fn a_snapshot_replaces_the_former_one<B: Bench>() {
    let (bench, store) = B::create();
    let sizes = [100_000, 10, 50_000, 0, 4_096, 3_584];
    for (round, size) in sizes.into_iter().enumerate() {
        let next = round as u64;
        strict(&store, &[append("a", next..next + 1)]);
        strict(
            &store,
            &[Write::Snapshot {
                document: id("a"),
                base: next + 1,
                keep_from: next + 1,
                received_at_ms: 9,
                snapshot: Bytes::from(vec![b's'; size]),
                graph: Bytes::from(vec![b'g'; size / 2]),
                arrivals: Bytes::from(vec![b'a'; size / 3]),
            }],
        );
        let document = open(&store, "a");
        assert_eq!(
            (document.base, document.snapshot_bytes),
            (next + 1, size as u64)
        );
        assert_eq!(document.graph.unwrap().len(), size / 2);
        assert_eq!(
            store.snapshot(&id("a")).unwrap().unwrap().1,
            vec![b's'; size]
        );
        let arrivals = store.arrivals(&id("a")).unwrap();
        assert_eq!(arrivals.map_or(0, |bytes| bytes.len()), size / 3);
        // Nothing of the former generation is left behind.
        assert_eq!(store.verify(&id("a")).unwrap(), []);
    }
    let store = bench.reopen(store);
    let document = open(&store, "a");
    assert_eq!(
        (document.created_at_ms, document.snapshot_bytes),
        (1_000, 3_584)
    );
}

pub(crate) fn arrivals_go_with_their_snapshot<B: Bench>() {
    let (bench, store) = B::create();
    let known = |store: &B::Store| store.arrivals(&id("a")).unwrap();
    strict(&store, &[append("a", 0..4)]);
    assert_eq!(known(&store), None);
    strict(&store, &[snapshot("a", 2, 0), append("a", 4..5)]);
    assert_eq!(known(&store), Some(arrivals(2)));
    // Of two in a batch the last counts; one that is refused leaves nothing.
    strict(&store, &[snapshot("a", 3, 0), snapshot("a", 4, 1)]);
    store
        .commit(&[snapshot("a", 9, 9)], Durability::Strict)
        .unwrap_err();
    let store = bench.reopen(store);
    assert_eq!(known(&store), Some(arrivals(4)));
    tidy(&store);
    assert_eq!(known(&store), Some(arrivals(4)));
    // And those of a generation that says nothing are not known, whatever the former one said.
    let mut silent = snapshot("a", 5, 1);
    if let Write::Snapshot { arrivals, .. } = &mut silent {
        *arrivals = Bytes::new();
    }
    strict(&store, &[silent]);
    assert_eq!(known(&store), None);
    tidy(&store);
    assert_eq!(store.verify(&id("a")).unwrap(), []);
}
