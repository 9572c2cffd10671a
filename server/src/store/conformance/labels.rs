//! Labels: documents are found by those of their last access entry.

use concord_shared::ids::DocumentId;

use super::{
    Bench, access, append, delete, id, label, labelled, labels, purge, snapshot, strict, tidy,
    undelete,
};
use crate::store::{Durability, Ids, Severity, Store, StoreError, Write};

fn access_with(document: &str, number: u64, labels: &[u64]) -> Write {
    let mut write = access(document, number);
    if let Write::Access { labels: given, .. } = &mut write {
        *given = labels.iter().copied().map(label).collect();
    }
    write
}

fn relabel(document: &str, labels: &[u64]) -> Write {
    Write::Label {
        document: id(document),
        labels: labels.iter().copied().map(label).collect(),
    }
}

/// Of each of the first labels the documents that it finds.
fn found(store: &impl Store) -> [Vec<String>; 5] {
    let found = [0, 1, 2, 3, 4].map(|number| labelled(store, label(number)));
    assert_eq!(store.mislabelled().unwrap(), []);
    found
}

fn texts(found: [&[&str]; 5]) -> [Vec<String>; 5] {
    found.map(|ids| ids.iter().map(|id| (*id).to_owned()).collect())
}

pub(crate) fn documents_are_found_by_their_labels<B: Bench>() {
    let (bench, store) = B::create();
    assert_eq!(found(&store), texts([&[], &[], &[], &[], &[]]));
    strict(&store, &[access_with("b", 0, &[0, 1]), append("b", 0..1)]);
    // The same one twice, and no document yet.
    strict(&store, &[access_with("a", 0, &[1, 1])]);
    strict(
        &store,
        &[access_with("ab", 0, &[1, 3]), access_with("c", 0, &[])],
    );
    let first = texts([&["b"], &["a", "ab", "b"], &[], &["ab"], &[]]);
    assert_eq!(found(&store), first);
    let store = bench.reopen(store);
    assert_eq!(found(&store), first);
    // An entry takes the place of the one before it, also within a batch.
    let writes = [
        access_with("b", 1, &[2]),
        access_with("b", 2, &[1, 3]),
        snapshot("b", 1, 1),
        access_with("ab", 1, &[3, 4]),
        access_with("c", 1, &[0]),
    ];
    strict(&store, &writes);
    tidy(&store);
    let second = texts([&["c"], &["a", "b"], &[], &["ab", "b"], &["ab"]]);
    assert_eq!(found(&store), second);
    // What is refused changes nothing.
    let refused = [relabel("a", &[0]), access_with("b", 9, &[0])];
    let error = store.commit(&refused, Durability::Strict).unwrap_err();
    assert_eq!(error.severity(), Severity::Rejected);
    let store = bench.reopen(store);
    assert_eq!(found(&store), second);
    for document in ["a", "b", "ab", "c"] {
        assert_eq!(store.verify(&id(document)).unwrap(), []);
    }
    assert!(!store.is_labelled(&id("b"), &label(0)).unwrap());
    assert!(!store.is_labelled(&id("nobody"), &label(0)).unwrap());
    // As many as a list may have, and all others instead.
    let many = |low: u64| (low..low + 256).collect::<Vec<_>>();
    strict(&store, &[access_with("b", 3, &many(1_000))]);
    strict(&store, &[access_with("b", 4, &many(1_128))]);
    for (number, is_there) in [(1_000, false), (1_128, true), (1_255, true), (1_383, true)] {
        assert_eq!(labelled(&store, label(number)).len(), usize::from(is_there));
    }
    assert_eq!(store.verify(&id("b")).unwrap(), []);
    assert_eq!(found(&store)[3], ["ab"]);
}

pub(crate) fn labels_go_with_what_is_purged<B: Bench>() {
    let (bench, store) = B::create();
    for document in ["a", "b", "c"] {
        strict(
            &store,
            &[access_with(document, 0, &[0, 1]), append(document, 0..1)],
        );
    }
    strict(&store, &[delete("a"), delete("b")]);
    tidy(&store);
    // They can come back.
    let store = bench.reopen(store);
    let all = texts([&["a", "b", "c"], &["a", "b", "c"], &[], &[], &[]]);
    assert_eq!(found(&store), all);
    strict(&store, &[undelete("b")]);
    strict(&store, &[purge("a")]);
    tidy(&store);
    let left = texts([&["b", "c"], &["b", "c"], &[], &[], &[]]);
    assert_eq!(found(&store), left);
    let store = bench.reopen(store);
    assert_eq!(found(&store), left);
}

