//! `concord replay`: an editing history, typed again.
//!
//! A trace in the public `editing-traces` format is replayed into a document of this process, or through a
//! server by clients that speak the whole protocol, one for each agent of the trace. Every transaction is
//! made at the version its author saw, and in the end every client's text must be the one the trace names.
//!
//! - [`trace`]: the format. [`author`]: a transaction as a change.
//! - [`local`], [`remote`]: the two kinds of replay, and [`client`], one connection with one replica.
//! - [`report`]: the result.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use concord_shared::ids::DocumentId;
use indicatif::{ProgressBar, ProgressStyle};

mod author;
pub mod client;
mod local;
mod remote;
pub mod report;
pub mod trace;

use trace::Trace;

/// Flags of `concord replay`.
#[derive(Debug, clap::Args)]
pub struct ReplayArgs {
    /// Editing trace: JSON of the public editing-traces format, gzipped or not
    #[arg(value_name = "FILE")]
    trace: PathBuf,
    /// Server to replay through; without it the document is made in this process
    #[arg(long, value_name = "ws://HOST:PORT/sync")]
    to: Option<String>,
    /// Document to make, which must not exist [default: a new id]
    #[arg(long, value_name = "ID", requires = "to", value_parser = DocumentId::parse_url)]
    document: Option<DocumentId>,
    /// Have a second client read along
    #[arg(long, requires = "to")]
    reader: bool,
    /// Milliseconds that a frame takes from a client to the server, and back
    #[arg(long, value_name = "MS", default_value_t = 0, requires = "to")]
    latency_ms: u64,
    /// Changes that a client sends ahead of the server's acknowledgement
    #[arg(long, value_name = "N", default_value_t = 64, requires = "to", value_parser = clap::value_parser!(u32).range(1..))]
    window: u32,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Replays, prints the result, and fails if the final text is not the trace's.
pub fn run(args: ReplayArgs) -> anyhow::Result<ExitCode> {
    let trace = Trace::read(&args.trace)?;
    let progress = progress(trace.transactions.len())?;
    let report = match args.to {
        None => local::replay(&trace, &progress)?,
        Some(url) => {
            let settings = remote::Settings {
                url,
                document: args
                    .document
                    .unwrap_or_else(|| DocumentId::from_uuid(*uuid::Uuid::new_v4().as_bytes())),
                reader: args.reader,
                latency: Duration::from_millis(args.latency_ms),
                window: args.window as usize,
            };
            tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build()
                .context("starting the runtime")?
                .block_on(remote::replay(trace, settings, progress.clone()))?
        }
    };
    progress.finish_and_clear();
    let mut out = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &report)?;
        writeln!(out)?;
    } else {
        report.write(&mut out)?;
    }
    Ok(if report.text_matches {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// A bar on standard error when that is a terminal, nothing otherwise.
fn progress(transactions: usize) -> anyhow::Result<ProgressBar> {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} {per_sec} {eta}")?;
    Ok(ProgressBar::new(transactions as u64).with_style(style))
}
