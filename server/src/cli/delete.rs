//! `concord delete`, `undelete` and `deletion`: what is to be gone, and what became of it.
//!
//! What is *purged* is gone from the store; its bytes leave the files when these are written anew. A running server does
//! that by itself and is asked until it has; over a data directory the command does it, as `concord compact` would.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use axum::http::Method;
use concord_shared::ids::DocumentId;
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use super::client::{Access, Answer, Call, Client, TargetArgs, document_id};
use super::history::shown_time;
use super::terminal::{Out, escaped};
use super::token::period;
use super::watch::is_final;
use crate::http::documents::url_of;

/// From one look at a deletion to the next, at first; then twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// And at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Arguments of `concord delete`.
#[derive(Debug, clap::Args)]
pub struct DeleteArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Document id or automerge: URL
    #[arg(value_name = "ID", value_parser = document_id)]
    document: DocumentId,
    /// Erase it at once, also if it was deleted before: nobody can take that back
    #[arg(long)]
    now: bool,
    /// For how long to wait until a running server has no byte of it in its files (90s, 15m, 8h). If that is not enough
    /// the document is gone all the same, and the exit status is 1
    #[arg(long, value_name = "TIME", default_value = "10m", requires = "now", value_parser = period)]
    wait: Duration,
    /// Print what became of it as JSON
    #[arg(long)]
    json: bool,
}

/// Deletes a document, and says until when it is kept; or erases it, and says when it is in no file any more.
pub fn delete(args: &DeleteArgs) -> anyhow::Result<ExitCode> {
    args.target.run(Access::Write, async |client| {
        let id = &args.document;
        if args.now {
            return erase(client, args).await;
        }
        let deleted = client.send(Call::new(Method::DELETE, url_of(id))).await?;
        deleted.must_be_empty()?;
        let became = Became::of(client, id).await;
        let became = became.context("it is deleted, and until when it is kept is not told")?;
        became.print(id, client, args.json)?;
        Ok(ExitCode::SUCCESS)
    })
}

async fn erase(client: &Client, args: &DeleteArgs) -> anyhow::Result<ExitCode> {
    const PURGED: &str = "it is purged, and nobody can bring it back";
    let id = &args.document;
    let call = Call::new(Method::DELETE, url_of(id)).query("now", Some(true));
    let mut became = Became::told(&client.send(call).await?)?;
    if became.state != Stage::Erased {
        match client {
            Client::Local(local) => {
                eprintln!(
                    "concord: purged; writing the database anew, so that no byte of it is left"
                );
                let erased = local.erase().await;
                erased.with_context(|| {
                    format!("{PURGED}; bytes of it are in the files until `concord compact` has written them anew")
                })?;
                became = Became::of(client, id).await.context(PURGED)?;
            }
            Client::Remote(_) => {
                eprintln!(
                    "concord: purged; waiting until the server has written its files anew, in which bytes of it may be, \
                     for {:?} at most",
                    args.wait
                );
                let erased = erased(client, id, became, args.wait).await;
                became = erased.with_context(|| {
                    format!("{PURGED}; whether bytes of it are in the server's files is not told")
                })?;
            }
        }
    }
    became.print(id, client, args.json)?;
    let is_erased = became.state == Stage::Erased;
    if !is_erased {
        eprintln!(
            "concord: it is not erased yet: `concord deletion {}` says when it is",
            escaped(id.as_str())
        );
    }
    Ok(ExitCode::from(u8::from(!is_erased)))
}

/// Asks a server until the document is erased, or the time is over: what became of it then.
async fn erased(
    client: &Client,
    id: &DocumentId,
    first: Became,
    wait: Duration,
) -> anyhow::Result<Became> {
    let begun = Instant::now();
    let mut pause = FIRST_PAUSE;
    let mut last = Ok(first);
    loop {
        match &last {
            Ok(became) if became.state == Stage::Erased => return last,
            // A server that is started anew meanwhile goes on with it.
            Err(error) if is_final(error) => return last,
            _ => {}
        }
        let left = wait.saturating_sub(begun.elapsed());
        if left.is_zero() {
            return last;
        }
        sleep(pause.min(left)).await;
        pause = (2 * pause).min(LONGEST_PAUSE);
        last = Became::of(client, id).await;
    }
}

