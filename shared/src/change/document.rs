//! Document chunks: whole documents, compacted. A first upload, a snapshot, a file.
//!
//! `actors | heads | table of change columns | table of op columns | change columns | op columns |
//! indexes of the heads`. Automerge loads such a chunk by expanding it, with memory for each change
//! and op that its run lengths claim; a few hundred bytes can claim millions. So the claims are added
//! up first, and the numbers that Automerge would index by are held against what they index.

use std::io::Read as _;

use automerge::{Automerge, ChangeHash};
use bytes::Bytes;

use super::chunk::{Budget, RawChunk};
use super::column::{Column, RowLimit};
use super::{Change, ChunkError, spec};
use crate::Limits;
use crate::reader::Reader;

/// More columns than any version of the format has.
const MAX_COLUMNS: u64 = 64;

/// Turns a document chunk, as [`parse_chunks`](super::parse_chunks) gives it, into its changes, each
/// after its deps. The checksum is not looked at again.
///
/// For a blocking thread: it takes some 5 to 15 µs for each change and, for a moment, one to five
/// kilobytes. The bounds are `limits.document_*`. What the ops say is not looked at: some documents in
/// which op ids repeat make Automerge panic, which is caught and is an error.
pub fn decode_document(chunk: &Bytes, limits: &Limits) -> Result<Vec<Change>, ChunkError> {
    check_document(chunk, limits)?;
    let limits = &limits.for_document(chunk.len());
    let loaded = std::panic::catch_unwind(|| {
        let document = Automerge::load(chunk)?;
        Ok(document.get_changes(&[]))
    });
    let changes = match loaded {
        Ok(Ok(changes)) => changes,
        Ok(Err(error)) => return Err(ChunkError::Load(Box::new(error))),
        Err(_panic) => return Err(ChunkError::LoadPanicked),
    };
    let mut budget = Budget {
        inflated_bytes: 0,
        ops: limits.document_ops,
        refs_bytes: limits.refs_bytes,
        documents: 0,
    };
    changes
        .iter()
        .map(|change| {
            let bytes = Bytes::copy_from_slice(change.raw_bytes());
            RawChunk::read(&mut Reader::new(&bytes), &bytes)?.into_change(&mut budget, limits)
        })
        .collect()
}

/// Whether a document chunk, as [`parse_chunks`](super::parse_chunks) gives it, may be given to Automerge:
/// what it claims is within `limits.document_*`, and in proportion to its bytes. The heads that it names.
///
/// Takes the time to inflate it and to read its run lengths, not to load it. What its ops say is not
/// looked at, nor whether its heads are what it makes.
pub fn check_document(chunk: &Bytes, limits: &Limits) -> Result<Vec<ChangeHash>, ChunkError> {
    let raw = RawChunk::read(&mut Reader::new(chunk), chunk)?;
    if raw.kind != super::chunk::DOCUMENT || raw.bytes.len() != chunk.len() {
        return Err(ChunkError::UnsupportedType { found: raw.kind });
    }
    let limits = &limits.for_document(chunk.len());
    check(raw.data(), limits).map_err(|error| ChunkError::Document(Box::new(error)))
}

/// Whether two document chunks have the same ops, in the same order. The order of their changes may differ: any in which
/// each comes after its deps is right.
pub fn have_same_ops(one: &Bytes, other: &Bytes, limits: &Limits) -> Result<bool, ChunkError> {
    let [one, other] = [one, other].map(|chunk| {
        let raw = RawChunk::read(&mut Reader::new(chunk), chunk)?;
        ops(raw.data(), limits)
    });
    Ok(one? == other?)
}

