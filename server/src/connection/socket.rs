//! The two tasks of a connection: one reads, one writes.
//!
//! The reader decodes, asks [`phase`](super::phase) what a message means and hands it to documents,
//! waiting for them when they are busy; its socket's buffer then fills and the peer waits. While a big
//! message is decoded it reads one message ahead, to notice when the peer goes. The [writer] drains the
//! outbox. Neither waits for the other: an end is agreed on through the outbox, where the first goodbye wins.

mod documents;
mod renewal;
mod writer;

use std::collections::HashMap;
use std::future::Future;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::ws::{Message as Frame, WebSocket};
use bytes::Bytes;
use concord_shared::code::ErrorCode;
use concord_shared::ids::{DocumentId, PeerId, StorageId};
use concord_shared::limits::Limits;
use concord_shared::wire::{self, Message, PROTOCOL_VERSION, PeerMetadata, WireError};
use futures_util::StreamExt;
use futures_util::stream::SplitStream;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite;
use tokio_util::sync::CancellationToken;
use tracing::{debug, trace};

use self::documents::{Found, Place};
use self::writer::Writer;
use super::Goodbye;
use super::backoff::Backoff;
use super::caller::Caller;
use super::decode::{self, DecodeError, Decoded, Decoders};
use super::lobby::Lobby;
use super::outbox::Outbox;
use super::own::Spoken;
use super::patience::{self, Arriving, Flooded, Ping, Pongs, Stalled};
use super::peers::Peers;
use super::phase::{Action, Handshake, Open, ProtocolError};
use super::refusals::Refusals;
use crate::access::{Authority, Grants, Identity};
use crate::audit::Trail;
use crate::audit::event::Event;
use crate::document::ConnectionId;
use crate::document::actor::{Input, PeerMessage};
use crate::document::registry::{Delivery, OutOfMemoryBudget, Registry};
use crate::limits::account::Account;
use crate::limits::{Callers, Limited};
use crate::metrics::Metrics;
use crate::traffic::{InFlight, TooMuchInFlight, Traffic};

/// Messages that a connection takes in before others have their turn. What was read at once can be a thousand, and behind
/// two hundred who send all the time somebody else would wait for as many of each.
const MESSAGES_PER_TURN: usize = 32;

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
    /// Who may do what with them.
    pub grants: Grants,
    /// Whose tokens are believed.
    pub authority: Authority,
    /// How long somebody who asks for a document that is not there, or not for them, waits to be told so.
    pub request_grace: Duration,
    /// Live peers.
    pub peers: Peers,
    /// Who has to wait before joining.
    pub backoff: Arc<Backoff>,
    /// The last refusals.
    pub refusals: Arc<Refusals>,
    /// What each caller has had.
    pub callers: Arc<Callers>,
    /// Bounds on what is decoded.
    pub limits: Limits,
    /// Bounds decoding.
    pub decoders: Decoders,
    /// Bounds what has arrived and is not decoded.
    pub in_flight: Arc<InFlight>,
    /// Documents one connection may have open.
    pub max_documents: usize,
    /// Time to join.
    pub handshake: Duration,
    /// Time between pings.
    pub keep_alive: Duration,
    /// Time in which a peer must take something of what is written to it, and get on with a message
    /// that it has begun.
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
    Socket(axum::Error),
    #[error("the message is too large")]
    TooLarge,
    #[error("no such text frame is spoken here")]
    Text,
    #[error("no join in time")]
    Late,
    #[error("no answer to a ping")]
    Silent,
    #[error("a message was begun and does not go on")]
    Unfinished,
    #[error("more pings than answers are taken")]
    Flooded,
    #[error(transparent)]
    TooMuchInFlight(TooMuchInFlight),
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    #[error("{error}")]
    Decode {
        document: DocumentId,
        error: DecodeError,
    },
    #[error("changes were refused again and again: try again in {} s", wait.as_secs() + 1)]
    HeldOff { wait: Duration },
    #[error(transparent)]
    Limited(#[from] Limited),
    #[error("the peer id is in use")]
    PeerIdInUse,
    #[error("more documents open than one connection may have")]
    TooManyDocuments,
    #[error("more documents open than one caller may have on all connections")]
    TooManyOfCaller,
    #[error(transparent)]
    OutOfMemoryBudget(#[from] OutOfMemoryBudget),
    #[error("a document could not be written or read")]
    DocumentGone,
}

impl ReadError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::TooLarge => ErrorCode::FrameTooLarge,
            Self::Closed | Self::Left | Self::Ended | Self::Socket(_) => ErrorCode::Closed,
            Self::Stopping => ErrorCode::ShuttingDown,
            Self::Text => ErrorCode::TextFrame,
            Self::Late | Self::Silent | Self::Unfinished => ErrorCode::Timeout,
            Self::Flooded | Self::TooMuchInFlight(_) => ErrorCode::Overloaded,
            Self::Wire(error) => error.code(),
            Self::Protocol(error) => error.code(),
            Self::Decode { error, .. } => error.code(),
            Self::HeldOff { .. } => ErrorCode::BackOff,
            Self::Limited(_) => ErrorCode::RateLimited,
            Self::PeerIdInUse => ErrorCode::Forbidden,
            Self::TooManyDocuments | Self::TooManyOfCaller | Self::OutOfMemoryBudget(_) => {
                ErrorCode::TooManyDocuments
            }
            Self::DocumentGone => ErrorCode::StorageFailed,
        }
    }

    fn goodbye(&self) -> Goodbye {
        let (document, hash) = match self {
            Self::Decode { document, error } => (Some(document.clone()), error.hash()),
            _ => (None, None),
        };
        Goodbye {
            detail: self.to_string(),
            document,
            hash,
            ..Goodbye::new(self.code())
        }
    }
}

