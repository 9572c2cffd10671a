//! Deleted documents: hidden, and back as they were; purged, and gone.

use concord_shared::ids::DocumentId;

use super::{Bench, access, append, entry, id, open, principal, snapshot, strict, tidy};
use crate::store::{Contents, Durability, Remains, Severity, Store, StoreError, Tombstone, Write};

pub(crate) fn delete(document: &str) -> Write {
    Write::Delete {
        document: id(document),
        at_ms: 77,
        by: principal("bo"),
        bytes: 1 << 40,
    }
}

pub(crate) fn undelete(document: &str) -> Write {
    Write::Undelete {
        document: id(document),
    }
}

pub(crate) fn purge(document: &str) -> Write {
    Write::Purge {
        document: id(document),
        by: Some(principal("cy")),
    }
}

fn refused(store: &impl Store, write: Write) -> StoreError {
    let document = write.document().clone();
    // Nor is anything else of the batch written.
    let batch = [append("bystander", 0..1), write];
    let error = store.commit(&batch, Durability::Strict).unwrap_err();
    assert_eq!(error.severity(), Severity::Rejected);
    assert_eq!(error.document(), Some(&document));
    assert_eq!(store.open(&id("bystander")).unwrap(), None);
    error
}

fn listed(store: &impl Store) -> Vec<String> {
    let listed = store.documents(None, 100).unwrap();
    listed
        .iter()
        .map(|info| info.document.as_str().to_owned())
        .collect()
}

fn is_hidden(store: &impl Store, document: &str) {
    let hidden = id(document);
    assert!(!store.holds(&hidden).unwrap());
    assert_eq!(store.open(&hidden).unwrap(), None);
    assert_eq!(store.snapshot(&hidden).unwrap(), None);
    assert_eq!(store.contents(&hidden).unwrap(), None);
    assert_eq!(store.arrivals(&hidden).unwrap(), None);
    let log = store.log(&hidden, 0, u64::MAX, u64::MAX).unwrap();
    assert!(log.is_empty());
    assert!(!listed(store).iter().any(|listed| listed == document));
    assert_eq!(store.verify(&hidden).unwrap(), []);
}

/// Deleted ones take no place on a page, wherever it begins.
fn pages(store: &impl Store) -> Vec<DocumentId> {
    let mut seen: Vec<DocumentId> = Vec::new();
    while let [info] = store.documents(seen.last(), 1).unwrap().as_slice() {
        seen.push(info.document.clone());
    }
    seen
}

pub(crate) fn a_deleted_document_is_hidden_and_comes_back<B: Bench>() {
    let (bench, store) = B::create();
    for document in ["a", "b", "c", "d"] {
        let writes = [access(document, 0), append(document, 0..9)];
        strict(&store, &writes);
        strict(&store, &[snapshot(document, 6, 4), access(document, 1)]);
    }
    let read = |store: &B::Store, document: &str| -> (Contents, _, _) {
        let id = id(document);
        let log = store.log(&id, 0, u64::MAX, u64::MAX).unwrap();
        let contents = store.contents(&id).unwrap().unwrap();
        (contents, log, store.arrivals(&id).unwrap())
    };
    let before = read(&store, "b");
    strict(&store, &[delete("b"), delete("c")]);
    tidy(&store);
    let check = |store: &B::Store| {
        for document in ["b", "c"] {
            is_hidden(store, document);
            let tombstone = Tombstone {
                at_ms: 77,
                by: principal("bo"),
                bytes: 1 << 40,
                purged: false,
                purged_by: None,
                remains: Remains::Store,
            };
            let found = store.tombstone(&id(document)).unwrap();
            assert_eq!(found, Some(tombstone));
            // Who may have it back?
            let newest = store.access(&id(document)).unwrap();
            assert_eq!(newest, Some((1, entry(1))));
            assert_eq!(
                store
                    .access_log(&id(document), 0, 9, u64::MAX)
                    .unwrap()
                    .len(),
                2
            );
        }
        assert_eq!(listed(store), ["a", "d"]);
        assert_eq!(pages(store), [id("a"), id("d")]);
        assert_eq!(store.tombstone(&id("a")).unwrap(), None);
        for write in [
            append("b", 9..10),
            append("b", 0..1),
            snapshot("b", 9, 9),
            access("b", 2),
            delete("b"),
        ] {
            assert!(matches!(refused(store, write), StoreError::Deleted { .. }));
        }
    };
    check(&store);
    let store = bench.reopen(store);
    check(&store);
    strict(&store, &[undelete("b")]);
    let store = bench.reopen(store);
    assert_eq!(read(&store, "b"), before);
    assert_eq!(store.tombstone(&id("b")).unwrap(), None);
    assert_eq!(listed(&store), ["a", "b", "d"]);
    is_hidden(&store, "c");
    strict(&store, &[append("b", 9..10), access("b", 2)]);
    assert_eq!(open(&store, "b").next(), 10);
    assert_eq!(store.verify(&id("b")).unwrap(), []);
}

