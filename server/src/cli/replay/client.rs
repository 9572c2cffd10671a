//! One client: a connection to a server, and one replica on it.
//!
//! Two tasks move frames, delayed where latency is asked for; the replica stays with the caller, who decides
//! when to apply what arrived and when to speak.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use concord_client_wasm::{Incoming, Joining, Open, Replica};
use concord_shared::ids::PeerId;
use concord_shared::limits::Limits;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::header;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{
    Connector, MaybeTlsStream, WebSocketStream, connect_async_tls_with_config,
};

use super::super::client::TokenArgs;

/// Frames of one connection that wait in each direction. More would only hide how far a client is behind.
const QUEUED_FRAMES: usize = 1024;

/// How long a client waits for a frame that must come.
const PATIENCE: Duration = Duration::from_mins(1);

/// A connected replica. Dropping it breaks the connection.
#[derive(Debug)]
pub struct Client {
    /// The document.
    pub replica: Replica,
    open: Open,
    outgoing: mpsc::Sender<(Instant, Bytes)>,
    incoming: mpsc::Receiver<anyhow::Result<Bytes>>,
    latency: Duration,
    limits: Limits,
    bytes_sent: u64,
    bytes_received: u64,
    tapped: Option<Vec<Bytes>>,
    _tasks: JoinSet<()>,
}

/// Without what may be secret in it.
fn shown(url: &str) -> &str {
    url.split('?').next().unwrap_or(url)
}

impl Client {
    /// Connects to `url`, joins, and starts a session for `replica`. Every frame takes `latency`.
    pub async fn connect(
        url: &str,
        token: &TokenArgs,
        mut replica: Replica,
        latency: Duration,
    ) -> anyhow::Result<Self> {
        let limits = Limits::default();
        let config = WebSocketConfig::default()
            .max_message_size(Some(limits.frame_bytes))
            .max_frame_size(Some(limits.frame_bytes));
        let mut request = url.into_client_request()?;
        let connector = match request.uri().scheme_str() {
            Some("wss") => Some(Connector::Rustls(Arc::new(token.tls()?))),
            _ => None,
        };
        let token = token.header()?.map(|token| (header::AUTHORIZATION, token));
        request.headers_mut().extend(token);
        // Boxed, as a handshake in TLS is large.
        let connecting = Box::pin(connect_async_tls_with_config(
            request,
            Some(config),
            true,
            connector,
        ));
        let (socket, _) = connecting
            .await
            .with_context(|| format!("connecting to {}", shown(url)))?;
        let (mut sink, mut stream) = socket.split();
        let (joining, join) = Joining::start(PeerId::new(&uuid::Uuid::new_v4().to_string())?, None);
        sink.send(Message::Binary(join)).await.context("joining")?;
        let answer = timeout(PATIENCE, next_frame(&mut stream))
            .await
            .context("no answer to the join")??;
        let open = joining.receive(&answer, &limits)?;
        replica.connect();

        let mut tasks = JoinSet::new();
        let (outgoing, to_send) = mpsc::channel(QUEUED_FRAMES);
        tasks.spawn(send_all(to_send, sink));
        let (arrived, incoming) = mpsc::channel(QUEUED_FRAMES);
        if latency.is_zero() {
            tasks.spawn(receive_all(stream, arrived, |frame| frame));
        } else {
            let (delayed, to_delay) = mpsc::channel(QUEUED_FRAMES);
            tasks.spawn(receive_all(stream, delayed, move |frame| {
                (Instant::now() + latency, frame)
            }));
            tasks.spawn(delay(to_delay, arrived));
        }
        Ok(Self {
            replica,
            open,
            outgoing,
            incoming,
            latency,
            limits,
            bytes_sent: 0,
            bytes_received: 0,
            tapped: None,
            _tasks: tasks,
        })
    }

    /// Sends everything the replica has to say.
    pub async fn flush(&mut self) -> anyhow::Result<()> {
        while let Some(frame) = self.replica.next_frame(&self.open) {
            self.bytes_sent += frame.len() as u64;
            let due = Instant::now() + self.latency;
            if self.outgoing.send((due, frame)).await.is_err() {
                // The receiving half knows why.
                return self
                    .receive()
                    .await
                    .and_then(|()| bail!("the connection is gone"));
            }
        }
        Ok(())
    }

