//! A history with something wrong in it, judged: what is honest is admitted, and what is admitted
//! harms nobody.
//!
//! An input is two streams of decisions, so that a fuzzer can leave the history as it is and try what
//! can be done to it: a byte for the first one's length, that stream, from which the history is made,
//! and the rest, from which the attack is.

use std::collections::BTreeSet;

use automerge::Change;
use bytes::Bytes;
use concord_server::document::history::History;
use concord_server::document::judging::{Judged, judge};
use concord_shared::Limits;
use concord_shared::change::parse_chunks;

use crate::forge::attack::{Attack, attack, on_top};
use crate::forge::context::Context;
use crate::forge::honest;
use crate::forge::model::ChangeModel;
use crate::forge::oracle::survives;
use crate::forge::reduce::describe;
use crate::forge::source::Source;

/// Bytes of decisions about the history for each unit of the input's first byte.
const HISTORY_UNIT_BYTES: usize = 4;

/// Decisions about a history, in bytes, for each change that is asked of it.
const BYTES_PER_CHANGE: usize = 24;

/// Changes of a history; small, so that many can be tried.
const MOST_CHANGES: usize = 16;

/// Ops that a wrong change may claim: the oracle expands them, as clients would.
const MOST_OPS: u64 = 2_000;

/// How long the part of the input is from which the history is made.
pub(crate) fn history_bytes(input: &[u8]) -> usize {
    let wanted = input.first().map_or(0, |units| usize::from(*units));
    (1 + wanted * HISTORY_UNIT_BYTES).min(input.len())
}

/// What an input stands for.
pub(crate) struct Case {
    /// As Automerge made it.
    pub(crate) honest: Vec<Bytes>,
    /// That with something wrong.
    pub(crate) attacked: Vec<Bytes>,
}

impl Case {
    pub(crate) fn new(input: &[u8]) -> Self {
        let (history, rest) = input.split_at(history_bytes(input));
        let decisions = history.get(1..).unwrap_or_default();
        let changes = 1 + (decisions.len() / BYTES_PER_CHANGE).min(MOST_CHANGES);
        let changes = honest::history(&mut Source::bytes(decisions), changes).changes;
        let mut context = Context::new(&changes);
        let honest: Vec<Bytes> = changes.iter().map(raw).collect();
        let mut source = Source::bytes(rest);
        let mut attacked = honest.clone();
        let which = source.below(3);
        if which != 1 {
            attacked = on_top(&mut source, &attacked, &mut context).changes;
        }
        if which != 0 {
            let Attack { changes, done: _ } = attack(&mut source, &attacked, &context);
            attacked = changes;
        }
        attacked.retain(is_small);
        Self { honest, attacked }
    }
}

/// What an input leads to: codes of refusals, and kinds of ops that are admitted of the attack.
#[allow(dead_code, reason = "for whoever chooses and counts seeds")]
pub(crate) fn reached(input: &[u8]) -> BTreeSet<String> {
    let Case { honest, attacked } = Case::new(input);
    let judged = judge(&attacked);
    let codes = judged.refused.iter();
    let mut reached: BTreeSet<String> = codes
        .map(|refused| refused.why.code().as_str().to_owned())
        .collect();
    let new = judged
        .admitted
        .iter()
        .filter(|chunk| !honest.contains(chunk));
    for op in new.flat_map(|chunk| ChangeModel::decode(chunk).ops) {
        let at = match op.key_text {
            Some(_) => "a key",
            None => "an element",
        };
        let insert = if op.insert { ", inserted" } else { "" };
        reached.insert(format!("action {} at {at}{insert}", op.action));
    }
    reached
}

/// Whether it claims few ops. A document can have more, but not in this test.
fn is_small(chunk: &Bytes) -> bool {
    let limits = Limits {
        ops_per_change: MOST_OPS,
        ..Limits::default()
    };
    let code = parse_chunks(chunk, &limits).err().map(|error| error.code());
    code != Some(concord_shared::ErrorCode::TooManyOps)
}

pub(super) fn check(input: &[u8]) {
    let Case { honest, attacked } = Case::new(input);
    let Judged { refused, .. } = judge(&honest);
    let reasons: Vec<_> = refused.iter().map(ToString::to_string).collect();
    assert!(reasons.is_empty(), "honest, and refused: {reasons:#?}");
    let judged = judge(&attacked);
    let mut source = Source::seeded(seed(input));
    same_in_any_order(&judged, &mut source);
    if let Err(failure) = survives(&judged.admitted, &mut source) {
        panic!("{failure}\n{}", describe(&judged.admitted));
    }
}

/// What was admitted once is admitted when it comes in another order, as it does when a document is
/// opened from its snapshot, and the same is known of it then.
fn same_in_any_order(judged: &Judged, source: &mut Source<'_>) {
    let changes = judged.admitted.iter();
    let changes: Vec<_> = changes
        .map(|chunk| Change::try_from(&chunk[..]).expect("what is admitted is read"))
        .collect();
    let order = honest::order(&changes, source);
    let other: Vec<_> = order
        .iter()
        .map(|at| judged.admitted[*at].clone())
        .collect();
    let other = judge(&other);
    let reasons: Vec<_> = other.refused.iter().map(ToString::to_string).collect();
    let described = || describe(&judged.admitted);
    assert!(
        reasons.is_empty(),
        "in order {order:?}: {reasons:#?}\n{}",
        described()
    );
    assert!(
        judged.history.is_same_as(&other.history),
        "in order {order:?}\n{}",
        described()
    );
    let stored = History::decode(&judged.history.encode()).expect("its own bytes");
    assert!(judged.history.is_same_as(&stored), "{}", described());
}

/// Orders and edits of the oracle differ from input to input, and are the same for the same (FNV-1a).
fn seed(input: &[u8]) -> u64 {
    input.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn raw(change: &Change) -> Bytes {
    Bytes::copy_from_slice(change.raw_bytes())
}
