//! TCP connections: accepting them, counting them, TLS on them where the server speaks it, and HTTP until one becomes a
//! WebSocket.
//!
//! A connection costs a file descriptor from its first packet on, long before it can be refused by
//! what it asks. So each takes a slot before it is accepted, keeps it until its socket is closed,
//! whoever owns that by then, and has little time for its handshake, and to ask and be answered. `axum::serve` would do
//! neither: it has no limit, and no timer.

use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
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

use self::handshake::{Stream, handshake};
use self::wire::Wire;
use crate::limits::account::Place;
use crate::limits::{Callers, Limit};
use crate::metrics::Metrics;
use crate::permit::{Permit, turn};
use crate::tls::Tls;
use crate::traffic::{InFlight, Traffic};

mod handshake;
mod wire;

/// TCP connections beyond those that may be `WebSockets`: they are asking for something, or were just
/// refused. While all `WebSockets` are in use, operators are still answered, in one of these.
const HTTP_CONNECTIONS_PER_SERVER: usize = 256;

/// The last of all slots, one of so many parts, are for addresses that have few connections: whoever holds hundreds can't
/// shut out those who come for one.
const PARTS_OF_WHICH_ONE_IS_KEPT: usize = 8;

/// TCP connections at a time where so many may be `WebSockets`.
pub fn slots(max_connections: usize) -> usize {
    max_connections.saturating_add(HTTP_CONNECTIONS_PER_SERVER)
}

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

/// What a connection holds of its address's share, in its requests' extensions, until it is one that stays: those are
/// counted by who is on them.
#[derive(Debug, Clone)]
pub struct Pass(Arc<Mutex<Vec<Place>>>);

impl Pass {
    /// Gives it back.
    pub fn give_back(&self) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }
}

/// What somebody is told who has too many connections, where that can be told without a handshake.
const REFUSAL: &[u8] = b"HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/problem+json\r\n\
    Content-Length: 106\r\nRetry-After: 1\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n\
    {\"type\":\"urn:concord:problem:rate-limited\",\"title\":\"Too Many Requests\",\"status\":429,\"code\":\"rate-limited\"}";

/// After how long somebody is told who makes connections too fast.
const FAST_PAUSE: Duration = Duration::from_secs(1);

/// Accepts and serves connections, `most` at a time, until `stop`; then lets them finish their
/// answers. They are encrypted by `tls`, if it is there: in its own task each, so that nobody waits for another's handshake,
/// which must be made within `headers`. A request must have come within as long from then on, and finds a [`Traffic`] in its extensions, which
/// counts towards `in_flight`, its [`Origin`], its [`Lease`] and its [`Pass`]. An address that has too many, by what `callers` has of
/// it, is turned away before that costs more than a packet.
/// Further connections wait in the kernel's queue: among the slots are always some that are free soon.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    tls: Option<Tls>,
    headers: Duration,
    bounds: Bounds,
    stop: CancellationToken,
) {
    let Bounds {
        most,
        in_flight,
        callers,
    } = bounds;
    let slots = Arc::new(Semaphore::new(most));
    let kept = most / PARTS_OF_WHICH_ONE_IS_KEPT;
    let is_encrypted = tls.is_some();
    let open = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accept(&listener, &slots, kept, &in_flight, &callers, is_encrypted) => accepted,
        };
        let (router, tls, stop) = (router.clone(), tls.clone(), stop.clone());
        open.spawn(answer(accepted, router, tls, headers, stop));
    }
    drop(listener);
    open.close();
    open.wait().await;
}

/// What all connections together may have.
#[derive(Debug)]
pub struct Bounds {
    /// Connections at a time.
    pub most: usize,
    /// What has arrived and was not acted on.
    pub in_flight: Arc<InFlight>,
    /// What each address may have.
    pub callers: Arc<Callers>,
}

/// A TCP connection with its slot.
struct Accepted {
    wire: Wire,
    address: IpAddr,
    slot: Permit,
    pass: Pass,
    /// Its address makes too many in too little time.
    is_fast: bool,
}

async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
    kept: usize,
    in_flight: &Arc<InFlight>,
    callers: &Callers,
    is_encrypted: bool,
) -> Accepted {
    let slot = turn(slots).await;
    loop {
        match listener.accept().await {
            Ok((tcp, address)) => {
                let is_crowded = slots.available_permits() < kept;
                let Some((places, is_fast)) = callers.arrive(address.ip(), is_crowded) else {
                    refuse(&tcp, is_encrypted);
                    continue;
                };
                tune(&tcp);
                let traffic = Traffic::new(Arc::clone(in_flight));
                return Accepted {
                    wire: Wire { tcp, traffic },
                    address: address.ip(),
                    slot,
                    pass: Pass(Arc::new(Mutex::new(places))),
                    is_fast,
                };
            }
            Err(error) if is_exhausted(&error) => {
                error!(%error, "can't accept connections");
                sleep(ACCEPT_PAUSE).await;
            }
            // That one connection failed before it was accepted, by whatever the network said of it.
            Err(error) => debug!(%error, "a connection failed before it was accepted"),
        }
    }
}

