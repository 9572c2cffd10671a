//! Promise: what a role allows is what the table of ACCESS.md says, by every way to a document, and a document that is
//! not for somebody is to them as one that is not there.
//!
//! The table is read from the documentation. It must have every operation of the API that is about a document, so one
//! that is new can't be forgotten, and each cell is carried out: what is to be done is done and seen, what is refused
//! is refused by its code, and what is absent is held in against what an id gives that nobody ever had.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use automerge::transaction::Transactable as _;
use automerge::{ActorId, AutoCommit, ChangeHash, ROOT};
use concord_shared::limits::Limits;
use concord_shared::wire::Message;
use concord_shared::{DocumentId, SessionId};
use concord_tests::issuer::Issuer;
use concord_tests::raw_client::RawClient;
use concord_tests::server_process::ServerProcess;
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::import::AUTOMERGE;
use super::rest::{Answer, Rest, send};

/// Nothing came for so long: longer than the grace of the servers here, and than a busy machine takes.
const A_WHILE: Duration = Duration::from_millis(1500);

pub(super) struct World {
    pub(super) issuer: Issuer,
    pub(super) server: ServerProcess,
}

impl World {
    pub(super) fn start(arguments: &[&str]) -> Result<Self> {
        let issuer = Issuer::new()?;
        let mut all = vec!["--request-grace-ms", "100"];
        all.extend(arguments);
        let server = ServerProcess::start_with(&issuer.arguments(&all)?)?;
        Ok(Self { issuer, server })
    }

    pub(super) fn rest(&self, who: &str) -> Result<Rest> {
        let rest = Rest::new(self.server.address());
        Ok(rest.with_token(&self.issuer.of(who)?))
    }

    pub(super) async fn raw(&self, who: &str, peer: &str) -> Result<RawClient> {
        let token = self.issuer.of(who)?;
        let url = format!("{}?token={token}", self.server.websocket_url());
        RawClient::join(&url, peer).await
    }

    /// A document of ann's, with others in it.
    pub(super) async fn document(&self) -> Result<String> {
        let ann = self.rest("ann")?;
        let value = json!({ "a": { "b": 1 }, "list": [] });
        let made = ann.post("/v1/documents", &value).await?;
        let location = made.good()?.location.context("a place")?;
        let id = location.rsplit('/').next().context("an id")?.to_owned();
        let list = json!({ "principals": { "ann": "owner", "wes": "writer", "ria": "reader" } });
        let path = format!("/v1/documents/{id}/access");
        ann.put(&path, &list).await?.good()?;
        Ok(id)
    }
}

/// What is done, and the cells of its row by the names of the columns.
fn table() -> Result<Vec<(String, BTreeMap<String, String>)>> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../ACCESS.md");
    let text = std::fs::read_to_string(path)?;
    let rows = text.split("<!-- The table of roles.rs. -->").nth(1);
    let lines = rows.context("the table")?.lines();
    let mut rows = lines.skip_while(|line| line.is_empty());
    let cells = |line: &str| -> Vec<String> {
        let cells = line.trim_matches('|').split('|');
        cells.map(|cell| cell.trim().to_owned()).collect()
    };
    let names = cells(rows.next().context("a head")?);
    rows.take_while(|line| line.starts_with('|'))
        .skip(1)
        .map(|line| {
            let mut row = cells(line).into_iter();
            let what = row.next().context("what is done")?.replace('`', "");
            Ok((what, names.iter().skip(1).cloned().zip(row).collect()))
        })
        .collect()
}

/// An id that nobody has.
pub(super) fn fresh() -> DocumentId {
    let mut uuid = [0; 16];
    uuid.copy_from_slice(ActorId::random().to_bytes());
    DocumentId::from_uuid(uuid)
}

/// Who is in a column.
fn who(column: &str) -> Result<&'static str> {
    Ok(match column {
        "owner" | "deleted" => "ann",
        "writer" => "wes",
        "reader" => "ria",
        "foreign" | "unknown" => "sam",
        other => bail!("{other} is no column"),
    })
}

/// What an operation of the API is asked.
struct Asked {
    method: Method,
    path: String,
    body: Option<Value>,
    /// With documents' own bytes in place of JSON.
    is_automerge: bool,
}

/// Behind the name of an operation that is asked for, or with, a document's own bytes.
const AS_AUTOMERGE: &str = " as Automerge";

