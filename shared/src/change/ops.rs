//! The op columns of a change: counted, held against each other, never expanded.

use super::ChunkError;
use super::column::{Column, RowLimit};
use super::spec::op;
use crate::Limits;
use crate::reader::Reader;

/// How many columns there are: a change has no others, and each at most once.
const COLUMNS: usize = 14;

/// Actions that Automerge 0.12 knows: make map, set, make list, delete, make text, increment, make
/// table, mark.
const LAST_ACTION: u64 = 7;

/// The op columns of one change, each empty where the change has none.
#[derive(Debug)]
pub(super) struct OpColumns<'a> {
    obj_actor: Column<'a>,
    obj_counter: Column<'a>,
    key_actor: Column<'a>,
    key_counter: Column<'a>,
    key_text: Column<'a>,
    insert: Column<'a>,
    action: Column<'a>,
    value_meta: Column<'a>,
    value: Column<'a>,
    pred_count: Column<'a>,
    pred_actor: Column<'a>,
    pred_counter: Column<'a>,
    expand: Column<'a>,
    mark_name: Column<'a>,
}

impl<'a> OpColumns<'a> {
    /// Reads the table of columns and cuts the columns' bytes, which follow it.
    pub(super) fn read(data: &mut Reader<'a>) -> Result<Self, ChunkError> {
        let table_offset = data.offset();
        let count = data.count(COLUMNS as u64, "columns of a change")?;
        let mut table = [(0_u64, 0_u64); COLUMNS];
        let mut previous = None;
        for (_, entry) in (0..count).zip(&mut table) {
            let not_canonical = |why| ChunkError::NotCanonical {
                what: "column table",
                offset: table_offset,
                why,
            };
            let spec = data.uleb("column specification")?;
            let length = data.uleb("column length")?;
            if previous.is_some_and(|previous| previous >= spec) {
                return Err(not_canonical("columns out of order"));
            }
            if length == 0 {
                return Err(not_canonical("an empty column"));
            }
            previous = Some(spec);
            *entry = (spec, length);
        }
        let empty = |name| Column {
            name,
            bytes: Reader::new(&[]),
            canonical: true,
        };
        let mut columns = Self {
            obj_actor: empty("object actors"),
            obj_counter: empty("object counters"),
            key_actor: empty("key actors"),
            key_counter: empty("key counters"),
            key_text: empty("key texts"),
            insert: empty("inserts"),
            action: empty("actions"),
            value_meta: empty("value lengths"),
            value: empty("values"),
            pred_count: empty("predecessor counts"),
            pred_actor: empty("predecessor actors"),
            pred_counter: empty("predecessor counters"),
            expand: empty("mark expansions"),
            mark_name: empty("mark names"),
        };
        for (_, (spec, length)) in (0..count).zip(table) {
            let column = match spec {
                op::OBJ_ACTOR => &mut columns.obj_actor,
                op::OBJ_COUNTER => &mut columns.obj_counter,
                op::KEY_ACTOR => &mut columns.key_actor,
                op::KEY_COUNTER => &mut columns.key_counter,
                op::KEY_TEXT => &mut columns.key_text,
                op::INSERT => &mut columns.insert,
                op::ACTION => &mut columns.action,
                op::VALUE_META => &mut columns.value_meta,
                op::VALUE => &mut columns.value,
                op::PRED_COUNT => &mut columns.pred_count,
                op::PRED_ACTOR => &mut columns.pred_actor,
                op::PRED_COUNTER => &mut columns.pred_counter,
                op::EXPAND => &mut columns.expand,
                op::MARK_NAME => &mut columns.mark_name,
                spec => return Err(ChunkError::UnknownColumn { spec }),
            };
            column.bytes = data.sub(length, column.name)?;
        }
        Ok(columns)
    }

