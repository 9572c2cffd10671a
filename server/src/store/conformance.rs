//! What every [`Store`] must do, as tests that each backend runs: see [`conformance`](crate::conformance).
//!
//! A backend gives a [`Bench`]: a fresh store, and a way to close it and open it again. What only one backend can
//! show (damage to its files, crashes) is tested beside it.

use bytes::Bytes;
use concord_shared::ids::{DocumentId, PrincipalId};

use super::{
    Durability, LogRecord, META_KEY_MAX_BYTES, META_VALUE_MAX_BYTES, Severity, Store, StoreError,
    StoredDocument, Write,
};

/// A place where a backend keeps its data, for one test.
pub(super) trait Bench {
    type Store: Store;

    /// A fresh, empty place with a store opened on it.
    fn create() -> (Self, Self::Store)
    where
        Self: Sized;

    /// Closes the store and opens the same place anew.
    fn reopen(&self, store: Self::Store) -> Self::Store;
}

pub(super) use model::random_writes_match_a_model;

mod model;

/// Makes one `#[test]` for each of the assertions below.
macro_rules! conformance {
    ($bench:ty) => {
        $crate::store::conformance::conformance!($bench:
            append_and_read_back,
            a_large_first_upload_is_a_snapshot,
            appends_must_be_contiguous,
            snapshots_stay_within_the_log,
            a_refused_batch_writes_nothing,
            a_batch_spans_documents_and_kinds,
            a_snapshot_replaces_the_records_below_keep_from,
            a_snapshot_in_the_batch_of_what_it_replaces,
            a_snapshot_replaces_the_former_one,
            log_is_cut_to_the_range,
            a_bounded_log_is_a_prefix,
            big_values_come_back,
            hostile_ids_are_kept_apart,
            documents_are_paged_in_order,
            an_unknown_document,
            meta_values,
            empty_commits,
            sound_documents_verify,
            random_writes_match_a_model,
        );
    };
    ($bench:ty: $($name:ident),* $(,)?) => {
        $(
            #[test]
            fn $name() {
                $crate::store::conformance::$name::<$bench>();
            }
        )*
    };
}
pub(super) use conformance;

pub(super) fn id(text: &str) -> DocumentId {
    DocumentId::new(text).unwrap()
}

fn principal(text: &str) -> PrincipalId {
    PrincipalId::new(text).unwrap()
}

/// The change at `index`: recognisable, and not all of one length.
pub(super) fn change(index: u64) -> Bytes {
    let padding = usize::try_from(index % 7).unwrap();
    Bytes::from(format!("change {index}{}", ".".repeat(padding)))
}

pub(super) fn append(document: &str, range: std::ops::Range<u64>) -> Write {
    Write::Append {
        document: id(document),
        first: range.start,
        received_at_ms: 1_000 + range.start,
        principal: principal("ann"),
        changes: range.map(change).collect(),
    }
}

pub(super) fn snapshot(document: &str, base: u64, keep_from: u64) -> Write {
    Write::Snapshot {
        document: id(document),
        base,
        keep_from,
        received_at_ms: 5_000 + base,
        snapshot: Bytes::from(format!("snapshot at {base}")),
        graph: Bytes::from(format!("graph of 0..{base}")),
    }
}

fn strict(store: &impl Store, writes: &[Write]) {
    store.commit(writes, Durability::Strict).unwrap();
}

/// All the housekeeping there is to do.
pub(super) fn tidy(store: &impl Store) {
    while store.tidy().unwrap() {}
}

fn open(store: &impl Store, document: &str) -> StoredDocument {
    store.open(&id(document)).unwrap().unwrap()
}

/// The changes of records that must be contiguous, from `first` on.
fn flatten(records: &[LogRecord], first: u64) -> Vec<Bytes> {
    let mut next = first;
    for record in records {
        assert_eq!(record.first, next);
        assert!(!record.changes.is_empty());
        next = record.end();
    }
    records
        .iter()
        .flat_map(|record| record.changes.iter().cloned())
        .collect()
}

