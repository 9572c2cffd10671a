//! What is limited by time.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use automerge::{ROOT, ReadDoc as _, transaction::Transactable as _};
use bytes::Bytes;
use concord_shared::ids::{DocumentId, SessionId};
use concord_shared::wire::Message;
use concord_tests::issuer::Issuer;
use concord_tests::raw_client::RawClient;
use concord_tests::server_process::ServerProcess;
use reqwest::Method;
use serde_json::{Value, json};

use super::{address, ask, document, is_unharmed, limited, problem, tab, was_limited};

/// What was limited to so much by the second comes to so much at once.
const BURST: usize = 60;

/// A tab that writes too fast waits, and every edit is kept; another caller does not notice.
#[tokio::test]
async fn messages_wait_and_none_is_lost() -> Result<()> {
    let server = ServerProcess::start_with(&["--messages-per-second", "4"])?;
    let mut fast = tab(&server, address(1), "fast", 1).await?;
    let edits = 4 * BURST + 12;
    let started = Instant::now();
    for n in 0..edits {
        fast.edit(|doc| doc.put(ROOT, format!("key{n}"), true))
            .await?;
    }
    is_unharmed(&server, address(2)).await?;
    fast.settle().await?;
    let took = started.elapsed();
    ensure!(took >= Duration::from_secs(2), "it did not wait: {took:?}");
    was_limited(&server, "messages")?;
    let mut reader = tab(&server, address(3), "reader", 1).await?;
    reader.settle().await?;
    let heads = fast.replica().heads();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while reader.replica().heads() != heads {
        ensure!(
            reader.receive(deadline, drop).await?,
            "something is missing"
        );
        reader.send().await?;
    }
    ensure!(reader.replica().doc().length(ROOT) == edits);
    Ok(())
}

/// As many connections as somebody has share what is theirs; who would wait for too long is told, and closed.
#[tokio::test]
async fn who_stays_beyond_is_closed() -> Result<()> {
    let arguments = ["--messages-per-second", "1", "--stall-seconds", "1"];
    let server = ServerProcess::start_with(&arguments)?;
    let mut floods = tokio::task::JoinSet::new();
    for n in 0..4 {
        let url = server.websocket_url();
        floods.spawn(async move {
            let name = format!("flood-{n}");
            let mut flood = RawClient::join_from(address(1), &url, &name).await?;
            let nothing = flood.sync_message("4NMNnkMhL8jXrdJ9jamS58PAVdXu", &EMPTY)?;
            for _ in 0..2 * BURST {
                // It may be closed already.
                if flood.send(&nothing).await.is_err() {
                    break;
                }
            }
            flood.refusal().await
        });
    }
    is_unharmed(&server, address(2)).await?;
    // The last one may have as much as there is.
    for _ in 0..3 {
        let end = floods.join_next().await.context("four")???;
        ensure!(end.reason == "rate-limited", "{end:?}");
        ensure!(end.close_code == Some(4429), "{end:?}");
        let message = end.message.context("an error message")?;
        ensure!(message.starts_with("rate-limited: too many"), "{message}");
    }
    floods.shutdown().await;
    was_limited(&server, "messages")?;
    let refused = server.metric("concord_refused_total{code=\"rate-limited\"}")?;
    ensure!(refused >= 3.0, "{refused} counted");
    // And comes back.
    tokio::time::sleep(Duration::from_secs(2)).await;
    RawClient::join_from(address(1), &server.websocket_url(), "again").await?;
    Ok(())
}

/// Whoever shows a token that says something else has all that they asked for granted anew, which costs the server as much as
/// as many messages. One that says the same costs nothing more, however often it is shown.
#[tokio::test]
async fn a_token_that_says_something_else_costs_as_much_as_it_is_about() -> Result<()> {
    let issuer = Issuer::new()?;
    let arguments = ["--messages-per-second", "5", "--stall-seconds", "1"];
    let server = ServerProcess::start_with(&issuer.arguments(&arguments)?)?;
    let url = format!("{}?token={}", server.websocket_url(), issuer.of("ann")?);
    let mut tab = RawClient::join(&url, "tab").await?;
    // Leaves a third of what there is at once.
    let documents = 2 * 5 * BURST / 3;
    for n in 0..documents {
        let mut id = [1; 16];
        id[0] = u8::try_from(n)?;
        tab.ask(&DocumentId::from_uuid(id)).await?;
    }
    let mut show = async |groups: &[&str]| {
        let token = issuer.of_member("ann", groups)?;
        let said = json!({ "type": "token", "token": token });
        tab.send_text(&said.to_string()).await
    };
    for _ in 0..4 {
        show(&[]).await?;
    }
    show(&["board"]).await?;
    for _ in 0..4 {
        let answer: Value = serde_json::from_str(&tab.next_text().await?)?;
        ensure!(answer["until"].is_string(), "{answer}");
    }
    let end = tab.refusal().await?;
    ensure!(end.reason == "rate-limited", "{end:?}");
    Ok(())
}

/// A sync message that says nothing.
const EMPTY: [u8; 5] = [0x42, 0, 0, 0, 0];

