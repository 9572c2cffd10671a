//! What others do while the database is written anew: nothing that was committed is missing afterwards, or after a kill
//! at any moment of it; nobody reads half of anything; and what is purged meanwhile is not said to be erased.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use super::rewrite::{copy, needles, plenty, purged, secret};
use super::*;
use crate::store::Remains;
use crate::store::conformance::{delete, purge, tidy, undelete};
use crate::store::sled::rewrite::At;
use crate::store::sled::tree::{LAST_KEYS_NOTED, Noted, Tree};

/// What is committed at each step, of every kind: to documents that are copied already and to such that are not, in
/// ever other places.
fn writes(step: u64) -> Vec<Write> {
    let first = step * 2;
    let mut long = append("aaa, which comes first", step..step + 1);
    if let Write::Append { changes, .. } = &mut long {
        changes[0] = vec![b'l'; 9_000].into();
    }
    let mut writes = vec![
        long,
        append("zzz, which comes last", first..first + 2),
        append("doc 06", 40 + step..41 + step),
        access("doc 06", 40 + step),
        append(&format!("new {step}"), 0..3),
    ];
    match step % 3 {
        0 => writes.push(Write::Snapshot {
            document: id("doc 06"),
            base: 41 + step,
            keep_from: 30 + step,
            received_at_ms: 1,
            snapshot: Bytes::from(vec![b's'; 40_000]),
            graph: Bytes::from(vec![b'g'; 5_000]),
            arrivals: Bytes::new(),
        }),
        1 => writes.push(delete(&format!("new {}", step - 1))),
        _ => writes.push(undelete(&format!("new {}", step - 2))),
    }
    writes
}

/// All that these steps brought is there.
fn has_all(store: &SledStore, steps: u64) {
    let next = |document: &str| {
        let found = store.open(&id(document)).unwrap();
        found.map(|document| document.next())
    };
    if steps == 0 {
        return;
    }
    assert_eq!(next("aaa, which comes first"), Some(steps));
    assert_eq!(next("zzz, which comes last"), Some(2 * steps));
    assert_eq!(next("doc 06"), Some(40 + steps));
    assert_eq!(store.access(&id("doc 06")).unwrap().unwrap().0, 39 + steps);
    for step in 0..steps {
        let is_deleted = step % 3 == 0 && steps == step + 2;
        let expected = (!is_deleted).then_some(3);
        assert_eq!(next(&format!("new {step}")), expected, "{step} of {steps}");
    }
    for info in store.documents(None, 1000).unwrap() {
        assert_eq!(store.verify(&info.document).unwrap(), []);
    }
    // What a snapshot replaced goes in either.
    assert!(store.documents(None, 1000).unwrap().len() >= 10);
}

#[test]
fn what_is_committed_meanwhile_survives_a_kill_at_any_step() {
    let (bench, store) = purged();
    let path = options(&bench.0).path;
    let (mut steps, mut swaps) = (0, 0);
    let mut erased = Vec::new();
    let mut step = |at| {
        if at == At::Beside {
            store.commit(&writes(steps), Durability::Strict).unwrap();
            steps += 1;
            if steps % 2 == 0 {
                store.tidy().unwrap();
            }
        } else {
            swaps += 1;
        }
        let folder = tempfile::tempdir().unwrap();
        let left = options(&folder);
        copy(&path, &left.path);
        let opened = SledStore::open(&left).unwrap();
        has_all(&opened, steps);
        erased.push(needles(&left.path) == 0);
        Ok(())
    };
    store.rewrite_by(&plenty, &mut step).unwrap();
    assert!(steps > 12 && swaps > 10, "{steps} {swaps}");
    assert!(!erased[0]);
    assert!(erased.last().unwrap());
    has_all(&store, steps);
    assert_eq!(needles(&path), 0);
    store.commit(&writes(steps), Durability::Strict).unwrap();
    let store = bench.reopen(store);
    has_all(&store, steps + 1);
    assert_eq!(needles(&path), 0);
    assert!(!store.has_remains().unwrap());
}

/// What was there when the copy was begun may be in it, whatever becomes of it then.
#[test]
fn what_is_purged_meanwhile_is_not_said_to_be_erased() {
    let (bench, store) = purged();
    let path = options(&bench.0).path;
    let mut change = append("aaa", 0..3);
    if let Write::Append { changes, .. } = &mut change {
        changes.fill(secret(90, 7));
    }
    store.commit(&[change], Durability::Strict).unwrap();
    let mut steps = 0;
    let mut step = |_| {
        steps += 1;
        if steps == 7 {
            let writes = [delete("aaa"), purge("aaa")];
            store.commit(&writes, Durability::Strict).unwrap();
            tidy(&store);
        }
        Ok(())
    };
    store.rewrite_by(&plenty, &mut step).unwrap();
    assert!(steps > 10);
    assert!(needles(&path) > 0, "or this test shows nothing");
    assert!(store.has_remains().unwrap());
    let tombstone = |document| store.tombstone(&id(document)).unwrap().unwrap();
    assert_eq!(tombstone("aaa").remains, Remains::Files);
    assert_eq!(tombstone("secret").remains, Remains::Nothing);
    assert_eq!(store.rewrite(&|| true).unwrap().erased, 1);
    assert_eq!(needles(&path), 0);
    assert!(!store.has_remains().unwrap());
}

