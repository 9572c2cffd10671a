//! Promise: no change passes that would hurt a document, and none is refused that Automerge writes.
//!
//! Both ways against `automerge` itself. Honest histories, made with its API, are admitted in every causal
//! order, and what is known of them afterwards is what is known of the saved and loaded document. Changes
//! that were made wrong by a little, and changes of arbitrary ops, their checksums right, are judged after
//! the rest of their history; whatever is admitted of all that must survive: applied in any order, saved,
//! loaded, edited on (the forge's oracle says whether). It can't pass by refusing everything, or by mutations
//! that change nothing: how many of each outcome there were is asserted.
//!
//! `CONCORD_TEST_SEED=n` runs that seed alone; `CONCORD_TEST_LONG` many more.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use automerge::{Automerge, Change};
use bytes::Bytes;
use concord_server::document::history::History;
use concord_server::document::judging::{Judged, judge};
use concord_shared::change::split_chunks;
use concord_tests::forge::attack::{Attack, attack, on_top};
use concord_tests::forge::context::Context;
use concord_tests::forge::honest;
use concord_tests::forge::oracle::survives;
use concord_tests::forge::quiet::quietly;
use concord_tests::forge::reduce::{describe, reduce};
use concord_tests::forge::source::Source;

/// Part `part` of `of` of the seeds, by the environment.
fn seeds(ordinary: u64, long: u64, part: u64, of: u64) -> Vec<u64> {
    let seed = std::env::var("CONCORD_TEST_SEED").ok();
    if let Some(seed) = seed.and_then(|seed| seed.parse().ok()) {
        return vec![seed];
    }
    let is_long = std::env::var_os("CONCORD_TEST_LONG").is_some();
    let count = if is_long { long } else { ordinary };
    (0..count).filter(|seed| seed % of == part).collect()
}

fn raw(change: &Change) -> Bytes {
    Bytes::copy_from_slice(change.raw_bytes())
}

fn admitted(changes: &[Bytes], what: &str) -> History {
    let Judged {
        history, refused, ..
    } = judge(changes);
    let reasons: Vec<String> = refused.iter().map(ToString::to_string).collect();
    assert!(reasons.is_empty(), "{what}: {reasons:#?}");
    history
}

fn honest_part(part: u64, of: u64) {
    for seed in seeds(1_200, 40_000, part, of) {
        let mut source = Source::seeded(seed);
        let changes = honest::history(&mut source, 10 + seed as usize % 50).changes;
        admitted_in_every_order(&changes, &mut source, &format!("seed {seed}"));
    }
}

/// Judges the changes in several causal orders, as stored and as loaded by Automerge from its own bytes.
fn admitted_in_every_order(changes: &[Change], source: &mut Source<'_>, what: &str) {
    let all: Vec<Bytes> = changes.iter().map(raw).collect();
    let history = admitted(&all, what);
    for _ in 0..3 {
        let order = honest::order(changes, source);
        let other: Vec<Bytes> = order.iter().map(|index| all[*index].clone()).collect();
        let other = admitted(&other, &format!("{what}, in order {order:?}"));
        assert!(history.is_same_as(&other), "{what}, {order:?}");
    }
    let stored = History::decode(&history.encode()).expect("its own bytes");
    assert!(history.is_same_as(&stored), "{what}, stored");
    let saved = quietly(|| {
        let mut document = Automerge::new();
        document.apply_changes(changes.to_vec()).expect("honest");
        Automerge::load(&document.save()).expect("what was saved")
    });
    let loaded = saved.unwrap_or_else(|panic| panic!("{what}: {panic}"));
    let rebuilt: Vec<Bytes> = loaded.get_changes(&[]).iter().map(raw).collect();
    let rebuilt = admitted(&rebuilt, &format!("{what}, loaded"));
    assert!(history.is_same_as(&rebuilt), "{what}, rebuilt");
}

/// Histories in `fixtures/released`, sorted: the name of the version and more, and the changes.
fn released() -> Vec<(String, Vec<Bytes>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/released");
    let mut found = Vec::new();
    for entry in folder.read_dir().expect("the fixtures") {
        let path = entry.expect("an entry").path();
        if path.extension() != Some("changes".as_ref()) {
            continue;
        }
        let bytes = Bytes::from(fs::read(&path).expect("a fixture"));
        let changes: Result<_, _> = split_chunks(&bytes).collect();
        let name = path.file_stem().expect("a name").to_string_lossy();
        found.push((name.into_owned(), changes.expect("chunks")));
    }
    found.sort();
    found
}

