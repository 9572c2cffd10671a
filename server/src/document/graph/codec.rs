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
//! is derived (heads, highest op, the actors' last changes) is rebuilt by admitting each change again, which checks the stored graph as it is read.

use automerge::{ActorId, ChangeHash};

use super::{Graph, GraphError, Index, NewNode};

/// First byte of a stored graph.
pub const GRAPH_FORMAT: u8 = 1;

/// Why a stored graph can't be used. The remedy is to rebuild it from the snapshot.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DecodeGraphError {
    /// Written by a newer version, or not a graph.
    #[error("unknown graph format {found:?}")]
    Format {
        /// The first byte, if there is one.
        found: Option<u8>,
    },
    /// Ends early, or a number is out of range.
    #[error("the stored graph is cut short or malformed at byte {at}")]
    Malformed {
        /// Offset from the end of the blob at which reading failed.
        at: usize,
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
        write(&mut out, self.actors.len());
        for actor in &self.actors {
            let id = actor.id.to_bytes();
            write(&mut out, id.len());
            out.extend_from_slice(id);
        }
        write(&mut out, end);
        for hash in self.hashes.iter().take(end) {
            out.extend_from_slice(&hash.0);
        }
        let columns = self.actor_of.iter().zip(&self.start_op).zip(&self.max_op);
        for (index, ((actor, start_op), max_op)) in (0..).zip(columns).take(end) {
            write(&mut out, *actor as usize);
            write(&mut out, *start_op as usize);
            write(&mut out, (max_op + 1 - start_op) as usize);
            let deps = self.deps(index);
            write(&mut out, deps.len());
            for dep in deps {
                write(&mut out, (index - dep) as usize);
            }
        }
        out
    }

    /// Reads a stored graph; every change in it counts as visible.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeGraphError> {
        let mut reader = Reader { rest: bytes };
        match reader.take(1) {
            Some([GRAPH_FORMAT]) => {}
            other => {
                return Err(DecodeGraphError::Format {
                    found: other.and_then(|b| b.first().copied()),
                });
            }
        }
        read(&mut reader)
            .unwrap_or(Err(DecodeGraphError::Malformed {
                at: bytes.len() - reader.rest.len(),
            }))
            .map(|mut graph| {
                graph.make_visible(graph.len());
                graph
            })
    }
}

/// `None` where the bytes end early or a number is out of range.
fn read(reader: &mut Reader<'_>) -> Option<Result<Graph, DecodeGraphError>> {
    let actor_count = reader.number()?;
    let mut actors = Vec::new();
    for _ in 0..actor_count {
        let length = reader.number()?;
        actors.push(ActorId::from(reader.take(length)?));
    }
    let count = reader.number()?;
    let mut hashes = reader
        .take(count.checked_mul(32)?)?
        .chunks_exact(32)
        .map(|chunk| <[u8; 32]>::try_from(chunk).map(ChangeHash));
    let mut graph = Graph::new();
    graph.hashes.reserve_exact(count);
    let mut deps = Vec::new();
    for index in 0..Index::try_from(count).ok()? {
        let hash = hashes.next()?.ok()?;
        let actor = actors.get(reader.number()?)?;
        let seq = graph.next_seq(actor);
        let start_op = u32::try_from(reader.number()?).ok()?;
        let ops = u32::try_from(reader.number()?).ok()?;
        deps.clear();
        for _ in 0..reader.number()? {
            let distance = Index::try_from(reader.number()?).ok()?;
            deps.push(*graph.hash(index.checked_sub(distance)?)?);
        }
        let node = NewNode {
            hash,
            deps: &deps,
            actor,
            seq,
            start_op,
            ops,
        };
        if let Err(source) = graph.admit(&node) {
            return Some(Err(DecodeGraphError::Inconsistent { index, source }));
        }
    }
    reader.rest.is_empty().then_some(Ok(graph))
}

fn write(out: &mut Vec<u8>, mut number: usize) {
    loop {
        // Seven bits at a time; the cast keeps just those.
        #[expect(clippy::cast_possible_truncation, reason = "masked to seven bits")]
        let low = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<usize> {
        let mut number = 0_usize;
        for shift in (0..usize::BITS).step_by(7) {
            let [byte] = self.take(1)? else { return None };
            let bits = usize::from(byte & 0x7f);
            if bits.checked_shl(shift)? >> shift != bits {
                return None;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }
}
