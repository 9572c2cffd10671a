//! The two tasks of a connection: one reads, one writes.
//!
//! The reader decodes, asks [`phase`](super::phase) what a message means and hands it to documents,
//! waiting for them when they are busy; its socket's buffer then fills and the peer waits. The writer
//! drains the outbox, many frames a flush, and pings. Neither waits for the other: an end is agreed
//! on through the outbox, where the first goodbye wins.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message as Frame, WebSocket};
use bytes::Bytes;
use concord_shared::code::ErrorCode;
use concord_shared::ids::{DocumentId, PeerId, PrincipalId, StorageId};
use concord_shared::limits::Limits;
use concord_shared::wire::{self, Message, PROTOCOL_VERSION, PeerMetadata, SyncFrame, WireError};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, MissedTickBehavior, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, trace};

use super::Goodbye;
use super::decode::{self, DecodeError};
use super::outbox::Outbox;
use super::patience::{self, Backlog, Ping, Stalled};
use super::peers::Peers;
use super::phase::{Action, Handshake, Open, ProtocolError};
use crate::document::ConnectionId;
use crate::document::actor::{Input, PeerMessage};
use crate::document::registry::{Delivery, DocumentHandle, OutOfMemoryBudget, Registry};
use crate::document::task::Link;
use crate::listener::Taken;
use crate::metrics::Metrics;

/// A peer gets this long to answer a close frame.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// What all connections share.
#[derive(Debug)]
pub struct Connections {
    /// This server's peer id.
    pub server: PeerId,
    /// This server's storage id.
    pub storage: StorageId,
    /// Open documents.
    pub registry: Registry,
    /// Live peers.
    pub peers: Peers,
    /// Bounds on what is decoded.
    pub limits: Limits,
    /// Bounds decoding that may hold a whole document in memory.
    pub heavy: Arc<Semaphore>,
    /// Documents one connection may have open.
    pub max_documents: usize,
    /// Time to join.
    pub handshake: Duration,
    /// Time between pings.
    pub keep_alive: Duration,
    /// Time in which a peer must take something of what is written to it.
    pub stall: Duration,
    /// Time that documents get to acknowledge what they have taken in when the server stops.
    pub drain: Duration,
    /// Cancelled when the server stops.
    pub stop: CancellationToken,
    /// Counters.
    pub metrics: Metrics,
    /// Numbers connections.
    pub next: AtomicU64,
}

/// Why reading ended.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error("the peer closed the connection")]
    Closed,
    #[error("the peer left")]
    Left,
    #[error("the server stops")]
    Stopping,
    #[error("the connection was closed from this side")]
    Ended,
    #[error("socket: {0}")]
    Socket(#[from] axum::Error),
    #[error("text frames are not spoken here")]
    Text,
    #[error("no join in time")]
    Late,
    #[error("no answer to a ping")]
    Silent,
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error("the peer id is in use")]
    PeerIdInUse,
    #[error("more documents open than one connection may have")]
    TooManyDocuments,
    #[error(transparent)]
    OutOfMemoryBudget(#[from] OutOfMemoryBudget),
    #[error("a document could not be written or read")]
    DocumentGone,
}

impl ReadError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Socket(error) if too_large(error) => ErrorCode::FrameTooLarge,
            Self::Closed | Self::Left | Self::Ended | Self::Socket(_) => ErrorCode::Closed,
            Self::Stopping => ErrorCode::ShuttingDown,
            Self::Text => ErrorCode::TextFrame,
            Self::Late | Self::Silent => ErrorCode::Timeout,
            Self::Wire(error) => error.code(),
            Self::Protocol(error) => error.code(),
            Self::Decode(error) => error.code(),
            Self::PeerIdInUse => ErrorCode::Forbidden,
            Self::TooManyDocuments | Self::OutOfMemoryBudget(_) => ErrorCode::TooManyDocuments,
            Self::DocumentGone => ErrorCode::StorageFailed,
        }
    }
}

/// Whether the socket refused a frame for its size.
fn too_large(error: &axum::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<tokio_tungstenite::tungstenite::Error>() {
            return matches!(error, tokio_tungstenite::tungstenite::Error::Capacity(_));
        }
        source = error.source();
    }
    false
}