    /// Waits for a frame and takes it, together with all that have come since.
    pub async fn receive(&mut self) -> anyhow::Result<()> {
        let frame = timeout(PATIENCE, self.incoming.recv())
            .await
            .with_context(|| format!("nothing came for {} s", PATIENCE.as_secs()))?
            .context("the connection is gone")??;
        self.take(&frame)?;
        self.receive_ready()
    }

    /// Takes what has come, without waiting.
    pub fn receive_ready(&mut self) -> anyhow::Result<()> {
        while let Ok(frame) = self.incoming.try_recv() {
            self.take(&frame?)?;
        }
        Ok(())
    }

    /// Applies what was received, in one batch; a long one does not hold up other tasks.
    pub fn apply(&mut self) -> anyhow::Result<bool> {
        if !self.replica.has_pending() {
            return Ok(false);
        }
        Ok(tokio::task::block_in_place(|| {
            self.replica.apply_pending()
        })?)
    }

    /// Sends, receives and applies until `done` holds.
    pub async fn work_until(
        &mut self,
        mut done: impl FnMut(&mut Replica) -> bool,
    ) -> anyhow::Result<()> {
        loop {
            self.apply()?;
            self.flush().await?;
            if done(&mut self.replica) {
                return Ok(());
            }
            self.receive().await?;
        }
    }

    /// The sync messages that came since the last call, for whoever wants to see more of them than the replica does. The
    /// first call begins it.
    pub fn tapped(&mut self) -> Vec<Bytes> {
        self.tapped.replace(Vec::new()).unwrap_or_default()
    }

    /// Bytes of frames sent and received so far, the handshake's not counted.
    pub fn traffic(&self) -> (u64, u64) {
        (self.bytes_sent, self.bytes_received)
    }

    fn take(&mut self, frame: &Bytes) -> anyhow::Result<()> {
        self.bytes_received += frame.len() as u64;
        match self.open.receive(frame, &self.limits)? {
            Incoming::Sync { document, data } if document == *self.replica.document() => {
                if let Some(tapped) = &mut self.tapped {
                    tapped.push(data.clone());
                }
                Ok(self.replica.receive(&data, &self.limits)?)
            }
            Incoming::Unavailable { document } => bail!("the server does not give us {document}"),
            Incoming::Leave => bail!("the server is leaving"),
            Incoming::Sync { .. } | Incoming::Ephemeral { .. } | Incoming::Ignored => Ok(()),
        }
    }
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Sends frames when they are due, several at a time when they gather.
async fn send_all(
    mut frames: mpsc::Receiver<(Instant, Bytes)>,
    mut sink: SplitSink<Socket, Message>,
) {
    while let Some((due, frame)) = frames.recv().await {
        sleep_until(due).await;
        let last = frames.is_empty();
        let message = Message::Binary(frame);
        // A broken connection ends the receiving half as well, which reports it.
        if if last {
            sink.send(message).await
        } else {
            sink.feed(message).await
        }
        .is_err()
        {
            return;
        }
    }
    let _closing = sink.close().await;
}

/// Takes frames off the socket until it ends, which is the last thing reported.
async fn receive_all<T>(
    mut stream: SplitStream<Socket>,
    frames: mpsc::Sender<T>,
    stamp: impl Fn(anyhow::Result<Bytes>) -> T,
) {
    loop {
        let frame = next_frame(&mut stream).await;
        let ended = frame.is_err();
        if frames.send(stamp(frame)).await.is_err() || ended {
            return;
        }
    }
}

async fn delay(
    mut frames: mpsc::Receiver<(Instant, anyhow::Result<Bytes>)>,
    arrived: mpsc::Sender<anyhow::Result<Bytes>>,
) {
    while let Some((due, frame)) = frames.recv().await {
        sleep_until(due).await;
        if arrived.send(frame).await.is_err() {
            return;
        }
    }
}

/// The next binary frame; pings are answered by the socket itself.
async fn next_frame(stream: &mut SplitStream<Socket>) -> anyhow::Result<Bytes> {
    loop {
        match stream
            .next()
            .await
            .context("the server closed the connection")??
        {
            Message::Binary(frame) => return Ok(frame),
            Message::Close(Some(close)) => {
                bail!(
                    "the server closed the connection: {} {}",
                    close.code,
                    close.reason
                )
            }
            Message::Close(None) => bail!("the server closed the connection"),
            Message::Text(_) => bail!("the server sent text"),
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
        }
    }
}
