use tempfile::TempDir;

use super::{keys::Place, *};
use crate::store::Severity;
use crate::store::conformance::{Bench, append, conformance, id, snapshot};

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

/// Three documents, one of them with a snapshot of several pieces and a log record of several.
fn populated() -> (OnDisk, SledStore) {
    let (bench, store) = OnDisk::create();
    let big = |byte: u8| Bytes::from(vec![byte; 3 * values::PIECE_MAX_BYTES + 10]);
    store
        .commit(
            &[
                append("a", 0..1),
                append("b", 0..4),
                Write::Snapshot {
                    document: id("b"),
                    base: 3,
                    keep_from: 0,
                    received_at_ms: 1,
                    snapshot: big(b's'),
                    graph: big(b'g'),
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
    let all = store.db.iter().keys().map(|key| key.unwrap().to_vec());
    all.filter_map(|key| keys.parse(&key).map(|place| (key, place)))
        .collect()
}

#[test]
fn every_flipped_byte_is_found_and_named() {
    let (_bench, store) = populated();
    for (key, place) in places(&store) {
        let good = store.db.get(&key).unwrap().unwrap();
        for at in [0, good.len() / 2, good.len() - 1] {
            let mut bad = good.to_vec();
            bad[at] ^= 0x10;
            store.db.insert(&key, bad).unwrap();
            let problems = store.verify(&id("b")).unwrap();
            assert_eq!(
                problems,
                [Problem::Checksum { part: place.part() }],
                "{place:?} at {at}"
            );
        }
        store.db.insert(&key, &good).unwrap();
    }
    assert_eq!(store.verify(&id("b")).unwrap(), []);
}

#[test]
fn every_missing_key_is_found() {
    let (_bench, store) = populated();
    for (key, place) in places(&store) {
        let good = store.db.remove(&key).unwrap().unwrap();
        let problems = store.verify(&id("b")).unwrap();
        match place {
            Place::Record => assert_eq!(
                problems,
                [Problem::Missing {
                    part: Part::Document
                }]
            ),
            // The last record's absence is what an append that never came looks like.
            Place::Log { first: 5 } => assert_eq!(problems, []),
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
        store.db.insert(&key, good).unwrap();
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
        store.db.remove(keys.at(place)).unwrap().unwrap();
        lost.push(Problem::Missing { part: place.part() });
    }
    let mut stray = keys.end().to_vec();
    *stray.last_mut().unwrap() = 0x77;
    store
        .db
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
    let mut ends = store.check(&Ends::new(), &writes).unwrap();
    let batch = store.stage(&mut ends, &writes).unwrap();
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
    assert_eq!(store.log(&id("b"), 6, 7).unwrap()[0].changes, [short]);
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
    assert_eq!(left.len(), 1 + 700 + 1 + 1);
    assert_eq!(left.last().unwrap().1, Place::Log { first: 7 });
    assert!(!store.tidy().unwrap());
}

#[test]
fn damage_is_an_error_for_that_document_only() {
    let (_bench, store) = populated();
    for (key, place) in places(&store) {
        let good = store.db.get(&key).unwrap().unwrap();
        let mut bad = good.to_vec();
        bad[2] ^= 1;
        store.db.insert(&key, bad).unwrap();
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
        store.db.insert(&key, good).unwrap();
    }
}

#[test]
fn a_document_does_not_begin_anew_above_remains() {
    let (bench, store) = populated();
    store
        .db
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
    store.db.insert(FORMAT_KEY, &[9]).unwrap();
    drop(store);
    let error = SledStore::open(&options(&bench.0)).unwrap_err();
    assert!(matches!(
        error,
        StoreError::Format {
            found: 9,
            supported: FORMAT,
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
    assert!(error.to_string().contains("left untouched"));
    assert_eq!(std::fs::read(&conf).unwrap(), b"not sled's");
}

/// sled neither syncs nor reliably removes them: see [`values::PIECE_MAX_BYTES`].
#[test]
fn no_blob_files_under_compaction() {
    let (bench, store) = OnDisk::create();
    let folder = options(&bench.0).path.join("blobs");
    let mut most = 0;
    for round in 0..40_u64 {
        let longest_id = format!("{round:0>63}");
        let names = ["a", longest_id.as_str()];
        for name in names {
            let base = if name == "a" { round + 1 } else { 1 };
            let size = usize::try_from(round % 3 + 1).unwrap() * 40_000;
            let blob = Bytes::from(vec![b'x'; size]);
            let first = base - 1;
            store
                .commit(
                    &[
                        append(name, first..base),
                        Write::Snapshot {
                            document: id(name),
                            base,
                            keep_from: base,
                            received_at_ms: 1,
                            snapshot: blob.clone(),
                            graph: blob,
                        },
                    ],
                    Durability::Strict,
                )
                .unwrap();
        }
        most = most.max(std::fs::read_dir(&folder).unwrap().count());
    }
    assert_eq!(most, 0);
    assert_eq!(store.verify(&id("a")).unwrap(), []);
}

/// Readers beside a writer that compacts all the time see a whole document each time.
#[test]
fn reads_beside_commits_see_no_mixture() {
    let (_bench, store) = OnDisk::create();
    let wide = |write: Write| match write {
        Write::Snapshot {
            document,
            base,
            keep_from,
            received_at_ms,
            ..
        } => {
            // Each generation is of another length, and of one byte throughout.
            let byte = u8::try_from(base % 200).unwrap();
            let blob = Bytes::from(vec![byte; 30_000 + usize::from(byte) * 100]);
            Write::Snapshot {
                document,
                base,
                keep_from,
                received_at_ms,
                snapshot: blob.clone(),
                graph: blob,
            }
        }
        write @ Write::Append { .. } => write,
    };
    store
        .commit(&[append("a", 0..10)], Durability::Relaxed)
        .unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for round in 1..150_u64 {
                let next = round * 10;
                store
                    .commit(&[append("a", next..next + 10)], Durability::Relaxed)
                    .unwrap();
                let write = wide(snapshot("a", next + 5, next.saturating_sub(20)));
                store.commit(&[write], Durability::Relaxed).unwrap();
            }
        });
        let mut reads = 0;
        let mut newest = 0;
        while !writer.is_finished() {
            let document = store.open(&id("a")).unwrap().unwrap();
            assert!(document.next() >= newest);
            newest = document.next();
            if let Some(graph) = document.graph {
                let byte = u8::try_from(document.base % 200).unwrap();
                assert_eq!(graph.len(), 30_000 + usize::from(byte) * 100);
                assert!(graph.iter().all(|found| *found == byte));
                let (base, bytes) = store.snapshot(&id("a")).unwrap().unwrap();
                let byte = u8::try_from(base % 200).unwrap();
                assert!(bytes.iter().all(|found| *found == byte));
            }
            assert_eq!(store.verify(&id("a")).unwrap(), []);
            reads += 1;
        }
        writer.join().unwrap();
        assert!(reads > 3, "only {reads} reads");
    });
}

/// What a kill or a loss of power leaves of sled's log is a beginning of it: cut anywhere, it must open, hold whole
/// batches only, and none after one that is missing.
///
/// Each batch writes to two documents, one of them with a record of several pieces, and every tenth compacts. A store
/// that wrote a batch key by key would show documents of different lengths, or damage.
#[test]
fn a_torn_end_of_the_log_loses_whole_batches_from_the_end() {
    const BATCHES: u64 = 60;
    let (bench, store) = OnDisk::create();
    let path = options(&bench.0).path;
    let big = Bytes::from(vec![b'x'; 2 * values::PIECE_MAX_BYTES]);
    for next in 0..BATCHES {
        let mut wide = append("b", next..next + 1);
        if let Write::Append { changes, .. } = &mut wide {
            changes[0] = big.clone();
        }
        let mut writes = vec![append("a", next..next + 1), wide];
        if next % 10 == 9 {
            writes.push(snapshot("a", next + 1, next.saturating_sub(3)));
            writes.push(snapshot("b", next + 1, next));
        }
        store.commit(&writes, Durability::Strict).unwrap();
    }
    // As a kill leaves them: sled writes no more at the end than it does here.
    let db = std::fs::read(path.join("db")).unwrap();
    let conf = std::fs::read(path.join("conf")).unwrap();
    drop(store);

    let end = db.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let mut lengths = std::collections::BTreeSet::new();
    for step in 0..150 {
        let cut = end - end * step / 150;
        let folder = tempfile::tempdir().unwrap();
        let torn = options(&folder);
        std::fs::create_dir_all(torn.path.join("blobs")).unwrap();
        std::fs::write(torn.path.join("conf"), &conf).unwrap();
        let mut file = db.clone();
        if step % 2 == 0 {
            file.truncate(cut);
        } else {
            // The file's length may reach the disk before its contents do.
            file[cut..].fill(0);
        }
        std::fs::write(torn.path.join("db"), file).unwrap();
        let store = match SledStore::open(&torn) {
            Ok(store) => store,
            Err(error) => panic!("cut at {cut} of {end}: {error:?}"),
        };
        let mut found = [0, 0];
        for (document, length) in ["a", "b"].into_iter().zip(&mut found) {
            let Some(document) = store.open(&id(document)).unwrap() else {
                continue;
            };
            *length = document.next();
        }
        assert_eq!(found[0], found[1], "cut at {cut} of {end}");
        for info in store.documents(None, 10).unwrap() {
            assert_eq!(
                store.verify(&info.document).unwrap(),
                [],
                "cut at {cut} of {end}"
            );
        }
        lengths.insert(found[0]);
        // And it goes on from there.
        let next = found[0];
        store
            .commit(&[append("a", next..next + 1)], Durability::Strict)
            .unwrap();
    }
    assert!(lengths.len() > 20, "{lengths:?}");
    assert_eq!(lengths.last(), Some(&BATCHES));
}

/// A commit between two steps of a read, at the worst moment: the read is done again.
#[test]
fn a_read_that_a_compaction_overtook_is_done_again() {
    let (_bench, store) = OnDisk::create();
    store
        .commit(
            &[append("a", 0..10), snapshot("a", 5, 5)],
            Durability::Relaxed,
        )
        .unwrap();
    // With nothing left behind its base, the log alone does not show that something is missing; with something
    // left, there is a gap; and the former graph is gone in both.
    for (next, base) in [(10, 10), (20, 17)] {
        let calls = std::cell::Cell::new(0);
        let read = |read: &dyn Fn(&mut DocumentKeys, DocumentRecord) -> Result<u64, read::Fail>| {
            calls.set(0);
            store.settled(&id("a"), |keys, record| {
                calls.set(calls.get() + 1);
                if calls.get() == 1 && next > 10 {
                    let more = append("a", next - 10..next);
                    // The end may be there already, from the reads before.
                    let _ = store.commit(&[more], Durability::Relaxed);
                }
                if calls.get() == 1 {
                    store
                        .commit(&[snapshot("a", base, base)], Durability::Relaxed)
                        .unwrap();
                }
                read(keys, record.unwrap())
            })
        };
        let tail = read(&|keys, record| {
            let tail = store.read_log(keys, record.base, u64::MAX)?;
            Ok(record.base
                + tail
                    .iter()
                    .map(|record| record.changes.len() as u64)
                    .sum::<u64>())
        });
        assert_eq!((tail.unwrap(), calls.get()), (next, 2));
        let whole = read(&|keys, record| Ok(store.read_document(keys, &record)?.next()));
        assert_eq!((whole.unwrap(), calls.get()), (next, 2));
    }
}

/// The second time a read runs, no batch is applied beside it.
#[test]
fn the_second_read_holds_batches_off() {
    let (_bench, store) = OnDisk::create();
    store
        .commit(&[append("a", 0..1)], Durability::Relaxed)
        .unwrap();
    let calls = std::cell::Cell::new(0);
    std::thread::scope(|scope| {
        let problem = Problem::Missing {
            part: Part::Document,
        };
        let error = store.settled(&id("a"), |_, _| -> Result<(), _> {
            calls.set(calls.get() + 1);
            if calls.get() == 2 {
                let commit =
                    scope.spawn(|| store.commit(&[append("a", 1..2)], Durability::Relaxed));
                std::thread::sleep(std::time::Duration::from_millis(100));
                assert!(!commit.is_finished());
            }
            Err(problem.clone().into())
        });
        assert!(
            matches!(error, Err(StoreError::Corrupt { problem: found, .. }) if found == problem)
        );
    });
    assert_eq!(store.open(&id("a")).unwrap().unwrap().next(), 2);
}