    /// Counts the ops by the `action` column, and checks that every other column has as many rows,
    /// that predecessors and values are as many as their counts say, and that every actor of
    /// `other_actors` is referred to and no others are.
    pub(super) fn check(self, other_actors: usize, limits: &Limits) -> Result<u64, ChunkError> {
        let limit = RowLimit {
            of: "the change",
            rows: limits.ops_per_change,
        };
        let action_name = self.action.name;
        let ops = self.action.values(limit, |action: u64, _| {
            if action > LAST_ACTION {
                return Err(ChunkError::BadValue {
                    what: action_name,
                    value: action,
                });
            }
            Ok(())
        })?;
        let rows = |what, rows, expected| {
            if rows == expected {
                Ok(())
            } else {
                Err(ChunkError::Rows {
                    what,
                    rows,
                    expected,
                })
            }
        };
        let all_or_none = |what, found| match found {
            0 => Ok(()),
            found => rows(what, found, ops),
        };

        let mut actors = Actors::new(other_actors);
        let name = self.obj_actor.name;
        let found = self
            .obj_actor
            .runs(limit, |actor, _| actors.see(name, actor))?;
        all_or_none(name, found)?;

        let name = self.obj_counter.name;
        let found = self
            .obj_counter
            .runs(limit, |counter: Option<u64>, _| fits_u32(name, counter))?;
        all_or_none(name, found)?;

        let name = self.key_actor.name;
        let found = self
            .key_actor
            .runs(limit, |actor, _| actors.see(name, actor))?;
        all_or_none(name, found)?;

        let name = self.key_counter.name;
        let found = self.key_counter.counters(limit, |_, _, _| Ok(()))?;
        all_or_none(name, found)?;

        let name = self.key_text.name;
        let found = self.key_text.runs(limit, |_: Option<&str>, _| Ok(()))?;
        all_or_none(name, found)?;

        let name = self.insert.name;
        rows(name, self.insert.booleans(limit, false)?, ops)?;

        let name = self.value_meta.name;
        let offset = self.value_meta.bytes.offset();
        let mut value_bytes = 0_u64;
        let found = self.value_meta.values(limit, |meta: u64, count| {
            let bytes = value_len(meta).ok_or(ChunkError::NotCanonical {
                what: name,
                offset,
                why: "a length that the value's type does not have",
            })?;
            value_bytes = value_bytes.saturating_add(bytes.saturating_mul(count));
            Ok(())
        })?;
        rows(name, found, ops)?;
        rows(
            self.value.name,
            self.value.bytes.remaining() as u64,
            value_bytes,
        )?;

        let limit_preds = RowLimit {
            of: "the change's predecessors",
            rows: limits.preds_per_change,
        };
        let name = self.pred_count.name;
        let mut preds = 0_u64;
        let found = self.pred_count.values(limit, |each: u64, count| {
            preds = preds.saturating_add(each.saturating_mul(count));
            Ok(())
        })?;
        rows(name, found, ops)?;
        let name = self.pred_actor.name;
        let found = self
            .pred_actor
            .values(limit_preds, |actor, _| actors.see(name, Some(actor)))?;
        rows(name, found, preds)?;
        let name = self.pred_counter.name;
        let offset = self.pred_counter.bytes.offset();
        let found = self
            .pred_counter
            .counters(limit_preds, |counter, _, _| match counter {
                Some(_) => Ok(()),
                None => Err(ChunkError::NotCanonical {
                    what: name,
                    offset,
                    why: "a null where a value is needed",
                }),
            })?;
        rows(name, found, preds)?;

        let name = self.expand.name;
        all_or_none(name, self.expand.booleans(limit, true)?)?;

        let name = self.mark_name.name;
        let found = self.mark_name.runs(limit, |_: Option<&str>, _| Ok(()))?;
        all_or_none(name, found)?;

        actors.all_seen()?;
        Ok(ops)
    }
}

/// Bytes in the value column of a value with this metadata: a length and a type in the lower four
/// bits. None for a length that the type can't have.
fn value_len(meta: u64) -> Option<u64> {
    let (length, kind) = (meta >> 4, meta & 0xf);
    let fits = match kind {
        0..=2 => length == 0,          // null, false, true
        3 | 4 | 8 | 9 => length <= 10, // numbers, counters and timestamps as LEB128
        5 => length == 8,              // float64
        _ => true,                     // text, bytes, and types to come
    };
    fits.then_some(length)
}

fn fits_u32(what: &'static str, value: Option<u64>) -> Result<(), ChunkError> {
    match value {
        Some(value) if u32::try_from(value).is_err() => Err(ChunkError::BadValue { what, value }),
        _ => Ok(()),
    }
}

/// Which of a change's other actors its ops refer to. Automerge writes those that they do.
struct Actors {
    seen: Vec<bool>,
}

impl Actors {
    fn new(others: usize) -> Self {
        Self {
            seen: vec![false; others],
        }
    }

    /// Index 0 is the author, 1 the first of the others.
    fn see(&mut self, what: &'static str, actor: Option<u64>) -> Result<(), ChunkError> {
        let Some(other) = actor.and_then(|actor| actor.checked_sub(1)) else {
            return Ok(());
        };
        let seen = usize::try_from(other)
            .ok()
            .and_then(|other| self.seen.get_mut(other));
        match seen {
            Some(seen) => {
                *seen = true;
                Ok(())
            }
            None => Err(ChunkError::BadValue {
                what,
                value: other.saturating_add(1),
            }),
        }
    }

    fn all_seen(&self) -> Result<(), ChunkError> {
        if self.seen.iter().all(|seen| *seen) {
            return Ok(());
        }
        Err(ChunkError::NotCanonical {
            what: "other actors",
            offset: 0,
            why: "an actor that no op refers to",
        })
    }
}
