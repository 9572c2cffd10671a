//! `concord history`, `diff`, `fork` and `restore`: what was, and bringing it back.

use std::process::ExitCode;

use axum::http::Method;
use concord_shared::ids::DocumentId;
use concord_shared::path::Path;
use console::Style;
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::changes::Changing;
use super::client::moment::{Moment, moment};
use super::client::{Access, Call, Client, Refused, TargetArgs, UsageError, document_id, path};
use super::documents::{TypesArg, text};
use super::edit::{JSON, WriteArgs, say, say_version};
use super::terminal::{Out, padded};
use crate::http::documents::{url_of, url_within};

/// Changes asked for at a time.
const CHANGES_PER_PAGE: usize = 100;

/// Digits that are shown of a hash, and of an actor.
const SHORT: usize = 8;

/// Columns of a time.
const TIME_COLUMNS: usize = "~2026-11-22 04:10:28".len();

/// Arguments of `concord history`.
#[derive(Debug, clap::Args)]
pub struct HistoryArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Document id or automerge: URL
    #[arg(value_name = "ID", value_parser = document_id)]
    document: DocumentId,
    /// No more than so many changes
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// From the first change on, in place of from the last one back
    #[arg(long)]
    oldest: bool,
    /// Print one JSON object a line, with all that is known of the change
    #[arg(long)]
    json: bool,
}

/// Prints a document's changes, in the order in which the server took them. TIME is when it did, in UTC; where that is
/// not known, what the author's clock said, with ~ before it.
pub fn history(args: &HistoryArgs) -> anyhow::Result<ExitCode> {
    args.target.run(Access::Read, async |client| {
        let mut out = Out::lock();
        let mut pages = Changes::new(&args.document, args.oldest);
        let mut left = args.limit.unwrap_or(usize::MAX);
        let mut columns = None;
        while left > 0
            && let Some(page) = pages.next(client, CHANGES_PER_PAGE.min(left)).await?
        {
            left = left.saturating_sub(page.len());
            if !args.json && columns.is_none() {
                let digits = pages.count.to_string().len().max("PLACE".len());
                columns = Some(digits);
                out.line(&heading(digits), &Style::new().bold())?;
            }
            for change in page {
                match columns {
                    None => out.json(&change)?,
                    Some(digits) => out.line(&row(&change, digits), &Style::new())?,
                }
            }
            out.flush()?;
        }
        Ok(ExitCode::SUCCESS)
    })
}

fn heading(digits: usize) -> String {
    let [place, hash, time] = [
        format!("{:>digits$}", "PLACE"),
        padded("HASH", SHORT),
        padded(" TIME", TIME_COLUMNS),
    ];
    format!(
        "{place}  {hash}  {time}  {}  {:>6}  MESSAGE",
        padded("ACTOR", SHORT),
        "OPS"
    )
}

fn row(change: &Json, digits: usize) -> String {
    let short = |name: &str| {
        let digits: String = text(change, name).chars().take(SHORT).collect();
        padded(&digits, SHORT)
    };
    let time = match (text(change, "receivedAt"), text(change, "time")) {
        ("", "") => " -".to_owned(),
        ("", time) => format!("~{}", shown_time(time)),
        (time, _) => format!(" {}", shown_time(time)),
    };
    let time = padded(&time, TIME_COLUMNS);
    let mut lines = text(change, "message").lines();
    let message = lines.next().unwrap_or_default();
    let more = if lines.next().is_some() { "…" } else { "" };
    let number = |name| change.get(name).map(Json::to_string).unwrap_or_default();
    let (place, ops) = (number("place"), number("ops"));
    let (hash, actor) = (short("hash"), short("actor"));
    let row = format!("{place:>digits$}  {hash}  {time}  {actor}  {ops:>6}  {message}{more}");
    row.trim_end().to_owned()
}

