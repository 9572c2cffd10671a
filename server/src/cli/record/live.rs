//! Recording from a running server, as one of its readers.

use std::fs::File;
use std::io::{BufWriter, IsTerminal as _};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use automerge::{ActorId, ChangeHash};
use bytes::Bytes;
use concord_client_wasm::Replica;
use concord_shared::change::{Chunk, decode_document, parse_message};
use concord_shared::ids::DocumentId;
use concord_shared::limits::Limits;
use concord_shared::sync::split;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::super::client::TokenArgs;
use super::super::replay::client::Client;
use super::super::serve::stop_signal;
use super::create;
use crate::clock::unix_ms;
use crate::replay::Builder;
use crate::replay::file::Writer;

/// The replica applies what has come in this time: each time costs a pass over the texts that it touches. What came is
/// written at once.
const BATCH: Duration = Duration::from_millis(500);

/// A year: longer than anybody waits.
const FOR_EVER: Duration = Duration::from_hours(8760);

/// Changes that wait for one before them. Our server sends each after its deps; others may not.
const MAX_EARLY: usize = 100_000;

/// What to record.
#[derive(Debug)]
pub(super) struct Settings<'a> {
    pub(super) url: &'a str,
    pub(super) token: &'a TokenArgs,
    pub(super) document: &'a DocumentId,
    pub(super) seconds: Option<u64>,
}

/// Writes what comes until it is time to stop; how many changes, and how many of them without a time.
pub(super) async fn record(settings: Settings<'_>, path: &Path) -> anyhow::Result<(u64, u64)> {
    let stop = stop_signal()?;
    let replica = Replica::new(settings.document.clone(), ActorId::random());
    let mut client = Client::connect(settings.url, settings.token, replica, Duration::ZERO).await?;
    client.tapped();
    client.flush().await?;
    let mut recorder = Recorder {
        writer: Writer::new(create(path)?, Some(settings.document))?,
        builder: Builder::new(Some(settings.document.clone())),
        before: None,
        untimed: 0,
        bar: spinner(),
    };
    recorder.writer.flush()?;
    let seconds = settings.seconds.map_or(FOR_EVER, Duration::from_secs);
    let end = sleep_until(Instant::now() + seconds.min(FOR_EVER));
    tokio::pin!(stop, end);
    let ended = loop {
        let more = recorder.gather(&mut client, path);
        tokio::select! {
            result = more => if result.is_err() {
                break result;
            },
            () = &mut stop => break Ok(()),
            () = &mut end => break Ok(()),
        }
    };
    recorder.bar.finish_and_clear();
    if let Err(error) = ended {
        // What was recorded stays, without its last line; a file with nothing in it would only be in the way.
        if recorder.writer.changes() == 0 {
            std::fs::remove_file(path)?;
        }
        return Err(error);
    }
    let (changes, untimed) = (recorder.writer.changes(), recorder.untimed);
    let file = recorder.writer.finish()?.into_inner()?;
    file.sync_all()?;
    Ok((changes, untimed))
}

/// The file, and what is in it.
#[derive(Debug)]
struct Recorder {
    writer: Writer<BufWriter<File>>,
    builder: Builder,
    /// The heads that the server named first: what they cover was there before.
    before: Option<Vec<ChangeHash>>,
    untimed: u64,
    bar: ProgressBar,
}

impl Recorder {
    /// Takes what comes for a while.
    async fn gather(&mut self, client: &mut Client, path: &Path) -> anyhow::Result<()> {
        let until = Instant::now() + BATCH;
        while let Ok(received) = timeout_at(until, client.receive()).await {
            let now_ms = unix_ms();
            for message in client.tapped() {
                self.take(&message, now_ms)
                    .with_context(|| format!("recording to {}", path.display()))?;
            }
            received?;
        }
        client.apply()?;
        client.flush().await
    }

    /// Writes the new changes of one sync message, whole lines only.
    fn take(&mut self, data: &Bytes, now_ms: u64) -> anyhow::Result<()> {
        // The replica has judged the message by the same limits.
        let limits = Limits::default();
        let sync = split(data, &limits)?;
        if self.before.is_none() && !sync.message.heads.is_empty() {
            self.before = Some(sync.message.heads);
        }
        let written = self.builder.changes().len();
        for chunk in parse_message(&sync.changes, &limits)? {
            match chunk {
                Chunk::Change(change) => self.insert(&change.bytes, now_ms)?,
                Chunk::Document(chunk) => {
                    for change in decode_document(&chunk, &limits)? {
                        self.insert(&change.bytes, now_ms)?;
                    }
                }
            }
        }
        let early = self.builder.early();
        ensure!(
            early <= MAX_EARLY,
            "{early} changes came before what they build on"
        );
        let new = self.builder.changes().get(written..);
        for change in new.into_iter().flatten() {
            self.untimed += u64::from(change.arrived_ms.is_none());
            self.writer
                .change(change.bytes(), change.arrived_ms, None)?;
            self.bar.inc(1);
        }
        Ok(self.writer.flush()?)
    }

    fn insert(&mut self, bytes: &Bytes, now_ms: u64) -> anyhow::Result<()> {
        let before = self.before.iter().flatten();
        let is_live = before.into_iter().all(|head| self.builder.has(head));
        Ok(self
            .builder
            .insert_bytes(bytes, is_live.then_some(now_ms))?)
    }
}

/// How much was recorded, where standard error is a terminal.
fn spinner() -> ProgressBar {
    if std::io::stderr().is_terminal() {
        eprintln!("concord: recording; Ctrl-C ends it");
    }
    let bar = ProgressBar::new_spinner();
    match ProgressStyle::with_template("{spinner} {pos} changes, {elapsed}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
