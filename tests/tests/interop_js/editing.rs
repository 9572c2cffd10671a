//! Concurrent edits of every kind of value, made apart and merged through the server.

use anyhow::Result;
use automerge::marks::{ExpandMark, Mark};
use automerge::transaction::{Transactable, Transaction};
use automerge::{AutomergeError, ObjId, ROOT, ReadDoc};
use concord_tests::node::{Found, NodeClient};
use concord_tests::samod_client::SamodClient;
use serde_json::{Value, json};

use crate::{merged, server};

/// What both start from.
fn base() -> Value {
    json!({
        "company": "Acme",
        "obsolete": true,
        "owner": "nobody",
        "items": ["a", "b", "c"],
        "text": "hello world",
        "meetings": { "1": { "date": "2024-01-01", "open": true } },
    })
}

/// One user's edits, as one change.
fn left() -> Value {
    json!([
        { "op": "put", "path": ["meetings", "1", "date"], "value": "2024-02-01" },
        { "op": "put", "path": ["owner"], "value": "left" },
        { "op": "list", "path": ["items"], "index": 0, "values": ["left"] },
        { "op": "increment", "path": ["votes"], "by": 2 },
        { "op": "mark", "path": ["text"], "start": 0, "end": 5, "name": "bold", "value": true, "expand": "none" },
        { "op": "text", "path": ["text"], "index": 0, "text": "left 🎉 " },
    ])
}

/// The other's, concurrently.
fn right() -> Value {
    json!([
        { "op": "put", "path": ["meetings", "1", "room"], "value": "B1" },
        { "op": "put", "path": ["owner"], "value": "right" },
        { "op": "delete", "path": ["obsolete"] },
        { "op": "list", "path": ["items"], "index": 1, "remove": 1 },
        { "op": "push", "path": ["items"], "values": ["right"] },
        { "op": "increment", "path": ["votes"], "by": 5 },
        { "op": "mark", "path": ["text"], "start": 6, "end": 11, "name": "link", "value": "https://example.org", "expand": "none" },
        { "op": "text", "path": ["text"], "index": 11, "text": " right" },
    ])
}

/// [`right`], made with automerge's own interface.
fn right_by_samod(tx: &mut Transaction<'_>) -> Result<(), AutomergeError> {
    let child = |tx: &Transaction<'_>, of: &ObjId, key: &str| -> Result<ObjId, AutomergeError> {
        Ok(tx.get(of, key)?.map_or(ROOT, |(_, id)| id))
    };
    let meetings = child(tx, &ROOT, "meetings")?;
    let meeting = child(tx, &meetings, "1")?;
    let items = child(tx, &ROOT, "items")?;
    let text = child(tx, &ROOT, "text")?;
    let room = tx.put_object(&meeting, "room", automerge::ObjType::Text)?;
    tx.splice_text(&room, 0, 0, "B1")?;
    tx.put(ROOT, "owner", "right")?;
    tx.delete(ROOT, "obsolete")?;
    tx.delete(&items, 1)?;
    tx.insert(&items, 2, "right")?;
    tx.increment(ROOT, "votes", 5)?;
    let link = Mark::new("link".into(), "https://example.org", 6, 11);
    tx.mark(&text, link, ExpandMark::None)?;
    tx.splice_text(&text, 11, 0, " right")
}

/// What both must end with; who owns it is automerge's choice, the same everywhere.
fn expected(owner: &Value) -> Value {
    json!({
        "company": "Acme",
        "owner": owner,
        "items": ["left", "a", "c", "right"],
        "text": "left 🎉 hello world right",
        "votes": 7,
        "meetings": { "1": { "date": "2024-02-01", "open": true, "room": "B1" } },
    })
}

/// In UTF-16 units: the emoji takes two.
fn expected_marks() -> Value {
    json!([
        { "name": "bold", "value": true, "start": 8, "end": 13 },
        { "name": "link", "value": "https://example.org", "start": 14, "end": 19 },
    ])
}

async fn create(author: &mut NodeClient) -> Result<String> {
    let url = author.create(base()).await?;
    author
        .change(
            &url,
            json!([{ "op": "counter", "path": ["votes"], "value": 0 }]),
        )
        .await?;
    author.wait_acknowledged(&url).await?;
    Ok(url)
}

