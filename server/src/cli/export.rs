//! `concord export`: documents as `.automerge` files, which other Automerge tools open.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use axum::http::{Method, header};
use concord_shared::ids::DocumentId;

use super::client::{Access, Call, Refused, TargetArgs};
use super::documents::{Pages, text};
use super::files::file_name;
use super::offline::{choose, progress, warn_of_unlisted};
use super::terminal::escaped;
use crate::document::task::Report;
use crate::http::accept::AUTOMERGE;
use crate::http::documents::url_of;
use crate::materialise;

/// Arguments of `concord export`.
#[derive(Debug, clap::Args)]
pub struct ExportArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Directory to write the files to; made if it is not there
    #[arg(long, short, value_name = "DIRECTORY", default_value = ".")]
    to: PathBuf,
    /// Document ids or automerge: URLs; all when none is given
    #[arg(value_name = "ID")]
    documents: Vec<String>,
}

/// Writes documents as files named by their ids; one that does not load is reported, and the others are written all
/// the same.
pub fn export(args: &ExportArgs) -> anyhow::Result<ExitCode> {
    if args.target.url().is_some() {
        return export_from_server(args);
    }
    let opened = args.target.data().open_to_read()?;
    let store = &opened.store;
    let chosen = choose(store, &args.documents)?;
    fs::create_dir_all(&args.to).with_context(|| format!("making {}", args.to.display()))?;
    let bar = progress(chosen.len(), "exporting");
    let mut failed = 0;
    for info in &chosen {
        match materialise::document(store, &info.document) {
            Ok(document) => {
                let path = args.to.join(file_name(&info.document));
                // A disk that is full will not take the others either: this ends it.
                write_whole(&path, &document.unwrap_or_default().save())
                    .with_context(|| format!("writing {}", path.display()))?;
            }
            Err(error) => {
                failed += 1;
                bar.suspend(|| eprintln!("{}: {}", info.document, Report(&error)));
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    say_exported(args, chosen.len() - failed, failed)?;
    let incomplete =
        opened.damage.is_some() || (args.documents.is_empty() && warn_of_unlisted(store)?);
    Ok(ExitCode::from(u8::from(failed > 0 || incomplete)))
}

/// The same of a running server, which says itself what a document's bytes are.
fn export_from_server(args: &ExportArgs) -> anyhow::Result<ExitCode> {
    args.target.run(Access::Read, async |client| {
        let named = args.documents.iter();
        let mut ids = named
            .map(|id| {
                DocumentId::parse_url(id).with_context(|| format!("{id:?} is no document id"))
            })
            .collect::<anyhow::Result<Vec<_>>>()?;
        let mut pages = Pages::default();
        while args.documents.is_empty()
            && let Some(page) = pages.next(client).await?
        {
            for document in page {
                ids.push(DocumentId::new(text(&document, "id"))?);
            }
        }
        fs::create_dir_all(&args.to).with_context(|| format!("making {}", args.to.display()))?;
        let bar = progress(ids.len(), "exporting");
        let mut failed = 0;
        for id in &ids {
            let call = Call::new(Method::GET, url_of(id)).header(header::ACCEPT, AUTOMERGE);
            match client.send(call).await {
                Ok(answer) => {
                    let path = args.to.join(file_name(id));
                    write_whole(&path, answer.bytes())
                        .with_context(|| format!("writing {}", path.display()))?;
                }
                Err(error) if error.is::<Refused>() => {
                    failed += 1;
                    bar.suspend(|| eprintln!("{id}: {}", escaped(&error.to_string())));
                }
                Err(error) => return Err(error),
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        say_exported(args, ids.len() - failed, failed)?;
        Ok(ExitCode::from(u8::from(failed > 0)))
    })
}

fn say_exported(args: &ExportArgs, exported: usize, failed: usize) -> std::io::Result<()> {
    writeln!(
        std::io::stdout(),
        "{exported} documents exported to {}, {failed} failed",
        args.to.display()
    )
}

/// Writes a file so that under its name there is all of it or what was there before.
fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let partial = path.with_extension("automerge.partial");
    let mut file = fs::File::create(&partial)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&partial, path)
}
