//! What is not about one document: operations, other addresses, and messages about a connection.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, bail, ensure};
use concord_server::connection::own::Said;
use concord_shared::wire::{Kind, Message};
use concord_tests::raw_client::RawClient;
use reqwest::header::CONTENT_TYPE;
use serde_json::json;

use super::super::rest::{Answer, Rest};
use super::askers::{Asker, Fate, Realm, content};
use super::fresh;
use super::messages;
use super::operations::{self, Operation};
use super::table::Table;

/// The rows of Concord's own messages.
fn row_of(said: &Said) -> &'static str {
    match said {
        Said::Token { .. } => "token",
    }
}

fn column(realm: &Realm, asker: &Asker) -> &'static str {
    match asker {
        _ if !realm.lets_in(asker) => "without a token",
        asker if asker.is_operator => "operators",
        asker if asker.makes_others => "who may make documents",
        _ => "who may make none",
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_about_a_document_is_for_whom_the_table_says() -> Result<()> {
    let table = Table::of_the_rest()?;
    let mut done = BTreeSet::new();
    for realm in Realm::all().await? {
        let all = operations::all(&realm.onlooker()?).await?;
        let deleted = realm.document(&realm.askers()[0], Fate::Deleted).await?;
        for asker in realm.askers() {
            let Asker { way, role, .. } = &asker;
            let by = format!("{role} {way}, {:?}", realm.decides);
            let column = column(&realm, &asker);
            let of_role = realm.document(&asker, Fate::There).await?;
            let rest = realm.rest(&asker, &of_role)?;
            let is_other = |operation: &&Operation| !operation.is_about_a_document();
            for operation in all.iter().filter(is_other) {
                let row = operation.row(&table, &realm, &asker);
                let expected = table.cell(&row, column)?;
                let answer = operation.asked(&realm, &rest, "", "").await?;
                let right = if expected == "own" {
                    let own = realm.listed(&rest).await?;
                    let has_it = own.contains(&of_role) == asker.is_told();
                    has_it && !own.contains(&deleted)
                } else {
                    is_right(&realm, &asker, &row, expected, &answer).await?
                };
                let told = String::from_utf8_lossy(&answer.body).into_owned();
                ensure!(right, "{row} by {by}: {} {told}", answer.status);
                done.insert(row);
            }
            for row in table.rows().into_iter().filter(|row| row.starts_with('/')) {
                let expected = table.cell(row, column)?;
                let right = at(&realm, &asker, &rest, row, expected).await;
                right.with_context(|| format!("{row} by {by}"))?;
                done.insert(row.to_owned());
            }
            let kinds = Kind::ALL.into_iter();
            let kinds = kinds.filter(|kind| messages::rows_of(*kind).is_empty());
            let own = row_of(&Said::Token {
                token: String::new(),
            });
            for row in kinds.map(Kind::as_str).chain([own]) {
                let expected = table.cell(row, column)?;
                let right = says(&realm, &asker, row, expected).await;
                right.with_context(|| format!("{row} by {by}"))?;
                done.insert(row.to_owned());
            }
        }
    }
    let done: BTreeSet<&str> = done.iter().map(String::as_str).collect();
    let rows = table.rows();
    let other: Vec<_> = done.symmetric_difference(&rows).collect();
    ensure!(other.is_empty(), "{other:?}");
    Ok(())
}

/// Whether an operation was answered like this, and did what it is to do.
async fn is_right(
    realm: &Realm,
    asker: &Asker,
    row: &str,
    expected: &str,
    answer: &Answer,
) -> Result<bool> {
    let code = || anyhow::Ok(answer.json()?["code"].clone());
    Ok(match (expected, row) {
        ("401", _) => answer.status == 401 && code()? == "unauthenticated",
        ("403", _) => answer.status == 403 && code()? == "not-allowed",
        ("all", _) => {
            let all = realm.listed(&realm.rest(asker, "")?).await?;
            let all: BTreeSet<String> = all.into_iter().collect();
            all == *realm.there()
        }
        ("yes", "createDocument" | "createDocument as Automerge") => {
            let location = answer.location.as_deref().context("a place")?;
            let id = location.rsplit('/').next().context("an id")?;
            realm.there().insert(id.to_owned());
            let there = realm.look(id).await?;
            let value = if row == "createDocument" {
                content()
            } else {
                json!({ "imported": true })
            };
            let list = &there.access.2["list"]["principals"];
            let is_theirs = list[asker.name] == "owner" || !asker.is_known();
            answer.status == 201 && there.value.2 == value && is_theirs
        }
        ("yes", "listRefusals") => answer.status == 200 && answer.json()?["refusals"].is_array(),
        ("yes", "getOpenApi") => answer.status == 200 && answer.json()?["paths"].is_object(),
        ("yes", "getDocs") => {
            answer.status == 200
                && answer
                    .header(CONTENT_TYPE.as_str())
                    .starts_with("text/html")
        }
        other => bail!("{other:?} is nothing that happens"),
    })
}

/// What is at an address.
async fn at(realm: &Realm, asker: &Asker, rest: &Rest, row: &str, expected: &str) -> Result<()> {
    let answer = rest.get(&row.replace("{name}", "main.js")).await?;
    let told = String::from_utf8_lossy(&answer.body);
    let right = match (expected, row) {
        ("401", _) => answer.status == 401 && answer.json()?["code"] == "unauthenticated",
        ("403", _) => answer.status == 403 && answer.json()?["code"] == "not-allowed",
        // It takes nothing but WebSockets.
        ("yes", "/sync") => realm.raw(asker, "", fresh().as_str()).await.is_ok(),
        ("yes", "/metrics") => answer.status == 200 && told.contains("concord_connections"),
        ("yes", _) => answer.status == 200 && !told.is_empty(),
        other => bail!("{other:?} is nothing that happens"),
    };
    ensure!(right, "{}: {told:.200}", answer.status);
    Ok(())
}

/// What becomes of a connection.
async fn says(realm: &Realm, asker: &Asker, row: &str, expected: &str) -> Result<()> {
    let joined = realm.raw(asker, "", fresh().as_str()).await;
    if expected == "401" {
        let refused = joined.err().context("it joined")?;
        ensure!(format!("{refused:#}").contains("401"), "{refused:#}");
        return Ok(());
    }
    let mut client = joined?;
    let (sender, target) = (client.peer().clone(), client.server()?.clone());
    match (row, expected) {
        ("join", "yes") => is_served(&mut client).await,
        ("token", "yes") => {
            let token = realm.token(asker)?.unwrap_or_default();
            let said = json!({ "type": "token", "token": token });
            client.send_text(&said.to_string()).await?;
            let answer = client.next_text().await?;
            ensure!(answer.contains("until"), "{answer}");
            is_served(&mut client).await
        }
        ("error", "nothing") => {
            let message = "wrong".to_owned();
            let (sender, target) = (Some(sender), Some(target));
            let error = Message::Error {
                message,
                sender,
                target,
            };
            client.send(&error).await?;
            is_served(&mut client).await
        }
        ("peer", "closed") => {
            let metadata = concord_shared::wire::PeerMetadata::default();
            let version = "1".to_owned();
            let peer = Message::Peer {
                sender,
                target,
                version,
                metadata,
            };
            client.send(&peer).await?;
            let refusal = client.refusal().await?;
            ensure!(refusal.reason == "protocol", "{refusal:?}");
            Ok(())
        }
        ("leave", "yes") => {
            client.send(&Message::Leave { sender }).await?;
            let end = client.refusal().await?;
            ensure!(
                end.close_code == Some(1000) && end.message.is_none(),
                "{end:?}"
            );
            Ok(())
        }
        other => bail!("{other:?} is nothing that happens"),
    }
}

/// A connection goes on.
async fn is_served(client: &mut RawClient) -> Result<()> {
    let nobodys = fresh();
    client.ask(&nobodys).await?;
    let answer = client.next().await?;
    ensure!(
        matches!(answer, Message::DocUnavailable { .. }),
        "{answer:?}"
    );
    Ok(())
}