/// A time by RFC 3339 to the second, as people write it.
pub fn shown_time(time: &str) -> String {
    let second = time.get(.."2026-11-22T04:10:28".len()).unwrap_or(time);
    second.replace('T', " ")
}

/// A document's changes, page by page.
#[derive(Debug)]
pub struct Changes<'a> {
    document: &'a DocumentId,
    order: &'static str,
    after: Option<u64>,
    is_over: bool,
    /// How many there are, once there was a page.
    pub count: u64,
}

impl<'a> Changes<'a> {
    /// From the first one on, or from the last one back.
    pub fn new(document: &'a DocumentId, is_oldest_first: bool) -> Self {
        Self {
            document,
            order: if is_oldest_first { "oldest" } else { "newest" },
            after: None,
            is_over: false,
            count: 0,
        }
    }

    /// The next page, as the API has it.
    pub async fn next(
        &mut self,
        client: &Client,
        limit: usize,
    ) -> anyhow::Result<Option<Vec<Json>>> {
        if self.is_over {
            return Ok(None);
        }
        let call = Call::new(Method::GET, format!("{}/changes", url_of(self.document)))
            .query("order", Some(self.order))
            .query("limit", Some(limit))
            .query("after", self.after);
        let page: Page = client.send(call).await?.parsed()?;
        self.is_over = page.next.is_none() || page.changes.is_empty();
        self.after = page.next;
        self.count = page.count;
        Ok(Some(page.changes))
    }
}

/// A page, as far as it is looked at.
#[derive(Deserialize)]
struct Page {
    changes: Vec<Json>,
    next: Option<u64>,
    count: u64,
}

/// Arguments of `concord diff`.
#[derive(Debug, clap::Args)]
pub struct DiffArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Document id or automerge: URL
    #[arg(value_name = "ID", value_parser = document_id)]
    document: DocumentId,
    /// What it is compared with: a version or the beginning of its hash, a time, or a date
    #[arg(value_name = "FROM", value_parser = moment)]
    from: Moment,
    /// What is compared, likewise; now, if it is left out
    #[arg(value_name = "TO")]
    to: Option<String>,
    /// Which part of it, as a JSON Pointer: /companies/acme/name
    #[arg(value_name = "PATH", value_parser = path)]
    path: Option<Path>,
    /// How counters, times and bytes are written, which JSON lacks
    #[arg(long, value_enum, default_value = "plain")]
    types: TypesArg,
    /// Print a JSON Patch (RFC 6902) that leads from the one to the other
    #[arg(long)]
    json: bool,
}

/// Prints what differs between two versions: with - what was at a path, with + what is.
pub fn diff(args: &DiffArgs) -> anyhow::Result<ExitCode> {
    let usage = |error: String| UsageError(error);
    // A path begins with a slash, which no version does.
    let (to, path) = match (&args.to, &args.path) {
        (Some(text), None) if text.starts_with('/') => (None, path(text).map_err(usage)?),
        (Some(text), path) => (
            Some(moment(text).map_err(usage)?),
            path.clone().unwrap_or_default(),
        ),
        (None, _) => (None, Path::root()),
    };
    args.target.run(Access::Read, async |client| {
        let id = &args.document;
        let from = args.from.resolved(client, id).await?;
        let to = match to {
            Some(to) => Some(to.resolved(client, id).await?),
            None => None,
        };
        let mut out = Out::lock();
        // What is printed is to be of one version, however often it is asked for.
        let before = read(client, id, &path, &from, args.types).await?;
        let call = Call::new(Method::GET, url_within(id, "diff", &path))
            .query("from", Some(&before.0))
            .query("to", to)
            .query("types", args.types.parameter());
        let answer = client.send(call).await?;
        let patch = answer.json()?;
        if args.json {
            out.pretty(&patch)?;
            out.flush()?;
            return Ok(ExitCode::SUCCESS);
        }
        let steps = Changing(before.1).apply(&path, &patch)?;
        if !steps.is_empty() {
            let bold = Style::new().bold();
            out.line(&format!("--- {}", before.0), &bold)?;
            out.line(&format!("+++ {}", answer.version_read()?), &bold)?;
        }
        for step in steps {
            let (old, new) = step.sides();
            let sides = [
                ("-", old, Style::new().red()),
                ("+", new, Style::new().green()),
            ];
            for (sign, side, style) in sides {
                if let Some(side) = side {
                    out.line(&format!("{sign} {}  {side}", step.at), &style)?;
                }
            }
        }
        out.flush()?;
        Ok(ExitCode::SUCCESS)
    })
}

