use std::path::Path;

use tempfile::TempDir;

use super::{
    keys::{FORMAT_KEY, GUARDED_DIRECTORY, PLAIN_DIRECTORY, Place},
    *,
};
use crate::store::Severity;
use crate::store::conformance::{Bench, access, append, conformance, entry, id, labels, snapshot};

mod beside;
mod crash;
mod damage;
mod deletion;
mod labels;
mod rewrite;

struct OnDisk(TempDir);

fn options(folder: &TempDir) -> SledOptions {
    SledOptions::new(folder.path().join("data"))
}

impl Bench for OnDisk {
    type Store = SledStore;

    fn create() -> (Self, SledStore) {
        let folder = tempfile::tempdir().unwrap();
        let store = SledStore::open(&options(&folder)).unwrap();
        (Self(folder), store)
    }

    fn reopen(&self, store: SledStore) -> SledStore {
        drop(store);
        SledStore::open(&options(&self.0)).unwrap()
    }
}

conformance!(OnDisk);

/// Three documents, one of them with a snapshot of several pieces, and a log record and an access entry of several.
fn populated() -> (OnDisk, SledStore) {
    let (bench, store) = OnDisk::create();
    let big = |byte: u8| Bytes::from(vec![byte; 3 * values::PIECE_MAX_BYTES + 10]);
    store
        .commit(
            &[
                append("a", 0..1),
                access("b", 0),
                append("b", 0..4),
                access("b", 1),
                access("b", 2),
                access("b", 3),
                Write::Snapshot {
                    document: id("b"),
                    base: 3,
                    keep_from: 0,
                    received_at_ms: 1,
                    snapshot: big(b's'),
                    graph: big(b'g'),
                    arrivals: big(b'a'),
                },
                append("c", 0..1),
            ],
            Durability::Strict,
        )
        .unwrap();
    let mut write = append("b", 4..5);
    if let Write::Append { changes, .. } = &mut write {
        changes[0] = big(b'c');
    }
    store.commit(&[write], Durability::Strict).unwrap();
    store
        .commit(&[append("b", 5..6)], Durability::Strict)
        .unwrap();
    (bench, store)
}

/// Every key of document "b".
fn places(store: &SledStore) -> Vec<(Vec<u8>, Place)> {
    let keys = DocumentKeys::new(&id("b"));
    let all = store.sled().iter().keys().map(|key| key.unwrap().to_vec());
    all.filter_map(|key| keys.parse(&key).map(|place| (key, place)))
        .collect()
}

#[test]
fn every_flipped_byte_is_found_and_named() {
    let (_bench, store) = populated();
    for (key, place) in places(&store) {
        let good = store.sled().get(&key).unwrap().unwrap();
        for at in [0, good.len() / 2, good.len() - 1] {
            let mut bad = good.to_vec();
            bad[at] ^= 0x10;
            store.sled().insert(&key, bad).unwrap();
            let problems = store.verify(&id("b")).unwrap();
            assert_eq!(
                problems,
                [Problem::Checksum { part: place.part() }],
                "{place:?} at {at}"
            );
        }
        store.sled().insert(&key, &good).unwrap();
    }
    assert_eq!(store.verify(&id("b")).unwrap(), []);
}

#[test]
fn every_missing_key_is_found() {
    let (_bench, store) = populated();
    for (key, place) in places(&store) {
        let good = store.sled().remove(&key).unwrap().unwrap();
        let problems = store.verify(&id("b")).unwrap();
        match place {
            Place::Record => assert_eq!(
                problems,
                [Problem::Missing {
                    part: Part::Document
                }]
            ),
            // The last record's absence is what an append that never came looks like.
            Place::Log { first: 5 } | Place::Access { number: 3 } => assert_eq!(problems, []),
            // What it is found by is not looked for without it.
            Place::Label(_) => {
                assert_eq!(problems, []);
                assert_eq!(store.mislabelled().unwrap(), [id("b")]);
            }
            Place::Log { first } => {
                let found = if first == 0 { 4 } else { 5 };
                assert_eq!(
                    problems,
                    [Problem::Gap {
                        expected: first,
                        found
                    }]
                );
            }
            _ => assert_eq!(
                problems,
                [Problem::Missing { part: place.part() }],
                "{place:?}"
            ),
        }
        store.sled().insert(&key, good).unwrap();
    }
    assert_eq!(store.verify(&id("b")).unwrap(), []);
}

