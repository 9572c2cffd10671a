//! Promise: the forge is as good as it claims, so that what is tested with it is tested.
//!
//! A change that is taken apart is put together byte for byte as Automerge wrote it; histories are
//! functions of their seeds and have every kind of op.
//!
//! `CONCORD_TEST_SEED=n` runs that seed alone; `CONCORD_TEST_HISTORIES=n` the first n.

use std::collections::BTreeMap;

use bytes::Bytes;
use concord_tests::forge::honest;
use concord_tests::forge::model::{ChangeModel, action, hash};
use concord_tests::forge::oracle::survives;
use concord_tests::forge::reduce::{describe, reduce};
use concord_tests::forge::source::Source;

/// The seeds to run, by the environment.
fn seeds(default: u64) -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|n| n.parse().ok());
    match number("CONCORD_TEST_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("CONCORD_TEST_HISTORIES").unwrap_or(default),
    }
}

#[test]
fn changes_taken_apart_are_put_together_as_they_were() {
    let (mut changes, mut kinds) = (0, BTreeMap::<_, u32>::new());
    for seed in seeds(u64::MAX) {
        let history = honest::history(&mut Source::seeded(seed), 40);
        for change in history.changes {
            let model = ChangeModel::decode(change.raw_bytes());
            assert_eq!(
                model.encode(),
                change.raw_bytes(),
                "seed {seed}: {model:#?}"
            );
            assert_eq!(hash(&model.encode()), change.hash());
            for op in &model.ops {
                let at_key = op.key_text.is_some();
                *kinds.entry((op.action, at_key, op.insert)).or_default() += 1;
            }
            changes += 1;
        }
        if changes >= 20_000 {
            break;
        }
    }
    println!("{changes} changes: {kinds:?}");
    for wanted in [
        (action::MAKE_MAP, true, false),
        (action::MAKE_LIST, true, false),
        (action::MAKE_TEXT, true, false),
        (action::MAKE_MAP, false, true),
        (action::MAKE_TEXT, false, false),
        (action::SET, true, false),
        (action::SET, false, true),
        (action::SET, false, false),
        (action::DELETE, true, false),
        (action::DELETE, false, false),
        (action::INCREMENT, true, false),
        (action::INCREMENT, false, false),
        (action::MARK, false, true),
    ] {
        assert!(changes < 1000 || kinds.contains_key(&wanted), "{wanted:?}");
    }
}

#[test]
fn honest_histories_survive() {
    let mut failures = BTreeMap::<String, Vec<u64>>::new();
    let mut oddities = BTreeMap::<String, Vec<u64>>::new();
    for seed in seeds(1_000) {
        let mut source = Source::seeded(seed);
        let history = honest::history(&mut source, 10 + seed as usize % 50);
        let chunks = history
            .changes
            .iter()
            .map(|c| Bytes::copy_from_slice(c.raw_bytes()));
        let chunks: Vec<_> = chunks.collect();
        if let Err(failure) = survives(&chunks, &mut source) {
            if std::env::var_os("CONCORD_TEST_SEED").is_some() {
                println!("{failure}\n{}", describe(&reduce(&chunks, &failure)));
            }
            failures.entry(failure).or_default().push(seed);
        }
        for oddity in history.oddities {
            oddities.entry(oddity).or_default().push(seed);
        }
    }
    println!("by the way: {oddities:?}");
    assert!(
        failures.is_empty(),
        "replay with CONCORD_TEST_SEED: {failures:#?}"
    );
}