impl From<axum::Error> for ReadError {
    /// Some of what the socket reports is about what came through it.
    fn from(error: axum::Error) -> Self {
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            match cause.downcast_ref::<tungstenite::Error>() {
                Some(tungstenite::Error::Capacity(_)) => return Self::TooLarge,
                Some(tungstenite::Error::Io(io)) => {
                    let inner = io.get_ref();
                    if let Some(inner) = inner.and_then(|e| e.downcast_ref::<TooMuchInFlight>()) {
                        return Self::TooMuchInFlight(*inner);
                    }
                }
                _ => {}
            }
            source = cause.source();
        }
        Self::Socket(error)
    }
}

impl From<Flooded> for ReadError {
    fn from(_: Flooded) -> Self {
        Self::Flooded
    }
}

impl From<Stalled> for ReadError {
    fn from(_: Stalled) -> Self {
        Self::Unfinished
    }
}

/// Serves a connection until it ends.
pub async fn serve(
    connections: Arc<Connections>,
    socket: WebSocket,
    traffic: Traffic,
    identity: Identity,
    address: IpAddr,
    account: Arc<Account>,
) {
    let id = ConnectionId(connections.next.fetch_add(1, Ordering::Relaxed));
    let trail = identity.trail.on(id.0);
    let identity = Identity { trail, ..identity };
    let backoff = Arc::clone(&connections.backoff);
    let refusals = Arc::clone(&connections.refusals);
    let principal = identity.principal.clone();
    let caller = Arc::new(Caller::new(
        id, principal, address, account, backoff, refusals,
    ));
    let outbox = Arc::new(Outbox::new(caller));
    let (sent, pings) = watch::channel(None);
    let (identity, shown) = watch::channel(identity);
    let (sink, stream) = socket.split();
    let writer = Writer {
        id,
        sink,
        traffic: traffic.clone(),
        outbox: Arc::clone(&outbox),
        pings: sent,
        metrics: connections.metrics.clone(),
        keep_alive: connections.keep_alive,
        stall: connections.stall,
    };
    let mut writer = tokio::spawn(writer.run());
    let mut is_over = false;
    let mut reader = Reader {
        id,
        connections: &connections,
        stream,
        ahead: None,
        acted_on: traffic.read(),
        arriving: Arriving::new(traffic.read(), connections.stall),
        pongs: Pongs::default(),
        traffic,
        outbox: &outbox,
        pings,
        identity,
        next_token: Instant::now(),
        has_joined: false,
        documents: HashMap::new(),
        permits: None,
    };
    let end = {
        let mut running = pin!(reader.run());
        tokio::select! {
            end = &mut running => end,
            () = renewal::over(shown) => {
                is_over = true;
                outbox.abandon(Goodbye::new(ErrorCode::TokenExpired));
                running.await
            }
        }
    };
    let open = reader.documents.drain();
    for document in open.filter_map(|(_, place)| place.inside()) {
        if matches!(end, ReadError::Stopping) {
            // What the document has taken in from here it makes durable and acknowledges as it ends.
            let _in_time = timeout(connections.drain, document.closed()).await;
        } else {
            let _gone = document.send(Delivery::Input(Input::Leave(id))).await;
        }
    }
    let goodbye = end.goodbye();
    match end {
        ReadError::Silent => outbox.abandon(goodbye),
        _ => outbox.close(goodbye),
    }
    reader.record_end();
    // What still comes is taken and dropped, or the peer might lose what it was told: an unread
    // byte makes a close a reset. Once it was told everything its answer is waited for, not longer.
    let ending = async {
        tokio::select! {
            told = &mut writer => told,
            () = reader.drop_rest(false) => (&mut writer).await,
        }
    };
    let told = if is_over {
        // Nobody may take their time with what they have no right to any more.
        timeout(CLOSE_TIMEOUT, ending).await.ok()
    } else {
        Some(ending.await)
    };
    let Some(told) = told else {
        writer.abort();
        return;
    };
    if matches!(told, Ok(true)) {
        let _in_time = timeout(CLOSE_TIMEOUT, reader.drop_rest(true)).await;
    }
}

