//! Promise: who shows another token in time stays, with what that one allows; who shows a bad one keeps what they had,
//! until that ends.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use concord_shared::DocumentId;
use concord_shared::wire::Message;
use concord_tests::issuer::Issuer;
use concord_tests::raw_client::RawClient;
use concord_tests::server_process::ServerProcess;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::rest::Rest;

/// Seconds of a token that is to be renewed. Tokens have whole ones, so it may last one less.
const SHORT_S: u64 = 4;

/// Of one by which several others are shown, a second apart.
const LONGER_S: u64 = 8;

/// Each is granted anew for as much as a message costs.
const DOCUMENTS: usize = 20;

/// An id that nobody has.
const NOBODYS: &str = "4NMNnkMhL8jXrdJ9jamS58PAVdXu";

struct World {
    issuer: Issuer,
    server: ServerProcess,
}

impl World {
    fn start() -> Result<Self> {
        let issuer = Issuer::new()?;
        let arguments = issuer.arguments(&["--request-grace-ms", "100"])?;
        let server = ServerProcess::start_with(&arguments)?;
        Ok(Self { issuer, server })
    }

    /// A document of ann's.
    async fn document(&self) -> Result<String> {
        let rest = Rest::new(self.server.address());
        let ann = rest.with_token(&self.issuer.of("ann")?);
        let made = ann.post("/v1/documents", &json!({ "a": 1 })).await?;
        let location = made.good()?.location.context("a place")?;
        Ok(location.rsplit('/').next().context("an id")?.to_owned())
    }

    async fn join(&self, token: &str) -> Result<RawClient> {
        let url = format!("{}?token={token}", self.server.websocket_url());
        RawClient::join(&url, "tab").await
    }
}

/// What showing a token is answered.
async fn shown(client: &mut RawClient, token: &str) -> Result<Value> {
    let said = json!({ "type": "token", "token": token });
    client.send_text(&said.to_string()).await?;
    let answer: Value = serde_json::from_str(&client.next_text().await?)?;
    ensure!(answer["type"] == "token", "{answer}");
    Ok(answer)
}

async fn ask(client: &mut RawClient, document: &str) -> Result<()> {
    client.ask(&DocumentId::new(document)?).await
}

/// The next message is that there is no such document.
async fn is_not_there(client: &mut RawClient, document: &str) -> Result<()> {
    match client.next().await? {
        Message::DocUnavailable { document: of, .. } if of.to_string() == document => Ok(()),
        other => bail!("{other:?}"),
    }
}

/// The next message is what the server has of it.
async fn is_there(client: &mut RawClient, document: &str) -> Result<()> {
    match client.next().await? {
        Message::Sync { document: of, .. } if of.to_string() == document => Ok(()),
        other => bail!("{other:?}"),
    }
}

#[tokio::test]
async fn who_shows_another_token_in_time_stays() -> Result<()> {
    let world = World::start()?;
    let id = world.document().await?;
    let started = Instant::now();
    let mut client = world
        .join(&world.issuer.for_seconds("ann", SHORT_S)?)
        .await?;
    ask(&mut client, &id).await?;
    is_there(&mut client, &id).await?;
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let answer = shown(&mut client, &world.issuer.for_seconds("ann", SHORT_S)?).await?;
        let until = answer["until"].as_str().context("a time")?;
        ensure!(until.contains('T') && until.contains('Z'), "{answer}");
    }
    let answer = shown(&mut client, &world.issuer.of("ann")?).await?;
    ensure!(answer["until"].is_string(), "{answer}");
    let all = Duration::from_secs(2 + SHORT_S + 1);
    tokio::time::sleep(all.saturating_sub(started.elapsed())).await;
    // What was open is so still: who may not have it any more is told so when they say something about it.
    ask(&mut client, &id).await?;
    ask(&mut client, NOBODYS).await?;
    loop {
        match client.next().await? {
            Message::Sync { document, .. } if document.to_string() == id => {}
            Message::DocUnavailable { document, .. } if document.to_string() == NOBODYS => break,
            other => bail!("{other:?}"),
        }
    }
    Ok(())
}

/// Each takes the server a signature to verify.
#[tokio::test]
async fn tokens_are_looked_at_one_a_second() -> Result<()> {
    let world = World::start()?;
    let token = world.issuer.of("ann")?;
    let mut client = world.join(&token).await?;
    let started = Instant::now();
    let said = json!({ "type": "token", "token": token }).to_string();
    for _ in 0..3 {
        client.send_text(&said).await?;
    }
    // Nothing is lost, also not what comes behind them.
    ask(&mut client, NOBODYS).await?;
    for _ in 0..3 {
        let answer: Value = serde_json::from_str(&client.next_text().await?)?;
        ensure!(answer["until"].is_string(), "{answer}");
    }
    is_not_there(&mut client, NOBODYS).await?;
    let took = started.elapsed();
    ensure!(took >= Duration::from_secs(2), "{took:?}");
    Ok(())
}

