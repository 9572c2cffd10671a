//! `concord list` and `concord get`.

use std::io::{BufWriter, Write as _};
use std::process::ExitCode;

use anyhow::Context as _;
use automerge::AutoSerde;
use serde_json::json;

use super::offline::{DataArgs, choose};
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
    let store = args.data.open()?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    for info in choose(&store, &[])? {
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
    Ok(ExitCode::SUCCESS)
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
    let store = args.data.open()?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    for info in choose(&store, std::slice::from_ref(&args.document))? {
        let document = materialise::document(&store, &info.document)?;
        let document = document.context("the document is empty")?;
        serde_json::to_writer_pretty(&mut out, &AutoSerde::from(&document))?;
        writeln!(out)?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}
