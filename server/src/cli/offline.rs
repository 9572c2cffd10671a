//! What the commands share that read the data directory directly, with the server stopped.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use concord_shared::ids::DocumentId;
use indicatif::{ProgressBar, ProgressStyle};

use crate::store::{DocumentInfo, SledOptions, SledStore, Store};

/// Documents listed at a time.
const PAGE: usize = 256;

/// Where the data is.
#[derive(Debug, clap::Args)]
pub struct DataArgs {
    /// Directory of the data; the server must not be running on it
    #[arg(
        long,
        env = "CONCORD_DATA",
        default_value = "concord-data",
        value_name = "DIRECTORY"
    )]
    data: PathBuf,
}

impl DataArgs {
    /// Opens the data, which must be there.
    pub fn open(&self) -> anyhow::Result<SledStore> {
        if !self.data.is_dir() {
            bail!("there is no data directory {}", self.data.display());
        }
        self.open_or_create()
    }

    /// Opens the data, or makes an empty data directory.
    pub fn open_or_create(&self) -> anyhow::Result<SledStore> {
        SledStore::open(&SledOptions::new(&self.data))
            .with_context(|| format!("opening {}", self.data.display()))
    }
}

/// The documents named, or all there are, in order.
pub fn choose(store: &dyn Store, named: &[String]) -> anyhow::Result<Vec<DocumentInfo>> {
    let mut wanted = named
        .iter()
        .map(|id| DocumentId::parse_url(id).with_context(|| format!("{id:?} is no document id")))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let mut chosen: Vec<DocumentInfo> = Vec::new();
    let mut after: Option<DocumentId> = None;
    loop {
        let page = store.documents(after.as_ref(), PAGE)?;
        let Some(last) = page.last() else { break };
        after = Some(last.document.clone());
        let is_chosen = |info: &DocumentInfo| named.is_empty() || wanted.contains(&info.document);
        chosen.extend(page.into_iter().filter(is_chosen));
    }
    wanted.retain(|id| !chosen.iter().any(|info| info.document == *id));
    if let Some(missing) = wanted.first() {
        bail!("there is no document {missing}");
    }
    Ok(chosen)
}

/// A progress bar on standard error, drawn only where that is a terminal.
pub fn progress(steps: usize, what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {eta}");
    let bar = ProgressBar::new(steps as u64).with_message(what);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
