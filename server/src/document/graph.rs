//! The change graph of one document: which changes exist and what each depends on.
//!
//! It is all the hot path knows of a document. A change is a node with its hash, deps, actor, seq
//! and op range; what its ops do is not here. Nodes are numbered in the order of admission, which is
//! a topological order: a change's deps have smaller indexes than the change. The same number is the
//! change's place in the stored log (`store`), and sync sessions describe what a peer holds by it.
//!
//! Two frontiers move over the nodes. `admit` appends at the *admitted* end, so that the next change
//! of a burst can be judged at once; [`Graph::make_visible`] follows when the store says "durable".
//! Peers are only ever told of visible changes.

use std::collections::HashMap;

use automerge::{ActorId, ChangeHash};
use hashbrown::HashTable;

use super::past::{Past, Pasts, Steps, TooManySteps};

mod codec;
mod stretch;
mod walk;

pub use codec::{DecodeGraphError, GRAPH_FORMAT};
pub use stretch::{CHANGES_PER_STRETCH, Stretch};

/// A change's place in the order of admission.
pub type Index = u32;

/// What the graph keeps of a change, as far as its author says.
#[derive(Debug, Clone, Copy)]
pub struct NewNode<'a> {
    /// SHA-256 of the change chunk.
    pub hash: ChangeHash,
    /// Hashes of the changes it was made on top of; all of them must be in the graph.
    pub deps: &'a [ChangeHash],
    /// Who made it.
    pub actor: &'a ActorId,
    /// The author's running number, from 1.
    pub seq: u64,
    /// Counter of the first op; at least 1.
    pub start_op: u32,
    /// Number of ops; may be 0.
    pub ops: u32,
}

/// An author and the last change it made.
#[derive(Debug, Clone)]
struct Actor {
    id: ActorId,
    last_seq: u64,
    last: Index,
}

/// Why a change does not fit the graph.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// Not all deps are here (yet).
    #[error("{missing} of the change's deps are unknown")]
    MissingDeps {
        /// How many.
        missing: usize,
    },
    /// The same author already made another change with this number.
    #[error("actor already has another change with seq {seq} (it is at {last})")]
    DuplicateSeq {
        /// Claimed by the change.
        seq: u64,
        /// The author's newest.
        last: u64,
    },
    /// The author's numbers have a gap.
    #[error("seq {seq} is not the actor's next ({expected})")]
    SeqNotNext {
        /// Claimed by the change.
        seq: u64,
        /// What would have been next.
        expected: u64,
    },
    /// The author's previous change is not in the causal past of this one.
    #[error("the change does not build on its actor's previous change (seq {previous})")]
    ForkedActor {
        /// Seq of the change that was left out.
        previous: u64,
    },
    /// Op counters must rise along every path.
    #[error("start op {start_op} is not above {highest}, the highest op of its deps")]
    StartOpTooLow {
        /// Claimed by the change.
        start_op: u32,
        /// The highest op counter below it.
        highest: u32,
    },
    /// A change without ops that does not start right after its deps. `automerge` saves a document
    /// with such a change and never loads it again ("missing ops").
    #[error("start op {start_op} of a change without ops is not {expected}")]
    EmptyAfterGap {
        /// Claimed by the change.
        start_op: u32,
        /// The one after the highest op of its deps.
        expected: u32,
    },
    /// `start_op + ops` is above [`MAX_OP_COUNTER`].
    #[error("op counter overflow: {start_op} + {ops}")]
    OpCounterOverflow {
        /// Claimed by the change.
        start_op: u32,
        /// Claimed by the change.
        ops: u32,
    },
    /// The op ids that changes left out are too many: see [`MAX_SKIPPED_OPS`].
    #[error(
        "start op {start_op} leaves out {gap} op ids; with those left out before they are more than {MAX_SKIPPED_OPS}"
    )]
    StartOpTooHigh {
        /// Claimed by the change.
        start_op: u32,
        /// Ids between the highest op of its deps and its first.
        gap: u32,
    },
    /// The document holds as many changes as one may.
    #[error("the document has {limit} changes, the most one may have")]
    Full {
        /// The bound.
        limit: u32,
    },
    /// Finding out whether it fits takes too long.
    #[error(transparent)]
    TooManySteps(#[from] TooManySteps),
}

/// Op ids that the changes of a document may leave out, together. A change begins behind the highest op that
/// its author had, which is above that of its deps where the author edits an older version: honest, and rare.
/// But a browser's Automerge takes some 200 bytes for each id left out while it loads the document, and ids
/// that are used up can't be had back.
pub const MAX_SKIPPED_OPS: u64 = 4 << 20;

/// Highest op counter. Automerge has 32 bits, and panics at the edit that leaves them: half of them are kept
/// for what replicas have not sent yet.
pub const MAX_OP_COUNTER: u32 = 1 << 31;

