//! Promise: no one caller can have so much of the server that others notice, and who meets a limit is told, or waits, and
//! loses nothing.
//!
//! Every test runs the built server with one limit set low, meets it from one address or as one principal, and looks at
//! what comes of it: the code, the metric, what was kept; and at somebody else, who must notice nothing. `rates` has what is
//! limited by time, `doors` connections and those who bring no token, `quotas` what is stored; `load` sets two hundred
//! on one server while two tabs edit; and a `team` meets none of all this where nothing is set.
//!
//! It can't pass by accident: the metric of the limit must have moved, and that of none may move in the last test but for
//! those that are meant.

mod doors;
mod load;
mod quotas;
mod rates;
mod team;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use automerge::{ActorId, ROOT, transaction::Transactable as _};
use concord_client_wasm::replica::Replica;
use concord_shared::ids::DocumentId;
use concord_tests::client::Client;
use concord_tests::server_process::ServerProcess;
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};

/// What an answer may take for somebody who has met no limit, on a busy machine.
const SOON: Duration = Duration::from_secs(5);

/// The nth address of those that nobody has.
fn address(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 18, 0, n)
}

/// A document of this number.
fn document(n: u8) -> DocumentId {
    DocumentId::from_uuid([n; 16])
}

/// A tab behind a proxy, from this address, on this document.
async fn tab(server: &ServerProcess, from: Ipv4Addr, name: &str, n: u8) -> Result<Client> {
    let replica = Replica::new(document(n), ActorId::from(name.as_bytes()));
    Client::join_from(from, server.address(), name, replica).await
}

/// Edits, and waits for the acknowledgement. How long that took.
async fn edit(tab: &mut Client, key: &str) -> Result<Duration> {
    let started = Instant::now();
    tab.edit(|doc| doc.put(ROOT, key, 1)).await?;
    tab.settle().await?;
    Ok(started.elapsed())
}

/// Nothing about this is slow, or refused.
async fn is_unharmed(server: &ServerProcess, from: Ipv4Addr) -> Result<()> {
    let n = 100 + from.octets()[3];
    let mut tab = tab(server, from, &format!("unharmed-{n}"), n).await?;
    for key in ["a", "b", "c"] {
        let took = edit(&mut tab, key).await?;
        ensure!(took < SOON, "somebody else waits for {took:?}");
    }
    let made = ask(
        server,
        from,
        Method::POST,
        "/v1/documents",
        Some(&json!({})),
    )
    .await?;
    ensure!(made.status() == 201, "{}", made.status());
    Ok(())
}

fn request(server: &ServerProcess, from: Ipv4Addr, method: Method, path: &str) -> RequestBuilder {
    let url = format!("http://{}{path}", server.address());
    let request = concord_tests::http_client().request(method, url);
    request.header("x-forwarded-for", from.to_string())
}

async fn ask(
    server: &ServerProcess,
    from: Ipv4Addr,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> Result<Response> {
    let request = request(server, from, method, path);
    let request = match body {
        Some(body) => request.json(body),
        None => request,
    };
    Ok(request.send().await?)
}

/// Status, code, and in how many seconds to come back.
async fn problem(response: Response) -> Result<(u16, String, Option<u64>)> {
    let status = response.status().as_u16();
    let after = response.headers().get("retry-after");
    let after = after.map(|after| anyhow::Ok(after.to_str()?.parse()?));
    let after = after.transpose()?;
    let body: Value = response.json().await?;
    let code = body["code"].as_str().context("a code")?;
    Ok((status, code.to_owned(), after))
}

fn limited(server: &ServerProcess, limit: &str) -> Result<f64> {
    server.metric(&format!("concord_limited_total{{limit=\"{limit}\"}}"))
}

fn was_limited(server: &ServerProcess, limit: &str) -> Result<()> {
    ensure!(limited(server, limit)? > 0.0, "nobody met {limit}");
    Ok(())
}

/// A TCP connection from another address of this machine.
async fn connect_from(from: [u8; 4], to: SocketAddr) -> Result<tokio::net::TcpStream> {
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.bind((IpAddr::from(from), 0).into())?;
    Ok(socket.connect(to).await?)
}