fn changes(range: std::ops::Range<u64>) -> Vec<Bytes> {
    range.map(change).collect()
}

pub(super) fn append_and_read_back<B: Bench>() {
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

pub(super) fn a_large_first_upload_is_a_snapshot<B: Bench>() {
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

pub(super) fn appends_must_be_contiguous<B: Bench>() {
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

pub(super) fn snapshots_stay_within_the_log<B: Bench>() {
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

pub(super) fn a_refused_batch_writes_nothing<B: Bench>() {
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

pub(super) fn a_batch_spans_documents_and_kinds<B: Bench>() {
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

pub(super) fn a_snapshot_replaces_the_records_below_keep_from<B: Bench>() {
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

pub(super) fn a_snapshot_in_the_batch_of_what_it_replaces<B: Bench>() {
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

pub(super) fn a_snapshot_replaces_the_former_one<B: Bench>() {
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

pub(super) fn log_is_cut_to_the_range<B: Bench>() {
    let (_bench, store) = B::create();
    strict(&store, &[append("a", 0..10), append("a", 10..11)]);
    strict(&store, &[append("a", 11..20)]);
    for from in 0..=21 {
        for to in 0..=21 {
            let records = store.log(&id("a"), from, to, u64::MAX).unwrap();
            let wanted = changes(from.min(20)..to.min(20).max(from.min(20)));
            assert_eq!(
                flatten(&records, records.first().map_or(0, |r| r.first)),
                wanted
            );
            if let Some(record) = records.first() {
                assert_eq!(record.first, from);
            }
        }
    }
    assert!(
        store
            .log(&id("a"), u64::MAX, u64::MAX, u64::MAX)
            .unwrap()
            .is_empty()
    );
}

pub(super) fn a_bounded_log_is_a_prefix<B: Bench>() {
    let (_bench, store) = B::create();
    // Records that share a key on disk, single ones, and one that is kept apart from its record.
    strict(
        &store,
        &[append("a", 0..3), append("a", 3..4), append("a", 4..9)],
    );
    strict(&store, &[append("a", 9..10)]);
    let mut wide = append("a", 10..12);
    if let Write::Append { changes, .. } = &mut wide {
        changes[0] = Bytes::from(vec![b'x'; 9_000]);
    }
    strict(&store, &[wide]);
    strict(&store, &[append("a", 12..15), append("a", 15..16)]);
    let size = |records: &[LogRecord]| records.iter().map(LogRecord::bytes).sum::<u64>();
    for (from, to) in [(0, u64::MAX), (2, 14), (10, 11), (11, 12), (9, 16)] {
        let all = store.log(&id("a"), from, to, u64::MAX).unwrap();
        let bounds = (0..150).chain((8_900..9_300).step_by(7)).chain([u64::MAX]);
        for most_bytes in bounds {
            let some = store.log(&id("a"), from, to, most_bytes).unwrap();
            assert_eq!(some, all[..some.len()], "{from}..{to} in {most_bytes}");
            assert!(!some.is_empty(), "{from}..{to} in {most_bytes}");
            assert!(some.len() == 1 || size(&some) <= most_bytes);
            // No more than necessary is left out.
            if let Some(next) = all.get(some.len()) {
                assert!(size(&some) + next.bytes() > most_bytes);
            }
        }
        // Piece by piece it is the whole of it.
        let mut pieces = Vec::new();
        let mut next = from;
        loop {
            let piece = store.log(&id("a"), next, to, 40).unwrap();
            let Some(last) = piece.last() else { break };
            next = last.end();
            pieces.extend(piece);
        }
        assert_eq!(pieces, all);
    }
    assert!(store.log(&id("a"), 3, 3, 0).unwrap().is_empty());
    assert!(store.log(&id("b"), 0, 9, 0).unwrap().is_empty());
}

pub(super) fn big_values_come_back<B: Bench>() {
    let (bench, store) = B::create();
    let noise = |len: usize, seed: u32| -> Bytes {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        };
        std::iter::repeat_with(&mut next).take(len).collect()
    };
    let big = vec![
        noise(1_500_000, 1),
        change(1),
        noise(3_584, 2),
        noise(70_000, 3),
    ];
    strict(
        &store,
        &[
            Write::Append {
                document: id("a"),
                first: 0,
                received_at_ms: 1,
                principal: principal(&"p".repeat(256)),
                changes: big.clone(),
            },
            append("a", 4..5),
            Write::Snapshot {
                document: id("b"),
                base: 1,
                keep_from: 1,
                received_at_ms: 1,
                snapshot: noise(2_000_000, 4),
                graph: noise(300_000, 5),
            },
        ],
    );
    let store = bench.reopen(store);
    let document = open(&store, "a");
    assert_eq!(document.tail[0].changes, big);
    assert_eq!(document.tail[0].principal, principal(&"p".repeat(256)));
    assert_eq!(flatten(&document.tail, 0)[4..], changes(4..5));
    assert_eq!(
        flatten(&store.log(&id("a"), 2, 5, u64::MAX).unwrap(), 2)[..2],
        big[2..]
    );
    assert_eq!(
        store.snapshot(&id("b")).unwrap().unwrap().1,
        noise(2_000_000, 4)
    );
    assert_eq!(open(&store, "b").graph, Some(noise(300_000, 5)));
    for document in ["a", "b"] {
        assert_eq!(store.verify(&id(document)).unwrap(), []);
    }
    strict(&store, &[append("a", 5..6)]);
}

/// Ids are opaque text: none of them may reach into another's keys.
pub(super) fn hostile_ids_are_kept_apart<B: Bench>() {
    let longest = "\0".repeat(64);
    let ids = [
        "a",
        "a\0",
        "a\0\0",
        "a\0\u{10}",
        "a\0@",
        "a\u{1}",
        "aa",
        "A",
        "\0",
        "\u{10ffff}",
        "../a",
        "a/b",
        " ",
        "%00",
        longest.as_str(),
    ];
    let ids: Vec<&str> = ids
        .into_iter()
        .filter(|text| DocumentId::new(text).is_ok())
        .collect();
    let (bench, store) = B::create();
    for (round, text) in ids.iter().enumerate() {
        strict(&store, &[append(text, 0..round as u64 + 1)]);
        if round % 2 == 0 {
            strict(&store, &[snapshot(text, 1, 1)]);
        }
    }
    let store = bench.reopen(store);
    for (round, text) in ids.iter().enumerate() {
        let document = open(&store, text);
        assert_eq!(document.base, u64::from(round % 2 == 0), "{text:?}");
        assert_eq!(document.next(), round as u64 + 1, "{text:?}");
        assert_eq!(store.verify(&id(text)).unwrap(), [], "{text:?}");
    }
    let mut sorted: Vec<DocumentId> = ids.iter().map(|text| id(text)).collect();
    sorted.sort();
    let listed = store.documents(None, 100).unwrap();
    assert_eq!(
        listed
            .into_iter()
            .map(|info| info.document)
            .collect::<Vec<_>>(),
        sorted
    );
}

pub(super) fn documents_are_paged_in_order<B: Bench>() {
    let (_bench, store) = B::create();
    assert!(store.documents(None, 10).unwrap().is_empty());
    for number in 0..25 {
        strict(
            &store,
            &[append(&format!("doc {number:02}"), 0..number + 1)],
        );
    }
    strict(&store, &[snapshot("doc 03", 2, 2)]);
    let mut after = None;
    let mut seen = Vec::new();
    loop {
        let page = store.documents(after.as_ref(), 7).unwrap();
        assert!(page.len() <= 7);
        let Some(last) = page.last() else { break };
        after = Some(last.document.clone());
        seen.extend(page);
    }
    assert_eq!(seen.len(), 25);
    for (number, info) in (0..).zip(&seen) {
        let summary = info.summary.as_ref().unwrap();
        assert_eq!(info.document, id(&format!("doc {number:02}")));
        assert_eq!(
            (summary.changes, summary.created_at_ms),
            (number + 1, 1_000)
        );
        assert_eq!(summary.base, if number == 3 { 2 } else { 0 });
    }
    assert_eq!(
        seen[3].summary.as_ref().unwrap().snapshot_bytes,
        "snapshot at 2".len() as u64
    );
    // A page may start after a document that is not there.
    let page = store.documents(Some(&id("doc 100")), 1).unwrap();
    assert_eq!(page[0].document, id("doc 11"));
    assert!(store.documents(None, 0).unwrap().is_empty());
}

pub(super) fn an_unknown_document<B: Bench>() {
    let (_bench, store) = B::create();
    strict(&store, &[append("a", 0..1)]);
    let unknown = id("b");
    assert_eq!(store.open(&unknown).unwrap(), None);
    assert_eq!(store.snapshot(&unknown).unwrap(), None);
    assert_eq!(store.contents(&unknown).unwrap(), None);
    assert_eq!(store.snapshot(&id("a")).unwrap(), None);
    assert!(
        store
            .log(&unknown, 0, u64::MAX, u64::MAX)
            .unwrap()
            .is_empty()
    );
    let error = store.verify(&unknown).unwrap_err();
    assert!(matches!(error, StoreError::Unknown { document } if document == unknown));
}

pub(super) fn meta_values<B: Bench>() {
    let (bench, store) = B::create();
    assert_eq!(store.meta("peer-id").unwrap(), None);
    store.set_meta("peer-id", b"one").unwrap();
    store.set_meta("peer-id", b"two").unwrap();
    store.set_meta("storage-id", b"").unwrap();
    store
        .set_meta(&"k".repeat(META_KEY_MAX_BYTES), &[7; META_VALUE_MAX_BYTES])
        .unwrap();
    let store = bench.reopen(store);
    assert_eq!(store.meta("peer-id").unwrap(), Some(Bytes::from("two")));
    assert_eq!(store.meta("storage-id").unwrap(), Some(Bytes::new()));
    assert_eq!(store.meta("peer").unwrap(), None);
    assert_eq!(
        store.meta(&"k".repeat(META_KEY_MAX_BYTES)).unwrap(),
        Some(Bytes::from(vec![7; META_VALUE_MAX_BYTES]))
    );
    for (key, value) in [
        (String::new(), vec![]),
        ("k".repeat(META_KEY_MAX_BYTES + 1), vec![]),
        ("k".to_owned(), vec![0; META_VALUE_MAX_BYTES + 1]),
    ] {
        let error = store.set_meta(&key, &value).unwrap_err();
        assert!(matches!(error, StoreError::BadMeta { .. }));
    }
    assert!(store.documents(None, 10).unwrap().is_empty());
}

pub(super) fn empty_commits<B: Bench>() {
    let (bench, store) = B::create();
    strict(&store, &[]);
    store
        .commit(&[append("a", 0..2)], Durability::Relaxed)
        .unwrap();
    assert_eq!(open(&store, "a").next(), 2);
    strict(&store, &[]);
    let store = bench.reopen(store);
    assert_eq!(open(&store, "a").next(), 2);
}

pub(super) fn sound_documents_verify<B: Bench>() {
    let (_bench, store) = B::create();
    for number in 0..200 {
        strict(&store, &[append("a", number * 3..number * 3 + 3)]);
    }
    strict(&store, &[snapshot("a", 500, 400), snapshot("b", 7, 0)]);
    assert_eq!(store.verify(&id("a")).unwrap(), []);
    assert_eq!(store.verify(&id("b")).unwrap(), []);
    assert!(store.size_on_disk().unwrap() > 0);
}