struct Reader<'a> {
    id: ConnectionId,
    connections: &'a Arc<Connections>,
    stream: SplitStream<WebSocket>,
    /// What came while the message before it was decoded.
    ahead: Option<Result<Arrived, ReadError>>,
    /// The bytes of the connection up to the end of the message that is being acted on.
    acted_on: u64,
    arriving: Arriving,
    pongs: Pongs,
    traffic: Traffic,
    outbox: &'a Arc<Outbox>,
    pings: watch::Receiver<Option<Ping>>,
    /// Whose the connection is, by the last token that was shown.
    identity: watch::Sender<Identity>,
    /// Before which no other is looked at.
    next_token: Instant,
    has_joined: bool,
    documents: HashMap<DocumentId, Place>,
    /// One for each of them, in what its caller may have.
    permits: Option<OwnedSemaphorePermit>,
}

/// A message, and how many bytes of the connection had been read when it was whole.
struct Arrived {
    message: Spoken,
    read: u64,
}

impl<'a> Reader<'a> {
    async fn run(&mut self) -> ReadError {
        let mut open = match self.join().await {
            Ok(open) => open,
            Err(error) => return error,
        };
        self.connections.metrics.connections.increment(1);
        self.has_joined = true;
        self.trail().record(&Event::Begun);
        let mut lobby = Lobby::new();
        let mut taken = 0_usize;
        let end = loop {
            if let Err(error) = self.step(&mut open, &mut lobby).await {
                break error;
            }
            taken = taken.wrapping_add(1);
            if taken.is_multiple_of(MESSAGES_PER_TURN) {
                tokio::task::yield_now().await;
            }
        };
        self.connections.metrics.connections.decrement(1);
        self.connections.peers.leave(open.peer(), self.id);
        end
    }

