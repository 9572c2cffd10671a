//! Promise: what is deleted is gone: at once, for everybody, after restarts, and in the end from the disk.
//!
//! The content that is searched for on the disk is random, so that nothing compresses or repeats it, and it is found there
//! before it is deleted, so that a search that finds nothing says something.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use automerge::transaction::Transactable as _;
use automerge::{ActorId, AutoCommit, ROOT};
use concord_client_wasm::Replica;
use concord_shared::DocumentId;
use concord_shared::wire::Message;
use concord_tests::client::Client;
use concord_tests::files::{is_found, needle};
use concord_tests::issuer::Issuer;
use concord_tests::raw_client::RawClient;
use concord_tests::server_process::{ServerProcess, binary};
use reqwest::StatusCode;
use serde_json::json;
use tokio::time::timeout;

use super::rest::Rest;

const SECOND: Duration = Duration::from_secs(1);

/// A document with a needle in it, which a client keeps.
async fn document(server: &ServerProcess, needle: &[u8]) -> Result<(DocumentId, Client)> {
    let mut uuid = [0; 16];
    uuid.copy_from_slice(ActorId::random().to_bytes());
    let id = DocumentId::from_uuid(uuid);
    let replica = Replica::new(id.clone(), ActorId::random());
    let mut client = Client::join(server.address(), "ann", replica).await?;
    let value = needle.to_vec();
    client.edit(|doc| doc.put(ROOT, "needle", value)).await?;
    let rest = Rest::new(server.address());
    let since = Instant::now();
    while !rest
        .get(&format!("/v1/documents/{id}"))
        .await?
        .status
        .is_success()
    {
        ensure!(since.elapsed() < 20 * SECOND, "it does not come");
        let soon = tokio::time::Instant::now() + Duration::from_millis(20);
        client.receive(soon, drop).await?;
        client.send().await?;
    }
    Ok((id, client))
}

/// What somebody is told who says that they have this.
async fn told(
    server: &ServerProcess,
    id: &DocumentId,
    document: &mut AutoCommit,
) -> Result<Message> {
    let mut client = RawClient::join(&server.websocket_url(), "comes back").await?;
    let changes: Vec<Vec<u8>> = document
        .get_changes(&[])
        .into_iter()
        .map(|change| change.raw_bytes().to_vec())
        .collect();
    let data = automerge::sync::Message {
        heads: document.get_heads(),
        need: Vec::new(),
        have: Vec::new(),
        changes: changes.into(),
        flags: None,
        version: automerge::sync::MessageVersion::V1,
    }
    .encode();
    client
        .send(&client.sync_message(id.as_str(), &data)?)
        .await?;
    client.next().await
}

#[tokio::test]
async fn what_is_deleted_is_gone_at_once_and_can_not_be_brought_back() -> Result<()> {
    let mut server = ServerProcess::start_with(&["--request-grace-ms", "100"])?;
    let (id, mut client) = document(&server, &needle()).await?;
    let rest = Rest::new(server.address());
    let path = format!("/v1/documents/{id}");
    let mut watches = rest.request(reqwest::Method::GET, &format!("{path}/events/"));
    watches = watches.timeout(30 * SECOND);
    let mut watches = watches.send().await?.error_for_status()?;
    ensure!(watches.chunk().await?.is_some());
    let mut tab = RawClient::join(&server.websocket_url(), "tab").await?;
    let greeting = asks(&tab, &id)?;
    tab.send(&greeting).await?;
    ensure!(matches!(tab.next().await?, Message::Sync { .. }));

    ensure!(rest.delete(&path).await?.status == StatusCode::NO_CONTENT);
    let got = timeout(SECOND, tab.next()).await??;
    ensure!(matches!(got, Message::DocUnavailable { .. }), "{got:?}");
    let ended = timeout(SECOND, async {
        while watches.chunk().await?.is_some() {}
        anyhow::Ok(())
    });
    ended.await.context("the stream of events goes on")??;
    let list = rest.get("/v1/documents").await?.good()?.json()?;
    ensure!(list["documents"] == json!([]));

    // By whatever way, and whoever comes; also after the process was killed.
    let mut kept = client.replica().doc().clone();
    kept.put(ROOT, "offline", true)?;
    for round in ["before", "after"] {
        let got = told(&server, &id, &mut kept).await?;
        ensure!(
            matches!(got, Message::DocUnavailable { .. }),
            "{round}: {got:?}"
        );
        let rest = Rest::new(server.address());
        ensure!(
            rest.get(&path).await?.status == StatusCode::NOT_FOUND,
            "{round}"
        );
        ensure!(
            rest.put(&path, &json!({})).await?.status == StatusCode::NOT_FOUND,
            "{round}"
        );
        ensure!(
            rest.delete(&path).await?.status == StatusCode::NOT_FOUND,
            "{round}"
        );
        if round == "before" {
            server.kill()?;
            server.restart()?;
        }
    }
    Ok(())
}

