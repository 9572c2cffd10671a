//! Clients that take their time: they do not read while others write, nor when they are told to go, or
//! connect and do not say what they want.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use automerge::transaction::Transactable as _;
use automerge::{ActorId, ROOT, ReadDoc as _};
use concord_client_wasm::replica::Replica;
use concord_shared::ErrorCode;
use concord_shared::ids::DocumentId;
use concord_tests::client::Client;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket};

use crate::world::World;

/// Clients that join and do not read.
const READERS: usize = 16;

/// Changes that the writer makes meanwhile, and the bytes of each.
const CHANGES: usize = 3_000;
pub(crate) const CHANGE_BYTES: usize = 4 << 10;

/// More than before, while they do not read. Queued without a bound it would be 12 MB for each, 192 MB together.
const MOST_GROWTH_MIB: u64 = 112;

/// Once they read, each gets what it missed in one message of 12 MB.
const MOST_MEMORY_MIB: u64 = 512;

/// What a slow reader's kernel buffers, small so that the server feels it at once.
const RECEIVE_BUFFER_BYTES: u32 = 4 << 10;

#[test]
fn readers_that_stop_are_caught_up_later_and_hold_up_nobody() {
    slow_readers().expect("all is as promised");
}

fn slow_readers() -> Result<()> {
    // They don't answer pings either: that is another test's.
    let folder = tempfile::tempdir()?;
    let settings = folder.path().join("concord.toml");
    std::fs::write(&settings, "keep-alive-seconds = 600\n")?;
    let settings = settings.to_string_lossy();
    let world = World::start(&["--config", &settings], MOST_MEMORY_MIB)?;
    let address = world.server.address();
    let replica = |name: &str| Replica::new(world.document.clone(), ActorId::from(name.as_bytes()));
    world.runtime.block_on(async {
        let mut readers = Vec::new();
        for n in 0..READERS {
            let name = format!("reader-{n}");
            let buffer = Some(RECEIVE_BUFFER_BYTES);
            let mut reader =
                Client::join_with_buffer(address, &name, replica(&name), buffer).await?;
            // Its first edit is acknowledged: from here on it is sent all that others do.
            reader.edit(|doc| doc.put(ROOT, name, true)).await?;
            reader.settle().await?;
            readers.push(reader);
        }
        let mut writer = Client::join(address, "writer", replica("writer")).await?;
        let before = world.memory_mib()?;
        let start = Instant::now();
        for n in 0..CHANGES {
            let text = incompressible(n);
            writer.edit(|doc| doc.put(ROOT, "big", text)).await?;
            if n % 50 == 0 {
                writer.settle().await?;
            }
        }
        writer.settle().await?;
        println!("{CHANGES} changes after {:?}", start.elapsed());
        let overflows = world.server.metric("concord_outbox_overflows_total")?;
        ensure!(
            overflows >= READERS as f64,
            "{overflows} overflows: nobody was slow"
        );
        let memory = world.memory_mib()?;
        println!("{before} MiB before, {memory} MiB before they read");
        ensure!(
            memory <= before + MOST_GROWTH_MIB,
            "{before} MiB before, {memory} MiB for those who do not read"
        );
        let heads = writer.replica().server_heads().unwrap_or_default().to_vec();
        for reader in &mut readers {
            let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
            let mut has = false;
            while !has {
                ensure!(reader.receive(deadline, drop).await?, "not caught up");
                reader.send().await?;
                let doc = reader.replica().doc();
                has = heads
                    .iter()
                    .all(|head| doc.get_change_by_hash(head).is_some());
            }
        }
        println!("caught up after {:?}", start.elapsed());
        anyhow::Ok(())
    })?;
    world.finish()
}

/// Text that neither Automerge nor the disk makes smaller, different for each `n`.
pub(crate) fn incompressible(n: usize) -> String {
    let mut state = n as u64 + 1;
    let letter = |_| {
        // Any generator will do.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        char::from(b'!' + u8::try_from(state >> 33 & 63).unwrap_or(0))
    };
    (0..CHANGE_BYTES).map(letter).collect()
}

#[test]
fn a_client_that_does_not_read_its_refusal_is_let_go() {
    unread_refusals().expect("all is as promised");
}