#[tokio::test]
async fn who_shows_a_bad_token_keeps_what_they_had() -> Result<()> {
    let world = World::start()?;
    let started = Instant::now();
    let mut client = world
        .join(&world.issuer.for_seconds("ann", LONGER_S)?)
        .await?;
    let (stranger, long) = (Issuer::new()?, "x".repeat(9 << 10));
    for (token, code) in [
        (&world.issuer.of("bob")?, "token-principal"),
        (&world.issuer.for_seconds("ann", 0)?, "token-expired"),
        (&stranger.of("ann")?, "token-signature"),
        (&"ann".to_owned(), "token-malformed"),
        (&long, "token-too-large"),
    ] {
        let answer = shown(&mut client, token).await?;
        ensure!(answer["code"] == code, "{answer}");
        ensure!(answer["detail"].is_string(), "{answer}");
        ensure!(!answer.to_string().contains(token), "{answer}");
    }
    ask(&mut client, NOBODYS).await?;
    is_not_there(&mut client, NOBODYS).await?;
    let refusal = client.refusal().await?;
    ensure!(refusal.reason == "token-expired", "{refusal:?}");
    let ended = started.elapsed().as_secs();
    ensure!((LONGER_S - 1..LONGER_S + 4).contains(&ended), "{ended}");
    Ok(())
}

/// What a token grants holds from the moment at which it is shown, for documents that are open and for those that were
/// asked for in vain.
#[tokio::test]
async fn roles_are_those_of_the_last_token() -> Result<()> {
    let world = World::start()?;
    let id = &world.document().await?;
    let granting = |role: Option<&str>| {
        let grants = role.map_or_else(|| json!({}), |role| json!({ id: role }));
        world.issuer.granting("bob", &grants)
    };

    let mut bob = world.join(&granting(None)?).await?;
    ask(&mut bob, id).await?;
    is_not_there(&mut bob, id).await?;
    // Without asking again.
    shown(&mut bob, &granting(Some("reader"))?).await?;
    is_there(&mut bob, id).await?;
    shown(&mut bob, &granting(None)?).await?;
    is_not_there(&mut bob, id).await?;
    shown(&mut bob, &granting(Some("writer"))?).await?;
    is_there(&mut bob, id).await
}

#[tokio::test]
async fn other_texts_are_refused_also_where_everybody_may_do_everything() -> Result<()> {
    let server = ServerProcess::start()?;
    let mut client = RawClient::join(&server.websocket_url(), "tab").await?;
    let answer = shown(&mut client, "whatever").await?;
    ensure!(
        answer == json!({ "type": "token", "until": null }),
        "{answer}"
    );
    let long = json!({ "type": "token", "token": "x".repeat(1 << 20) }).to_string();
    for text in ["", "hello", r#"{"type":"join"}"#, &long] {
        let mut client = RawClient::join(&server.websocket_url(), "tab").await?;
        client.send_text(text).await?;
        let refusal = client.refusal().await?;
        ensure!(refusal.reason == "text-frame", "{refusal:?}");
        ensure!(refusal.close_code == Some(1003), "{refusal:?}");
    }
    // Before it is known who is there nothing can be renewed.
    let mut client = RawClient::connect(&server.websocket_url(), "tab").await?;
    client.send_text(r#"{"type":"token","token":"a"}"#).await?;
    ensure!(client.refusal().await?.reason == "text-frame");
    Ok(())
}

/// What is sent slowly is from whoever it was from when it has come: by every way to write something.
#[tokio::test]
async fn who_is_nobody_any_more_writes_nothing() -> Result<()> {
    let world = World::start()?;
    let rest = Rest::new(world.server.address());
    let [ann, bob] = &[
        rest.with_token(&world.issuer.of("ann")?),
        rest.with_token(&world.issuer.of("bob")?),
    ];
    let path = format!("/v1/documents/{}", world.document().await?);
    let unborn = format!("/v1/documents/{NOBODYS}");
    let before = ann.get(&path).await?.good()?;
    let token = &world.issuer.for_seconds("ann", 2)?;
    let give = json!({ "principals": { "ann": "owner", "eve": "owner" } });
    let slowly = [
        ("PUT", path.clone(), json!({ "n": 1 })),
        ("PATCH", format!("{path}/value"), json!({ "n": 1 })),
        ("POST", format!("{path}/fork"), json!({})),
        ("POST", "/v1/documents".to_owned(), json!({ "n": 1 })),
        ("PUT", unborn.clone(), json!({ "n": 1 })),
        ("PUT", format!("{path}/access"), give),
    ]
    .map(async |(method, path, body)| {
        let body = body.to_string();
        let (begins, ends) = body.split_at(1);
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{begins}",
            world.server.address(),
            body.len()
        );
        let mut slow = TcpStream::connect(world.server.address()).await?;
        slow.write_all(head.as_bytes()).await?;
        tokio::time::sleep(Duration::from_secs(3)).await;
        slow.write_all(ends.as_bytes()).await?;
        let mut answer = String::new();
        slow.read_to_string(&mut answer).await?;
        let what = format!("{method} {path}: {answer}");
        ensure!(answer.starts_with("HTTP/1.1 401"), "{what}");
        ensure!(answer.contains("token-expired"), "{what}");
        ensure!(answer.contains("www-authenticate: Bearer"), "{what}");
        Ok(())
    });
    futures_util::future::try_join_all(slowly).await?;
    let now = ann.get(&path).await?.good()?;
    ensure!(
        now.etag == before.etag && now.json()? == before.json()?,
        "{now:?}"
    );
    let list = ann.get(&format!("{path}/access")).await?.good()?.json()?;
    ensure!(
        list["list"]["principals"] == json!({ "ann": "owner" }),
        "{list}"
    );
    // Nor is the id hers for that.
    bob.put(&unborn, &json!({ "n": 2 })).await?.good()?;
    let all = ann.get("/v1/documents").await?.good()?.json()?;
    ensure!(
        all["documents"].as_array().map(Vec::len) == Some(1),
        "{all}"
    );
    Ok(())
}

