//! Promise: everybody finds what a list, or their token, names them for, at once and wherever it lies among others'
//! documents; and of those that are not for them no page tells anything, by what is in it, nor by where it ends.
//!
//! It can't pass by accident: there are more foreign documents than are looked at for a page, on both sides of one's own
//! and between these, and pages with and without them are compared.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use automerge::transaction::Transactable as _;
use automerge::{AutoCommit, ROOT};
use bytes::Bytes;
use concord_server::access::grants::Entry;
use concord_server::store::{Durability, SledOptions, SledStore, Store as _, Write};
use concord_shared::access::{AccessList, Role, Subject};
use concord_shared::ids::PrincipalId;
use concord_tests::server_process::ServerProcess;
use serde_json::{Value, json};

use super::rest::Rest;
use super::roles::{World, fresh};

/// A page of the list.
async fn page(rest: &Rest, limit: usize, after: Option<&str>) -> Result<Value> {
    let after = after.map_or(String::new(), |after| format!("&after={after}"));
    let path = format!("/v1/documents?limit={limit}{after}");
    rest.get(&path).await?.good()?.json()
}

fn ids(page: &Value) -> Result<Vec<String>> {
    let documents = page["documents"].as_array().context("documents")?;
    let id = |document: &Value| Some(document["id"].as_str()?.to_owned());
    documents
        .iter()
        .map(|one| id(one).context("an id"))
        .collect()
}

/// All that somebody is told of, by pages of two.
async fn told(rest: &Rest) -> Result<BTreeSet<String>> {
    let (mut found, mut after) = (Vec::new(), None::<String>);
    loop {
        let page = page(rest, 2, after.as_deref()).await?;
        found.extend(ids(&page)?);
        match page["next"].as_str() {
            Some(next) => after = Some(next.to_owned()),
            None => break,
        }
    }
    ensure!(found.is_sorted(), "{found:?}");
    let count = found.len();
    let found: BTreeSet<String> = found.into_iter().collect();
    ensure!(found.len() == count, "one came twice");
    Ok(found)
}

async fn made(rest: &Rest) -> Result<String> {
    let made = rest.post("/v1/documents", &json!({})).await?.good()?;
    let location = made.location.context("a place")?;
    Ok(location.rsplit('/').next().context("an id")?.to_owned())
}

async fn share(rest: &Rest, id: &str, list: &Value) -> Result<()> {
    let path = format!("/v1/documents/{id}/access");
    rest.put(&path, list).await?.good()?;
    Ok(())
}

#[tokio::test]
async fn no_page_of_the_list_tells_of_documents_that_are_not_for_who_asks() -> Result<()> {
    // More than are looked at for a page.
    const FOREIGN: usize = 1_200;
    let mut world = World::start(&["--new-documents-per-minute", "0"])?;
    let (ann, sam) = (world.rest("ann")?, world.rest("sam")?);
    let mut own = BTreeSet::new();
    for _ in 0..3 {
        own.insert(made(&sam).await?);
    }
    let mut foreign = BTreeSet::new();
    for _ in 0..FOREIGN / 50 {
        let some = (0..50).map(|_| made(&ann));
        foreign.extend(futures_util::future::try_join_all(some).await?);
    }
    ensure!(foreign.len() == FOREIGN);
    // One page, and none behind it.
    for limit in [4, 100, 1_000] {
        let told = page(&sam, limit, None).await?;
        ensure!(
            ids(&told)?.into_iter().collect::<BTreeSet<_>>() == own,
            "{told}"
        );
        ensure!(told["next"].is_null(), "{told}");
    }
    // Who has none is told so at once.
    let none = page(&world.rest("eve")?, 1, None).await?;
    ensure!(none == json!({ "documents": [], "next": null }), "{none}");
    // Full pages go on where they ended, whatever lies between.
    let (mut after, mut seen) = (None::<String>, Vec::new());
    for _ in 0..3 {
        let told = page(&sam, 1, after.as_deref()).await?;
        let [id] = &ids(&told)?[..] else {
            anyhow::bail!("{told}");
        };
        seen.push(id.clone());
        after = Some(told["next"].as_str().context("a next page")?.to_owned());
    }
    ensure!(seen.iter().eq(own.iter()), "{seen:?}");
    let end = page(&sam, 1, after.as_deref()).await?;
    ensure!(end == json!({ "documents": [], "next": null }), "{end}");
    // Nobody can say where a page begins, and who was told can't tell others.
    let of_sam = after.context("a cursor")?;
    let of_ann = page(&ann, 1_000, None).await?;
    let of_ann = of_ann["next"].as_str().context("a next page")?;
    let id = foreign.first().context("an id")?;
    for (rest, after) in [
        (&sam, id.as_str()),
        (&sam, of_ann),
        (&ann, &of_sam),
        (&ann, ""),
    ] {
        let refused = rest.get(&format!("/v1/documents?after={after}")).await?;
        ensure!(refused.status == 400, "{after}: {refused:?}");
        ensure!(refused.json()?["code"] == "bad-query", "{refused:?}");
    }
    // Where a page ended is known after a restart, and so is who finds what.
    world.server.kill()?;
    world.server.restart()?;
    let (ann, sam) = (world.rest("ann")?, world.rest("sam")?);
    let more = page(&ann, 1_000, Some(of_ann)).await?;
    ensure!(ids(&more)?.iter().eq(foreign.iter().skip(1_000)));
    ensure!(told(&sam).await? == own);
    Ok(())
}

