//! Clients below the level of messages: bytes and frames as no WebSocket library sends them.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use automerge::transaction::Transactable as _;
use automerge::{AutoCommit, ROOT};
use bytes::Bytes;
use concord_shared::ErrorCode;
use concord_shared::ids::{DocumentId, PeerId};
use concord_shared::limits::Limits;
use concord_shared::wire::{self, Message, PROTOCOL_VERSION, PeerMetadata};
use concord_tests::raw_client::Refusal;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{Message as Frame, WebSocket};

use crate::changes;
use crate::slow::{CHANGE_BYTES, incompressible};
use crate::world::{ANSWER, World, code_of};

/// First bytes of frames.
const CONTINUATION: u8 = 0x00;
const BINARY: u8 = 0x02;
const PING: u8 = 0x09;
const PONG: u8 = 0x0a;
const FINAL: u8 = 0x80;

/// A WebSocket that has joined: written byte by byte, read as one reads a WebSocket.
struct Bare {
    out: TcpStream,
    socket: WebSocket<TcpStream>,
    peer: PeerId,
    server: PeerId,
}

impl Bare {
    fn join(world: &World, peer: &str) -> Result<Self> {
        let mut out = TcpStream::connect(world.server.address())?;
        out.set_read_timeout(Some(ANSWER))?;
        out.write_all(
            b"GET /sync HTTP/1.1\r\nHost: concord\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
            Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            out.read_exact(&mut byte)?;
            head.extend(byte);
        }
        let peer = PeerId::new(peer)?;
        let join = Message::Join {
            sender: peer.clone(),
            metadata: PeerMetadata {
                storage_id: None,
                is_ephemeral: true,
            },
            versions: vec![PROTOCOL_VERSION.to_owned()],
        };
        let mut client = Self {
            socket: WebSocket::from_raw_socket(out.try_clone()?, Role::Client, None),
            out,
            server: peer.clone(),
            peer,
        };
        client.send(FINAL | BINARY, &join.encode())?;
        let Message::Peer { sender, .. } = client.next()? else {
            bail!("a join was not answered by peer");
        };
        client.server = sender;
        Ok(client)
    }

    /// A frame.
    fn send(&mut self, first: u8, payload: &[u8]) -> Result<()> {
        self.out.write_all(&header(first, payload.len()))?;
        self.out.write_all(payload)?;
        Ok(())
    }

    fn next(&mut self) -> Result<Message> {
        loop {
            if let Frame::Binary(bytes) = self.socket.read()? {
                return Ok(wire::decode(&bytes, &Limits::default())?);
            }
        }
    }

    /// Reads until the server closes.
    fn refusal(&mut self) -> Result<Refusal> {
        let mut message = None;
        loop {
            match self.socket.read()? {
                Frame::Binary(bytes) => {
                    if let Message::Error { message: text, .. } =
                        wire::decode(&bytes, &Limits::default())?
                    {
                        message = Some(text);
                    }
                }
                Frame::Close(close) => {
                    let close = close.context("a close frame with a code")?;
                    return Ok(Refusal {
                        message,
                        close_code: Some(close.code.into()),
                        reason: close.reason.to_string(),
                    });
                }
                _ => {}
            }
        }
    }
}

/// A frame's header with the mask that changes nothing.
fn header(first: u8, payload: usize) -> Vec<u8> {
    const MASKED: u8 = 0x80;
    let mut header = vec![first];
    if payload < 126 {
        header.push(MASKED | payload as u8);
    } else {
        header.push(MASKED | 127);
        header.extend((payload as u64).to_be_bytes());
    }
    header.extend([0; 4]);
    header
}

/// Each ping is answered into a buffer.
#[test]
fn pings_without_end_whose_answers_nobody_reads_are_refused() {
    unread_pongs().expect("all is as promised");
}

fn unread_pongs() -> Result<()> {
    // What would be written after these, the kernel holds.
    const MOST_BYTES: usize = 256 << 20;
    let world = World::start(&["--keep-alive-seconds", "600"], 96)?;
    let mut client = Bare::join(&world, "pings")?;
    client.out.set_write_timeout(Some(Duration::from_secs(1)))?;
    let mut pings = Vec::new();
    for _ in 0..500 {
        pings.extend(header(FINAL | PING, 125));
        pings.extend([b'x'; 125]);
    }
    let mut sent = 0;
    while world.refused(ErrorCode::Overloaded)? < 1.0 {
        ensure!(sent < MOST_BYTES, "{sent} bytes of pings were taken");
        // Nobody reads the rest, and a part of a frame is as good as none.
        let Ok(()) = client.out.write_all(&pings) else {
            break;
        };
        sent += pings.len();
    }
    println!("{sent} bytes were taken");
    let refusal = client.refusal()?;
    let code = code_of(&refusal)?;
    ensure!(code == ErrorCode::Overloaded, "refused by {refusal:?}");
    world.finish()
}

