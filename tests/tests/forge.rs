//! Promise: the forge is as good as it claims, so that what is tested with it is tested.
//!
//! A change that is taken apart is put together byte for byte as Automerge wrote it; histories are
//! functions of their seeds and have every kind of op.
//!
//! `CONCORD_TEST_SEED=n` runs that seed alone; `CONCORD_TEST_HISTORIES=n` the first n.

use std::collections::BTreeMap;

use automerge::Change;
use bytes::Bytes;
use concord_shared::Limits;
use concord_shared::change::parse_chunks;
use concord_tests::forge::context::Context;
use concord_tests::forge::honest;
use concord_tests::forge::model::{ChangeModel, action, hash};
use concord_tests::forge::mutate::mutate;
use concord_tests::forge::oracle::survives;
use concord_tests::forge::raw::mutate_bytes;
use concord_tests::forge::reduce::{describe, kind, reduce};
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

/// Whether Concord would look at its ops at all: the rules of the graph, which admission has had
/// from the beginning.
fn keeps_the_graph(earlier: &[Change], change: &Change) -> bool {
    let dep = |hash| earlier.iter().find(|other| other.hash() == hash);
    let deps: Option<Vec<_>> = change.deps().iter().map(|hash| dep(*hash)).collect();
    let Some(deps) = deps else { return false };
    let mut past = Vec::new();
    let mut wanted: Vec<_> = deps.iter().map(|dep| dep.hash()).collect();
    for other in earlier.iter().rev() {
        if wanted.contains(&other.hash()) {
            past.push(other);
            wanted.extend_from_slice(other.deps());
        }
    }
    let own = |other: &&Change| other.actor_id() == change.actor_id();
    let before = earlier.iter().filter(own).count() as u64;
    let built_on = past.iter().filter(|other| own(other)).count() as u64;
    change.seq() == before + 1
        && built_on == before
        && deps
            .iter()
            .all(|dep| dep.max_op() < change.start_op().get())
}

/// Mutates changes of honest histories that nothing depends on, and asks the oracle, with no
/// admission in between. What it prints says which mutations Automerge survives.
#[test]
fn wrong_changes_are_not_all_harmful() {
    let mut by_mutation = BTreeMap::<_, BTreeMap<String, u32>>::new();
    let (mut harmless, mut harmful, mut refused) = (0, 0, 0);
    for seed in seeds(600) {
        let mut source = Source::seeded(seed);
        let history = honest::history(&mut source, 5 + seed as usize % 20);
        let Some((last, earlier)) = history.changes.split_last() else {
            continue;
        };
        let context = Context::new(&history.changes);
        let raw = |change: &Change| Bytes::copy_from_slice(change.raw_bytes());
        for _ in 0..4 {
            let mut model = ChangeModel::decode(last.raw_bytes());
            let done = mutate(&mut source, &mut model, &context);
            let chunk = model.encode();
            // Automerge panics on some of what is refused here.
            let parsed = parse_chunks(&chunk, &Limits::default()).ok();
            let read = parsed.and_then(|_| Change::try_from(&chunk[..]).ok());
            let graph = read.is_some_and(|change| keeps_the_graph(earlier, &change));
            if !graph || done.is_empty() {
                refused += 1;
                continue;
            }
            let mut all: Vec<_> = earlier.iter().map(raw).collect();
            all.push(chunk);
            let outcome = survives(&all, &mut source);
            match &outcome {
                Ok(()) => harmless += 1,
                Err(_) => harmful += 1,
            }
            if std::env::var_os("CONCORD_TEST_SEED").is_some() {
                println!("{done:?}: {outcome:?}\n{}", describe(&all[all.len() - 1..]));
            }
            let outcome = outcome
                .err()
                .map_or("harmless".to_owned(), |failure| kind(&failure));
            if let [only] = done[..] {
                *by_mutation
                    .entry(only)
                    .or_default()
                    .entry(outcome)
                    .or_default() += 1;
            }
        }
    }
    println!("harmless {harmless}, harmful {harmful}, refused before that {refused}");
    for (mutation, outcomes) in by_mutation {
        println!("{mutation}: {outcomes:#?}");
    }
    assert!(harmless > 0 && harmful > 0);
}

/// What no encoder writes is refused before anybody looks at ops, or harms nobody.
#[test]
fn bytes_that_are_taken_are_harmless_or_wrong_in_their_ops() {
    let (mut taken, mut refused) = (0, 0);
    for seed in seeds(300) {
        let mut source = Source::seeded(seed);
        let history = honest::history(&mut source, 8);
        for change in &history.changes {
            let model = ChangeModel::decode(change.raw_bytes());
            let bytes = mutate_bytes(&mut source, &model);
            if parse_chunks(&bytes, &Limits::default()).is_err() {
                refused += 1;
                continue;
            }
            taken += 1;
            // What is taken is what the model would write: nothing is hidden from it.
            let again = ChangeModel::decode(&bytes);
            assert_eq!(again.encode(), bytes, "seed {seed}: {again:#?}");
        }
    }
    println!("taken {taken}, refused {refused}");
    assert!(taken > 0 && refused > taken);
}