/// Whether there is nothing left for one more connection, of the process or the machine.
#[cfg(unix)]
fn is_exhausted(error: &io::Error) -> bool {
    let of_all = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM];
    error
        .raw_os_error()
        .is_some_and(|code| of_all.contains(&code))
}

/// Likewise. What else it may be is not known there.
#[cfg(not(unix))]
fn is_exhausted(error: &io::Error) -> bool {
    !matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    )
}

/// Best effort: a new connection takes so little at once, if it takes anything.
fn refuse(tcp: &TcpStream, is_encrypted: bool) {
    if !is_encrypted {
        let _told = tcp.try_write(REFUSAL);
        // What it has sent already is taken: unread, it would make the end a reset, which takes the answer away.
        let mut dropped = [0; 4096];
        let _dropped = tcp.try_read(&mut dropped);
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
async fn answer(
    accepted: Accepted,
    router: Router,
    tls: Option<Tls>,
    headers: Duration,
    stop: CancellationToken,
) {
    let Accepted {
        wire,
        address,
        slot,
        pass,
        is_fast,
    } = accepted;
    if is_fast {
        // Who is told at once comes again at once. Meanwhile this is one of those that the address may have.
        tokio::select! {
            () = sleep(FAST_PAUSE) => refuse(&wire.tcp, tls.is_some()),
            () = stop.cancelled() => {}
        }
        return;
    }
    let origin = Origin {
        address,
        is_encrypted: tls.is_some(),
    };
    let traffic = wire.traffic.clone();
    let stream = tokio::select! {
        stream = handshake(wire, tls, headers) => stream,
        () = stop.cancelled() => None,
    };
    let Some(stream) = stream else { return };
    let lease = Lease::new();
    let leased = lease.clone();
    let socket = Socket {
        stream,
        traffic: traffic.clone(),
        lease: lease.clone(),
        read: 0,
        _slot: slot,
    };
    let router = TowerToHyperService::new(router);
    // One that is kept open, and has nothing more to ask, is held in against the same time.
    let has_asked = &AtomicBool::new(false);
    let service = service_fn(move |mut request: Request<Incoming>| {
        // A request is acted on at once. What follows it is the next one, or a WebSocket's.
        traffic.settle(traffic.read());
        has_asked.store(true, Ordering::Relaxed);
        request.extensions_mut().insert(traffic.clone());
        request.extensions_mut().insert(origin);
        request.extensions_mut().insert(leased.clone());
        request.extensions_mut().insert(pass.clone());
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
        Some(Err(error)) => {
            if error.is_timeout() && !has_asked.load(Ordering::Relaxed) {
                Metrics::limited(Limit::Handshakes);
            }
            debug!(%error, "HTTP connection failed");
        }
        None => debug!("HTTP connection took too long"),
    }
}

/// Where a connection comes from and how, in its requests' extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The other end of TCP, which may be a proxy's.
    pub address: IpAddr,
    /// Whether this server speaks TLS on it.
    pub is_encrypted: bool,
}

/// A connection that HTTP is spoken on, with its slot, which is free again when this is dropped. Counts what comes as it is
/// acted on: decrypted.
struct Socket {
    stream: Stream,
    traffic: Traffic,
    lease: Lease,
    /// Bytes since the lease was renewed for them.
    read: usize,
    _slot: Permit,
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
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
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn one_connection_that_fails_holds_up_no_other() {
        for (code, exhausted) in [
            (libc::EMFILE, true),
            (libc::ENFILE, true),
            (libc::ECONNABORTED, false),
            (libc::EPROTO, false),
            (libc::EHOSTUNREACH, false),
            (libc::ENETDOWN, false),
        ] {
            let error = io::Error::from_raw_os_error(code);
            assert_eq!(is_exhausted(&error), exhausted, "{error}");
        }
    }

    #[test]
    fn what_is_told_is_as_long_as_it_says() {
        let text = std::str::from_utf8(REFUSAL).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())));
        let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
        assert_eq!(
            body["code"],
            concord_shared::code::ErrorCode::RateLimited.as_str()
        );
    }
}