#[test]
fn all_that_is_wrong_is_told() {
    let (_bench, store) = populated();
    let mut keys = DocumentKeys::new(&id("b"));
    let mut lost = Vec::new();
    for place in [
        Place::Snapshot {
            generation: 1,
            piece: 0,
        },
        Place::Snapshot {
            generation: 1,
            piece: 2,
        },
        Place::Graph {
            generation: 1,
            piece: 3,
        },
        Place::Body { first: 4, piece: 1 },
    ] {
        store.sled().remove(keys.at(place)).unwrap().unwrap();
        lost.push(Problem::Missing { part: place.part() });
    }
    let mut stray = keys.end().to_vec();
    *stray.last_mut().unwrap() = 0x77;
    store
        .sled()
        .insert(stray, "of a kind that is not known")
        .unwrap();
    lost.push(Problem::Stray { part: Part::Stray });
    let mut problems = store.verify(&id("b")).unwrap();
    for problem in lost {
        let at = problems.iter().position(|found| *found == problem);
        problems.remove(at.unwrap_or_else(|| panic!("{problem} not in {problems:?}")));
    }
    assert_eq!(problems, []);
}

/// What a crash leaves between the steps of a commit: pieces that nothing refers to.
#[test]
fn what_was_staged_and_never_committed_is_not_there() {
    let (bench, store) = populated();
    let long = Bytes::from(vec![b'z'; 5 * values::PIECE_MAX_BYTES]);
    let snapshot_of = |document: &str, base, bytes: &Bytes| Write::Snapshot {
        document: id(document),
        base,
        keep_from: base,
        received_at_ms: 9,
        snapshot: bytes.clone(),
        graph: bytes.clone(),
        arrivals: bytes.clone(),
    };
    let mut wide = append("b", 6..7);
    if let Write::Append { changes, .. } = &mut wide {
        changes[0] = long.clone();
    }
    let writes = [
        wide,
        snapshot_of("b", 7, &long),
        snapshot_of("new", 3, &long),
    ];
    let mut standings = store
        .database()
        .unwrap()
        .check(&Standings::new(), &writes)
        .unwrap();
    let batch = store
        .database()
        .unwrap()
        .stage(&mut standings, PLAIN_DIRECTORY, &writes);
    let batch = batch.unwrap();
    drop(batch);
    store.commit(&[], Durability::Strict).unwrap();
    let store = bench.reopen(store);
    assert_eq!(store.open(&id("new")).unwrap(), None);
    assert!(matches!(
        store.verify(&id("new")),
        Err(StoreError::Unknown { .. })
    ));
    assert_eq!(store.documents(None, 10).unwrap().len(), 3);
    let document = store.open(&id("b")).unwrap().unwrap();
    assert_eq!((document.base, document.next()), (3, 6));
    assert_eq!(store.verify(&id("b")).unwrap(), []);

    // What then really comes under the same keys, shorter, is read without the remains.
    let short = Bytes::from(vec![b'y'; 2 * values::PIECE_MAX_BYTES]);
    let mut wide = append("b", 6..7);
    if let Write::Append { changes, .. } = &mut wide {
        changes[0] = short.clone();
    }
    let writes = [
        wide,
        snapshot_of("b", 6, &short),
        snapshot_of("new", 2, &short),
    ];
    store.commit(&writes, Durability::Strict).unwrap();
    for document in ["b", "new"] {
        assert_eq!(store.verify(&id(document)).unwrap(), []);
        assert_eq!(store.snapshot(&id(document)).unwrap().unwrap().1, short);
    }
    assert_eq!(
        store.log(&id("b"), 6, 7, u64::MAX).unwrap()[0].changes,
        [short]
    );
}

