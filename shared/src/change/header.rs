//! The data of a change chunk: header, op columns, extra bytes.

use automerge::{ActorId, ChangeHash};
use bytes::Bytes;

use super::needs::Ops;
use super::ops::OpColumns;
use super::walk::Walk;
use super::{Change, ChunkError};
use crate::Limits;
use crate::reader::Reader;

/// A change, and what it takes of the budget.
pub(super) struct Read {
    pub(super) change: Change,
    /// Predecessors of all its ops.
    pub(super) preds: u64,
    /// Bytes of memory that its refs take.
    pub(super) refs_bytes: usize,
}

/// Reads `data`, what comes after the length in the uncompressed chunk `bytes`, whose hash is
/// `hash`.
pub(super) fn read_change(
    bytes: Bytes,
    data: &[u8],
    hash: ChangeHash,
    limits: &Limits,
) -> Result<Read, ChunkError> {
    if bytes.len() > limits.change_bytes {
        return Err(ChunkError::TooLarge {
            what: "a change",
            bytes: bytes.len(),
            limit: limits.change_bytes,
        });
    }
    let mut data = Reader::new(data);
    let deps = read_deps(&mut data, limits)?;
    let actor = read_actor(&mut data, limits)?;
    let seq = positive_u32(data.uleb("seq")?, "seq")?;
    let start_op = positive_u32(data.uleb("start op")?, "start op")?;
    check_timestamp(data.sleb("timestamp")?)?;
    let _message = data.text(limits.message_bytes, "commit message")?;
    let other_actors = read_other_actors(&mut data, actor, limits)?;
    let columns = OpColumns::read(&mut data)?;
    if data.remaining() > limits.extra_bytes {
        return Err(ChunkError::TooLarge {
            what: "a change's extra bytes",
            bytes: data.remaining(),
            limit: limits.extra_bytes,
        });
    }
    check_extra(data.take_rest(), seq)?;
    let (ops, preds) = columns.count(limits)?;
    positive_u32(start_op.saturating_add(ops), "last op")?;
    let bounds = Bounds {
        start_op,
        ops,
        refs_bytes: limits.refs_bytes,
    };
    let (refs, refs_bytes) = walk(columns, &bounds, actor, &other_actors)?;
    let change = Change {
        bytes,
        hash,
        deps,
        actor: ActorId::from(actor),
        seq,
        start_op,
        ops,
        refs,
    };
    Ok(Read {
        change,
        preds,
        refs_bytes,
    })
}

struct Bounds {
    start_op: u64,
    ops: u64,
    /// What the refs may take, in bytes.
    refs_bytes: usize,
}

fn walk(
    columns: OpColumns<'_>,
    bounds: &Bounds,
    author: &[u8],
    other_actors: &[&[u8]],
) -> Result<(Ops, usize), ChunkError> {
    let start_op = bounds.start_op;
    let end = start_op + bounds.ops;
    let bad = |counter, error| ChunkError::Op { counter, error };
    let before_author = other_actors.partition_point(|other| *other < author);
    let counter = |counter| u32::try_from(counter).unwrap_or(u32::MAX);
    let mut walk = Walk::new(counter(start_op), counter(before_author as u64));
    let mut rows = columns.rows(other_actors.len());
    let mut preds = Vec::new();
    for id in start_op..end {
        let op = rows.next(&mut preds)?;
        let taken = op.and_then(|op| walk.op(counter(id), &op, &preds));
        taken.map_err(|error| bad(id, error))?;
        if walk.bytes() > bounds.refs_bytes {
            return Err(ChunkError::TooLarge {
                what: "what the ops of a message's changes refer to",
                bytes: walk.bytes(),
                limit: bounds.refs_bytes,
            });
        }
    }
    rows.finish()?;
    let bytes = walk.bytes();
    let ops = walk.finish().map_err(|error| bad(end, error))?;
    let ops = Ops {
        other_actors: other_actors
            .iter()
            .map(|other| ActorId::from(*other))
            .collect(),
        ..ops
    };
    Ok((ops, bytes))
}

/// After the columns Automerge keeps an author, and nothing else so far. Only an actor's first change
/// names it: a second one is refused by every Automerge that knows of authors.
fn check_extra(extra: &[u8], seq: u64) -> Result<(), ChunkError> {
    const AUTHOR: u64 = 1;
    if extra.is_empty() {
        return Ok(());
    }
    let mut extra = Reader::new(extra);
    let kind = extra.uleb("extra bytes")?;
    if kind != AUTHOR || seq != 1 {
        return Err(ChunkError::BadValue {
            what: "footer",
            value: kind,
        });
    }
    extra.prefixed(usize::MAX, "author")?;
    extra.finish("author").map_err(ChunkError::from)
}

fn read_deps(data: &mut Reader<'_>, limits: &Limits) -> Result<Vec<ChangeHash>, ChunkError> {
    let offset = data.offset();
    let deps = data.hashes(limits.deps, "deps")?;
    if deps.is_sorted_by(|a, b| a < b) {
        return Ok(deps);
    }
    Err(ChunkError::NotCanonical {
        what: "deps",
        offset,
        why: "they are not ascending",
    })
}

fn read_actor<'a>(data: &mut Reader<'a>, limits: &Limits) -> Result<&'a [u8], ChunkError> {
    match data.prefixed(limits.actor_bytes, "actor")? {
        [] => Err(ChunkError::BadValue {
            what: "actor length",
            value: 0,
        }),
        actor => Ok(actor),
    }
}

/// The actors besides the author. Automerge writes them once each, ascending.
fn read_other_actors<'a>(
    data: &mut Reader<'a>,
    author: &[u8],
    limits: &Limits,
) -> Result<Vec<&'a [u8]>, ChunkError> {
    let count = data.count(limits.other_actors as u64, "other actors")?;
    let mut read: Vec<&[u8]> = Vec::new();
    for _ in 0..count {
        let offset = data.offset();
        let actor = read_actor(data, limits)?;
        if read.last().is_some_and(|previous| *previous >= actor) || actor == author {
            return Err(ChunkError::NotCanonical {
                what: "other actors",
                offset,
                why: "they are not ascending, or one is the author",
            });
        }
        read.push(actor);
    }
    Ok(read)
}

/// Saved documents hold the difference between one change's timestamp and the next one's, which must
/// not overflow. JavaScript's integers are the bound: in milliseconds, 285,000 years.
fn check_timestamp(timestamp: i64) -> Result<(), ChunkError> {
    const MAX_SAFE_INTEGER: u64 = (1 << 53) - 1;
    if timestamp.unsigned_abs() > MAX_SAFE_INTEGER {
        return Err(ChunkError::BadValue {
            what: "timestamp",
            value: timestamp.unsigned_abs(),
        });
    }
    Ok(())
}

/// Saved documents hold seqs and op counters in 32 bits.
fn positive_u32(value: u64, what: &'static str) -> Result<u64, ChunkError> {
    match u32::try_from(value) {
        Ok(1..) => Ok(value),
        _ => Err(ChunkError::BadValue { what, value }),
    }
}
