//! What the README's table says, measured: each line of it is a ratio within one run.
//!
//! The load is real: the built `concord` in a process of its own on a new data directory, spoken to in the
//! whole protocol over WebSockets, with changes of real Automerge documents, and every reader answering as
//! stock clients do. Only the clients are light: they apply nothing, or they would be what is measured.
//!
//! The measure is a bare relay in a process of its own ([`relay`]): the same WebSocket library, a broadcast
//! channel, no CRDT, no disk. Runs of the two alternate, so that a slow minute of the machine hits both, and
//! what is shown is the median of the rounds with the least and the most.
//!
//! - [`history`]: documents and the changes that are typed into them, made beforehand.
//! - [`tab`]: one light client; [`load`]: many at once; [`process`]: the two kinds of server process.
//! - [`relaying`], [`joining`], [`memory`], [`latency`], [`parts`], [`views`], [`hammer`]: the lines; [`table`]: how they are shown.

pub mod hammer;
pub mod history;
pub mod joining;
pub mod latency;
pub mod load;
pub mod memory;
pub mod parts;
pub mod process;
pub mod relay;
pub mod relaying;
pub mod stats;
pub mod tab;
pub mod table;
pub mod views;

use std::path::PathBuf;

use anyhow::Result;

use history::Base;
use table::Row;

/// How much to measure.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Runs of each line, alternating with the bare relay's.
    pub rounds: usize,
    /// Divides the sizes of everything: 1 for real figures, more to see that it works.
    pub shrink: usize,
    /// Lines to measure: those whose name contains this.
    pub only: Option<String>,
    /// The program whose `relay` subcommand is the bare relay.
    pub relay: PathBuf,
}

impl Settings {
    /// `full` shrunk, but at least `least`.
    pub fn size(&self, full: usize, least: usize) -> usize {
        (full / self.shrink).max(least)
    }

    fn wants(&self, line: &str) -> bool {
        self.only.as_deref().is_none_or(|only| line.contains(only))
    }
}

/// The documents that several lines share; made once, since a long history takes seconds to write.
#[derive(Debug)]
pub struct Bases {
    /// A text of fifty keystrokes.
    pub small: Base,
    /// The paper of 259,778 keystrokes, or one of our own making.
    pub large: Base,
}

/// Measures every line that is wanted, telling `progress` what comes next.
pub async fn run(settings: &Settings, mut progress: impl FnMut(&str)) -> Result<Vec<Row>> {
    progress("making the documents");
    let bases = Bases {
        small: Base::typed(50)?,
        large: Base::large(settings)?,
    };
    let mut rows = Vec::new();
    for line in relaying::lines() {
        if settings.wants(line.name) {
            progress(line.name);
            rows.extend(line.measure(settings, &bases).await?);
        }
    }
    if settings.wants("keystroke") {
        progress("keystroke: CPU in a large document and in a small one");
        rows.extend(relaying::keystroke_cpu(settings, &bases).await?);
    }
    if settings.wants("parsing") {
        progress("parsing and admitting a keystroke");
        rows.extend(parts::admission(settings, &bases)?);
    }
    if settings.wants("joining") {
        progress("joining a stored document");
        rows.extend(Box::pin(joining::measure(settings, &bases)).await?);
    }
    if settings.wants("memory") {
        progress("memory");
        rows.extend(Box::pin(memory::measure(settings)).await?);
    }
    if settings.wants("acknowledgement") {
        progress("acknowledgement");
        rows.extend(Box::pin(latency::measure(settings, &bases)).await?);
    }
    if settings.wants("views") {
        progress("views: documents as JSON");
        rows.extend(Box::pin(views::measure(settings, &bases)).await?);
    }
    if settings.wants("hammering") {
        progress("hammering: two tabs while strangers do what they can");
        rows.extend(Box::pin(hammer::measure(settings)).await?);
    }
    Ok(rows)
}
