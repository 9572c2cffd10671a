//! What was purged is in no file after the database was written anew, wherever that is interrupted; all else is there,
//! and the store goes on. What others do meanwhile is in [`super::beside`].

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::store::Remains;
use crate::store::conformance::{delete, purge, tidy, undelete};
use crate::store::sled::rewrite::At;

/// Recognisable, and in one piece wherever it is stored.
pub(super) const NEEDLE: &[u8] = b"attack at dawn, 51.5007 N";

pub(super) fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

/// Of a disk that is never full.
#[expect(clippy::unnecessary_wraps, reason = "as the real one")]
pub(super) fn plenty(_: &Path) -> io::Result<u64> {
    Ok(u64::MAX)
}

/// How often the needle is in the files of a directory.
pub(super) fn needles(directory: &Path) -> usize {
    let count = |path: PathBuf| {
        let bytes = std::fs::read(path).unwrap();
        let is_needle = |at: &[u8]| at == NEEDLE;
        bytes
            .windows(NEEDLE.len())
            .filter(|at| is_needle(at))
            .count()
    };
    files(directory).into_iter().map(count).sum()
}

pub(super) fn copy(from: &Path, to: &Path) {
    for path in files(from) {
        let to = to.join(path.strip_prefix(from).unwrap());
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        // sled's own threads remove files at any time.
        let _ = std::fs::copy(path, to);
    }
    std::fs::create_dir_all(to.join("blobs")).unwrap();
}

pub(super) fn noise(len: usize, seed: u64) -> Vec<u8> {
    use rand::{RngExt as _, SeedableRng as _};
    let mut random = rand::rngs::StdRng::seed_from_u64(seed);
    (0..len).map(|_| random.random()).collect()
}

/// So many bytes with the needle in them.
pub(super) fn secret(len: usize, seed: u64) -> Bytes {
    let mut bytes = noise(len, seed);
    bytes[40..40 + NEEDLE.len()].copy_from_slice(NEEDLE);
    bytes.into()
}

/// Changes short and long, a generation that was replaced and one that is valid, access entries: of whatever a document
/// has, some has the needle.
fn write_document(store: &SledStore, document: &str, bytes: impl Fn(usize, u64) -> Bytes) {
    let commit = |write| store.commit(&[write], Durability::Relaxed).unwrap();
    let change = |first: u64, len| {
        let mut write = append(document, first..first + 1);
        if let Write::Append { changes, .. } = &mut write {
            changes[0] = bytes(len, first);
        }
        write
    };
    for first in 0..40 {
        let entry = bytes(100 + 200 * usize::try_from(first).unwrap(), first);
        commit(Write::Access {
            document: id(document),
            number: first,
            entry,
            labels: labels(first),
        });
        commit(change(first, if first % 8 == 0 { 60_000 } else { 120 }));
        if first % 13 == 12 {
            commit(Write::Snapshot {
                document: id(document),
                base: first,
                keep_from: first - 5,
                received_at_ms: 1,
                snapshot: bytes(150_000, first),
                graph: bytes(9_000, first),
                arrivals: bytes(5_000, first),
            });
            tidy(store);
        }
    }
}

/// Twelve documents over several segments, with three that have the needle among them: one compacted by the way, one
/// written in one go, one with an access log alone.
fn written() -> (OnDisk, SledStore) {
    let (bench, store) = OnDisk::create();
    for number in 0..12 {
        let document = format!("doc {number:02}");
        write_document(&store, &document, |len, seed| {
            noise(len, seed + 1_000 * number).into()
        });
        if number == 5 {
            write_document(&store, "secret", secret);
        }
    }
    let mut writes = vec![append("secret too", 0..3)];
    if let Write::Append { changes, .. } = &mut writes[0] {
        changes.fill(secret(90, 1));
    }
    writes.push(Write::Access {
        document: id("secret entry"),
        number: 0,
        entry: secret(90, 2),
        labels: labels(0),
    });
    store.commit(&writes, Durability::Strict).unwrap();
    store.set_meta("peer-id", b"of the server").unwrap();
    store
        .commit(&[delete("doc 03"), delete("doc 04")], Durability::Strict)
        .unwrap();
    (bench, store)
}

pub(super) const SECRETS: [&str; 3] = ["secret", "secret too", "secret entry"];

pub(super) fn purged() -> (OnDisk, SledStore) {
    let (bench, store) = written();
    let writes: Vec<Write> = SECRETS
        .iter()
        .flat_map(|document| [delete(document), purge(document)])
        .collect();
    store.commit(&writes, Durability::Strict).unwrap();
    (bench, store)
}