/// Most changes one document may hold: indexes are 32 bits and some are kept free for sentinels.
pub const MAX_CHANGES: u32 = u32::MAX - 16;

/// Whether a document with `changes` changes may get one more.
fn check_room(changes: Index) -> Result<(), GraphError> {
    if changes < MAX_CHANGES {
        Ok(())
    } else {
        Err(GraphError::Full { limit: MAX_CHANGES })
    }
}

/// The change graph; see the module's docs.
///
/// Growing: [`Self::admit`], [`Self::make_visible`]. Looking up: [`Self::find`], [`Self::hash`],
/// [`Self::deps`]. Walking: [`Self::visible_not_below`], and [`Past`] for what is below a change. Stored
/// form: [`Self::encode`], [`Self::decode`].
#[derive(Debug, Default, Clone)]
pub struct Graph {
    hashes: Vec<ChangeHash>,
    /// Hash → index; the hash function is the hash's own first eight bytes.
    by_hash: HashTable<Index>,
    /// Deps of all nodes one after another, each node's ascending; node `i`'s end at `deps_end[i]`.
    deps: Vec<Index>,
    deps_end: Vec<u32>,
    actor_of: Vec<u32>,
    start_op: Vec<u32>,
    /// Highest op counter of the node and everything below it (`start_op - 1` when it has no ops).
    max_op: Vec<u32>,
    actors: Vec<Actor>,
    /// Peers choose their ids: the hash is one that they can't foresee.
    by_actor: HashMap<ActorId, u32>,
    heads: Vec<Index>,
    /// Op ids that changes left out: see [`MAX_SKIPPED_OPS`].
    skipped_ops: u64,
    visible: Index,
    visible_heads: Vec<ChangeHash>,
}

fn table_hash(hash: &ChangeHash) -> u64 {
    // SHA-256 output is uniform as it is. An attacker can grind collisions of a few bits at the cost
    // of as many hashes, and gains one longer probe each.
    hash.0
        .first_chunk()
        .map_or(0, |first| u64::from_le_bytes(*first))
}

impl Graph {
    /// An empty graph.
    pub fn new() -> Self {
        Self::default()
    }

    /// Admitted changes.
    pub fn len(&self) -> Index {
        // `check` refuses to grow past MAX_CHANGES, so the length fits.
        Index::try_from(self.hashes.len()).unwrap_or(MAX_CHANGES)
    }

    /// Whether nothing was admitted yet.
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// Durable changes: those with an index below this one.
    pub fn visible(&self) -> Index {
        self.visible
    }

    /// Heads of the durable changes, sorted.
    pub fn visible_heads(&self) -> &[ChangeHash] {
        &self.visible_heads
    }

    /// Index of an admitted change.
    pub fn find(&self, hash: &ChangeHash) -> Option<Index> {
        self.by_hash
            .find(table_hash(hash), |index| self.hash(*index) == Some(hash))
            .copied()
    }

    /// Admitted changes that no admitted change builds on.
    pub fn admitted_heads(&self) -> &[Index] {
        &self.heads
    }

    /// Number of actors that made admitted changes.
    pub fn actors(&self) -> usize {
        self.actors.len()
    }

    /// Whether the admitted change is one of the heads.
    pub fn is_head(&self, hash: &ChangeHash) -> bool {
        self.find(hash)
            .is_some_and(|index| self.heads.contains(&index))
    }

    /// Whether the change was admitted.
    pub fn contains(&self, hash: &ChangeHash) -> bool {
        self.find(hash).is_some()
    }

    /// Hash of the change at `index`.
    pub fn hash(&self, index: Index) -> Option<&ChangeHash> {
        self.hashes.get(index as usize)
    }

    /// Deps of the change at `index`; empty for a root or an unknown index.
    pub fn deps(&self, index: Index) -> &[Index] {
        let i = index as usize;
        let start = match i.checked_sub(1) {
            None => 0,
            Some(previous) => self.deps_end.get(previous).copied().unwrap_or(0) as usize,
        };
        let end = self.deps_end.get(i).copied().unwrap_or(0) as usize;
        self.deps.get(start..end).unwrap_or(&[])
    }

    /// The number that the actor's next change must carry.
    pub fn next_seq(&self, actor: &ActorId) -> u64 {
        self.actor(actor).map_or(1, |actor| actor.last_seq + 1)
    }

    /// The graph's number of an actor that made admitted changes; from 0, in the order of their first.
    pub fn actor_number(&self, id: &ActorId) -> Option<u32> {
        self.by_actor.get(id).copied()
    }

    /// The actor with this number.
    pub fn actor_id(&self, number: u32) -> Option<&ActorId> {
        self.actors.get(number as usize).map(|actor| &actor.id)
    }