#[test]
fn others_read_and_write_all_the_time() {
    let (bench, store) = purged();
    let (is_over, commits, reads) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let expected = store.contents(&id("doc 07")).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            for next in 0.. {
                let write = append("typed", next..next + 1);
                store.commit(&[write], Durability::Relaxed).unwrap();
                commits.fetch_add(1, Ordering::Relaxed);
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        for _ in 0..3 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    assert_eq!(store.contents(&id("doc 07")).unwrap(), expected);
                    assert_eq!(store.contents(&id("secret")).unwrap(), None);
                    assert!(store.documents(None, 100).unwrap().len() >= 10);
                    reads.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for _ in 0..4 {
            let before = commits.load(Ordering::Relaxed);
            store.rewrite(&|| true).unwrap();
            assert!(commits.load(Ordering::Relaxed) > before);
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert!(reads.load(Ordering::Relaxed) > 10);
    let commits = commits.load(Ordering::Relaxed);
    assert_eq!(store.open(&id("typed")).unwrap().unwrap().next(), commits);
    let store = bench.reopen(store);
    assert_eq!(store.open(&id("typed")).unwrap().unwrap().next(), commits);
    assert_eq!(needles(&options(&bench.0).path), 0);
}

/// Not begun where the room is missing, and given up where it becomes so: nothing has happened.
#[test]
fn a_disk_is_not_filled() {
    let (bench, store) = purged();
    let path = options(&bench.0).path;
    tidy(&store);
    let spare = 64 * 1024 * 1024;
    for (next, enough) in [(0, 0), (1, 1), (2, 5)] {
        let asked = AtomicU64::new(0);
        let room = |_: &Path| {
            let asked = asked.fetch_add(1, Ordering::Relaxed);
            Ok(if asked < enough { u64::MAX } else { 1_000 })
        };
        let size = store.size_on_disk().unwrap();
        let error = store.rewrite_by(&room, &mut |_| Ok(())).unwrap_err();
        let StoreError::NoRoom {
            needed: told, free, ..
        } = error
        else {
            panic!("{error}")
        };
        let expected = if enough == 0 { size + spare } else { spare };
        assert_eq!((told, free), (expected, 1_000));
        assert!(!path.join("rewrite.copying").exists());
        assert!(store.has_remains().unwrap());
        let write = append("new", next..next + 1);
        store.commit(&[write], Durability::Strict).unwrap();
    }
    let enough = store.size_on_disk().unwrap() + spare;
    assert!(store.rewrite_by(&|_| Ok(enough), &mut |_| Ok(())).is_ok());
    assert_eq!(needles(&path), 0);
    assert_eq!(store.open(&id("new")).unwrap().unwrap().next(), 3);
}

#[test]
fn it_stops_when_it_is_told_to() {
    let (bench, store) = purged();
    let asked = AtomicU64::new(0);
    let go_on = || asked.fetch_add(1, Ordering::Relaxed) < 4;
    let error = store.rewrite(&go_on).unwrap_err();
    let StoreError::Rewrite { source, .. } = error else {
        panic!("{error}")
    };
    assert_eq!(source.kind(), io::ErrorKind::Interrupted);
    assert!(store.has_remains().unwrap());
    assert!(!options(&bench.0).path.join("rewrite.copying").exists());
}

/// Who reads when the swap is to begin is waited for, and meanwhile nothing is lost or refused.
#[test]
fn a_long_read_is_waited_for() {
    let (bench, store) = purged();
    let reading = store.database().unwrap();
    thread::scope(|scope| {
        let rewriting = scope.spawn(|| store.rewrite(&|| true).unwrap());
        thread::sleep(std::time::Duration::from_millis(1500));
        assert!(!rewriting.is_finished());
        let record = reading.read_tombstone(&id("secret"));
        assert!(record.unwrap().is_some());
        drop(reading);
        rewriting.join().unwrap();
    });
    assert_eq!(needles(&options(&bench.0).path), 0);
}

/// Who writes more than the copy can note waits for it.
#[test]
fn what_is_noted_is_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let db = ::sled::open(folder.path()).unwrap();
    let noted = Arc::new(Noted::default());
    let tree = Tree::new(db, Arc::clone(&noted));
    let write = |range: std::ops::Range<usize>| {
        for key in range {
            tree.insert(key.to_be_bytes(), b"").unwrap();
        }
    };
    write(0..10);
    noted.wait_for_room();
    assert_eq!(noted.take().len(), 0);
    let noting = noted.begin();
    write(5..20);
    tree.remove(5_usize.to_be_bytes()).unwrap();
    assert_eq!(noted.take().len(), 15);
    noted.hurry();
    write(0..LAST_KEYS_NOTED);
    thread::scope(|scope| {
        let waiting = || scope.spawn(|| noted.wait_for_room());
        let waits = waiting();
        thread::sleep(std::time::Duration::from_millis(50));
        assert!(!waits.is_finished());
        assert_eq!(noted.take().len(), LAST_KEYS_NOTED);
        waits.join().unwrap();
        // Nor does anybody wait for a copy that is given up.
        write(0..LAST_KEYS_NOTED);
        let waits = waiting();
        drop(noting);
        waits.join().unwrap();
    });
    assert_eq!(noted.take().len(), 0);
}
