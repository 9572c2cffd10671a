//! What a damaged file does: nothing that was acknowledged may be gone without a word.
//!
//! Bits are turned over in the file of a store whose documents are known. Afterwards each document must be there as it
//! was, or opening, reading or `verify` must say that something is wrong. The same flips with the check before opening
//! left out lose documents silently, so the places are those that matter.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::*;
use crate::store::Damage;
use crate::store::sled::log;

type Known = BTreeMap<DocumentId, Contents>;

/// A directory of documents written one commit after the other, and what they hold.
fn stored(documents: usize, rounds: u64, bytes: usize) -> (TempDir, SledOptions, Known) {
    let folder = tempfile::tempdir().unwrap();
    let options = options(&folder);
    let store = SledStore::open(&options).unwrap();
    let mut random = StdRng::seed_from_u64(7);
    for round in 0..rounds {
        for n in 0..documents {
            let mut write = append(&format!("doc{n:03}"), round..round + 1);
            if let Write::Append { changes, .. } = &mut write {
                let bytes: Vec<u8> = (0..bytes).map(|_| random.random()).collect();
                changes[0] = bytes.into();
            }
            store.commit(&[write], Durability::Strict).unwrap();
        }
    }
    let known = store.documents(None, usize::MAX).unwrap();
    let known = known.into_iter().map(|info| {
        let contents = store.contents(&info.document).unwrap().unwrap();
        (info.document, contents)
    });
    let known = known.collect();
    drop(store);
    (folder, options, known)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Refused,
    Reported,
    Whole,
    LostWithoutAWord,
}

fn outcome(options: &SledOptions, known: &Known) -> Outcome {
    let Ok(store) = SledStore::open(options) else {
        return Outcome::Refused;
    };
    let mut outcome = Outcome::Whole;
    for (id, contents) in known {
        match store.contents(id) {
            Ok(Some(found)) if found == *contents => {}
            Err(_) => outcome = outcome.min(Outcome::Reported),
            Ok(_) => match store.verify(id) {
                Ok(problems) if !problems.is_empty() => outcome = outcome.min(Outcome::Reported),
                _ => return Outcome::LostWithoutAWord,
            },
        }
    }
    outcome
}

/// All files of a directory.
fn files(path: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap());
    let files = entries.filter(|entry| entry.file_type().unwrap().is_file());
    files
        .map(|entry| (entry.path(), std::fs::read(entry.path()).unwrap()))
        .collect()
}