pub(crate) fn what_can_be_deleted_and_undone<B: Bench>() {
    let (_bench, store) = B::create();
    for write in [delete("a"), undelete("a"), purge("a")] {
        assert!(matches!(refused(&store, write), StoreError::Unknown { .. }));
    }
    strict(&store, &[append("a", 0..1), access("only", 0)]);
    for write in [undelete("a"), purge("a"), undelete("only"), purge("only")] {
        let error = refused(&store, write);
        assert!(matches!(error, StoreError::NotDeleted { .. }));
    }
    // An access log alone can be deleted, too; no document begins there then.
    strict(&store, &[delete("only")]);
    let error = refused(&store, append("only", 0..1));
    assert!(matches!(error, StoreError::Deleted { .. }));
    strict(&store, &[purge("only")]);
    tidy(&store);
    assert_eq!(store.access(&id("only")).unwrap(), None);
    // Several in a batch, each checked against those before it.
    strict(
        &store,
        &[
            append("a", 1..2),
            delete("a"),
            undelete("a"),
            append("a", 2..3),
        ],
    );
    assert_eq!(open(&store, "a").next(), 3);
    assert_eq!(store.tombstone(&id("a")).unwrap(), None);
    let batch = [delete("a"), append("a", 3..4)];
    let error = store.commit(&batch, Durability::Strict).unwrap_err();
    assert!(matches!(error, StoreError::Deleted { .. }));
    assert_eq!(open(&store, "a").next(), 3);
    strict(&store, &[append("new", 0..1), delete("new"), purge("new")]);
    is_hidden(&store, "new");
}

pub(crate) fn a_purged_document_is_gone<B: Bench>() {
    let (bench, store) = B::create();
    for document in ["a", "b"] {
        strict(&store, &[access(document, 0), append(document, 0..9)]);
        strict(&store, &[snapshot(document, 6, 4), access(document, 1)]);
    }
    strict(&store, &[delete("a")]);
    strict(&store, &[purge("a")]);
    let check = |store: &B::Store| {
        is_hidden(store, "a");
        assert_eq!(store.access(&id("a")).unwrap(), None);
        assert!(
            store
                .access_log(&id("a"), 0, 9, u64::MAX)
                .unwrap()
                .is_empty()
        );
        let tombstone = store.tombstone(&id("a")).unwrap().unwrap();
        assert_eq!((tombstone.at_ms, tombstone.by), (77, principal("bo")));
        assert_eq!(
            (tombstone.purged, tombstone.purged_by),
            (true, Some(principal("cy")))
        );
        for write in [delete("a"), undelete("a"), purge("a")] {
            assert!(matches!(refused(store, write), StoreError::Purged { .. }));
        }
        // Its id is not used again.
        for write in [append("a", 0..1), snapshot("a", 3, 3), access("a", 0)] {
            assert!(matches!(refused(store, write), StoreError::Deleted { .. }));
        }
        assert_eq!(open(store, "b").next(), 9);
        assert_eq!(store.access(&id("b")).unwrap(), Some((1, entry(1))));
        assert_eq!(store.verify(&id("b")).unwrap(), []);
    };
    check(&store);
    tidy(&store);
    check(&store);
    let store = bench.reopen(store);
    check(&store);
    tidy(&store);
    let tombstone = store.tombstone(&id("a")).unwrap().unwrap();
    assert_ne!(tombstone.remains, Remains::Store);
    check(&store);
}

pub(crate) fn tombstones_are_paged_in_order<B: Bench>() {
    let (_bench, store) = B::create();
    assert!(store.tombstones(None, 10).unwrap().is_empty());
    let mut documents = Vec::new();
    for number in 0..25 {
        let document = format!("doc {number:02}");
        strict(&store, &[append(&document, 0..1)]);
        if number % 3 != 0 {
            strict(&store, &[delete(&document)]);
            documents.push(document);
        }
    }
    strict(&store, &[purge("doc 01")]);
    let mut after = None;
    let mut seen = Vec::new();
    loop {
        let page = store.tombstones(after.as_ref(), 5).unwrap();
        assert!(page.len() <= 5);
        let Some((last, _)) = page.last() else { break };
        after = Some(last.clone());
        seen.extend(page);
    }
    assert_eq!(seen.len(), documents.len());
    for (document, (found, tombstone)) in documents.iter().zip(&seen) {
        assert_eq!(*found, id(document));
        assert_eq!(tombstone.purged, document == "doc 01");
        assert_eq!(store.tombstone(found).unwrap().as_ref(), Some(tombstone));
    }
    assert!(store.tombstones(None, 0).unwrap().is_empty());
    assert_eq!(pages(&store).len(), 9);
}