/// Arguments of `concord undelete`.
#[derive(Debug, clap::Args)]
pub struct UndeleteArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Document id or automerge: URL
    #[arg(value_name = "ID", value_parser = document_id)]
    document: DocumentId,
}

/// Brings a deleted document back, as it was.
pub fn undelete(args: &UndeleteArgs) -> anyhow::Result<ExitCode> {
    args.target.run(Access::Write, async |client| {
        let id = &args.document;
        let call = Call::new(Method::DELETE, deletion_of(id));
        client.send(call).await?.must_be_empty()?;
        let mut out = Out::lock();
        out.raw(&format!("{}: it is there again", escaped(id.as_str())))?;
        out.flush()?;
        Ok(ExitCode::SUCCESS)
    })
}

/// Arguments of `concord deletion`.
#[derive(Debug, clap::Args)]
pub struct DeletionArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Document id or automerge: URL
    #[arg(value_name = "ID", value_parser = document_id)]
    document: DocumentId,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

/// Prints what became of a deleted document.
pub fn deletion(args: &DeletionArgs) -> anyhow::Result<ExitCode> {
    args.target.run(Access::Read, async |client| {
        let became = Became::of(client, &args.document).await?;
        became.print(&args.document, client, args.json)?;
        Ok(ExitCode::SUCCESS)
    })
}

fn deletion_of(id: &DocumentId) -> String {
    format!("{}/deletion", url_of(id))
}

/// What became of a deleted document.
struct Became {
    /// As the API has it.
    json: serde_json::Value,
    at: String,
    by: String,
    state: Stage,
    /// Only while it is kept; and a data directory does not say it.
    until: Option<String>,
}

/// The same, as far as it is looked at.
#[derive(Deserialize)]
struct Told {
    at: String,
    by: String,
    state: Stage,
    until: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Stage {
    Kept,
    Purged,
    Erased,
}

impl Became {
    async fn of(client: &Client, id: &DocumentId) -> anyhow::Result<Self> {
        let call = Call::new(Method::GET, deletion_of(id));
        Self::told(&client.send(call).await?)
    }

    fn told(answer: &Answer) -> anyhow::Result<Self> {
        let Told {
            at,
            by,
            state,
            until,
        } = answer.parsed()?;
        Ok(Self {
            json: answer.json()?,
            at,
            by,
            state,
            until,
        })
    }

    fn print(&self, id: &DocumentId, client: &Client, is_json: bool) -> anyhow::Result<()> {
        let mut out = Out::lock();
        if is_json {
            out.pretty(&self.json)?;
        } else {
            let is_local = matches!(client, Client::Local(_));
            // Not cut as tables are: it is read as a whole.
            out.raw(&escaped(&self.said(id, is_local)))?;
            let (at, by) = (shown_time(&self.at), &self.by);
            out.raw(&escaped(&format!("deleted {at} UTC by {by}")))?;
        }
        out.flush()?;
        Ok(())
    }

    fn said(&self, id: &DocumentId, is_local: bool) -> String {
        match (self.state, &self.until) {
            (Stage::Kept, Some(until)) => {
                let until = shown_time(until);
                format!("{id}: kept until {until} UTC; `concord undelete {id}` brings it back")
            }
            (Stage::Kept, None) => format!(
                "{id}: kept for as long as the server keeps what is deleted (--keep-deleted-seconds); \
                 `concord undelete {id}` brings it back"
            ),
            (Stage::Purged, _) if is_local => format!(
                "{id}: purged; bytes of it may be in the files until `concord compact` has written them anew"
            ),
            (Stage::Purged, _) => format!(
                "{id}: purged; bytes of it may be in the server's files until it has written them anew"
            ),
            (Stage::Erased, _) => {
                format!("{id}: erased; nothing of it is in any file of the data directory")
            }
        }
    }
}
