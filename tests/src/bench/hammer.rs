//! What two tabs notice of two hundred connections of somebody nobody knows, who does what they can.
//!
//! Everything has its defaults. The tabs and those who hammer are at two addresses of this machine, which is told that
//! none of them is a proxy. One server and one run have both the quiet and the loud time, and what is loud begins when the
//! burst is over that anybody may have: from then on it is the limits that are measured. The burst of messages is measured,
//! too, which lasts for many seconds. Those who hammer run on the same processors as the server, so what they cost
//! themselves is in the figure.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use automerge::transaction::Transactable as _;
use automerge::{ActorId, ROOT};
use concord_client_wasm::replica::Replica;
use concord_shared::ids::DocumentId;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message as Frame;

use super::Settings;
use super::stats::Spread;
use super::table::Row;
use crate::client::Client;
use crate::issuer::Issuer;
use crate::server_process::ServerProcess;

/// Connections that hammer.
pub const HAMMERERS: usize = 200;

/// Edits of each tab, quiet and loud.
const EDITS: usize = 100;

/// Between two edits: somebody who types fast.
const PAUSE: Duration = Duration::from_millis(20);

/// How long the burst that anybody may have can last.
const BURST_TIMEOUT: Duration = Duration::from_mins(2);

/// How long the other tab may take to see an edit.
const ANSWER: Duration = Duration::from_secs(20);

/// Of each connection that hammers.
const SEND_BUFFER_BYTES: u32 = 16 << 10;

/// What they do in a second when they are held up: three times what any limit lets through.
const MOST_HELD_PER_SECOND: u64 = 15_000;

/// How much slower the tabs may be.
const BUDGET: f64 = 2.0;

/// Where the hammering comes from.
const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// What somebody who is not known may be answered.
const REFUSED: &[u16] = &[401, 429];

/// And who asks for what is open to all.
const GIVEN: &[u16] = &[200, 429];

/// Asks for a WebSocket.
const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";

/// What those do who hammer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Request after request, each with a token that somebody else signed.
    Requests,
    /// Request after request for the longest of what is open to all.
    Open,
    /// A new connection for each WebSocket that they are not given.
    Connections,
    /// Where nobody has to say who they are: message after message.
    Messages,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Requests,
        Self::Open,
        Self::Connections,
        Self::Messages,
    ];

    fn what(self) -> &'static str {
        match self {
            Self::Requests => "asking with wrong tokens",
            Self::Open => "reading what is open to all",
            Self::Connections => "connecting anew without one",
            Self::Messages => "sending messages, with --auth none",
        }
    }

    /// The limit that holds them back.
    fn limit(self) -> &'static str {
        match self {
            Self::Requests => "unauthenticated",
            Self::Open => "open-requests",
            Self::Connections => "arrivals",
            Self::Messages => "messages",
        }
    }
}

/// What one run gave.
#[derive(Debug)]
pub struct Outcome {
    /// Until the other tab had an edit, with nobody else there.
    pub quiet: Vec<Duration>,
    /// And while they hammer.
    pub loud: Vec<Duration>,
    /// What those who hammer did in that time.
    pub done: u64,
    /// And in all: those who are held up do nothing for a while.
    pub done_in_all: u64,
    /// How many of them were let in who should not be.
    pub let_in: u64,
    /// How many times the limit was met.
    pub limited: f64,
}

#[derive(Debug, Default)]
struct Told {
    done: AtomicU64,
    let_in: AtomicU64,
}

/// One line of the table for each kind.
pub async fn measure(settings: &Settings) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let later = Kind::ALL.map(|kind| (kind, true));
    for (kind, is_burst_over) in later.into_iter().chain([(Kind::Messages, false)]) {
        let (edits, hammerers) = (settings.size(EDITS, 5), settings.size(HAMMERERS, 4));
        // What is small is not to wait until a burst is over.
        let is_burst_over = is_burst_over && settings.shrink == 1;
        let (mut quiet, mut loud, mut done) = (Vec::new(), Vec::new(), 0);
        for _ in 0..settings.rounds {
            let outcome = Box::pin(run(kind, edits, hammerers, is_burst_over)).await?;
            quiet.push(median_millis(&outcome.quiet));
            loud.push(median_millis(&outcome.loud));
            done = outcome.done;
        }
        let ratio = Spread::of(loud.iter().zip(&quiet).map(|(loud, quiet)| loud / quiet));
        let show = |millis: &[f64]| {
            Spread::of(millis.iter().copied()).show(|millis| format!("{millis:.2} ms"))
        };
        rows.push(Row {
            what: format!(
                "an edit until the other tab has it, while {hammerers} strangers are {}{}",
                kind.what(),
                if is_burst_over {
                    ""
                } else {
                    ", in the first seconds"
                }
            ),
            concord: format!("{}; {done} times meanwhile", show(&loud)),
            baseline: format!("without them: {}", show(&quiet)),
            ratio: ratio.to_string(),
            budget: Some((format!("≤ {BUDGET}"), ratio.median <= BUDGET)),
        });
    }
    Ok(rows)
}

