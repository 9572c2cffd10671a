//! `concord repair`: a document without the changes that would be refused today.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use automerge::ReadDoc as _;
use concord_shared::ids::DocumentId;

use super::maintain::snapshot_of;
use super::offline::{DataArgs, choose};
use crate::clock::unix_ms;
use crate::document::judging::{self, Judged};
use crate::materialise;
use crate::store::{Durability, Store};

/// Arguments of `concord repair`.
#[derive(Debug, clap::Args)]
pub struct RepairArgs {
    #[command(flatten)]
    data: DataArgs,
    /// Document id or automerge: URL of the document to repair
    #[arg(value_name = "ID")]
    document: String,
    /// Id of the new document; a new one when not given
    #[arg(long = "as", value_name = "ID")]
    to: Option<String>,
}

/// Writes a new document with those changes of a stored one that would be admitted today, and says which
/// were left out and why. The old one stays as it is, under its id: what people made is not rewritten, and
/// a client that has the changes which were left out keeps them there.
pub fn repair(args: &RepairArgs) -> anyhow::Result<ExitCode> {
    let store = args.data.open()?;
    let mut out = std::io::stdout();
    for info in choose(&store, std::slice::from_ref(&args.document))? {
        let old = &info.document;
        let changes = judging::changes(&store, old)
            .with_context(|| format!("{old} can't be read change by change"))?;
        let judged = judging::judge(&changes);
        for refused in &judged.refused {
            writeln!(out, "left out: {refused}")?;
        }
        let mut faulty = !judged.refused.is_empty();
        if !faulty && !judging::is_as_its_changes_say(&store, old)? {
            faulty = true;
            writeln!(out, "put right: {}", judging::OUT_OF_ORDER)?;
        }
        if !faulty {
            writeln!(out, "{old}: nothing to repair, nothing was written")?;
            continue;
        }
        let new = match &args.to {
            Some(id) => DocumentId::parse_url(id)?,
            None => DocumentId::from_uuid(uuid::Uuid::new_v4().into_bytes()),
        };
        write(&store, &new, &judged)?;
        writeln!(
            out,
            "{new}: {} of the {} changes of {old}, which stays as it is",
            judged.admitted.len(),
            changes.len()
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

fn write(store: &dyn Store, new: &DocumentId, judged: &Judged) -> anyhow::Result<()> {
    ensure!(
        store.open(new)?.is_none(),
        "there is a document {new} already"
    );
    ensure!(!judged.admitted.is_empty(), "nothing is left of it");
    let loaded = materialise::load(&judged.admitted)?;
    let mut heads = loaded.get_heads();
    heads.sort_unstable();
    let graph = judged.history.graph();
    ensure!(
        heads == graph.visible_heads() && loaded.stats().num_changes == u64::from(graph.len()),
        "what is left does not load as it was judged: nothing was written"
    );
    let write = snapshot_of(new.clone(), &loaded, unix_ms())?;
    Ok(store.commit(&[write], Durability::Strict)?)
}