fn sorted_by_start(mut marks: Value) -> Value {
    if let Some(marks) = marks.as_array_mut() {
        marks.sort_by_key(|mark| mark["start"].as_u64());
    }
    marks
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_made_apart_by_two_javascript_clients_merge() -> Result<()> {
    let server = server()?;
    let mut one = NodeClient::connect("one", &server.websocket_url()).await?;
    let mut two = NodeClient::connect("two", &server.websocket_url()).await?;
    let url = create(&mut one).await?;
    assert_eq!(two.find(&url).await?, Found::Ready);
    two.wait_acknowledged(&url).await?;

    one.offline().await?;
    two.offline().await?;
    let heads = merged(&[
        &one.change(&url, left()).await?,
        &two.change(&url, right()).await?,
    ]);
    assert_eq!(heads.len(), 2, "the edits were to be concurrent");
    one.online().await?;
    two.online().await?;
    one.wait_heads(&url, &heads).await?;
    two.wait_heads(&url, &heads).await?;

    let seen = one.view(&url).await?;
    assert_eq!(seen, two.view(&url).await?);
    let owner = &seen.value["owner"];
    assert!(owner == "left" || owner == "right", "{owner}");
    assert_eq!(seen.value, expected(owner));
    for client in [&mut one, &mut two] {
        assert_eq!(
            sorted_by_start(client.marks(&url, json!(["text"])).await?),
            expected_marks()
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_made_apart_by_javascript_and_samod_merge() -> Result<()> {
    let server = server()?;
    let mut node = NodeClient::connect("node", &server.websocket_url()).await?;
    let mut samod = SamodClient::connect(&server.websocket_url()).await?;
    let url = create(&mut node).await?;
    node.wait_acknowledged(&url).await?;
    let document = samod.open(&url).await?;

    node.offline().await?;
    samod.offline();
    let heads = merged(&[
        &node.change(&url, left()).await?,
        &document.change(right_by_samod)?,
    ]);
    assert_eq!(heads.len(), 2, "the edits were to be concurrent");
    node.online().await?;
    samod.online().await?;
    node.wait_heads(&url, &heads).await?;
    document.wait_heads(&heads).await?;

    let seen = node.view(&url).await?;
    assert_eq!(seen, document.view()?);
    assert_eq!(seen.value, expected(&seen.value["owner"]));
    assert_eq!(
        sorted_by_start(node.marks(&url, json!(["text"])).await?),
        expected_marks()
    );
    let mut marks = document.marks("text")?;
    marks.sort();
    assert_eq!(
        marks
            .into_iter()
            .map(|(name, _, start, end)| (name, start, end))
            .collect::<Vec<_>>(),
        // In code points: the emoji is one.
        [("bold".to_owned(), 7, 12), ("link".to_owned(), 13, 18)],
    );
    Ok(())
}

/// No one is ever off-line: both type into one text as fast as their clients send.
#[tokio::test(flavor = "multi_thread")]
async fn javascript_and_samod_type_at_the_same_time() -> Result<()> {
    const KEYSTROKES: usize = 300;
    let server = server()?;
    let mut node = NodeClient::connect("node", &server.websocket_url()).await?;
    let samod = SamodClient::connect(&server.websocket_url()).await?;
    let url = node.create(json!({ "text": "" })).await?;
    // Whoever asks for it earlier waits half a second for it, and a busy machine may take longer.
    node.wait_acknowledged(&url).await?;
    let document = samod.open(&url).await?;

    let typing = async {
        for _ in 0..KEYSTROKES {
            document.change(|tx| {
                let text = tx.get(ROOT, "text")?.map_or(ROOT, |(_, id)| id);
                tx.splice_text(&text, 0, 0, "s")
            })?;
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
        anyhow::Ok(())
    };
    let text = "n".repeat(KEYSTROKES);
    let pause = std::time::Duration::from_millis(2);
    let (left, right) = tokio::join!(node.type_text(&url, json!(["text"]), &text, pause), typing);
    left?;
    right?;

    let all = 2 * KEYSTROKES + 1;
    node.wait_changes(&url, all as u64).await?;
    document.wait_changes(all).await?;
    let seen = document.view()?;
    assert_eq!(seen, node.view(&url).await?);
    let typed = seen.value["text"].as_str().unwrap_or_default();
    assert_eq!(typed.matches('n').count(), KEYSTROKES);
    assert_eq!(typed.matches('s').count(), KEYSTROKES);
    assert_eq!(node.wait_acknowledged(&url).await?, seen.heads);
    Ok(())
}
