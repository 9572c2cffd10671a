//! Opening a stored document after the server was restarted, and catching up after a short absence.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use automerge::ChangeHash;
use bytes::Bytes;
use concord_shared::DocumentId;
use concord_shared::limits::Limits;
use concord_shared::sync::split;
use concord_shared::wire::{Message, decode};
use futures_util::SinkExt as _;
use tokio_tungstenite::tungstenite::Message as Frame;

use super::history::Base;
use super::process::{RelayProcess, start_concord};
use super::relay::SEND_FILE;
use super::stats::{Spread, count, figure};
use super::tab::{Part, Tab, connect, count_changes, join, new_document, next_frame, sync_message};
use super::table::Row;
use super::{Bases, Settings};
use crate::server_process::ServerProcess;

/// Changes that a client missed which was away for a moment.
const MISSED: usize = 10;

/// Bytes that catching up on them may take.
const CATCH_UP_BUDGET_BYTES: f64 = 4000.0;

/// Joins take milliseconds, of which the machine's other work is a part: many give a median.
const JOINS_PER_ROUND: usize = 7;

/// What it took to get a document up to date.
struct Fetched {
    seconds: f64,
    bytes: u64,
    changes: u64,
}

/// Measures both.
pub async fn measure(settings: &Settings, bases: &Bases) -> Result<Vec<Row>> {
    let base = &bases.large;
    let mut server = start_concord()?;
    let document = new_document();
    let script = Arc::new(base.script(1, MISSED)?);
    let part = Part {
        script: Arc::clone(&script),
        writer: Some(0),
        window: MISSED,
        answers: true,
    };
    drop(Tab::open(&server.websocket_url(), &document, base, true, part.clone()).await?);

    let directory = tempfile::tempdir()?;
    let file = directory.path().join("document");
    std::fs::write(&file, &base.saved)?;
    let (mut concord, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..settings.rounds * JOINS_PER_ROUND {
        server.terminate()?;
        server.restart()?;
        concord.push(fetch(&server, &document, &[], &base.heads).await?);
        bare.push(send_file(settings, &file).await?);
    }
    let mut rows = joined(base, &concord, &bare);

    let mut typing = Tab::open(&server.websocket_url(), &document, base, false, part).await?;
    typing.run().await?;
    let last = script
        .changes
        .first()
        .and_then(|changes| changes.last())
        .context("an empty script")?
        .hash;
    let mut caught_up = Vec::new();
    for _ in 0..settings.rounds {
        let fetched = fetch(&server, &document, &base.heads, &[last]).await?;
        ensure!(
            fetched.changes == MISSED as u64,
            "{} changes where {MISSED} were missed",
            fetched.changes
        );
        caught_up.push(figure(fetched.bytes));
    }
    let bytes = Spread::of(caught_up);
    rows.push(Row {
        what: format!("catching up: {MISSED} missed changes of {}", base.name),
        concord: format!("{} B", bytes.show(count)),
        baseline: String::new(),
        ratio: String::new(),
        budget: Some(("≤ 4 kB".to_owned(), bytes.most <= CATCH_UP_BUDGET_BYTES)),
    });
    Ok(rows)
}

fn joined(base: &Base, concord: &[Fetched], bare: &[Fetched]) -> Vec<Row> {
    let bytes = Spread::of(concord.iter().map(|fetched| figure(fetched.bytes)));
    let size_ratio = Spread::of(
        concord
            .iter()
            .map(|fetched| figure(fetched.bytes) / figure(base.saved.len() as u64)),
    );
    let time_ratio = Spread::of(
        concord
            .iter()
            .zip(bare)
            .map(|(concord, bare)| concord.seconds / bare.seconds),
    );
    let millis = |all: &[Fetched]| {
        Spread::of(all.iter().map(|fetched| fetched.seconds * 1e3))
            .show(|millis| format!("{millis:.2} ms"))
    };
    vec![
        Row {
            what: format!("joining {} after a restart: bytes", base.name),
            concord: format!("{} B", bytes.show(count)),
            baseline: format!(
                "saved compact: {} B",
                count(figure(base.saved.len() as u64))
            ),
            ratio: size_ratio.to_string(),
            budget: Some(("≤ 1.1".to_owned(), size_ratio.median <= 1.1)),
        },
        Row {
            what: format!("joining {} after a restart: time", base.name),
            concord: millis(concord),
            baseline: format!(
                "bare relay reading and sending those bytes: {}",
                millis(bare)
            ),
            ratio: time_ratio.to_string(),
            budget: Some(("≤ 1.5".to_owned(), time_ratio.median <= 1.5)),
        },
    ]
}

/// Opens `document` as a client that has `known` of it, until it has `wanted`.
async fn fetch(
    server: &ServerProcess,
    document: &DocumentId,
    known: &[ChangeHash],
    wanted: &[ChangeHash],
) -> Result<Fetched> {
    let (mut socket, header) = join(&server.websocket_url(), document).await?;
    let request: Bytes = header.with(&sync_message(known, known, None));
    let mut fetched = Fetched {
        seconds: 0.0,
        bytes: 0,
        changes: 0,
    };
    let started = Instant::now();
    socket.send(Frame::Binary(request)).await?;
    loop {
        let frame = next_frame(&mut socket).await?;
        fetched.seconds = started.elapsed().as_secs_f64();
        fetched.bytes += frame.len() as u64;
        let Message::Sync { data, .. } = decode(&frame, &Limits::default())? else {
            bail!("the server did not answer with a sync message");
        };
        let sync = split(&data, &Limits::default())?;
        for blob in &sync.changes {
            fetched.changes += count_changes(blob)?;
        }
        if sync.message.heads == wanted {
            return Ok(fetched);
        }
    }
}

async fn send_file(settings: &Settings, file: &Path) -> Result<Fetched> {
    let relay = RelayProcess::start(settings, Some(file))?;
    let mut socket = connect(&relay.room("file")).await?;
    let started = Instant::now();
    socket
        .send(Frame::Binary(Bytes::from_static(&[SEND_FILE])))
        .await?;
    let frame = next_frame(&mut socket).await?;
    Ok(Fetched {
        seconds: started.elapsed().as_secs_f64(),
        bytes: frame.len() as u64,
        changes: 0,
    })
}