fn unread_refusals() -> Result<()> {
    let world = World::start(&[], 128)?;
    // The honest clients' and the listener are there.
    std::thread::sleep(Duration::from_millis(500));
    let before = world.sockets()?;
    let clients = world.runtime.block_on(async {
        let mut clients = Vec::new();
        for n in 0..50 {
            let mut client = world.join(&format!("deaf-{n}")).await?;
            client.send_bytes(b"\xf6").await?;
            clients.push(client);
        }
        anyhow::Ok(clients)
    })?;
    let start = Instant::now();
    // Twice the time that a peer gets to answer a close frame, and some.
    while world.sockets()? > before {
        ensure!(
            start.elapsed() < Duration::from_secs(10),
            "{} sockets are open, {before} were",
            world.sockets()?
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    println!("let go after {:?}", start.elapsed());
    drop(clients);
    world.finish()
}

/// Seconds in which a connection must have sent its request.
const HEADER_SECONDS: u64 = 3;

/// WebSockets at a time, and the sockets that may be open beyond these.
const CONNECTIONS: usize = 10;
const OTHER_SOCKETS: usize = 256;

/// The one the server listens on, and those that the process has for its own use.
const OWN_SOCKETS: usize = 8;

#[test]
fn connections_that_ask_for_nothing_are_few_and_closed_soon() {
    silent_connections().expect("all is as promised");
}

fn silent_connections() -> Result<()> {
    let (seconds, connections) = (HEADER_SECONDS.to_string(), CONNECTIONS.to_string());
    let limits = [
        "--handshake-seconds",
        &seconds,
        "--max-connections",
        &connections,
    ];
    let world = World::start(&limits, 128)?;
    // The honest clients' and the listener are there.
    std::thread::sleep(Duration::from_millis(500));
    let before = world.sockets()?;
    let half = b"GET /sync HTTP/1.1\r\nHost: concord\r\nX-Slow: ";
    let whole = b"GET /healthz HTTP/1.1\r\nHost: concord\r\n\r\n";
    let body = b"GET /healthz HTTP/1.1\r\nHost: concord\r\nContent-Length: 100\r\n\r\nx";
    let asked: [&[u8]; 4] = [b"", half, whole, body];
    let mut silent = Vec::new();
    // One in four is answered and closed at once; the others are more than may be open.
    for n in 0..CONNECTIONS + OTHER_SOCKETS + 200 {
        let mut stream = TcpStream::connect(world.server.address())?;
        stream.write_all(asked[n % asked.len()])?;
        silent.push(stream);
    }
    let start = Instant::now();
    let mut most = 0;
    let mut answered_while_full = false;
    // Those beyond the limit are accepted when others are closed, and have their time, too.
    let deadline = Duration::from_secs(2 * HEADER_SECONDS + 4);
    loop {
        let sockets = world.sockets()?;
        most = most.max(sockets);
        if sockets <= before {
            break;
        }
        if !answered_while_full {
            // In its turn.
            ensure!(world.server.get("/healthz")?.0 == 200, "no answer");
            answered_while_full = true;
        }
        ensure!(
            start.elapsed() < deadline,
            "{sockets} sockets are open, {before} were"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    println!("at most {most} sockets, closed after {:?}", start.elapsed());
    let limit = CONNECTIONS + OTHER_SOCKETS + OWN_SOCKETS;
    let tried = CONNECTIONS + OTHER_SOCKETS;
    ensure!(most >= tried, "{most} sockets: the limit was not tried");
    ensure!(most <= limit, "{most} sockets, more than {limit}");
    // Those with half a request, or none.
    let counted = world
        .server
        .metric("concord_limited_total{limit=\"handshakes\"}")?;
    let due = silent.len() / 2;
    ensure!(counted >= due as f64, "{counted} of {due} counted");
    for mut stream in silent {
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        // Whether by an end or a reset: it must not go on.
        let mut rest = Vec::new();
        if let Err(error) = stream.read_to_end(&mut rest) {
            let waited = error.kind() == std::io::ErrorKind::WouldBlock;
            ensure!(!waited, "a connection is still open");
        }
    }
    world.finish()
}

/// Seconds in which a peer must take something, and those between pings.
const STALL_SECONDS: u64 = 4;
const KEEP_ALIVE_SECONDS: u64 = 1;

/// A document that is sent in one message, and how fast it is taken: much longer than a stall for all
/// of it, and longer than between two pings for what the kernel holds when the last of it was written.
const DOCUMENT_BYTES: usize = 768 << 10;
const SLOW_BYTES_PER_SECOND: usize = 40 << 10;

#[test]
fn a_reader_that_is_slow_and_steady_gets_it_all() {
    steady_reader().expect("all is as promised");
}

fn steady_reader() -> Result<()> {
    let (stall, keep_alive) = (STALL_SECONDS.to_string(), KEEP_ALIVE_SECONDS.to_string());
    let times = [
        "--stall-seconds",
        &stall,
        "--keep-alive-seconds",
        &keep_alive,
    ];
    let world = World::start(&times, 192)?;
    world.runtime.block_on(async {
        let _writer = write_much(&world).await?;
        let link = slow_link(world.server.address()).await?;
        let start = Instant::now();
        let replica = Replica::new(large(), ActorId::from(b"steady".as_slice()));
        let mut reader = Client::join(link, "steady", replica).await?;
        let deadline = tokio::time::Instant::now() + Duration::from_mins(1);
        while reader.replica().doc().get(ROOT, LAST)?.is_none() {
            ensure!(reader.receive(deadline, drop).await?, "not all has come");
            reader.send().await?;
        }
        let took = start.elapsed();
        println!("it took {took:?}");
        // And is still connected.
        reader.edit(|doc| doc.put(ROOT, "steady", true)).await?;
        reader.settle().await?;
        let least = Duration::from_secs(3 * STALL_SECONDS);
        ensure!(took > least, "it took {took:?}: that is not slow");
        anyhow::Ok(())
    })?;
    world.finish()
}

#[test]
fn a_reader_that_takes_nothing_is_let_go_and_counted() {
    stuck_reader().expect("all is as promised");
}

fn stuck_reader() -> Result<()> {
    let stall = STALL_SECONDS.to_string();
    let times = ["--stall-seconds", &stall, "--keep-alive-seconds", "600"];
    let world = World::start(&times, 192)?;
    let _writer = world.runtime.block_on(write_much(&world))?;
    let before = world.sockets()?;
    let _stuck = world.runtime.block_on(stuck(&world, "stuck"))?;
    let most = Duration::from_secs(2 * STALL_SECONDS + 5);
    let took = let_go(&world, before, most)?;
    let least = Duration::from_secs(STALL_SECONDS);
    ensure!(took >= least, "let go after {took:?} already");
    let counted = world.refused(ErrorCode::Timeout)?;
    ensure!((counted - 1.0).abs() < 0.5, "counted {counted} times");
    world.finish()
}

#[test]
fn a_reader_that_takes_nothing_and_was_replaced_is_let_go_sooner() {
    replaced_reader().expect("all is as promised");
}

fn replaced_reader() -> Result<()> {
    let world = World::start(&["--keep-alive-seconds", "600"], 192)?;
    let _writer = world.runtime.block_on(write_much(&world))?;
    let before = world.sockets()?;
    let _stuck = world.runtime.block_on(stuck(&world, "tab"))?;
    let new = world.runtime.block_on(world.join("tab"))?;
    // A fraction of the minute that a peer has to take something.
    let_go(&world, before + 1, Duration::from_secs(15))?;
    drop(new);
    world.finish()
}

/// A client that has asked for the document of [`write_much`] and takes nothing of it.
async fn stuck(world: &World, name: &str) -> Result<Client> {
    let replica = Replica::new(large(), ActorId::from(name.as_bytes()));
    let buffer = Some(RECEIVE_BUFFER_BYTES);
    let client = Client::join_with_buffer(world.server.address(), name, replica, buffer).await?;
    // By now the message is being written.
    tokio::time::sleep(Duration::from_millis(500)).await;
    Ok(client)
}

/// Waits until no more than so many sockets are open.
fn let_go(world: &World, sockets: usize, most: Duration) -> Result<Duration> {
    let start = Instant::now();
    while world.sockets()? > sockets {
        ensure!(start.elapsed() < most, "held for {:?}", start.elapsed());
        std::thread::sleep(Duration::from_millis(50));
    }
    println!("let go after {:?}", start.elapsed());
    Ok(start.elapsed())
}

/// Set when [`write_much`] is done.
const LAST: &str = "last";

/// Not the honest clients' document: of their edits alone there are more than a slow link carries.
fn large() -> DocumentId {
    DocumentId::from_uuid([0xd1; 16])
}

/// Makes [`large`] so.
async fn write_much(world: &World) -> Result<Client> {
    let replica = Replica::new(large(), ActorId::from(b"much".as_slice()));
    let mut writer = Client::join(world.server.address(), "much", replica).await?;
    for n in 0..DOCUMENT_BYTES / CHANGE_BYTES {
        let text = incompressible(n);
        writer.edit(|doc| doc.put(ROOT, "big", text)).await?;
    }
    writer.edit(|doc| doc.put(ROOT, LAST, true)).await?;
    writer.settle().await?;
    Ok(writer)
}

/// A way to the server that carries little at a time from there, all the time.
async fn slow_link(server: SocketAddr) -> Result<SocketAddr> {
    const STEPS_PER_SECOND: usize = 20;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        let (client, _) = listener.accept().await?;
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
        let (mut from_server, mut to_server) = socket.connect(server).await?.into_split();
        let (mut from_client, mut to_client) = client.into_split();
        tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
        let mut piece = vec![0; SLOW_BYTES_PER_SECOND / STEPS_PER_SECOND];
        let mut steps = tokio::time::interval(Duration::from_secs(1) / STEPS_PER_SECOND as u32);
        loop {
            steps.tick().await;
            let read = from_server.read(&mut piece).await?;
            to_client.write_all(&piece[..read]).await?;
            if read == 0 {
                return anyhow::Ok(());
            }
        }
    });
    Ok(address)
}
