//! The run-length encoded columns of chunks, walked run by run.
//!
//! A column of rows is a sequence of runs: a positive signed LEB128 count and a value that repeats
//! that often; a negative count and that many different values; a zero, and an unsigned count of
//! nulls. A boolean column is a sequence of unsigned counts of false, true, false, … Automerge's
//! encoders write the same rows in one way only, and hashes depend on it, so the other ways are
//! refused here: see the module's [parent](super).
//!
//! [`Column::runs`] and its like only ever add a run's count up, never loop by it; a run of different
//! values takes at least a byte each. So such a walk costs what the column's bytes cost, whatever they
//! claim. [`Column::rows`] and its like give row by row, and are for whoever has counted the rows.

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
    pub(super) fn add(self, rows: u64, more: u64) -> Result<u64, ChunkError> {
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

/// The runs of a run-length encoded column, one after another.
pub(super) struct Runs<'a, T> {
    column: Column<'a>,
    last: Last<T>,
    /// Values that the run of different values still has.
    different: u64,
}

impl<'a, T: Value<'a>> Runs<'a, T> {
    fn new(column: Column<'a>) -> Self {
        Self {
            column,
            last: Last::Nothing,
            different: 0,
        }
    }

    /// The next run: a value or null, and how often it repeats, at least once. `None` at the end.
    fn next(&mut self) -> Result<Option<(Option<T>, u64)>, ChunkError> {
        let column = &mut self.column;
        let offset = column.bytes.offset();
        let require = |good: bool, why| {
            if good || !column.canonical {
                return Ok(());
            }
            Err(ChunkError::NotCanonical {
                what: column.name,
                offset,
                why,
            })
        };
        let name = column.name;
        while self.different == 0 {
            if column.bytes.is_empty() {
                return Ok(None);
            }
            match column.bytes.sleb(name)? {
                0 => {
                    let nulls = column.bytes.uleb(name)?;
                    let only = self.last == Last::Nothing && column.bytes.is_empty();
                    require(nulls > 0, "an empty run of nulls")?;
                    require(self.last != Last::Nulls, "a run of nulls after another")?;
                    require(!only, "a column of nulls only")?;
                    self.last = Last::Nulls;
                    if nulls > 0 {
                        return Ok(Some((None, nulls)));
                    }
                }
                count @ 1.. => {
                    let value = T::read(&mut column.bytes, name)?;
                    let continues =
                        self.last == Last::Repeated(value) || self.last == Last::Different(value);
                    require(count > 1, "a run of one")?;
                    require(!continues, "a run that continues the one before")?;
                    self.last = Last::Repeated(value);
                    return Ok(Some((Some(value), count.unsigned_abs())));
                }
                count @ ..0 => {
                    let follows = matches!(self.last, Last::Different(_));
                    require(!follows, "a run of different values after another")?;
                    self.different = count.unsigned_abs();
                }
            }
        }
        self.different -= 1;
        let value = T::read(&mut column.bytes, name)?;
        let equal = self.last == Last::Repeated(value) || self.last == Last::Different(value);
        require(!equal, "equal values that are not in a run")?;
        self.last = Last::Different(value);
        Ok(Some((Some(value), 1)))
    }
}

/// A run-length encoded column row by row.
pub(super) struct Rows<'a, T> {
    runs: Runs<'a, T>,
    value: Option<T>,
    left: u64,
    /// The column is not there: every row is null.
    absent: bool,
    read: u64,
}

impl<'a, T: Value<'a>> Rows<'a, T> {
    /// The next row's value, or null.
    pub(super) fn next(&mut self) -> Result<Option<T>, ChunkError> {
        if self.absent {
            return Ok(None);
        }
        if self.left == 0 {
            let Some((value, count)) = self.runs.next()? else {
                return Err(self.too_few());
            };
            self.value = value;
            self.left = count;
        }
        self.left -= 1;
        self.read += 1;
        Ok(self.value)
    }

    /// The next row's value, in a column that has no nulls.
    pub(super) fn value(&mut self) -> Result<T, ChunkError> {
        if self.absent {
            return Err(self.too_few());
        }
        self.next()?.ok_or(ChunkError::NotCanonical {
            what: self.runs.column.name,
            offset: self.runs.column.bytes.offset(),
            why: "a null where a value is needed",
        })
    }

    /// The column's name.
    pub(super) fn name(&self) -> &'static str {
        self.runs.column.name
    }

    /// Refuses rows that are left.
    pub(super) fn finish(mut self) -> Result<(), ChunkError> {
        let expected = self.read;
        let left = match self.left {
            0 if self.absent => 0,
            0 => self.runs.next()?.map_or(0, |(_, count)| count),
            left => left,
        };
        if left == 0 {
            return Ok(());
        }
        Err(ChunkError::Rows {
            what: self.runs.column.name,
            rows: expected.saturating_add(left),
            expected,
        })
    }

    fn too_few(&self) -> ChunkError {
        ChunkError::Rows {
            what: self.runs.column.name,
            rows: self.read,
            expected: self.read + 1,
        }
    }
}

/// A delta column of counters row by row.
pub(super) struct Counters<'a> {
    deltas: Rows<'a, i64>,
    counter: i64,
}

