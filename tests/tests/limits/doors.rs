//! Connections, and those of whom it is not known who they are.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use concord_shared::wire::Message;
use concord_tests::issuer::Issuer;
use concord_tests::raw_client::RawClient;
use concord_tests::server_process::ServerProcess;
use reqwest::Method;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{
    SOON, address, ask, connect_from, document, edit, is_unharmed, problem, request, tab,
    was_limited,
};

/// So that addresses of this machine are no proxies'.
const NO_PROXY: [&str; 2] = ["--trusted-proxy", "192.0.2.1"];

#[tokio::test]
async fn a_caller_has_so_many_websockets_and_streams() -> Result<()> {
    let server = ServerProcess::start_with(&["--max-connections-per-caller", "3"])?;
    let url = server.websocket_url();
    let join = async |name: &str| RawClient::join_from(address(1), &url, name).await;
    let made = ask(
        &server,
        address(1),
        Method::POST,
        "/v1/documents",
        Some(&serde_json::json!({})),
    )
    .await?;
    let events = format!("{}/events", made.headers()["location"].to_str()?);
    let stream = async || {
        let asked = request(&server, address(1), Method::GET, &events);
        anyhow::Ok(asked.header("accept", "text/event-stream").send().await?)
    };
    let (one, _two) = (join("one").await?, join("two").await?);
    let open = stream().await?;
    ensure!(open.status() == 200, "{}", open.status());
    let refused = join("four").await.err().context("a fourth")?;
    ensure!(format!("{refused:#}").contains("429"), "{refused:#}");
    let (status, code, _) = problem(stream().await?).await?;
    ensure!(
        (status, code.as_str()) == (429, "too-many-connections"),
        "{status} {code}"
    );
    was_limited(&server, "connections")?;
    is_unharmed(&server, address(2)).await?;
    // Short requests are not counted, and what ends makes room.
    let listed = ask(&server, address(1), Method::GET, "/v1/documents", None).await?;
    ensure!(listed.status() == 200, "{}", listed.status());
    drop(one);
    let started = Instant::now();
    while join("five").await.is_err() {
        ensure!(started.elapsed() < SOON, "there is no room again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Whatever a caller asks for, on however many connections, there or not, others open theirs.
#[tokio::test]
async fn a_caller_has_so_many_documents_open() -> Result<()> {
    let server = ServerProcess::start_with(&["--max-open-documents-per-caller", "3"])?;
    let mut one = tab(&server, address(1), "one", 1).await?;
    edit(&mut one, "one").await?;
    // The same one again is one more: it is another connection that has it.
    let mut again = tab(&server, address(1), "again", 1).await?;
    edit(&mut again, "again").await?;
    let url = server.websocket_url();
    let raw = async || RawClient::join_from(address(1), &url, "raw").await;
    let mut third = raw().await?;
    for _ in 0..2 {
        third.ask(&document(2)).await?;
        let told = third.next().await?;
        ensure!(matches!(told, Message::DocUnavailable { .. }), "{told:?}");
    }
    third.ask(&document(3)).await?;
    let refusal = third.refusal().await?;
    ensure!(
        (refusal.close_code, refusal.reason.as_str()) == (Some(4429), "too-many-documents"),
        "{refusal:?}"
    );
    was_limited(&server, "open-documents")?;
    // With the connection its place is free again.
    let started = Instant::now();
    loop {
        let mut third = raw().await?;
        third.ask(&document(3)).await?;
        if third.next().await.is_ok() {
            break;
        }
        ensure!(started.elapsed() < SOON, "it is kept");
    }
    edit(&mut one, "more").await?;
    is_unharmed(&server, address(2)).await
}

/// What a connection is told before it says anything, or that it is not.
async fn greeting(tcp: &mut TcpStream) -> Result<Option<String>> {
    let mut text = String::new();
    let read = timeout(Duration::from_secs(2), tcp.read_to_string(&mut text)).await;
    Ok(match read {
        Ok(read) => {
            read?;
            Some(text)
        }
        Err(_) => None,
    })
}

/// Slow clients have what one address may have, for as long as a handshake may take; and nobody elsewhere notices.
#[tokio::test]
async fn slow_connections_take_up_one_address_alone_and_not_for_long() -> Result<()> {
    let arguments = [
        "--max-connections-per-address",
        "4",
        // Longer than a greeting is waited for.
        "--handshake-seconds",
        "4",
    ];
    let server = ServerProcess::start_with(&[&NO_PROXY[..], &arguments].concat())?;
    let to = server.address();
    // WebSockets are not counted there.
    let url = server.websocket_url();
    let mut sockets = Vec::new();
    for n in 0..6 {
        sockets.push(RawClient::join(&url, &format!("tab{n}")).await?);
    }
    let mut slow = Vec::new();
    for _ in 0..4 {
        let mut tcp = connect_from([127, 0, 0, 2], to).await?;
        tcp.write_all(b"GET /sync HTTP/1.1\r\nHost: loc").await?;
        slow.push(tcp);
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut fifth = connect_from([127, 0, 0, 2], to).await?;
    let told = greeting(&mut fifth).await?.context("was let in")?;
    ensure!(told.starts_with("HTTP/1.1 429 "), "{told}");
    ensure!(told.contains("\"code\":\"rate-limited\""), "{told}");
    was_limited(&server, "open-connections")?;
    // A byte now and then is not enough.
    ensure!(slow.len() == 4);
    let started = Instant::now();
    while !slow.is_empty() {
        tokio::time::sleep(Duration::from_millis(100)).await;
        for mut tcp in std::mem::take(&mut slow) {
            let mut byte = [0];
            let is_open = tcp.write_all(b"a").await.is_ok()
                && tcp
                    .try_read(&mut byte)
                    .is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
            if is_open {
                slow.push(tcp);
            }
        }
        ensure!(started.elapsed() < 2 * SOON, "a slow connection stays");
        is_unharmed_here(&server)?;
    }
    loop {
        let mut again = connect_from([127, 0, 0, 2], to).await?;
        if greeting(&mut again).await?.is_none() {
            break;
        }
        ensure!(started.elapsed() < 2 * SOON, "there is no room again");
    }
    drop(sockets);
    Ok(())
}

fn is_unharmed_here(server: &ServerProcess) -> Result<()> {
    let started = Instant::now();
    let (status, _) = server.get("/healthz")?;
    ensure!(status == 200 && started.elapsed() < SOON, "{status}");
    Ok(())
}

#[tokio::test]
async fn connections_come_so_fast() -> Result<()> {
    let arguments = ["--connections-per-second", "1"];
    let server = ServerProcess::start_with(&[&NO_PROXY[..], &arguments].concat())?;
    let mut open = Vec::new();
    for _ in 0..70 {
        open.push(connect_from([127, 0, 0, 2], server.address()).await?);
    }
    // Who comes too fast waits for being told so.
    let told = futures_util::future::join_all(open.iter_mut().map(greeting)).await;
    let mut refused = 0;
    for told in told {
        if let Some(told) = told? {
            ensure!(told.starts_with("HTTP/1.1 429 "), "{told}");
            refused += 1;
        }
    }
    ensure!((5..=11).contains(&refused), "{refused} were refused");
    was_limited(&server, "arrivals")?;
    is_unharmed_here(&server)
}

/// Who has no good token is told so later and later; who has one, at the same address, is answered at once.
#[tokio::test]
async fn who_brings_no_good_token_has_to_wait() -> Result<()> {
    let issuer = Issuer::new()?;
    let limits = ["--unauthenticated-per-second", "1"];
    let server = ServerProcess::start_with(&issuer.arguments(&limits)?)?;
    let ann = issuer.of("ann")?;
    let ask = async |token: &str| {
        let started = Instant::now();
        let asked = request(&server, address(1), Method::GET, "/v1/documents");
        let answer = asked.bearer_auth(token).send().await?;
        anyhow::Ok((answer, started.elapsed()))
    };
    for n in 0..60 {
        let (answer, _) = ask("nonsense").await?;
        ensure!(answer.status() == 401, "{n}: {}", answer.status());
    }
    // Meanwhile some more may be due.
    let mut last = None;
    for _ in 0..20 {
        let (answer, took) = ask("nonsense").await?;
        if answer.status() == 429 {
            last = Some((answer, took));
            break;
        }
    }
    let (answer, took) = last.context("an answer")?;
    ensure!(took >= Duration::from_secs(1), "{took:?}");
    let (status, code, after) = problem(answer).await?;
    ensure!(
        (status, code.as_str()) == (429, "rate-limited"),
        "{status} {code}"
    );
    ensure!(after == Some(1), "{after:?}");
    let (answer, took) = ask(&ann).await?;
    ensure!(answer.status() == 200, "{}", answer.status());
    ensure!(took < Duration::from_millis(900), "{took:?}");
    let operator = issuer.of("root")?;
    let asked = request(&server, address(1), Method::GET, "/metrics");
    let refused = asked.bearer_auth(&operator).send().await?;
    ensure!(
        refused.status() == 403,
        "operators alone see what is counted"
    );
    Ok(())
}

/// What needs no token is answered so fast for each address; those who are counted by who they are notice nothing, nor does
/// a proxy that looks whether the server is well.
#[tokio::test]
async fn who_asks_for_what_is_open_to_all_has_to_wait() -> Result<()> {
    let server = ServerProcess::start_with(&["--open-requests-per-second", "1"])?;
    let open = async |n: usize| {
        let paths = [
            ("/v1/openapi.json", 200),
            ("/v1/nothing", 404),
            ("/inspect/main.js", 200),
            ("/nothing", 404),
            ("/healthz", 200),
        ];
        let (path, status) = paths[n % paths.len()];
        let started = Instant::now();
        let asked = request(&server, address(1), Method::GET, path);
        anyhow::Ok((asked.send().await?, status, started.elapsed()))
    };
    for n in 0..60 {
        let (answer, status, _) = open(n).await?;
        ensure!(answer.status() == status, "{n}: {}", answer.status());
    }
    // Meanwhile some more may be due.
    let mut last = None;
    for n in 0..20 {
        let (answer, _, took) = open(n).await?;
        if answer.status() == 429 {
            last = Some((answer, took));
            break;
        }
    }
    let (answer, took) = last.context("was never refused")?;
    ensure!(took >= Duration::from_secs(1), "{took:?}");
    let (status, code, after) = problem(answer).await?;
    ensure!(
        (status, code.as_str()) == (429, "rate-limited"),
        "{status} {code}"
    );
    ensure!(after == Some(1), "{after:?}");
    was_limited(&server, "open-requests")?;
    for n in 0..80 {
        let listed = ask(&server, address(1), Method::GET, "/v1/documents", None).await?;
        ensure!(listed.status() == 200, "list {n}: {}", listed.status());
        let (status, _) = server.get(["/healthz", "/readyz"][n % 2])?;
        ensure!(status == 200, "look {n}: {status}");
    }
    let elsewhere = request(&server, address(2), Method::GET, "/v1/openapi.json");
    ensure!(elsewhere.send().await?.status() == 200);
    is_unharmed(&server, address(2)).await
}