/// The actors, and the columns of ops. Apart from [`check`], which is in the browser's module, where each byte counts.
fn ops(data: &[u8], limits: &Limits) -> Result<(Vec<Vec<u8>>, Columns), ChunkError> {
    let mut data = Reader::new(data);
    let mut actors = Vec::new();
    for _ in 0..data.count(limits.document_actors as u64, "actors")? {
        actors.push(data.prefixed(limits.actor_bytes, "actor")?.to_vec());
    }
    data.hashes(limits.sync_hashes, "heads")?;
    let change_table = read_table(&mut data)?;
    let op_table = read_table(&mut data)?;
    let mut inflated = limits.document_bytes;
    Columns::read(&mut data, &change_table, &mut inflated, limits)?;
    let ops = Columns::read(&mut data, &op_table, &mut inflated, limits)?;
    Ok((actors, ops))
}

/// Adds up what the document's columns claim. Its heads.
fn check(data: &[u8], limits: &Limits) -> Result<Vec<ChangeHash>, ChunkError> {
    let mut data = Reader::new(data);
    let actors = data.count(limits.document_actors as u64, "actors")?;
    for _ in 0..actors {
        data.prefixed(limits.actor_bytes, "actor")?;
    }
    let heads = data.hashes(limits.sync_hashes, "heads")?;
    let change_table = read_table(&mut data)?;
    let op_table = read_table(&mut data)?;
    let mut inflated = limits.document_bytes;
    let changes = Columns::read(&mut data, &change_table, &mut inflated, limits)?;
    let ops = Columns::read(&mut data, &op_table, &mut inflated, limits)?;
    // Documents of old JavaScript versions end here.
    if !data.is_empty() {
        for _ in &heads {
            data.uleb("index of a head")?;
        }
    }
    data.finish("document")?;
    let changes = check_changes(&changes, actors, limits)?;
    if heads.is_empty() && changes > 0 {
        return Err(ChunkError::BadValue {
            what: "number of heads",
            value: 0,
        });
    }
    check_ops(&ops, actors, limits)?;
    Ok(heads)
}

/// How many there are.
fn check_changes(columns: &Columns, actors: u64, limits: &Limits) -> Result<u64, ChunkError> {
    let limit = RowLimit {
        of: "the document's changes",
        rows: limits.document_changes,
    };
    let changes = columns.actors(spec::change::ACTOR, limit, actors)?;
    let rows = columns
        .get(spec::change::SEQ)
        .counters(limit, |_, _, _| Ok(()))?;
    same_rows("seqs", rows, changes)?;
    let mut max_ops = Vec::new();
    let rows = columns
        .get(spec::change::MAX_OP)
        .counters(limit, |first, delta, run| {
            extend_run(&mut max_ops, first, delta, run);
            Ok(())
        })?;
    same_rows("max ops", rows, changes)?;
    let rows = columns
        .get(spec::change::TIME)
        .runs(limit, |_: Option<i64>, _| Ok(()))?;
    rows_or_none("times", rows, changes)?;
    let rows = columns
        .get(spec::change::MESSAGE)
        .runs(limit, |_: Option<&str>, _| Ok(()))?;
    rows_or_none("messages", rows, changes)?;
    let rows = columns.value_rows(spec::change::EXTRA_META, spec::change::EXTRA, limit)?;
    rows_or_none("extra lengths", rows, changes)?;

    let mut counts = Vec::new();
    let rows = columns
        .get(spec::change::DEPS_COUNT)
        .values(limit, |count: u64, run| {
            extend_run(&mut counts, u32::try_from(count).ok(), 0, run);
            Ok(())
        })?;
    same_rows("deps counts", rows, changes)?;
    let limit_deps = RowLimit {
        of: "the document's deps",
        rows: limits.document_ops,
    };
    let mut deps = Vec::new();
    let rows = columns
        .get(spec::change::DEPS)
        .counters(limit_deps, |first, delta, run| {
            extend_run(&mut deps, first, delta, run);
            Ok(())
        })?;
    let counted = counts.iter().map(|count| u64::from(*count)).sum();
    same_rows("deps", rows, counted)?;
    check_graph(&max_ops, &counts, &deps, limits)?;
    Ok(changes)
}

