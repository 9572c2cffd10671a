//! `concord verify` and `concord compact`.

use std::io::Write as _;
use std::process::ExitCode;

use automerge::ReadDoc as _;
use concord_shared::ids::DocumentId;

use super::offline::{DataArgs, choose, progress, warn_of_unlisted};
use crate::access::labelling;
use crate::clock::unix_ms;
use crate::document::compaction::Built;
use crate::document::task::Report;
use crate::document::{compaction, judging, opening};
use crate::materialise;
use crate::store::{Durability, Part, Problem, Rewritten, Store, Write};

/// Arguments of `concord verify` and `concord compact`.
#[derive(Debug, clap::Args)]
pub struct MaintainArgs {
    #[command(flatten)]
    data: DataArgs,
    /// Document ids or automerge: URLs; all when none is given
    #[arg(value_name = "ID")]
    documents: Vec<String>,
}

/// Arguments of `concord verify`.
#[derive(Debug, clap::Args)]
pub struct VerifyArgs {
    #[command(flatten)]
    which: MaintainArgs,
    /// Judge every change again, as if a client sent it now, and compare what comes of it with what is
    /// stored: takes as long as loading every document twice
    #[arg(long)]
    deep: bool,
}

/// Checks every record's checksum and loads every document; fails if anything is wrong.
pub fn verify(args: &VerifyArgs) -> anyhow::Result<ExitCode> {
    let opened = args.which.data.open_to_read()?;
    let store = &opened.store;
    let chosen = choose(store, &args.which.documents)?;
    let bar = progress(chosen.len(), "verifying");
    let mut bad = 0;
    let mut out = std::io::stdout();
    for info in &chosen {
        let mut problems = problems(store, &info.document);
        if args.deep {
            problems.extend(deep_problems(store, &info.document));
        }
        bar.inc(1);
        if !problems.is_empty() {
            bad += 1;
            bar.suspend(|| {
                problems
                    .iter()
                    .try_for_each(|problem| writeln!(out, "{}: {problem}", info.document))
            })?;
        }
    }
    bar.finish_and_clear();
    let is_of_all = args.which.documents.is_empty();
    let mislabelled = is_of_all.then(|| store.mislabelled()).transpose()?;
    let mislabelled = mislabelled.unwrap_or_default();
    for document in &mislabelled {
        let part = Part::Labelled;
        writeln!(out, "{document}: {}", Problem::Stray { part })?;
    }
    writeln!(
        out,
        "{} documents verified, {bad} with problems",
        chosen.len()
    )?;
    if let Some(damage) = &opened.damage {
        writeln!(out, "{damage}")?;
    }
    let incomplete = warn_of_unlisted(store)? || opened.damage.is_some();
    let is_sound = bad == 0 && mislabelled.is_empty() && !incomplete;
    Ok(ExitCode::from(u8::from(!is_sound)))
}

/// What is wrong with a stored document.
fn problems(store: &dyn Store, document: &DocumentId) -> Vec<String> {
    let mut problems: Vec<String> = match store.verify(document) {
        Ok(problems) => problems.iter().map(ToString::to_string).collect(),
        Err(error) => vec![Report(&error).to_string()],
    };
    let history = match opening::open(store, document) {
        Ok(opened) => {
            if opened.repair.is_some() {
                problems.push("the stored history is unusable; it will be rebuilt".to_owned());
            }
            opened.history
        }
        Err(error) => {
            problems.push(Report(&error).to_string());
            return problems;
        }
    };
    match materialise::document(store, document) {
        Ok(loaded) => {
            let loaded = loaded.unwrap_or_default();
            let mut heads = loaded.get_heads();
            heads.sort_unstable();
            let changes = loaded.stats().num_changes;
            let graph = history.graph();
            if heads != graph.visible_heads() || changes != u64::from(graph.len()) {
                problems.push(format!(
                    "loads with {changes} changes and other heads than its graph of {}",
                    graph.len()
                ));
            }
        }
        Err(error) => problems.push(Report(&error).to_string()),
    }
    problems
}

/// What is wrong with a stored document's changes one by one, and with what is stored of them beside.
fn deep_problems(store: &dyn Store, document: &DocumentId) -> Vec<String> {
    // That they can't be read is said already.
    let Ok(changes) = judging::changes(store, document) else {
        return Vec::new();
    };
    let judged = judging::judge(&changes);
    let mut problems: Vec<String> = judged.refused.iter().map(ToString::to_string).collect();
    if let Ok(opened) = opening::open(store, document)
        && problems.is_empty()
        && !opened.history.is_same_as(&judged.history)
    {
        problems.push("the stored history is not that of the changes".to_owned());
    }
    // Not of changes that would hurt Automerge.
    if judged.refused.is_empty() {
        match judging::is_as_its_changes_say(store, document) {
            Ok(true) => {}
            Ok(false) => problems.push(judging::OUT_OF_ORDER.to_owned()),
            Err(error) => problems.push(Report(&error).to_string()),
        }
    }
    problems
}

