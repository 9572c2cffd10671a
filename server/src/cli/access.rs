//! `concord access`: who may do what with a document.
//!
//! Over a data directory nobody has to say who they are: whoever has the files reads and sets lists as an operator does,
//! so that a list by which nobody gets in can be replaced.

use std::cmp::Reverse;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use axum::http::{Method, header};
use concord_shared::access::{AccessList, Role};
use concord_shared::ids::DocumentId;
use console::Style;
use serde::Deserialize;
use serde_json::Value as Json;
use tokio::time::sleep;

use super::client::{Access, Answer, Call, Client, Lists, Refused, TargetArgs, document_id};
use super::documents::text;
use super::edit::{JSON, json_of, say};
use super::history::shown_time;
use super::terminal::{Out, compact, padded};
use crate::access::policy::{Share, Whom};
use crate::http::documents::url_of;

/// How often a change is made anew of a list that others changed meanwhile.
const ATTEMPTS: usize = 16;

/// Before it is made anew, the first time; then twice as long, and so on: what they said is told when it is on disk, and
/// counts before that.
const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// And at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Entries of the history asked for at a time.
const ENTRIES_PER_PAGE: usize = 1000;

/// What an `If-Match` finds that is out of date.
const OUT_OF_DATE: &str = "unknown-heads";

/// Columns of a role, and of what kind of name follows.
const ROLE_COLUMNS: usize = "reader".len();
const KIND_COLUMNS: usize = "principal".len();

/// Columns of a time.
const TIME_COLUMNS: usize = "2026-11-22 04:10:28".len();

/// Arguments of `concord access`.
#[derive(Debug, clap::Args)]
pub struct AccessArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Document id or automerge: URL
    #[arg(value_name = "ID", value_parser = document_id)]
    document: DocumentId,
    /// Who is to have which role, in place of what was said before: {"principals": {"ann": "owner"}, "groups": {"board":
    /// "writer"}, "anyone": "reader"}; @FILE reads a file, - standard input
    #[arg(value_name = "LIST", conflicts_with_all = ["grant", "revoke", "history"])]
    list: Option<String>,
    /// The version of the list that you saw (--json tells it): if there is another one by now, nothing is changed
    #[arg(long, value_name = "VERSION", requires = "list")]
    if_match: Option<String>,
    /// Give a role to a principal, to group:NAME, or to anyone; none keeps them out whatever groups they are in
    /// [repeatable]
    #[arg(long, value_name = "WHOM=ROLE", conflicts_with = "history")]
    grant: Vec<Share>,
    /// Take the entry of a principal, of group:NAME, or of anyone out of the list; what it says of their groups and of
    /// anyone holds for them still [repeatable]
    #[arg(long, value_name = "WHOM", conflicts_with = "history")]
    revoke: Vec<Whom>,
    /// Print what was said of it so far, when and by whom, the oldest first
    #[arg(long)]
    history: bool,
    /// Print it as JSON, with the version of the list; of the history one object a line
    #[arg(long)]
    json: bool,
}

/// Prints who may do what, or says so; then it prints the version of the new list.
pub fn access(args: &AccessArgs) -> anyhow::Result<ExitCode> {
    let id = &args.document;
    let is_change = !args.grant.is_empty() || !args.revoke.is_empty();
    let list = args.list.as_deref().map(|list| json_of(list, ""));
    let list = list.transpose()?;
    let access = if list.is_some() || is_change {
        Access::Write
    } else {
        Access::Read
    };
    args.target.run_on(access, Lists::Kept, async |client| {
        if args.history {
            return history(client, id, args.json).await;
        }
        let answer = match &list {
            Some(list) => {
                let call = Call::new(Method::PUT, access_of(id)).if_match(args.if_match.as_deref());
                client.send(call.json(JSON, list)).await?
            }
            None if is_change => changed(client, args).await?,
            None => client.send(Call::new(Method::GET, access_of(id))).await?,
        };
        if access == Access::Write && !args.json {
            return say(answer.tag().context("the list has no version")?);
        }
        print(&answer, args.json)?;
        Ok(ExitCode::SUCCESS)
    })
}

