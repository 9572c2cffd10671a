//! What is said beside documents: ephemeral messages, and who has which heads.

use anyhow::{Context, Result};
use concord_tests::node::{Found, NodeClient, NodeOptions};
use concord_tests::samod_client::SamodClient;
use futures_util::StreamExt;
use serde_json::json;

use crate::server;

#[tokio::test(flavor = "multi_thread")]
async fn ephemeral_messages_reach_the_documents_other_readers_and_nobody_else() -> Result<()> {
    let server = server()?;
    let mut one = NodeClient::connect("one", &server.websocket_url()).await?;
    let mut two = NodeClient::connect("two", &server.websocket_url()).await?;
    let mut three = NodeClient::connect("three", &server.websocket_url()).await?;
    let url = one.create(json!({ "cursor": "here" })).await?;
    let other = three.create(json!({ "another": "document" })).await?;
    assert_eq!(two.find(&url).await?, Found::Ready);
    assert_eq!(one.find(&other).await?, Found::Ready);

    for number in 0..20 {
        one.broadcast(&url, json!({ "cursor": number })).await?;
    }
    let received = two.ephemeral(&url, 20).await?;
    let expected: Vec<_> = (0..20)
        .map(|number| (one.peer_id.clone(), json!({ "cursor": number })))
        .collect();
    assert_eq!(received, expected);

    // What two answers comes after everything that could have come back to one by mistake.
    two.broadcast(&url, json!("answer")).await?;
    assert_eq!(
        one.ephemeral(&url, 1).await?,
        [(two.peer_id.clone(), json!("answer"))]
    );
    // And three, who has another document open with one, heard nothing of it.
    one.broadcast(&other, json!("elsewhere")).await?;
    assert_eq!(
        three.ephemeral(&other, 1).await?,
        [(one.peer_id.clone(), json!("elsewhere"))]
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn ephemeral_messages_pass_between_javascript_and_samod() -> Result<()> {
    let server = server()?;
    let mut node = NodeClient::connect("node", &server.websocket_url()).await?;
    let samod = SamodClient::connect(&server.websocket_url()).await?;
    let url = node.create(json!({ "cursor": "here" })).await?;
    node.wait_acknowledged(&url).await?;
    let document = samod.open(&url).await?;
    let mut ephemera = document.ephemera();

    node.broadcast(&url, json!("hello")).await?;
    let next = tokio::time::timeout(std::time::Duration::from_secs(20), ephemera.next());
    // CBOR: a text of five bytes.
    assert_eq!(next.await?.context("the stream goes on")?, b"\x65hello");
    document.broadcast(b"\x65world".to_vec());
    assert_eq!(
        node.ephemeral(&url, 1).await?,
        [(samod.peer_id(), json!("world"))]
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_hears_of_the_servers_own_heads() -> Result<()> {
    let server = server()?;
    let mut scout = NodeClient::connect("scout", &server.websocket_url()).await?;
    let storage = scout
        .server()
        .await?
        .storage_id
        .context("the server names its storage")?;
    scout.quit().await?;

    let subscribed = NodeOptions {
        gossip: true,
        subscribe: vec![storage.clone()],
        ..NodeOptions::default()
    };
    let mut one = NodeClient::connect_with("one", &server.websocket_url(), subscribed).await?;
    let mut two = NodeClient::connect("two", &server.websocket_url()).await?;
    let url = one.create(json!({ "step": 0 })).await?;
    assert_eq!(two.find(&url).await?, Found::Ready);
    for step in 1..5 {
        let author = if step % 2 == 0 { &mut one } else { &mut two };
        let heads = author
            .change(
                &url,
                json!([{ "op": "put", "path": ["step"], "value": step }]),
            )
            .await?;
        one.wait_remote_heads(&url, &storage, &heads).await?;
        two.wait_heads(&url, &heads).await?;
        one.wait_heads(&url, &heads).await?;
    }
    Ok(())
}

/// "Saved on my other device": what remote heads are for.
#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_hears_of_the_heads_of_another_clients_storage() -> Result<()> {
    let server = server()?;
    let directory = tempfile::tempdir()?;
    let keeping = NodeOptions {
        storage: Some(directory.path().join("two")),
        gossip: true,
        ..NodeOptions::default()
    };
    let mut two = NodeClient::connect_with("two", &server.websocket_url(), keeping).await?;
    let storage = two
        .storage_id
        .clone()
        .context("a client with storage has a storage id")?;
    let subscribed = NodeOptions {
        gossip: true,
        subscribe: vec![storage.clone()],
        ..NodeOptions::default()
    };
    let mut one = NodeClient::connect_with("one", &server.websocket_url(), subscribed).await?;

    let url = one.create(json!({ "step": 0 })).await?;
    assert_eq!(two.find(&url).await?, Found::Ready);
    let heads = one.view(&url).await?.heads;
    one.wait_remote_heads(&url, &storage, &heads).await?;
    for step in 1..5 {
        let author = if step % 2 == 0 { &mut one } else { &mut two };
        let heads = author
            .change(
                &url,
                json!([{ "op": "put", "path": ["step"], "value": step }]),
            )
            .await?;
        one.wait_remote_heads(&url, &storage, &heads).await?;
        two.wait_heads(&url, &heads).await?;
        one.wait_heads(&url, &heads).await?;
    }
    assert_eq!(one.handshakes().await?, 1, "the connection was never lost");
    Ok(())
}
