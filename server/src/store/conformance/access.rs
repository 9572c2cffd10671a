//! The access log: entries in order, beside the changes and before there are any.

use bytes::Bytes;

use super::{Bench, access, append, entry, id, open, snapshot, strict, tidy};
use crate::store::{ACCESS_ENTRY_MAX_BYTES, Durability, Severity, Store, StoreError, Write};

fn newest(store: &impl Store, document: &str) -> Option<(u64, Bytes)> {
    store.access(&id(document)).unwrap()
}

/// All entries; whatever the page, they are the same.
fn entries(store: &impl Store, document: &str) -> Vec<(u64, Bytes)> {
    let read = |from: u64, limit: usize, most_bytes: u64| {
        let some = store.access_log(&id(document), from, limit, most_bytes);
        let some = some.unwrap();
        let bytes: usize = some.iter().map(|(_, entry)| entry.len()).sum();
        assert!(some.len() <= limit && (some.len() <= 1 || bytes as u64 <= most_bytes));
        some
    };
    let all = read(0, usize::MAX, u64::MAX);
    let by_number = (1..=all.len() + 1).map(|page| (page, u64::MAX));
    let by_bytes = [0, 1, 9, 4096, 1 << 20].map(|bytes| (usize::MAX, bytes));
    for (limit, most_bytes) in by_number.chain(by_bytes) {
        let mut paged = Vec::new();
        loop {
            let some = read(paged.len() as u64, limit, most_bytes);
            if some.is_empty() {
                break;
            }
            paged.extend(some);
        }
        assert_eq!(paged, all);
    }
    assert_eq!(all.last().cloned(), newest(store, document));
    all
}

fn numbered(count: u64) -> Vec<(u64, Bytes)> {
    (0..count).map(|number| (number, entry(number))).collect()
}

pub(crate) fn access_entries_are_kept_in_order<B: Bench>() {
    let (bench, store) = B::create();
    assert_eq!(newest(&store, "a"), None);
    assert!(entries(&store, "a").is_empty());
    strict(&store, &[access("a", 0), append("a", 0..2)]);
    strict(&store, &[append("a", 2..3), access("a", 1), access("a", 2)]);
    strict(&store, &[access("b", 0)]);
    // Neither a snapshot nor housekeeping touches it.
    strict(&store, &[snapshot("a", 3, 3), access("a", 3)]);
    tidy(&store);
    let check = |store: &B::Store| {
        assert_eq!(entries(store, "a"), numbered(4));
        assert_eq!(entries(store, "b"), numbered(1));
        assert_eq!(open(store, "a").next(), 3);
        assert_eq!(store.verify(&id("a")).unwrap(), []);
        assert!(
            store
                .access_log(&id("a"), 4, 9, u64::MAX)
                .unwrap()
                .is_empty()
        );
        assert!(
            store
                .access_log(&id("a"), u64::MAX, 9, u64::MAX)
                .unwrap()
                .is_empty()
        );
        assert!(
            store
                .access_log(&id("a"), 0, 0, u64::MAX)
                .unwrap()
                .is_empty()
        );
    };
    check(&store);
    let store = bench.reopen(store);
    check(&store);
    // The writer must find where the log goes on after reopening, too.
    strict(&store, &[access("a", 4)]);
    assert_eq!(entries(&store, "a"), numbered(5));
}

pub(crate) fn an_access_log_is_no_document<B: Bench>() {
    let (bench, store) = B::create();
    strict(&store, &[append("a", 0..1), append("c", 0..1)]);
    strict(&store, &[access("b", 0), access("b", 1)]);
    let store = bench.reopen(store);
    let only = id("b");
    assert!(!store.holds(&only).unwrap());
    assert_eq!(store.open(&only).unwrap(), None);
    assert_eq!(store.snapshot(&only).unwrap(), None);
    assert_eq!(store.contents(&only).unwrap(), None);
    assert_eq!(store.arrivals(&only).unwrap(), None);
    assert!(store.log(&only, 0, u64::MAX, u64::MAX).unwrap().is_empty());
    assert_eq!(entries(&store, "b"), numbered(2));
    assert_eq!(store.verify(&only).unwrap(), []);
    for limit in [2, 10] {
        let listed = store.documents(None, limit).unwrap();
        let listed: Vec<_> = listed.into_iter().map(|info| info.document).collect();
        assert_eq!(listed, [id("a"), id("c")]);
    }
    assert_eq!(store.unlisted().unwrap(), []);
    // It begins like any other: with changes here, and with a snapshot of any base.
    strict(&store, &[append("b", 0..2)]);
    strict(&store, &[access("d", 0)]);
    strict(&store, &[snapshot("d", 70, 70)]);
    assert_eq!(open(&store, "b").created_at_ms, 1_000);
    assert_eq!(
        (open(&store, "b").next(), open(&store, "d").next()),
        (2, 70)
    );
    assert_eq!(store.documents(None, 10).unwrap().len(), 4);
    assert_eq!(entries(&store, "b"), numbered(2));
}

pub(crate) fn access_entries_must_be_contiguous_and_short<B: Bench>() {
    let (_bench, store) = B::create();
    let refused = |write: Write, wanted: u64| {
        let batch = [append("a", 0..1), access("c", 0), write];
        let error = store.commit(&batch, Durability::Strict).unwrap_err();
        assert_eq!(error.severity(), Severity::Rejected);
        assert_eq!(error.document(), Some(&id("b")));
        assert!(matches!(error, StoreError::BadAccess { expected, .. } if expected == wanted));
        // Nor is anything else of the batch written.
        assert_eq!(store.open(&id("a")).unwrap(), None);
        assert_eq!(newest(&store, "c"), None);
    };
    refused(access("b", 1), 0);
    strict(&store, &[access("b", 0), access("b", 1)]);
    refused(access("b", 1), 2);
    refused(access("b", 0), 2);
    refused(access("b", 3), 2);
    refused(access("b", u64::MAX), 2);
    let of_length = |len: usize| Write::Access {
        document: id("b"),
        number: 2,
        entry: Bytes::from(vec![b'e'; len]),
        labels: Vec::new(),
    };
    refused(of_length(ACCESS_ENTRY_MAX_BYTES + 1), 2);
    strict(&store, &[of_length(ACCESS_ENTRY_MAX_BYTES)]);
    assert_eq!(entries(&store, "b").len(), 3);
}

pub(crate) fn access_entries_of_all_lengths<B: Bench>() {
    let (bench, store) = B::create();
    let lengths = [0, 1, 3_582, 3_583, 3_584, 3_585, 7_168, 7_169, 48 * 1024];
    let stored: Vec<(u64, Bytes)> = (0..)
        .zip(lengths)
        .map(|(number, len)| (number, (0..=250).cycle().take(len).collect()))
        .collect();
    let writes: Vec<Write> = stored
        .iter()
        .map(|(number, entry)| Write::Access {
            document: id("a"),
            number: *number,
            entry: entry.clone(),
            labels: Vec::new(),
        })
        .collect();
    strict(&store, &writes);
    let store = bench.reopen(store);
    assert_eq!(entries(&store, "a"), stored);
    assert_eq!(store.verify(&id("a")).unwrap(), []);
}
