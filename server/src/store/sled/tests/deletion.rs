//! What of a purged document goes, and what a crash or damage makes of a deleted one.

use super::*;
use crate::store::Remains;
use crate::store::conformance::{delete, label, purge, tidy, undelete};

/// Keys of a document, of whatever kind.
fn keys_of(store: &SledStore, document: &str) -> usize {
    let mut keys = DocumentKeys::new(&id(document));
    let low = keys.start().to_vec();
    store.sled().range(low.as_slice()..keys.end()).count()
}

/// [`populated`], with more in document "b" than is swept in one go, and something that no build writes.
fn long() -> (OnDisk, SledStore) {
    let (bench, store) = populated();
    let blob = Bytes::from(vec![b's'; 700 * values::PIECE_MAX_BYTES]);
    let write = Write::Snapshot {
        document: id("b"),
        base: 6,
        keep_from: 2,
        received_at_ms: 9,
        snapshot: blob,
        graph: Bytes::new(),
        arrivals: Bytes::new(),
    };
    store.commit(&[write], Durability::Strict).unwrap();
    let mut stray = DocumentKeys::new(&id("b")).end().to_vec();
    *stray.last_mut().unwrap() = 0x77;
    store
        .sled()
        .insert(stray, "of a kind that is not known")
        .unwrap();
    (bench, store)
}

fn commit(store: &SledStore, writes: &[Write]) {
    store.commit(writes, Durability::Strict).unwrap();
}

fn remains(store: &SledStore) -> Remains {
    store.tombstone(&id("b")).unwrap().unwrap().remains
}

fn others_are_whole(store: &SledStore) {
    for document in ["a", "c"] {
        assert_eq!(store.open(&id(document)).unwrap().unwrap().next(), 1);
        assert_eq!(store.verify(&id(document)).unwrap(), []);
    }
    assert_eq!(store.documents(None, 9).unwrap().len(), 2);
}

#[test]
fn a_purge_removes_every_key_in_small_steps() {
    let (_bench, store) = long();
    let before = store.sled().len();
    commit(&store, &[delete("b")]);
    tidy(&store);
    let kept = keys_of(&store, "b");
    assert!(kept > 700);
    commit(&store, &[purge("b")]);
    assert_eq!(remains(&store), Remains::Store);
    let mut steps = 1;
    while store.tidy().unwrap() {
        steps += 1;
        assert_eq!(store.open(&id("b")).unwrap(), None);
        assert_eq!(store.access(&id("b")).unwrap(), None);
        assert_eq!(store.verify(&id("b")).unwrap(), []);
        others_are_whole(&store);
    }
    assert!(steps >= 3, "{steps}");
    assert_eq!(keys_of(&store, "b"), 0);
    assert_eq!(remains(&store), Remains::Files);
    others_are_whole(&store);
    assert!(store.sled().len() < before - 700);
}

/// At every step of the sweep: a process that dies, and one that ends. Opened again, the purge is gone on with.
#[test]
fn a_purge_that_was_interrupted_goes_on() {
    let (bench, mut store) = long();
    commit(&store, &[delete("b"), purge("b")]);
    let mut steps = 0;
    loop {
        let (_folder, left) = crash::after_a_kill(&bench);
        assert_eq!(left.open(&id("b")).unwrap(), None);
        assert_eq!(left.mislabelled().unwrap(), []);
        tidy(&left);
        assert!(left.labelled(&label(0), None, 9).unwrap().is_empty());
        assert_eq!(keys_of(&left, "b"), 0);
        assert_eq!(remains(&left), Remains::Files);
        others_are_whole(&left);
        store = bench.reopen(store);
        let more = store.tidy().unwrap();
        steps += 1;
        if !more && remains(&store) == Remains::Files {
            break;
        }
    }
    assert!(steps >= 3, "{steps}");
    // What is done is not done again.
    let store = bench.reopen(store);
    assert!(!store.tidy().unwrap());
    assert_eq!(keys_of(&store, "b"), 0);
}

