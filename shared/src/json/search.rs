//! What two sequences have in common.

use std::hash::Hash;
use std::time::{Duration, Instant};

use similar::{Algorithm, DiffOp, capture_diff_slices_deadline};

/// How long the smallest difference may be looked for, in all lists and texts of an edit together. After that larger
/// ones are taken. What comes of it is the same value.
#[derive(Debug, Clone, Copy)]
pub struct Search {
    left: Option<Duration>,
}

impl Search {
    /// Until it is found.
    pub const THOROUGH: Self = Self { left: None };

    /// At most so long. Only looking counts, not what is read before and written after it.
    pub fn at_most(time: Duration) -> Self {
        Self { left: Some(time) }
    }

    /// From one to the other.
    pub(super) fn ops<T: Hash + Ord>(&mut self, from: &[T], to: &[T]) -> Vec<DiffOp> {
        let start = Instant::now();
        let deadline = self.left.map(|left| start + left);
        let ops = capture_diff_slices_deadline(Algorithm::Myers, from, to, deadline);
        self.took(start);
        ops
    }

    /// What has to be known of both before, if there is any time left for it.
    pub(super) fn timed<R>(&mut self, prepare: impl FnOnce() -> R) -> Option<R> {
        if self.left == Some(Duration::ZERO) {
            return None;
        }
        let start = Instant::now();
        let prepared = prepare();
        self.took(start);
        Some(prepared)
    }

    fn took(&mut self, start: Instant) {
        self.left = self.left.map(|left| left.saturating_sub(start.elapsed()));
    }
}

/// The most pairs that have the same order on both sides, of pairs in the order of their second: first numbers that
/// differ. In time n log n.
pub(super) fn in_order(pairs: &[(usize, usize)]) -> Vec<(usize, usize)> {
    // Rows in order, by their length: the pair that ends each, the one with the smallest first number that any of that length
    // ends with.
    let mut ends: Vec<(usize, usize)> = Vec::new();
    // Of each pair, the one before it in the longest row that it ends.
    let mut before = Vec::with_capacity(pairs.len());
    for (index, (first, _)) in pairs.iter().enumerate() {
        let length = ends.partition_point(|(end, _)| end < first);
        let shorter = length.checked_sub(1).and_then(|shorter| ends.get(shorter));
        before.push(shorter.map(|(_, index)| *index));
        match ends.get_mut(length) {
            Some(end) => *end = (*first, index),
            None => ends.push((*first, index)),
        }
    }
    let last = ends.last().map(|(_, index)| *index);
    let row = std::iter::successors(last, |index| *before.get(*index)?);
    let mut row: Vec<(usize, usize)> = row.filter_map(|index| pairs.get(index).copied()).collect();
    row.reverse();
    row
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::in_order;

    /// By trying all.
    fn longest(firsts: &[usize], above: Option<usize>) -> usize {
        let Some((first, rest)) = firsts.split_first() else {
            return 0;
        };
        let without = longest(rest, above);
        if above.is_some_and(|above| above >= *first) {
            return without;
        }
        without.max(1 + longest(rest, Some(*first)))
    }

    proptest! {
        #[test]
        fn the_longest_row_is_found(firsts in Just((0..9).collect::<Vec<usize>>()).prop_shuffle()) {
            let pairs: Vec<(usize, usize)> = firsts.iter().copied().zip(0..).collect();
            let row = in_order(&pairs);
            prop_assert!(row.is_sorted_by(|one, next| one.0 < next.0 && one.1 < next.1), "{row:?}");
            prop_assert!(row.iter().all(|pair| pairs.contains(pair)));
            prop_assert_eq!(row.len(), longest(&firsts, None));
        }
    }
}