fn median_millis(times: &[Duration]) -> f64 {
    Spread::of(times.iter().map(Duration::as_secs_f64)).median * 1e3
}

/// Two tabs make so many edits each, quiet and loud, and are the same in the end.
pub async fn run(
    kind: Kind,
    edits: usize,
    hammerers: usize,
    is_burst_over: bool,
) -> Result<Outcome> {
    let issuer = Issuer::new()?;
    // Whatever is not said has its default.
    let no_proxy = ["--trusted-proxy", "192.0.2.1"];
    let operator = [&no_proxy[..], &["--operator", "ann"]].concat();
    let arguments = match kind {
        Kind::Messages => no_proxy.to_vec(),
        Kind::Requests | Kind::Open | Kind::Connections => issuer.arguments(&operator)?,
    };
    let server = ServerProcess::start_with(&arguments)?;
    let token = issuer.of("ann")?;
    let mut tabs = Box::pin(Tabs::open(&server, &token)).await?;
    let quiet = tabs.edit(edits).await?;
    let told = Arc::new(Told::default());
    let mut hammering = JoinSet::new();
    let to = server.address();
    let get = |what: &str, headers: &str| -> Arc<str> {
        format!("GET {what} HTTP/1.1\r\nHost: {to}\r\n{headers}\r\n\r\n").into()
    };
    let strange = format!("Authorization: Bearer {}", Issuer::new()?.of("eve")?);
    let strange = get("/v1/documents", &strange);
    let open = get("/v1/openapi.json", "Accept-Encoding: gzip");
    let connection = get("/sync", UPGRADE);
    for n in 0..hammerers {
        let told = Arc::clone(&told);
        let [strange, open, connection] = [&strange, &open, &connection].map(Arc::clone);
        hammering.spawn(async move {
            match kind {
                Kind::Requests => requests(to, &strange, REFUSED, &told).await,
                Kind::Open => requests(to, &open, GIVEN, &told).await,
                Kind::Connections => connections(to, &connection, &told).await,
                Kind::Messages => messages(to, n, &told).await,
            }
        });
    }
    let limited = async || {
        let metrics = crate::http_client().get(format!("http://{}/metrics", server.address()));
        let metrics = metrics.bearer_auth(&token).send().await?.text().await?;
        let name = format!("concord_limited_total{{limit=\"{}\"}} ", kind.limit());
        let line = metrics.lines().find_map(|line| line.strip_prefix(&name));
        anyhow::Ok(line.context("the limit has no metric")?.parse::<f64>()?)
    };
    if is_burst_over {
        let started = Instant::now();
        while limited().await? == 0.0 {
            ensure!(started.elapsed() < BURST_TIMEOUT, "nobody meets {kind:?}");
            tabs.idle(Duration::from_millis(100)).await?;
        }
        // And until they are held up: before, buffers along the way take what they send, at their own cost.
        let mut before = u64::MAX;
        loop {
            let done = told.done.load(Ordering::Relaxed);
            let is_held = done.saturating_sub(before) < MOST_HELD_PER_SECOND;
            if (before < u64::MAX && is_held) || started.elapsed() > BURST_TIMEOUT {
                break;
            }
            before = done;
            for _ in 0..10 {
                tabs.idle(Duration::from_millis(100)).await?;
            }
        }
    }
    let before = told.done.load(Ordering::Relaxed);
    let loud = tabs.edit(edits).await?;
    let done_in_all = told.done.load(Ordering::Relaxed);
    let limited = limited().await?;
    hammering.abort_all();
    while let Some(ended) = hammering.join_next().await {
        match ended {
            Ok(failed) => failed.context("hammering")?,
            Err(ended) => ensure!(ended.is_cancelled(), "{ended}"),
        }
    }
    tabs.are_equal().await?;
    Ok(Outcome {
        quiet,
        loud,
        done: done_in_all - before,
        done_in_all,
        let_in: told.let_in.load(Ordering::Relaxed),
        limited,
    })
}

/// Two tabs on one document.
struct Tabs([Client; 2]);

impl Tabs {
    async fn open(server: &ServerProcess, token: &str) -> Result<Self> {
        let document = DocumentId::from_uuid([7; 16]);
        let open = async |name: &str| {
            let replica = Replica::new(document.clone(), ActorId::from(name.as_bytes()));
            Client::join_as(token, server.address(), name, replica).await
        };
        let (mut one, mut two) = (open("one").await?, open("two").await?);
        for tab in [&mut one, &mut two] {
            let key = tab.replica().doc().get_actor().to_hex_string();
            tab.edit(|doc| doc.put(ROOT, key, true)).await?;
            tab.settle().await?;
        }
        let mut tabs = Self([one, two]);
        tabs.edit(2).await?;
        Ok(tabs)
    }