/// It is not forgotten, and keeps nothing else from being done meanwhile.
#[test]
fn a_purge_that_can_not_be_swept_is_tried_again() {
    let (_bench, store) = populated();
    commit(&store, &[delete("b"), purge("b")]);
    let key = keys::tombstone(&id("b"));
    let good = store.sled().get(&key).unwrap().unwrap();
    let mut bad = good.to_vec();
    bad[2] ^= 1;
    store.sled().insert(&key, bad).unwrap();
    while matches!(store.tidy(), Ok(true)) {}
    store.sled().insert(&key, good).unwrap();
    assert!(!store.tidy().unwrap());
    assert_eq!(remains(&store), Remains::Store);
    commit(&store, &[delete("a"), purge("a")]);
    store.rewrite(&|| true).unwrap();
    assert_eq!(remains(&store), Remains::Nothing);
    let other = store.tombstone(&id("a")).unwrap().unwrap();
    assert_eq!(other.remains, Remains::Nothing);
}

/// A purge takes the place of the sweep that a snapshot asked for.
#[test]
fn a_purge_right_after_a_compaction() {
    let (_bench, store) = long();
    commit(&store, &[snapshot("b", 6, 6), delete("b"), purge("b")]);
    tidy(&store);
    assert_eq!(keys_of(&store, "b"), 0);
    assert_eq!(remains(&store), Remains::Files);
}

#[test]
fn a_damaged_document_can_be_deleted_and_purged() {
    for lost in [Place::Record, Place::Log { first: 4 }] {
        let (bench, store) = populated();
        let mut keys = DocumentKeys::new(&id("b"));
        let good = store.sled().get(keys.at(lost)).unwrap().unwrap();
        let mut bad = good.to_vec();
        bad[2] ^= 1;
        store.sled().insert(keys.at(lost), bad).unwrap();
        // The writer must come upon it.
        let store = bench.reopen(store);
        assert_ne!(store.verify(&id("b")).unwrap(), []);
        commit(&store, &[delete("b")]);
        assert_eq!(store.open(&id("b")).unwrap(), None);
        others_are_whole(&store);
        // It comes back as damaged as it was.
        commit(&store, &[undelete("b")]);
        assert_eq!(store.documents(None, 9).unwrap().len(), 3);
        assert_ne!(store.verify(&id("b")).unwrap(), []);
        commit(&store, &[delete("b"), purge("b")]);
        tidy(&store);
        assert_eq!(keys_of(&store, "b"), 0);
        others_are_whole(&store);
    }
}

/// What a damaged tombstone is of stays hidden, and untouched; the others are listed.
#[test]
fn a_damaged_tombstone_hides_its_document() {
    let (bench, store) = populated();
    commit(&store, &[delete("a"), delete("b"), delete("c"), purge("b")]);
    // What the writer remembers of it would do in place of what is damaged.
    let store = bench.reopen(store);
    let key = keys::tombstone(&id("b"));
    let good = store.sled().get(&key).unwrap().unwrap();
    for at in 0..good.len() {
        let mut bad = good.to_vec();
        bad[at] ^= 0x10;
        store.sled().insert(&key, bad).unwrap();
        assert_eq!(store.open(&id("b")).unwrap(), None);
        assert!(store.documents(None, 9).unwrap().is_empty());
        let problem = Problem::Checksum {
            part: Part::Tombstone,
        };
        assert_eq!(store.verify(&id("b")).unwrap(), [problem]);
        for error in [
            store.tombstone(&id("b")).unwrap_err(),
            store.access(&id("b")).unwrap_err(),
            store
                .commit(&[undelete("b")], Durability::Strict)
                .unwrap_err(),
        ] {
            assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
        }
        let listed = store.tombstones(None, 9).unwrap();
        let listed: Vec<_> = listed.into_iter().map(|(document, _)| document).collect();
        assert_eq!(listed, [id("a"), id("c")]);
    }
    let kept = keys_of(&store, "b");
    let store = bench.reopen(store);
    tidy(&store);
    assert_eq!(keys_of(&store, "b"), kept);
}

