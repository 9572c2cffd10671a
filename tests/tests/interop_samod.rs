//! Stock samod clients share documents through the built server, with no JavaScript involved.
//!
//! What must hold: the same as for JavaScript clients (`interop_js`), with the other implementation of
//! the protocol on both ends. Some scenarios follow samod's own interop tests, which it runs against
//! the JavaScript server.

use std::time::Duration;

use anyhow::{Context, Result};
use automerge::{ROOT, ReadDoc, ScalarValue, transaction::Transactable};
use concord_tests::samod_client::{SamodClient, SamodDocument};
use concord_tests::server_process::ServerProcess;
use futures_util::StreamExt;
use serde_json::json;

const MOMENT: Duration = Duration::from_millis(50);

#[tokio::test(flavor = "multi_thread")]
async fn a_document_is_found_50_ms_after_it_was_created() -> Result<()> {
    let server = ServerProcess::start()?;
    let author = SamodClient::connect(&server.websocket_url()).await?;
    let reader = SamodClient::connect(&server.websocket_url()).await?;
    for round in 0..10 {
        let document = author.create(|tx| tx.put(ROOT, "round", round)).await?;
        tokio::time::sleep(MOMENT).await;
        let found = reader.open(&document.url()).await?;
        assert_eq!(found.view()?, document.view()?, "round {round}");
    }
    Ok(())
}