    /// So many edits of each in turn: how long until the other one had it. Each is acknowledged.
    async fn edit(&mut self, edits: usize) -> Result<Vec<Duration>> {
        let mut times = Vec::new();
        for n in 0..2 * edits {
            let [one, two] = &mut self.0;
            let (writer, reader) = if n % 2 == 0 { (one, two) } else { (two, one) };
            let started = Instant::now();
            writer.edit(|doc| doc.put(ROOT, "n", n as u64)).await?;
            let heads = writer.replica().heads();
            let deadline = tokio::time::Instant::from_std(started + ANSWER);
            let has = |reader: &mut Client| {
                let doc = reader.replica().doc();
                heads
                    .iter()
                    .all(|head| doc.get_change_by_hash(head).is_some())
            };
            while !has(reader) {
                ensure!(reader.receive(deadline, drop).await?, "an edit is lost");
                reader.send().await?;
            }
            times.push(started.elapsed());
            writer.settle().await?;
            sleep(PAUSE).await;
        }
        Ok(times)
    }

    /// Nobody types, but pings are answered.
    async fn idle(&mut self, time: Duration) -> Result<()> {
        for tab in &mut self.0 {
            tab.receive(tokio::time::Instant::now() + time / 2, drop)
                .await?;
            tab.send().await?;
        }
        Ok(())
    }

    /// All is acknowledged, and both have all of it.
    async fn are_equal(&mut self) -> Result<()> {
        let [one, two] = &mut self.0;
        for tab in [&mut *one, &mut *two] {
            tab.settle().await?;
            let soon = tokio::time::Instant::now() + PAUSE;
            tab.receive(soon, drop).await?;
            tab.settle().await?;
        }
        ensure!(
            one.replica().heads() == two.replica().heads(),
            "they differ"
        );
        ensure!(one.replica().synced() && two.replica().synced());
        Ok(())
    }
}

async fn connect(to: SocketAddr) -> Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((ELSEWHERE, 0).into())?;
    // Or the kernel takes megabytes before anybody waits.
    socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    Ok(socket.connect(to).await?)
}

/// One answer's status; `None`: the connection has ended.
async fn answer(tcp: &mut TcpStream) -> Option<u16> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        tcp.read_exact(&mut byte).await.ok()?;
        head.extend(byte);
    }
    let head = String::from_utf8(head).ok()?.to_ascii_lowercase();
    let length = head.split("content-length: ").nth(1);
    let length = length.and_then(|rest| rest.split("\r\n").next()?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    tcp.read_exact(&mut body).await.ok()?;
    head.split(' ').nth(1)?.parse().ok()
}

impl Told {
    fn was(&self, status: Option<u16>, due: &[u16]) -> Result<()> {
        self.done.fetch_add(1, Ordering::Relaxed);
        match status {
            // The connection may be closed at any time.
            None => Ok(()),
            Some(status) if due.contains(&status) => Ok(()),
            Some(101 | 200) => {
                self.let_in.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            Some(other) => bail!("answered {other}"),
        }
    }
}

async fn requests(to: SocketAddr, request: &str, due: &[u16], told: &Told) -> Result<()> {
    loop {
        let Ok(mut tcp) = connect(to).await else {
            continue;
        };
        loop {
            let sent = tcp.write_all(request.as_bytes()).await;
            let status = answer(&mut tcp).await.filter(|_| sent.is_ok());
            told.was(status, due)?;
            if status.is_none() {
                break;
            }
        }
    }
}

async fn connections(to: SocketAddr, request: &str, told: &Told) -> Result<()> {
    loop {
        let Ok(mut tcp) = connect(to).await else {
            continue;
        };
        let _sent = tcp.write_all(request.as_bytes()).await;
        told.was(answer(&mut tcp).await, REFUSED)?;
    }
}

/// Joins, and sends what means nothing as fast as it is taken.
async fn messages(to: SocketAddr, n: usize, told: &Told) -> Result<()> {
    use concord_client_wasm::replica::Joining;
    use concord_shared::ids::PeerId;
    use concord_shared::limits::Limits;
    use concord_shared::wire::Message;

    loop {
        let Ok(tcp) = connect(to).await else { continue };
        let upgrading = timeout(ANSWER, client_async(format!("ws://{to}/sync"), tcp));
        let Ok(Ok((mut socket, _))) = upgrading.await else {
            continue;
        };
        let me = PeerId::new(&format!("stranger-{n}"))?;
        let (joining, join) = Joining::start(me.clone(), None);
        socket.send(Frame::Binary(join)).await?;
        let Some(Ok(first)) = socket.next().await else {
            continue;
        };
        let open = joining.receive(&first.into_data(), &Limits::default())?;
        let message = Message::RemoteSubscriptionChange {
            sender: me,
            target: open.server().clone(),
            add: Vec::new(),
            remove: Vec::new(),
        };
        let message = message.encode();
        while socket.send(Frame::Binary(message.clone())).await.is_ok() {
            told.done.fetch_add(1, Ordering::Relaxed);
        }
    }
}
