//! `concord watch`: a document's changes as they come, from a server's stream of events.
//!
//! A connection that breaks is made again, and the server is told what was seen last: nothing is left out, and nothing
//! comes twice.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use concord_shared::ids::DocumentId;
use concord_shared::json::timestamp;
use concord_shared::path::Path;
use console::Style;
use serde_json::{Value as Json, json};
use tokio::time::sleep;

use super::changes::Changing;
use super::client::remote::Remote;
use super::client::{Refused, TokenArgs, UsageError, document_id, parse_json, path};
use super::documents::TypesArg;
use super::serve::{run_to_the_end, stop_signal};
use super::terminal::{Out, escaped};
use crate::clock::signed_unix_ms;
use crate::http::documents::url_within;
use events::{Event, Events};

mod events;

/// How long to wait before a connection is made again, at first; each that was in vain doubles it.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The most that it grows to.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Arguments of `concord watch`.
#[derive(Debug, clap::Args)]
pub struct WatchArgs {
    /// Address of a running server
    #[arg(
        long,
        value_name = "http://HOST:PORT",
        required_unless_present = "data"
    )]
    url: Option<reqwest::Url>,
    #[command(flatten)]
    token: TokenArgs,
    /// Only for the message that this can't be.
    #[arg(long, hide = true)]
    data: Option<String>,
    /// Document id or automerge: URL
    #[arg(value_name = "ID", value_parser = document_id)]
    document: DocumentId,
    /// Which part of it, as a JSON Pointer: /companies/acme/name
    #[arg(value_name = "PATH", default_value = "", hide_default_value = true, value_parser = path)]
    path: Path,
    /// How counters, times and bytes are written, which JSON lacks
    #[arg(long, value_enum, default_value = "plain")]
    types: TypesArg,
    /// Print one JSON object a line: {"event": …, "version": …, "data": …}
    #[arg(long)]
    json: bool,
}

/// Prints what is in a document, and then each change when it comes, until Ctrl-C.
pub fn watch(args: &WatchArgs) -> anyhow::Result<ExitCode> {
    let Some(url) = &args.url else {
        let error = "a directory that no server uses does not change: watch a server's, by --url";
        return Err(UsageError(error.to_owned()).into());
    };
    run_to_the_end(async {
        let stop = stop_signal()?;
        tokio::select! {
            watched = follow(args, url) => watched?,
            () = stop => {}
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// Follows the document for as long as it may be read.
async fn follow(args: &WatchArgs, url: &reqwest::Url) -> anyhow::Result<()> {
    let remote = Remote::new(url, &args.token)?;
    let address = url_within(&args.document, "events", &args.path);
    let address = match args.types.parameter() {
        Some(types) => format!("{address}?types={types}"),
        None => address,
    };
    let mut shown = Shown::new(args);
    // An address that is wrong is told at once.
    let mut events = Some(connect(&remote, &address, None).await?);
    let mut wait = FIRST_WAIT;
    loop {
        let broken = match &mut events {
            Some(connected) => match connected.next().await {
                Ok(Some(event)) => {
                    wait = FIRST_WAIT;
                    shown.show(&event)?;
                    continue;
                }
                Ok(None) => None,
                Err(error) => Some(error),
            },
            None => match connect(&remote, &address, shown.version.as_deref()).await {
                Ok(connected) => {
                    events = Some(connected);
                    continue;
                }
                Err(error) if is_final(&error) => return Err(error),
                Err(error) => Some(error),
            },
        };
        if events.take().is_some() {
            let why = broken.map_or_else(
                || "it ended".to_owned(),
                |error| error.root_cause().to_string(),
            );
            eprintln!(
                "concord: lost the connection, trying again: {}",
                escaped(&why)
            );
        }
        sleep(wait).await;
        wait = (2 * wait).min(LONGEST_WAIT);
    }
}

async fn connect(remote: &Remote, address: &str, last: Option<&str>) -> anyhow::Result<Events> {
    let mut headers = HeaderMap::new();
    if let Some(last) = last {
        let value = HeaderValue::try_from(last).context("the version that was seen last")?;
        headers.insert(HeaderName::from_static("last-event-id"), value);
    }
    Ok(Events::new(remote.stream(address, headers).await?))
}

/// Whether to try again is in vain.
pub fn is_final(error: &anyhow::Error) -> bool {
    let refused: Option<&Refused> = error.downcast_ref();
    refused.is_some_and(|refused| !refused.is_passing)
}

/// What was printed so far.
struct Shown<'a> {
    args: &'a WatchArgs,
    out: Out,
    /// The last that was seen.
    version: Option<String>,
    value: Changing,
}

impl<'a> Shown<'a> {
    fn new(args: &'a WatchArgs) -> Self {
        Self {
            args,
            out: Out::lock(),
            version: None,
            value: Changing(None),
        }
    }

    fn show(&mut self, event: &Event) -> anyhow::Result<()> {
        let data = parse_json(event.data.as_bytes())?;
        if self.args.json {
            let line = json!({ "event": event.kind, "version": event.id, "data": data });
            self.out.json(&line)?;
        } else {
            self.show_to_people(event, data)?;
        }
        self.out.flush()?;
        self.version = Some(event.id.clone());
        Ok(())
    }

    fn show_to_people(&mut self, event: &Event, data: Json) -> anyhow::Result<()> {
        let now = now();
        let dim = Style::new().dim();
        match event.kind.as_str() {
            "value" => {
                let version = &event.id;
                self.out.line(&format!("{now}  version {version}"), &dim)?;
                self.out.pretty(&data)?;
                self.value = Changing(Some(data));
            }
            "gone" => {
                let path = &self.args.path;
                let line = format!("{now}  - {path}: there is nothing any more");
                self.out.line(&line, &Style::new().red())?;
                self.value = Changing(None);
            }
            "patch" => {
                let columns = self.out.columns;
                let columns = columns.map(|columns| columns.saturating_sub(now.len() + 2));
                for step in self.value.apply(&self.args.path, &data)? {
                    let style = match (&step.old, &step.new) {
                        (Some(_), None) => Style::new().red(),
                        (None, Some(_)) => Style::new().green(),
                        _ => Style::new(),
                    };
                    let line = format!("{now}  {}", step.line(columns));
                    self.out.line(&line, &style)?;
                }
            }
            // Of a server that is newer.
            _ => {}
        }
        Ok(())
    }
}

/// The time of day, in UTC.
fn now() -> String {
    let time = timestamp(signed_unix_ms());
    let time = time.as_str().and_then(|time| time.get(11..19));
    format!("{}Z", time.unwrap_or_default())
}
