//! Clients that go away and come back: in one process, and with what they had on disk.

use anyhow::Result;
use automerge::{ROOT, ReadDoc, transaction::Transactable};
use concord_tests::node::{Found, NodeClient, NodeOptions};
use concord_tests::samod_client::SamodClient;
use serde_json::json;

use crate::{merged, server};

/// Hundreds of changes on each side: a bloom filter's work, not one message's.
#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_offline_changes_on_both_sides_merge() -> Result<()> {
    const KEYSTROKES: usize = 300;
    let server = server()?;
    let mut node = NodeClient::connect("node", &server.websocket_url()).await?;
    let mut samod = SamodClient::connect(&server.websocket_url()).await?;
    let url = node.create(json!({ "node": "", "samod": 0 })).await?;
    node.wait_acknowledged(&url).await?;
    let document = samod.open(&url).await?;
    node.offline().await?;
    samod.offline();

    let pause = std::time::Duration::ZERO;
    node.type_text(&url, json!(["node"]), &"n".repeat(KEYSTROKES), pause)
        .await?;
    for number in 1..=KEYSTROKES {
        document.change(|tx| tx.put(ROOT, "samod", number as i64))?;
    }
    let heads = merged(&[&node.view(&url).await?.heads, &document.heads()]);
    node.online().await?;
    samod.online().await?;
    node.wait_heads(&url, &heads).await?;
    document.wait_heads(&heads).await?;
    let seen = document.view()?;
    assert_eq!(seen.changes, 2 * KEYSTROKES as u64 + 1);
    assert_eq!(
        seen.value,
        json!({ "node": "n".repeat(KEYSTROKES), "samod": KEYSTROKES })
    );
    assert_eq!(seen, node.view(&url).await?);
    Ok(())
}

/// The tab is closed and opened again: documents and sync states come from its storage, and what is
/// exchanged is what changed, not the document.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_returns_with_its_sync_state_exchanges_only_what_is_new() -> Result<()> {
    const KEYSTROKES: usize = 3_000;
    let server = server()?;
    let directory = tempfile::tempdir()?;
    let keeping = NodeOptions {
        storage: Some(directory.path().join("tab")),
        ..NodeOptions::default()
    };
    let mut tab = NodeClient::connect_with("tab", &server.websocket_url(), keeping.clone()).await?;
    let mut other = NodeClient::connect("other", &server.websocket_url()).await?;
    let url = tab.create(json!({ "text": "" })).await?;
    let typed: String = (0..KEYSTROKES)
        .map(|index| char::from(b'a' + (index * index % 26) as u8))
        .collect();
    tab.type_text(&url, json!(["text"]), &typed, std::time::Duration::ZERO)
        .await?;
    tab.wait_acknowledged(&url).await?;
    tab.flush().await?;
    let storage = tab.storage_id.clone();
    tab.quit().await?;

    // Both sides move on meanwhile.
    assert_eq!(other.find(&url).await?, Found::Ready);
    let theirs = other
        .change(
            &url,
            json!([{ "op": "put", "path": ["other"], "value": true }]),
        )
        .await?;
    other.wait_acknowledged(&url).await?;
    let away = NodeOptions {
        offline: true,
        ..keeping
    };
    let mut tab = NodeClient::connect_with("tab again", &server.websocket_url(), away).await?;
    assert_eq!(tab.storage_id, storage);
    assert_eq!(tab.open(&url).await?.value, json!({ "text": typed }));
    let ours = tab
        .change(
            &url,
            json!([{ "op": "put", "path": ["tab"], "value": true }]),
        )
        .await?;

    let before =
        server.metric("concord_bytes_in_total")? + server.metric("concord_bytes_out_total")?;
    let heads = merged(&[&ours, &theirs]);
    tab.online().await?;
    tab.wait_heads(&url, &heads).await?;
    other.wait_heads(&url, &heads).await?;
    tab.wait_acknowledged(&url).await?;
    let exchanged = server.metric("concord_bytes_in_total")?
        + server.metric("concord_bytes_out_total")?
        - before;
    assert_eq!(tab.view(&url).await?, other.view(&url).await?);
    assert_eq!(
        other.view(&url).await?.value,
        json!({ "text": typed, "tab": true, "other": true })
    );
    // Two changes for two clients and a few heads; a filter over the history alone takes 3,750 bytes.
    assert!(exchanged > 0.0, "the server counts its bytes");
    assert!(exchanged < 3_500.0, "{exchanged} bytes for two new changes");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_samod_client_returns_with_its_storage() -> Result<()> {
    let server = server()?;
    let directory = tempfile::tempdir()?;
    let mut node = NodeClient::connect("node", &server.websocket_url()).await?;
    let url = {
        let mut samod = SamodClient::with_storage(&server.websocket_url(), directory.path()).await;
        samod.online().await?;
        let document = samod.create(|tx| tx.put(ROOT, "visit", 1)).await?;
        samod.wait_acknowledged(&document).await?;
        samod.stop().await;
        document.url()
    };
    assert_eq!(node.find(&url).await?, Found::Ready);
    let theirs = node
        .change(
            &url,
            json!([{ "op": "put", "path": ["node"], "value": true }]),
        )
        .await?;
    node.wait_acknowledged(&url).await?;

    let mut samod = SamodClient::with_storage(&server.websocket_url(), directory.path()).await;
    let document = samod.open(&url).await?;
    assert!(document.read(|document| {
        document
            .get(ROOT, "node")
            .is_ok_and(|found| found.is_none())
    }));
    let ours = document.change(|tx| tx.put(ROOT, "visit", 2))?;
    samod.online().await?;
    let heads = merged(&[&ours, &theirs]);
    document.wait_heads(&heads).await?;
    node.wait_heads(&url, &heads).await?;
    assert_eq!(
        node.view(&url).await?.value,
        json!({ "visit": 2, "node": true })
    );
    Ok(())
}
