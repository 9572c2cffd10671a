//! What is on disk of labels: two keys each, of which neither is there without the other, and none of what was purged.

use super::rewrite::{NEEDLE, needles, noise};
use super::*;
use crate::store::conformance::{delete, label, purge, tidy};
use crate::store::{LABEL_BYTES, Label};

fn commit(store: &SledStore, writes: &[Write]) {
    store.commit(writes, Durability::Strict).unwrap();
}

#[test]
fn a_damaged_or_missing_entry_is_told_and_made_good() {
    let (_bench, store) = populated();
    for label in labels(3) {
        let key = keys::labelled(label, &id("b"));
        let good = store.sled().get(&key).unwrap().unwrap();
        let mut bad = good.to_vec();
        bad[2] ^= 1;
        store.sled().insert(&key, bad).unwrap();
        let part = Part::Labelled;
        assert_eq!(
            store.verify(&id("b")).unwrap(),
            [Problem::Checksum { part }]
        );
        // That it is there is all that it says.
        assert_eq!(store.labelled(&label, None, 9).unwrap(), [id("b")]);
        store.sled().remove(&key).unwrap();
        assert_eq!(store.verify(&id("b")).unwrap(), [Problem::Missing { part }]);
        assert_eq!(store.mislabelled().unwrap(), []);
        let write = Write::Label {
            document: id("b"),
            labels: labels(3),
        };
        commit(&store, &[write]);
        assert_eq!(store.sled().get(&key).unwrap(), Some(good));
        assert_eq!(store.verify(&id("b")).unwrap(), []);
    }
}

/// What is there already is not written again: sled's log would grow with each start of a server.
#[test]
fn the_same_labels_again_are_nothing() {
    let (_bench, store) = populated();
    let database = store.database().unwrap();
    let mut batch = Batch::default();
    database.label(&mut batch, &id("b"), &labels(3)).unwrap();
    assert!(batch.is_empty());
    database.label(&mut batch, &id("b"), &labels(4)).unwrap();
    assert!(!batch.is_empty());
}

/// The log cut anywhere: both keys of each label are there, or neither; and where the sweep of what is purged was cut
/// short, no entry that nothing leads to.
#[test]
fn a_torn_end_leaves_no_entry_without_a_tag() {
    const LABELS: u64 = 200;
    let (bench, store) = OnDisk::create();
    let mut write = access("b", 0);
    if let Write::Access { labels, .. } = &mut write {
        *labels = (0..LABELS).map(label).collect();
    }
    commit(&store, &[write]);
    commit(&store, &[delete("b"), purge("b")]);
    tidy(&store);
    let entries = |store: &SledStore| {
        let is_found = |number: &u64| store.is_labelled(&id("b"), &label(*number)).unwrap();
        (0..LABELS).filter(is_found).count() as u64
    };
    let mut halves = 0;
    crash::cut_anywhere(&bench, store, |store, cut| {
        assert_eq!(store.mislabelled().unwrap(), [], "{cut}");
        let found = entries(store);
        let is_purged = store
            .tombstone(&id("b"))
            .unwrap()
            .is_some_and(|of| of.purged);
        if is_purged {
            halves += usize::from(0 < found && found < LABELS);
            tidy(store);
            assert_eq!(entries(store), 0, "{cut}");
            assert_eq!(store.ids(None, 9).unwrap(), [], "{cut}");
        } else {
            let is_there = store.access(&id("b")).unwrap().is_some();
            assert_eq!(found, if is_there { LABELS } else { 0 }, "{cut}");
        }
    });
    assert!(halves > 3, "{halves}");
}

/// By its label nobody finds the id of what was erased: not in the keys, nor in any file.
#[test]
fn what_was_purged_leaves_no_id_behind_a_label() {
    let (bench, store) = OnDisk::create();
    let path = options(&bench.0).path;
    let (name, secret) = NEEDLE.split_at(LABEL_BYTES);
    let secret = str::from_utf8(secret).unwrap();
    let name = Label(name.try_into().unwrap());
    for document in ["a", secret, "z"] {
        let mut write = access(document, 0);
        if let Write::Access { labels, .. } = &mut write {
            labels.push(name);
        }
        let mut change = append(document, 0..1);
        if let Write::Append { changes, .. } = &mut change {
            changes[0] = noise(90_000, 1).into();
        }
        commit(&store, &[write, change]);
    }
    commit(&store, &[delete(secret), purge(secret)]);
    let has_id = |key: &[u8]| {
        let id = secret.as_bytes();
        key.windows(id.len()).any(|part| part == id)
    };
    let keys_with_it = |store: &SledStore| -> Vec<_> {
        let keys = store.sled().iter().keys().map(Result::unwrap);
        keys.filter(|key| has_id(key)).collect()
    };
    assert!(keys_with_it(&store).len() > 6);
    assert!(needles(&path) > 0);
    tidy(&store);
    assert_eq!(keys_with_it(&store), [keys::tombstone(&id(secret))]);
    // The files still have it.
    assert!(needles(&path) > 0);
    store.rewrite(&|| true).unwrap();
    assert_eq!(needles(&path), 0);
    assert_eq!(keys_with_it(&store), [keys::tombstone(&id(secret))]);
    assert_eq!(store.labelled(&name, None, 9).unwrap(), [id("a"), id("z")]);
    assert_eq!(store.labelled(&label(0), None, 9).unwrap().len(), 2);
    let store = bench.reopen(store);
    assert_eq!(needles(&path), 0);
    assert_eq!(store.mislabelled().unwrap(), []);
}
