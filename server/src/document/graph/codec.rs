//! How a change graph is stored beside its snapshot, so that opening a document decodes no history.
//!
//! Layout (u = unsigned LEB128; all columns have one entry a change, in index order):
//!
//! ```text
//! format: u8 = 1
//! actors: u count × (u length, bytes)
//! changes: u count
//! hashes: count × 32 bytes
//! per change: u actor, u start_op, u ops, u deps count × u (index − dep index)
//! ```
//!
//! Deps are distances because nearly all are 1. A seq is the count of the actor's changes so far. What
//! is derived (heads, highest op, the actors' last changes) is rebuilt by admitting each change again, which
//! checks the stored graph as it is read.

use automerge::{ActorId, ChangeHash};
use concord_shared::reader::{ReadError, Reader, push_uleb};

use super::{Graph, GraphError, Index, MAX_CHANGES, NewNode};
use crate::document::past::{Pasts, Steps};

/// First byte of a stored graph.
pub const GRAPH_FORMAT: u8 = 1;

/// Why a stored graph can't be used. The remedy is to rebuild it from the snapshot.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DecodeGraphError {
    /// Written by a newer version, or not a graph.
    #[error("unknown graph format {found}")]
    Format {
        /// The first byte.
        found: u8,
    },
    /// Cut short or malformed.
    #[error("the stored graph can't be read: {0}")]
    Read(#[from] ReadError),
    /// A number that points outside of the graph.
    #[error("{what} of change {index} of the stored graph is out of range")]
    OutOfRange {
        /// The change's index.
        index: Index,
        /// Which number.
        what: &'static str,
    },
    /// The stored changes contradict each other.
    #[error("change {index} of the stored graph does not fit")]
    Inconsistent {
        /// Its index.
        index: Index,
        /// What is wrong with it.
        source: GraphError,
    },
}

impl Graph {
    /// The graph's first `end` changes in stored form.
    pub fn encode(&self, end: Index) -> Vec<u8> {
        let end = end.min(self.len()) as usize;
        let mut out = Vec::with_capacity(end * 40 + 64);
        out.push(GRAPH_FORMAT);
        push_uleb(&mut out, self.actors.len() as u64);
        for actor in &self.actors {
            let id = actor.id.to_bytes();
            push_uleb(&mut out, id.len() as u64);
            out.extend_from_slice(id);
        }
        push_uleb(&mut out, end as u64);
        for hash in self.hashes.iter().take(end) {
            out.extend_from_slice(&hash.0);
        }
        let columns = self.actor_of.iter().zip(&self.start_op).zip(&self.max_op);
        for (index, ((actor, start_op), max_op)) in (0..).zip(columns).take(end) {
            push_uleb(&mut out, u64::from(*actor));
            push_uleb(&mut out, u64::from(*start_op));
            push_uleb(&mut out, u64::from(max_op + 1 - start_op));
            let deps = self.deps(index);
            push_uleb(&mut out, deps.len() as u64);
            for dep in deps {
                push_uleb(&mut out, u64::from(index - dep));
            }
        }
        out
    }

    /// Reads a stored graph; every change in it counts as visible.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeGraphError> {
        let mut reader = Reader::new(bytes);
        let format = reader.u8("format")?;
        if format != GRAPH_FORMAT {
            return Err(DecodeGraphError::Format { found: format });
        }
        let mut actors = Vec::new();
        for _ in 0..reader.uleb("actors")? {
            actors.push(ActorId::from(reader.prefixed(usize::MAX, "actor")?));
        }
        let count = reader.count(MAX_CHANGES.into(), "changes")?;
        let mut hashes = reader.sub(count * 32, "hashes")?;
        let mut graph = Graph::new();
        // No more than there are bytes for.
        graph.reserve(count);
        let mut deps = Vec::new();
        let (mut pasts, mut steps) = (Pasts::default(), Steps::new(u64::MAX));
        while !hashes.is_empty() {
            let index = graph.len();
            let node = read_node(&mut reader, &mut hashes, &graph, &actors, &mut deps)?;
            graph
                .admit(&node, &mut pasts, &mut steps, |_, _, _| Ok(()))
                .map_err(|source| DecodeGraphError::Inconsistent { index, source })?;
        }
        reader.finish("graph")?;
        graph.make_visible(graph.len());
        Ok(graph)
    }
}

fn read_node<'a>(
    reader: &mut Reader<'_>,
    hashes: &mut Reader<'_>,
    graph: &Graph,
    actors: &'a [ActorId],
    deps: &'a mut Vec<ChangeHash>,
) -> Result<NewNode<'a>, DecodeGraphError> {
    let index = graph.len();
    let range = |what| DecodeGraphError::OutOfRange { index, what };
    let small = |number: u64, what| u32::try_from(number).map_err(|_| range(what));
    let hash = hashes.hash("hash")?;
    let actor = usize::try_from(reader.uleb("actor")?).ok();
    let actor = actor
        .and_then(|actor| actors.get(actor))
        .ok_or(range("actor"))?;
    let start_op = small(reader.uleb("start op")?, "start op")?;
    let ops = small(reader.uleb("ops")?, "ops")?;
    deps.clear();
    for _ in 0..reader.uleb("deps")? {
        let distance = small(reader.uleb("dep")?, "dep")?;
        let dep = index.checked_sub(distance).and_then(|dep| graph.hash(dep));
        deps.push(*dep.ok_or(range("dep"))?);
    }
    Ok(NewNode {
        hash,
        deps,
        actor,
        seq: graph.next_seq(actor),
        start_op,
        ops,
    })
}