    /// Who made the change at `index`.
    pub fn actor_of(&self, index: Index) -> Option<u32> {
        self.actor_of.get(index as usize).copied()
    }

    /// The last change of each actor, in the order of their numbers.
    pub fn last_changes(&self) -> impl Iterator<Item = Index> {
        self.actors.iter().map(|actor| actor.last)
    }

    /// The actor's last change before `index`. Looks at all changes between the two.
    pub fn previous_of(&self, actor: u32, index: Index) -> Option<Index> {
        let before = self.actor_of.get(..index as usize)?;
        let found = before.iter().rposition(|of| *of == actor)?;
        Index::try_from(found).ok()
    }

    /// Counter of the last op of the change at `index`; of one without ops, that of its deps' highest.
    pub fn max_op(&self, index: Index) -> u32 {
        self.max_op.get(index as usize).copied().unwrap_or(0)
    }

    /// Admits a change if it fits and `judge`, which is told its past, has no objection; a refused one leaves
    /// no trace. Cost: O(deps) when it builds on the heads, else see [`Past`].
    pub fn admit<E: From<GraphError>>(
        &mut self,
        node: &NewNode<'_>,
        pasts: &mut Pasts,
        steps: &mut Steps,
        judge: impl FnOnce(&Self, &mut Past<'_>, &mut Steps) -> Result<(), E>,
    ) -> Result<Index, E> {
        let deps = self.place(node)?;
        let mut past = Past::new(self, pasts, self.actor_number(node.actor), deps);
        self.check_actor(node, &mut past, steps)?;
        judge(self, &mut past, steps)?;
        let index = self.push(node, past.deps());
        if let Some(author) = self.actor_of(index) {
            past.admitted(author, index);
        }
        Ok(index)
    }

    /// Whether both are of the same changes, in whatever order they came.
    pub fn is_same_as(&self, other: &Self) -> bool {
        let known = |graph: &Self, index: &Index| {
            let (at, actor) = (*index as usize, graph.actor_of(*index)?);
            let mut deps: Vec<_> = graph
                .deps(*index)
                .iter()
                .map(|dep| graph.hash(*dep))
                .collect();
            deps.sort_unstable();
            let deps: Option<Vec<ChangeHash>> =
                deps.into_iter().map(Option::<&_>::copied).collect();
            Some((
                graph.actor_id(actor)?.clone(),
                *graph.start_op.get(at)?,
                graph.max_op(*index),
                deps?,
            ))
        };
        self.len() == other.len()
            && (0..self.len()).all(|index| {
                let theirs = self.hash(index).and_then(|hash| other.find(hash));
                theirs.is_some_and(|theirs| known(self, &index) == known(other, &theirs))
            })
    }

    /// Moves the durable frontier: everything below `visible` may be shown to peers.
    pub fn make_visible(&mut self, visible: Index) {
        let visible = visible.min(self.len());
        if visible <= self.visible {
            return;
        }
        let mut heads: Vec<Index> = self
            .visible_heads
            .iter()
            .filter_map(|hash| self.find(hash))
            .collect();
        for index in self.visible..visible {
            let deps = self.deps(index);
            heads.retain(|head| deps.binary_search(head).is_err());
            heads.push(index);
        }
        self.visible_heads = heads
            .iter()
            .filter_map(|i| self.hash(*i).copied())
            .collect();
        self.visible_heads.sort_unstable();
        self.visible = visible;
    }

    fn reserve(&mut self, changes: u64) {
        let changes = usize::try_from(changes).unwrap_or(0);
        let hashes = &self.hashes;
        self.by_hash
            .reserve(changes, |i| hashes.get(*i as usize).map_or(0, table_hash));
        self.hashes.reserve_exact(changes);
        self.deps.reserve(changes);
        self.deps_end.reserve_exact(changes);
        self.actor_of.reserve_exact(changes);
        self.start_op.reserve_exact(changes);
        self.max_op.reserve_exact(changes);
    }

    /// Bytes of memory this graph holds, roughly (capacity, not length).
    pub fn memory(&self) -> usize {
        self.hashes.capacity() * 32
            + self.by_hash.capacity() * 5
            + (self.deps.capacity()
                + self.deps_end.capacity()
                + self.actor_of.capacity()
                + self.start_op.capacity()
                + self.max_op.capacity())
                * 4
            + self.actors.capacity() * 96
    }

    /// Gives memory back that growth reserved and nothing uses.
    pub fn shrink(&mut self) {
        self.hashes.shrink_to_fit();
        self.deps.shrink_to_fit();
        self.deps_end.shrink_to_fit();
        self.actor_of.shrink_to_fit();
        self.start_op.shrink_to_fit();
        self.max_op.shrink_to_fit();
        self.actors.shrink_to_fit();
        self.by_actor.shrink_to_fit();
        self.heads.shrink_to_fit();
        self.visible_heads.shrink_to_fit();
        let hashes = &self.hashes;
        self.by_hash
            .shrink_to_fit(|i| hashes.get(*i as usize).map_or(0, table_hash));
    }

    fn actor(&self, id: &ActorId) -> Option<&Actor> {
        let index = self.by_actor.get(id)?;
        self.actors.get(*index as usize)
    }

    /// The deps' indexes, if the change fits.
    fn place(&self, node: &NewNode<'_>) -> Result<Vec<Index>, GraphError> {
        let mut deps: Vec<Index> = node.deps.iter().filter_map(|dep| self.find(dep)).collect();
        if deps.len() < node.deps.len() {
            return Err(GraphError::MissingDeps {
                missing: node.deps.len() - deps.len(),
            });
        }
        deps.sort_unstable();
        check_room(self.len())?;
        let highest = deps.iter().map(|dep| self.max_op(*dep));
        let highest = highest.max().unwrap_or(0);
        if node.start_op <= highest {
            return Err(GraphError::StartOpTooLow {
                start_op: node.start_op,
                highest,
            });
        }
        let expected = highest.saturating_add(1);
        let gap = node.start_op - expected;
        if self.skipped_ops + u64::from(gap) > MAX_SKIPPED_OPS {
            return Err(GraphError::StartOpTooHigh {
                start_op: node.start_op,
                gap,
            });
        }
        if node.ops == 0 && node.start_op != expected {
            return Err(GraphError::EmptyAfterGap {
                start_op: node.start_op,
                expected,
            });
        }
        let end = node.start_op.checked_add(node.ops);
        if end.is_none_or(|end| end > MAX_OP_COUNTER) {
            return Err(GraphError::OpCounterOverflow {
                start_op: node.start_op,
                ops: node.ops,
            });
        }
        Ok(deps)
    }

    /// The change is exactly its actor's next, and knows the previous one. Without the second part
    /// an actor could give two ops the same id (counter, actor), one in each branch.
    fn check_actor(
        &self,
        node: &NewNode<'_>,
        past: &mut Past<'_>,
        steps: &mut Steps,
    ) -> Result<(), GraphError> {
        let actor = self.actor(node.actor);
        let last_seq = actor.map_or(0, |a| a.last_seq);
        if node.seq <= last_seq {
            return Err(GraphError::DuplicateSeq {
                seq: node.seq,
                last: last_seq,
            });
        }
        if node.seq != last_seq + 1 {
            return Err(GraphError::SeqNotNext {
                seq: node.seq,
                expected: last_seq + 1,
            });
        }
        let Some(actor) = actor else { return Ok(()) };
        if past.has_change(self, actor.last, steps)? {
            Ok(())
        } else {
            Err(GraphError::ForkedActor { previous: last_seq })
        }
    }

    fn push(&mut self, node: &NewNode<'_>, deps: &[Index]) -> Index {
        let index = self.len();
        let highest = deps.iter().map(|dep| self.max_op(*dep)).max();
        let expected = highest.unwrap_or(0).saturating_add(1);
        self.skipped_ops += u64::from(node.start_op.saturating_sub(expected));
        let known = self.by_actor.get(node.actor).copied();
        let actor = known.unwrap_or_else(|| {
            let actor = u32::try_from(self.actors.len()).unwrap_or(u32::MAX);
            self.by_actor.insert(node.actor.clone(), actor);
            self.actors.push(Actor {
                id: node.actor.clone(),
                last_seq: 0,
                last: index,
            });
            actor
        });
        if let Some(actor) = self.actors.get_mut(actor as usize) {
            actor.last_seq = node.seq;
            actor.last = index;
        }
        self.heads.retain(|head| deps.binary_search(head).is_err());
        self.heads.push(index);
        self.deps.extend_from_slice(deps);
        self.deps_end
            .push(u32::try_from(self.deps.len()).unwrap_or(u32::MAX));
        self.actor_of.push(actor);
        self.start_op.push(node.start_op);
        self.max_op
            .push((node.start_op.saturating_sub(1)).saturating_add(node.ops));
        self.hashes.push(node.hash);
        let hashes = &self.hashes;
        self.by_hash
            .insert_unique(table_hash(&node.hash), index, |i| {
                hashes.get(*i as usize).map_or(0, table_hash)
            });
        index
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_document_takes_nothing_more() {
        assert_eq!(check_room(MAX_CHANGES - 1), Ok(()));
        let full = GraphError::Full { limit: MAX_CHANGES };
        assert_eq!(check_room(MAX_CHANGES), Err(full));
    }
}
