//! The server stops or is killed in the middle of everything, and starts again on its data.

use std::time::Duration;

use anyhow::Result;
use automerge::{ROOT, ReadDoc, transaction::Transactable};
use concord_tests::node::{Found, NodeClient};
use concord_tests::samod_client::SamodClient;
use concord_tests::server_process::ServerProcess;
use serde_json::json;

use crate::server;

const PAUSE: Duration = Duration::from_millis(2);
const KEYSTROKES: usize = 150;

/// How the server ends.
#[derive(Clone, Copy)]
enum End {
    Terminate,
    Kill,
}

fn end(server: &mut ServerProcess, how: End) -> Result<()> {
    match how {
        End::Kill => server.kill(),
        End::Terminate => {
            let status = server.terminate()?;
            assert!(status.success(), "SIGTERM is no failure: {status}");
            Ok(())
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_writers_converge_over_a_stop() -> Result<()> {
    two_writers_over(End::Terminate).await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_writers_converge_over_a_kill() -> Result<()> {
    two_writers_over(End::Kill).await
}

/// A JavaScript and a samod client write without a pause while the server ends. What either had been
/// told is kept must be what a new client finds on a server that runs on the data alone: the writers
/// can't reach that one, so nothing they still hold can repair a loss.
async fn two_writers_over(how: End) -> Result<()> {
    let mut server = server()?;
    let mut node = NodeClient::connect("node", &server.websocket_url()).await?;
    let samod = SamodClient::connect(&server.websocket_url()).await?;
    let url = node.create(json!({ "text": "" })).await?;
    node.wait_acknowledged(&url).await?;
    let document = samod.open(&url).await?;
    let identity = node.server().await?;

    let text = "n".repeat(KEYSTROKES);
    let samod_types = async || {
        for _ in 0..KEYSTROKES {
            document.change(|tx| {
                let text = tx.get(ROOT, "text")?.map_or(ROOT, |(_, id)| id);
                tx.splice_text(&text, 0, 0, "s")
            })?;
            tokio::time::sleep(PAUSE).await;
        }
        anyhow::Ok(())
    };
    let (left, right) = tokio::join!(
        node.type_text(&url, json!(["text"]), &text, PAUSE),
        samod_types()
    );
    left?;
    right?;
    document.wait_changes(2 * KEYSTROKES + 1).await?;
    let kept_by_samod = samod.wait_acknowledged(&document).await?;
    assert_eq!(document.view()?.changes, 2 * KEYSTROKES as u64 + 1);

    // The server ends while both go on.
    let ending = async {
        tokio::time::sleep(Duration::from_millis(120)).await;
        end(&mut server, how)
    };
    let (left, right, ended) = tokio::join!(
        node.type_text(&url, json!(["text"]), &text, PAUSE),
        samod_types(),
        ending
    );
    left?;
    right?;
    ended?;
    let kept_by_node = node.acknowledged(&url).await?;
    assert!(
        !kept_by_node.is_empty(),
        "something was acknowledged before the end"
    );

    {
        let mut data_alone = ServerProcess::start_at(server.data(), &[])?;
        let mut stranger = NodeClient::connect("stranger", &data_alone.websocket_url()).await?;
        assert_eq!(
            stranger.server().await?,
            identity,
            "who the server is outlives it"
        );
        assert_eq!(stranger.find(&url).await?, Found::Ready);
        for kept in [&kept_by_samod, &kept_by_node] {
            assert_eq!(
                &stranger.has(&url, kept).await?,
                kept,
                "acknowledged and lost"
            );
        }
        data_alone.terminate()?;
    }

    server.restart()?;
    let all = 4 * KEYSTROKES + 1;
    node.wait_changes(&url, all as u64).await?;
    document.wait_changes(all).await?;
    let seen = node.view(&url).await?;
    assert_eq!(seen, document.view()?);
    let typed = seen.value["text"].as_str().unwrap_or_default();
    assert_eq!(typed.matches('n').count(), 2 * KEYSTROKES);
    assert_eq!(typed.matches('s').count(), 2 * KEYSTROKES);
    assert_eq!(node.wait_acknowledged(&url).await?, seen.heads);
    assert_eq!(node.server_after(2).await?, identity);

    // And all of that, too, is on disk.
    end(&mut server, how)?;
    server.restart()?;
    let mut stranger = NodeClient::connect("stranger", &server.websocket_url()).await?;
    assert_eq!(stranger.open(&url).await?, seen);
    Ok(())
}

/// Clients that do nothing at the time notice nothing but a reconnection.
#[tokio::test(flavor = "multi_thread")]
async fn idle_clients_go_on_after_a_restart() -> Result<()> {
    let mut server = server()?;
    let mut one = NodeClient::connect("one", &server.websocket_url()).await?;
    let mut two = NodeClient::connect("two", &server.websocket_url()).await?;
    let url = one.create(json!({ "round": 0 })).await?;
    assert_eq!(two.find(&url).await?, Found::Ready);
    one.wait_acknowledged(&url).await?;
    for (round, how) in [(1, End::Kill), (2, End::Terminate), (3, End::Kill)] {
        end(&mut server, how)?;
        server.restart()?;
        one.server_after(round + 1).await?;
        two.server_after(round + 1).await?;
        let heads = one
            .change(
                &url,
                json!([{ "op": "put", "path": ["round"], "value": round }]),
            )
            .await?;
        two.wait_heads(&url, &heads).await?;
        assert_eq!(one.wait_acknowledged(&url).await?, heads);
    }
    Ok(())
}
