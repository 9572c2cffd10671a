//! Which of two elements of a sequence comes first.
//!
//! A sequence is a tree: each element hangs behind the one that its op names, and of several behind the
//! same one the op with the higher id comes first (the order of RGA, as Automerge has it). A run of the
//! index is a path in that tree. From both elements the walk goes up, run by run, until it is in one run;
//! there the answer is in the branches by which it came.
//!
//! An element's op has a higher counter than the one it is behind, so of two runs the one that begins with
//! the higher id can't hold an ancestor of the other's first element: that is the one to leave. Cost: the
//! runs between the two elements and the last one that both are behind, which for a mark on a few words
//! are few.

use std::cmp::Ordering;

use automerge::ActorId;

use super::{Id, NONE, OpIndex, Run, Spot, find};
use crate::document::graph::Graph;
use crate::document::past::{Steps, TooManySteps};

/// What a climb from one run to the next is charged, in steps.
const STEPS_PER_RUN: u64 = 16;

/// The runs of the index and of the change that is being judged.
pub(super) struct Runs<'a> {
    pub(super) index: &'a OpIndex,
    pub(super) graph: &'a Graph,
    /// The change's author, by the number that it has or will have.
    pub(super) author: u32,
    pub(super) author_id: &'a ActorId,
    /// What the change made.
    pub(super) own: &'a [Run],
}

/// Somewhere on the way up.
#[derive(Clone, Copy)]
struct Place {
    /// First op of the run; [`NONE`] above all runs.
    run: Id,
    /// The element in it.
    at: u32,
    /// What the run is behind.
    behind: Id,
    /// The element by which the walk came here: behind `at`, in another run.
    from: Option<Id>,
}

impl Runs<'_> {
    /// Whether the one comes before the other. Both are elements of one sequence; if one is not, `false`.
    pub(super) fn is_before(
        &self,
        one: Id,
        other: Id,
        steps: &mut Steps,
    ) -> Result<bool, TooManySteps> {
        let (Some(mut one), Some(mut other)) = (self.place(one, None), self.place(other, None))
        else {
            return Ok(false);
        };
        while one.run != other.run {
            steps.take(STEPS_PER_RUN)?;
            let climber = match self.order(one.run, other.run) {
                Ordering::Greater => &mut one,
                _ => &mut other,
            };
            match self.place(climber.behind, Some(climber.run)) {
                Some(place) => *climber = place,
                None => return Ok(false),
            }
        }
        Ok(match one.at.cmp(&other.at) {
            Ordering::Equal => match (one.from, other.from) {
                // What hangs behind an element comes after it.
                (None, from) => from.is_some(),
                (Some(_), None) => false,
                (Some(one), Some(other)) => self.order(one, other) == Ordering::Greater,
            },
            Ordering::Less => self.branch_is_first(&one),
            Ordering::Greater => !self.branch_is_first(&other),
        })
    }

    /// Whether what was come from is before the run's next element, by which the other was come from.
    fn branch_is_first(&self, place: &Place) -> bool {
        let next = Id {
            actor: place.run.actor,
            counter: place.at.saturating_add(1),
        };
        place
            .from
            .is_none_or(|from| self.order(from, next) == Ordering::Greater)
    }

    fn place(&self, id: Id, from: Option<Id>) -> Option<Place> {
        if id == NONE {
            return Some(Place {
                run: NONE,
                at: 0,
                behind: NONE,
                from,
            });
        }
        let own = (id.actor == self.author).then(|| find(self.own, id.counter));
        let run = own.flatten().or_else(|| self.index.run(id))?;
        let Spot::Behind(behind) = run.spot else {
            return None;
        };
        Some(Place {
            run: Id {
                actor: id.actor,
                counter: run.first,
            },
            at: id.counter,
            behind,
            from,
        })
    }

    /// As Automerge orders op ids.
    fn order(&self, one: Id, other: Id) -> Ordering {
        let counters = one.counter.cmp(&other.counter);
        counters.then_with(|| self.actor(one.actor).cmp(&self.actor(other.actor)))
    }

    fn actor(&self, number: u32) -> Option<&ActorId> {
        if number == self.author {
            return Some(self.author_id);
        }
        self.graph.actor_id(number)
    }
}