/// Waits until a deleted document has come to this.
async fn comes_to(rest: &Rest, path: &str, state: &str) -> Result<()> {
    let since = Instant::now();
    loop {
        let deletion = rest.get(&format!("{path}/deletion")).await?.good()?;
        let deletion = deletion.json()?;
        if deletion["state"] == state {
            return Ok(());
        }
        ensure!(since.elapsed() < 30 * SECOND, "{deletion}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Of a server that runs, and that nobody compacts.
#[tokio::test]
async fn what_is_erased_is_in_no_file() -> Result<()> {
    for arguments in [&[][..], &["--keep-deleted-seconds", "1"]] {
        let mut server = ServerProcess::start_with(arguments)?;
        let needle = needle();
        let (id, client) = document(&server, &needle).await?;
        let (other, others) = document(&server, &concord_tests::files::needle()).await?;
        drop(client);
        ensure!(is_found(server.data(), &needle)?, "it was never there");
        let rest = Rest::new(server.address());
        let path = format!("/v1/documents/{id}");
        if arguments.is_empty() {
            let deleted = rest.delete(&format!("{path}?now=true")).await?;
            ensure!(deleted.status == StatusCode::ACCEPTED, "{deleted:?}");
            ensure!(deleted.location == Some(format!("{path}/deletion")));
            let told = deleted.json()?;
            ensure!(told["by"] == "anonymous", "{told}");
            ensure!(
                told["state"] != "kept" && told.get("until").is_none(),
                "{told}"
            );
            // Asked for once more, it is told the same.
            let again = rest.delete(&format!("{path}?now=true")).await?;
            ensure!(again.status == StatusCode::ACCEPTED, "{again:?}");
        } else {
            let deleted = rest.delete(&path).await?;
            ensure!(deleted.status == StatusCode::NO_CONTENT, "{deleted:?}");
        }
        comes_to(&rest, &path, "erased").await?;
        ensure!(!is_found(server.data(), &needle)?, "{arguments:?}");
        let undone = rest.delete(&format!("{path}/deletion")).await?;
        ensure!(undone.status == StatusCode::GONE, "{undone:?}");
        ensure!(undone.json()?["code"] == "purged", "{undone:?}");
        // Others go on as before.
        let mut others = others;
        others.edit(|doc| doc.put(ROOT, "goes on", true)).await?;
        others.settle().await?;
        server.wait_for_log("the database was written anew")?;
        ensure!(server.metric("concord_rewrites_total{result=\"ok\"}")? >= 1.0);
        ensure!(server.metric("concord_rewrite_seconds_count")? >= 1.0);
        server.kill()?;
        server.restart()?;
        let rest = Rest::new(server.address());
        ensure!(rest.get(&path).await?.status == 404);
        let other = rest.get(&format!("/v1/documents/{other}")).await?.good()?;
        ensure!(other.json()?["goes on"] == true);
        ensure!(!is_found(server.data(), &needle)?, "{arguments:?}");
    }
    Ok(())
}

/// What was deleted and is kept still can be erased, too.
#[tokio::test]
async fn what_was_deleted_before_can_be_erased() -> Result<()> {
    let server = ServerProcess::start()?;
    let needle = needle();
    let (id, client) = document(&server, &needle).await?;
    drop(client);
    let rest = Rest::new(server.address());
    let path = format!("/v1/documents/{id}");
    rest.delete(&path).await?.good()?;
    comes_to(&rest, &path, "kept").await?;
    ensure!(is_found(server.data(), &needle)?);
    ensure!(rest.delete(&path).await?.status == StatusCode::NOT_FOUND);
    let erased = rest.delete(&format!("{path}?now=true")).await?;
    ensure!(erased.status == StatusCode::ACCEPTED, "{erased:?}");
    comes_to(&rest, &path, "erased").await?;
    ensure!(!is_found(server.data(), &needle)?);
    let none = rest.delete("/v1/documents/4NMNnkMhL8jXrdJ9jamS58PAVdXu?now=true");
    ensure!(none.await?.status == StatusCode::NOT_FOUND);
    Ok(())
}

/// What a tab says that has nothing of a document.
fn asks(client: &RawClient, id: &DocumentId) -> Result<Message> {
    let greeting = automerge::sync::Message {
        heads: Vec::new(),
        need: Vec::new(),
        have: Vec::new(),
        changes: Vec::<Vec<u8>>::new().into(),
        flags: None,
        version: automerge::sync::MessageVersion::V1,
    };
    client.sync_message(id.as_str(), &greeting.encode())
}

#[tokio::test]
async fn a_deletion_can_be_taken_back() -> Result<()> {
    let mut server = ServerProcess::start_with(&["--request-grace-ms", "100"])?;
    let needle = needle();
    let (id, mut client) = document(&server, &needle).await?;
    let rest = Rest::new(server.address());
    let path = format!("/v1/documents/{id}");
    let before = rest.get(&path).await?.good()?;
    let mut tab = RawClient::join(&server.websocket_url(), "tab").await?;
    tab.send(&asks(&tab, &id)?).await?;
    ensure!(matches!(tab.next().await?, Message::Sync { .. }));
    // Nothing to take back, and nothing to tell.
    for answer in [
        rest.get(&format!("{path}/deletion")).await?,
        rest.delete(&format!("{path}/deletion")).await?,
    ] {
        ensure!(answer.status == StatusCode::NOT_FOUND, "{answer:?}");
        ensure!(answer.json()?["code"] == "no-document", "{answer:?}");
    }
    for round in 0..3 {
        let rest = Rest::new(server.address());
        rest.delete(&path).await?.good()?;
        let unavailable = async {
            // It may have been told of the document twice.
            while !matches!(tab.next().await?, Message::DocUnavailable { .. }) {}
            anyhow::Ok(())
        };
        timeout(5 * SECOND, unavailable).await??;
        let told = rest
            .get(&format!("{path}/deletion"))
            .await?
            .good()?
            .json()?;
        ensure!(told["state"] == "kept", "{told}");
        let (at, until) = (told["at"].as_str(), told["until"].as_str());
        ensure!(at.is_some() && at < until, "{told}");
        let odd = rest.delete(&format!("{path}/deletion?now=true")).await?;
        ensure!(odd.status == StatusCode::BAD_REQUEST, "{odd:?}");
        if round == 1 {
            // It is kept by the store, not by the process.
            server.kill()?;
            server.restart()?;
            tab = RawClient::join(&server.websocket_url(), "tab").await?;
        }
        // Several at once are one.
        let rest = Rest::new(server.address());
        let address = format!("{path}/deletion");
        let (one, other) = tokio::join!(rest.delete(&address), rest.delete(&address));
        let (one, other) = (one?, other?);
        let is_done = |answer: &super::rest::Answer| answer.status == StatusCode::NO_CONTENT;
        ensure!(is_done(&one) || is_done(&other), "{one:?} {other:?}");
        for answer in [one, other] {
            let status = answer.status;
            ensure!(status == 204 || status == 404, "{answer:?}");
        }
        // As it was, over HTTP and for a tab that asks again, or waits for it.
        let now = rest.get(&path).await?.good()?;
        ensure!((now.body, now.etag) == (before.body.clone(), before.etag.clone()));
        tab.send(&asks(&tab, &id)?).await?;
        let got = timeout(10 * SECOND, tab.next()).await??;
        ensure!(matches!(got, Message::Sync { .. }), "{got:?}");
    }
    // It is written to as before, by who had it all the time, too.
    let replica = client.replica();
    replica.change(|doc| doc.put(ROOT, "after", "all"))?;
    let saved = replica.doc().save();
    let replica = Replica::load(id.clone(), ActorId::random(), &saved, &[])?;
    let mut client = Client::join(server.address(), "ann again", replica).await?;
    client.settle().await?;
    let rest = Rest::new(server.address());
    let value = rest.get(&path).await?.good()?.json()?;
    ensure!(value["after"] == "all", "{value}");
    ensure!(rest.get(&format!("{path}/deletion")).await?.status == 404);
    Ok(())
}

/// Whoever writes meanwhile is answered, and soon.
#[tokio::test]
async fn it_is_written_to_while_it_goes_and_comes_back() -> Result<()> {
    const FOR: Duration = Duration::from_secs(4);
    let server = ServerProcess::start_with(&["--request-grace-ms", "100"])?;
    let rest = Rest::new(server.address());
    let id = DocumentId::from_uuid([9; 16]);
    let path = format!("/v1/documents/{id}");
    rest.put(&path, &json!({ "n": 0 })).await?.good()?;
    let until = Instant::now() + FOR;
    let again = async |what: &dyn Fn(u32) -> (reqwest::Method, String, serde_json::Value)| {
        let mut told = BTreeMap::new();
        for n in 1.. {
            let (method, path, value) = what(n);
            let request = rest.request(method.clone(), &path).json(&value);
            let answer = timeout(10 * SECOND, super::rest::send(request)).await;
            let answer = answer.with_context(|| format!("{method} {path} waits"))??;
            *told.entry(answer.status.as_u16()).or_insert(0_u32) += 1;
            if Instant::now() > until {
                break;
            }
        }
        anyhow::Ok(told)
    };
    let patch = |n| {
        let path = format!("{path}/value");
        (reqwest::Method::PATCH, path, json!({ "n": n }))
    };
    let delete = |_| (reqwest::Method::DELETE, path.clone(), json!(null));
    let undo = |_| {
        let path = format!("{path}/deletion");
        (reqwest::Method::DELETE, path, json!(null))
    };
    let (one, two, deleted, undone) =
        tokio::try_join!(again(&patch), again(&patch), again(&delete), again(&undo))?;
    for told in [&one, &two, &deleted, &undone] {
        // 503: it went and came back too often, or while that was on its way.
        let is_right = |status: &u16| [200, 204, 404, 503].contains(status);
        ensure!(
            told.keys().all(is_right),
            "{one:?} {two:?} {deleted:?} {undone:?}"
        );
    }
    ensure!(deleted.get(&204) > Some(&3), "{deleted:?}");
    // It may be there, or deleted: it can be had back, and is whole.
    rest.delete(&format!("{path}/deletion")).await?;
    let answer = timeout(10 * SECOND, rest.get(&path)).await??.good()?;
    ensure!(answer.json()?["n"].is_u64());
    rest.put(&path, &json!({ "n": "last" })).await?.good()?;
    let value = rest.get(&path).await?.good()?.json()?;
    ensure!(value["n"] == "last", "{value}");
    Ok(())
}

/// As somebody does who clicks twice, or a proxy that sends a request again.
#[tokio::test]
async fn it_is_erased_once_however_often_that_is_asked_for_at_a_time() -> Result<()> {
    let server = ServerProcess::start_with(&["--request-grace-ms", "100"])?;
    let rest = Rest::new(server.address());
    for n in 0..4 {
        let made = rest.post("/v1/documents", &json!({ "n": n })).await?;
        let path = made.good()?.location.context("a place")?;
        let now = format!("{path}?now=true");
        let all = futures_util::future::join_all((0..8).map(|_| rest.delete(&now))).await;
        let all: Vec<_> = all.into_iter().collect::<Result<_>>()?;
        let status: Vec<_> = all.iter().map(|answer| answer.status.as_u16()).collect();
        // Also while its tombstone is on its way.
        ensure!(status.iter().all(|status| *status == 202), "{status:?}");
        comes_to(&rest, &path, "erased").await?;
    }
    Ok(())
}

/// None of them is in the way of another, nor of who writes to something else.
#[tokio::test]
async fn who_erases_it_and_who_brings_it_back_at_a_time_are_told_what_is_so() -> Result<()> {
    const ROUNDS: usize = 150;
    let server = ServerProcess::start_with(&["--request-grace-ms", "100"])?;
    let rest = Rest::new(server.address());
    let other = rest.post("/v1/documents", &json!({})).await?.good()?;
    let other = other.location.context("a place")?;
    let mut undone = BTreeMap::<u16, usize>::new();
    for round in 0..ROUNDS {
        let made = rest.post("/v1/documents", &json!({})).await?.good()?;
        let path = made.location.context("a place")?;
        let (now, deletion) = (format!("{path}?now=true"), format!("{path}/deletion"));
        rest.delete(&path).await?.good()?;
        let undo = async || {
            rest.delete(&deletion).await?;
            rest.delete(&deletion).await
        };
        let written = json!({ "round": round });
        let (erased, again, one, two, put) = tokio::try_join!(
            rest.delete(&now),
            rest.delete(&now),
            undo(),
            undo(),
            rest.put(&other, &written)
        )?;
        for erased in [erased, again] {
            ensure!(erased.status == StatusCode::ACCEPTED, "{erased:?}");
        }
        for told in [one, two] {
            // It was there again, by this or the other one, or will never be.
            ensure!([204, 404, 410].contains(&told.status.as_u16()), "{told:?}");
            *undone.entry(told.status.as_u16()).or_default() += 1;
        }
        ensure!(put.status.is_success(), "{put:?}");
        let told = rest.get(&deletion).await?.good()?.json()?;
        ensure!(told["state"] != "kept", "{told}");
    }
    ensure!(undone.contains_key(&410), "{undone:?}");
    let log = server.log();
    ensure!(!log.contains("ERROR"), "{log}");
    Ok(())
}

/// Whoever asks for it while it is being read from the disk is answered, though it does not come back.
#[tokio::test]
async fn it_goes_while_it_is_loaded() -> Result<()> {
    const KEYS: usize = 5000;
    let server = ServerProcess::start_with(&["--request-grace-ms", "100"])?;
    let rest = Rest::new(server.address());
    let value: serde_json::Map<_, _> = (0..KEYS).map(|n| (format!("k{n}"), json!(n))).collect();
    let made = rest.post("/v1/documents", &json!(value)).await?.good()?;
    let path = made.location.context("a place")?;
    for round in 0..12_u32 {
        // Nobody has it open after that.
        rest.delete(&path).await?.good()?;
        rest.delete(&format!("{path}/deletion")).await?.good()?;
        let ask = async {
            let asked = if round.is_multiple_of(2) {
                rest.request(reqwest::Method::GET, &path)
            } else {
                let value = json!({ "round": round });
                rest.request(reqwest::Method::PATCH, &format!("{path}/value"))
                    .json(&value)
            };
            let answer = timeout(20 * SECOND, super::rest::send(asked)).await;
            answer.with_context(|| format!("round {round}: it waits"))?
        };
        let go = async {
            tokio::time::sleep(Duration::from_millis(2) * round).await;
            rest.delete(&path).await
        };
        let (answer, gone) = tokio::try_join!(ask, go)?;
        gone.good()?;
        // Before, or never there; or it is not known, for what was to be written.
        ensure!(
            [200, 404, 503].contains(&answer.status.as_u16()),
            "{answer:?}"
        );
        rest.delete(&format!("{path}/deletion")).await?.good()?;
    }
    Ok(())
}

/// Those who owned it, as long as it is kept, and then who deleted it; operators; and nobody else learns anything.
#[tokio::test]
async fn owners_and_operators_take_a_deletion_back() -> Result<()> {
    let issuer = Issuer::new()?;
    let arguments = issuer.arguments(&["--operator", "oda", "--creator", "ann"])?;
    let server = ServerProcess::start_with(&arguments)?;
    let of = |who: &str| -> Result<Rest> {
        Ok(Rest::new(server.address()).with_token(&issuer.of(who)?))
    };
    let (ann, oda) = (of("ann")?, of("oda")?);
    let made = ann
        .post("/v1/documents", &json!({ "a": 1 }))
        .await?
        .good()?;
    let path = made.location.context("a place")?;
    let list =
        json!({ "principals": { "ann": "owner", "bo": "owner", "cy": "owner", "wes": "writer" } });
    ann.put(&format!("{path}/access"), &list).await?.good()?;
    let deletion = format!("{path}/deletion");
    let unknown = "/v1/documents/4NMNnkMhL8jXrdJ9jamS58PAVdXu/deletion";
    for owner in ["bo", "ann", "oda"] {
        of(owner)?.delete(&path).await?.good()?;
        for stranger in ["wes", "sam"] {
            let stranger = of(stranger)?;
            for method in [reqwest::Method::GET, reqwest::Method::DELETE] {
                let asked = |path: &str| super::rest::send(stranger.request(method.clone(), path));
                let (told, same) = (asked(&deletion).await?, asked(unknown).await?);
                ensure!(told.status == StatusCode::NOT_FOUND, "{told:?}");
                ensure!(told.json()?["code"] == same.json()?["code"], "{told:?}");
            }
            let erased = stranger.delete(&format!("{path}?now=true")).await?;
            ensure!(erased.status == StatusCode::NOT_FOUND, "{erased:?}");
        }
        let told = of("bo")?.get(&deletion).await?.good()?.json()?;
        ensure!(told["by"] == owner && told["state"] == "kept", "{told}");
        of(owner)?.delete(&deletion).await?.good()?;
        // With who may do what.
        ensure!(of("wes")?.get(&path).await?.status == StatusCode::OK);
        ensure!(of("sam")?.get(&path).await?.status == StatusCode::NOT_FOUND);
        let now = ann.get(&format!("{path}/access")).await?.good()?.json()?;
        ensure!(now["list"]["principals"] == list["principals"], "{now}");
    }
    // Any of them erases it, and is told that it is; nobody owns it any more.
    ann.delete(&path).await?.good()?;
    let erased = of("bo")?.delete(&format!("{path}?now=true")).await?;
    ensure!(erased.status == StatusCode::ACCEPTED, "{erased:?}");
    let told = erased.json()?;
    ensure!(told["state"] == "purged" && told["by"] == "ann", "{told}");
    let may_ask = [("ann", 200), ("oda", 200), ("bo", 200)];
    for (who, status) in may_ask.into_iter().chain([("cy", 404), ("wes", 404)]) {
        let told = of(who)?.get(&deletion).await?;
        ensure!(told.status.as_u16() == status, "{who}: {told:?}");
        let undone = of(who)?.delete(&deletion).await?;
        let expected = if status == 200 { 410 } else { 404 };
        ensure!(undone.status.as_u16() == expected, "{who}: {undone:?}");
    }
    comes_to(&oda, &path, "erased").await
}

#[tokio::test]
async fn what_is_deleted_is_kept_for_a_while() -> Result<()> {
    let mut server = ServerProcess::start()?;
    let needle = needle();
    let (id, client) = document(&server, &needle).await?;
    drop(client);
    let rest = Rest::new(server.address());
    rest.delete(&format!("/v1/documents/{id}")).await?.good()?;
    let bad = rest
        .delete(&format!("/v1/documents/{id}?now=perhaps"))
        .await?;
    ensure!(bad.status == StatusCode::BAD_REQUEST);
    // Whoever compacts does not erase it.
    server.terminate()?;
    let mut compact = std::process::Command::new(binary()?);
    let compacted = compact
        .arg("compact")
        .arg("--data")
        .arg(server.data())
        .output()?;
    ensure!(compacted.status.success(), "{compacted:?}");
    ensure!(is_found(server.data(), &needle)?);
    Ok(())
}
