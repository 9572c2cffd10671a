//! A WebSocket client that sends whatever a test wants: good messages, bad ones, and no messages at all.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use concord_shared::limits::Limits;
use concord_shared::wire::{self, Message, PROTOCOL_VERSION, PeerMetadata};
use concord_shared::{DocumentId, PeerId, StorageId};
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::{self, Message as Frame};
use tokio_tungstenite::{
    Connector, MaybeTlsStream, WebSocketStream, connect_async, connect_async_tls_with_config,
};

/// How long the server may take to answer.
const WAIT: Duration = Duration::from_secs(20);

/// One raw connection.
#[derive(Debug)]
pub struct RawClient {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    server: Option<PeerId>,
    /// Where the server keeps what it has.
    storage: Option<StorageId>,
    peer: PeerId,
    /// Text frames that came while something else was waited for.
    texts: VecDeque<String>,
}

/// How the server ended a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The text of the `error` message that came before the close.
    pub message: Option<String>,
    /// The WebSocket close code; `None` when the connection broke without a close frame.
    pub close_code: Option<u16>,
    /// The close frame's reason.
    pub reason: String,
}

impl RawClient {
    /// Opens a socket and says nothing.
    pub async fn connect(url: &str, peer: &str) -> Result<Self> {
        Self::open(url.into_client_request()?, peer).await
    }

    /// As [`connect`](Self::connect), from this address, as a proxy before the server would have it.
    pub async fn connect_from(address: Ipv4Addr, url: &str, peer: &str) -> Result<Self> {
        let mut request = url.into_client_request()?;
        let address = address.to_string().parse()?;
        request.headers_mut().insert("x-forwarded-for", address);
        Self::open(request, peer).await
    }

    /// As [`connect`](Self::connect), by a request that says more.
    pub async fn open(request: Request, peer: &str) -> Result<Self> {
        let (socket, _) = timeout(WAIT, Box::pin(connect_async(request)))
            .await
            .context("connecting")??;
        Ok(Self {
            socket,
            server: None,
            storage: None,
            texts: VecDeque::new(),
            peer: PeerId::new(peer)?,
        })
    }

    /// Opens a socket over TLS, and completes the handshake.
    pub async fn join_over(url: &str, peer: &str, connector: Connector) -> Result<Self> {
        let connecting = connect_async_tls_with_config(url, None, false, Some(connector));
        let (socket, _) = timeout(WAIT, connecting).await.context("connecting")??;
        let client = Self {
            socket,
            server: None,
            storage: None,
            texts: VecDeque::new(),
            peer: PeerId::new(peer)?,
        };
        client.joined().await
    }

    /// Opens a socket and completes the handshake.
    pub async fn join(url: &str, peer: &str) -> Result<Self> {
        Self::connect(url, peer).await?.joined().await
    }

    /// As [`join`](Self::join), where the server may refuse.
    pub async fn try_join(url: &str, peer: &str) -> Result<Result<Self, Refusal>> {
        let mut client = Self::connect(url, peer).await?;
        client.send(&client.join_message()).await?;
        Ok(match client.next().await? {
            Message::Error { message, .. } => Err(Refusal {
                message: Some(message),
                ..client.refusal().await?
            }),
            answer => Ok(client.answered(answer)?),
        })
    }

    /// As [`join`](Self::join), from this address. Who is refused changes again and again has to wait, so
    /// that a test of many refusals needs many addresses.
    pub async fn join_from(address: Ipv4Addr, url: &str, peer: &str) -> Result<Self> {
        Self::connect_from(address, url, peer).await?.joined().await
    }

    /// Completes the handshake.
    pub async fn joined(mut self) -> Result<Self> {
        self.send(&self.join_message()).await?;
        let answer = self.next().await?;
        self.answered(answer)
    }

    fn answered(mut self, answer: Message) -> Result<Self> {
        match answer {
            Message::Peer {
                sender,
                version,
                metadata,
                ..
            } => {
                ensure!(version == PROTOCOL_VERSION, "selected version {version}");
                self.server = Some(sender);
                self.storage = metadata.storage_id;
                Ok(self)
            }
            other => bail!("a join was answered by {other:?}"),
        }
    }

    /// Who joined.
    pub fn peer(&self) -> &PeerId {
        &self.peer
    }

    /// Who answered the join.
    pub fn server(&self) -> Result<&PeerId> {
        self.server.as_ref().context("not joined")
    }

    /// Where who answered keeps what they have.
    pub fn storage(&self) -> Result<&StorageId> {
        self.storage.as_ref().context("no storage")
    }

