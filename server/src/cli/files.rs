//! `concord import`, and how `.automerge` files are named: documents as other Automerge tools open them.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail, ensure};
use automerge::Automerge;
use bytes::Bytes;
use concord_shared::change::{Chunk, parse_chunks};
use concord_shared::ids::{DocumentId, PrincipalId};
use concord_shared::limits::Limits;

use super::maintain::snapshot_of;
use super::offline::{DataArgs, progress};
use crate::clock::unix_ms;
use crate::document::opening;
use crate::document::past::Steps;
use crate::materialise;
use crate::store::{Durability, Severity, Store, StoreError, Write};

const EXTENSION: &str = "automerge";

/// Who imported changes are from, in the store.
const IMPORTER: &str = "import";

/// Ids are opaque text that clients choose: what is no letter, digit, `-` or `_` becomes `%` and two
/// hexadecimal digits, so that no id names another directory.
pub(super) fn file_name(id: &DocumentId) -> String {
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

/// Reads documents from files. One that is here already gets the changes that it lacks. A file that can't be read in
/// is reported, and the others are read all the same.
pub fn import(args: &ImportArgs) -> anyhow::Result<ExitCode> {
    let files = expand(&args.files)?;
    ensure!(
        args.id.is_none() || files.len() == 1,
        "--id goes with one file"
    );
    let store = args.data.open_or_create()?;
    let bar = progress(files.len(), "importing");
    let mut out = std::io::stdout();
    let mut failed = 0;
    for path in &files {
        let id = match &args.id {
            Some(id) => DocumentId::parse_url(id)?,
            None => id_of(path)
                .unwrap_or_else(|| DocumentId::from_uuid(uuid::Uuid::new_v4().into_bytes())),
        };
        let imported = import_one(&store, &id, path);
        bar.inc(1);
        match imported {
            Ok(added) => {
                bar.suspend(|| writeln!(out, "{id}: {added} changes from {}", path.display()))?;
            }
            Err(error) => {
                let fatal = error
                    .downcast_ref::<StoreError>()
                    .is_some_and(|error| error.severity() == Severity::Fatal);
                // The store takes nothing any more.
                if fatal {
                    return Err(error.context(format!("importing {}", path.display())));
                }
                failed += 1;
                bar.suspend(|| eprintln!("concord: importing {}: {error:#}", path.display()));
            }
        }
    }
    bar.finish_and_clear();
    if failed > 0 {
        eprintln!("concord: {failed} of {} files not imported", files.len());
    }
    Ok(ExitCode::from(u8::from(failed > 0)))
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
    let loaded = read_whole(Bytes::from(fs::read(path)?))?;
    let now_ms = unix_ms();
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

/// Loads a file's bytes: all of them. What was cut, or has something else at its end, is refused rather than taken in
/// part and called a success.
fn read_whole(bytes: Bytes) -> anyhow::Result<Automerge> {
    const NOT_ONE: &str = "this is no Automerge document, or a damaged one";
    ensure!(!bytes.is_empty(), NOT_ONE);
    // Stricter than Automerge's own reader: what it would write back otherwise makes a saved document unreadable.
    let chunks = parse_chunks(&bytes, &Limits::unbounded()).context(NOT_ONE)?;
    let loaded = materialise::load(&[bytes]).context(NOT_ONE)?;
    for chunk in &chunks {
        if let Chunk::Change(change) = chunk {
            let known = loaded.get_change_meta_by_hash(&change.hash).is_some();
            ensure!(known, "Automerge left out the change {}", change.hash);
        }
    }
    Ok(loaded)
}

/// The changes that a stored document lacks, judged as if a peer had sent them.
fn merge(
    store: &dyn Store,
    id: &DocumentId,
    loaded: &Automerge,
    now_ms: u64,
) -> anyhow::Result<(u64, Write)> {
    let mut history = opening::open(store, id)?.history;
    let first = u64::from(history.graph().len());
    let mut steps = Steps::new(u64::MAX);
    let mut changes = Vec::new();
    for change in loaded.get_changes(&[]) {
        if history.graph().contains(&change.hash()) {
            continue;
        }
        let bytes = Bytes::copy_from_slice(change.raw_bytes());
        // No bounds, as for a new document: they are there for strangers, not for the operator's own files.
        for chunk in parse_chunks(&bytes, &Limits::unbounded())? {
            if let Chunk::Change(change) = chunk {
                history
                    .admit(&change, &mut steps)
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
    use automerge::transaction::Transactable as _;
    use automerge::{AutoCommit, ROOT};

    use super::*;
    use crate::store::MemoryStore;

    fn id() -> DocumentId {
        DocumentId::from_uuid([1; 16])
    }

    fn import(store: &MemoryStore, bytes: &[u8]) -> anyhow::Result<u64> {
        let file = tempfile::NamedTempFile::new()?;
        fs::write(file.path(), bytes)?;
        import_one(store, &id(), file.path())
    }

    /// A saved document of three changes, followed by four single ones, as Automerge writes files that grow; and where
    /// each chunk ends, with the number of changes up to there.
    fn growing_file() -> (Vec<u8>, Vec<(usize, u64)>) {
        let mut document = AutoCommit::new();
        for n in 0..3_i64 {
            document.put(ROOT, format!("saved {n}"), n).unwrap();
            document.commit();
        }
        let mut bytes = document.save();
        let mut ends = vec![(bytes.len(), 3)];
        for n in 4..8_u64 {
            document.put(ROOT, "single", n).unwrap();
            document.commit();
            bytes.extend(document.save_incremental());
            ends.push((bytes.len(), n));
        }
        (bytes, ends)
    }

    #[test]
    fn a_file_that_was_cut_is_refused() {
        let (bytes, ends) = growing_file();
        for cut in 0..=bytes.len() {
            let store = MemoryStore::new();
            let imported = import(&store, &bytes[..cut]);
            if let Some((_, changes)) = ends.iter().find(|(end, _)| *end == cut) {
                // Between two chunks nothing shows that there were more.
                assert_eq!(imported.unwrap(), *changes, "cut at {cut}");
            } else {
                imported.unwrap_err();
                assert_eq!(store.open(&id()).unwrap(), None, "cut at {cut}");
            }
        }
    }

    #[test]
    fn a_file_with_something_else_at_its_end_is_refused() {
        let (bytes, _) = growing_file();
        for garbage in [&b"\0"[..], b"\n", b"something else", &bytes[..20]] {
            let store = MemoryStore::new();
            import(&store, &[&bytes, garbage].concat()).unwrap_err();
            assert_eq!(store.open(&id()).unwrap(), None);
        }
    }

    #[test]
    fn a_file_that_lacks_a_change_is_refused() {
        let (bytes, ends) = growing_file();
        let chunk = |n: usize| &bytes[ends[n - 1].0..ends[n].0];
        let document = &bytes[..ends[0].0];
        for parts in [
            vec![document, chunk(2)],
            vec![document, chunk(1), chunk(3), chunk(4)],
            vec![chunk(1)],
        ] {
            let store = MemoryStore::new();
            import(&store, &parts.concat()).unwrap_err();
            assert_eq!(store.open(&id()).unwrap(), None);
            // Nor is a part of it merged into a document that is there.
            import(&store, document).unwrap();
            import(&store, &parts.concat()).unwrap_err();
            assert_eq!(store.open(&id()).unwrap().unwrap().next(), 3);
        }
        // In another order, and twice, it is all there.
        let store = MemoryStore::new();
        let all = [document, chunk(2), chunk(1), chunk(2), chunk(4), chunk(3)];
        assert_eq!(import(&store, &all.concat()).unwrap(), 7);
    }

    /// The network's limits are for strangers.
    #[test]
    fn a_change_larger_than_a_peer_may_send_is_imported() {
        let limits = Limits::default();
        let mut document = AutoCommit::new();
        document.put(ROOT, "small", 1).unwrap();
        let store = MemoryStore::new();
        assert_eq!(import(&store, &document.save()).unwrap(), 1);
        let large = vec![0_u8; limits.change_bytes + 1];
        document
            .put(ROOT, "large", automerge::ScalarValue::Bytes(large))
            .unwrap();
        // Into a document that is there, and as a new one.
        assert_eq!(import(&store, &document.save()).unwrap(), 1);
        assert_eq!(import(&MemoryStore::new(), &document.save()).unwrap(), 2);
    }

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
