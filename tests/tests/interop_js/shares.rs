//! Stock clients in all roles of one document, with tokens in their URLs: who may not write reaches nobody and falls
//! silent; who may not read finds nothing; and what changes of that changes while they are connected.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use concord_tests::http_client;
use concord_tests::issuer::Issuer;
use concord_tests::node::{Found, NodeClient};
use concord_tests::server_process::ServerProcess;
use serde_json::{Value, json};

/// A stock client says something at most every 100 ms, so this is long.
const A_WHILE: Duration = Duration::from_secs(2);

/// What a client that has nothing to say may send in it: an answer that was on its way.
const QUIET_FRAMES: u64 = 2;

struct World {
    issuer: Issuer,
    server: ServerProcess,
}

impl World {
    fn start() -> Result<Self> {
        let issuer = Issuer::new()?;
        let server = ServerProcess::start_with(&issuer.arguments(&["--operator", "root"])?)?;
        Ok(Self { issuer, server })
    }

    async fn client(&self, name: &str) -> Result<NodeClient> {
        let token = self.issuer.of(name)?;
        let url = format!("{}?token={token}", self.server.websocket_url());
        NodeClient::connect(name, &url).await
    }

    /// Says who may do what with a document, as somebody.
    async fn share(&self, who: &str, url: &str, list: Value) -> Result<()> {
        let id = url.strip_prefix("automerge:").context("a URL")?;
        let address = self.server.address();
        let url = format!("http://{address}/v1/documents/{id}/access");
        let put = http_client().put(url).bearer_auth(self.issuer.of(who)?);
        let answer = put.json(&list).send().await?;
        ensure!(answer.status().is_success(), "{answer:?}");
        Ok(())
    }

    /// Frames that the server has had from all its clients.
    async fn frames_in(&self) -> Result<u64> {
        let url = format!("http://{}/metrics", self.server.address());
        let get = http_client().get(url).bearer_auth(self.issuer.of("root")?);
        let metrics = get.send().await?.error_for_status()?.text().await?;
        let mut lines = metrics.lines();
        let line = lines.find(|line| line.starts_with("concord_frames_in_total "));
        let count = line.and_then(|line| line.split(' ').nth(1));
        Ok(count.context("a counter of frames")?.parse()?)
    }
}

fn put(key: &str, value: &str) -> Value {
    json!([{ "op": "put", "path": [key], "value": value }])
}

#[tokio::test(flavor = "multi_thread")]
async fn each_sees_and_does_what_their_role_allows_and_no_more() -> Result<()> {
    let world = World::start()?;
    let mut owner = world.client("owner").await?;
    let board = owner.create(json!({ "by": "owner" })).await?;
    owner.wait_acknowledged(&board).await?;
    let mut stranger = world.client("stranger").await?;
    assert_eq!(stranger.find(&board).await?, Found::Unavailable);
    let list =
        json!({ "principals": { "owner": "owner", "writer": "writer", "reader": "reader" } });
    world.share("owner", &board, list).await?;

    let mut writer = world.client("writer").await?;
    let mut reader = world.client("reader").await?;
    assert_eq!(writer.find(&board).await?, Found::Ready);
    assert_eq!(reader.find(&board).await?, Found::Ready);
    writer.change(&board, put("w", "1")).await?;
    writer.wait_acknowledged(&board).await?;
    for client in [&mut owner, &mut reader] {
        client.wait_value(&board, json!(["w"]), json!("1")).await?;
    }

    // What a reader writes stays with them, and they neither loop nor are cut off.
    for n in 0..3 {
        reader.change(&board, put("r", &n.to_string())).await?;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    reader.broadcast(&board, json!("I am here")).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = world.frames_in().await?;
    tokio::time::sleep(A_WHILE).await;
    let frames = world.frames_in().await? - before;
    ensure!(frames <= QUIET_FRAMES, "{frames} frames of silent clients");
    assert_eq!(reader.disconnections().await?, 0);
    // And they go on receiving.
    writer.change(&board, put("w", "2")).await?;
    reader.wait_value(&board, json!(["w"]), json!("2")).await?;
    owner.wait_value(&board, json!(["w"]), json!("2")).await?;
    for client in [&mut owner, &mut writer] {
        assert_eq!(client.value(&board, json!(["r"])).await?, Value::Null);
        assert_eq!(client.ephemeral(&board, 0).await?, []);
    }
    assert_eq!(stranger.find(&board).await?, Found::Unavailable);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_may_do_changes_while_they_are_connected() -> Result<()> {
    let world = World::start()?;
    let mut owner = world.client("owner").await?;
    let board = owner.create(json!({ "by": "owner" })).await?;
    owner.wait_acknowledged(&board).await?;
    let list = |role: &str| json!({ "principals": { "owner": "owner", "guest": role } });
    let mut guest = world.client("guest").await?;
    assert_eq!(guest.find(&board).await?, Found::Unavailable);

    // Without coming back, and without asking again.
    world.share("owner", &board, list("reader")).await?;
    guest.wait_ready(&board).await?;
    guest
        .wait_value(&board, json!(["by"]), json!("owner"))
        .await?;
    guest.change(&board, put("g", "as a reader")).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(owner.value(&board, json!(["g"])).await?, Value::Null);

    // What they wrote before they might comes with what they write now.
    world.share("owner", &board, list("writer")).await?;
    owner
        .wait_value(&board, json!(["g"]), json!("as a reader"))
        .await?;
    guest.change(&board, put("g", "as a writer")).await?;
    owner
        .wait_value(&board, json!(["g"]), json!("as a writer"))
        .await?;
    guest.wait_acknowledged(&board).await?;

    // A writer who is demoted goes on reading, and what they wrote afterwards is kept for when they may again.
    world.share("owner", &board, list("reader")).await?;
    guest.change(&board, put("g", "demoted")).await?;
    owner.change(&board, put("o", "1")).await?;
    guest.wait_value(&board, json!(["o"]), json!("1")).await?;
    assert_eq!(
        owner.value(&board, json!(["g"])).await?,
        json!("as a writer")
    );

    // Who is put out gets nothing more.
    world.share("owner", &board, list("none")).await?;
    owner.change(&board, put("o", "2")).await?;
    owner.wait_acknowledged(&board).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(guest.value(&board, json!(["o"])).await?, json!("1"));
    guest.change(&board, put("g", "put out")).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(
        owner.value(&board, json!(["g"])).await?,
        json!("as a writer")
    );
    assert_eq!(guest.disconnections().await?, 0);

    // And comes back in with all that they have.
    world.share("owner", &board, list("writer")).await?;
    guest.wait_value(&board, json!(["o"]), json!("2")).await?;
    owner
        .wait_value(&board, json!(["g"]), json!("put out"))
        .await?;
    Ok(())
}
