//! Promise: the oracle sees what harms Automerge, and which wrong changes do not is written down.
//!
//! Each case of [`facts`](concord_tests::forge::facts) is one change, wrong in one way, on top of a small
//! good history. It can't pass by accident: both lists are compared, so a case that changes sides fails,
//! be it by the oracle or by another Automerge.

use std::fmt::Write as _;

use bytes::Bytes;
use concord_server::document::judging::judge;
use concord_tests::forge::facts::{cases, concurrent, good};
use concord_tests::forge::model::ChangeModel;
use concord_tests::forge::oracle::survives;
use concord_tests::forge::source::Source;

/// How often the oracle is asked: its orders are random.
const TRIES: u64 = 24;

/// What the oracle says of a case, the different things.
fn failures(models: &[ChangeModel]) -> Vec<String> {
    let mut all: Vec<Bytes> = vec![good().encode(), concurrent().encode()];
    all.extend(models.iter().map(ChangeModel::encode));
    let failure = |seed| survives(&all, &mut Source::seeded(seed)).err();
    let mut failures: Vec<_> = (0..TRIES).filter_map(failure).collect();
    failures.sort();
    failures.dedup();
    failures
}

#[test]
fn what_harms_automerge_and_what_does_not() {
    let mut wrong = Vec::new();
    for (what, harmless, models) in cases() {
        let failures = failures(&models);
        println!(
            "{what}: {}",
            if failures.is_empty() {
                "harmless"
            } else {
                "HARMFUL"
            }
        );
        for failure in failures.iter().take(3) {
            println!("    {}", failure.chars().take(160).collect::<String>());
        }
        if failures.is_empty() != harmless {
            wrong.push(what);
        }
    }
    assert!(wrong.is_empty(), "not as written down: {wrong:#?}");
}

/// Admission may refuse more, what no Automerge writes. What becomes of each case is in a file, one line each.
#[test]
fn what_harms_automerge_is_refused() {
    let before = [good().encode(), concurrent().encode()];
    assert!(judge(&before).refused.is_empty());
    let mut passed = Vec::new();
    let mut verdicts = String::new();
    for (what, harmless, models) in cases() {
        let case = models.iter().map(ChangeModel::encode);
        let all: Vec<Bytes> = before.iter().cloned().chain(case).collect();
        let refused = judge(&all).refused;
        let verdict = match refused.first() {
            Some(first) => first.why.code().as_str(),
            None => "admitted",
        };
        writeln!(verdicts, "{what}: {verdict}").expect("a string");
        if refused.is_empty() && !harmless {
            passed.push(what);
        }
    }
    assert!(passed.is_empty(), "admitted though harmful: {passed:#?}");
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/verdicts.txt");
    if std::env::var_os("CONCORD_TEST_WRITE").is_some() {
        std::fs::write(file, &verdicts).expect("is written");
    }
    let expected = std::fs::read_to_string(file).expect("is there");
    for (verdict, expected) in verdicts.lines().zip(expected.lines()) {
        assert_eq!(verdict, expected);
    }
    assert_eq!(verdicts, expected);
}
