//! The run-length encoded columns of chunks, walked run by run.
//!
//! A column of rows is a sequence of runs: a positive signed LEB128 count and a value that repeats
//! that often; a negative count and that many different values; a zero, and an unsigned count of
//! nulls. A boolean column is a sequence of unsigned counts of false, true, false, … Automerge's
//! encoders write the same rows in one way only, and hashes depend on it, so the other ways are
//! refused here: see the module's [parent](super).
//!
//! A run's count is only ever added up, never looped by; a run of different values takes at least a
//! byte each. So a walk costs what the column's bytes cost, whatever they claim.

use super::ChunkError;
use crate::reader::{ReadError, Reader};

/// A column's name for errors, and where its bytes are.
#[derive(Debug, Clone)]
pub(super) struct Column<'a> {
    pub(super) name: &'static str,
    pub(super) bytes: Reader<'a>,
    /// Whether other encodings than Automerge's are refused. Those of a document's columns have
    /// varied, and no hash depends on them.
    pub(super) canonical: bool,
}

/// What the values of a run-length encoded column are.
pub(super) trait Value<'a>: Copy + PartialEq {
    fn read(bytes: &mut Reader<'a>, what: &'static str) -> Result<Self, ReadError>;
}

impl Value<'_> for u64 {
    fn read(bytes: &mut Reader<'_>, what: &'static str) -> Result<Self, ReadError> {
        bytes.uleb(what)
    }
}

/// Deltas.
impl Value<'_> for i64 {
    fn read(bytes: &mut Reader<'_>, what: &'static str) -> Result<Self, ReadError> {
        bytes.sleb(what)
    }
}

impl<'a> Value<'a> for &'a str {
    fn read(bytes: &mut Reader<'a>, what: &'static str) -> Result<Self, ReadError> {
        bytes.text(usize::MAX, what)
    }
}

/// The end of the previous run, which decides what the next one may be.
#[derive(PartialEq)]
enum Last<T> {
    Nothing,
    Nulls,
    Repeated(T),
    Different(T),
}

/// A bound on rows, and what to say when it is passed.
#[derive(Debug, Clone, Copy)]
pub(super) struct RowLimit {
    pub(super) of: &'static str,
    pub(super) rows: u64,
}

impl RowLimit {
    fn add(self, rows: u64, more: u64) -> Result<u64, ChunkError> {
        let sum = rows.saturating_add(more);
        if sum > self.rows {
            return Err(ChunkError::TooManyOps {
                what: self.of,
                ops: sum,
                limit: self.rows,
            });
        }
        Ok(sum)
    }
}

impl<'a> Column<'a> {
    /// Walks a run-length encoded column and counts its rows, calling `visit` with each run: a value
    /// or null, and how often it repeats.
    pub(super) fn runs<T: Value<'a>>(
        mut self,
        limit: RowLimit,
        mut visit: impl FnMut(Option<T>, u64) -> Result<(), ChunkError>,
    ) -> Result<u64, ChunkError> {
        let mut rows = 0;
        let mut last = Last::Nothing;
        while !self.bytes.is_empty() {
            let offset = self.bytes.offset();
            let name = self.name;
            let canonical = self.canonical;
            let require = |good: bool, why| {
                if good || !canonical {
                    return Ok(());
                }
                Err(ChunkError::NotCanonical {
                    what: name,
                    offset,
                    why,
                })
            };
            let count = self.bytes.sleb(name)?;
            match count {
                0 => {
                    let nulls = self.bytes.uleb(name)?;
                    let only = last == Last::Nothing && self.bytes.is_empty();
                    require(nulls > 0, "an empty run of nulls")?;
                    require(last != Last::Nulls, "a run of nulls after another")?;
                    require(!only, "a column of nulls only")?;
                    rows = limit.add(rows, nulls)?;
                    visit(None, nulls)?;
                    last = Last::Nulls;
                }
                1.. => {
                    let value = T::read(&mut self.bytes, name)?;
                    let continues = last == Last::Repeated(value) || last == Last::Different(value);
                    require(count > 1, "a run of one")?;
                    require(!continues, "a run that continues the one before")?;
                    rows = limit.add(rows, count.unsigned_abs())?;
                    visit(Some(value), count.unsigned_abs())?;
                    last = Last::Repeated(value);
                }
                ..0 => {
                    let follows = matches!(last, Last::Different(_));
                    require(!follows, "a run of different values after another")?;
                    rows = limit.add(rows, count.unsigned_abs())?;
                    for _ in 0..count.unsigned_abs() {
                        let value = T::read(&mut self.bytes, name)?;
                        let equal = last == Last::Repeated(value) || last == Last::Different(value);
                        require(!equal, "equal values that are not in a run")?;
                        visit(Some(value), 1)?;
                        last = Last::Different(value);
                    }
                }
            }
        }
        Ok(rows)
    }

    /// As [`Column::runs`], for a column that has no nulls.
    pub(super) fn values<T: Value<'a>>(
        self,
        limit: RowLimit,
        mut visit: impl FnMut(T, u64) -> Result<(), ChunkError>,
    ) -> Result<u64, ChunkError> {
        let (what, offset) = (self.name, self.bytes.offset());
        self.runs(limit, |value, count| match value {
            Some(value) => visit(value, count),
            None => Err(ChunkError::NotCanonical {
                what,
                offset,
                why: "a null where a value is needed",
            }),
        })
    }

    /// Walks a delta column of counters, each of which must fit a `u32`. Calls `visit` with the
    /// counter after each run's first row, the run's delta, and its count.
    pub(super) fn counters(
        self,
        limit: RowLimit,
        mut visit: impl FnMut(Option<u32>, i64, u64) -> Result<(), ChunkError>,
    ) -> Result<u64, ChunkError> {
        let name = self.name;
        let mut counter = 0_i128;
        self.runs(limit, |delta: Option<i64>, count| {
            let Some(delta) = delta else {
                return visit(None, 0, count);
            };
            let first = counter + i128::from(delta);
            // Between its ends a run's counters lie between its ends' counters.
            counter += i128::from(delta) * i128::from(count);
            match (u32::try_from(first), u32::try_from(counter)) {
                (Ok(first), Ok(_)) => visit(Some(first), delta, count),
                _ => Err(ChunkError::BadValue {
                    what: name,
                    value: u64::try_from(counter).unwrap_or(u64::MAX),
                }),
            }
        })
    }

    /// Walks a boolean column and counts its rows. Where `or_absent`, a column of false only would
    /// not be written.
    pub(super) fn booleans(mut self, limit: RowLimit, or_absent: bool) -> Result<u64, ChunkError> {
        let mut rows = 0;
        let mut index = 0_u64;
        while !self.bytes.is_empty() {
            let offset = self.bytes.offset();
            let require = |good: bool, why| {
                if good || !self.canonical {
                    return Ok(());
                }
                Err(ChunkError::NotCanonical {
                    what: self.name,
                    offset,
                    why,
                })
            };
            let count = self.bytes.uleb(self.name)?;
            let without_true = index == 0 && self.bytes.is_empty() && (count == 0 || or_absent);
            require(!without_true, "a column without a true")?;
            require(index == 0 || count > 0, "an empty run")?;
            rows = limit.add(rows, count)?;
            index += 1;
        }
        Ok(rows)
    }
}