fn put_back(path: &Path, files: &BTreeMap<PathBuf, Vec<u8>>) {
    for entry in std::fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() && !files.contains_key(&entry.path()) {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
    for (path, bytes) in files {
        std::fs::write(path, bytes).unwrap();
    }
}

/// Flips a bit in each of many places; how often which outcome came.
fn flip(path: &Path, options: &SledOptions, known: &Known, trials: u32) -> BTreeMap<Outcome, u32> {
    let good = files(path);
    let db = &good[&path.join("db")];
    let mut random = StdRng::seed_from_u64(16);
    let mut outcomes = BTreeMap::new();
    for _ in 0..trials {
        let at = loop {
            let at = random.random_range(0..db.len());
            if db[at] != 0 {
                break at;
            }
        };
        let mut bad = db.clone();
        bad[at] ^= 1 << random.random_range(0..8);
        std::fs::write(path.join("db"), bad).unwrap();
        let outcome = outcome(options, known);
        if !options.accept_loss {
            assert_ne!(outcome, Outcome::LostWithoutAWord, "bit at {at}");
        }
        *outcomes.entry(outcome).or_default() += 1;
        put_back(path, &good);
    }
    outcomes
}

fn no_flip_goes_unnoticed(documents: usize, rounds: u64, bytes: usize, trials: u32) {
    let (_folder, mut options, known) = stored(documents, rounds, bytes);
    let path = options.path.clone();
    let outcomes = flip(&path, &options, &known, trials);
    assert!(outcomes[&Outcome::Refused] > trials / 2, "{outcomes:?}");
    options.accept_loss = true;
    let unchecked = flip(&path, &options, &known, trials / 2);
    assert!(
        unchecked.contains_key(&Outcome::LostWithoutAWord),
        "{unchecked:?}"
    );
}

#[test]
fn no_flipped_bit_of_a_small_store_goes_unnoticed() {
    no_flip_goes_unnoticed(20, 5, 300, 200);
}

/// Several segments, written since the store was last opened.
#[test]
fn no_flipped_bit_of_a_large_store_goes_unnoticed() {
    no_flip_goes_unnoticed(60, 4, 12_000, 40);
}

/// What was written before the store was last opened is not read when it is opened: it is the documents' errors then.
#[test]
fn no_flipped_bit_before_the_last_opening_goes_unnoticed() {
    let (_folder, options, known) = stored(60, 4, 12_000);
    drop(SledStore::open(&options).unwrap());
    let outcomes = flip(&options.path, &options, &known, 40);
    assert!(outcomes.contains_key(&Outcome::Reported), "{outcomes:?}");
}

#[test]
fn a_damaged_directory_is_refused_unchanged_and_mends_when_the_bit_does() {
    let (_folder, mut options, known) = stored(20, 5, 300);
    let path = options.path.clone();
    let good = files(&path);
    let mut bad = good.clone();
    let db = bad.get_mut(&path.join("db")).unwrap();
    let middle = db.iter().rposition(|byte| *byte != 0).unwrap() / 2;
    db[middle] ^= 4;
    put_back(&path, &bad);
    for _ in 0..2 {
        let error = SledStore::open(&options).unwrap_err();
        assert!(
            matches!(error, StoreError::Damaged { damage: Damage::At(at), .. } if at <= middle as u64),
            "{error}"
        );
        assert_eq!(files(&path), bad);
    }
    put_back(&path, &good);
    assert_eq!(outcome(&options, &known), Outcome::Whole);

    // Accepted once, it is over: the directory is a shorter one, and whole.
    put_back(&path, &bad);
    options.accept_loss = true;
    drop(SledStore::open(&options).unwrap());
    options.accept_loss = false;
    assert_eq!(outcome(&options, &known), Outcome::LostWithoutAWord);
}

#[test]
fn an_older_file_a_cut_one_and_none_are_refused() {
    let (folder, options, _) = stored(20, 5, 300);
    let path = options.path.clone();
    let db = path.join("db");
    let old = std::fs::read(&db).unwrap();
    let store = SledStore::open(&options).unwrap();
    store
        .commit(&[append("later", 0..1)], Durability::Strict)
        .unwrap();
    drop(store);
    let good = files(&path);
    let refused =
        |options: &SledOptions| matches!(SledStore::open(options), Err(StoreError::Damaged { .. }));
    std::fs::write(&db, &old).unwrap();
    assert!(refused(&options));
    for len in [0, 10, old.len() / 3] {
        put_back(&path, &good);
        std::fs::write(&db, &old[..len]).unwrap();
        assert!(refused(&options), "{len} bytes");
    }
    std::fs::remove_file(&db).unwrap();
    assert!(refused(&options));
    drop(folder);
}

/// The witness itself is no reason to refuse: without it, or with half of it, a directory opens and gets a new one.
#[test]
fn a_witness_that_is_missing_or_torn_is_made_anew() {
    let (_folder, options, known) = stored(5, 2, 300);
    let file = options.path.join("witness");
    let whole = std::fs::read(&file).unwrap();
    assert!(whole.len() > 512, "both places were used");
    let mut torn = whole.clone();
    torn[20] ^= 1;
    let mut gone = whole.clone();
    gone.fill(0);
    for left in [Some(torn), Some(gone), Some(Vec::new()), None] {
        match left {
            Some(bytes) => std::fs::write(&file, bytes).unwrap(),
            None => std::fs::remove_file(&file).unwrap(),
        }
        assert_eq!(outcome(&options, &known), Outcome::Whole);
        let now = witness::position(&options.path).unwrap().unwrap();
        assert!(now > 1_000, "{now}");
    }
}

/// sled cuts free segments off the file's end at any time. The witness was given up for that once.
#[test]
fn headers_are_read_while_the_file_is_cut() {
    let file = tempfile::tempfile().unwrap();
    let writer = file.try_clone().unwrap();
    let is_done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..20_000 {
                writer.set_len(n % 2 * 8 * log::SEGMENT).unwrap();
            }
            is_done.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        while !is_done.load(std::sync::atomic::Ordering::Relaxed) {
            let read = log::Segments::read(&file, 0).unwrap();
            assert!(read.found.is_empty() && read.damaged.is_empty());
        }
    });
}