/// Serves a connection until it ends.
pub async fn serve(
    connections: Arc<Connections>,
    socket: WebSocket,
    taken: Taken,
    principal: PrincipalId,
) {
    let id = ConnectionId(connections.next.fetch_add(1, Ordering::Relaxed));
    let outbox = Arc::new(Outbox::new(id));
    let (sent, pings) = watch::channel(None);
    let (sink, stream) = socket.split();
    let writer = Writer {
        id,
        sink,
        taken,
        outbox: Arc::clone(&outbox),
        pings: sent,
        metrics: connections.metrics.clone(),
        keep_alive: connections.keep_alive,
        stall: connections.stall,
    };
    let writer = tokio::spawn(writer.run());
    let mut reader = Reader {
        id,
        connections: &connections,
        stream,
        outbox: &outbox,
        pings,
        principal,
        documents: HashMap::new(),
    };
    let end = reader.run().await;
    for (_, document) in reader.documents.drain() {
        if matches!(end, ReadError::Stopping) {
            // What the document has taken in from here it makes durable and acknowledges as it ends.
            let _in_time = timeout(connections.drain, document.closed()).await;
        } else {
            let _gone = document.send(Delivery::Input(Input::Leave(id))).await;
        }
    }
    let goodbye = Goodbye {
        detail: end.to_string(),
        ..Goodbye::new(end.code())
    };
    match end {
        ReadError::Silent => outbox.abandon(goodbye),
        _ => outbox.close(goodbye),
    }
    // What still comes is taken and dropped, or the peer might lose what it was told: an unread
    // byte makes a close a reset. Once it was told everything its answer is waited for, not longer.
    let mut rest = pin!(async { while let Some(Ok(_)) = reader.stream.next().await {} });
    let mut writer = pin!(writer);
    tokio::select! {
        _joined = &mut writer => {
            let _in_time = timeout(CLOSE_TIMEOUT, rest).await;
        }
        () = &mut rest => {
            let _joined = writer.await;
        }
    }
}

struct Reader<'a> {
    id: ConnectionId,
    connections: &'a Arc<Connections>,
    stream: SplitStream<WebSocket>,
    outbox: &'a Arc<Outbox>,
    pings: watch::Receiver<Option<Ping>>,
    principal: PrincipalId,
    documents: HashMap<DocumentId, DocumentHandle>,
}

impl Reader<'_> {
    async fn run(&mut self) -> ReadError {
        let mut open = match self.join().await {
            Ok(open) => open,
            Err(error) => return error,
        };
        self.connections.metrics.connections.increment(1);
        let end = loop {
            if let Err(error) = self.step(&mut open).await {
                break error;
            }
        };
        self.connections.metrics.connections.decrement(1);
        self.connections.peers.leave(open.peer(), self.id);
        end
    }

    async fn join(&mut self) -> Result<Open, ReadError> {
        let first = timeout(self.connections.handshake, self.receive());
        let frame = first.await.map_err(|_| ReadError::Late)??;
        let message = wire::decode(&frame, &self.connections.limits)?;
        let handshake = Handshake {
            server: self.connections.server.clone(),
        };
        let open = handshake.receive(message)?;
        self.connections
            .peers
            .join(open.peer(), &self.principal, self.id, self.outbox)
            .map_err(|_| ReadError::PeerIdInUse)?;
        debug!(connection = self.id.0, peer = %open.peer(), "joined");
        let answer = Message::Peer {
            sender: self.connections.server.clone(),
            target: open.peer().clone(),
            version: PROTOCOL_VERSION.to_owned(),
            metadata: PeerMetadata {
                storage_id: Some(self.connections.storage.clone()),
                is_ephemeral: false,
            },
        };
        self.outbox.push(answer.encode(), None);
        Ok(open)
    }

    async fn step(&mut self, open: &mut Open) -> Result<(), ReadError> {
        let frame = self.receive().await?;
        let message = wire::decode(&frame, &self.connections.limits)?;
        trace!(
            connection = self.id.0,
            kind = message.kind(),
            bytes = frame.len(),
            "received"
        );
        match open.receive(message)? {
            Action::Sync {
                document,
                is_request,
                data,
            } => {
                let connections = self.connections;
                let decoded = decode::decode(data, connections.limits, &connections.heavy).await?;
                let message = PeerMessage {
                    principal: self.principal.clone(),
                    storage: open.storage().cloned(),
                    is_request,
                    sync: decoded.sync,
                    changes: decoded.changes,
                    snapshot: decoded.snapshot,
                };
                let (handle, is_new) = self.document(&document, open).await?;
                let input = Input::Message(self.id, Box::new(message));
                self.deliver(&handle, input).await?;
                if is_new && !open.subscriptions().is_empty() {
                    let input = Input::Subscribe(self.id, Arc::clone(open.subscriptions()));
                    self.deliver(&handle, input).await?;
                }
                Ok(())
            }
            Action::Ephemeral(document, ephemeral) => {
                // To who has the document open here; opening it for this would be a way to fill memory.
                match self.documents.get(&document) {
                    Some(handle) => {
                        self.deliver(handle, Input::Ephemeral(self.id, ephemeral))
                            .await
                    }
                    None => Ok(()),
                }
            }
            Action::Subscriptions(storages) => {
                for handle in self.documents.values() {
                    let input = Input::Subscribe(self.id, Arc::clone(&storages));
                    self.deliver(handle, input).await?;
                }
                Ok(())
            }
            Action::Leave => Err(ReadError::Left),
            Action::Ignore => Ok(()),
        }
    }

    /// The document, and whether it had to be opened for this connection.
    async fn document(
        &mut self,
        document: &DocumentId,
        open: &Open,
    ) -> Result<(DocumentHandle, bool), ReadError> {
        if let Some(handle) = self.documents.get(document) {
            return Ok((handle.clone(), false));
        }
        if self.documents.len() >= self.connections.max_documents {
            return Err(ReadError::TooManyDocuments);
        }
        let handle = self.connections.registry.open(document)?;
        let server = self.connections.server.clone();
        let link = Link {
            outbox: Arc::clone(self.outbox),
            sync_frame: SyncFrame::new(document, &server, open.peer()),
            server,
            peer: open.peer().clone(),
            document: handle.clone(),
        };
        let delivery = Delivery::Open(self.id, Box::new(link));
        handle.send(delivery).await.map_err(|_| self.gone())?;
        self.documents.insert(document.clone(), handle.clone());
        Ok((handle, true))
    }

    async fn deliver(&self, handle: &DocumentHandle, input: Input) -> Result<(), ReadError> {
        let sent = handle.send(Delivery::Input(input)).await;
        sent.map_err(|_| self.gone())
    }

    /// Why a document takes nothing: it failed, or it has finished already because the server stops.
    fn gone(&self) -> ReadError {
        if self.connections.stop.is_cancelled() {
            ReadError::Stopping
        } else {
            ReadError::DocumentGone
        }
    }

    /// The next binary frame.
    async fn receive(&mut self) -> Result<Bytes, ReadError> {
        loop {
            let waiting = Instant::now();
            let frame = tokio::select! {
                biased;
                () = self.outbox.closing().cancelled() => return Err(ReadError::Ended),
                () = self.connections.stop.cancelled() => return Err(ReadError::Stopping),
                // Any frame shows that the peer is alive.
                frame = self.stream.next() => frame.ok_or(ReadError::Closed)??,
                () = patience::unanswered(&mut self.pings, waiting) => {
                    return Err(ReadError::Silent);
                }
            };
            match frame {
                Frame::Binary(bytes) => {
                    self.connections.metrics.frames_in.increment(1);
                    self.connections
                        .metrics
                        .bytes_in
                        .increment(bytes.len() as u64);
                    return Ok(bytes);
                }
                Frame::Text(_) => return Err(ReadError::Text),
                Frame::Close(_) => return Err(ReadError::Closed),
                Frame::Ping(_) | Frame::Pong(_) => {}
            }
        }
    }
}