/// All that is to be there, in the store's own words: what is deleted and can come back included.
fn all(store: &SledStore) -> BTreeMap<String, Vec<u8>> {
    let entries = store.sled().iter().map(Result::unwrap);
    let entries = entries.filter(|(key, _)| keys::tombstone_of(key).is_none());
    entries
        .filter(|(key, _)| !key.windows(6).any(|part| part == b"secret"))
        .map(|(key, value)| (format!("{key:?}"), value.to_vec()))
        .collect()
}

fn is_whole(store: &SledStore, expected: &BTreeMap<String, Vec<u8>>) {
    assert_eq!(all(store), *expected);
    for info in store.documents(None, 100).unwrap() {
        assert_eq!(store.verify(&info.document).unwrap(), []);
    }
    assert_eq!(store.documents(None, 100).unwrap().len(), 10);
    for document in SECRETS {
        assert_eq!(store.contents(&id(document)).unwrap(), None);
        assert!(store.tombstone(&id(document)).unwrap().unwrap().purged);
    }
    for document in ["doc 03", "doc 04"] {
        let tombstone = store.tombstone(&id(document)).unwrap().unwrap();
        assert_eq!(
            (tombstone.purged, tombstone.remains),
            (false, Remains::Store)
        );
    }
}

#[test]
fn what_was_purged_is_in_no_file() {
    let (bench, store) = purged();
    let path = options(&bench.0).path;
    assert!(store.has_remains().unwrap());
    tidy(&store);
    assert!(store.has_remains().unwrap());
    // Or finding none in the end would say nothing: the sweep alone erases nothing.
    let before = needles(&path);
    assert!(before > 100, "{before}");
    assert!(store.size_on_disk().unwrap() > 3 * SEGMENT_BYTES as u64);
    let expected = all(&store);
    let meta = store.meta("peer-id").unwrap();

    let rewritten = store.rewrite(&|| true).unwrap();
    assert_eq!(rewritten.erased, SECRETS.len());
    assert!(
        rewritten.bytes_after < rewritten.bytes_before,
        "{rewritten:?}"
    );
    // While it is open, and once it was opened anew.
    assert_eq!(needles(&path), 0);
    is_whole(&store, &expected);
    let store = bench.reopen(store);
    assert_eq!(needles(&path), 0);
    is_whole(&store, &expected);
    assert_eq!(store.meta("peer-id").unwrap(), meta);
    for document in SECRETS {
        let tombstone = store.tombstone(&id(document)).unwrap().unwrap();
        assert_eq!(tombstone.remains, Remains::Nothing);
    }
    assert!(!store.has_remains().unwrap());
    // It goes on as any other, with a witness of its own.
    store
        .commit(
            &[append("doc 01", 40..41), undelete("doc 03")],
            Durability::Strict,
        )
        .unwrap();
    assert!(witness::position(&path).unwrap().is_some());
    let store = bench.reopen(store);
    assert_eq!(store.open(&id("doc 01")).unwrap().unwrap().next(), 41);
    assert_eq!(store.open(&id("doc 03")).unwrap().unwrap().next(), 40);
    assert_eq!(needles(&path), 0);
    let mut names: Vec<_> = std::fs::read_dir(&path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with("snap."))
        .collect();
    names.sort();
    assert_eq!(names, ["blobs", "conf", "db", "lock", "witness"]);
}

/// A kill before each step: what is left opens, nothing is lost, and either nothing has happened or nothing is left.
#[test]
fn a_rewrite_can_be_interrupted_anywhere() {
    let (bench, store) = purged();
    let path = options(&bench.0).path;
    tidy(&store);
    let expected = all(&store);
    let mut outcomes = Vec::new();
    let mut step = |_: At| {
        let folder = tempfile::tempdir().unwrap();
        let left = options(&folder);
        copy(&path, &left.path);
        let opened = SledStore::open(&left).unwrap();
        is_whole(&opened, &expected);
        let erased = !opened.has_remains().unwrap();
        drop(opened);
        assert_eq!(needles(&left.path) == 0, erased);
        let names = std::fs::read_dir(&left.path).unwrap();
        let mut names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        assert!(!names.any(|name| name.starts_with("rewrite")));
        outcomes.push(erased);
        Ok(())
    };
    store.rewrite_by(&plenty, &mut step).unwrap();
    // Once it has happened, it has.
    let turn = outcomes.iter().position(|erased| *erased).unwrap();
    assert!(turn >= 5, "{outcomes:?}");
    assert!(outcomes.len() > turn + 8, "{outcomes:?}");
    assert!(
        outcomes[turn..].iter().all(|erased| *erased),
        "{outcomes:?}"
    );
    is_whole(&store, &expected);
    assert_eq!(needles(&path), 0);
}