#[tokio::test]
async fn everybody_finds_what_the_list_of_the_moment_names_them_for() -> Result<()> {
    let mut world = World::start(&["--operator", "root"])?;
    let as_member = |world: &World, who: &str, groups: &[&str]| -> Result<Rest> {
        let token = world.issuer.of_member(who, groups)?;
        Ok(Rest::new(world.server.address()).with_token(&token))
    };
    let ann = world.rest("ann")?;
    let mine = BTreeSet::from([made(&ann).await?]);
    let id = mine.first().context("an id")?.clone();
    let other = made(&ann).await?;
    let none = BTreeSet::new();
    let (bob, board) = (world.rest("bob")?, as_member(&world, "bob", &["board"])?);
    ensure!(told(&bob).await? == none && told(&board).await? == none);

    let owner = json!({ "ann": "owner" });
    share(
        &ann,
        &id,
        &json!({ "principals": owner, "groups": { "board": "reader" } }),
    )
    .await?;
    // By what the token says now: of the group or not, under another name, in another group, of that name.
    ensure!(told(&bob).await? == none && told(&board).await? == mine);
    ensure!(told(&as_member(&world, "robert", &["staff", "board"])?).await? == mine);
    ensure!(told(&as_member(&world, "board", &["staff"])?).await? == none);

    // Kept out by name, of what others in the group find.
    let list =
        json!({ "principals": { "ann": "owner", "bob": "none" }, "groups": { "board": "reader" } });
    share(&ann, &id, &list).await?;
    ensure!(told(&board).await? == none);
    ensure!(told(&as_member(&world, "cyd", &["board"])?).await? == mine);

    // By name, and whoever knows the id besides.
    let list = json!({ "principals": { "ann": "owner", "bob": "writer" }, "anyone": "reader" });
    share(&ann, &id, &list).await?;
    ensure!(told(&bob).await? == mine && told(&board).await? == mine);
    ensure!(told(&as_member(&world, "cyd", &["board"])?).await? == none);

    // Not as long as it is deleted, and again when that is taken back; also after a restart.
    let path = format!("/v1/documents/{id}");
    ann.delete(&path).await?.good()?;
    ensure!(told(&bob).await? == none);
    ensure!(told(&ann).await? == BTreeSet::from([other.clone()]));
    world.server.kill()?;
    world.server.restart()?;
    let (ann, bob) = (world.rest("ann")?, world.rest("bob")?);
    ensure!(told(&bob).await? == none);
    ann.delete(&format!("{path}/deletion")).await?.good()?;
    ensure!(told(&bob).await? == mine);

    // What is taken is found no more.
    share(&ann, &id, &json!({ "principals": owner })).await?;
    ensure!(told(&bob).await? == none);
    let both = BTreeSet::from([id, other]);
    ensure!(told(&ann).await? == both);
    ensure!(told(&world.rest("root")?).await? == both);
    Ok(())
}

#[tokio::test]
async fn who_has_grants_finds_what_they_are_about() -> Result<()> {
    let world = World::start(&[])?;
    let ann = world.rest("ann")?;
    for id in ["team-1", "team-2", "team-20", "team-x1", "other"] {
        ann.put(&format!("/v1/documents/{id}"), &json!({}))
            .await?
            .good()?;
    }
    for (grants, found) in [
        (json!({}), &[][..]),
        (
            json!({ "team-2": "reader", "nobody": "reader" }),
            &["team-2"],
        ),
        (
            json!({ "team-2*": "writer", "other": "none" }),
            &["team-2", "team-20"],
        ),
        (
            json!({ "team-*": "reader", "team-x*": "none", "team-1": "none" }),
            &["team-2", "team-20"],
        ),
        (json!({ "*": "reader", "team*": "none" }), &["other"]),
    ] {
        // Though she owns all of them.
        let token = world.issuer.granting("ann", &grants)?;
        let rest = Rest::new(world.server.address()).with_token(&token);
        let told = told(&rest).await?;
        ensure!(told.iter().eq(found), "{grants}: {told:?}");
    }
    Ok(())
}

/// What was stored by a build that knew only lists is found by them, once a server of this one was started on it.
#[tokio::test]
async fn what_an_earlier_build_stored_is_found() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let document = fresh();
    let store = SledStore::open(&SledOptions::new(&data))?;
    let mut list = AccessList::default();
    list.set(Subject::Principal("ann"), Role::Owner);
    list.set(Subject::Group("board"), Role::Reader);
    let by = "ann".to_owned();
    let said = Write::Access {
        document: document.clone(),
        number: 0,
        entry: Entry { at_ms: 1, by, list }.encode(),
        labels: Vec::new(),
    };
    let mut author = AutoCommit::new();
    author.put(ROOT, "title", "board")?;
    author.commit();
    let change = author.get_last_local_change().context("a change")?;
    let change = Write::Append {
        document: document.clone(),
        first: 0,
        received_at_ms: 1,
        principal: PrincipalId::new("ann")?,
        changes: vec![Bytes::copy_from_slice(change.raw_bytes())],
    };
    store.commit(&[said, change], Durability::Strict)?;
    drop(store);
    let issuer = concord_tests::issuer::Issuer::new()?;
    let mut server = ServerProcess::start_at(&data, &issuer.arguments(&[])?)?;
    let expected = BTreeSet::from([document.to_string()]);
    for _ in 0..2 {
        for (token, is_told) in [
            (issuer.of("ann")?, true),
            (issuer.of_member("bob", &["board"])?, true),
            (issuer.of("bob")?, false),
        ] {
            let rest = Rest::new(server.address()).with_token(&token);
            let told = told(&rest).await?;
            ensure!(
                told == if is_told {
                    expected.clone()
                } else {
                    BTreeSet::new()
                }
            );
        }
        server.kill()?;
        server.restart()?;
    }
    Ok(())
}
