//! `concord list` and `concord get`.

use std::process::ExitCode;

use axum::http::Method;
use concord_shared::ids::DocumentId;
use concord_shared::path::Path;
use console::Style;
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::client::moment::{Moment, moment};
use super::client::{Access, Call, Client, TargetArgs, document_id, path};
use super::offline::warn_of_unlisted;
use super::terminal::{Out, padded};

/// Documents asked for at a time.
const DOCUMENTS_PER_PAGE: usize = 1000;

/// What nearly all ids take.
const ID_COLUMNS: usize = 28;

/// Arguments of `concord list`.
#[derive(Debug, clap::Args)]
pub struct ListArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

/// Lists the stored documents: id, number of changes, bytes of the snapshot.
pub fn list(args: &ListArgs) -> anyhow::Result<ExitCode> {
    args.target.run(Access::Read, async |client| {
        let mut out = Out::lock();
        let mut pages = Pages::default();
        while let Some(page) = pages.next(client).await? {
            for document in page {
                if args.json {
                    out.json(&document)?;
                } else {
                    out.line(&line(&document), &Style::new())?;
                }
            }
            out.flush()?;
        }
        let incomplete = match client {
            Client::Local(local) => warn_of_unlisted(local.store())?,
            Client::Remote(_) => false,
        };
        Ok(ExitCode::from(u8::from(incomplete)))
    })
}

fn line(document: &Json) -> String {
    let id = padded(text(document, "id"), ID_COLUMNS);
    match (document.get("changes"), document.get("snapshotBytes")) {
        (Some(changes), Some(bytes)) => {
            let (changes, bytes) = (changes.to_string(), bytes.to_string());
            format!("{id}  {changes:>9} changes  {bytes:>11} bytes of snapshot")
        }
        _ => format!("{id}  damaged: `concord verify` says how"),
    }
}

/// The list of documents, page by page.
#[derive(Debug, Default)]
pub struct Pages {
    after: Option<String>,
    is_over: bool,
}

impl Pages {
    /// The next page, as the API has it.
    pub async fn next(&mut self, client: &Client) -> anyhow::Result<Option<Vec<Json>>> {
        if self.is_over {
            return Ok(None);
        }
        let call = Call::new(Method::GET, "/v1/documents")
            .query("limit", Some(DOCUMENTS_PER_PAGE))
            .query("after", self.after.take());
        let page: Page = client.send(call).await?.parsed()?;
        self.is_over = page.next.is_none();
        self.after = page.next;
        Ok(Some(page.documents))
    }
}

/// A page, as far as it is looked at.
#[derive(Deserialize)]
struct Page {
    documents: Vec<Json>,
    next: Option<String>,
}

/// A text in an object.
pub fn text<'a>(object: &'a Json, name: &str) -> &'a str {
    let text = object.get(name).and_then(Json::as_str);
    text.unwrap_or_default()
}

/// How what JSON lacks is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum TypesArg {
    /// As the nearest that JSON has
    Plain,
    /// By name: {"$counter": 5}
    Tagged,
}

impl TypesArg {
    /// The parameter of a request.
    pub fn parameter(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Tagged => Some("tagged"),
        }
    }
}

/// Arguments of `concord get`.
#[derive(Debug, clap::Args)]
pub struct GetArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Document id or automerge: URL
    #[arg(value_name = "ID", value_parser = document_id)]
    document: DocumentId,
    /// Which part of it, as a JSON Pointer: /companies/acme/name
    #[arg(value_name = "PATH", default_value = "", hide_default_value = true, value_parser = path)]
    path: Path,
    /// As it was: a version or the beginning of its hash, a time (2026-11-22T04:10:28Z), or a date, which is its first
    /// moment in UTC
    #[arg(long, value_name = "VERSION|TIME", value_parser = moment)]
    at: Option<Moment>,
    /// How counters, times and bytes are written, which JSON lacks
    #[arg(long, value_enum, default_value = "plain")]
    types: TypesArg,
    /// Print a string without quotes
    #[arg(long, conflicts_with = "with_version")]
    raw: bool,
    /// Print {"version": …, "value": …}: what --at and --if-match take, and what was there then
    #[arg(long)]
    with_version: bool,
}

/// Prints what is in a document as JSON.
pub fn get(args: &GetArgs) -> anyhow::Result<ExitCode> {
    args.target.run(Access::Read, async |client| {
        let at = match &args.at {
            Some(at) => Some(at.resolved(client, &args.document).await?),
            None => None,
        };
        let call = Call::value(Method::GET, &args.document, &args.path)
            .query("at", at)
            .query("types", args.types.parameter());
        let answer = client.send(call).await?;
        let value = answer.json()?;
        let mut out = Out::lock();
        match &value {
            _ if args.with_version => {
                let version = answer.version_read()?;
                out.pretty(&json!({ "version": version, "value": value }))?;
            }
            Json::String(text) if args.raw => out.raw(text)?,
            _ => out.pretty(&value)?,
        }
        out.flush()?;
        Ok(ExitCode::SUCCESS)
    })
}