impl Asked {
    fn of(operation: &str, method: &str, template: &str, id: &str, change: &str) -> Result<Self> {
        let body = match operation {
            "putDocument" | "putDocument as Automerge" => {
                Some(json!({ "a": { "b": 1 }, "list": [] }))
            }
            "putValue" if !template.contains("{path}") => Some(json!({ "list": [] })),
            "putValue" | "addValue" => Some(json!(2)),
            "patchValue" => Some(json!({ "c": 3 })),
            "restore" => Some(json!({ "at": change, "path": "/a" })),
            "fork" => Some(json!({})),
            "putAccess" => {
                let all = json!({ "ann": "owner", "wes": "writer", "ria": "reader" });
                Some(json!({ "principals": all }))
            }
            _ => None,
        };
        let place = match operation {
            "addValue" => "list",
            "deleteValue" => "a/b",
            _ => "a",
        };
        let path = template
            .replace("{id}", id)
            .replace("{path}", place)
            .replace("{hash}", change)
            .replace("{place}", "0");
        Ok(Self {
            method: Method::from_bytes(method.to_uppercase().as_bytes())?,
            path,
            body,
            is_automerge: operation.ends_with(AS_AUTOMERGE),
        })
    }

    async fn by(&self, rest: &Rest) -> Result<Answer> {
        let mut request = rest.request(self.method.clone(), &self.path);
        if self.is_automerge {
            request = request.header(ACCEPT, AUTOMERGE);
        }
        if self.is_automerge && self.body.is_some() {
            let mut document = AutoCommit::new();
            document.put(ROOT, "imported", true)?;
            request = request.header(CONTENT_TYPE, AUTOMERGE);
            request = request.body(document.save());
        } else if let Some(body) = &self.body {
            request = request.json(body);
        }
        // A stream goes on, so that only its head is waited for.
        if self.path.contains("/events") {
            let response = request.send().await?;
            let (status, headers) = (response.status(), response.headers().clone());
            let body = if status.is_success() {
                Vec::new()
            } else {
                response.bytes().await?.to_vec()
            };
            return Ok(Answer {
                status,
                etag: None,
                location: None,
                content_type: String::new(),
                headers,
                body,
            });
        }
        send(request).await
    }
}

/// What somebody is told of a document, without what differs from one id to the next.
fn told(answer: &Answer, id: &str) -> (StatusCode, String, Vec<(String, String)>) {
    let body = String::from_utf8_lossy(&answer.body).replace(id, "ID");
    let headers = answer
        .headers
        .iter()
        .filter(|(name, _)| *name != "date" && *name != "content-length");
    let headers = headers.map(|(name, value)| (name.to_string(), format!("{value:?}")));
    (answer.status, body, headers.collect())
}

type Rows = BTreeMap<String, BTreeMap<String, String>>;

/// The cells of these rows: what is done, by whom, and what becomes of it.
fn cells<'a>(
    rows: &'a Rows,
    of: impl Iterator<Item = &'a str>,
) -> Result<Vec<(&'a str, &'a str, &'a str)>> {
    let mut all = Vec::new();
    for operation in of {
        let row = rows.get(operation);
        let row = row.with_context(|| format!("{operation} is not in the table"))?;
        let cells = row.iter();
        all.extend(cells.map(|(column, expected)| (operation, &**column, &**expected)));
    }
    Ok(all)
}

