//! What a crash leaves, and what a reader beside a writer sees.

use super::*;
use crate::store::conformance::label;

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
                            graph: blob.clone(),
                            arrivals: blob,
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
                graph: blob.clone(),
                arrivals: blob,
            }
        }
        write => write,
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
/// Each batch writes to two documents, one of them with a record of several pieces, gives one an access entry, every
/// third of several pieces, and every tenth compacts. A store that wrote a batch key by key would show documents of
/// different lengths, one without its access entry, or damage.
#[test]
fn a_torn_end_of_the_log_loses_whole_batches_from_the_end() {
    const BATCHES: u64 = 60;
    let (bench, store) = OnDisk::create();
    let big = Bytes::from(vec![b'x'; 2 * values::PIECE_MAX_BYTES]);
    for next in 0..BATCHES {
        let mut wide = append("b", next..next + 1);
        if let Write::Append { changes, .. } = &mut wide {
            changes[0] = big.clone();
        }
        let mut writes = vec![access("a", next), append("a", next..next + 1), wide];
        if next % 10 == 9 {
            writes.push(snapshot("a", next + 1, next.saturating_sub(3)));
            writes.push(snapshot("b", next + 1, next));
        }
        store.commit(&writes, Durability::Strict).unwrap();
    }
    let mut lengths = std::collections::BTreeSet::new();
    cut_anywhere(&bench, store, |store, cut| {
        let mut found = [0, 0];
        for (document, length) in ["a", "b"].into_iter().zip(&mut found) {
            let Some(document) = store.open(&id(document)).unwrap() else {
                continue;
            };
            *length = document.next();
        }
        assert_eq!(found[0], found[1], "{cut}");
        let newest = found[0].checked_sub(1);
        let entries = newest.map(|number| (number, entry(number)));
        assert_eq!(store.access(&id("a")).unwrap(), entries, "{cut}");
        assert_eq!(store.mislabelled().unwrap(), [], "{cut}");
        let wanted = newest.map(labels).unwrap_or_default();
        for number in 0..3 {
            let label = label(number);
            let is_found = store.is_labelled(&id("a"), &label).unwrap();
            assert_eq!(is_found, wanted.contains(&label), "{cut}");
        }
        let format = store.sled().get(FORMAT_KEY).unwrap().unwrap();
        let guarded = newest.map_or(PLAIN_DIRECTORY, |_| GUARDED_DIRECTORY);
        assert_eq!(*format, [guarded], "{cut}");
        for info in store.documents(None, 10).unwrap() {
            assert_eq!(store.verify(&info.document).unwrap(), [], "{cut}");
        }
        lengths.insert(found[0]);
        // And it goes on from there.
        let next = found[0];
        store
            .commit(
                &[access("a", next), append("a", next..next + 1)],
                Durability::Strict,
            )
            .unwrap();
    });
    assert!(lengths.len() > 20, "{lengths:?}");
    assert_eq!(lengths.last(), Some(&BATCHES));
}

/// Opens what is left of a store whose log is cut, or zeroed, at 150 places, and tells where.
pub(super) fn cut_anywhere(
    bench: &OnDisk,
    store: SledStore,
    mut check: impl FnMut(&SledStore, &str),
) {
    let path = options(&bench.0).path;
    // As a kill leaves them: sled writes no more at the end than it does here.
    let db = std::fs::read(path.join("db")).unwrap();
    let conf = std::fs::read(path.join("conf")).unwrap();
    drop(store);

    let end = db.iter().rposition(|byte| *byte != 0).unwrap() + 1;
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
        match SledStore::open(&torn) {
            Ok(store) => check(&store, &format!("cut at {cut} of {end}")),
            Err(error) => panic!("cut at {cut} of {end}: {error:?}"),
        }
    }
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
    let database = store.database().unwrap();
    // With nothing left behind its base, the log alone does not show that something is missing; with something
    // left, there is a gap; and the former graph is gone in both.
    for (next, base) in [(10, 10), (20, 17)] {
        let calls = std::cell::Cell::new(0);
        let read = |read: &dyn Fn(&mut DocumentKeys, DocumentRecord) -> Result<u64, read::Fail>| {
            calls.set(0);
            database.settled(&id("a"), |keys, record| {
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
            let tail = database.read_log(keys, &record, record.base..u64::MAX, u64::MAX)?;
            Ok(record.base
                + tail
                    .iter()
                    .map(|record| record.changes.len() as u64)
                    .sum::<u64>())
        });
        assert_eq!((tail.unwrap(), calls.get()), (next, 2));
        let whole = read(&|keys, record| Ok(database.read_document(keys, &record)?.next()));
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
        let database = store.database().unwrap();
        let error = database.settled(&id("a"), |_, _| -> Result<(), _> {
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

/// Runs something and tells how many syncs it made, by the metric that each of them moves.
fn syncs_of<T>(what: impl FnOnce() -> T) -> (T, u64) {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let value = metrics::with_local_recorder(&recorder, what);
    let rendered = handle.render();
    let count = rendered
        .lines()
        .find_map(|line| line.strip_prefix("concord_fsync_seconds_count "));
    (value, count.map_or(0, |count| count.parse().unwrap()))
}

/// A killed process leaves changes that the kernel has and the disk has not. The next one reads them back, and would
/// tell clients that it holds them; the sync of its first commit would be too late.
#[test]
fn what_a_killed_process_left_is_synced_before_anybody_reads_it() {
    let (bench, store) = OnDisk::create();
    store
        .commit(&[append("a", 0..3)], Durability::Relaxed)
        .unwrap();
    drop(store);
    let (store, syncs) = syncs_of(|| SledStore::open(&options(&bench.0)).unwrap());
    assert_eq!(syncs, 1);
    assert_eq!(store.open(&id("a")).unwrap().unwrap().next(), 3);
}

/// What a kill at this moment would leave, opened.
pub(super) fn after_a_kill(bench: &OnDisk) -> (TempDir, SledStore) {
    let (path, folder) = (options(&bench.0).path, tempfile::tempdir().unwrap());
    let left = options(&folder);
    std::fs::create_dir_all(left.path.join("blobs")).unwrap();
    for name in ["conf", "db"] {
        std::fs::copy(path.join(name), left.path.join(name)).unwrap();
    }
    let store = SledStore::open(&left).unwrap();
    (folder, store)
}

/// Relaxed leaves out the sync, not the write.
#[test]
fn a_relaxed_commit_survives_the_process() {
    let (bench, store) = OnDisk::create();
    for next in 0..20 {
        store
            .commit(&[append("a", next..next + 1)], Durability::Relaxed)
            .unwrap();
        let (_folder, left) = after_a_kill(&bench);
        let found = left.open(&id("a")).unwrap();
        assert_eq!(found.map(|document| document.next()), Some(next + 1));
    }
}

/// A directory's name is in the one above it, so each one that got a new entry must be synced.
#[test]
fn every_new_directory_is_made_durable() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let mut synced = Vec::new();
    let mut note = |path: &Path| {
        synced.push(path.strip_prefix(root).unwrap().to_owned());
        Ok(())
    };
    create_durably(&root.join("a/b/c"), &mut note).unwrap();
    create_durably(&root.join("a/b/c"), &mut note).unwrap();
    create_durably(&root.join("a/d"), &mut note).unwrap();
    assert!(root.join("a/b/c").is_dir() && root.join("a/d").is_dir());
    assert_eq!(synced, ["", "a", "a/b", "a"].map(PathBuf::from));
    std::fs::write(root.join("file"), b"").unwrap();
    create_durably(&root.join("file/x"), &mut sync_directory).unwrap_err();
}
