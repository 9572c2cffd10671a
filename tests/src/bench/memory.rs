//! What open documents and idle connections take, from the growth of the server's resident memory.

use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use concord_client_wasm::Joining;
use concord_shared::limits::Limits;
use concord_shared::sync::split;
use concord_shared::wire::{Message, SyncFrame, decode};
use concord_shared::{DocumentId, PeerId};
use futures_util::SinkExt as _;
use tokio_tungstenite::tungstenite::Message as Frame;

use super::Settings;
use super::history::Base;
use super::process::{RelayProcess, resident_bytes, start_concord};
use super::stats::{Spread, figure};
use super::tab::{connect, join, new_document, next_frame, sync_message};
use super::table::Row;
use crate::server_process::ServerProcess;

/// How many documents, or connections, share one growth.
const MANY: usize = 1000;
const KIB: f64 = 1024.0;

/// The server settles this long before its memory is read.
const SETTLE: Duration = Duration::from_millis(500);

/// Measures both.
pub async fn measure(settings: &Settings) -> Result<Vec<Row>> {
    let many = settings.size(MANY, 20);
    let base = Base::user()?;
    let (mut documents, mut connections, mut bare) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..settings.rounds {
        documents.push(open_documents(&base, many).await? / KIB);
        connections.push(idle_connections(many).await? / KIB);
        bare.push(idle_relay_connections(settings, many).await? / KIB);
    }
    let (documents, connections) = (Spread::of(documents), Spread::of(connections));
    let kib = |figure: f64| format!("{figure:.1} KiB");
    Ok(vec![
        Row {
            what: format!("memory: an open document ({}) after a restart", base.name),
            concord: documents.show(kib),
            baseline: format!("{} B saved, {} changes", base.saved.len(), base.changes),
            ratio: String::new(),
            budget: Some(("≤ 16 KiB".to_owned(), documents.median <= 16.0)),
        },
        Row {
            what: "memory: an idle connection".to_owned(),
            concord: connections.show(kib),
            baseline: format!("bare relay: {}", Spread::of(bare).show(kib)),
            ratio: String::new(),
            budget: Some(("≤ 24 KiB".to_owned(), connections.median <= 24.0)),
        },
    ])
}

/// Bytes that each of `many` stored documents takes that one connection opens after a restart.
async fn open_documents(base: &Base, many: usize) -> Result<f64> {
    let mut server = start_concord()?;
    let ids: Vec<DocumentId> = (0..many).map(|_| new_document()).collect();
    exchange(&server, base, &ids, true).await?;
    server.terminate()?;
    server.restart()?;
    // What the first document brings with it, threads and buffers, is not the documents'.
    let (first, rest) = ids.split_first().context("no documents")?;
    let _open = exchange(&server, base, std::slice::from_ref(first), false).await?;
    let process = server.process_id().context("the server does not run")?;
    tokio::time::sleep(SETTLE).await;
    let before = resident_bytes(process)?;
    let _open_too = exchange(&server, base, rest, false).await?;
    tokio::time::sleep(SETTLE).await;
    Ok(figure(resident_bytes(process)?.saturating_sub(before)) / figure(rest.len() as u64))
}

/// Uploads or opens documents, one after the other, on one connection, which stays open.
pub(super) async fn exchange(
    server: &ServerProcess,
    base: &Base,
    ids: &[DocumentId],
    upload: bool,
) -> Result<impl Sized + use<>> {
    let url = server.websocket_url();
    let mut socket = connect(&url).await?;
    let us = PeerId::new(&format!("memory-{}", new_document()))?;
    let (joining, hello) = Joining::start(us.clone(), None);
    socket.send(Frame::Binary(hello)).await?;
    let open = joining.receive(&next_frame(&mut socket).await?, &Limits::default())?;
    for id in ids {
        let header = SyncFrame::new(id, &us, open.server());
        let data = match upload {
            true => sync_message(&base.heads, &[], Some(&base.saved)),
            false => sync_message(&[], &[], None),
        };
        socket.send(Frame::Binary(header.with(&data))).await?;
        while !announces(&next_frame(&mut socket).await?, base)? {}
        // As a client that has it now.
        socket
            .send(Frame::Binary(header.with(&sync_message(
                &base.heads,
                &base.heads,
                None,
            ))))
            .await?;
    }
    Ok(socket)
}

fn announces(frame: &Bytes, base: &Base) -> Result<bool> {
    let Message::Sync { data, .. } = decode(frame, &Limits::default())? else {
        return Ok(false);
    };
    Ok(split(&data, &Limits::default())?.message.heads == base.heads)
}

async fn idle_connections(many: usize) -> Result<f64> {
    let server = start_concord()?;
    let process = server.process_id().context("the server does not run")?;
    let nowhere = new_document();
    let _first = join(&server.websocket_url(), &nowhere).await?;
    tokio::time::sleep(SETTLE).await;
    let before = resident_bytes(process)?;
    let mut open = Vec::new();
    for _ in 0..many {
        open.push(join(&server.websocket_url(), &nowhere).await?);
    }
    tokio::time::sleep(SETTLE).await;
    Ok(figure(resident_bytes(process)?.saturating_sub(before)) / figure(many as u64))
}

async fn idle_relay_connections(settings: &Settings, many: usize) -> Result<f64> {
    let relay = RelayProcess::start(settings, None)?;
    let process = relay.process_id();
    let _first = connect(&relay.room("idle")).await?;
    tokio::time::sleep(SETTLE).await;
    let before = resident_bytes(process)?;
    let mut open = Vec::new();
    for _ in 0..many {
        open.push(connect(&relay.room("idle")).await?);
    }
    tokio::time::sleep(SETTLE).await;
    Ok(figure(resident_bytes(process)?.saturating_sub(before)) / figure(many as u64))
}
