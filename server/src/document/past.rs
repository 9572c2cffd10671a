//! Which changes lie in the past of one that is being judged.
//!
//! Nearly every change has all heads among its deps: then everything admitted is in its past, and nothing
//! here is worked out. Otherwise the past is a clock: for each actor, how far its changes are in it. An
//! actor's changes are a chain (admission sees to it), so that says all.
//!
//! A clock is made from what its change lacks, the changes concurrent with it: few, as long as its author
//! keeps up. Who writes on an old branch for a while lacks more and more, and so for each actor that does,
//! the clock of its latest change is kept ([`Pasts`]) and grown by what the next one has more. Who joins in
//! begins with the clock of a change that it builds on.

use std::collections::BinaryHeap;

use super::graph::{Graph, Index};

/// Clocks kept for each document, in numbers of 4 bytes: each has one for each of the document's actors. Room
/// for those of 250 actors that all write beside the heads.
const KEPT_PER_DOCUMENT: usize = 64 << 10;

/// What a change visited on a walk is charged, in steps, and what each of its deps.
const STEPS_PER_VISIT: u64 = 16;
const STEPS_PER_DEP: u64 = 8;

/// Steps from a dep's clock to a change's, before it is made anew.
const STEPS_FROM_A_DEP: u64 = 1 << 16;

/// Changes looked at in a row, in the graph's arrays, for one step.
const SCANNED_PER_STEP: u64 = 4;

/// Finding out takes too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it goes on from too long ago")]
pub struct TooManySteps;

/// How much may still be looked at; a step is about a nanosecond.
#[derive(Debug, Clone, Copy)]
pub struct Steps(u64);

impl Steps {
    /// So many.
    pub fn new(steps: u64) -> Self {
        Self(steps)
    }

    /// Lets the work use at most so many of them.
    pub fn at_most<R>(&mut self, steps: u64, work: impl FnOnce(&mut Self) -> R) -> R {
        let given = self.0.min(steps);
        let mut part = Self(given);
        let done = work(&mut part);
        self.0 -= given - part.0;
        done
    }

    /// Uses some up.
    pub fn take(&mut self, steps: u64) -> Result<(), TooManySteps> {
        self.0 = self.0.checked_sub(steps).ok_or(TooManySteps)?;
        Ok(())
    }
}

/// How far each actor's changes are in a past: one more than the index of its last change there; 0 for none.
#[derive(Debug, Clone, Default)]
struct Clock(Vec<Index>);

impl Clock {
    fn has(&self, actor: u32, index: Index) -> bool {
        index < self.end(actor)
    }

    fn end(&self, actor: u32) -> Index {
        self.0.get(actor as usize).copied().unwrap_or(0)
    }

    /// This, with more changes.
    fn with(mut self, graph: &Graph, changes: &[Index]) -> Self {
        for index in changes {
            if let Some(actor) = graph.actor_of(*index) {
                self.include(actor, *index);
            }
        }
        self
    }

    fn include(&mut self, actor: u32, index: Index) {
        let actor = actor as usize;
        if self.0.len() <= actor {
            self.0.resize(actor + 1, 0);
        }
        if let Some(end) = self.0.get_mut(actor) {
            *end = index.saturating_add(1).max(*end);
        }
    }
}

/// The clock of a change, which is in it.
#[derive(Debug, Clone)]
struct Kept {
    author: u32,
    change: Index,
    clock: Clock,
}

/// The clocks of the latest changes of actors that write beside the heads.
#[derive(Debug, Clone, Default)]
pub struct Pasts(Vec<Kept>);

impl Pasts {
    /// Bytes of memory held.
    pub fn memory(&self) -> usize {
        let clocks: usize = self.0.iter().map(|kept| kept.clock.0.capacity()).sum();
        clocks * size_of::<Index>() + self.0.capacity() * size_of::<Kept>()
    }

    /// Forgets all: they can be made again.
    pub fn clear(&mut self) {
        self.0 = Vec::new();
    }

    fn take(&mut self, author: u32) -> Option<Kept> {
        let at = self.0.iter().position(|kept| kept.author == author)?;
        Some(self.0.remove(at))
    }

    /// The latest that is of one of these changes, which ascend.
    fn of_any(&self, changes: &[Index]) -> Option<&Kept> {
        let mut latest = self.0.iter().rev();
        latest.find(|kept| changes.binary_search(&kept.change).is_ok())
    }

    fn keep(&mut self, kept: Kept) {
        self.0.push(kept);
        // The longest not used is first. The latest stays, however large.
        let kept = |pasts: &[Kept]| -> usize { pasts.iter().map(|kept| kept.clock.0.len()).sum() };
        while self.0.len() > 1 && kept(&self.0) > KEPT_PER_DOCUMENT {
            self.0.remove(0);
        }
    }
}

/// The past of one change: of its deps, and all below them.
///
/// [`has_change`](Self::has_change) of its author's previous one first, as [`Graph::admit`] does: what the
/// rest answers is right for a change that builds on that. Then [`has_op`](Self::has_op), and
/// [`admitted`](Self::admitted) in the end, if it was.
#[derive(Debug)]
pub struct Past<'p> {
    pasts: &'p mut Pasts,
    author: Option<u32>,
    deps: Vec<Index>,
    is_all: bool,
    clock: Option<Clock>,
}

