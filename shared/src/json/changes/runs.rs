//! What has become of a list's elements: where those that were there before have gone.

use std::ops::Range;

/// Neighbours of the list as it is now, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Run {
    /// Were there before, from this position on. Something within them may have changed.
    Kept { from: usize, len: usize },
    /// One that was there before, at this position; another value may have been put in its place.
    Changed { from: usize },
    /// Were not there.
    New { len: usize },
}

/// A list, as patch after patch is applied.
#[derive(Debug)]
pub(super) struct Runs {
    runs: Vec<Run>,
    /// A run and the position that it begins at. Patches mostly come in ascending order, so the next is looked
    /// for from here.
    cursor: (usize, usize),
}

/// A position that the list does not have.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Beyond;

impl Run {
    const fn len(self) -> usize {
        match self {
            Self::Kept { len, .. } | Self::New { len } => len,
            Self::Changed { .. } => 1,
        }
    }

    /// Its elements before `at` and those from there on.
    const fn split(self, at: usize) -> (Self, Self) {
        match self {
            Self::Kept { from, len } => (
                Self::Kept { from, len: at },
                Self::Kept {
                    from: from + at,
                    len: len - at,
                },
            ),
            Self::New { len } => (Self::New { len: at }, Self::New { len: len - at }),
            Self::Changed { .. } => (self, self),
        }
    }
}

impl Runs {
    /// A list of so many elements, before anything has changed.
    pub(super) fn new(len: usize) -> Self {
        Self {
            runs: vec![Run::Kept { from: 0, len }],
            cursor: (0, 0),
        }
    }

    pub(super) fn insert(&mut self, index: usize, len: usize) -> Result<(), Beyond> {
        let at = self.split(index)?;
        if len > 0 {
            self.runs.insert(at, Run::New { len });
        }
        Ok(())
    }

    pub(super) fn delete(&mut self, index: usize, len: usize) -> Result<(), Beyond> {
        let end = index.checked_add(len).ok_or(Beyond)?;
        // From the front, so that the end is looked for from there.
        let from = self.split(index)?;
        let to = self.split(end)?;
        self.runs.drain(from..to);
        self.cursor = (from, index);
        Ok(())
    }

    /// Another value may be at this position.
    pub(super) fn change(&mut self, index: usize) -> Result<(), Beyond> {
        let end = index.checked_add(1).ok_or(Beyond)?;
        let at = self.split(index)?;
        self.split(end)?;
        self.cursor = (at, index);
        let run = self.runs.get_mut(at).ok_or(Beyond)?;
        if let Run::Kept { from, .. } = *run {
            *run = Run::Changed { from };
        }
        Ok(())
    }

    /// Of how many elements the list is now.
    pub(super) fn len(&self) -> usize {
        self.runs.iter().map(|run| run.len()).sum()
    }

    /// Runs may be empty.
    pub(super) fn iter(&self) -> impl Iterator<Item = Run> {
        self.runs.iter().copied()
    }

    /// The positions, in order, at which are elements that were kept.
    pub(super) fn kept(&self) -> impl Iterator<Item = Range<usize>> {
        let mut at = 0;
        self.runs.iter().filter_map(move |run| {
            let start = at;
            at += run.len();
            matches!(run, Run::Kept { .. }).then_some(start..at)
        })
    }

    /// Makes a run begin at a position, and gives which; the one behind the last for the list's end.
    fn split(&mut self, index: usize) -> Result<usize, Beyond> {
        let (mut at, mut start) = self.cursor;
        if index < start {
            (at, start) = (0, 0);
        }
        while let Some(run) = self.runs.get(at).copied() {
            let within = index - start;
            if within == 0 {
                break;
            }
            if within < run.len() {
                let (before, behind) = run.split(within);
                self.runs.splice(at..=at, [before, behind]);
            }
            // Now the run ends at the position or before it.
            start += self.runs.get(at).map_or(0, |run| run.len());
            at += 1;
        }
        if start != index {
            return Err(Beyond);
        }
        self.cursor = (at, start);
        Ok(at)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a list of numbers that is changed one element at a time.
        #[test]
        fn each_element_is_where_a_plain_list_has_it(
            len in 0_usize..9,
            edits in proptest::collection::vec((0_u8..3, 0_usize..14, 0_usize..4), 0..12),
        ) {
            let mut plain: Vec<Option<(usize, bool)>> = (0..len).map(|at| Some((at, false))).collect();
            let mut runs = Runs::new(len);
            for (kind, index, count) in edits {
                let room = plain.len().saturating_sub(index);
                match kind {
                    0 if index <= plain.len() => {
                        runs.insert(index, count).unwrap();
                        plain.splice(index..index, vec![None; count]);
                    }
                    1 if index < plain.len() => {
                        runs.delete(index, count.min(room)).unwrap();
                        plain.drain(index..index + count.min(room));
                    }
                    2 if index < plain.len() => {
                        runs.change(index).unwrap();
                        plain[index] = plain[index].map(|(from, _)| (from, true));
                    }
                    0 => prop_assert_eq!(runs.insert(index, 1), Err(Beyond)),
                    1 => prop_assert_eq!(runs.delete(index, room + 1), Err(Beyond)),
                    _ => prop_assert_eq!(runs.change(index), Err(Beyond)),
                }
            }
            prop_assert_eq!(runs.len(), plain.len());
            let there = runs.iter().flat_map(|run| match run {
                Run::Kept { from, len } => (from..from + len).map(|at| Some((at, false))).collect(),
                Run::Changed { from } => vec![Some((from, true))],
                Run::New { len } => vec![None; len],
            });
            prop_assert_eq!(there.collect::<Vec<_>>(), plain);
        }
    }
}
