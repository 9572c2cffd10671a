//! What the commands share that read the data directory directly, with the server stopped.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use concord_shared::ids::DocumentId;
use indicatif::{ProgressBar, ProgressStyle};

use crate::store::{DocumentInfo, SledOptions, SledStore, Store, StoreError};

/// Documents listed at a time.
const PAGE: usize = 256;

/// Names the data directory where no flag does.
pub const DATA_VARIABLE: &str = "CONCORD_DATA";
/// The data directory that nobody named.
pub const DEFAULT_DATA: &str = "concord-data";

/// Where the data is.
#[derive(Debug, clap::Args)]
pub struct DataArgs {
    /// Directory of the data; the server must not be running on it
    #[arg(
        long,
        env = DATA_VARIABLE,
        default_value = DEFAULT_DATA,
        value_name = "DIRECTORY"
    )]
    data: PathBuf,
}

impl DataArgs {
    /// As if this directory had been given.
    pub fn of(data: PathBuf) -> Self {
        Self { data }
    }

    /// Opens the data, which must be there.
    pub fn open(&self) -> anyhow::Result<SledStore> {
        if !self.data.is_dir() {
            bail!("there is no data directory {}", self.data.display());
        }
        self.open_or_create()
    }

    /// Opens the data, which must be there, to read it. A damaged directory stays as it is: opening it would make the
    /// loss final, so what is left is read from a copy.
    pub fn open_to_read(&self) -> anyhow::Result<ToRead> {
        let error = match self.open() {
            Ok(store) => {
                return Ok(ToRead {
                    store,
                    damage: None,
                    copy: None,
                });
            }
            Err(error) => error,
        };
        let Some(damage @ StoreError::Damaged { .. }) = error.downcast_ref() else {
            return Err(error);
        };
        let damage = damage.to_string();
        eprintln!("concord: {damage}");
        let copy = TemporaryCopy::of(&self.data)
            .context("making a copy beside it, to read what is left without changing it")?;
        eprintln!("concord: reading what is left from a temporary copy");
        let mut options = SledOptions::new(&copy.0);
        options.accept_loss = true;
        Ok(ToRead {
            store: SledStore::open(&options).context("opening a copy of it")?,
            damage: Some(damage),
            copy: Some(copy),
        })
    }

    /// Opens the data, or makes an empty data directory.
    pub fn open_or_create(&self) -> anyhow::Result<SledStore> {
        SledStore::open(&SledOptions::new(&self.data))
            .with_context(|| format!("opening {}", self.data.display()))
    }
}

/// A store to read from.
#[derive(Debug)]
pub struct ToRead {
    /// The store; dropped before its copy is removed.
    pub store: SledStore,
    /// What was durable and is not there any more: the command fails in the end, whatever it could read.
    pub damage: Option<String>,
    copy: Option<TemporaryCopy>,
}

impl ToRead {
    /// The store for several owners, and what is to be kept as long as any of them.
    pub fn into_shared(self) -> (Arc<dyn Store>, Kept) {
        let kept = Kept {
            is_damaged: self.damage.is_some(),
            _copy: self.copy,
        };
        (Arc::new(self.store), kept)
    }
}

/// What remains of [`ToRead`] without its store.
#[derive(Debug)]
pub struct Kept {
    /// Whether something that was durable is not there any more.
    pub is_damaged: bool,
    _copy: Option<TemporaryCopy>,
}

/// A copy of a data directory, beside it, removed in the end.
#[derive(Debug)]
struct TemporaryCopy(PathBuf);

impl TemporaryCopy {
    fn of(data: &Path) -> io::Result<Self> {
        let data = data.canonicalize()?;
        let mut name = data.file_name().unwrap_or_default().to_owned();
        name.push(format!(".reading-{}", std::process::id()));
        let copy = Self(data.with_file_name(name));
        copy_directory(&data, &copy.0)?;
        Ok(copy)
    }
}

impl Drop for TemporaryCopy {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("concord: removing {}: {error}", self.0.display());
        }
    }
}

fn copy_directory(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_directory(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

/// Says on standard error what of the listing can't be read; whether there is any.
pub fn warn_of_unlisted(store: &dyn Store) -> anyhow::Result<bool> {
    let unlisted = store.unlisted()?;
    for stretch in &unlisted {
        eprintln!("concord: {stretch}");
    }
    Ok(!unlisted.is_empty())
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
