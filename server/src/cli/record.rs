//! `concord record`: what a server received for a document, as a recording.
//!
//! Of the past, from the data directory: every change, in the order in which the server admitted them, with the
//! times and principals that the log still has. Of what comes, from a running server: `live`. The format is
//! that of [`crate::replay::file`].

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use concord_shared::ids::DocumentId;

use super::client::TokenArgs;
use super::offline::{DataArgs, choose, progress};
use super::replay::block_on;
use crate::replay::Recording;
use crate::replay::file::Writer;

mod live;

/// Arguments of `concord record`.
#[derive(Debug, clap::Args)]
pub struct RecordArgs {
    #[command(flatten)]
    data: DataArgs,
    /// Server to record from, while it runs, in place of a data directory: joins as a reader, and writes each change when
    /// it comes, until Ctrl-C
    #[arg(long, value_name = "ws://HOST:PORT/sync")]
    from: Option<String>,
    #[command(flatten)]
    token: TokenArgs,
    /// Seconds to record for, in place of until Ctrl-C
    #[arg(long, value_name = "SECONDS", requires = "from")]
    r#for: Option<u64>,
    /// File to write, which must not exist
    #[arg(long, short, value_name = "FILE")]
    to: PathBuf,
    /// Document id or automerge: URL
    #[arg(value_name = "ID")]
    document: String,
}

/// Records, and says how much.
pub fn record(args: &RecordArgs) -> anyhow::Result<ExitCode> {
    let id = &args.document;
    let document =
        DocumentId::parse_url(id).with_context(|| format!("{id:?} is no document id"))?;
    let mut is_damaged = false;
    let (changes, untimed) = if let Some(url) = &args.from {
        let settings = live::Settings {
            url,
            token: &args.token,
            document: &document,
            seconds: args.r#for,
        };
        block_on(live::record(settings, &args.to))?
    } else {
        let opened = args.data.open_to_read()?;
        choose(&opened.store, std::slice::from_ref(id))?;
        let recording = Recording::from_store(&opened.store, &document)?;
        let recording = recording.context("the document is gone")?;
        is_damaged = opened.damage.is_some();
        write(&recording, &args.to).with_context(|| format!("writing {}", args.to.display()))?;
        (recording.len() as u64, recording.untimed() as u64)
    };
    let mut out = std::io::stdout();
    writeln!(out, "{changes} changes recorded to {}", args.to.display())?;
    if untimed > 0 {
        let why = match args.from {
            None => "they were imported, or put into a snapshot by an older build",
            Some(_) => "they were there before the recording began",
        };
        writeln!(out, "{untimed} of them have no time of arrival: {why}")?;
    }
    Ok(ExitCode::from(u8::from(is_damaged)))
}

/// A file that was not there: a recording can't be made again.
fn create(path: &Path) -> anyhow::Result<BufWriter<File>> {
    match File::create_new(path) {
        Ok(file) => Ok(BufWriter::new(file)),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            bail!("{} is there already", path.display())
        }
        Err(error) => Err(error).with_context(|| format!("making {}", path.display())),
    }
}

fn write(recording: &Recording, path: &Path) -> anyhow::Result<()> {
    let bar = progress(recording.len(), "recording");
    let mut writer = Writer::new(create(path)?, recording.document())?;
    for change in recording.changes() {
        writer.change(change.bytes(), change.arrived_ms, change.principal.as_ref())?;
        bar.inc(1);
    }
    let file = writer.finish()?.into_inner()?;
    file.sync_all()?;
    bar.finish_and_clear();
    Ok(())
}
