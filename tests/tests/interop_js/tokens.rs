//! A server that has to know who asks: stock clients bring a token in their URL, which is all that they have.

use std::time::Duration;

use anyhow::Result;
use concord_tests::issuer::Issuer;
use concord_tests::node::{Found, NodeClient};
use concord_tests::server_process::ServerProcess;
use serde_json::json;

/// A stock client tries again every 5 s.
const TRIED_AGAIN: Duration = Duration::from_secs(7);

/// As long as a client of this machine takes for all that is to be done before the token ends, however busy it is.
const SHORT_S: u64 = 12;

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_let_in_by_its_token_and_for_as_long() -> Result<()> {
    let issuer = Issuer::new()?;
    let server = ServerProcess::start_with(&issuer.arguments(&["--share", "anyone=writer"])?)?;
    let url = |token: String| format!("{}?token={token}", server.websocket_url());
    let mut ann = NodeClient::connect("ann", &url(issuer.of("ann")?)).await?;
    let board = ann.create(json!({ "by": "ann", "n": 0 })).await?;
    ann.wait_acknowledged(&board).await?;

    let mut bo = NodeClient::connect("bo", &url(issuer.for_seconds("bo", SHORT_S)?)).await?;
    assert_eq!(bo.find(&board).await?, Found::Ready);
    bo.change(&board, json!([{ "op": "put", "path": ["n"], "value": 1 }]))
        .await?;
    bo.wait_acknowledged(&board).await?;
    ann.wait_value(&board, json!(["n"]), json!(1)).await?;
    assert_eq!(
        bo.disconnections().await?,
        0,
        "its token ended too early for this test"
    );

    // In the middle of the session; and coming back does not help.
    tokio::time::sleep(Duration::from_secs(SHORT_S)).await;
    assert!(bo.disconnections().await? >= 1);
    ann.change(
        &board,
        json!([{ "op": "put", "path": ["by"], "value": "ann again" }]),
    )
    .await?;
    ann.wait_acknowledged(&board).await?;
    bo.change(&board, json!([{ "op": "put", "path": ["n"], "value": 2 }]))
        .await?;
    tokio::time::sleep(TRIED_AGAIN).await;
    assert_eq!(bo.value(&board, json!(["by"])).await?, json!("ann"));
    assert_eq!(ann.value(&board, json!(["n"])).await?, json!(1));
    assert_eq!(bo.handshakes().await?, 1);

    // Nor is anybody let in who has none.
    let without = server.websocket_url();
    let anonymous = tokio::time::timeout(TRIED_AGAIN, NodeClient::connect("nobody", &without));
    assert!(!matches!(anonymous.await, Ok(Ok(_))));
    Ok(())
}