    /// What whoever is there has had of the server.
    fn account(&self) -> &'a Account {
        self.outbox.caller().account()
    }

    fn trail(&self) -> Trail {
        self.identity.borrow().trail.clone()
    }

    /// Whoever ended the connection, it has been said why.
    fn record_end(&self) {
        let trail = self.trail();
        let Some(goodbye) = self.outbox.goodbye() else {
            return;
        };
        let code = goodbye.code.as_str();
        if self.has_joined {
            trail.record(&Event::Ended { code });
        } else if goodbye.is_a_refusal() {
            trail.record(&Event::NotBegun { code });
        }
    }

    async fn join(&mut self) -> Result<Open, ReadError> {
        let first = timeout(self.connections.handshake, self.receive());
        let Spoken::Wire(frame) = first.await.map_err(|_| ReadError::Late)?? else {
            return Err(ReadError::Text);
        };
        let message = wire::decode(&frame, &self.connections.limits)?;
        let handshake = Handshake {
            server: self.connections.server.clone(),
        };
        let open = handshake.receive(message)?;
        let caller = self.outbox.caller();
        // Before it could replace a connection that is served on.
        if let Some(wait) = caller.held() {
            return Err(ReadError::HeldOff { wait });
        }
        caller.joined(open.peer());
        self.connections
            .peers
            .join(open.peer(), caller.principal(), self.id, self.outbox)
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

    async fn step(&mut self, open: &mut Open, lobby: &mut Lobby) -> Result<(), ReadError> {
        let outbox = self.outbox;
        let frame = tokio::select! {
            biased;
            put_out = outbox.outs() => return self.put_out(put_out, lobby).await,
            event = lobby.next() => return self.attend(event, open, lobby).await,
            arrived = self.receive() => match arrived? {
                Spoken::Wire(frame) => frame,
                Spoken::Own(text) => {
                    self.afford_message(text.len()).await?;
                    return self.renew(&text, lobby).await;
                }
            },
        };
        self.afford_message(frame.len()).await?;
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
                let decoded = self.decode(&document, data).await?;
                self.afford_changes(decoded.changes.len()).await?;
                let (handle, is_new) = match self.document(&document, open, lobby).await? {
                    Found::Here(handle, is_new) => (handle, is_new),
                    Found::NotHere(is_news) => {
                        if is_request || is_news {
                            lobby.ask(&document, self.connections.request_grace);
                        }
                        return Ok(());
                    }
                };
                let message = PeerMessage {
                    principal: self.outbox.caller().principal().clone(),
                    storage: open.storage().cloned(),
                    is_request,
                    sync: decoded.sync,
                    changes: decoded.changes,
                    is_document: decoded.is_document,
                    // The document says, when it comes to it.
                    may_write: false,
                };
                let input = Input::Message(self.id, Box::new(message));
                self.deliver(&handle, input).await?;
                if is_new {
                    self.subscribe(&handle, open).await?;
                }
                Ok(())
            }
            Action::Ephemeral(document, ephemeral) => {
                // To who has the document open here; opening it for this would be a way to fill memory.
                match self.documents.get(&document) {
                    Some(Place::Inside(handle)) => {
                        self.deliver(handle, Input::Ephemeral(self.id, ephemeral))
                            .await
                    }
                    _ => Ok(()),
                }
            }
            Action::Subscriptions(storages) => {
                for place in self.documents.values() {
                    if let Place::Inside(handle) = place {
                        let input = Input::Subscribe(self.id, Arc::clone(&storages));
                        self.deliver(handle, input).await?;
                    }
                }
                Ok(())
            }
            Action::Leave => Err(ReadError::Left),
            Action::Ignore => Ok(()),
        }
    }

    /// Waits until whoever is there may have more. Nothing is read meanwhile but one message, so that a peer that sends too
    /// much feels it; and what it has sent is not dropped, which nobody would notice.
    async fn afford_message(&mut self, bytes: usize) -> Result<(), ReadError> {
        let due = self.account().message(bytes, self.connections.stall);
        Ok(self.unless_gone(due).await??)
    }

    /// The same, for the changes in it.
    async fn afford_changes(&mut self, number: usize) -> Result<(), ReadError> {
        let due = self.account().changes(number, self.connections.stall);
        Ok(self.unless_gone(due).await??)
    }

    /// A message that takes long waits for its turn, and only as long as the peer is there.
    async fn decode(&mut self, document: &DocumentId, data: Bytes) -> Result<Decoded, ReadError> {
        let connections = self.connections;
        let account = self.account();
        let limits = connections.limits;
        let refused = |error| ReadError::Decode {
            document: document.clone(),
            error,
        };
        if let Some(decoded) = decode::at_once(&data, &limits).map_err(refused)? {
            return Ok(decoded);
        }
        let permit = self
            .unless_gone(connections.decoders.medium(account))
            .await?;
        let medium = decode::medium(permit, data.clone(), limits);
        if let Some(decoded) = self.meanwhile(medium).await.map_err(refused)? {
            return Ok(decoded);
        }
        let permit = self
            .unless_gone(connections.decoders.large(account))
            .await?;
        let large = decode::large(permit, data, limits);
        self.meanwhile(large).await.map_err(refused)
    }

    /// Waits for `work`, or for the end of the connection.
    async fn unless_gone<T>(&mut self, work: impl Future<Output = T>) -> Result<T, ReadError> {
        tokio::select! {
            biased;
            done = work => Ok(done),
            end = self.read_ahead() => Err(end),
        }
    }

    /// Waits for `work`. Should the connection end, that is acted on afterwards: what was sent in good
    /// time is not lost by going.
    async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        tokio::select! {
            biased;
            done = &mut work => return done,
            end = self.read_ahead() => self.ahead = Some(Err(end)),
        }
        work.await
    }

    /// Takes in one message, not to act on yet, and resolves when the connection ends. A peer that goes
    /// after that message is noticed by the writer, whose pings fail.
    async fn read_ahead(&mut self) -> ReadError {
        let ahead = match self.ahead.take() {
            Some(ahead) => ahead,
            None => self.listen().await,
        };
        match ahead {
            Ok(arrived) => self.ahead = Some(Ok(arrived)),
            Err(end) => return end,
        }
        tokio::select! {
            () = self.outbox.closing().cancelled() => ReadError::Ended,
            () = self.connections.stop.cancelled() => ReadError::Stopping,
        }
    }

    /// The next message. All before it were acted on.
    async fn receive(&mut self) -> Result<Spoken, ReadError> {
        self.traffic.settle(self.acted_on);
        let arrived = match self.ahead.take() {
            Some(ahead) => ahead?,
            None => self.listen().await?,
        };
        self.acted_on = arrived.read;
        let metrics = &self.connections.metrics;
        metrics.frames_in.increment(1);
        metrics.bytes_in.increment(arrived.message.bytes() as u64);
        Ok(arrived.message)
    }

    /// Reads from the socket until a message is whole.
    async fn listen(&mut self) -> Result<Arrived, ReadError> {
        let mut waiting = Instant::now();
        self.arriving.resume(waiting);
        loop {
            let frame = tokio::select! {
                biased;
                () = self.outbox.closing().cancelled() => return Err(ReadError::Ended),
                () = self.connections.stop.cancelled() => return Err(ReadError::Stopping),
                // First, so that what has come is counted before it is missed.
                frame = self.stream.next() => Some(frame.ok_or(ReadError::Closed)??),
                ping = patience::unanswered(&mut self.pings, waiting) => {
                    if self.traffic.arrived() <= ping.arrived {
                        return Err(ReadError::Silent);
                    }
                    waiting = Instant::now();
                    None
                }
                () = sleep(self.arriving.pace()) => None,
            };
            let read = self.traffic.read();
            match frame {
                Some(Frame::Binary(bytes)) => {
                    self.arriving.whole(read);
                    let message = Spoken::Wire(bytes);
                    return Ok(Arrived { message, read });
                }
                Some(Frame::Text(text)) => {
                    self.arriving.whole(read);
                    let message = Spoken::Own(text);
                    return Ok(Arrived { message, read });
                }
                Some(Frame::Close(_)) => return Err(ReadError::Closed),
                Some(Frame::Ping(payload)) => {
                    self.arriving.control(payload.len());
                    self.pongs.owe(payload.len(), self.traffic.written())?;
                    waiting = Instant::now();
                }
                Some(Frame::Pong(payload)) => {
                    self.arriving.control(payload.len());
                    waiting = Instant::now();
                }
                None => {}
            }
            self.arriving.look(read, Instant::now())?;
        }
    }

    /// Reads and drops until the peer closes; or asks for more pongs than it takes, as long as they are
    /// made: until it was told the end.
    async fn drop_rest(&mut self, told: bool) {
        self.ahead = None;
        while let Some(Ok(frame)) = self.stream.next().await {
            self.traffic.settle(self.traffic.read());
            if let Frame::Ping(payload) = frame {
                let owed = self.pongs.owe(payload.len(), self.traffic.written());
                if owed.is_err() && !told {
                    return;
                }
            }
        }
    }
}
