//! TCP connections: accepting them, counting them, and HTTP on them until one becomes a WebSocket.
//!
//! A connection costs a file descriptor from its first packet on, long before it can be refused by
//! what it asks. So each takes a slot before it is accepted, keeps it until its socket is closed,
//! whoever owns that by then, and has little time to ask and be answered. `axum::serve` would do
//! neither: it has no limit, and no timer.

use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, error};

use crate::permit::{Permit, turn};
use crate::traffic::{InFlight, Traffic};

/// TCP connections beyond those that may be `WebSockets`: they are asking for something, or were just
/// refused. While all `WebSockets` are in use, operators are still answered, in one of these.
pub const HTTP_CONNECTIONS_PER_SERVER: usize = 256;

/// A connection that has not become a WebSocket by then, and has no [`Lease`] for longer, may finish the request that it
/// is in, as long again, and is closed. Long enough that whoever asks every few seconds can mostly do it on one connection.
const HTTP_TIMEOUT: Duration = Duration::from_mins(1);

/// How long that may take where the server stops.
const HTTP_LAST_ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of requests with which a connection may go on: a large body takes its time.
const READ_BYTES_PER_LEASE: usize = 1 << 20;

/// What is buffered of a request's headers before it is refused.
const REQUEST_BYTES_PER_CONNECTION: usize = 32 << 10;

/// Written and not yet sent bytes that the kernel may hold for a connection, which by default is
/// megabytes. What it holds nobody can replace by something newer, and as it takes more only when the
/// peer has taken some, a little of it makes progress visible early.
const UNSENT_BYTES_PER_CONNECTION: u32 = 128 << 10;

/// After an error of the whole process, such as having no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// How long an HTTP connection may go on, in its requests' extensions. An answer that goes on for long, such as a stream
/// of events, [`renews`](Self::renew) it as long as its client takes what it is sent; and so does a large body as long as
/// it comes.
#[derive(Debug, Clone)]
pub struct Lease(Arc<Mutex<Instant>>);

impl Lease {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now() + HTTP_TIMEOUT)))
    }

    /// From now on it has as long as it had from the beginning.
    pub fn renew(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now() + HTTP_TIMEOUT;
    }

    /// Waits until it is over.
    async fn over(&self) {
        loop {
            let end = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if end <= Instant::now() {
                return;
            }
            sleep_until(end).await;
        }
    }
}

/// Accepts and serves connections, `most` at a time, until `stop`; then lets them finish their
/// answers. A request must have come within `headers`, and finds a [`Traffic`] in its extensions, which
/// counts towards `in_flight`, its [`Origin`] and its [`Lease`].
/// Further connections wait in the kernel's queue: among the slots are always some that are free soon.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    most: usize,
    headers: Duration,
    in_flight: Arc<InFlight>,
    stop: CancellationToken,
) {
    let slots = Arc::new(Semaphore::new(most));
    let open = TaskTracker::new();
    loop {
        let socket = tokio::select! {
            () = stop.cancelled() => break,
            socket = accept(&listener, &slots, &in_flight) => socket,
        };
        open.spawn(answer(socket, router.clone(), headers, stop.clone()));
    }
    drop(listener);
    open.close();
    open.wait().await;
}

async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
    in_flight: &Arc<InFlight>,
) -> Socket {
    let slot = turn(slots).await;
    loop {
        match listener.accept().await {
            Ok((tcp, address)) => {
                tune(&tcp);
                return Socket {
                    origin: Origin(address.ip()),
                    tcp,
                    traffic: Traffic::new(Arc::clone(in_flight)),
                    lease: Lease::new(),
                    read: 0,
                    _slot: slot,
                };
            }
            // That one connection failed before it was accepted.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionRefused
                        | io::ErrorKind::ConnectionAborted
                        | io::ErrorKind::ConnectionReset
                ) => {}
            Err(error) => {
                error!(%error, "can't accept connections");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Best effort: a connection without these works, too.
fn tune(tcp: &TcpStream) {
    // A keystroke must not wait for the next one to fill a segment.
    let _untuned = tcp.set_nodelay(true);
    #[cfg(target_os = "linux")]
    let _untuned = socket2::SockRef::from(tcp).set_tcp_notsent_lowat(UNSENT_BYTES_PER_CONNECTION);
}

/// HTTP, until the connection ends or becomes a WebSocket.
async fn answer(socket: Socket, router: Router, headers: Duration, stop: CancellationToken) {
    let traffic = socket.traffic.clone();
    let origin = socket.origin;
    let router = TowerToHyperService::new(router);
    let lease = socket.lease.clone();
    let leased = lease.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        // A request is acted on at once. What follows it is the next one, or a WebSocket's.
        traffic.settle(traffic.read());
        request.extensions_mut().insert(traffic.clone());
        request.extensions_mut().insert(origin);
        request.extensions_mut().insert(leased.clone());
        router.call(request)
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(headers)
        .max_buf_size(REQUEST_BYTES_PER_CONNECTION);
    let connection = http.serve_connection(TokioIo::new(socket), service);
    let mut connection = pin!(connection.with_upgrades());
    let mut ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = lease.over() => None,
        () = stop.cancelled() => None,
    };
    if ended.is_none() {
        connection.as_mut().graceful_shutdown();
        lease.renew();
        ended = tokio::select! {
            ended = connection.as_mut() => Some(ended),
            () = lease.over() => None,
            () = stop.cancelled() => timeout(HTTP_LAST_ANSWER_TIMEOUT, connection).await.ok(),
        };
    }
    match ended {
        Some(Ok(())) => {}
        Some(Err(error)) => debug!(%error, "HTTP connection failed"),
        None => debug!("HTTP connection took too long"),
    }
}

/// Where a TCP connection comes from, in its requests' extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin(pub IpAddr);

/// A TCP connection with its slot, which is free again when this is dropped.
#[derive(Debug)]
struct Socket {
    origin: Origin,
    tcp: TcpStream,
    traffic: Traffic,
    lease: Lease,
    /// Bytes since the lease was renewed for them.
    read: usize,
    _slot: Permit,
}

impl Socket {
    fn wrote(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = &written {
            self.traffic.add_written(*bytes);
        }
        written
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.tcp).poll_read(cx, buffer);
        if matches!(read, Poll::Ready(Ok(()))) {
            let bytes = buffer.filled().len() - before;
            self.read = self.read.saturating_add(bytes);
            if self.read >= READ_BYTES_PER_LEASE {
                self.read = 0;
                self.lease.renew();
            }
            self.traffic.add_read(bytes)?;
        }
        read
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write(cx, bytes);
        self.wrote(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write_vectored(cx, slices);
        self.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
