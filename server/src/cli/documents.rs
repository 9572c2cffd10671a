//! `concord list` and `concord get`.

use std::io::{BufWriter, Write as _};
use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use automerge::AutoSerde;
use concord_shared::json::MOST_LEVELS;
use serde_json::json;

use super::offline::{DataArgs, choose, warn_of_unlisted};
use crate::materialise;

/// Arguments of `concord list`.
#[derive(Debug, clap::Args)]
pub struct ListArgs {
    #[command(flatten)]
    data: DataArgs,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

/// Lists the stored documents: id, number of changes, bytes of the snapshot.
pub fn list(args: &ListArgs) -> anyhow::Result<ExitCode> {
    let opened = args.data.open_to_read()?;
    let store = &opened.store;
    let mut out = BufWriter::new(std::io::stdout().lock());
    for info in choose(store, &[])? {
        let id = &info.document;
        match (&info.summary, args.json) {
            (Ok(summary), true) => {
                let line = json!({
                    "document": id.as_str(),
                    "createdAtMs": summary.created_at_ms,
                    "changes": summary.changes,
                    "snapshotBytes": summary.snapshot_bytes,
                });
                writeln!(out, "{line}")?;
            }
            (Ok(summary), false) => {
                let (changes, bytes) = (summary.changes, summary.snapshot_bytes);
                writeln!(
                    out,
                    "{id}  {changes:>9} changes  {bytes:>11} bytes of snapshot"
                )?;
            }
            (Err(problem), true) => {
                let line = json!({ "document": id.as_str(), "problem": problem.to_string() });
                writeln!(out, "{line}")?;
            }
            (Err(problem), false) => writeln!(out, "{id}  damaged: {problem}")?,
        }
    }
    out.flush()?;
    let incomplete = warn_of_unlisted(store)? || opened.damage.is_some();
    Ok(ExitCode::from(u8::from(incomplete)))
}

/// Arguments of `concord get`.
#[derive(Debug, clap::Args)]
pub struct GetArgs {
    #[command(flatten)]
    data: DataArgs,
    /// Document id or automerge: URL
    #[arg(value_name = "ID")]
    document: String,
}

/// Prints a document as JSON. What JSON lacks: text is a string, a counter its number, a timestamp
/// milliseconds since 1970, bytes an array of numbers.
pub fn get(args: &GetArgs) -> anyhow::Result<ExitCode> {
    let opened = args.data.open_to_read()?;
    let store = &opened.store;
    let mut out = BufWriter::new(std::io::stdout().lock());
    for info in choose(store, std::slice::from_ref(&args.document))? {
        let document = materialise::document(store, &info.document)?;
        let document = document.context("the document is empty")?;
        ensure!(
            materialise::nested_at_most(&document, MOST_LEVELS),
            "the document has more than {MOST_LEVELS} levels of nesting, too many for JSON: `concord export` writes it as it is"
        );
        serde_json::to_writer_pretty(&mut out, &AutoSerde::from(&document))?;
        writeln!(out)?;
    }
    out.flush()?;
    Ok(ExitCode::from(u8::from(opened.damage.is_some())))
}

#[cfg(test)]
mod tests {
    use automerge::transaction::Transactable as _;
    use automerge::{Automerge, ObjType, ROOT};

    use super::*;
    use crate::materialise::nested_at_most;

    fn nested(levels: usize) -> Automerge {
        let mut document = Automerge::new();
        let mut change = document.transaction();
        let mut inner = ROOT;
        for level in 0..levels {
            inner = if level % 2 == 0 {
                change.put_object(&inner, "a", ObjType::List).unwrap()
            } else {
                change.insert_object(&inner, 0, ObjType::Map).unwrap()
            };
        }
        change.commit();
        document
    }

    /// It is printed on the stack of whatever thread: this test's has a quarter of the main thread's.
    #[test]
    fn what_is_nested_as_deep_as_may_be_is_printed() {
        let document = nested(MOST_LEVELS);
        assert!(nested_at_most(&document, MOST_LEVELS));
        assert!(!nested_at_most(&nested(MOST_LEVELS + 1), MOST_LEVELS));
        let printed = serde_json::to_string_pretty(&AutoSerde::from(&document)).unwrap();
        assert_eq!(printed.matches('[').count(), MOST_LEVELS / 2);
    }
}