/// Which versions, and how they were made: the README beside them.
#[test]
fn what_older_releases_wrote_is_admitted() {
    let mut releases = BTreeMap::<String, usize>::new();
    for (name, changes) in released() {
        if REFUSED.iter().any(|(end, _)| name.ends_with(end)) {
            continue;
        }
        let read = |bytes: &Bytes| Change::from_bytes(bytes.to_vec()).expect("a change");
        let changes: Vec<Change> = changes.iter().map(read).collect();
        admitted_in_every_order(&changes, &mut Source::seeded(1), &name);
        let release: Vec<&str> = name.split('-').take(2).collect();
        *releases.entry(release.join(" ")).or_default() += 1;
    }
    assert_eq!(releases.len(), 11, "{releases:?}");
    assert!(releases.values().all(|count| *count > 1), "{releases:?}");
}

/// What was found so far that older releases write and that is refused: see the README of the fixtures.
const REFUSED: [(&str, &str); 3] = [
    ("split-surrogate", "bad-mark"),
    ("change-at-twice", "forked-actor"),
    ("text-set", "key-mismatch"),
];

#[test]
fn what_older_releases_wrote_to_harm_is_refused() {
    let mut found = BTreeMap::<&str, usize>::new();
    for (name, changes) in released() {
        let mut refused = REFUSED.iter();
        let Some((end, code)) = refused.find(|(end, _)| name.ends_with(end)) else {
            continue;
        };
        *found.entry(end).or_default() += 1;
        let load = |changes: &[Bytes]| {
            let read = |bytes: &Bytes| Change::from_bytes(bytes.to_vec()).expect("a change");
            let mut document = Automerge::new();
            let changes = changes.iter().map(read);
            document.apply_changes(changes).expect("applies");
            Automerge::load(&document.save())
        };
        if *code == "bad-mark" {
            load(&changes).expect_err("is why it is refused");
        }
        let judged = judge(&changes);
        let first = judged.refused.first().expect("one");
        assert_eq!(first.why.code().as_str(), *code, "{name}: {first}");
        load(&judged.admitted).expect("loads");
    }
    assert_eq!(
        found.into_iter().collect::<Vec<_>>(),
        [
            ("change-at-twice", 2),
            ("split-surrogate", 3),
            ("text-set", 2)
        ]
    );
}

fn hostile_part(part: u64, of: u64) {
    /// The last of them of arbitrary ops.
    const PER_HISTORY: usize = 5;
    let (mut taken, mut refused) = (0_u64, BTreeMap::<&str, u64>::new());
    let mut failures = Vec::new();
    for seed in seeds(4_000, 100_000, part, of) {
        let mut source = Source::seeded(seed);
        let changes = honest::history(&mut source, 3 + seed as usize % 16).changes;
        if changes.is_empty() {
            continue;
        }
        let mut context = Context::new(&changes);
        let changes: Vec<Bytes> = changes.iter().map(raw).collect();
        for number in 0..PER_HISTORY {
            let Attack { changes, done } = if number + 1 < PER_HISTORY {
                attack(&mut source, &changes, &context)
            } else {
                on_top(&mut source, &changes, &mut context)
            };
            let judged = judge(&changes);
            match judged.refused.first() {
                None => taken += 1,
                Some(first) => *refused.entry(first.why.code().as_str()).or_default() += 1,
            }
            if let Err(failure) = survives(&judged.admitted, &mut source) {
                if std::env::var_os("CONCORD_TEST_SEED").is_some() {
                    let small = reduce(&judged.admitted, &failure);
                    println!("{number}, {done:?}: {failure}\n{}", describe(&small));
                }
                failures.push((seed, number, done, failure));
            }
        }
    }
    println!("taken {taken}, refused first for {refused:?}");
    assert!(
        failures.is_empty(),
        "replay with CONCORD_TEST_SEED: {failures:#?}"
    );
    if std::env::var_os("CONCORD_TEST_SEED").is_none() {
        assert!(taken > 100, "{taken}");
        for code in [
            "unknown-object",
            "unknown-element",
            "bad-pred",
            "not-in-past",
            "bad-mark",
            "bad-op",
            "bad-value",
            "bad-change",
            "key-mismatch",
            "unknown-value-type",
            "start-op-too-low",
            "duplicate-seq",
            "seq-not-next",
        ] {
            assert!(refused.contains_key(code), "nothing was refused for {code}");
        }
    }
}

/// Several tests, so that both cores work.
macro_rules! parts {
    ($part:ident, $of:literal: $($name:ident = $number:literal),*) => {
        $(#[test]
        fn $name() {
            $part($number, $of);
        })*
    };
}

mod what_automerge_writes_is_admitted {
    use super::honest_part;
    parts!(honest_part, 2: part_0 = 0, part_1 = 1);
}

mod what_is_admitted_survives {
    use super::hostile_part;
    parts!(hostile_part, 4: part_0 = 0, part_1 = 1, part_2 = 2, part_3 = 3);
}
