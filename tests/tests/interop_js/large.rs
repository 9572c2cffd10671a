//! Much at once: many documents on one connection, and one document of several megabytes.

use std::time::Duration;

use anyhow::Result;
use concord_tests::node::{Found, NodeClient};
use concord_tests::samod_client::SamodClient;
use serde_json::{Value, json};

use crate::server;

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_carries_many_documents() -> Result<()> {
    const DOCUMENTS: usize = 300;
    let mut server = server()?;
    let mut author = NodeClient::connect("author", &server.websocket_url()).await?;
    let created = author
        .call("createMany", json!({ "count": DOCUMENTS }))
        .await?;
    let urls: Vec<String> = serde_json::from_value(created)?;
    for url in &urls {
        author.wait_acknowledged(url).await?;
    }
    let numbers: Vec<Value> = (0..DOCUMENTS)
        .map(|number| json!({ "number": number }))
        .collect();

    let mut reader = NodeClient::connect("reader", &server.websocket_url()).await?;
    let found = reader.call("openMany", json!({ "urls": urls })).await?;
    assert_eq!(found, Value::Array(numbers.clone()));
    assert_eq!(reader.handshakes().await?, 1);

    // All of them are on disk, each under its own name.
    server.kill()?;
    server.restart()?;
    let mut late = NodeClient::connect("late", &server.websocket_url()).await?;
    let found = late.call("openMany", json!({ "urls": urls })).await?;
    assert_eq!(found, Value::Array(numbers));
    Ok(())
}

/// A first upload is one message, whatever its size: text and values of several megabytes.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_first_upload_arrives() -> Result<()> {
    let mut server = server()?;
    let mut author = NodeClient::connect("author", &server.websocket_url()).await?;
    let url = author.create(json!({ "title": "large" })).await?;
    author.offline().await?;
    let bulk = json!({ "op": "bulk", "path": ["bulk"], "pattern": "All work and no play. ", "times": 15_000,
                       "values": 20_000, "bytes": 3_000_000 });
    let heads = author.change(&url, json!([bulk])).await?;
    let before = server.metric("concord_bytes_in_total")?;
    author.online().await?;
    author.wait_acknowledged(&url).await?;
    assert!(
        server.metric("concord_bytes_in_total")? - before > 3_000_000.0,
        "it was to be large"
    );

    let mut reader = NodeClient::connect("reader", &server.websocket_url()).await?;
    assert_eq!(reader.find(&url).await?, Found::Ready);
    reader.wait_heads(&url, &heads).await?;
    let samod = SamodClient::connect(&server.websocket_url()).await?;
    let document = samod.open(&url).await?;
    document.wait_heads(&heads).await?;
    let value = document.view()?.value;
    assert_eq!(
        value["bulk"]["text"],
        json!("All work and no play. ".repeat(15_000))
    );
    assert_eq!(
        value["bulk"]["values"][19_999],
        json!({ "index": 19_999, "done": false })
    );
    assert_eq!(
        value["bulk"]["bytes"].as_array().map(Vec::len),
        Some(3_000_000)
    );

    // The others' small edits are not held up behind it for long.
    server.kill()?;
    server.restart()?;
    author.server_after(3).await?;
    let started = std::time::Instant::now();
    let heads = author
        .change(
            &url,
            json!([{ "op": "put", "path": ["title"], "value": "small" }]),
        )
        .await?;
    reader.wait_heads(&url, &heads).await?;
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "{:?}",
        started.elapsed()
    );
    Ok(())
}