/// Replaces documents' changes by snapshots. What was purged is erased then: the database is written anew, since sled
/// keeps the bytes of what it removed. Documents that are not found by their lists, because those are older or something
/// was damaged, are found by them again.
pub fn compact(args: &MaintainArgs) -> anyhow::Result<ExitCode> {
    let store = args.data.open()?;
    let chosen = choose(&store, &args.documents)?;
    let bar = progress(chosen.len(), "compacting");
    let now_ms = unix_ms();
    let mut failed = 0;
    let mut compacted = 0;
    for info in &chosen {
        match compaction::build(&store, &info.document, now_ms) {
            Ok(Built { write: None, .. }) => {}
            Ok(Built {
                write: Some(write), ..
            }) => {
                store.commit(&[write], Durability::Strict)?;
                // What the snapshot replaced goes now: nobody comes by later as in a server.
                while store.tidy()? {}
                compacted += 1;
            }
            // The document stays as it is; the others need not.
            Err(error) => {
                failed += 1;
                bar.suspend(|| eprintln!("{}: {}", info.document, Report(&error)));
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    writeln!(
        std::io::stdout(),
        "{compacted} documents compacted, {failed} failed, {} had nothing to compact",
        chosen.len() - compacted - failed
    )?;
    labelling::label_all(&store)?;
    // What was written last.
    store.commit(&[], Durability::Strict)?;
    if store.has_remains()? {
        let Rewritten {
            erased,
            bytes_before,
            bytes_after,
            ..
        } = store.rewrite(&|| true)?;
        writeln!(
            std::io::stdout(),
            "{erased} purged documents erased: the database was written anew, {bytes_before} bytes before, {bytes_after} now"
        )?;
    }
    Ok(ExitCode::from(u8::from(failed > 0)))
}

/// The write that stores a document, which may have been loaded from anywhere, as a new one.
pub(super) fn snapshot_of(
    document: DocumentId,
    loaded: &automerge::Automerge,
    now_ms: u64,
) -> Result<Write, opening::OpenError> {
    let rebuilt = materialise::rebuilt(loaded)?;
    let history = opening::of_document(&rebuilt)?;
    let base = u64::from(history.graph().len());
    Ok(Write::Snapshot {
        document,
        base,
        keep_from: base,
        received_at_ms: now_ms,
        snapshot: rebuilt.save().into(),
        graph: history.encode(),
        // A file says nothing of it.
        arrivals: bytes::Bytes::new(),
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use automerge::transaction::Transactable as _;
    use automerge::{AutoCommit, ROOT};
    use bytes::Bytes;
    use concord_shared::ids::PrincipalId;

    use super::*;
    use crate::store::{Remains, SledOptions, SledStore};

    /// The name of a key, and a text.
    const NEEDLES: [&str; 2] = ["plan of the attack", "at dawn, 51.5007 N"];

    fn is_in(directory: &Path, needle: &str) -> bool {
        std::fs::read_dir(directory).unwrap().any(|entry| {
            let path = entry.unwrap().path();
            if path.is_dir() {
                return is_in(&path, needle);
            }
            let bytes = std::fs::read(path).unwrap();
            bytes
                .windows(needle.len())
                .any(|at| at == needle.as_bytes())
        })
    }

    fn write(store: &SledStore, document: &DocumentId, key: &str, text: &str) {
        let mut author = AutoCommit::new();
        for first in 0..20 {
            author.put(ROOT, format!("{key} {first}"), text).unwrap();
            author.commit();
            let change = author.get_last_local_change().unwrap();
            let append = Write::Append {
                document: document.clone(),
                first,
                received_at_ms: 1,
                principal: PrincipalId::new("ann").unwrap(),
                changes: vec![Bytes::copy_from_slice(change.raw_bytes())],
            };
            store.commit(&[append], Durability::Strict).unwrap();
        }
    }

    #[test]
    fn compacting_erases_what_was_purged() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        let open = || SledStore::open(&SledOptions::new(&path)).unwrap();
        let args = || MaintainArgs {
            data: DataArgs::of(path.clone()),
            documents: Vec::new(),
        };
        let [kept, secret] = [1, 2].map(|byte| DocumentId::from_uuid([byte; 16]));
        let store = open();
        write(&store, &kept, "date", "2026-11-23");
        write(&store, &secret, NEEDLES[0], NEEDLES[1]);
        drop(store);
        // Compacted with the secret in it, then without.
        compact(&args()).unwrap();
        let store = open();
        let before = store.contents(&kept).unwrap();
        assert!(before.as_ref().unwrap().snapshot.is_some());
        let document = secret.clone();
        let by = PrincipalId::new("ann").unwrap();
        let delete = Write::Delete {
            document: document.clone(),
            at_ms: 1,
            by,
            bytes: 0,
        };
        let writes = [delete, Write::Purge { document, by: None }];
        store.commit(&writes, Durability::Strict).unwrap();
        // Not swept yet: that goes before.
        drop(store);
        for needle in NEEDLES {
            assert!(is_in(&path, needle), "{needle}");
        }
        compact(&args()).unwrap();
        for needle in NEEDLES {
            assert!(!is_in(&path, needle), "{needle}");
        }
        let store = open();
        assert_eq!(store.contents(&kept).unwrap(), before);
        assert_eq!(store.contents(&secret).unwrap(), None);
        let tombstone = store.tombstone(&secret).unwrap().unwrap();
        assert_eq!(tombstone.remains, Remains::Nothing);
    }
}
