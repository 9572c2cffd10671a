//! What has become of a list's elements: where those that were there before have gone.

use std::collections::HashMap;
use std::hash::Hash;

/// Neighbours in the list as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Run {
    /// Were there before, from this position on.
    Kept { from: usize, len: usize },
    /// Were not there.
    New { len: usize },
}

/// The whole list as it is now, in order.
///
/// An element is known by the op that put its value, so one with another value is another. Those that stay keep
/// their order, as Automerge's lists know no moving; would one not, it were taken for a new one.
pub(super) fn runs<T: Hash + Eq>(before: &[T], now: &[T]) -> Vec<Run> {
    let same = before
        .iter()
        .zip(now)
        .take_while(|(one, other)| one == other);
    let head = same.count();
    let (before, now) = (before.get(head..), now.get(head..));
    let (before, now) = (before.unwrap_or_default(), now.unwrap_or_default());
    let same = before.iter().rev().zip(now.iter().rev());
    let tail = same.take_while(|(one, other)| one == other).count();
    let tail_from = before.len() - tail;
    let positions = before.iter().take(tail_from).enumerate();
    let positions: HashMap<&T, usize> = positions.map(|(at, one)| (one, at)).collect();

    let mut runs = Vec::new();
    push(&mut runs, Run::Kept { from: 0, len: head });
    let mut next = 0;
    for one in now.iter().take(now.len() - tail) {
        let from = positions.get(one).copied().filter(|from| *from >= next);
        let run = match from {
            Some(from) => {
                next = from + 1;
                let from = head + from;
                Run::Kept { from, len: 1 }
            }
            None => Run::New { len: 1 },
        };
        push(&mut runs, run);
    }
    let from = head + tail_from;
    push(&mut runs, Run::Kept { from, len: tail });
    runs
}

/// Tells of positions, asked for in order, whether the element there was kept.
pub(super) fn kept(runs: &[Run]) -> impl FnMut(usize) -> bool {
    let mut runs = runs.iter();
    let (mut is_kept, mut end) = (false, 0);
    move |index| {
        while end <= index {
            let Some(run) = runs.next() else {
                return false;
            };
            let (Run::Kept { len, .. } | Run::New { len }) = run;
            is_kept = matches!(run, Run::Kept { .. });
            end += len;
        }
        is_kept
    }
}

/// Joined with the last, where it goes on.
fn push(runs: &mut Vec<Run>, run: Run) {
    match (runs.last_mut(), run) {
        (_, Run::Kept { len: 0, .. }) => {}
        (Some(Run::New { len }), Run::New { len: more }) => *len += more,
        (
            Some(Run::Kept { from, len }),
            Run::Kept {
                from: next,
                len: more,
            },
        ) if *from + *len == next => {
            *len += more;
        }
        _ => runs.push(run),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Each of some numbers in order may have been there before, and may be there now.
        #[test]
        fn what_is_in_both_is_kept_and_all_else_new(there in proptest::collection::vec(0_u8..4, 0..20)) {
            let of = |bit: u8| {
                let there = there.iter().enumerate();
                there.filter(move |(_, bits)| **bits & bit != 0).map(|(at, _)| at)
            };
            let (before, now): (Vec<_>, Vec<_>) = (of(1).collect(), of(2).collect());
            let runs = runs(&before, &now);
            let told: Vec<Option<usize>> = runs.iter().flat_map(|run| match run {
                Run::Kept { from, len } => before[*from..from + len].iter().copied().map(Some).collect(),
                Run::New { len } => vec![None; *len],
            }).collect();
            let expected: Vec<_> = now.iter().map(|at| before.contains(at).then_some(*at)).collect();
            prop_assert_eq!(told, expected);
            let mut is_kept = kept(&runs);
            let kept: Vec<_> = (0..=now.len()).filter(|at| is_kept(*at)).collect();
            let expected: Vec<_> = (0..now.len()).filter(|at| before.contains(&now[*at])).collect();
            prop_assert_eq!(kept, expected);
        }
    }
}