impl<'p> Past<'p> {
    /// Of a change by this actor, if it has made others, with these deps, ascending.
    pub fn new(graph: &Graph, pasts: &'p mut Pasts, author: Option<u32>, deps: Vec<Index>) -> Self {
        let mut heads = graph.admitted_heads().iter();
        Self {
            pasts,
            author,
            is_all: heads.all(|head| deps.binary_search(head).is_ok()),
            deps,
            clock: None,
        }
    }

    /// The change's deps, ascending.
    pub fn deps(&self) -> &[Index] {
        &self.deps
    }

    /// Whether it includes this change of the change's author, its latest.
    pub fn has_change(
        &mut self,
        graph: &Graph,
        index: Index,
        steps: &mut Steps,
    ) -> Result<bool, TooManySteps> {
        if self.is_all || self.deps.binary_search(&index).is_ok() {
            return Ok(true);
        }
        let Some(author) = self.author else {
            return Ok(false);
        };
        let clock = self.clock(graph, steps)?;
        Ok(clock.is_some_and(|clock| clock.has(author, index)))
    }

    /// Whether it includes this op of this actor, which is known to exist.
    pub fn has_op(
        &mut self,
        graph: &Graph,
        actor: u32,
        counter: u32,
        steps: &mut Steps,
    ) -> Result<bool, TooManySteps> {
        if self.is_all || self.author == Some(actor) {
            return Ok(true);
        }
        let Some(clock) = self.clock(graph, steps)? else {
            return Ok(false);
        };
        let last = clock.end(actor).checked_sub(1);
        Ok(last.is_some_and(|last| counter <= graph.max_op(last)))
    }

    /// The change was admitted as this one.
    pub fn admitted(self, author: u32, index: Index) {
        if self.is_all {
            // What it lacks was found out quickly, and will be for the next.
            self.pasts.take(author);
        } else if let Some(mut clock) = self.clock {
            clock.include(author, index);
            self.pasts.keep(Kept {
                author,
                change: index,
                clock,
            });
        }
    }

    /// `None` if the change does not build on its author's earlier ones.
    fn clock(&mut self, graph: &Graph, steps: &mut Steps) -> Result<Option<&Clock>, TooManySteps> {
        if self.clock.is_none() {
            let own = self.author.and_then(|author| self.pasts.take(author));
            self.clock = if let Some(own) = own {
                match more(graph, &own, &self.deps, steps) {
                    Ok(more) => more.map(|more| own.clock.with(graph, &more)),
                    Err(error) => {
                        self.pasts.keep(own);
                        return Err(error);
                    }
                }
            } else {
                let dep = self.pasts.of_any(&self.deps);
                let from_dep = dep.and_then(|dep| {
                    let length = dep.clock.0.len() as u64;
                    let few = STEPS_FROM_A_DEP + length / SCANNED_PER_STEP;
                    // Where the dep lacks much, the change may lack little.
                    let more = steps.at_most(few, |steps| {
                        steps.take(length / SCANNED_PER_STEP)?;
                        more(graph, dep, &self.deps, steps)
                    });
                    let more = more.ok().flatten()?;
                    Some(dep.clock.clone().with(graph, &more))
                });
                Some(match from_dep {
                    Some(clock) => clock,
                    None => made(graph, &self.deps, steps)?,
                })
            };
        }
        Ok(self.clock.as_ref())
    }
}

/// A clock of all but what `deps` lack.
fn made(graph: &Graph, deps: &[Index], steps: &mut Steps) -> Result<Clock, TooManySteps> {
    let mut clock = Clock(graph.last_changes().map(|last| last + 1).collect());
    steps.take(clock.0.len() as u64 / SCANNED_PER_STEP)?;
    let visit = &mut |deps: usize| steps.take(STEPS_PER_VISIT + STEPS_PER_DEP * deps as u64);
    let missing = graph.admitted_not_below(deps, visit)?;
    for index in missing {
        let Some(actor) = graph.actor_of(index) else {
            continue;
        };
        // The first that is missing of an actor: all later ones are, too.
        if clock.has(actor, index) {
            let before = graph.previous_of(actor, index);
            let scanned = u64::from(index - before.unwrap_or(0));
            steps.take(scanned / SCANNED_PER_STEP)?;
            if let Some(end) = clock.0.get_mut(actor as usize) {
                *end = before.map_or(0, |before| before + 1);
            }
        }
    }
    Ok(clock)
}

/// What `deps` have that the clock has not; `None` if they are not above its change.
fn more(
    graph: &Graph,
    kept: &Kept,
    deps: &[Index],
    steps: &mut Steps,
) -> Result<Option<Vec<Index>>, TooManySteps> {
    let Kept { change, clock, .. } = kept;
    let lacks = |index: &Index| {
        let actor = graph.actor_of(*index);
        actor.is_some_and(|actor| !clock.has(actor, *index))
    };
    let mut is_above = deps.binary_search(change).is_ok();
    let mut queue: BinaryHeap<Index> = deps.iter().copied().filter(lacks).collect();
    let mut found = Vec::new();
    while let Some(index) = queue.pop() {
        steps.take(STEPS_PER_VISIT)?;
        if found.last() == Some(&index) {
            continue;
        }
        found.push(index);
        let below = graph.deps(index);
        steps.take(STEPS_PER_DEP * below.len() as u64)?;
        is_above |= below.contains(change);
        queue.extend(below.iter().copied().filter(lacks));
    }
    // What is in the clock besides its change is below that: nothing else leads from there to it.
    Ok(is_above.then_some(found))
}