/// A version, and what was at a path then.
async fn read(
    client: &Client,
    id: &DocumentId,
    path: &Path,
    at: &str,
    types: TypesArg,
) -> anyhow::Result<(String, Option<Json>)> {
    let of = |path: &Path| {
        Call::value(Method::GET, id, path)
            .query("at", Some(at))
            .query("types", types.parameter())
    };
    let is_missing = |error: &anyhow::Error| {
        let refused: Option<&Refused> = error.downcast_ref();
        refused.is_some_and(|refused| refused.code == "no-value")
    };
    match client.send(of(path)).await {
        Ok(answer) => Ok((answer.version_read()?, Some(answer.json()?))),
        Err(error) if is_missing(&error) => {
            let whole = client.send(of(&Path::root())).await?;
            Ok((whole.version_read()?, None))
        }
        Err(error) => Err(error),
    }
}

/// Arguments of `concord fork`.
#[derive(Debug, clap::Args)]
pub struct ForkArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Document id or automerge: URL
    #[arg(value_name = "ID", value_parser = document_id)]
    document: DocumentId,
    /// As it was: a version or the beginning of its hash, a time, or a date; now, if it is left out
    #[arg(long, value_name = "VERSION|TIME", value_parser = moment)]
    at: Option<Moment>,
    /// The new document's id; a new one if none is given
    #[arg(long, value_name = "NEW", value_parser = document_id)]
    id: Option<DocumentId>,
}

/// Makes a new document with the same changes, and prints its id.
pub fn fork(args: &ForkArgs) -> anyhow::Result<ExitCode> {
    args.target.run(Access::Write, async |client| {
        let at = match &args.at {
            Some(at) => Some(at.resolved(client, &args.document).await?),
            None => None,
        };
        let body = json!({ "at": at, "id": args.id.as_ref().map(DocumentId::as_str) });
        let call = Call::new(Method::POST, format!("{}/fork", url_of(&args.document)));
        let answer = client.send(call.json(JSON, &body)).await?;
        match &args.id {
            Some(id) => say(id.as_str()),
            None => say(answer.made()?.as_str()),
        }
    })
}

/// Arguments of `concord restore`.
#[derive(Debug, clap::Args)]
pub struct RestoreArgs {
    #[command(flatten)]
    write: WriteArgs,
    /// Which part of it, as a JSON Pointer; the whole document if it is left out
    #[arg(value_name = "PATH", default_value = "", hide_default_value = true, value_parser = path)]
    path: Path,
    /// As it was: a version or the beginning of its hash, a time, or a date
    #[arg(long, value_name = "VERSION|TIME", value_parser = moment)]
    at: Moment,
}

/// Brings back what was at a path, by one change more. Prints the version that has it.
pub fn restore(args: &RestoreArgs) -> anyhow::Result<ExitCode> {
    let WriteArgs {
        target,
        document,
        if_match,
    } = &args.write;
    target.run(Access::Write, async |client| {
        let at = args.at.resolved(client, document).await?;
        let body = json!({ "at": at, "path": args.path.to_string() });
        let call = Call::new(Method::POST, format!("{}/restore", url_of(document)))
            .if_match(if_match.as_deref())
            .json(JSON, &body);
        say_version(&client.send(call).await?)
    })
}
