//! `concord replay`: a history, played again.
//!
//! Of two kinds. An editing trace in the public `editing-traces` format is typed again, into a document of this
//! process, or through a server by clients that speak the whole protocol, one for each agent of the trace. Every
//! transaction is made at the version its author saw, and in the end every client's text must be the one the trace
//! names. A history of changes (an `.automerge` file, a stored document, a recording) has no such text: it is
//! applied in many orders, and through a server, and all must come to one state.
//!
//! - [`trace`]: the format. `author`: a transaction as a change.
//! - `local`, `remote`: the two ways to replay a trace, and [`client`], one connection with one replica.
//! - [`report`]: the result of a trace.
//! - [`history`]: histories of changes, on top of [`crate::replay`].

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use concord_shared::ids::DocumentId;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

mod author;
pub mod client;
pub mod history;
mod local;
mod remote;
pub mod report;
pub mod trace;

use super::client::TokenArgs;
use super::offline::{DataArgs, choose};
use crate::replay::{Ending, Loaded, Recording, file};
use trace::Trace;

/// Changes that a client of a trace sends ahead, where nothing else is said.
const WINDOW: u32 = 64;

/// Flags of `concord replay`.
#[derive(Debug, clap::Args)]
pub struct ReplayArgs {
    /// Editing trace (JSON of the public editing-traces format, gzipped or not), .automerge file, or recording; with
    /// --data, the id of a stored document
    #[arg(value_name = "FILE|ID")]
    what: String,
    /// Directory of the data that the document is in; the server must not be running on it
    #[arg(long, value_name = "DIRECTORY")]
    data: Option<PathBuf>,
    /// Server to replay through; without it everything is done in this process
    #[arg(long, value_name = "ws://HOST:PORT/sync")]
    to: Option<String>,
    #[command(flatten)]
    token: TokenArgs,
    /// Document to make, which must not exist [default: a new id]
    #[arg(long, value_name = "ID", requires = "to", value_parser = DocumentId::parse_url)]
    document: Option<DocumentId>,
    /// Milliseconds that a frame takes from a client to the server, and back
    #[arg(long, value_name = "MS", default_value_t = 0, requires = "to")]
    latency_ms: u64,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    history: history::HistoryArgs,
    #[command(flatten)]
    trace: TraceArgs,
}

/// Flags that mean something for editing traces alone.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Editing traces")]
pub struct TraceArgs {
    /// Have a second client read along
    #[arg(long, requires = "to")]
    reader: bool,
    /// Changes that a client sends ahead of the server's acknowledgement [default: 64]
    #[arg(long, value_name = "N", requires = "to", value_parser = clap::value_parser!(u32).range(1..))]
    window: Option<u32>,
}

impl TraceArgs {
    /// The first flag that was given.
    fn given(&self) -> Option<&'static str> {
        match (self.reader, self.window) {
            (true, _) => Some("--reader"),
            (_, Some(_)) => Some("--window"),
            _ => None,
        }
    }
}

/// Where to replay to.
#[derive(Debug)]
struct Target {
    url: String,
    token: TokenArgs,
    document: DocumentId,
    latency: Duration,
}

/// Replays, prints the result, and fails if states part, or a text is not the trace's.
pub fn run(args: ReplayArgs) -> anyhow::Result<ExitCode> {
    let target = args.to.map(|url| Target {
        url,
        token: args.token,
        document: args
            .document
            .unwrap_or_else(|| DocumentId::from_uuid(*uuid::Uuid::new_v4().as_bytes())),
        latency: Duration::from_millis(args.latency_ms),
    });
    let path = Path::new(&args.what);
    let (loaded, is_damaged) = match &args.data {
        Some(data) => stored(data.clone(), &args.what)?,
        None if is_history(path)? => (Recording::load(path)?, false),
        None => {
            if let Some(flag) = args.history.given() {
                bail!(
                    "{flag} is for histories of changes, and this is no recording nor .automerge file"
                );
            }
            return run_trace(path, target, &args.trace, args.json);
        }
    };
    if let Some(flag) = args.trace.given() {
        bail!("{flag} is for editing traces, and this is a history of changes");
    }
    if loaded.ending != Ending::Closed {
        let (changes, ending) = (loaded.recording.len(), loaded.ending);
        eprintln!("concord: the recording is not whole: {ending}; {changes} changes are there");
    }
    let report = history::replay(&loaded, target, &args.history)?;
    print(&report, args.json, |out| report.write(out))?;
    Ok(status(report.same && !is_damaged))
}

fn run_trace(
    path: &Path,
    target: Option<Target>,
    args: &TraceArgs,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let trace = Trace::read(path)?;
    let progress = progress(trace.transactions.len())?;
    let report = match target {
        None => local::replay(&trace, &progress)?,
        Some(target) => {
            let settings = remote::Settings {
                target,
                reader: args.reader,
                window: args.window.unwrap_or(WINDOW) as usize,
            };
            block_on(remote::replay(trace, settings, progress.clone()))?
        }
    };
    progress.finish_and_clear();
    print(&report, json, |out| report.write(out))?;
    Ok(status(report.text_matches))
}

/// Whether the file is one that [`Recording::load`] reads; all others are traces.
fn is_history(path: &Path) -> anyhow::Result<bool> {
    let mut start = Vec::new();
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let read = file.take(64).read_to_end(&mut start);
    read.with_context(|| format!("reading {}", path.display()))?;
    Ok(file::is_recording(&start) || file::is_automerge(&start))
}

/// A stored document, and whether the data that it is in is damaged.
fn stored(data: PathBuf, id: &str) -> anyhow::Result<(Loaded, bool)> {
    let opened = DataArgs::of(data).open_to_read()?;
    let chosen = choose(&opened.store, &[id.to_owned()])?;
    let document = &chosen.first().context("no document")?.document;
    let recording = Recording::from_store(&opened.store, document)?;
    let loaded = Loaded {
        recording: recording.context("the document is gone")?,
        ending: Ending::Closed,
    };
    Ok((loaded, opened.damage.is_some()))
}

fn print(
    report: &impl Serialize,
    json: bool,
    for_people: impl FnOnce(&mut std::io::StdoutLock<'_>) -> std::io::Result<()>,
) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, report)?;
        writeln!(out)?;
    } else {
        for_people(&mut out)?;
    }
    Ok(())
}

fn status(is_well: bool) -> ExitCode {
    ExitCode::from(u8::from(!is_well))
}

/// Runs what needs a server.
pub(super) fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the runtime")?
        .block_on(work)
}

/// A bar on standard error when that is a terminal, nothing otherwise.
fn progress(steps: usize) -> anyhow::Result<ProgressBar> {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} {per_sec} {eta} {msg}")?;
    Ok(ProgressBar::new(steps as u64).with_style(style))
}