    /// A correct `join` for this peer.
    pub fn join_message(&self) -> Message {
        Message::Join {
            sender: self.peer.clone(),
            metadata: PeerMetadata {
                storage_id: None,
                is_ephemeral: true,
            },
            versions: vec![PROTOCOL_VERSION.to_owned()],
        }
    }

    /// A `sync` from this peer to the server, around `data`.
    pub fn sync_message(&self, document: &str, data: &[u8]) -> Result<Message> {
        Ok(Message::Sync {
            document: DocumentId::new(document)?,
            sender: self.peer.clone(),
            target: self.server()?.clone(),
            data: Bytes::copy_from_slice(data),
        })
    }

    /// Asks for a document, as one who has nothing of it: by a sync message that says nothing.
    pub async fn ask(&mut self, document: &DocumentId) -> Result<()> {
        let request = Message::Request {
            document: document.clone(),
            sender: self.peer.clone(),
            target: self.server()?.clone(),
            data: Bytes::from_static(&[0x42, 0, 0, 0, 0]),
        };
        self.send(&request).await
    }

    /// Sends one message.
    pub async fn send(&mut self, message: &Message) -> Result<()> {
        self.send_frame(Frame::Binary(message.encode())).await
    }

    /// Sends one binary frame of any content.
    pub async fn send_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.send_frame(Frame::Binary(Bytes::copy_from_slice(bytes)))
            .await
    }

    /// Sends a text frame.
    pub async fn send_text(&mut self, text: &str) -> Result<()> {
        self.send_frame(Frame::text(text)).await
    }

    async fn send_frame(&mut self, frame: Frame) -> Result<()> {
        timeout(WAIT, self.socket.send(frame))
            .await
            .context("sending")??;
        Ok(())
    }

    /// The next message.
    pub async fn next(&mut self) -> Result<Message> {
        match timeout(WAIT, self.next_or_end())
            .await
            .context("waiting for a message")??
        {
            Ok(message) => Ok(message),
            Err(refusal) => bail!("the server closed the connection: {refusal:?}"),
        }
    }

    /// The next text frame; messages before it are passed over.
    pub async fn next_text(&mut self) -> Result<String> {
        let next = async {
            loop {
                if let Some(text) = self.texts.pop_front() {
                    return Ok(text);
                }
                match self.socket.next().await {
                    Some(Ok(Frame::Text(text))) => return Ok(text.to_string()),
                    Some(Ok(Frame::Binary(_) | Frame::Ping(_) | Frame::Pong(_))) => {}
                    other => bail!("{other:?}"),
                }
            }
        };
        timeout(WAIT, next).await.context("waiting for a text")?
    }

    /// Reads until the server closes; messages other than `error` are passed over.
    pub async fn refusal(&mut self) -> Result<Refusal> {
        self.refusal_after(drop).await
    }

    /// As [`refusal`](Self::refusal); `seen` is given the other messages.
    pub async fn refusal_after(&mut self, mut seen: impl FnMut(Message)) -> Result<Refusal> {
        let mut told = None;
        timeout(WAIT, async {
            loop {
                match self.next_or_end().await? {
                    Ok(Message::Error { message, .. }) => told = Some(message),
                    Ok(message) => seen(message),
                    Err(refusal) => {
                        return Ok(Refusal {
                            message: told.take(),
                            ..refusal
                        });
                    }
                }
            }
        })
        .await
        .context("the server did not close the connection")?
    }

    async fn next_or_end(&mut self) -> Result<Result<Message, Refusal>> {
        let mut end = Refusal {
            message: None,
            close_code: None,
            reason: String::new(),
        };
        loop {
            match self.socket.next().await {
                Some(Ok(Frame::Binary(bytes))) => {
                    return Ok(Ok(wire::decode(&bytes, &Limits::default())?));
                }
                Some(Ok(Frame::Text(text))) => self.texts.push_back(text.to_string()),
                Some(Ok(Frame::Close(Some(close)))) => {
                    end.close_code = Some(close.code.into());
                    end.reason = close.reason.to_string();
                }
                Some(Ok(_)) => {}
                None | Some(Err(tungstenite::Error::ConnectionClosed)) => return Ok(Err(end)),
                Some(Err(tungstenite::Error::Protocol(_) | tungstenite::Error::Io(_))) => {
                    return Ok(Err(end));
                }
                Some(Err(error)) => return Err(error.into()),
            }
        }
    }
}
