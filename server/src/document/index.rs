//! The admission index: enough about every op ever admitted to judge a new change without the op set.
//!
//! What may be referred to are the ops that put something somewhere: made an object, set a key, inserted
//! or updated an element. They are kept in runs: ops of one actor with consecutive counters that are alike,
//! such as the characters of a word, each behind the one before. So the index grows with the number of
//! runs, not of keystrokes. Deletions and increments are not in it: nobody refers to them. Which ids exist
//! at all, and in whose past, is the [graph](super::graph)'s knowledge; actors have its numbers here.
//!
//! [`OpIndex::check`] holds what a change [needs](concord_shared::change::Need) against the index,
//! [`OpIndex::add`] takes in what it makes. Cost: each need a binary search in its actor's runs; but for
//! [the order of two elements](order), which climbs from one run to the one it is behind.

use std::collections::{BTreeMap, HashMap};

use automerge::ActorId;
use concord_shared::change::{Change, Container, Made, ObjectKind, OpRef, Place, What};

use super::graph::Graph;
use super::past::{Past, Steps, TooManySteps};

mod check;
mod codec;
mod keys;
mod order;
#[cfg(test)]
mod tests;

use check::Check;
pub use codec::DecodeIndexError;
use keys::Keys;

/// For finding a run among an actor's. It takes longer; but the largest of honest changes need many.
const STEPS_PER_RUN: u64 = 8;

/// An op's id, its actor by the graph's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Id {
    actor: u32,
    counter: u32,
}

/// As an object: the document's root. As an element: the beginning of a sequence.
const NONE: Id = Id {
    actor: 0,
    counter: 0,
};

/// Where the ops of a run put what they made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spot {
    /// Under a key, by its number.
    Key(u32),
    /// As new elements: the first behind this one, each other behind the one before.
    Behind(Id),
    /// In the place of this element.
    Element(Id),
}

/// Ops of one actor with consecutive counters, alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    first: u32,
    count: u32,
    object: Id,
    spot: Spot,
    what: What,
}

impl Run {
    fn end(&self) -> u32 {
        self.first.saturating_add(self.count)
    }

    /// Whether an op behind this run's last continues it.
    fn is_continued_by(&self, next: &Self, actor: u32) -> bool {
        let last = Id {
            actor,
            counter: self.end().saturating_sub(1),
        };
        let spot = match (self.spot, next.spot) {
            (Spot::Behind(_), Spot::Behind(id)) => id == last,
            (before, after) => before == after,
        };
        spot && self.end() == next.first && self.object == next.object && self.what == next.what
    }
}

/// An op as a person reads it: counter and actor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpName(String);

impl std::fmt::Display for OpName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// What an op refers to, and the document does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RefError {
    /// No op of this id made an object.
    #[error("there is no object {0}")]
    NoObject(OpName),
    /// The object is of another kind than the key.
    #[error("the key is one of a {container:?}, object {object} is a {kind:?}")]
    KeyMismatch {
        /// The object.
        object: OpName,
        /// What the key is for.
        container: Container,
        /// What the object is.
        kind: ObjectKind,
    },
    /// No op of this id inserted an element into the object.
    #[error("there is no element {0} in the object")]
    NoElement(OpName),
    /// No op of this id put something there that can be replaced.
    #[error("there is no predecessor {0} in this place")]
    NoPred(OpName),
    /// It exists, but the change's author had not seen it.
    #[error("{0} is not in the change's past")]
    NotInPast(OpName),
    /// None of the predecessors is a counter.
    #[error("an increment of no counter")]
    NotACounter,
    /// A mark's end would come before its beginning.
    #[error("a mark that ends at {end} begins at {begin}, which is later")]
    MarkOrder {
        /// The element that the mark begins behind.
        begin: OpName,
        /// The element that it ends behind.
        end: OpName,
    },
    /// Finding out takes too long.
    #[error(transparent)]
    TooManySteps(#[from] TooManySteps),
}

/// An op with its actor; none is that of no op.
type Named<'a> = (Option<&'a ActorId>, u32);

/// A run: first counter, count, object, spot (kind, key, op), and what it made.
pub(super) type Described<'a> = (
    u32,
    u32,
    Named<'a>,
    (&'static str, Option<&'a str>, Named<'a>),
    What,
);

/// See the module's docs.
#[derive(Debug, Clone, Default)]
pub struct OpIndex {
    /// By the graph's number of the actor, ascending.
    runs: Vec<Vec<Run>>,
    /// How many runs there is room for, over all actors: asked for after every keystroke.
    room: usize,
    keys: Keys,
}

impl OpIndex {
    /// Whether all that the change needs is here and in its past.
    pub fn check(
        &self,
        graph: &Graph,
        change: &Change,
        past: &mut Past<'_>,
        steps: &mut Steps,
    ) -> Result<(), RefError> {
        if change.refs.needs.is_empty() {
            return Ok(());
        }
        Check::new(self, graph, change, past, steps).needs()
    }

    /// Takes in what an admitted change made.
    pub fn add(&mut self, graph: &Graph, change: &Change) {
        if change.refs.made.is_empty() {
            return;
        }
        let Some(author) = graph.actor_number(&change.actor) else {
            return;
        };
        let others = change.refs.other_actors.iter();
        let mut actors = vec![Some(author)];
        actors.extend(others.map(|actor| graph.actor_number(actor)));
        let keys = change.refs.keys.iter();
        let keys: Vec<u32> = keys.map(|key| self.keys.number_or_new(key)).collect();
        for made in &change.refs.made {
            if let Some(run) = global(made, &actors, &keys) {
                self.push(author, run);
            }
        }
    }

    /// Whether any op of the change makes an object.
    pub fn makes_objects(change: &Change) -> bool {
        let mut made = change.refs.made.iter();
        made.any(|made| matches!(made.what, What::Object(_)))
    }

