//! Lists of roles: who is on them, what they say, and what becomes of those who have the document open.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use automerge::transaction::Transactable as _;
use automerge::{AutoCommit, ROOT};
use concord_shared::wire::Message;
use concord_tests::server_process::ServerProcess;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::super::rest::{Answer, Rest};
use super::{A_WHILE, World, fresh, next_of, sync_data, sync_data_since};

/// Says who may do what with a document of ann's.
async fn share(world: &World, id: &str, list: Value) -> Result<Answer> {
    let path = format!("/v1/documents/{id}/access");
    world.rest("ann")?.put(&path, &list).await
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

/// Who sends something to an id, and makes nothing, does not own what others make there.
#[tokio::test]
async fn nobody_takes_an_id_by_what_waits() -> Result<()> {
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
    let made = ann.put(&path, &json!({ "secret": 1 })).await?;
    ensure!(made.status == 201, "{made:?}");
    let path = format!("{path}/access");
    for (who, role) in [("ann", "owner"), ("eve", "writer")] {
        let told = world.rest(who)?.get(&path).await?.good()?;
        ensure!(told.json()?["role"] == role, "{who}: {told:?}");
    }
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

/// Whether a sync message says that nothing is taken from who gets it.
fn is_read_only(message: Option<Message>) -> Result<bool> {
    let Some(Message::Sync { data, .. }) = message else {
        bail!("no sync message: {message:?}");
    };
    let flags = automerge::sync::Message::decode(&data)?.flags;
    let flags = flags.context("flags")?;
    Ok(flags.contains(automerge::sync::MessageFlags::READ_ONLY))
}

/// Counted from when it is said, not from when that is answered.
#[tokio::test]
async fn who_is_made_a_reader_is_told_so_within_a_second() -> Result<()> {
    let world = World::start(&[])?;
    let id = world.document().await?;
    let mut wes = world.raw("wes", "wes").await?;
    let asked = wes.sync_message(&id, &sync_data(&mut AutoCommit::new(), false))?;
    wes.send(&asked).await?;
    ensure!(!is_read_only(next_of(&mut wes, &id).await?)?);
    let list = json!({ "principals": { "ann": "owner", "wes": "reader" } });
    let told = async { is_read_only(next_of(&mut wes, &id).await?) };
    let both = async { tokio::join!(share(&world, &id, list), told) };
    let (shared, told) = timeout(Duration::from_secs(1), both).await?;
    shared?.good()?;
    ensure!(told?);

    let mut mine = AutoCommit::new();
    mine.put(ROOT, "by", "wes")?;
    mine.commit();
    let write = wes.sync_message(&id, &sync_data(&mut mine, true))?;
    wes.send(&write).await?;
    tokio::time::sleep(A_WHILE).await;
    let ann = world.rest("ann")?;
    let value = ann.get(&format!("/v1/documents/{id}")).await?.good()?;
    ensure!(value.json()?["by"].is_null());
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
    ensure!(is_read_only(next_of(&mut sam, &id).await?)?);
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