/// The question overtakes the first upload, which comes a moment later.
#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_overtakes_the_upload_waits_for_it() -> Result<()> {
    let server = ServerProcess::start()?;
    let mut author = SamodClient::new(&server.websocket_url()).await;
    let reader = SamodClient::connect(&server.websocket_url()).await?;
    let document = author.create(|tx| tx.put(ROOT, "late", true)).await?;
    let url = document.url();
    let upload = async {
        tokio::time::sleep(MOMENT).await;
        author.online().await
    };
    let (found, online) = tokio::join!(reader.find(&url), upload);
    online?;
    let found = found?.context("the question waits for the upload")?;
    found.wait_heads(&document.heads()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_nobody_has_is_unavailable_and_appears_when_it_is_created() -> Result<()> {
    let server = ServerProcess::start()?;
    let mut author = SamodClient::new(&server.websocket_url()).await;
    let reader = SamodClient::connect(&server.websocket_url()).await?;
    let document = author.create(|tx| tx.put(ROOT, "late", true)).await?;
    assert!(reader.find(&document.url()).await?.is_none());

    author.online().await?;
    let found = reader.wait_ready(&document.url()).await?;
    found.wait_heads(&document.heads()).await?;
    assert_eq!(found.view()?.value, json!({ "late": true }));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_lists_and_maps_edited_apart_merge() -> Result<()> {
    let server = ServerProcess::start()?;
    let mut clients = vec![
        SamodClient::connect(&server.websocket_url()).await?,
        SamodClient::connect(&server.websocket_url()).await?,
        SamodClient::connect(&server.websocket_url()).await?,
    ];
    let author = clients.first().context("there are three")?;
    let created = author
        .create(|tx| {
            tx.put(ROOT, "votes", ScalarValue::counter(0))?;
            tx.put_object(ROOT, "list", automerge::ObjType::List)
                .map(drop)
        })
        .await?;
    author.wait_acknowledged(&created).await?;
    let mut documents = vec![created.clone()];
    for client in clients.iter().skip(1) {
        documents.push(client.open(&created.url()).await?);
    }

    for client in &mut clients {
        client.offline();
    }
    let mut heads = Vec::new();
    for (number, document) in documents.iter().enumerate() {
        heads.extend(document.change(|tx| {
            let list = tx.get(ROOT, "list")?.map_or(ROOT, |(_, id)| id);
            tx.increment(ROOT, "votes", 1 + i64::try_from(number).unwrap_or_default())?;
            tx.insert(&list, 0, format!("from {number}"))?;
            tx.put(ROOT, format!("key {number}"), true)
        })?);
    }
    heads.sort();
    assert_eq!(heads.len(), 3, "the edits were to be concurrent");
    for client in &mut clients {
        client.online().await?;
    }
    for document in &documents {
        document.wait_heads(&heads).await?;
    }
    let seen = created.view()?;
    assert_eq!(seen.value["votes"], json!(6));
    assert_eq!(seen.value["list"].as_array().map(Vec::len), Some(3));
    for (number, document) in documents.iter().enumerate() {
        assert_eq!(document.view()?, seen);
        assert_eq!(seen.value[format!("key {number}")], json!(true));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_third_client_joins_late_and_hears_what_follows() -> Result<()> {
    let server = ServerProcess::start()?;
    let first = SamodClient::connect(&server.websocket_url()).await?;
    let second = SamodClient::connect(&server.websocket_url()).await?;
    let document = first.create(|tx| tx.put(ROOT, "count", 0)).await?;
    let other = second.open(&document.url()).await?;
    for number in 1..=200 {
        let author = if number % 2 == 0 { &document } else { &other };
        author.change(|tx| tx.put(ROOT, "count", number))?;
    }
    document.wait_changes(201).await?;
    other.wait_changes(201).await?;
    first.wait_acknowledged(&document).await?;
    let seen = document.view()?;
    assert_eq!(other.view()?, seen);
    first.stop().await;
    second.stop().await;

    let third = SamodClient::connect(&server.websocket_url()).await?;
    let fourth = SamodClient::connect(&server.websocket_url()).await?;
    let late = third.open(&document.url()).await?;
    late.wait_heads(&seen.heads).await?;
    assert_eq!(late.view()?, seen);
    let listening = fourth.open(&document.url()).await?;
    let heads = late.change(|tx| tx.put(ROOT, "count", 1_000))?;
    listening.wait_heads(&heads).await
}

#[tokio::test(flavor = "multi_thread")]
async fn ephemeral_messages_reach_the_other_and_not_the_sender() -> Result<()> {
    let server = ServerProcess::start()?;
    let one = SamodClient::connect(&server.websocket_url()).await?;
    let two = SamodClient::connect(&server.websocket_url()).await?;
    let document = one.create(|tx| tx.put(ROOT, "cursor", "here")).await?;
    let other = two.open(&document.url()).await?;
    let mut at_one = document.ephemera();
    let mut at_two = other.ephemera();
    document.broadcast(b"\x63one".to_vec());
    assert_eq!(next(&mut at_two).await?, b"\x63one");
    other.broadcast(b"\x63two".to_vec());
    assert_eq!(next(&mut at_one).await?, b"\x63two");
    Ok(())
}

async fn next(stream: &mut (impl StreamExt<Item = Vec<u8>> + Unpin)) -> Result<Vec<u8>> {
    tokio::time::timeout(Duration::from_secs(20), stream.next())
        .await?
        .context("the stream goes on")
}

/// Kills and stops in turn while one client writes and one reads; nothing that was acknowledged may be
/// missing for a client that finds the document on the data alone.
#[tokio::test(flavor = "multi_thread")]
async fn clients_reconnect_over_kills_and_stops() -> Result<()> {
    let mut server = ServerProcess::start()?;
    let writer = SamodClient::connect(&server.websocket_url()).await?;
    let reader = SamodClient::connect(&server.websocket_url()).await?;
    let document = writer.create(|tx| tx.put(ROOT, "count", 0)).await?;
    let copy = reader.open(&document.url()).await?;
    for round in 1..=4 {
        for number in 0..50 {
            document.change(|tx| tx.put(ROOT, "count", round * 1_000 + number))?;
        }
        let acknowledged = writer.wait_acknowledged(&document).await?;
        if round % 2 == 0 {
            server.kill()?;
        } else {
            assert!(server.terminate()?.success());
        }
        finds_on_the_data_alone(&server, &document, &acknowledged).await?;
        // Written while nobody listens.
        let heads = document.change(|tx| tx.put(ROOT, "offline", round))?;
        server.restart()?;
        copy.wait_heads(&heads).await?;
    }
    assert_eq!(copy.view()?, document.view()?);
    Ok(())
}

async fn finds_on_the_data_alone(
    server: &ServerProcess,
    document: &SamodDocument,
    acknowledged: &[String],
) -> Result<()> {
    let mut data_alone = ServerProcess::start_at(server.data(), &[])?;
    let stranger = SamodClient::connect(&data_alone.websocket_url()).await?;
    let found = stranger.open(&document.url()).await?;
    found.wait_heads(acknowledged).await?;
    stranger.stop().await;
    data_alone.terminate()?;
    Ok(())
}