    /// Whether an object that the change makes would lie more than `most` levels deep. Where one of those
    /// that it lies in is not here, it is not said to: [`check`](Self::check) refuses that.
    pub fn is_too_deep(
        &self,
        graph: &Graph,
        change: &Change,
        most: u32,
        steps: &mut Steps,
    ) -> Result<bool, TooManySteps> {
        let others = change.refs.other_actors.iter();
        let actors: Vec<Option<u32>> = std::iter::once(&change.actor)
            .chain(others)
            .map(|actor| graph.actor_number(actor))
            .collect();
        // Of the objects that it made so far, by counter.
        let mut own: Vec<(u32, u32)> = Vec::new();
        // Of the document's that it makes some in. Peers choose the ids: the hash is one that they can't foresee.
        let mut others: HashMap<OpRef, u32> = HashMap::new();
        // Many are made in one.
        let mut last = (None, 0);
        for made in &change.refs.made {
            if !matches!(made.what, What::Object(_)) {
                continue;
            }
            if last.0 != made.object {
                let is_own = |id: &OpRef| id.actor == 0 && u64::from(id.counter) >= change.start_op;
                let depth = match made.object {
                    None => 0,
                    Some(id) if is_own(&id) => {
                        let after = own.partition_point(|(counter, _)| *counter <= id.counter);
                        let run = after.checked_sub(1).and_then(|at| own.get(at));
                        run.map_or(0, |(_, depth)| *depth)
                    }
                    Some(id) => {
                        let known = others.get(&id).copied();
                        let object = resolve(id, &actors).unwrap_or(NONE);
                        let depth = known.map_or_else(|| self.depth(object, most, steps), Ok)?;
                        others.insert(id, depth);
                        depth
                    }
                };
                last = (made.object, depth);
            }
            let depth = last.1 + 1;
            if depth > most {
                return Ok(true);
            }
            own.push((made.first, depth));
        }
        Ok(false)
    }

    /// How many objects the object lies in, itself counted, up to one more than `most`. 0 for the root.
    fn depth(&self, mut object: Id, most: u32, steps: &mut Steps) -> Result<u32, TooManySteps> {
        let mut depth = 0;
        while object != NONE && depth <= most {
            steps.take(STEPS_PER_RUN)?;
            depth += 1;
            object = self.run(object).map_or(NONE, |run| run.object);
        }
        Ok(depth)
    }

    /// Bytes of memory that this holds, roughly (capacity, not length).
    pub fn memory(&self) -> usize {
        self.room * size_of::<Run>()
            + self.runs.capacity() * size_of::<Vec<Run>>()
            + self.keys.memory()
    }

    /// Each actor's runs with names in place of numbers, which depend on the order of admission.
    pub(super) fn described<'a>(
        &'a self,
        graph: &'a Graph,
    ) -> BTreeMap<Option<&'a ActorId>, Vec<Described<'a>>> {
        let named = |id: Id| (graph.actor_id(id.actor).filter(|_| id != NONE), id.counter);
        let actors = (0..).zip(&self.runs).filter(|(_, runs)| !runs.is_empty());
        let described = actors.map(|(actor, runs)| {
            let runs = runs.iter().map(|run| {
                let (kind, key, id) = match run.spot {
                    Spot::Key(key) => ("key", self.keys.text(key), NONE),
                    Spot::Behind(id) => ("behind", None, id),
                    Spot::Element(id) => ("element", None, id),
                };
                let spot = (kind, key, named(id));
                (run.first, run.count, named(run.object), spot, run.what)
            });
            (graph.actor_id(actor), runs.collect())
        });
        described.collect()
    }

    /// Number of runs.
    pub fn runs(&self) -> usize {
        self.runs.iter().map(Vec::len).sum()
    }

    fn push(&mut self, author: u32, run: Run) {
        let place = author as usize;
        if self.runs.len() <= place {
            self.runs.resize_with(place + 1, Vec::new);
        }
        let Some(runs) = self.runs.get_mut(place) else {
            return;
        };
        if let Some(last) = runs.last_mut()
            && last.is_continued_by(&run, author)
        {
            last.count += run.count;
            return;
        }
        let room = runs.capacity();
        runs.push(run);
        self.room += runs.capacity() - room;
    }

    fn run(&self, id: Id) -> Option<&Run> {
        find(self.runs.get(id.actor as usize)?, id.counter)
    }
}

fn find(runs: &[Run], counter: u32) -> Option<&Run> {
    let after = runs.partition_point(|run| run.first <= counter);
    let run = runs.get(after.checked_sub(1)?)?;
    (counter < run.end()).then_some(run)
}

/// The id with the graph's number of its actor; `None` if that made nothing yet.
fn resolve(id: OpRef, actors: &[Option<u32>]) -> Option<Id> {
    let actor = *actors.get(id.actor as usize)?;
    actor.map(|actor| Id {
        actor,
        counter: id.counter,
    })
}

fn resolve_or_none(id: Option<OpRef>, actors: &[Option<u32>]) -> Option<Id> {
    id.map_or(Some(NONE), |id| resolve(id, actors))
}

/// The run with the index's numbers of its actors and key.
fn global(made: &Made, actors: &[Option<u32>], keys: &[u32]) -> Option<Run> {
    Some(Run {
        first: made.first,
        count: made.count,
        object: resolve_or_none(made.object, actors)?,
        spot: match made.place {
            Place::Key(key) => Spot::Key(*keys.get(key as usize)?),
            Place::Behind(behind) => Spot::Behind(resolve_or_none(behind, actors)?),
            Place::Element(element) => Spot::Element(resolve(element, actors)?),
        },
        what: made.what,
    })
}
