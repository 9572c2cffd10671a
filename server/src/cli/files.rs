//! `concord export` and `concord import`: documents as `.automerge` files, which other Automerge
//! tools open.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail, ensure};
use automerge::Automerge;
use bytes::Bytes;
use concord_shared::change::{Chunk, parse_chunks};
use concord_shared::ids::{DocumentId, PrincipalId};
use concord_shared::limits::Limits;

use super::maintain::snapshot_of;
use super::offline::{DataArgs, choose, progress};
use crate::document::graph::NewNode;
use crate::document::opening;
use crate::materialise;
use crate::store::{Durability, Store, Write};

const EXTENSION: &str = "automerge";

/// Who imported changes are from, in the store.
const IMPORTER: &str = "import";

/// Arguments of `concord export`.
#[derive(Debug, clap::Args)]
pub struct ExportArgs {
    #[command(flatten)]
    data: DataArgs,
    /// Directory to write the files to; made if it is not there
    #[arg(long, short, value_name = "DIRECTORY", default_value = ".")]
    to: PathBuf,
    /// Document ids or automerge: URLs; all when none is given
    #[arg(value_name = "ID")]
    documents: Vec<String>,
}

/// Writes documents as files named by their ids.
pub fn export(args: &ExportArgs) -> anyhow::Result<ExitCode> {
    let store = args.data.open()?;
    let chosen = choose(&store, &args.documents)?;
    fs::create_dir_all(&args.to).with_context(|| format!("making {}", args.to.display()))?;
    let bar = progress(chosen.len(), "exporting");
    for info in &chosen {
        let document = materialise::document(&store, &info.document)
            .with_context(|| format!("loading {}", info.document))?
            .unwrap_or_default();
        let path = args.to.join(file_name(&info.document));
        write_whole(&path, &document.save())
            .with_context(|| format!("writing {}", path.display()))?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    let to = args.to.display();
    writeln!(
        std::io::stdout(),
        "{} documents exported to {to}",
        chosen.len()
    )?;
    Ok(ExitCode::SUCCESS)
}

/// Writes a file so that under its name there is all of it or what was there before.
fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let partial = path.with_extension("automerge.partial");
    let mut file = fs::File::create(&partial)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&partial, path)
}

/// Ids are opaque text that clients choose: what is no letter, digit, `-` or `_` becomes `%` and two
/// hexadecimal digits, so that no id names another directory.
fn file_name(id: &DocumentId) -> String {
    let mut name = String::new();
    for byte in id.as_str().bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') {
            name.push(char::from(byte));
        } else {
            let digit = |half: u8| char::from_digit(u32::from(half), 16).unwrap_or('0');
            name.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
    format!("{name}.{EXTENSION}")
}

/// The id that [`file_name`] made the name from; `None` for any other name.
fn id_of(path: &Path) -> Option<DocumentId> {
    let stem = path.file_stem()?.to_str()?;
    let mut bytes = Vec::new();
    let mut rest = stem.as_bytes();
    while let [first, tail @ ..] = rest {
        if *first == b'%' {
            let (digits, tail) = tail.split_at_checked(2)?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            rest = tail;
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    let id = DocumentId::new(std::str::from_utf8(&bytes).ok()?).ok()?;
    (file_name(&id) == path.file_name()?.to_str()?).then_some(id)
}

/// Arguments of `concord import`.
#[derive(Debug, clap::Args)]
pub struct ImportArgs {
    #[command(flatten)]
    data: DataArgs,
    /// Import under this id, with one file only; else the id is the file's name, as export writes it,
    /// or a new one
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Files, or directories of .automerge files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// Reads documents from files. One that is here already gets the changes that it lacks.
pub fn import(args: &ImportArgs) -> anyhow::Result<ExitCode> {
    let files = expand(&args.files)?;
    ensure!(
        args.id.is_none() || files.len() == 1,
        "--id goes with one file"
    );
    let store = args.data.open_or_create()?;
    let bar = progress(files.len(), "importing");
    let mut out = std::io::stdout();
    for path in &files {
        let id = match &args.id {
            Some(id) => DocumentId::parse_url(id)?,
            None => id_of(path)
                .unwrap_or_else(|| DocumentId::from_uuid(uuid::Uuid::new_v4().into_bytes())),
        };
        let added = import_one(&store, &id, path)
            .with_context(|| format!("importing {}", path.display()))?;
        bar.inc(1);
        bar.suspend(|| writeln!(out, "{id}: {added} changes from {}", path.display()))?;
    }
    bar.finish_and_clear();
    Ok(ExitCode::SUCCESS)
}

fn expand(paths: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let mut found = Vec::new();
        for entry in fs::read_dir(path).with_context(|| format!("reading {}", path.display()))? {
            let path = entry?.path();
            if path
                .extension()
                .is_some_and(|extension| extension == EXTENSION)
            {
                found.push(path);
            }
        }
        found.sort();
        files.append(&mut found);
    }
    if files.is_empty() {
        bail!("no .automerge file there");
    }
    Ok(files)
}

/// Gives the number of changes that were new.
fn import_one(store: &dyn Store, id: &DocumentId, path: &Path) -> anyhow::Result<u64> {
    let bytes = Bytes::from(fs::read(path)?);
    let loaded = materialise::load(&[bytes]).context("this is no Automerge document")?;
    let since = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let now_ms = u64::try_from(since.as_millis())?;
    let write = if store.open(id)?.is_none() {
        let write = snapshot_of(id.clone(), &loaded, now_ms)?;
        (loaded.get_changes(&[]).len() as u64, write)
    } else {
        merge(store, id, &loaded, now_ms)?
    };
    let (added, write) = write;
    if added > 0 {
        store.commit(&[write], Durability::Strict)?;
    }
    Ok(added)
}

/// The changes that a stored document lacks, judged as if a peer had sent them.
fn merge(
    store: &dyn Store,
    id: &DocumentId,
    loaded: &Automerge,
    now_ms: u64,
) -> anyhow::Result<(u64, Write)> {
    let mut graph = opening::open(store, id)?.graph;
    let first = u64::from(graph.len());
    let mut changes = Vec::new();
    for change in loaded.get_changes(&[]) {
        if graph.contains(&change.hash()) {
            continue;
        }
        let bytes = Bytes::copy_from_slice(change.raw_bytes());
        for chunk in parse_chunks(&bytes, &Limits::default())? {
            if let Chunk::Change(change) = chunk {
                graph
                    .admit(&NewNode::of(&change)?)
                    .with_context(|| format!("change {}", change.hash))?;
                changes.push(change.bytes);
            }
        }
    }
    let added = changes.len() as u64;
    let write = Write::Append {
        document: id.clone(),
        first,
        received_at_ms: now_ms,
        principal: PrincipalId::new(IMPORTER)?,
        changes,
    };
    Ok((added, write))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_stand_for_ids_and_stay_in_their_directory() {
        for id in [
            "4NMNnkMhL8jXrdJ9jamS58PAVdXu",
            "../../etc/passwd",
            "a b",
            "ü",
            ".",
            "%41",
        ] {
            let id = DocumentId::new(id).expect("an id");
            let name = file_name(&id);
            assert_eq!(Path::new(&name).components().count(), 1, "{name}");
            assert!(!name.starts_with('.'), "{name}");
            assert_eq!(id_of(Path::new(&name)), Some(id));
        }
        assert_eq!(id_of(Path::new("my notes.automerge")), None);
        assert_eq!(id_of(Path::new("%zz.automerge")), None);
    }
}
