//! Labels for documents whose lists were stored before there were any ([`search`](super::search)).
//!
//! Done once for each store, when a server starts on it and before anybody is served: from then on each list comes with its
//! labels. That it was done is one of the server's own values, which is written last. A crash before that leaves some
//! labels, which is no harm, and the next start does all of it again: what is there already is not written again.

use concord_shared::ids::DocumentId;
use tracing::{info, warn};

use super::grants::Entry;
use super::search::labels_of;
use crate::store::{Durability, Store, StoreError, Write};

/// The server's own value that says which labels there are, and the one of today.
const MARK: (&str, &[u8]) = ("labels", &[1]);

/// Documents that are looked at in one go.
const DOCUMENTS_PER_READ: usize = 256;

/// Labels after which what was found is written: with the last document's, some hundreds more.
const LABELS_PER_COMMIT: usize = 512;

/// Sees to it that all documents have the labels of their lists. Blocks; only for who commits.
pub fn label_once(store: &dyn Store) -> Result<(), StoreError> {
    let (key, value) = MARK;
    if store.meta(key)?.as_deref() == Some(value) {
        return Ok(());
    }
    let labelled = label_all(store)?;
    if labelled > 0 {
        info!(documents = labelled, "documents are found by their lists");
    }
    // With all that came before.
    store.set_meta(key, value)
}

/// Gives all documents the labels of their lists; how many have a list. What can't be read keeps those that it has.
pub fn label_all(store: &dyn Store) -> Result<usize, StoreError> {
    let (mut after, mut labelled) = (None, 0);
    let (mut writes, mut labels) = (Vec::new(), 0);
    loop {
        let ids = store.ids(after.as_ref(), DOCUMENTS_PER_READ)?;
        let Some(last) = ids.last() else {
            break;
        };
        after = Some(last.clone());
        for document in ids {
            let Some(write) = write(store, document)? else {
                continue;
            };
            labelled += 1;
            if let Write::Label { labels: some, .. } = &write {
                labels += some.len();
            }
            writes.push(write);
            if labels >= LABELS_PER_COMMIT || writes.len() >= DOCUMENTS_PER_READ {
                store.commit(&writes, Durability::Relaxed)?;
                writes.clear();
                labels = 0;
            }
        }
    }
    if !writes.is_empty() {
        store.commit(&writes, Durability::Relaxed)?;
    }
    Ok(labelled)
}

fn write(store: &dyn Store, document: DocumentId) -> Result<Option<Write>, StoreError> {
    let newest = match store.access(&document) {
        Err(error @ StoreError::Corrupt { .. }) => {
            // Operators find it all the same, and can give it another list.
            warn!(%document, %error, "is found by nobody in its list, which can't be read");
            return Ok(None);
        }
        newest => newest?,
    };
    let list = newest.and_then(|(_, entry)| Entry::decode(&entry));
    Ok(list.map(|entry| Write::Label {
        document,
        labels: labels_of(&entry.list),
    }))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use concord_shared::access::{AccessList, Role, Subject};
    use concord_shared::ids::PrincipalId;

    use super::*;
    use crate::store::{MemoryStore, SledOptions, SledStore};

    fn id(text: &str) -> DocumentId {
        DocumentId::new(text).unwrap()
    }

    fn list(names: &[&str]) -> AccessList {
        let mut list = AccessList::default();
        for name in names {
            list.set(Subject::Principal(name), Role::Owner);
        }
        list
    }

    fn entry(list: AccessList) -> Bytes {
        let by = "ann".to_owned();
        Entry { at_ms: 0, by, list }.encode()
    }

    /// As builds wrote them that knew of no labels.
    fn said(document: &str, number: u64, entry: Bytes) -> Write {
        Write::Access {
            document: id(document),
            number,
            entry,
            labels: Vec::new(),
        }
    }

    fn deleted(document: &str) -> Write {
        Write::Delete {
            document: id(document),
            at_ms: 0,
            by: PrincipalId::new("ann").unwrap(),
            bytes: 0,
        }
    }

    /// There, deleted, purged, not there yet, and one whose list can't be read; and so many more.
    fn old(store: &dyn Store, more: usize) {
        let mut writes = vec![
            said("a", 0, entry(list(&["ann", "bob"]))),
            said("a", 1, entry(list(&["ann"]))),
            said("deleted", 0, entry(list(&["ann"]))),
            deleted("deleted"),
            said("purged", 0, entry(list(&["ann"]))),
            deleted("purged"),
            Write::Purge {
                document: id("purged"),
                by: None,
            },
            said("later", 0, Bytes::from_static(b"\x02of a later version")),
        ];
        for number in 0..more {
            let names = ["cyd", "dan", "eve"];
            writes.push(said(&format!("of {number}"), 0, entry(list(&names))));
        }
        store.commit(&writes, Durability::Strict).unwrap();
    }

    fn found(store: &dyn Store, name: &str) -> Vec<DocumentId> {
        let [label] = labels_of(&list(&[name]))[..] else {
            panic!("one name has one label");
        };
        store.labelled(&label, None, usize::MAX).unwrap()
    }

    #[test]
    fn what_was_stored_before_is_found_by_its_newest_list() {
        let folder = tempfile::tempdir().unwrap();
        let open = || SledStore::open(&SledOptions::new(folder.path())).unwrap();
        let store = open();
        old(&store, 700);
        assert!(found(&store, "ann").is_empty());
        label_once(&store).unwrap();
        drop(store);
        let store = open();
        assert_eq!(found(&store, "ann"), [id("a"), id("deleted")]);
        assert!(found(&store, "bob").is_empty());
        assert_eq!(found(&store, "eve").len(), 700);
        assert_eq!(store.mislabelled().unwrap(), []);
        for document in ["a", "deleted", "of 699"] {
            assert_eq!(store.verify(&id(document)).unwrap(), []);
        }
    }

    /// It is marked as done in the end: where it was interrupted all of it is done again.
    #[test]
    fn it_is_done_once_and_to_its_end() {
        let store = MemoryStore::new();
        old(&store, 400);
        label_all(&store).unwrap();
        assert!(store.unsynced_commits() > 1);
        for surviving in 0..=store.unsynced_commits() {
            let left = store.crash(surviving);
            let is_whole = found(&left, "eve").len() == 400;
            assert!(surviving > 0 || !is_whole);
            label_once(&left).unwrap();
            assert_eq!(found(&left.crash(0), "eve").len(), 400);
        }
        label_once(&store).unwrap();
        let unlabelled = said("b", 0, entry(list(&["ann"])));
        store.commit(&[unlabelled], Durability::Strict).unwrap();
        label_once(&store).unwrap();
        assert_eq!(found(&store, "ann"), [id("a"), id("deleted")]);
        // By who asks for it, always.
        label_all(&store).unwrap();
        assert_eq!(found(&store, "ann"), [id("a"), id("b"), id("deleted")]);
    }
}
