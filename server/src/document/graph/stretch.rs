//! A part of the order of admission, for those who read the history.

use std::ops::Range;

use automerge::ChangeHash;

use super::{Graph, Index};

/// Most changes of a stretch: so many are copied in some 20 µs, and the relay waits no longer.
pub const CHANGES_PER_STRETCH: usize = 4096;

/// Consecutive visible changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stretch {
    /// Place of the first.
    pub first: Index,
    /// Their hashes.
    pub hashes: Vec<ChangeHash>,
    /// Their deps one after another; those of the change `n` end at `deps_end[n]`.
    deps: Vec<Index>,
    deps_end: Vec<usize>,
    /// How many changes are visible in all.
    pub count: Index,
}

impl Graph {
    /// The visible changes at these places: the first of them, as many as a stretch may have.
    pub fn stretch(&self, places: Range<Index>) -> Stretch {
        let end = places.end.min(self.visible());
        let mut stretch = Stretch {
            first: places.start.min(end),
            count: self.visible(),
            ..Stretch::default()
        };
        for index in (stretch.first..end).take(CHANGES_PER_STRETCH) {
            stretch.hashes.extend(self.hash(index));
            stretch.deps.extend_from_slice(self.deps(index));
            stretch.deps_end.push(stretch.deps.len());
        }
        stretch
    }
}

impl Stretch {
    /// Place behind the last.
    pub fn end(&self) -> Index {
        let count = Index::try_from(self.hashes.len()).unwrap_or(Index::MAX);
        self.first.saturating_add(count)
    }

    /// Each change: its place, its hash, and the places of its deps.
    pub fn changes(&self) -> impl Iterator<Item = (Index, ChangeHash, &[Index])> {
        let starts = std::iter::once(&0).chain(&self.deps_end);
        let deps = starts.zip(&self.deps_end);
        let deps = deps.map(|(start, end)| self.deps.get(*start..*end).unwrap_or_default());
        let changes = (self.first..).zip(&self.hashes).zip(deps);
        changes.map(|((place, hash), deps)| (place, *hash, deps))
    }
}

#[cfg(test)]
mod tests {
    use automerge::ActorId;

    use super::*;
    use crate::document::graph::{GraphError, NewNode};
    use crate::document::past::{Pasts, Steps};

    #[test]
    fn stretches_are_the_visible_changes_piece_by_piece() {
        let (mut graph, mut pasts) = (Graph::new(), Pasts::default());
        let hash = |n: u32| {
            let mut hash = [0; 32];
            hash[..4].copy_from_slice(&n.to_le_bytes());
            ChangeHash(hash)
        };
        let count = Index::try_from(CHANGES_PER_STRETCH).unwrap() + 10;
        for n in 0..count {
            let deps: Vec<ChangeHash> = (n > 0).then(|| hash(n - 1)).into_iter().collect();
            let actor = ActorId::from([1]);
            let node = NewNode {
                hash: hash(n),
                deps: &deps,
                actor: &actor,
                seq: u64::from(n) + 1,
                start_op: n + 1,
                ops: 1,
            };
            let mut steps = Steps::new(u64::MAX);
            let admitted = graph.admit(&node, &mut pasts, &mut steps, |_, _, _| {
                Ok::<(), GraphError>(())
            });
            assert_eq!(admitted, Ok(n));
        }
        graph.make_visible(count - 1);
        let mut next = 0;
        let mut places = Vec::new();
        while next < count - 1 {
            let stretch = graph.stretch(next..Index::MAX);
            assert_eq!((stretch.first, stretch.count), (next, count - 1));
            assert!(stretch.hashes.len() <= CHANGES_PER_STRETCH && !stretch.hashes.is_empty());
            for (place, found, deps) in stretch.changes() {
                assert_eq!(found, hash(place));
                let before: Vec<Index> = place.checked_sub(1).into_iter().collect();
                assert_eq!(deps, before);
                places.push(place);
            }
            next = stretch.end();
        }
        assert_eq!(places, (0..count - 1).collect::<Vec<_>>());
        assert!(graph.stretch(count - 1..count).hashes.is_empty());
        assert_eq!(graph.stretch(5..7).end(), 7);
    }
}