/// No kill looks like damage: the files as they are at any moment open, however often segments were freed and used
/// again; and the witness is where the last acknowledged commit ends.
#[test]
fn a_kill_at_any_moment_is_no_damage() {
    let (bench, store) = OnDisk::create();
    let path = options(&bench.0).path;
    let mut random = StdRng::seed_from_u64(3);
    let mut highest = 0;
    for round in 0..120_u64 {
        let base = round + 1;
        let blob: Vec<u8> = (0..150_000).map(|_| random.random()).collect();
        let writes = [
            append("a", round..base),
            Write::Snapshot {
                document: id("a"),
                base,
                keep_from: base,
                received_at_ms: 1,
                snapshot: blob.into(),
                graph: Bytes::new(),
                arrivals: Bytes::new(),
            },
        ];
        let durability = if round % 3 == 0 {
            Durability::Relaxed
        } else {
            Durability::Strict
        };
        store.commit(&writes, durability).unwrap();
        while store.tidy().unwrap() {}
        let position = witness::position(&path).unwrap().unwrap();
        assert!(position >= highest);
        highest = position;
        if round % 5 != 0 {
            continue;
        }
        let folder = tempfile::tempdir().unwrap();
        let left = options(&folder);
        std::fs::create_dir_all(left.path.join("blobs")).unwrap();
        // The witness first, as nothing holds sled's threads off meanwhile.
        for name in ["witness", "conf", "db"] {
            std::fs::copy(path.join(name), left.path.join(name)).unwrap();
        }
        let opened = SledStore::open(&left).unwrap();
        assert_eq!(opened.verify(&id("a")).unwrap(), []);
        assert_eq!(opened.open(&id("a")).unwrap().unwrap().next(), base);
        drop(opened);
        drop(SledStore::open(&left).unwrap());
    }
    // More was written than the file holds.
    let len = std::fs::metadata(path.join("db")).unwrap().len();
    assert!(highest > len, "{highest} of {len}");
}

/// One flipped bit where sled does not look when it opens hides one leaf of the tree. Every document is listed, or lies
/// in a stretch that is named; and nearly all of them are whole.
#[test]
fn a_damaged_leaf_hides_only_what_lies_in_it() {
    let (_folder, options, known) = stored(60, 4, 12_000);
    drop(SledStore::open(&options).unwrap());
    let path = &options.path;
    let good = files(path);
    let db = &good[&path.join("db")];
    let mut random = StdRng::seed_from_u64(54);
    let (mut opened, mut crippled) = (0, 0);
    for _ in 0..60 {
        let at = random.random_range(0..db.len());
        let mut bad = db.clone();
        bad[at] ^= 1;
        std::fs::write(path.join("db"), bad).unwrap();
        if let Ok(store) = SledStore::open(&options) {
            opened += 1;
            let listed: Vec<_> = store.documents(None, usize::MAX).unwrap();
            let unlisted = store.unlisted().unwrap();
            for document in known.keys() {
                let is_listed = listed.iter().any(|info| info.document == *document);
                let in_stretch = unlisted.iter().any(|stretch| {
                    stretch.after.as_ref().is_none_or(|after| after < document)
                        && stretch
                            .before
                            .as_ref()
                            .is_none_or(|before| document < before)
                });
                assert!(is_listed || in_stretch, "{document}, bit at {at}");
            }
            let whole = known.iter().filter(|(id, contents)| {
                store
                    .contents(id)
                    .is_ok_and(|found| found.as_ref() == Some(contents))
            });
            let whole = whole.count();
            for info in &listed {
                let named = matches!(
                    store.verify(&info.document),
                    Ok(_) | Err(StoreError::Corrupt { .. })
                );
                assert!(named, "{}, bit at {at}", info.document);
            }
            crippled += u32::from(whole + 5 < known.len());
        }
        put_back(path, &good);
    }
    assert!(
        opened > 30 && crippled <= 2,
        "{opened} opened, {crippled} crippled"
    );
}

/// Where leaves with documents' own records can't be read: what lies between them is listed, and what does not is in a
/// stretch that is named. The file is damaged after it was opened, or opening would refuse it; what sled has not read by
/// then it reads from the file.
#[test]
fn listing_goes_on_behind_damaged_leaves() {
    let (_folder, options, known) = stored(400, 1, 1_000);
    let store = SledStore::open(&options).unwrap();
    for known in ["doc000", "doc399"] {
        assert!(store.open(&id(known)).unwrap().is_some());
    }
    let db = options.path.join("db");
    let mut bytes = std::fs::read(&db).unwrap();
    for at in (30_000..bytes.len()).step_by(60_000) {
        bytes[at] ^= 8;
    }
    std::fs::write(&db, bytes).unwrap();
    let listed = store.documents(None, usize::MAX).unwrap();
    let unlisted = store.unlisted().unwrap();
    assert!(!unlisted.is_empty());
    assert!(listed.len() > known.len() / 2, "{}", listed.len());
    for document in known.keys() {
        let is_listed = listed.iter().any(|info| info.document == *document);
        let in_stretch = unlisted.iter().any(|stretch| {
            stretch.after.as_ref().is_none_or(|after| after < document)
                && stretch
                    .before
                    .as_ref()
                    .is_none_or(|before| document < before)
        });
        assert!(is_listed != in_stretch, "{document}: {unlisted:?}");
    }
    let first = listed.first().unwrap().document.as_str();
    let last = listed.last().unwrap().document.as_str();
    assert_eq!((first, last), ("doc000", "doc399"));
}
