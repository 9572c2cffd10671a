//! What each way of reading gives.

use bytes::Bytes;
use concord_shared::ids::DocumentId;

use super::{Bench, append, change, changes, flatten, id, open, principal, snapshot, strict};
use crate::store::{
    Durability, LogRecord, META_KEY_MAX_BYTES, META_VALUE_MAX_BYTES, Store, StoreError, Write,
};

pub(crate) fn log_is_cut_to_the_range<B: Bench>() {
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

pub(crate) fn a_bounded_log_is_a_prefix<B: Bench>() {
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

pub(crate) fn big_values_come_back<B: Bench>() {
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
                arrivals: noise(100_000, 6),
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
    let arrivals = store.arrivals(&id("b")).unwrap();
    assert_eq!(arrivals, Some(noise(100_000, 6)));
    for document in ["a", "b"] {
        assert_eq!(store.verify(&id(document)).unwrap(), []);
    }
    strict(&store, &[append("a", 5..6)]);
}

/// Ids are opaque text: none of them may reach into another's keys.
pub(crate) fn hostile_ids_are_kept_apart<B: Bench>() {
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

pub(crate) fn documents_are_paged_in_order<B: Bench>() {
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

pub(crate) fn an_unknown_document<B: Bench>() {
    let (_bench, store) = B::create();
    strict(&store, &[append("a", 0..1)]);
    let unknown = id("b");
    assert!(store.holds(&id("a")).unwrap());
    assert!(!store.holds(&unknown).unwrap());
    assert_eq!(store.open(&unknown).unwrap(), None);
    assert_eq!(store.snapshot(&unknown).unwrap(), None);
    assert_eq!(store.contents(&unknown).unwrap(), None);
    assert_eq!(store.arrivals(&unknown).unwrap(), None);
    assert_eq!(store.arrivals(&id("a")).unwrap(), None);
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

pub(crate) fn meta_values<B: Bench>() {
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

pub(crate) fn empty_commits<B: Bench>() {
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

pub(crate) fn sound_documents_verify<B: Bench>() {
    let (_bench, store) = B::create();
    for number in 0..200 {
        strict(&store, &[append("a", number * 3..number * 3 + 3)]);
    }
    strict(&store, &[snapshot("a", 500, 400), snapshot("b", 7, 0)]);
    assert_eq!(store.verify(&id("a")).unwrap(), []);
    assert_eq!(store.verify(&id("b")).unwrap(), []);
    assert!(store.size_on_disk().unwrap() > 0);
}
