//! The op columns of a change: counted, and read op by op.

use super::ChunkError;
use super::column::{Column, Counters, Flags, RowLimit, Rows};
use super::needs::{ElementRef, ObjectRef, OpRef};
use super::op_error::OpError;
use super::spec::op;
use super::value::{self, Kind};
use crate::Limits;
use crate::reader::Reader;

/// How many columns there are: a change has no others, and each at most once.
const COLUMNS: usize = 14;

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

    /// Counts the ops by the `action` column, and their predecessors, without expanding them.
    pub(super) fn count(&self, limits: &Limits) -> Result<(u64, u64), ChunkError> {
        let limit = RowLimit {
            of: "the change",
            rows: limits.ops_per_change,
        };
        let counted = self
            .action
            .clone()
            .runs(limit, |_: Option<u64>, _| Ok(()))?;
        // As many rows are read of the predecessors: their number must be known before that, too.
        let limit = RowLimit {
            of: "the change's predecessors",
            rows: limits.preds_per_change,
        };
        let mut preds = 0;
        self.pred_count.clone().runs(
            RowLimit {
                rows: u64::MAX,
                ..limit
            },
            |each: Option<u64>, count| {
                preds = limit.add(preds, each.unwrap_or(0).saturating_mul(count))?;
                Ok(())
            },
        )?;
        Ok((counted, preds))
    }

    /// The ops one by one, after [`count`](Self::count) found their number to be within bounds.
    pub(super) fn rows(self, other_actors: usize) -> OpRows<'a> {
        OpRows {
            obj_actor: self.obj_actor.rows(),
            obj_counter: self.obj_counter.rows(),
            key_actor: self.key_actor.rows(),
            key_counter: self.key_counter.counter_rows(),
            key_text: self.key_text.rows(),
            insert: self.insert.flags(false),
            action: self.action.rows(),
            value_meta: self.value_meta.rows(),
            value: self.value,
            pred_count: self.pred_count.rows(),
            pred_actor: self.pred_actor.rows(),
            pred_counter: self.pred_counter.counter_rows(),
            expand: self.expand.flags(true),
            mark_name: self.mark_name.rows(),
            seen: vec![false; other_actors],
        }
    }
}

/// The key of an op.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key<'a> {
    Text(&'a str),
    Element(ElementRef),
}

/// An op as it is written, its numbers in range.
#[derive(Debug)]
pub(super) struct Op<'a> {
    pub(super) object: ObjectRef,
    pub(super) key: Key<'a>,
    pub(super) insert: bool,
    pub(super) action: u64,
    pub(super) value: Kind,
    pub(super) expand: bool,
    pub(super) mark_name: Option<&'a str>,
}

/// The rows of the op columns.
pub(super) struct OpRows<'a> {
    obj_actor: Rows<'a, u64>,
    obj_counter: Rows<'a, u64>,
    key_actor: Rows<'a, u64>,
    key_counter: Counters<'a>,
    key_text: Rows<'a, &'a str>,
    insert: Flags<'a>,
    action: Rows<'a, u64>,
    value_meta: Rows<'a, u64>,
    value: Column<'a>,
    pred_count: Rows<'a, u64>,
    pred_actor: Rows<'a, u64>,
    pred_counter: Counters<'a>,
    expand: Flags<'a>,
    mark_name: Rows<'a, &'a str>,
    /// Which of the other actors an op refers to. Automerge writes those that they do.
    seen: Vec<bool>,
}

impl<'a> OpRows<'a> {
    /// The next op, its predecessors in `preds`. What is wrong with the columns is the outer error, what is
    /// wrong with this op the inner.
    pub(super) fn next(
        &mut self,
        preds: &mut Vec<OpRef>,
    ) -> Result<Result<Op<'a>, OpError>, ChunkError> {
        let object = (self.obj_actor.next()?, self.obj_counter.next()?);
        let key_id = (self.key_actor.next()?, self.key_counter.next()?);
        let text = self.key_text.next()?;
        let insert = self.insert.next()?;
        let action = self.action.value()?;
        let meta = self.value_meta.value()?;
        let bytes = self.value.bytes.sub(meta >> 4, self.value.name)?;
        preds.clear();
        for _ in 0..self.pred_count.value()? {
            let actor = self.pred_actor.value()?;
            let counter = self.pred_counter.value()?;
            preds.push(OpRef {
                actor: self.see(self.pred_actor.name(), actor)?,
                counter,
            });
        }
        let expand = self.expand.next()?;
        let mark_name = self.mark_name.next()?;

        let object = match object {
            (None, None) => None,
            (Some(actor), Some(counter)) if counter > 0 => Some(OpRef {
                actor: self.see(self.obj_actor.name(), actor)?,
                counter: u32::try_from(counter).map_err(|_| ChunkError::BadValue {
                    what: self.obj_counter.name(),
                    value: counter,
                })?,
            }),
            _ => return Ok(Err(OpError::HalfAnId("object"))),
        };
        let key = match (key_id, text) {
            ((None, None), Some(text)) => Key::Text(text),
            ((None, Some(0)), None) => Key::Element(None),
            ((Some(actor), Some(counter)), None) if counter > 0 => Key::Element(Some(OpRef {
                actor: self.see(self.key_actor.name(), actor)?,
                counter,
            })),
            ((None, None), None) => return Ok(Err(OpError::NoKey)),
            (_, Some(_)) => return Ok(Err(OpError::TwoKeys)),
            _ => return Ok(Err(OpError::HalfAnId("key"))),
        };
        Ok(value::kind(meta & 0xf, &bytes).map(|value| Op {
            object,
            key,
            insert,
            action,
            value,
            expand,
            mark_name,
        }))
    }

    /// Refuses what is left in any column, and actors that no op referred to.
    pub(super) fn finish(self) -> Result<(), ChunkError> {
        self.obj_actor.finish()?;
        self.obj_counter.finish()?;
        self.key_actor.finish()?;
        self.key_counter.finish()?;
        self.key_text.finish()?;
        self.insert.finish()?;
        self.value_meta.finish()?;
        self.value.bytes.finish("values")?;
        self.pred_count.finish()?;
        self.pred_actor.finish()?;
        self.pred_counter.finish()?;
        self.expand.finish()?;
        self.mark_name.finish()?;
        if self.seen.iter().all(|seen| *seen) {
            return Ok(());
        }
        Err(ChunkError::NotCanonical {
            what: "other actors",
            offset: 0,
            why: "an actor that no op refers to",
        })
    }

    /// Index 0 is the author, 1 the first of the others.
    fn see(&mut self, what: &'static str, actor: u64) -> Result<u32, ChunkError> {
        let bad = ChunkError::BadValue { what, value: actor };
        let Some(other) = actor.checked_sub(1) else {
            return Ok(0);
        };
        let seen = usize::try_from(other)
            .ok()
            .and_then(|other| self.seen.get_mut(other));
        match (seen, u32::try_from(actor)) {
            (Some(seen), Ok(actor)) => {
                *seen = true;
                Ok(actor)
            }
            _ => Err(bad),
        }
    }
}