/// The same of an access entry: staged, it is neither there nor in the way of a shorter one.
#[test]
fn an_access_entry_that_was_staged_and_never_committed_is_not_there() {
    let (bench, store) = OnDisk::create();
    let of_length = |len: usize| Write::Access {
        document: id("a"),
        number: 0,
        entry: Bytes::from(vec![b'e'; len]),
        labels: Vec::new(),
    };
    let writes = [of_length(5 * values::PIECE_MAX_BYTES)];
    let mut standings = store
        .database()
        .unwrap()
        .check(&Standings::new(), &writes)
        .unwrap();
    drop(
        store
            .database()
            .unwrap()
            .stage(&mut standings, PLAIN_DIRECTORY, &writes)
            .unwrap(),
    );
    store.commit(&[], Durability::Strict).unwrap();
    let store = bench.reopen(store);
    assert_eq!(store.access(&id("a")).unwrap(), None);
    assert!(matches!(
        store.verify(&id("a")),
        Err(StoreError::Unknown { .. })
    ));
    for len in [10, 2 * values::PIECE_MAX_BYTES] {
        let mut write = of_length(len);
        if let Write::Access { number, .. } = &mut write {
            *number = store
                .access(&id("a"))
                .unwrap()
                .map_or(0, |(number, _)| number + 1);
        }
        store.commit(&[write], Durability::Strict).unwrap();
        assert_eq!(store.access(&id("a")).unwrap().unwrap().1.len(), len);
        assert_eq!(store.verify(&id("a")).unwrap(), []);
    }
}

/// Older builds open a directory of format 1, and would serve every document to everybody.
#[test]
fn the_first_access_entry_raises_the_directorys_format() {
    let (bench, store) = OnDisk::create();
    let format = |store: &SledStore| store.sled().get(FORMAT_KEY).unwrap().unwrap().to_vec();
    store
        .commit(&[append("a", 0..1)], Durability::Strict)
        .unwrap();
    let store = bench.reopen(store);
    assert_eq!(format(&store), [1]);
    store
        .commit(&[access("a", 1)], Durability::Strict)
        .unwrap_err();
    assert_eq!(format(&store), [1]);
    store.commit(&[access("a", 0)], Durability::Strict).unwrap();
    assert_eq!(format(&store), [3]);
    // As a build without labels left it.
    store.sled().insert(FORMAT_KEY, &[2]).unwrap();
    let store = bench.reopen(store);
    assert_eq!(format(&store), [2]);
    store.commit(&[access("a", 1)], Durability::Strict).unwrap();
    assert_eq!(format(&store), [3]);
}

/// Housekeeping removes all that was replaced, in small steps, and nothing else.
#[test]
fn tidying_leaves_what_is_referred_to() {
    let (_bench, store) = populated();
    let long = |byte: u8| Bytes::from(vec![byte; 700 * values::PIECE_MAX_BYTES]);
    let mut wide = append("b", 6..7);
    if let Write::Append { changes, .. } = &mut wide {
        changes[0] = long(b'c');
    }
    store
        .commit(&[wide, append("b", 7..8)], Durability::Strict)
        .unwrap();
    let snapshot_at = |base, keep_from, byte| Write::Snapshot {
        document: id("b"),
        base,
        keep_from,
        received_at_ms: 9,
        snapshot: long(byte),
        graph: Bytes::new(),
        arrivals: Bytes::new(),
    };
    store
        .commit(&[snapshot_at(6, 6, b's')], Durability::Strict)
        .unwrap();
    store
        .commit(&[snapshot_at(7, 7, b't')], Durability::Strict)
        .unwrap();
    let before = places(&store).len();
    assert!(before > 2_100);
    let mut steps = 0;
    while store.tidy().unwrap() {
        steps += 1;
        assert_eq!(store.verify(&id("b")).unwrap(), []);
        assert_eq!(store.open(&id("b")).unwrap().unwrap().next(), 8);
    }
    assert!(steps >= 5, "{steps}");
    let left = places(&store);
    // Record, 700 pieces of the snapshot, one of the graph, the log record 7..8.
    let is_of_access = |place: &Place| {
        matches!(
            place,
            Place::Access { .. } | Place::AccessPiece { .. } | Place::Label(_)
        )
    };
    let (access, left): (Vec<_>, Vec<_>) =
        left.into_iter().partition(|(_, place)| is_of_access(place));
    assert_eq!(left.len(), 1 + 700 + 1 + 1);
    assert_eq!(left.last().unwrap().1, Place::Log { first: 7 });
    assert_eq!(access.len(), 4 + 2 + labels(3).len());
    assert!(!store.tidy().unwrap());
}

