//! What a change [needs](concord_shared::change::Need), held against the index.

use concord_shared::change::{Change, Container, Need, ObjectRef, OpRef, Place, What};

use super::order;
use super::{
    Id, OpIndex, OpName, RefError, Run, STEPS_PER_RUN, Spot, global, resolve, resolve_or_none,
};
use crate::document::graph::Graph;
use crate::document::past::{Past, Steps};

/// One change on the way in.
pub(super) struct Check<'a, 'p> {
    index: &'a OpIndex,
    graph: &'a Graph,
    change: &'a Change,
    /// The graph's numbers of the change's actors, the author first.
    actors: Vec<Option<u32>>,
    past: &'a mut Past<'p>,
    steps: &'a mut Steps,
    /// The index's numbers of the change's keys, once somebody asked for one.
    keys: Option<Vec<Option<u32>>>,
    /// What the change itself made, once somebody asked for it.
    own: Vec<Run>,
}

impl<'a, 'p> Check<'a, 'p> {
    /// Of this change, with this past.
    pub(super) fn new(
        index: &'a OpIndex,
        graph: &'a Graph,
        change: &'a Change,
        past: &'a mut Past<'p>,
        steps: &'a mut Steps,
    ) -> Self {
        let others = change.refs.other_actors.iter();
        let mut actors = vec![graph.actor_number(&change.actor)];
        actors.extend(others.map(|actor| graph.actor_number(actor)));
        Self {
            index,
            graph,
            change,
            actors,
            past,
            steps,
            keys: None,
            own: Vec::new(),
        }
    }

    /// Whether all that the change needs is here and in its past.
    pub(super) fn needs(&mut self) -> Result<(), RefError> {
        let mut needs = self.change.refs.needs.iter();
        needs.try_for_each(|need| self.need(need))
    }

    fn need(&mut self, need: &Need) -> Result<(), RefError> {
        match need {
            Need::Object(id, container) => self.object(*id, *container),
            Need::Elements {
                object,
                first,
                count,
                replaced,
            } => self.elements(*object, *first, *count, *replaced),
            Need::Preds {
                object,
                place,
                first,
                count,
            } => self.preds(*object, *place, *first, *count),
            Need::Counter(ids) => self.counter(ids),
            Need::MarkOrder(begin, end) => self.mark_order(*begin, *end),
        }
    }

    fn name(&self, id: OpRef) -> OpName {
        let other = (id.actor as usize).checked_sub(1);
        let actor = match other {
            None => Some(&self.change.actor),
            Some(other) => self.change.refs.other_actors.get(other),
        };
        let actor = actor.map(ToString::to_string).unwrap_or_default();
        OpName(format!("{}@{actor}", id.counter))
    }

    fn find(&self, id: OpRef) -> Option<(Id, &Run)> {
        let id = resolve(id, &self.actors)?;
        Some((id, self.index.run(id)?))
    }

    fn in_past(&mut self, id: OpRef) -> Result<(), RefError> {
        let found = resolve(id, &self.actors);
        let known = match found {
            Some(found) => self
                .past
                .has_op(self.graph, found.actor, found.counter, self.steps)?,
            None => false,
        };
        if known {
            Ok(())
        } else {
            Err(RefError::NotInPast(self.name(id)))
        }
    }

    fn object(&mut self, id: OpRef, container: Container) -> Result<(), RefError> {
        let Some((
            _,
            Run {
                what: What::Object(kind),
                ..
            },
        )) = self.find(id)
        else {
            return Err(RefError::NoObject(self.name(id)));
        };
        if !container.takes(*kind) {
            return Err(RefError::KeyMismatch {
                object: self.name(id),
                container,
                kind: *kind,
            });
        }
        self.in_past(id)
    }

    fn elements(
        &mut self,
        object: ObjectRef,
        first: OpRef,
        count: u32,
        replaced: bool,
    ) -> Result<(), RefError> {
        let object = resolve_or_none(object, &self.actors);
        let is_element = |run: &Run| {
            matches!(run.spot, Spot::Behind(_))
                && Some(run.object) == object
                && !(replaced && run.what == What::Mark)
        };
        self.ops(first, count, is_element, RefError::NoElement)
    }

    fn preds(
        &mut self,
        object: ObjectRef,
        place: Place,
        first: OpRef,
        count: u32,
    ) -> Result<(), RefError> {
        let object = resolve_or_none(object, &self.actors);
        let spot = match place {
            Place::Key(key) => self.key(key).map(Spot::Key),
            Place::Element(element) => resolve(element, &self.actors).map(Spot::Element),
            Place::Behind(_) => None,
        };
        let fits = |run: &Run| {
            Some(run.spot) == spot && Some(run.object) == object && run.what != What::Mark
        };
        self.ops(first, count, fits, RefError::NoPred)
    }

    /// Ops of one actor with consecutive counters are all in runs that fit, and in the past.
    fn ops(
        &mut self,
        first: OpRef,
        count: u32,
        fits: impl Fn(&Run) -> bool,
        missing: impl Fn(OpName) -> RefError,
    ) -> Result<(), RefError> {
        let last = first.counter.saturating_add(count.saturating_sub(1));
        let mut next = first;
        loop {
            self.steps.take(STEPS_PER_RUN)?;
            match self.find(next) {
                Some((_, run)) if fits(run) => next.counter = run.end(),
                _ => return Err(missing(self.name(next))),
            }
            if next.counter > last {
                break;
            }
        }
        // An actor's ops are in the past up to one of them.
        next.counter = last;
        self.in_past(next)
    }

    fn key(&mut self, key: u32) -> Option<u32> {
        let keys = self.keys.get_or_insert_with(|| {
            let keys = self.change.refs.keys.iter();
            keys.map(|key| self.index.keys.number(key)).collect()
        });
        keys.get(key as usize).copied().flatten()
    }

    fn counter(&self, ids: &[OpRef]) -> Result<(), RefError> {
        let is_counter = |id: &OpRef| {
            self.find(*id)
                .is_some_and(|(_, run)| run.what == What::Counter)
        };
        if ids.iter().any(is_counter) {
            Ok(())
        } else {
            Err(RefError::NotACounter)
        }
    }

    fn mark_order(&mut self, begin: OpRef, end: OpRef) -> Result<(), RefError> {
        let author = self.graph.actor_number(&self.change.actor);
        // The number that it will have.
        let author = author.or_else(|| u32::try_from(self.graph.actors()).ok());
        if let Some(slot) = self.actors.first_mut() {
            *slot = author;
        }
        if self.own.is_empty() {
            // Elements alone: no key has a number here.
            let made = self.change.refs.made.iter();
            self.own = made
                .filter_map(|made| global(made, &self.actors, &[]))
                .collect();
        }
        let runs = order::Runs {
            index: self.index,
            graph: self.graph,
            author: author.unwrap_or(u32::MAX),
            author_id: &self.change.actor,
            own: &self.own,
        };
        let ids = (resolve(begin, &self.actors), resolve(end, &self.actors));
        let ascend = match ids {
            (Some(begin), Some(end)) => runs.is_before(begin, end, self.steps)?,
            _ => false,
        };
        if ascend {
            return Ok(());
        }
        Err(RefError::MarkOrder {
            begin: self.name(begin),
            end: self.name(end),
        })
    }
}