/// Each step fails once, beside what goes on and in the swap: the store goes on, with the old database or the new one, and
/// it can be tried again.
#[test]
fn a_rewrite_that_fails_can_be_tried_again() {
    let (bench, store) = purged();
    let path = options(&bench.0).path;
    tidy(&store);
    let mut expected = all(&store);
    let mut next = 40;
    let mut failing = 0;
    loop {
        let (mut steps, mut failed) = (0, At::Swap);
        let mut step = |at| {
            steps += 1;
            if steps > failing {
                failed = at;
                return Err(io::Error::other("as if the disk were full"));
            }
            Ok(())
        };
        let rewritten = store.rewrite_by(&plenty, &mut step);
        let is_done = rewritten.is_ok();
        if let Err(error) = rewritten {
            assert!(matches!(error, StoreError::Rewrite { .. }), "{error}");
        }
        is_whole(&store, &expected);
        assert_eq!(needles(&path) == 0, !store.has_remains().unwrap());
        let write = append("doc 00", next..next + 1);
        store.commit(&[write], Durability::Strict).unwrap();
        next += 1;
        expected = all(&store);
        if is_done {
            assert!(failing > 10);
            break;
        }
        // Each of the swap (but perhaps the first), and every other one before.
        failing += if failed == At::Swap { 1 } else { 2 };
    }
    assert_eq!(needles(&path), 0);
    let store = bench.reopen(store);
    is_whole(&store, &expected);
    assert_eq!(store.open(&id("doc 00")).unwrap().unwrap().next(), next);
}

/// While a swap is under way nobody else opens the directory; nor is it gone on with beside one that does.
#[test]
fn a_rewrite_is_alone_in_its_directory() {
    let (bench, store) = purged();
    let options = options(&bench.0);
    let mut steps = 0;
    let mut step = |_: At| {
        steps += 1;
        if steps % 4 == 0 {
            let error = SledStore::open(&options).unwrap_err();
            assert!(matches!(error, StoreError::InUse { .. }), "{error}");
        }
        Ok(())
    };
    store.rewrite_by(&plenty, &mut step).unwrap();
    assert!(steps > 8, "{steps}");
    assert_eq!(needles(&options.path), 0);
}

/// Nobody knows then what is a part of the database, so nothing is opened or begun, whatever was said of losses.
#[test]
fn a_swap_that_can_not_be_looked_at_is_not_taken_for_none() {
    let (bench, store) = purged();
    let expected = all(&store);
    drop(store);
    let mut options = options(&bench.0);
    options.accept_loss = true;
    for name in ["rewrite.ready", "rewrite.moving"] {
        let path = options.path.join(name);
        std::fs::write(&path, "no directory").unwrap();
        let error = SledStore::open(&options).unwrap_err();
        assert!(matches!(error, StoreError::Open { .. }), "{error}");
        std::fs::remove_file(&path).unwrap();
    }
    options.accept_loss = false;
    is_whole(&SledStore::open(&options).unwrap(), &expected);
}

/// What can't be read can't be copied: the old database stays, with all that is in it.
#[test]
fn a_damaged_database_is_not_replaced() {
    let (bench, store) = purged();
    let path = options(&bench.0).path;
    tidy(&store);
    // Opened anew, sled does not go through what it wrote before: damage in there is found when it is read.
    drop(bench.reopen(store));
    let len = usize::try_from(std::fs::metadata(path.join("db")).unwrap().len()).unwrap();
    let mut refused = 0;
    for at in (len / 60..len).step_by(len / 30) {
        let folder = tempfile::tempdir().unwrap();
        let damaged = options(&folder);
        copy(&path, &damaged.path);
        let db = damaged.path.join("db");
        let mut bytes = std::fs::read(&db).unwrap();
        bytes[at] ^= 8;
        std::fs::write(&db, &bytes).unwrap();
        let Ok(store) = SledStore::open(&damaged) else {
            continue;
        };
        // Damage in some places makes sled go in a circle: whoever reads there does not come back (README).
        let store = Arc::new(store);
        let (told, rewritten) = std::sync::mpsc::sync_channel(1);
        let rewriting = Arc::clone(&store);
        std::thread::spawn(move || told.send(rewriting.rewrite(&|| true).is_ok()));
        let Ok(is_rewritten) = rewritten.recv_timeout(Duration::from_mins(1)) else {
            continue;
        };
        if is_rewritten {
            assert_eq!(needles(&damaged.path), 0);
            continue;
        }
        refused += 1;
        assert!(!damaged.path.join("rewrite.copying").exists());
        assert!(needles(&damaged.path) > 0);
        assert!(store.has_remains().unwrap());
        assert!(store.documents(None, 100).unwrap().len() > 5);
    }
    assert!(refused > 0);
}