/// A document whose only log record is in many pieces, and in the snapshot.
fn swept_in_several_goes() -> (OnDisk, SledStore) {
    let (bench, store) = OnDisk::create();
    let mut write = append("long", 0..1);
    if let Write::Append { changes, .. } = &mut write {
        changes[0] = Bytes::from(vec![b'c'; 600 * values::PIECE_MAX_BYTES]);
    }
    store.commit(&[write], Durability::Strict).unwrap();
    let write = snapshot("long", 1, 1);
    store.commit(&[write], Durability::Strict).unwrap();
    (bench, store)
}

fn is_whole(store: &SledStore, next: u64) {
    let document = store.open(&id("long")).unwrap().unwrap();
    assert_eq!((document.base, document.next()), (1, next));
    let contents = store.contents(&id("long")).unwrap().unwrap();
    assert_eq!(contents.snapshot.unwrap(), "snapshot at 1");
    assert_eq!(store.verify(&id("long")).unwrap(), []);
    let listed = store.documents(None, 10).unwrap().remove(0).summary;
    assert_eq!(listed.unwrap().changes, next);
}

fn is_swept(store: &SledStore) -> bool {
    let places = places(store).into_iter();
    let below_1 = |place| {
        matches!(
            place,
            Place::Log { first: 0 } | Place::Body { first: 0, .. }
        )
    };
    !places.into_iter().any(|(_, place)| below_1(place))
}

/// The body went first once: while some of it was left the document could not be read, and the sweep never ended.
#[test]
fn a_document_is_whole_while_a_long_record_is_swept() {
    let (bench, mut store) = swept_in_several_goes();
    let mut goes = 0;
    loop {
        is_whole(&store, 1);
        if !store.tidy().unwrap() {
            break;
        }
        goes += 1;
    }
    assert!(goes > 1 && is_swept(&store));
    store = bench.reopen(store);
    is_whole(&store, 1);
}

#[test]
fn what_an_older_sweep_left_of_a_record_is_no_damage() {
    let (bench, store) = swept_in_several_goes();
    for (key, place) in places(&store) {
        if matches!(place, Place::Body { first: 0, piece } if piece < 256) {
            store.sled().remove(key).unwrap();
        }
    }
    let store = bench.reopen(store);
    is_whole(&store, 1);
    let write = append("long", 1..3);
    store.commit(&[write], Durability::Strict).unwrap();
    is_whole(&store, 3);
    let log = store.log(&id("long"), 0, u64::MAX, u64::MAX).unwrap();
    assert_eq!(
        log.iter().map(|record| record.first).collect::<Vec<_>>(),
        [1]
    );
    let write = snapshot("long", 3, 3);
    store.commit(&[write], Durability::Strict).unwrap();
    while store.tidy().unwrap() {}
    assert!(is_swept(&store));

    // What lacks its beginning and is not in the snapshot is damage.
    let (_bench, store) = populated();
    let mut keys = DocumentKeys::new(&id("b"));
    let piece = Place::Body { first: 4, piece: 0 };
    store.sled().remove(keys.at(piece)).unwrap().unwrap();
    assert!(store.open(&id("b")).is_err());
    assert_ne!(store.verify(&id("b")).unwrap(), []);
}