/// Seconds in which a message must get on, and those between pings.
const STALL_SECONDS: u64 = 4;
const KEEP_ALIVE_SECONDS: u64 = 1;

/// How fast a slow uplink carries a message that takes it longer than both.
const UPLINK_BYTES_PER_SECOND: usize = 64 << 10;
const SLOW_MESSAGE_BYTES: usize = 6 * UPLINK_BYTES_PER_SECOND;
const STEPS_PER_SECOND: u32 = 20;

fn short_times() -> [String; 4] {
    [
        "--stall-seconds".to_owned(),
        STALL_SECONDS.to_string(),
        "--keep-alive-seconds".to_owned(),
        KEEP_ALIVE_SECONDS.to_string(),
    ]
}

#[test]
fn a_message_that_takes_long_to_come_is_taken() {
    slow_message().expect("all is as promised");
}

fn slow_message() -> Result<()> {
    let times = short_times();
    let world = World::start(&times.each_ref().map(String::as_str), 192)?;
    let mut doc = AutoCommit::new();
    for n in 0..SLOW_MESSAGE_BYTES / CHANGE_BYTES {
        doc.put(ROOT, n.to_string(), incompressible(n))?;
        doc.commit();
    }
    let upload = changes::sync(&doc.get_heads(), &doc.save());
    let mut client = Bare::join(&world, "uplink")?;
    let message = Message::Sync {
        document: DocumentId::new("uplink")?,
        sender: client.peer.clone(),
        target: client.server.clone(),
        data: Bytes::from(upload),
    };
    let message = message.encode();
    let start = Instant::now();
    client
        .out
        .write_all(&header(FINAL | BINARY, message.len()))?;
    // No ping is answered: that would have to wait for the rest.
    for piece in message.chunks(UPLINK_BYTES_PER_SECOND / STEPS_PER_SECOND as usize) {
        std::thread::sleep(Duration::from_secs(1) / STEPS_PER_SECOND);
        client.out.write_all(piece)?;
    }
    let took = start.elapsed();
    println!("it took {took:?}");
    let least = Duration::from_secs(STALL_SECONDS);
    ensure!(took > least, "it took {took:?}: that is not slow");
    let answer = client.next()?;
    let is_taken = matches!(answer, Message::Sync { .. });
    ensure!(is_taken, "answered by {answer:?}");
    world.finish()
}

#[test]
fn a_message_that_is_begun_and_not_gone_on_with_is_refused() {
    unfinished_message().expect("all is as promised");
}

fn unfinished_message() -> Result<()> {
    let times = short_times();
    let world = World::start(&times.each_ref().map(String::as_str), 192)?;
    let mut client = Bare::join(&world, "unfinished")?;
    let start = Instant::now();
    client.send(BINARY, &vec![0; 8 << 20])?;
    // It is there, answers pings, and now and then sends a little more.
    let most = Duration::from_secs(3 * STALL_SECONDS);
    while world.refused(ErrorCode::Timeout)? < 1.0 {
        ensure!(start.elapsed() < most, "held after {:?}", start.elapsed());
        client.send(FINAL | PONG, b"")?;
        client.send(CONTINUATION, b"a little")?;
        std::thread::sleep(Duration::from_millis(100));
    }
    println!("refused after {:?}", start.elapsed());
    let least = Duration::from_secs(STALL_SECONDS);
    ensure!(start.elapsed() >= least, "after {:?}", start.elapsed());
    let refusal = client.refusal()?;
    let code = code_of(&refusal)?;
    ensure!(code == ErrorCode::Timeout, "refused by {refusal:?}");
    world.finish()
}

#[test]
fn unfinished_messages_of_many_are_bounded_together() {
    many_unfinished_messages().expect("all is as promised");
}

fn many_unfinished_messages() -> Result<()> {
    // All of theirs would be 4 times as much as may be: 256 MiB and as much again in buffers.
    const LARGEST_MIB: usize = 4;
    const CLIENTS: usize = 64;
    let largest = LARGEST_MIB.to_string();
    let world = World::start(&["--max-message-mib", &largest], 192)?;
    let begun = vec![0; (LARGEST_MIB << 20) - 1];
    let mut clients = Vec::new();
    for n in 0..CLIENTS {
        let mut client = Bare::join(&world, &format!("unfinished-{n}"))?;
        // Refused while it writes, perhaps.
        let _written = client.send(BINARY, &begun);
        clients.push(client);
    }
    let start = Instant::now();
    let refused = loop {
        let refused = world.refused(ErrorCode::Overloaded)?;
        if refused >= CLIENTS as f64 * 0.7 {
            break refused;
        }
        ensure!(start.elapsed() < ANSWER, "{refused} were refused");
        std::thread::sleep(Duration::from_millis(50));
    };
    println!("{refused} of {CLIENTS} were refused");
    world.finish()
}