/// Changes single entries, of the list as it is when that comes to it.
async fn changed(client: &Client, args: &AccessArgs) -> anyhow::Result<Answer> {
    let is_out_of_date = |error: &anyhow::Error| {
        let refused: Option<&Refused> = error.downcast_ref();
        refused.is_some_and(|refused| refused.code == OUT_OF_DATE)
    };
    let address = access_of(&args.document);
    let mut pause = FIRST_PAUSE;
    for _ in 0..ATTEMPTS {
        let seen = client.send(Call::new(Method::GET, address.clone())).await?;
        let Told { role, list } = seen.parsed()?;
        let mut list = list.unwrap_or_default();
        for whom in &args.revoke {
            // Who is no owner has seen no list. They are told so below.
            if !list.unset(whom.as_subject()) && role == Role::Owner {
                bail!("the list has no entry of {whom}; nothing is changed");
            }
        }
        for share in &args.grant {
            share.give(&mut list);
        }
        let call = Call::new(Method::PUT, address.clone());
        let call = match seen.tag() {
            Some(tag) => call.if_match(Some(tag)),
            None => call.header(header::IF_NONE_MATCH, "*"),
        };
        let list = serde_json::to_value(&list)?;
        match client.send(call.json(JSON, &list)).await {
            Err(error) if is_out_of_date(&error) => {}
            answered => return answered,
        }
        sleep(pause).await;
        pause = (2 * pause).min(LONGEST_PAUSE);
    }
    bail!("others change the list all the time: nothing of this was changed")
}

/// What the API says of who may do what.
#[derive(Deserialize)]
struct Told {
    role: Role,
    list: Option<AccessList>,
}

fn print(answer: &Answer, is_json: bool) -> anyhow::Result<()> {
    let mut out = Out::lock();
    let Told { role, list } = answer.parsed()?;
    if is_json {
        let mut json = answer.json()?;
        if let (Json::Object(fields), Some(tag)) = (&mut json, answer.tag()) {
            fields.insert("version".to_owned(), tag.into());
        }
        out.pretty(&json)?;
    } else {
        match (list, role) {
            (Some(list), _) => table(&mut out, &list)?,
            (None, Role::Owner) => out.raw("owner; no list says who else may do what")?,
            (None, _) => out.raw(&format!("{role}; who else may do what is told to owners"))?,
        }
    }
    out.flush()?;
    Ok(())
}

fn table(out: &mut Out, list: &AccessList) -> anyhow::Result<()> {
    let principals = list.principals.iter();
    let principals = principals.map(|(name, role)| (*role, "principal", name.as_str()));
    let groups = list.groups.iter();
    let groups = groups.map(|(name, role)| (*role, "group", name.as_str()));
    let mut rows: Vec<_> = principals.chain(groups).collect();
    // Those who may do most first, and else in order.
    rows.sort_by_key(|(role, ..)| Reverse(*role));
    rows.push((list.anyone, "anyone", ""));
    let heading = format!("{}  WHOM", padded("ROLE", ROLE_COLUMNS));
    out.line(&heading, &Style::new().bold())?;
    for (role, kind, name) in rows {
        let role = padded(role.as_str(), ROLE_COLUMNS);
        let row = match name {
            "" => format!("{role}  {kind}"),
            name => format!("{role}  {}  {name}", padded(kind, KIND_COLUMNS)),
        };
        out.line(&row, &Style::new())?;
    }
    Ok(())
}

/// A page, as far as it is looked at.
#[derive(Deserialize)]
struct Page {
    entries: Vec<Json>,
    next: Option<u64>,
}

async fn history(client: &Client, id: &DocumentId, is_json: bool) -> anyhow::Result<ExitCode> {
    let mut out = Out::lock();
    let mut after: Option<u64> = None;
    loop {
        let call = Call::new(Method::GET, format!("{}/history", access_of(id)))
            .query("limit", Some(ENTRIES_PER_PAGE))
            .query("after", after);
        let page: Page = client.send(call).await?.parsed()?;
        if after.is_none() && !is_json {
            let time = padded("TIME", TIME_COLUMNS);
            let heading = format!("NUMBER  {time}  BY  LIST");
            out.line(&heading, &Style::new().bold())?;
        }
        let is_empty = page.entries.is_empty();
        for entry in page.entries {
            if is_json {
                out.json(&entry)?;
                continue;
            }
            let (at, by) = (shown_time(text(&entry, "at")), text(&entry, "by"));
            let of = |name| entry.get(name).map(compact).unwrap_or_default();
            let (number, list) = (of("number"), of("list"));
            let row = format!("{number:>6}  {at}  {by}  {list}");
            out.line(&row, &Style::new())?;
        }
        out.flush()?;
        after = page.next;
        if after.is_none() || is_empty {
            return Ok(ExitCode::SUCCESS);
        }
    }
}

fn access_of(id: &DocumentId) -> String {
    format!("{}/access", url_of(id))
}