#[test]
fn damage_is_an_error_for_that_document_only() {
    let (_bench, store) = populated();
    for (key, place) in places(&store) {
        let good = store.sled().get(&key).unwrap().unwrap();
        let mut bad = good.to_vec();
        bad[2] ^= 1;
        store.sled().insert(&key, bad).unwrap();
        let damaged = |error: StoreError| {
            assert_eq!(error.severity(), Severity::Rejected);
            assert!(
                matches!(&error, StoreError::Corrupt { document, .. } if *document == id("b")),
                "{place:?}: {error}"
            );
        };
        match place {
            Place::Snapshot { .. } => {
                store.open(&id("b")).unwrap().unwrap();
                damaged(store.snapshot(&id("b")).unwrap_err());
            }
            Place::Arrivals { .. } => {
                store.open(&id("b")).unwrap().unwrap();
                store.snapshot(&id("b")).unwrap().unwrap();
                damaged(store.arrivals(&id("b")).unwrap_err());
                assert_ne!(store.verify(&id("b")).unwrap(), []);
            }
            Place::Access { .. } | Place::AccessPiece { .. } => {
                store.open(&id("b")).unwrap().unwrap();
                damaged(store.access_log(&id("b"), 0, 9, u64::MAX).unwrap_err());
                let newest = store.access(&id("b"));
                if matches!(place, Place::Access { number: 3 }) {
                    damaged(newest.unwrap_err());
                } else {
                    assert_eq!(newest.unwrap(), Some((3, entry(3))));
                }
            }
            // Only that it is there says anything.
            Place::Label(label) => {
                store.open(&id("b")).unwrap().unwrap();
                assert_eq!(store.labelled(&label, None, 9).unwrap(), [id("b")]);
                assert_ne!(store.verify(&id("b")).unwrap(), []);
            }
            // The record 0..4 reaches across the base of the snapshot.
            _ => {
                damaged(store.open(&id("b")).unwrap_err());
            }
        }
        store.open(&id("a")).unwrap().unwrap();
        let listed = store.documents(None, 10).unwrap();
        assert_eq!(listed.len(), 3);
        assert!(listed[0].summary.is_ok() && listed[2].summary.is_ok());
        assert_eq!(
            listed[1].summary.is_err(),
            matches!(place, Place::Record | Place::Log { first: 5 })
        );
        store.sled().insert(&key, good).unwrap();
    }
}

#[test]
fn a_document_does_not_begin_anew_above_remains() {
    let (bench, store) = populated();
    store
        .sled()
        .remove(DocumentKeys::new(&id("b")).at(Place::Record))
        .unwrap();
    let store = bench.reopen(store);
    let error = store
        .commit(&[append("b", 0..1)], Durability::Strict)
        .unwrap_err();
    assert!(matches!(
        error,
        StoreError::Corrupt {
            problem: Problem::Missing { .. },
            ..
        }
    ));
}

#[test]
fn a_directory_in_use_says_so() {
    let (bench, _store) = OnDisk::create();
    let error = SledStore::open(&options(&bench.0)).unwrap_err();
    assert!(matches!(error, StoreError::InUse { .. }));
    assert!(error.to_string().ends_with("is in use by a running server"));
}

#[test]
fn a_directory_of_another_format_or_kind_is_left_alone() {
    let (bench, store) = OnDisk::create();
    let path = options(&bench.0).path;
    store.sled().insert(FORMAT_KEY, &[9]).unwrap();
    drop(store);
    let error = SledStore::open(&options(&bench.0)).unwrap_err();
    assert!(matches!(
        error,
        StoreError::Format {
            found: 9,
            supported: GUARDED_DIRECTORY,
            ..
        }
    ));

    let open = || {
        ::sled::Config::new()
            .path(&path)
            .segment_size(SEGMENT_BYTES)
            .open()
            .unwrap()
    };
    let db = open();
    db.remove(FORMAT_KEY).unwrap();
    db.insert("somebody", "else").unwrap();
    drop(db);
    let error = SledStore::open(&options(&bench.0)).unwrap_err();
    assert!(matches!(error, StoreError::NotOurs { .. }));
    let db = open();
    assert_eq!(db.len(), 1);
}

#[test]
fn a_damaged_database_is_an_error_and_stays() {
    let (bench, store) = OnDisk::create();
    store
        .commit(&[append("a", 0..10)], Durability::Strict)
        .unwrap();
    drop(store);
    let conf = options(&bench.0).path.join("conf");
    std::fs::write(&conf, b"not sled's").unwrap();
    let error = SledStore::open(&options(&bench.0)).unwrap_err();
    assert!(matches!(error, StoreError::Open { .. }), "{error}");
    assert!(error.to_string().contains("nothing in it was deleted"));
    assert_eq!(std::fs::read(&conf).unwrap(), b"not sled's");
}