impl Counters<'_> {
    /// The next row's counter, or null.
    pub(super) fn next(&mut self) -> Result<Option<u32>, ChunkError> {
        match self.deltas.next()? {
            None => Ok(None),
            Some(delta) => self.add(delta).map(Some),
        }
    }

    /// The next row's counter, in a column that has no nulls.
    pub(super) fn value(&mut self) -> Result<u32, ChunkError> {
        let delta = self.deltas.value()?;
        self.add(delta)
    }

    pub(super) fn finish(self) -> Result<(), ChunkError> {
        self.deltas.finish()
    }

    fn add(&mut self, delta: i64) -> Result<u32, ChunkError> {
        self.counter = self.counter.saturating_add(delta);
        u32::try_from(self.counter).map_err(|_| ChunkError::BadValue {
            what: self.deltas.runs.column.name,
            value: self.counter.cast_unsigned(),
        })
    }
}

/// A boolean column row by row.
#[expect(clippy::struct_excessive_bools, reason = "independent facts")]
pub(super) struct Flags<'a> {
    column: Column<'a>,
    or_absent: bool,
    absent: bool,
    first: bool,
    value: bool,
    left: u64,
    read: u64,
}

impl Flags<'_> {
    /// The next row's value.
    pub(super) fn next(&mut self) -> Result<bool, ChunkError> {
        if self.absent {
            return if self.or_absent {
                Ok(false)
            } else {
                Err(self.too_few())
            };
        }
        while self.left == 0 {
            if self.column.bytes.is_empty() {
                return Err(self.too_few());
            }
            self.run()?;
        }
        self.left -= 1;
        self.read += 1;
        Ok(self.value)
    }

    /// Refuses rows that are left.
    pub(super) fn finish(mut self) -> Result<(), ChunkError> {
        let expected = self.read;
        if self.left == 0 && !self.column.bytes.is_empty() {
            self.run()?;
        }
        if self.left == 0 && self.column.bytes.is_empty() {
            return Ok(());
        }
        Err(ChunkError::Rows {
            what: self.column.name,
            rows: expected.saturating_add(self.left),
            expected,
        })
    }

    fn run(&mut self) -> Result<(), ChunkError> {
        let count = read_flags(&mut self.column, self.first, self.or_absent)?;
        // The first run is of false.
        self.value = !self.value && !self.first;
        self.first = false;
        self.left = count;
        Ok(())
    }

    fn too_few(&self) -> ChunkError {
        ChunkError::Rows {
            what: self.column.name,
            rows: self.read,
            expected: self.read + 1,
        }
    }
}

/// Reads the count of a boolean column's next run.
fn read_flags(column: &mut Column<'_>, is_first: bool, or_absent: bool) -> Result<u64, ChunkError> {
    let offset = column.bytes.offset();
    let require = |good: bool, why| {
        if good || !column.canonical {
            return Ok(());
        }
        Err(ChunkError::NotCanonical {
            what: column.name,
            offset,
            why,
        })
    };
    let count = column.bytes.uleb(column.name)?;
    let without_true = is_first && column.bytes.is_empty() && (count == 0 || or_absent);
    require(!without_true, "a column without a true")?;
    require(is_first || count > 0, "an empty run")?;
    Ok(count)
}

impl<'a> Column<'a> {
    /// The rows of a run-length encoded column, which are all null if it is not there.
    pub(super) fn rows<T: Value<'a>>(self) -> Rows<'a, T> {
        Rows {
            absent: self.bytes.is_empty(),
            runs: Runs::new(self),
            value: None,
            left: 0,
            read: 0,
        }
    }

    /// The rows of a delta column of counters, each of which must fit a `u32`.
    pub(super) fn counter_rows(self) -> Counters<'a> {
        Counters {
            deltas: self.rows(),
            counter: 0,
        }
    }

    /// The rows of a boolean column. Where `or_absent`, a column of false only is not written.
    pub(super) fn flags(self, or_absent: bool) -> Flags<'a> {
        Flags {
            or_absent,
            absent: self.bytes.is_empty(),
            first: true,
            value: false,
            left: 0,
            read: 0,
            column: self,
        }
    }

    /// Walks a run-length encoded column and counts its rows, calling `visit` with each run: a value
    /// or null, and how often it repeats.
    pub(super) fn runs<T: Value<'a>>(
        self,
        limit: RowLimit,
        mut visit: impl FnMut(Option<T>, u64) -> Result<(), ChunkError>,
    ) -> Result<u64, ChunkError> {
        let mut rows = 0;
        let mut runs = Runs::new(self);
        while let Some((value, count)) = runs.next()? {
            rows = limit.add(rows, count)?;
            visit(value, count)?;
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

    /// Walks a boolean column and counts its rows.
    pub(super) fn booleans(mut self, limit: RowLimit) -> Result<u64, ChunkError> {
        let mut rows = 0;
        let mut is_first = true;
        while !self.bytes.is_empty() {
            let count = read_flags(&mut self, is_first, false)?;
            rows = limit.add(rows, count)?;
            is_first = false;
        }
        Ok(rows)
    }
}