struct Writer {
    id: ConnectionId,
    sink: SplitSink<WebSocket, Frame>,
    taken: Taken,
    outbox: Arc<Outbox>,
    pings: watch::Sender<Option<Ping>>,
    metrics: Metrics,
    keep_alive: Duration,
    stall: Duration,
}

/// Why nothing more can be written.
#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error("socket: {0}")]
    Socket(#[from] axum::Error),
    #[error("the peer takes nothing")]
    Stalled,
}

impl From<Stalled> for WriteError {
    fn from(_: Stalled) -> Self {
        Self::Stalled
    }
}

impl WriteError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Socket(_) => ErrorCode::Closed,
            Self::Stalled => ErrorCode::Timeout,
        }
    }
}

impl Writer {
    async fn run(mut self) {
        match self.write_until_goodbye().await {
            Ok(goodbye) => {
                let _sent = timeout(CLOSE_TIMEOUT, self.say_goodbye(&goodbye)).await;
            }
            // Nobody can be told; the reader and the log are.
            Err(error) => self.outbox.abandon(Goodbye {
                detail: error.to_string(),
                ..Goodbye::new(error.code())
            }),
        }
    }

    async fn write_until_goodbye(&mut self) -> Result<Goodbye, WriteError> {
        let mut ping = tokio::time::interval(self.keep_alive);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ping.reset();
        let mut backlog = Backlog::new(self.stall);
        loop {
            let taken = tokio::select! {
                taken = self.outbox.take() => taken,
                _ = ping.tick() => {
                    self.write([Frame::Ping(Bytes::new())]).await?;
                    let at = Instant::now();
                    let patience = self.keep_alive + backlog.left(self.taken.bytes(), at);
                    self.pings.send_replace(Some(Ping { at, patience }));
                    continue;
                }
            };
            for frame in &taken.frames {
                self.metrics.frames_out.increment(1);
                self.metrics.bytes_out.increment(frame.len() as u64);
            }
            self.write(taken.frames.into_iter().map(Frame::Binary))
                .await?;
            for document in taken.congested {
                document.drained(self.id);
            }
            if let Some(goodbye) = taken.goodbye {
                return Ok(goodbye);
            }
        }
    }

    async fn write(&mut self, frames: impl IntoIterator<Item = Frame>) -> Result<(), WriteError> {
        let write = async {
            for frame in frames {
                self.sink.feed(frame).await?;
            }
            self.sink.flush().await
        };
        let taken = || self.taken.bytes();
        let closing = self.outbox.closing();
        Ok(patience::while_taken(write, taken, self.stall, closing).await??)
    }

    /// An `error` message, which JavaScript clients only log, then the close frame, which they heed.
    async fn say_goodbye(&mut self, goodbye: &Goodbye) -> Result<(), axum::Error> {
        if goodbye.is_a_refusal() {
            let message = Message::Error {
                message: goodbye.message(),
                sender: None,
                target: None,
            };
            self.sink.feed(Frame::Binary(message.encode())).await?;
        }
        let close = CloseFrame {
            code: goodbye.close_code(),
            reason: goodbye.code.as_str().into(),
        };
        self.sink.send(Frame::Close(Some(close))).await
    }
}
