//! The measure: a WebSocket broadcast relay that does nothing else.
//!
//! The same WebSocket library and buffers as Concord's, a broadcast channel per room, no CRDT, no disk, no
//! parsing. The first byte of a frame says what to do with it: [`BROADCAST`] to everybody in the room, its
//! sender too (who takes that as the acknowledgement), [`ANSWER`] to nobody: it stands for the sync message
//! with which an Automerge client answers, which a relay takes in and is done with. [`SEND_FILE`] reads the
//! file named at the start and sends it: what joining costs when there is nothing to do but that.

use std::collections::HashMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use axum::Router;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::get;
use axum::serve::ListenerExt as _;
use bytes::Bytes;
use concord_server::http::{WEBSOCKET_READ_BUFFER_BYTES, WEBSOCKET_WRITE_BUFFER_BYTES};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpListener;
use tokio::sync::broadcast;

/// First byte of a frame for everybody.
pub const BROADCAST: u8 = 0;
/// First byte of a frame for nobody.
pub const ANSWER: u8 = 1;
/// The only byte of a frame that asks for the file.
pub const SEND_FILE: u8 = 2;

/// Frames a room keeps for its slowest member. No run sends more, so none is lost.
pub const ROOM_FRAMES: usize = 1 << 16;

type Rooms = Arc<Mutex<HashMap<String, broadcast::Sender<Bytes>>>>;

#[derive(Clone)]
struct Relay {
    rooms: Rooms,
    file: Arc<Option<PathBuf>>,
    room_frames: usize,
}

/// Serves until the process is killed, having said where it listens.
pub async fn serve(listen: SocketAddr, file: Option<PathBuf>, room_frames: usize) -> Result<()> {
    let listener = TcpListener::bind(listen).await?;
    writeln!(
        std::io::stdout(),
        "relay listening on http://{}",
        listener.local_addr()?
    )?;
    let relay = Relay {
        rooms: Rooms::default(),
        file: Arc::new(file),
        room_frames,
    };
    let router = Router::new()
        .route("/room/{name}", get(enter))
        .with_state(relay);
    let listener = listener.tap_io(|tcp| {
        let _best_effort = tcp.set_nodelay(true);
    });
    axum::serve(listener, router).await?;
    Ok(())
}

async fn enter(
    State(relay): State<Relay>,
    Path(name): Path<String>,
    upgrade: WebSocketUpgrade,
) -> Response {
    // Before the upgrade is answered: who is connected misses nothing.
    let room = {
        let mut rooms = relay.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        rooms
            .entry(name)
            .or_insert_with(|| broadcast::channel(relay.room_frames).0)
            .clone()
    };
    let frames = room.subscribe();
    upgrade
        .read_buffer_size(WEBSOCKET_READ_BUFFER_BYTES)
        .write_buffer_size(WEBSOCKET_WRITE_BUFFER_BYTES)
        .on_upgrade(move |socket| member(socket, room, frames, relay.file))
}

async fn member(
    socket: WebSocket,
    room: broadcast::Sender<Bytes>,
    mut frames: broadcast::Receiver<Bytes>,
    file: Arc<Option<PathBuf>>,
) {
    let (mut sink, mut stream) = socket.split();
    let (direct, mut files) = tokio::sync::mpsc::channel::<Bytes>(1);
    let writer = tokio::spawn(async move {
        loop {
            let frame = tokio::select! {
                frame = frames.recv() => match frame {
                    Ok(frame) => frame,
                    // A lost frame ends the connection, so that a run with losses fails.
                    Err(_) => return,
                },
                Some(frame) = files.recv() => frame,
            };
            if sink.feed(Message::Binary(frame)).await.is_err() {
                return;
            }
            // As many frames a flush as there are.
            while let Ok(frame) = frames.try_recv() {
                if sink.feed(Message::Binary(frame)).await.is_err() {
                    return;
                }
            }
            if sink.flush().await.is_err() {
                return;
            }
        }
    });
    while let Some(Ok(message)) = stream.next().await {
        let Message::Binary(frame) = message else {
            continue;
        };
        match frame.first() {
            Some(&BROADCAST) => drop(room.send(frame)),
            Some(&SEND_FILE) => {
                if let Some(path) = file.as_ref()
                    && let Ok(bytes) = tokio::fs::read(path).await
                {
                    drop(direct.send(bytes.into()).await);
                }
            }
            _ => {}
        }
    }
    writer.abort();
}
