//! The tables of ACCESS.md.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};

/// A table of the documentation: what is done, and what becomes of it by the names of the columns.
#[derive(Debug)]
pub(super) struct Table(BTreeMap<String, BTreeMap<String, String>>);

impl Table {
    /// What may be done with a document.
    pub(super) fn of_documents() -> Result<Self> {
        Self::behind("<!-- The table of what is done with a document. -->")
    }

    /// What else there is.
    pub(super) fn of_the_rest() -> Result<Self> {
        Self::behind("<!-- The table of what is not about a document. -->")
    }

    fn behind(mark: &str) -> Result<Self> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../ACCESS.md");
        let text = std::fs::read_to_string(path)?;
        let lines = text.split(mark).nth(1).context("the table")?.lines();
        let mut rows = lines.skip_while(|line| line.is_empty());
        let names = cells(rows.next().context("a head")?);
        let rows = rows.take_while(|line| line.starts_with('|')).skip(1);
        let rows = rows.map(|line| {
            let mut row = cells(line).into_iter();
            let what = row.next().context("what is done")?;
            Ok((what, names.iter().skip(1).cloned().zip(row).collect()))
        });
        Ok(Self(rows.collect::<Result<_>>()?))
    }

    pub(super) fn has(&self, row: &str) -> bool {
        self.0.contains_key(row)
    }

    pub(super) fn cell(&self, row: &str, column: &str) -> Result<&str> {
        let cells = self.0.get(row);
        let cells = cells.with_context(|| format!("{row} is not in the table"))?;
        let cell = cells.get(column);
        Ok(cell.with_context(|| format!("{row} has no column {column}"))?)
    }

    pub(super) fn rows(&self) -> BTreeSet<&str> {
        self.0.keys().map(String::as_str).collect()
    }
}

/// As they are read, without what makes them code.
fn cells(line: &str) -> Vec<String> {
    let cells = line.trim_matches('|').split('|');
    cells.map(|cell| cell.trim().replace('`', "")).collect()
}
