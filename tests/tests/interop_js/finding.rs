//! Creating and finding documents: at once, too early, and late.

use anyhow::Result;
use automerge::{ROOT, transaction::Transactable};
use concord_tests::node::{Found, NodeClient, NodeOptions};
use concord_tests::samod_client::SamodClient;
use serde_json::json;

use crate::{MOMENT, server};

#[tokio::test(flavor = "multi_thread")]
async fn a_document_is_found_by_another_client() -> Result<()> {
    let server = server()?;
    let mut author = NodeClient::connect("author", &server.websocket_url()).await?;
    let mut reader = NodeClient::connect("reader", &server.websocket_url()).await?;
    let url = author
        .create(json!({ "title": "Board", "list": [1, null, { "deep": true }] }))
        .await?;
    author.wait_acknowledged(&url).await?;

    let seen = reader.open(&url).await?;
    assert_eq!(
        seen.value,
        json!({ "title": "Board", "list": [1, null, { "deep": true }] })
    );
    assert_eq!(seen, author.view(&url).await?);

    // From then on changes come without asking, both ways.
    let heads = author
        .change(
            &url,
            json!([{ "op": "put", "path": ["title"], "value": "Council" }]),
        )
        .await?;
    reader.wait_heads(&url, &heads).await?;
    let heads = reader
        .change(
            &url,
            json!([{ "op": "push", "path": ["list"], "values": ["more"] }]),
        )
        .await?;
    author.wait_heads(&url, &heads).await?;
    assert_eq!(
        author.view(&url).await?.value,
        json!({ "title": "Council", "list": [1, null, { "deep": true }, "more"] })
    );
    author.quit().await?;
    reader.quit().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_is_found_at_once_and_50_ms_after_it_was_created() -> Result<()> {
    let server = server()?;
    let mut author = NodeClient::connect("author", &server.websocket_url()).await?;
    let mut reader = NodeClient::connect("reader", &server.websocket_url()).await?;
    for round in 0..10 {
        let url = author.create(json!({ "round": round })).await?;
        if round % 2 == 0 {
            tokio::time::sleep(MOMENT).await;
        }
        assert_eq!(reader.find(&url).await?, Found::Ready, "round {round}");
        assert_eq!(reader.view(&url).await?.value, json!({ "round": round }));
    }
    Ok(())
}

/// The question overtakes the first upload, which comes a moment later: the official server answers
/// "unavailable".
#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_overtakes_the_upload_waits_for_it() -> Result<()> {
    let server = server()?;
    let away = NodeOptions {
        offline: true,
        ..NodeOptions::default()
    };
    let mut author = NodeClient::connect_with("author", &server.websocket_url(), away).await?;
    let mut reader = NodeClient::connect("reader", &server.websocket_url()).await?;
    let url = author.create(json!({ "late": true })).await?;
    let upload = async {
        tokio::time::sleep(MOMENT).await;
        author.online().await
    };
    let (found, online) = tokio::join!(reader.find(&url), upload);
    online?;
    assert_eq!(found?, Found::Ready);
    assert_eq!(reader.view(&url).await?, author.view(&url).await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_nobody_has_is_unavailable_and_appears_when_it_is_created() -> Result<()> {
    let server = server()?;
    let away = NodeOptions {
        offline: true,
        ..NodeOptions::default()
    };
    let mut author = NodeClient::connect_with("author", &server.websocket_url(), away).await?;
    let mut reader = NodeClient::connect("reader", &server.websocket_url()).await?;
    let url = author.create(json!({ "late": true })).await?;
    assert_eq!(reader.find(&url).await?, Found::Unavailable);

    author.online().await?;
    reader.wait_ready(&url).await?;
    assert_eq!(reader.view(&url).await?, author.view(&url).await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_third_client_that_joins_late_gets_everything() -> Result<()> {
    let server = server()?;
    let mut first = NodeClient::connect("first", &server.websocket_url()).await?;
    let mut second = NodeClient::connect("second", &server.websocket_url()).await?;
    let url = first.create(json!({ "text": "" })).await?;
    assert_eq!(second.find(&url).await?, Found::Ready);
    let pause = std::time::Duration::from_millis(1);
    let typed = ("a".repeat(200), "b".repeat(200));
    let (left, right) = tokio::join!(
        first.type_text(&url, json!(["text"]), &typed.0, pause),
        second.type_text(&url, json!(["text"]), &typed.1, pause),
    );
    left?;
    right?;
    for client in [&mut first, &mut second] {
        client.wait_changes(&url, 401).await?;
        client.wait_acknowledged(&url).await?;
    }
    let seen = first.view(&url).await?;
    assert_eq!(seen, second.view(&url).await?);
    first.quit().await?;

    // Only the server and one more have it now, and that one goes, too.
    let mut third = NodeClient::connect("third", &server.websocket_url()).await?;
    assert_eq!(third.open(&url).await?, seen);
    second.quit().await?;
    let mut fourth = NodeClient::connect("fourth", &server.websocket_url()).await?;
    assert_eq!(fourth.open(&url).await?, seen);
    let heads = fourth
        .change(
            &url,
            json!([{ "op": "put", "path": ["done"], "value": true }]),
        )
        .await?;
    third.wait_heads(&url, &heads).await
}

#[tokio::test(flavor = "multi_thread")]
async fn javascript_and_samod_find_each_others_documents() -> Result<()> {
    let server = server()?;
    let mut node = NodeClient::connect("node", &server.websocket_url()).await?;
    let samod = SamodClient::connect(&server.websocket_url()).await?;

    let url = node.create(json!({ "by": "node" })).await?;
    tokio::time::sleep(MOMENT).await;
    let theirs = samod.open(&url).await?;
    assert_eq!(theirs.view()?, node.view(&url).await?);

    let ours = samod.create(|tx| tx.put(ROOT, "by", "samod")).await?;
    tokio::time::sleep(MOMENT).await;
    assert_eq!(node.open(&ours.url()).await?, ours.view()?);

    let heads = theirs.change(|tx| tx.put(ROOT, "answer", 42))?;
    node.wait_heads(&url, &heads).await?;
    let heads = node
        .change(
            &ours.url(),
            json!([{ "op": "put", "path": ["answer"], "value": 43 }]),
        )
        .await?;
    ours.wait_heads(&heads).await?;
    assert_eq!(ours.view()?.value, json!({ "by": "samod", "answer": 43 }));
    Ok(())
}