/// What members get is had as long as the token lasts that said so, and no longer, however long it takes to look at all
/// documents again by the next one.
#[tokio::test]
async fn what_a_token_gave_is_gone_when_it_ends_though_the_next_is_still_looked_at() -> Result<()> {
    let issuer = Issuer::new()?;
    let arguments = ["--request-grace-ms", "100", "--messages-per-second", "1"];
    let server = ServerProcess::start_with(&issuer.arguments(&arguments)?)?;
    let world = World { issuer, server };
    let ann = Rest::new(world.server.address()).with_token(&world.issuer.of("ann")?);
    let board = json!({ "principals": { "ann": "owner" }, "groups": { "board": "reader" } });
    let mut documents = Vec::new();
    for _ in 0..DOCUMENTS {
        let id = world.document().await?;
        let path = format!("/v1/documents/{id}/access");
        ann.put(&path, &board).await?.good()?;
        documents.push(id);
    }
    let ends = std::time::SystemTime::now() + Duration::from_secs(LONGER_S);
    let exp = ends.duration_since(std::time::UNIX_EPOCH)?.as_secs();
    let of_members = json!({ "sub": "bob", "groups": ["board"], "exp": exp });
    let mut bob = world.join(&world.issuer.token(&of_members)?).await?;
    for id in &documents {
        ask(&mut bob, id).await?;
        is_there(&mut bob, id).await?;
    }
    // Another tab of his uses up what he may send: after that comes one a second.
    let url = world.server.websocket_url();
    let other = format!("{url}?token={}", world.issuer.of("bob")?);
    let mut other = RawClient::join(&other, "other").await?;
    for _ in 0..100 {
        ask(&mut other, NOBODYS).await?;
    }
    // Which takes the server a moment.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let said = json!({ "type": "token", "token": world.issuer.of("bob")? });
    bob.send_text(&said.to_string()).await?;
    let wait = ends.duration_since(std::time::SystemTime::now())?;
    tokio::time::sleep(wait + Duration::from_millis(500)).await;
    let patch = json!({ "secret": true });
    for id in &documents {
        let path = format!("/v1/documents/{id}/value");
        let kind = "application/merge-patch+json";
        ann.patch(&path, kind, &patch).await?.good()?;
    }
    let mut told = Vec::new();
    let refusal = bob.refusal_after(|message| told.push(message)).await?;
    ensure!(refusal.close_code == Some(4401), "{refusal:?}");
    ensure!(told.is_empty(), "{told:?}");
    Ok(())
}

/// Nor does what an earlier token said count for what comes later.
#[tokio::test]
async fn who_is_no_member_any_more_gets_nothing_that_members_get() -> Result<()> {
    let world = World::start()?;
    let [shared, other] = &[world.document().await?, world.document().await?];
    let of_members = world.issuer.of_member("bob", &["board"])?;
    let mut bob = world.join(&of_members).await?;
    for id in [shared, other] {
        ask(&mut bob, id).await?;
        is_not_there(&mut bob, id).await?;
    }
    shown(&mut bob, &world.issuer.of("bob")?).await?;
    let ann = Rest::new(world.server.address()).with_token(&world.issuer.of("ann")?);
    let board = json!({ "principals": { "ann": "owner" }, "groups": { "board": "reader" } });
    let path = format!("/v1/documents/{shared}/access");
    ann.put(&path, &board).await?.good()?;
    // The next that they are told is of what is shared with them.
    let bobs = json!({ "principals": { "ann": "owner", "bob": "reader" } });
    let path = format!("/v1/documents/{other}/access");
    ann.put(&path, &bobs).await?.good()?;
    is_there(&mut bob, other).await
}
