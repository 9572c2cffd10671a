//! Smaller examples of what fails.

use std::fmt::Write as _;

use automerge::Change;
use bytes::Bytes;

use super::model::ChangeModel;
use super::oracle::survives;
use super::source::Source;

/// How often the oracle is asked: its orders are random.
const TRIES: u64 = 12;

/// Leaves out changes, and all that depend on them, as long as the oracle says something of the same
/// kind, by the first words of what it says.
pub fn reduce(changes: &[Bytes], failure: &str) -> Vec<Bytes> {
    let kind = kind(failure);
    let mut left = changes.to_vec();
    let mut at = left.len();
    while at > 0 {
        at -= 1;
        if at >= left.len() {
            continue;
        }
        let fewer = without(&left, at);
        let fails = |seed| {
            let result = survives(&fewer, &mut Source::seeded(seed));
            result.is_err_and(|failure| self::kind(&failure) == kind)
        };
        if (0..TRIES).any(fails) {
            left = fewer;
        }
    }
    left
}

/// What a failure is, without the values that differ from case to case.
pub fn kind(failure: &str) -> String {
    let short = failure.split("value:").next().unwrap_or_default();
    let short = short.split(" - ").next().unwrap_or_default();
    let mut words: String = short.chars().filter(|c| !c.is_ascii_digit()).collect();
    if let Some(hash) = words.find(" is another change") {
        words.replace_range(..hash, "");
    }
    words.chars().take(100).collect()
}

/// The changes in words, for who looks into a failure.
pub fn describe(changes: &[Bytes]) -> String {
    let mut out = String::new();
    for chunk in changes {
        let model = ChangeModel::decode(chunk);
        let hash = super::model::hash(chunk).to_string();
        let deps: Vec<_> = model
            .deps
            .iter()
            .map(|dep| dep.to_string()[..6].to_owned())
            .collect();
        let others: Vec<_> = model.other_actors.iter().map(|actor| hex(actor)).collect();
        let _ = writeln!(
            out,
            "{} by {} seq {} on {deps:?}, others {others:?}",
            &hash[..6],
            hex(&model.actor),
            model.seq
        );
        for (op, counter) in model.ops.iter().zip(model.start_op..) {
            let key = match (&op.key_text, op.key_counter) {
                (Some(key), _) => format!("{key:?}"),
                (None, counter) => format!("{:?}@{:?}", counter, op.key_actor),
            };
            let _ = writeln!(
                out,
                "  {counter}: action {} in {:?}@{:?} at {key}{} value {}:{:?} over {:?}{}{:?}",
                op.action,
                op.obj_counter,
                op.obj_actor,
                if op.insert { " insert" } else { "" },
                op.value_meta & 15,
                &op.value[..op.value.len().min(12)],
                op.preds
                    .iter()
                    .map(|(actor, counter)| format!("{counter}@{actor}"))
                    .collect::<Vec<_>>(),
                if op.expand { " expand " } else { " " },
                op.mark_name,
            );
        }
    }
    out
}

fn hex(bytes: &[u8]) -> String {
    let mut out = String::new();
    for byte in bytes.iter().take(4) {
        let _ = write!(out, "{byte:02x}");
    }
    out
}

fn without(changes: &[Bytes], at: usize) -> Vec<Bytes> {
    let mut gone = Vec::new();
    let mut left = Vec::new();
    for (index, chunk) in changes.iter().enumerate() {
        let change = Change::try_from(&chunk[..]).expect("it was read before");
        if index == at || change.deps().iter().any(|dep| gone.contains(dep)) {
            gone.push(change.hash());
        } else {
            left.push(chunk.clone());
        }
    }
    left
}