/// Appends the values of a run, whose count is already bounded. Values out of range become one that
/// is refused later.
fn extend_run(values: &mut Vec<u32>, first: Option<u32>, delta: i64, run: u64) {
    let mut value = first.map_or(i64::from(u32::MAX), i64::from);
    for _ in 0..run {
        values.push(u32::try_from(value).unwrap_or(u32::MAX));
        value = value.saturating_add(delta);
    }
}

/// A change's deps are indexes of changes before it. Automerge takes the ops between theirs and its
/// own last one for the change's, and allocates by their number.
fn check_graph(
    max_ops: &[u32],
    counts: &[u32],
    deps: &[u32],
    limits: &Limits,
) -> Result<(), ChunkError> {
    /// Peak memory of loading a change with one op, and with more than a few, measured with
    /// automerge 0.12 on 20,000 of each.
    const CHANGE_BYTES: usize = 1024;
    const LARGE_CHANGE_BYTES: usize = 5 * 1024;
    const FEW_OPS: u32 = 8;

    let mut deps = deps.iter();
    let mut bytes = 0_usize;
    for (index, (max_op, count)) in max_ops.iter().zip(counts).enumerate() {
        let mut last = 0;
        for dep in deps.by_ref().take(*count as usize) {
            let before = max_ops.get(..index).unwrap_or_default();
            last = match before.get(*dep as usize) {
                Some(max_op) => last.max(*max_op),
                None => {
                    return Err(ChunkError::BadValue {
                        what: "dep",
                        value: u64::from(*dep),
                    });
                }
            };
        }
        let large = max_op.saturating_sub(last) > FEW_OPS;
        bytes += if large {
            LARGE_CHANGE_BYTES
        } else {
            CHANGE_BYTES
        };
    }
    if bytes > limits.document_memory_bytes {
        return Err(ChunkError::DocumentTooLarge {
            what: "memory",
            bytes,
            limit: limits.document_memory_bytes,
        });
    }
    Ok(())
}

fn check_ops(columns: &Columns, actors: u64, limits: &Limits) -> Result<(), ChunkError> {
    let limit = RowLimit {
        of: "the document",
        rows: limits.document_ops,
    };
    let ops = columns.actors(spec::op::ID_ACTOR, limit, actors)?;
    let rows = columns
        .get(spec::op::ID_COUNTER)
        .counters(limit, |_, _, _| Ok(()))?;
    same_rows("op counters", rows, ops)?;
    for spec in [spec::op::OBJ_ACTOR, spec::op::KEY_ACTOR] {
        rows_or_none(
            "object and key actors",
            columns.actors(spec, limit, actors)?,
            ops,
        )?;
    }
    let rows = columns
        .get(spec::op::OBJ_COUNTER)
        .runs(limit, |_: Option<u64>, _| Ok(()))?;
    rows_or_none("object counters", rows, ops)?;
    let rows = columns
        .get(spec::op::KEY_COUNTER)
        .counters(limit, |_, _, _| Ok(()))?;
    rows_or_none("key counters", rows, ops)?;
    for spec in [spec::op::KEY_TEXT, spec::op::MARK_NAME] {
        let rows = columns.get(spec).runs(limit, |_: Option<&str>, _| Ok(()))?;
        rows_or_none("key texts and mark names", rows, ops)?;
    }
    for spec in [spec::op::INSERT, spec::op::EXPAND] {
        rows_or_none(
            "inserts and expansions",
            columns.get(spec).booleans(limit)?,
            ops,
        )?;
    }
    let rows = columns
        .get(spec::op::ACTION)
        .runs(limit, |_: Option<u64>, _| Ok(()))?;
    same_rows("actions", rows, ops)?;
    let rows = columns.value_rows(spec::op::VALUE_META, spec::op::VALUE, limit)?;
    same_rows("value lengths", rows, ops)?;
    let mut succs = 0_u64;
    let rows = columns
        .get(spec::op::SUCC_COUNT)
        .values(limit, |count: u64, run| {
            succs = succs.saturating_add(count.saturating_mul(run));
            Ok(())
        })?;
    same_rows("successor counts", rows, ops)?;
    same_rows(
        "successors",
        columns.actors(spec::op::SUCC_ACTOR, limit, actors)?,
        succs,
    )?;
    let rows = columns
        .get(spec::op::SUCC_COUNTER)
        .counters(limit, |_, _, _| Ok(()))?;
    same_rows("successors", rows, succs)
}