#[test]
fn the_first_tombstone_raises_the_directorys_format() {
    let (_bench, store) = OnDisk::create();
    let format = |store: &SledStore| store.sled().get(FORMAT_KEY).unwrap().unwrap().to_vec();
    commit(&store, &[append("a", 0..1)]);
    assert_eq!(format(&store), [PLAIN_DIRECTORY]);
    commit(&store, &[delete("a")]);
    assert_eq!(format(&store), [GUARDED_DIRECTORY]);
    // For good: an older build would not know what a purge left.
    commit(&store, &[undelete("a")]);
    assert_eq!(format(&store), [GUARDED_DIRECTORY]);
}

/// Beside one that deletes and undeletes all the time, readers see all of a document or nothing.
#[test]
fn readers_see_all_of_a_document_or_nothing() {
    let (_bench, store) = populated();
    let whole = store.contents(&id("b")).unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for _ in 0..300 {
                store.commit(&[delete("b")], Durability::Relaxed).unwrap();
                store.commit(&[undelete("b")], Durability::Relaxed).unwrap();
            }
            store
                .commit(&[delete("b"), purge("b")], Durability::Relaxed)
                .unwrap();
            tidy(&store);
        });
        let mut seen = [0, 0];
        while !writer.is_finished() {
            let found = store.contents(&id("b")).unwrap();
            seen[usize::from(found.is_some())] += 1;
            assert!(found.is_none() || found == whole);
            assert!((2..=3).contains(&store.documents(None, 9).unwrap().len()));
            let newest = store.access(&id("b")).unwrap();
            assert!(newest.is_none() || newest == Some((3, entry(3))));
        }
        writer.join().unwrap();
        assert!(seen[0] > 3 && seen[1] > 3, "{seen:?}");
    });
}

/// The log cut anywhere: a document is there, or deleted and whole, or purged and swept to its end.
#[test]
fn a_torn_end_leaves_a_document_in_one_of_its_states() {
    let (bench, store) = OnDisk::create();
    // As much between each of them as all of it is, so that the log is cut there, too.
    let pad = |round: u64| {
        for first in round * 10..round * 10 + 10 {
            let mut write = append("pad", first..first + 1);
            if let Write::Append { changes, .. } = &mut write {
                changes[0] = Bytes::from(vec![b'p'; 3_000]);
            }
            commit(&store, &[write]);
        }
    };
    pad(0);
    commit(&store, &[access("b", 0), append("b", 0..3)]);
    let whole = store.contents(&id("b")).unwrap();
    let writes = [delete("b"), undelete("b"), delete("b"), purge("b")];
    for (round, write) in (1..).zip(writes) {
        pad(round);
        commit(&store, &[write]);
    }
    tidy(&store);
    pad(5);
    let mut states = std::collections::BTreeSet::new();
    crash::cut_anywhere(&bench, store, |store, cut| {
        let tombstone = store.tombstone(&id("b")).unwrap();
        let contents = store.contents(&id("b")).unwrap();
        // Never one that nothing leads to.
        assert_eq!(store.mislabelled().unwrap(), [], "{cut}");
        let state = match tombstone {
            None if contents.is_none() => "not there yet",
            None => {
                assert_eq!(store.verify(&id("b")).unwrap(), [], "{cut}");
                "there"
            }
            Some(tombstone) if tombstone.purged => {
                tidy(store);
                assert_eq!(keys_of(store, "b"), 0, "{cut}");
                let found = store.labelled(&label(0), None, 9).unwrap();
                assert!(found.is_empty(), "{cut}");
                "purged"
            }
            Some(_) => {
                commit(store, &[undelete("b")]);
                assert_eq!(store.contents(&id("b")).unwrap(), whole, "{cut}");
                "deleted"
            }
        };
        states.insert(state);
    });
    assert_eq!(states.len(), 4, "{states:?}");
}