#[tokio::test]
async fn each_operation_does_for_each_role_what_the_table_says() -> Result<()> {
    let world = World::start(&[])?;
    let described = world
        .rest("ann")?
        .get("/v1/openapi.json")
        .await?
        .good()?
        .json()?;
    let rows: Rows = table()?.into_iter().collect();
    let mut done = BTreeSet::new();
    let mut carried_out = 0;
    for (template, methods) in described["paths"].as_object().context("paths")? {
        if !template.contains("{id}") {
            continue;
        }
        for (method, operation) in methods.as_object().context("methods")? {
            let operation = operation["operationId"].as_str().context("a name")?;
            // What is at a place is also at the document itself.
            let operation = operation.strip_suffix("OfDocument").unwrap_or(operation);
            let as_automerge = format!("{operation}{AS_AUTOMERGE}");
            let has_two = ["getDocument", "putDocument"].contains(&operation);
            let forms = std::iter::once(operation).chain(has_two.then_some(&*as_automerge));
            for (operation, column, expected) in cells(&rows, forms)? {
                done.insert(operation.to_owned());
                let what = format!("{operation} as {column}");
                let is_known = column != "unknown" && column != "deleted";
                let id = world.document().await?;
                let pages = world.rest("ann")?;
                let changes = format!("/v1/documents/{id}/changes");
                let changes = pages.get(&changes).await?.good()?.json()?;
                let change = changes["changes"][0]["hash"].as_str().context("a change")?;
                if column == "deleted" {
                    let deleted = pages.delete(&format!("/v1/documents/{id}")).await?;
                    ensure!(deleted.status == StatusCode::NO_CONTENT, "{deleted:?}");
                }
                let id = if column == "unknown" {
                    fresh().to_string()
                } else {
                    id
                };
                let rest = world.rest(who(column)?)?;
                let asked = Asked::of(operation, method, template, &id, change)?;
                let answer = asked.by(&rest).await?;
                let body = String::from_utf8_lossy(&answer.body).into_owned();
                match expected {
                    // The root can't be removed, by nobody.
                    "yes" if operation == "deleteValue" && !template.contains("{path}") => {
                        ensure!(body.contains("\"root\""), "{what}: {body}");
                    }
                    "yes" => ensure!(answer.status.is_success(), "{what}: {body}"),
                    "403" => {
                        ensure!(answer.status == StatusCode::FORBIDDEN, "{what}: {body}");
                        ensure!(answer.json()?["code"] == "not-allowed", "{what}: {body}");
                    }
                    "absent" => {
                        // As nobody is told who may not make one.
                        let nobodys = fresh();
                        let nobodys = nobodys.as_str();
                        ensure!(answer.status == StatusCode::NOT_FOUND, "{what}: {body}");
                        ensure!(answer.json()?["code"] == "no-document", "{what}: {body}");
                        if !operation.starts_with("putDocument") {
                            let same = Asked::of(operation, method, template, nobodys, change)?;
                            let same = same.by(&rest).await?;
                            ensure!(told(&answer, &id) == told(&same, nobodys), "{what}: {body}");
                        }
                    }
                    other => bail!("{what}: {other} is nothing that an operation does"),
                }
                // And nothing was written by who may not.
                if expected != "yes" && is_known {
                    let now = pages.get(&format!("/v1/documents/{id}/changes")).await?;
                    ensure!(now.json()?["count"] == changes["count"], "{what} wrote");
                }
                carried_out += 1;
            }
        }
    }
    let rest = rows.keys().filter(|what| !done.contains(*what));
    let rest: Vec<_> = rest.map(String::as_str).collect();
    ensure!(
        rest == ["ephemeral", "request", "sync", "sync with changes"],
        "{rest:?}"
    );
    ensure!(carried_out >= 22 * 6, "{carried_out}");
    Ok(())
}

/// A sync message with this document's heads, and its changes if they are to be sent.
pub(super) fn sync_data(document: &mut AutoCommit, with_changes: bool) -> Vec<u8> {
    sync_data_since(document, with_changes.then_some(&[]))
}

/// The same, with the changes that come after these.
fn sync_data_since(document: &mut AutoCommit, since: Option<&[ChangeHash]>) -> Vec<u8> {
    use automerge::sync::{ChunkList, Message, MessageFlags, MessageVersion};
    let changes = since.map_or_else(Vec::new, |since| document.get_changes(since));
    let changes = changes.iter().map(|change| change.raw_bytes().to_vec());
    let changes: Vec<Vec<u8>> = changes.collect();
    let mut flags = MessageFlags::new();
    flags.set(MessageFlags::SUPPORTS_SYNC_RESET);
    Message {
        heads: document.get_heads(),
        need: Vec::new(),
        have: Vec::new(),
        changes: ChunkList::from(changes),
        flags: Some(flags),
        version: MessageVersion::V1,
    }
    .encode()
}