#[tokio::test]
async fn bytes_wait() -> Result<()> {
    let server = ServerProcess::start_with(&["--received-mib-per-second", "1"])?;
    let url = server.websocket_url();
    let mut flood = RawClient::join_from(address(1), &url, "flood").await?;
    let large = |count| {
        anyhow::Ok(Message::Ephemeral {
            document: document(1),
            sender: flood_peer()?,
            target: flood.server()?.clone(),
            count,
            session: SessionId::new("s")?,
            data: Bytes::from(vec![0; 1 << 20]),
        })
    };
    let messages: Vec<_> = (1..BURST as u64 + 6).map(large).collect::<Result<_>>()?;
    let started = Instant::now();
    for message in messages {
        flood.send(&message).await?;
    }
    is_unharmed(&server, address(2)).await?;
    // Behind all of them.
    flood.ask(&document(1)).await?;
    let answer = flood.next().await?;
    ensure!(
        matches!(answer, Message::DocUnavailable { .. }),
        "{answer:?}"
    );
    let took = started.elapsed();
    ensure!(took >= Duration::from_secs(3), "it did not wait: {took:?}");
    was_limited(&server, "bytes")
}

fn flood_peer() -> Result<concord_shared::PeerId> {
    Ok(concord_shared::PeerId::new("flood")?)
}

/// Many changes in one message count as many.
#[tokio::test]
async fn changes_wait() -> Result<()> {
    let server = ServerProcess::start_with(&["--changes-per-second", "40"])?;
    let mut fast = tab(&server, address(1), "fast", 1).await?;
    let mut batch = async |changes: usize| {
        for n in 0..changes {
            fast.replica().change(|doc| doc.put(ROOT, "n", n as u64))?;
        }
        let started = Instant::now();
        fast.settle().await?;
        anyhow::Ok(started.elapsed())
    };
    batch(40 * BURST - 50).await?;
    ensure!(limited(&server, "changes")? == 0.0, "too soon");
    let took = batch(150).await?;
    ensure!(took >= Duration::from_secs(2), "it did not wait: {took:?}");
    was_limited(&server, "changes")?;
    is_unharmed(&server, address(2)).await
}

#[tokio::test]
async fn requests_are_refused_and_it_is_told_for_how_long() -> Result<()> {
    let server = ServerProcess::start_with(&["--requests-per-second", "1"])?;
    let list = async || ask(&server, address(1), Method::GET, "/v1/documents", None).await;
    for n in 0..BURST {
        let status = list().await?.status();
        ensure!(status == 200, "request {n}: {status}");
    }
    let mut told = None;
    for _ in 0..10 {
        let answer = list().await?;
        if answer.status() != 200 {
            told = Some(problem(answer).await?);
        }
    }
    let (status, code, after) = told.context("was never refused")?;
    ensure!(
        (status, code.as_str()) == (429, "rate-limited"),
        "{status} {code}"
    );
    ensure!(after == Some(1), "{after:?}");
    was_limited(&server, "requests")?;
    is_unharmed(&server, address(2)).await?;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    ensure!(list().await?.status() == 200, "for ever");
    Ok(())
}

#[tokio::test]
async fn documents_are_made_so_fast() -> Result<()> {
    let server = ServerProcess::start_with(&["--new-documents-per-minute", "1"])?;
    let value = json!({ "a": 1 });
    let make = async || {
        ask(
            &server,
            address(1),
            Method::POST,
            "/v1/documents",
            Some(&value),
        )
        .await
    };
    let first = make().await?.headers()["location"].to_str()?.to_owned();
    let put = async |path: &str| ask(&server, address(1), Method::PUT, path, Some(&value)).await;
    for n in 1..BURST as u8 {
        // By either way, and by a WebSocket.
        if n % 3 == 0 {
            let mut tab = tab(&server, address(1), &format!("tab{n}"), n).await?;
            super::edit(&mut tab, "a").await?;
        } else if n % 3 == 1 {
            ensure!(make().await?.status() == 201, "document {n}");
        } else {
            let path = format!("/v1/documents/{}", document(n));
            ensure!(put(&path).await?.status() == 201, "document {n}");
        }
    }
    let (status, code, after) = problem(make().await?).await?;
    ensure!(
        (status, code.as_str()) == (429, "rate-limited"),
        "{status} {code}"
    );
    ensure!(
        after.is_some_and(|after| (30..=60).contains(&after)),
        "{after:?}"
    );
    let path = format!("/v1/documents/{}", document(200));
    let (status, code, _) = problem(put(&path).await?).await?;
    ensure!(
        (status, code.as_str()) == (429, "rate-limited"),
        "{status} {code}"
    );
    let gone = ask(&server, address(1), Method::GET, &path, None).await?;
    ensure!(gone.status() == 404, "it was made: {}", gone.status());
    // What is there can be written to all the same.
    ensure!(put(&first).await?.status() == 200);
    let mut tab = tab(&server, address(1), "one-more", 201).await?;
    tab.edit(|doc| doc.put(ROOT, "a", 1)).await?;
    let refused = tab.settle().await.err().context("it was made")?;
    ensure!(
        format!("{refused:#}").contains("rate-limited"),
        "{refused:#}"
    );
    was_limited(&server, "new-documents")?;
    is_unharmed(&server, address(2)).await
}