pub(crate) fn what_can_be_labelled<B: Bench>() {
    let (bench, store) = B::create();
    let error = store.commit(&[relabel("a", &[0])], Durability::Strict);
    assert!(matches!(error.unwrap_err(), StoreError::Unknown { .. }));
    strict(&store, &[append("a", 0..1), access("listed", 0)]);
    for document in ["deleted", "purged"] {
        strict(
            &store,
            &[
                access(document, 0),
                append(document, 0..1),
                delete(document),
            ],
        );
    }
    strict(&store, &[purge("purged")]);
    let writes = ["a", "listed", "deleted"].map(|document| relabel(document, &[3, 4]));
    strict(&store, &writes);
    let error = store.commit(&[relabel("purged", &[0])], Durability::Strict);
    assert!(matches!(error.unwrap_err(), StoreError::Purged { .. }));
    tidy(&store);
    let all: &[&str] = &["a", "deleted", "listed"];
    let expected = texts([&[], &[], &[], all, all]);
    assert_eq!(found(&store), expected);
    // It is no entry, and hides nothing.
    assert_eq!(store.access(&id("a")).unwrap(), None);
    strict(
        &store,
        &[undelete("deleted"), append("deleted", 1..2), access("a", 0)],
    );
    let store = bench.reopen(store);
    let other: &[&str] = &["deleted", "listed"];
    let both = labels(0)
        .iter()
        .all(|label| labelled(&store, *label) == ["a"]);
    assert!(both);
    assert_eq!(labelled(&store, label(3)), other);
    for document in ["a", "deleted", "listed"] {
        assert_eq!(store.verify(&id(document)).unwrap(), []);
    }
}

pub(crate) fn ids_are_listed_of_all_that_is_stored<B: Bench>() {
    let (bench, store) = B::create();
    strict(&store, &[append("a", 0..1), access("listed", 0)]);
    strict(&store, &[append("deleted", 0..1), delete("deleted")]);
    strict(
        &store,
        &[append("purged", 0..1), delete("purged"), purge("purged")],
    );
    tidy(&store);
    let store = bench.reopen(store);
    for limit in 1..5 {
        let mut ids: Vec<DocumentId> = Vec::new();
        loop {
            let some = store.ids(ids.last(), limit).unwrap();
            assert!(some.len() <= limit);
            if some.is_empty() {
                break;
            }
            ids.extend(some);
        }
        assert_eq!(ids, ["a", "deleted", "listed"].map(id));
    }
}

pub(crate) fn documents_are_listed_among_others<B: Bench>() {
    let (_bench, store) = B::create();
    for document in ["a", "a1", "a2", "a20", "b", "deleted"] {
        strict(&store, &[access(document, 0), append(document, 0..2)]);
    }
    strict(&store, &[access("a3", 0), delete("deleted")]);
    let among = |ids: &Ids, limit| {
        let found = store.documents_among(ids, limit).unwrap();
        let ids = found.iter().map(|info| info.document.to_string());
        ids.collect::<Vec<_>>()
    };
    let a = Ids::beginning_with("a");
    assert_eq!(among(&a, 9), ["a", "a1", "a2", "a20"]);
    assert_eq!(among(&a, 2), ["a", "a1"]);
    assert_eq!(among(&a.clone().behind(&id("a1")), 9), ["a2", "a20"]);
    assert_eq!(among(&Ids::only("a2"), 9), ["a2"]);
    assert_eq!(among(&Ids::between(b"a1", b"a20"), 9), ["a1", "a2"]);
    for none in [
        Ids::only("a3"),
        Ids::only("deleted"),
        Ids::beginning_with("c"),
        a.behind(&id("b")),
        Ids::only("x").behind(&id("x")),
    ] {
        assert!(among(&none, 9).is_empty(), "{none:?}");
    }
    for listed in store.documents(None, 9).unwrap() {
        assert_eq!(store.info(&listed.document).unwrap(), Some(listed));
    }
    for none in ["a3", "deleted", "nobody"] {
        assert_eq!(store.info(&id(none)).unwrap(), None);
    }
}