/// The next message of a document, if one comes.
pub(super) async fn next_of(client: &mut RawClient, id: &str) -> Result<Option<Message>> {
    let next = async {
        loop {
            let message = client.next().await?;
            let of = match &message {
                Message::Sync { document, .. }
                | Message::DocUnavailable { document, .. }
                | Message::Ephemeral { document, .. } => document.as_str(),
                _ => continue,
            };
            if of == id {
                return Ok(message);
            }
        }
    };
    match timeout(A_WHILE, next).await {
        Ok(message) => message.map(Some),
        Err(_nothing) => Ok(None),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_message_does_for_each_role_what_the_table_says() -> Result<()> {
    let world = World::start(&[])?;
    let limits = Limits::default();
    let rows: BTreeMap<String, _> = table()?.into_iter().collect();
    let mut carried_out = 0;
    for what in ["request", "sync", "sync with changes", "ephemeral"] {
        for (column, expected) in rows.get(what).context(what)? {
            let said = format!("{what} as {column}");
            let known = world.document().await?;
            let id = match column.as_str() {
                "unknown" => fresh().to_string(),
                "deleted" => {
                    let id = world.document().await?;
                    let ann = world.rest("ann")?;
                    ann.delete(&format!("/v1/documents/{id}")).await?.good()?;
                    id
                }
                _ => known.clone(),
            };
            // Somebody who would see what is done.
            let mut ann = world.raw("ann", "ann-sees").await?;
            let request = |client: &RawClient, id: &str| -> Result<Message> {
                Ok(Message::Request {
                    document: DocumentId::new(id)?,
                    sender: client.peer().clone(),
                    target: client.server()?.clone(),
                    data: sync_data(&mut AutoCommit::new(), false).into(),
                })
            };
            ann.send(&request(&ann, &known)?).await?;
            let first = next_of(&mut ann, &known).await?;
            ensure!(matches!(first, Some(Message::Sync { .. })), "{first:?}");
            let mut client = world.raw(who(column)?, "asks").await?;
            let mut edited = AutoCommit::new();
            edited.put(ROOT, "new", true)?;
            if what == "ephemeral" {
                // Who may has it open.
                client.send(&request(&client, &id)?).await?;
                let _opened = next_of(&mut client, &id).await?;
                client
                    .send(&Message::Ephemeral {
                        document: DocumentId::new(&id)?,
                        sender: client.peer().clone(),
                        target: client.server()?.clone(),
                        count: 1,
                        session: SessionId::new("session")?,
                        data: vec![0xf6].into(),
                    })
                    .await?;
            } else if what == "request" {
                client.send(&request(&client, &id)?).await?;
            } else {
                let with_changes = what != "sync";
                let mut document = if with_changes {
                    edited.clone()
                } else {
                    AutoCommit::new()
                };
                let data = sync_data(&mut document, with_changes);
                client.send(&client.sync_message(&id, &data)?).await?;
            }
            let is_there = column != "unknown" && column != "deleted";
            let seen = next_of(&mut ann, &known).await?;
            let got = if what == "ephemeral" {
                None
            } else {
                next_of(&mut client, &id).await?
            };
            match (what, expected.as_str()) {
                ("ephemeral", "yes") => {
                    ensure!(
                        matches!(seen, Some(Message::Ephemeral { .. })),
                        "{said}: {seen:?}"
                    );
                }
                ("sync with changes", "yes") => {
                    ensure!(seen.is_some() == is_there, "{said}: {seen:?}");
                    let heads = async {
                        let mut got = got;
                        loop {
                            let Some(Message::Sync { data, .. }) = got else {
                                bail!("{said}: {got:?}");
                            };
                            let heads = concord_shared::sync::decode(&data, &limits)?.heads;
                            if heads.contains(&edited.get_heads()[0]) {
                                return Ok(());
                            }
                            got = next_of(&mut client, &id).await?;
                        }
                    };
                    heads.await?;
                }
                (_, "yes") => {
                    ensure!(matches!(got, Some(Message::Sync { .. })), "{said}: {got:?}");
                    ensure!(seen.is_none(), "{said}: {seen:?}");
                }
                (_, "absent") => {
                    ensure!(
                        matches!(got, Some(Message::DocUnavailable { .. })),
                        "{said}: {got:?}"
                    );
                    ensure!(seen.is_none(), "{said}: {seen:?}");
                }
                (_, "nothing") => {
                    ensure!(seen.is_none(), "{said}: {seen:?}");
                    // A reader is told what is there, and that nothing is taken.
                    if let Some(Message::Sync { data, .. }) = &got {
                        let flags = concord_shared::sync::decode(data, &limits)?.flags;
                        let flags = flags.context("flags")?;
                        let read_only = automerge::sync::MessageFlags::READ_ONLY;
                        ensure!(flags.contains(read_only), "{said}: {flags:?}");
                    }
                    let ann = world.rest("ann")?;
                    let now = ann.get(&format!("/v1/documents/{known}")).await?;
                    ensure!(now.json()?["new"].is_null(), "{said}");
                }
                other => bail!("{said}: {other:?} is nothing that a message does"),
            }
            carried_out += 1;
        }
    }
    ensure!(carried_out == 24, "{carried_out}");
    Ok(())
}

/// Says who may do what with a document of ann's.
async fn share(world: &World, id: &str, list: Value) -> Result<Answer> {
    let path = format!("/v1/documents/{id}/access");
    world.rest("ann")?.put(&path, &list).await
}

#[tokio::test]
async fn who_may_not_make_documents_can_not_tell_foreign_from_unknown() -> Result<()> {
    let world = World::start(&["--creator", "ann", "--creator", "group:staff"])?;
    let foreign = world.document().await?;
    let unknown = fresh().to_string();
    let sam = world.rest("sam")?;
    let described = sam.get("/v1/openapi.json").await?.good()?.json()?;
    let change = "0".repeat(64);
    for (template, methods) in described["paths"].as_object().context("paths")? {
        for (method, operation) in methods.as_object().context("methods")? {
            let operation = operation["operationId"].as_str().context("a name")?;
            if template.contains("{id}") {
                let asked = Asked::of(operation, method, template, &foreign, &change)?;
                let of_foreign = asked.by(&sam).await?;
                let asked = Asked::of(operation, method, template, &unknown, &change)?;
                let of_unknown = asked.by(&sam).await?;
                ensure!(of_foreign.status == StatusCode::NOT_FOUND, "{operation}");
                let same = told(&of_foreign, &foreign) == told(&of_unknown, &unknown);
                ensure!(same, "{operation}: {of_foreign:?} {of_unknown:?}");
            }
        }
    }
    let made = sam.post("/v1/documents", &json!({})).await?;
    ensure!(made.status == StatusCode::FORBIDDEN && made.json()?["code"] == "not-allowed");
    for with_changes in [false, true] {
        let mut document = AutoCommit::new();
        if with_changes {
            document.put(ROOT, "new", true)?;
        }
        let data = sync_data(&mut document, with_changes);
        for id in [&foreign, &unknown] {
            let mut client = world.raw("sam", "sam").await?;
            client.send(&client.sync_message(id, &data)?).await?;
            let got = next_of(&mut client, id).await?;
            ensure!(
                matches!(got, Some(Message::DocUnavailable { .. })),
                "{got:?}"
            );
            ensure!(next_of(&mut client, id).await?.is_none());
        }
    }
    // A member of staff may.
    let token = world.issuer.of_member("sue", &["staff"])?;
    let sue = Rest::new(world.server.address()).with_token(&token);
    ensure!(sue.post("/v1/documents", &json!({})).await?.status == StatusCode::CREATED);
    Ok(())
}

/// Who is refused does not have the id all the same.
#[tokio::test]
async fn a_document_that_is_not_made_is_nobodys() -> Result<()> {
    let limits = ["--creator", "anyone", "--max-documents-per-principal", "1"];
    let world = World::start(&limits)?;
    let (ann, bob) = (world.rest("ann")?, world.rest("bob")?);
    let seen = format!("\"{}\"", "a".repeat(64));
    let ids = [fresh(), fresh()];
    for id in &ids {
        let path = format!("/v1/documents/{id}");
        let refused = ann.put_seen(&path, &seen, &json!({})).await?;
        ensure!(refused.status == 412, "{refused:?}");
        ensure!(refused.json()?["code"] == "unknown-heads", "{refused:?}");
    }
    let [first, second] = ids.map(|id| format!("/v1/documents/{id}"));
    ensure!(bob.put(&first, &json!({})).await?.status == 201);
    ensure!(ann.put(&second, &json!({})).await?.status == 201);
    Ok(())
}

/// Who has taken an id, and made nothing, does not get what others would make there.
#[tokio::test]
async fn what_is_taken_and_not_made_is_not_for_others_to_fill() -> Result<()> {
    let world = World::start(&["--creator", "anyone", "--share", "anyone=writer"])?;
    let (ann, id) = (world.rest("ann")?, fresh());
    let mut document = AutoCommit::new();
    document.put(ROOT, "a", 1)?;
    let first = document.get_heads();
    document.put(ROOT, "a", 2)?;
    document.commit();
    // A change of which that before it is missing.
    let data = sync_data_since(&mut document, Some(&first));
    let mut eve = world.raw("eve", "eve").await?;
    eve.send(&eve.sync_message(id.as_str(), &data)?).await?;
    next_of(&mut eve, id.as_str()).await?.context("an answer")?;
    let path = format!("/v1/documents/{id}");
    let refused = ann.put(&path, &json!({ "secret": 1 })).await?;
    ensure!(refused.status == 403, "{refused:?}");
    let told = world.rest("eve")?.get(&path).await?;
    ensure!(told.status == StatusCode::NOT_FOUND, "{told:?}");
    Ok(())
}

#[tokio::test]
async fn lists_are_read_replaced_and_remembered() -> Result<()> {
    let mut world = World::start(&["--share", "group:board=reader"])?;
    let id = world.document().await?;
    let ann = world.rest("ann")?;
    let path = format!("/v1/documents/{id}/access");
    let shown = ann.get(&path).await?.good()?;
    ensure!(shown.etag()? == "\"access-1\"");
    let names = json!({ "ann": "owner", "wes": "writer", "ria": "reader" });
    let expected = json!({ "anyone": "none", "groups": {}, "principals": names });
    ensure!(shown.json()? == json!({ "role": "owner", "list": expected }));
    // Others are told their own role, and nobody else's.
    let of_ria = world.rest("ria")?.get(&path).await?.good()?;
    ensure!(of_ria.json()? == json!({ "role": "reader" }) && of_ria.etag.is_none());

    let new = json!({ "principals": { "ann": "owner", "sam": "owner" } });
    // A list that came compressed has a tag with a suffix, and is the same.
    for tag in [
        "\"access-0\"",
        "\"access-0-gzip\"",
        "\"access-1\", \"access-0\"",
    ] {
        let stale = ann.put_seen(&path, tag, &new).await?;
        ensure!(stale.status == StatusCode::PRECONDITION_FAILED, "{stale:?}");
    }
    for (bad, status, code) in [
        (
            json!({ "principals": { "ann": "writer" } }),
            422,
            "bad-access-list",
        ),
        (
            json!({ "principals": { "ann": "owner", "": "reader" } }),
            422,
            "bad-access-list",
        ),
        (json!({ "principals": { "ann": "king" } }), 400, "bad-json"),
        (
            json!({ "anybody": "reader", "principals": { "ann": "owner" } }),
            400,
            "bad-json",
        ),
        (json!([]), 400, "bad-json"),
    ] {
        let refused = ann.put(&path, &bad).await?;
        ensure!(
            refused.status == status && refused.json()?["code"] == code,
            "{bad}: {refused:?}"
        );
    }
    let replaced = ann.put_seen(&path, "W/\"access-1-gzip\"", &new).await?;
    let replaced = replaced.good()?;
    ensure!(replaced.etag()? == "\"access-2\"");
    ensure!(world.rest("wes")?.get(&path).await?.status == StatusCode::NOT_FOUND);
    ensure!(world.rest("sam")?.get(&path).await?.json()?["role"] == "owner");

    // All that was said is there, also after the process was killed.
    world.server.kill()?;
    world.server.restart()?;
    let history = world
        .rest("sam")?
        .get(&format!("{path}/history"))
        .await?
        .good()?
        .json()?;
    let entries = history["entries"].as_array().context("entries")?;
    let said: Vec<_> = entries
        .iter()
        .map(|entry| (&entry["number"], &entry["by"]))
        .collect();
    ensure!(
        said == [
            (&json!(0), &json!("ann")),
            (&json!(1), &json!("ann")),
            (&json!(2), &json!("ann"))
        ]
    );
    ensure!(entries[0]["list"]["groups"] == json!({ "board": "reader" }));
    ensure!(entries[1]["list"] == expected);
    ensure!(history["next"].is_null());
    ensure!(world.rest("wes")?.get(&path).await?.status == StatusCode::NOT_FOUND);
    Ok(())
}

/// Names of so many characters, and their roles.
fn many(count: usize, character: char, length: usize) -> Value {
    let mut names = serde_json::Map::from_iter([("ann".to_owned(), json!("owner"))]);
    for n in 1..count {
        let rest: String = std::iter::repeat_n(character, length).collect();
        names.insert(format!("{n:03}{rest}"), json!("reader"));
    }
    json!({ "principals": names })
}

#[tokio::test]
async fn lists_that_are_too_large_as_they_are_stored_are_refused_and_nobody_notices() -> Result<()>
{
    let world = World::start(&[])?;
    let id = world.document().await?;
    let (ann, ria) = (world.rest("ann")?, world.rest("ria")?);
    let path = format!("/v1/documents/{id}/access");
    let events = ria.request(Method::GET, &format!("/v1/documents/{id}/events/"));
    let mut events = events.send().await?.error_for_status()?;
    events.chunk().await?.context("the first event")?;
    // The second is short enough but for what has to be escaped.
    for list in [many(256, 'x', 250), many(256, '"', 120)] {
        let refused = ann.put(&path, &list).await?;
        ensure!(refused.status == 422, "{refused:?}");
        ensure!(refused.json()?["code"] == "bad-access-list", "{refused:?}");
    }
    let ends = async {
        while events.chunk().await?.is_some() {}
        anyhow::Ok(())
    };
    ensure!(timeout(A_WHILE, ends).await.is_err(), "it ended");
    let held = ann.get(&path).await?.good()?;
    ensure!(held.etag()? == "\"access-1\"");
    // Nothing is written of what holds already.
    let same = held.json()?["list"].clone();
    let again = ann.put_seen(&path, "\"access-1\"", &same).await?.good()?;
    ensure!(again.etag()? == "\"access-1\"");
    ensure!(ann.put(&path, &many(256, 'x', 120)).await?.good()?.etag()? == "\"access-2\"");
    Ok(())
}

#[tokio::test]
async fn the_history_of_long_lists_comes_in_short_pages() -> Result<()> {
    const LISTS: usize = 60;
    let world = World::start(&[])?;
    let id = world.document().await?;
    let ann = world.rest("ann")?;
    let path = format!("/v1/documents/{id}/access");
    for n in 0..LISTS {
        let character = if n % 2 == 0 { 'x' } else { 'y' };
        ann.put(&path, &many(256, character, 150)).await?.good()?;
    }
    let (mut numbers, mut pages) = (Vec::new(), 0);
    let mut next = String::new();
    loop {
        let page = ann.get(&format!("{path}/history?limit=1000{next}")).await?;
        let page = page.good()?.json()?;
        ensure!(page.to_string().len() < 3 << 19, "a page is too large");
        pages += 1;
        for entry in page["entries"].as_array().context("entries")? {
            numbers.push(entry["number"].as_u64().context("a number")?);
        }
        let Some(after) = page["next"].as_u64() else {
            break;
        };
        next = format!("&after={after}");
    }
    ensure!(numbers == (0..LISTS as u64 + 2).collect::<Vec<_>>());
    ensure!((2..6).contains(&pages), "{pages} pages");
    // A page that is not the last has as many as were asked for.
    let page = ann.get(&format!("{path}/history?limit=2")).await?.good()?;
    ensure!(page.json()?["entries"].as_array().context("entries")?.len() == 2);
    ensure!(page.json()?["next"] == 1);
    Ok(())
}

#[tokio::test]
async fn everybody_lists_what_they_may_read_and_operators_everything() -> Result<()> {
    let world = World::start(&["--operator", "root"])?;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(world.document().await?);
    }
    let mine = world
        .rest("sam")?
        .post("/v1/documents", &json!({}))
        .await?
        .good()?;
    let mine = mine.location.context("a place")?;
    share(
        &world,
        &ids[0],
        json!({ "principals": { "ann": "owner" }, "anyone": "reader" }),
    )
    .await?
    .good()?;
    // Whoever knows its id may read it, and nobody is told that.
    let known = format!("/v1/documents/{}", ids[0]);
    ensure!(world.rest("sam")?.get(&known).await?.status == StatusCode::OK);
    ids.sort();
    for (who, count) in [("ann", 5), ("ria", 4), ("sam", 1), ("root", 6)] {
        let rest = world.rest(who)?;
        let mut found = Vec::new();
        let mut next = String::new();
        loop {
            let page = rest
                .get(&format!("/v1/documents?limit=2{next}"))
                .await?
                .good()?
                .json()?;
            for document in page["documents"].as_array().context("documents")? {
                found.push(document["id"].as_str().context("an id")?.to_owned());
            }
            let Some(after) = page["next"].as_str() else {
                break;
            };
            next = format!("&after={after}");
        }
        ensure!(
            found.len() == count && found.is_sorted(),
            "{who}: {found:?}"
        );
        ensure!(who != "sam" || found.iter().any(|id| mine.ends_with(id.as_str())));
    }
    for path in ["/metrics", "/v1/refusals"] {
        ensure!(
            world.rest("root")?.get(path).await?.status == StatusCode::OK,
            "{path}"
        );
        let refused = world.rest("ann")?.get(path).await?;
        ensure!(refused.status == StatusCode::FORBIDDEN, "{path}");
        ensure!(refused.json()?["code"] == "not-allowed", "{path}");
    }
    // An operator owns what is others'.
    let path = format!("/v1/documents/{}/access", ids[1]);
    ensure!(world.rest("root")?.get(&path).await?.json()?["role"] == "owner");
    Ok(())
}

#[tokio::test]
async fn what_is_taken_away_is_gone_within_a_second() -> Result<()> {
    let world = World::start(&[])?;
    let id = world.document().await?;
    let path = format!("/v1/documents/{id}");
    let ria = world.rest("ria")?;
    let events = ria.request(Method::GET, &format!("{path}/events/"));
    let mut events = events.send().await?.error_for_status()?;
    let first = events.chunk().await?.context("a first event")?;
    ensure!(!first.is_empty());
    let mut reads = world.raw("ria", "ria-reads").await?;
    let request = reads.sync_message(&id, &sync_data(&mut AutoCommit::new(), false))?;
    reads.send(&request).await?;
    let got = next_of(&mut reads, &id).await?;
    ensure!(matches!(got, Some(Message::Sync { .. })), "{got:?}");

    let only_ann = json!({ "principals": { "ann": "owner" } });
    share(&world, &id, only_ann).await?.good()?;
    let second = Duration::from_secs(1);
    let ended = timeout(second, async {
        while events.chunk().await?.is_some() {}
        anyhow::Ok(())
    });
    ended.await.context("the stream of events goes on")??;
    let got = timeout(second, next_of(&mut reads, &id)).await??;
    ensure!(
        matches!(got, Some(Message::DocUnavailable { .. })),
        "{got:?}"
    );
    let told = ria.get(&path).await?;
    ensure!(told.status == StatusCode::NOT_FOUND);
    // Nothing of what is written now reaches them.
    let ann = world.rest("ann")?;
    ann.put(&format!("{path}/value/secret"), &json!(1))
        .await?
        .good()?;
    ensure!(next_of(&mut reads, &id).await?.is_none());
    Ok(())
}

#[tokio::test]
async fn who_gets_a_role_while_they_wait_gets_that_one_and_no_more() -> Result<()> {
    let world = World::start(&[])?;
    let id = world.document().await?;
    let mut sam = world.raw("sam", "sam").await?;
    let asked = sam.sync_message(&id, &sync_data(&mut AutoCommit::new(), false))?;
    sam.send(&asked).await?;
    let got = next_of(&mut sam, &id).await?;
    ensure!(
        matches!(got, Some(Message::DocUnavailable { .. })),
        "{got:?}"
    );
    let list = json!({ "principals": { "ann": "owner", "sam": "reader" } });
    share(&world, &id, list).await?.good()?;
    let Some(Message::Sync { data, .. }) = next_of(&mut sam, &id).await? else {
        bail!("a reader is told nothing");
    };
    let flags = automerge::sync::Message::decode(&data)?.flags;
    let flags = flags.context("flags")?;
    let read_only = automerge::sync::MessageFlags::READ_ONLY;
    ensure!(flags.contains(read_only), "{flags:?}");
    Ok(())
}

#[tokio::test]
async fn a_token_that_grants_roles_decides_alone() -> Result<()> {
    let world = World::start(&[])?;
    let id = world.document().await?;
    let by = |grants: Value| -> Result<Rest> {
        let token = world.issuer.granting("ann", &grants)?;
        Ok(Rest::new(world.server.address()).with_token(&token))
    };
    let path = format!("/v1/documents/{id}");
    let write = |rest: Rest| {
        let path = format!("{path}/value/n");
        async move { anyhow::Ok(rest.put(&path, &json!(1)).await?.status.as_u16()) }
    };
    let begins = format!("{}*", &id[..4]);
    ensure!(write(by(json!({ &id: "writer" }))?).await? == 201);
    ensure!(write(by(json!({ &id: "reader", &begins: "owner" }))?).await? == 403);
    ensure!(write(by(json!({ &begins: "writer" }))?).await? == 200);
    ensure!(write(by(json!({ &begins: "writer", &id: "none" }))?).await? == 404);
    // Though she owns it.
    ensure!(write(by(json!({}))?).await? == 404);
    ensure!(
        by(json!({ "team-*": "writer" }))?
            .put("/v1/documents/team-1", &json!({}))
            .await?
            .status
            == 404
    );
    ensure!(
        by(json!({ "team-*": "owner" }))?
            .put("/v1/documents/team-1", &json!({}))
            .await?
            .status
            == 201
    );
    // It is hers also without such a token.
    ensure!(world.rest("ann")?.get("/v1/documents/team-1").await?.status == 200);
    ensure!(world.rest("sam")?.get("/v1/documents/team-1").await?.status == 404);
    for bad in [json!([]), json!({ "a": "king" }), json!("all")] {
        let refused = by(bad.clone())?.get("/v1/documents").await?;
        ensure!(
            refused.status == 401 && refused.json()?["code"] == "token-claims",
            "{bad}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn where_nobody_says_who_they_are_there_are_no_lists() -> Result<()> {
    let server = ServerProcess::start()?;
    let rest = Rest::new(server.address());
    rest.put("/v1/documents/x", &json!({})).await?.good()?;
    let shown = rest.get("/v1/documents/x/access").await?.good()?;
    ensure!(shown.json()? == json!({ "role": "owner" }));
    let list = json!({ "principals": { "ann": "owner" } });
    let refused = rest.put("/v1/documents/x/access", &list).await?;
    ensure!(refused.status == StatusCode::CONFLICT && refused.json()?["code"] == "open-to-all");
    let history = rest.get("/v1/documents/x/access/history").await?.good()?;
    ensure!(history.json()? == json!({ "entries": [], "next": null }));
    Ok(())
}