fn same_rows(what: &'static str, rows: u64, expected: u64) -> Result<(), ChunkError> {
    if rows == expected {
        return Ok(());
    }
    Err(ChunkError::Rows {
        what,
        rows,
        expected,
    })
}

fn rows_or_none(what: &'static str, rows: u64, expected: u64) -> Result<(), ChunkError> {
    if rows == 0 {
        return Ok(());
    }
    same_rows(what, rows, expected)
}

/// Specification and length of each column, in the order of their bytes.
fn read_table(data: &mut Reader<'_>) -> Result<Vec<(u64, u64)>, ChunkError> {
    let columns = data.count(MAX_COLUMNS, "columns of a document")?;
    let mut table = Vec::new();
    for _ in 0..columns {
        table.push((
            data.uleb("column specification")?,
            data.uleb("column length")?,
        ));
    }
    Ok(table)
}

/// A document's columns, inflated.
#[derive(PartialEq, Eq)]
struct Columns(Vec<(u64, Vec<u8>)>);

impl Columns {
    fn read(
        data: &mut Reader<'_>,
        table: &[(u64, u64)],
        budget: &mut usize,
        limits: &Limits,
    ) -> Result<Self, ChunkError> {
        let mut columns = Vec::new();
        for (spec, length) in table {
            let bytes = data.take(*length, "column")?;
            let mut column = Vec::new();
            if spec & spec::COMPRESSED == 0 {
                column.extend_from_slice(bytes);
            } else {
                let read = flate2::bufread::DeflateDecoder::new(bytes)
                    .take((*budget as u64).saturating_add(1))
                    .read_to_end(&mut column);
                if read.is_err() {
                    return Err(ChunkError::Inflate {
                        inflated: column.len(),
                    });
                }
            }
            *budget = budget
                .checked_sub(column.len())
                .ok_or(ChunkError::DocumentTooLarge {
                    what: "the last column",
                    bytes: column.len(),
                    limit: limits.document_bytes,
                })?;
            let spec = spec & !spec::COMPRESSED;
            if columns.iter().any(|(other, _)| *other == spec) {
                return Err(ChunkError::UnknownColumn { spec });
            }
            columns.push((spec, column));
        }
        Ok(Self(columns))
    }

    /// A column's bytes; none where the document does not have it.
    fn get(&self, spec: u64) -> Column<'_> {
        let found = self.0.iter().find(|(found, _)| *found == spec);
        Column {
            name: "document column",
            bytes: Reader::new(found.map_or(&[], |(_, bytes)| bytes)),
            canonical: false,
        }
    }

    /// Counts the rows of a column of actors, each below `actors`.
    fn actors(&self, spec: u64, limit: RowLimit, actors: u64) -> Result<u64, ChunkError> {
        self.get(spec)
            .runs(limit, |actor: Option<u64>, _| match actor {
                Some(value) if value >= actors => Err(ChunkError::BadValue {
                    what: "actor index",
                    value,
                }),
                _ => Ok(()),
            })
    }

    /// Counts the rows of a column of value lengths, which add up to the bytes of `values`.
    fn value_rows(&self, lengths: u64, values: u64, limit: RowLimit) -> Result<u64, ChunkError> {
        let mut bytes = 0_u64;
        let rows = self.get(lengths).values(limit, |meta: u64, count| {
            bytes = bytes.saturating_add((meta >> 4).saturating_mul(count));
            Ok(())
        })?;
        same_rows("values", self.get(values).bytes.remaining() as u64, bytes)?;
        Ok(rows)
    }
}
