//! What the inspector asks for and nobody else had: versions by place, and what was refused last.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use automerge::transaction::Transactable as _;
use automerge::{AutoCommit, ROOT};
use concord_tests::raw_client::RawClient;
use concord_tests::server_process::ServerProcess;
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::import::AUTOMERGE;
use super::rest::{Answer, Rest, send};

fn problem(answer: &Answer) -> Result<(u16, String)> {
    let code = answer.json()?["code"]
        .as_str()
        .context("a code")?
        .to_owned();
    Ok((answer.status.as_u16(), code))
}

/// Each version is the heads of all that was admitted, where many write at once; and can be read.
#[tokio::test]
async fn versions_by_place() -> Result<()> {
    let server = ServerProcess::start()?;
    let rest = Rest::new(server.address());
    let made = rest
        .post("/v1/documents", &json!({ "n": 0 }))
        .await?
        .good()?;
    let url = made.location.clone().context("a place")?;
    let bytes = async || {
        let read = rest.request(Method::GET, &url).header(ACCEPT, AUTOMERGE);
        anyhow::Ok(send(read).await?.good()?.body)
    };
    let mut then = AutoCommit::load(&bytes().await?)?;
    for n in 0..20_u32 {
        let put = format!("{url}/value/key{n}");
        rest.put(&put, &json!(n)).await?.good()?;
        // Every third is of somebody who had an old version, and so stands beside what came since.
        if n % 3 == 0 {
            then.put(ROOT, format!("beside{n}"), n)?;
            let merge = rest.request(Method::PUT, &url);
            let merge = merge.header(CONTENT_TYPE, AUTOMERGE).body(then.save());
            send(merge).await?.good()?;
        }
        if n % 6 == 0 {
            then = AutoCommit::load(&bytes().await?)?;
        }
    }
    let page = rest
        .get(&format!("{url}/changes?limit=1000"))
        .await?
        .good()?
        .json()?;
    let changes = page["changes"].as_array().context("changes")?;
    let mut heads: BTreeSet<String> = BTreeSet::new();
    let mut most = 0;
    for (place, change) in changes.iter().enumerate() {
        for dep in change["deps"].as_array().context("deps")? {
            heads.remove(dep.as_str().context("a hash")?);
        }
        heads.insert(change["hash"].as_str().context("a hash")?.to_owned());
        most = most.max(heads.len());
        let told = rest.get(&format!("{url}/versions/{place}")).await?.good()?;
        let wanted = heads
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(".");
        ensure!(
            told.json()? == json!({ "place": place, "version": wanted }),
            "{place}"
        );
        rest.get(&format!("{url}?at={wanted}")).await?.good()?;
    }
    ensure!(most > 1, "nothing was written at once");
    let count = changes.len();
    for (path, wanted) in [
        (format!("{url}/versions/{count}"), (404, "no-change")),
        (format!("{url}/versions/4294967294"), (404, "no-change")),
        (format!("{url}/versions/4294967295"), (400, "bad-path")),
        (format!("{url}/versions/-1"), (400, "bad-path")),
        (format!("{url}/versions/x"), (400, "bad-path")),
        (
            "/v1/documents/nobody/versions/0".to_owned(),
            (404, "no-document"),
        ),
    ] {
        let (status, code) = problem(&rest.get(&path).await?)?;
        ensure!((status, code.as_str()) == wanted, "{path}: {status} {code}");
    }
    Ok(())
}

async fn refusals(rest: &Rest, query: &str) -> Result<Vec<Value>> {
    let answer = rest
        .get(&format!("/v1/refusals{query}"))
        .await?
        .good()?
        .json()?;
    Ok(answer["refusals"].as_array().context("refusals")?.clone())
}

/// Once for what is refused again, with who sent it, and of one document if only that is asked for.
#[tokio::test]
async fn refusals_are_remembered() -> Result<()> {
    let server = ServerProcess::start()?;
    let rest = Rest::new(server.address());
    ensure!(refusals(&rest, "").await?.is_empty());
    let id = "4NMNnkMhL8jXrdJ9jamS58PAVdXu";
    for _ in 0..2 {
        let mut client = RawClient::join(&server.websocket_url(), "liar").await?;
        let message = client.sync_message(id, b"no sync message")?;
        client.send(&message).await?;
        let told = client.refusal().await?;
        ensure!(told.reason == "bad-sync-message", "{told:?}");
        // Times are told in milliseconds.
        sleep(Duration::from_millis(2)).await;
    }
    let mut client = RawClient::connect(&server.websocket_url(), "other").await?;
    client.send_bytes(&[0xff]).await?;
    client.refusal().await?;
    let all = refusals(&rest, "").await?;
    ensure!(all.len() == 2, "{all:?}");
    ensure!(
        all[0]["code"] == "bad-frame" && all[0]["times"] == 1 && all[0]["document"] == Value::Null
    );
    ensure!(all[1]["times"] == 2 && all[1]["peer"] == "liar" && all[1]["address"] == "127.0.0.1");
    ensure!(
        all[1]["firstAt"].as_str() < all[1]["lastAt"].as_str(),
        "{all:?}"
    );
    ensure!(refusals(&rest, "?document=nobody").await?.is_empty());
    for query in ["", "automerge:"] {
        let of_one = refusals(&rest, &format!("?document={query}{id}")).await?;
        ensure!(of_one == [all[1].clone()], "{of_one:?}");
    }
    for (query, wanted) in [
        ("?document=", (400, "bad-id")),
        ("?of=x", (400, "bad-query")),
    ] {
        let (status, code) = problem(&rest.get(&format!("/v1/refusals{query}")).await?)?;
        ensure!(
            (status, code.as_str()) == wanted,
            "{query}: {status} {code}"
        );
    }
    let posted = send(rest.request(Method::POST, "/v1/refusals")).await?;
    ensure!(posted.status == StatusCode::METHOD_NOT_ALLOWED);
    Ok(())
}
