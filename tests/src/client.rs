//! An honest client: one [`Replica`] over one WebSocket.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use automerge::{AutoCommit, AutomergeError, ChangeHash};
use bytes::Bytes;
use concord_client_wasm::replica::{Incoming, Joining, Open, Replica};
use concord_shared::ids::PeerId;
use concord_shared::limits::Limits;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::{WebSocketStream, client_async};

/// How long the server may take to answer.
const WAIT: Duration = Duration::from_secs(30);

/// A replica that is connected. Nothing runs by itself: what the server sends waits in the socket
/// until [`receive`](Self::receive), and then in the server.
#[derive(Debug)]
pub struct Client {
    socket: WebSocketStream<TcpStream>,
    open: Open,
    replica: Replica,
    limits: Limits,
}

impl Client {
    /// Connects, joins as `peer` and announces the replica's document.
    pub async fn join(address: SocketAddr, peer: &str, replica: Replica) -> Result<Self> {
        Box::pin(Self::join_with_buffer(address, peer, replica, None)).await
    }

    /// As [`join`](Self::join), with a token in the URL, as stock clients have it.
    pub async fn join_as(
        token: &str,
        address: SocketAddr,
        peer: &str,
        replica: Replica,
    ) -> Result<Self> {
        let url = format!("ws://{address}/sync?token={token}");
        let request = url.into_client_request()?;
        Box::pin(Self::join_at(request, address, peer, replica, None)).await
    }

    /// As [`join`](Self::join), from this address, as a proxy before the server would have it.
    pub async fn join_from(
        from: Ipv4Addr,
        address: SocketAddr,
        peer: &str,
        replica: Replica,
    ) -> Result<Self> {
        let mut request = format!("ws://{address}/sync").into_client_request()?;
        let from = from.to_string().parse()?;
        request.headers_mut().insert("x-forwarded-for", from);
        Box::pin(Self::join_at(request, address, peer, replica, None)).await
    }

    /// As [`join`](Self::join), with a receive buffer of this many bytes in place of the system's.
    pub async fn join_with_buffer(
        address: SocketAddr,
        peer: &str,
        replica: Replica,
        receive_buffer: Option<u32>,
    ) -> Result<Self> {
        let url = format!("ws://{address}/sync");
        let request = url.into_client_request()?;
        let joining = Self::join_at(request, address, peer, replica, receive_buffer);
        Box::pin(joining).await
    }

    async fn join_at(
        request: Request,
        address: SocketAddr,
        peer: &str,
        mut replica: Replica,
        receive_buffer: Option<u32>,
    ) -> Result<Self> {
        let limits = Limits::default();
        let socket = TcpSocket::new_v4()?;
        if let Some(bytes) = receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        let stream = socket.connect(address).await.context("connecting")?;
        stream.set_nodelay(true)?;
        let connecting = client_async(request, stream);
        let (mut socket, _) = timeout(WAIT, connecting).await.context("upgrading")??;
        let (joining, join) = Joining::start(PeerId::new(peer)?, None);
        socket.send(Frame::Binary(join)).await?;
        let answer = timeout(WAIT, socket.next()).await.context("joining")?;
        let answer = answer.context("closed")??;
        let open = joining.receive(&answer.into_data(), &limits)?;
        replica.connect();
        let mut client = Self {
            socket,
            open,
            replica,
            limits,
        };
        client.send().await?;
        Ok(client)
    }

    /// The replica.
    pub fn replica(&mut self) -> &mut Replica {
        &mut self.replica
    }

    /// Who is on the other side.
    pub fn server(&self) -> &PeerId {
        self.open.server()
    }

    /// Commits an edit and sends it.
    pub async fn edit<T>(
        &mut self,
        edit: impl FnOnce(&mut AutoCommit) -> Result<T, AutomergeError>,
    ) -> Result<()> {
        self.replica.change(edit)?;
        self.send().await
    }

    /// Sends all that the replica has to say.
    pub async fn send(&mut self) -> Result<()> {
        while let Some(frame) = self.replica.next_frame(&self.open) {
            self.socket.feed(Frame::Binary(frame)).await?;
        }
        timeout(WAIT, self.socket.flush())
            .await
            .context("sending")??;
        Ok(())
    }

    /// Waits for a message of any type, takes it and all that has come by then, and applies them. The
    /// heads that each tells go to `told` first. Gives `false` if none has come by `deadline`.
    pub async fn receive(
        &mut self,
        deadline: Instant,
        mut told: impl FnMut(Vec<ChangeHash>),
    ) -> Result<bool> {
        let mut any = false;
        let mut until = deadline;
        while let Ok(frame) = timeout_at(until, self.socket.next()).await {
            let frame = frame.context("the server closed the connection")??;
            ensure!(
                !frame.is_close(),
                "the server closes the connection: {frame}"
            );
            if !frame.is_binary() {
                continue;
            }
            any = true;
            until = Instant::now();
            if let Incoming::Sync { data, .. } =
                self.open.receive(&frame.into_data(), &self.limits)?
            {
                told(concord_shared::sync::decode(&data, &self.limits)?.heads);
                self.replica.receive(&data, &self.limits)?;
            }
        }
        self.replica.apply_pending()?;
        Ok(any)
    }

    /// Exchanges messages until the server has all that the replica has.
    pub async fn settle(&mut self) -> Result<()> {
        let deadline = Instant::now() + WAIT;
        self.send().await?;
        while !self.replica.synced() {
            ensure!(
                self.receive(deadline, drop).await?,
                "no acknowledgement within {WAIT:?}"
            );
            self.send().await?;
        }
        Ok(())
    }

    /// Sends one binary frame of any content.
    pub async fn send_frame(&mut self, frame: Bytes) -> Result<()> {
        Ok(self.socket.send(Frame::Binary(frame)).await?)
    }
}
